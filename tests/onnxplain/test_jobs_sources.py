"""Where a job's pictures come from: files, archives, tables and what Python holds."""

import io
import json
import os
import shutil
import sys
import tarfile
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image as Pillow

from onnxplain import ParameterError, PictureError
from onnxplain.jobs import Job, Output, storage
from onnxplain.jobs.items import Item, Part
from onnxplain.jobs.listing import Listing
from onnxplain.jobs.sources import Finished, find_source, tables
from onnxplain.jobs.sources.labels import translation
from onnxplain.targets import class_of
from toy_bundle import CLASSES, LABELS

CLASS_OF = partial(class_of, classes=CLASSES, labels=LABELS)
links = pytest.mark.skipif(sys.platform == "win32", reason="needs links, pipes and rights")


def found(given, labels=None, **columns):
    """The items of a source."""
    source = find_source(given, labels, CLASS_OF, columns)
    return list(source.items()) if hasattr(source, "items") else list(source)


def names(items, folder=None):
    return [item.name if folder is None else str(Path(item.name).relative_to(folder)) for item in items]


def png(seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), np.uint8)
    return cv2.imencode(".png", pixels)[1].tobytes()


def put(folder, *paths):
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(png(len(path)))
    return folder


# Folders, patterns and lists.


def test_a_folder_gives_its_pictures_in_the_order_of_names_hidden_ones_left_out(tmp_path):
    written = ["b/2.jpg", "b/10.JPG", "z.png", "a/c/x.webp", "A.png", "b/.hidden.png", ".cache/1.png", "b/notes.md"]
    put(tmp_path, *written)
    expected = ["A.png", "z.png", "a/c/x.webp", "b/10.JPG", "b/2.jpg"]
    assert names(found(tmp_path), tmp_path) == expected
    assert names(found([str(tmp_path)]), tmp_path) == expected


@links
def test_the_order_is_not_the_file_systems(tmp_path, monkeypatch):
    put(tmp_path, *(f"{name}.png" for name in "hgfedcba"), "y/1.png", "x/1.png")
    before = names(found(tmp_path))
    scan = os.scandir

    class Reversed(list):
        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

    def reverse(path):
        with scan(path) as entries:
            return Reversed(sorted(entries, key=lambda entry: entry.name, reverse=True))

    monkeypatch.setattr(os, "scandir", reverse)
    assert names(found(tmp_path)) == before == sorted(before, key=lambda name: (name.count("/"), name))


@links
def test_links_are_followed_and_loops_are_not(tmp_path):
    put(tmp_path, "pics/a/1.png", "other/2.png")
    (tmp_path / "pics/a/up").symlink_to(tmp_path / "pics")
    (tmp_path / "pics/self.png").symlink_to("self.png")
    (tmp_path / "pics/other").symlink_to(tmp_path / "other")
    assert names(found(tmp_path / "pics"), tmp_path) == ["pics/self.png", "pics/a/1.png", "pics/other/2.png"]
    assert names(found(tmp_path / "pics/**/*.png"), tmp_path) == names(found(tmp_path / "pics"), tmp_path)


def test_a_deep_folder_is_no_matter(tmp_path):
    deep = tmp_path
    for _ in range(300):
        deep = deep / "d"
    deep.mkdir(parents=True)
    put(deep, "x.png")
    assert len(found(tmp_path)) == 1


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.png", ["1.png"]),
        ("*/*.png", ["a/2.png", "b/3.png"]),
        ("**/*.png", ["1.png", "a/2.png", "a/c/4.png", "b/3.png"]),
        ("**", ["1.png", "a/2.png", "a/c/4.png", "b/3.png"]),
        ("a/**/[34].png", ["a/c/4.png"]),
        ("[ab]/?.png", ["a/2.png", "b/3.png"]),
        ("**/c/**/*", ["a/c/4.png"]),
    ],
)
def test_patterns_match_as_globs_do(tmp_path, pattern, expected):
    put(tmp_path, "1.png", "a/2.png", "b/3.png", "a/c/4.png", "a/.no/5.png", "a/text.md")
    assert names(found(tmp_path / pattern), tmp_path) == expected


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(tmp_path):
    put(tmp_path, "[1].png", "1.png")
    assert names(found(tmp_path / "[1].png"), tmp_path) == ["[1].png"]


def test_a_list_names_files_relative_to_itself_and_a_missing_one_is_no_end(tmp_path):
    put(tmp_path, "a/1.png", "2.png")
    (tmp_path / "list.txt").write_bytes(b"\xef\xbb\xbfa/1.png\r\n\r\n# none\nnot there.png\n" + b"caf\xe9.png\n2.png")
    items = found(tmp_path / "list.txt")
    assert names(items, tmp_path) == ["a/1.png", "not there.png", "caf\udce9.png", "2.png"]
    assert names(found([tmp_path / "list.txt", tmp_path / "a"], "none"))[-1] == str(tmp_path / "a/1.png")


@pytest.mark.parametrize("what", ["folder", "pattern", "list", "nothing", "only text"])
def test_a_source_without_pictures_is_told_by_its_name(tmp_path, what):
    given = {"folder": "empty", "pattern": "*.png", "list": "l.txt", "nothing": "gone", "only text": "texts"}[what]
    (tmp_path / "empty").mkdir()
    (tmp_path / "l.txt").write_text("# nothing\n")
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/a.md").write_text("no picture")
    with pytest.raises(PictureError, match="no such file" if what == "nothing" else "no pictures here") as error:
        found(tmp_path / given)
    assert str(tmp_path / given) in str(error.value)


@pytest.mark.parametrize("given", [[], (), 3, None, b"bytes", {"image": []}, {1, 2}, np.zeros((4, 5, 3), np.uint8)])
def test_what_is_no_source_is_refused(given):
    with pytest.raises(ParameterError):
        found(given)


@links
@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="everything is readable for root")
def test_an_unreadable_folder_is_an_error(tmp_path):
    put(tmp_path, "a/1.png", "b/2.png")
    (tmp_path / "b").chmod(0)
    try:
        with pytest.raises(PictureError, match="b: can't be read: Permission denied"):
            found(tmp_path)
    finally:
        (tmp_path / "b").chmod(0o700)


def test_a_folder_that_fails_to_be_read_is_an_error_in_patterns_too(tmp_path, monkeypatch):
    put(tmp_path, "a/1.png", "b/2.png")
    scan = os.scandir

    def fail(path):
        if Path(path).name == "b":
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", fail)
    for given in (tmp_path, tmp_path / "*/*.png", tmp_path / "**/*.png"):
        with pytest.raises(PictureError, match="b: can't be read: Permission denied"):
            found(given)


# The list that a job keeps.


def listing(folder, given, labels=None):
    taken = Listing(folder, find_source(given, labels, CLASS_OF, {}))
    taken.take()
    return taken


@links
def test_names_that_are_no_text_and_odd_files_are_kept_as_they_are(tmp_path):
    put(tmp_path, "pics/1.png")
    odd = os.fsdecode(b"caf\xe9.png")
    (tmp_path / "pics" / odd).write_bytes(png())
    os.mkfifo(tmp_path / "pics/pipe.png")
    (tmp_path / "pics/gone.png").symlink_to("nowhere")
    taken = listing(tmp_path, [tmp_path / "pics"])
    taken.keep()
    assert names(taken.items(), tmp_path / "pics") == ["1.png", odd, "gone.png", "pipe.png"]
    assert [item.content for item in taken.items(1)] == [
        tmp_path / "pics" / odd for odd in (odd, "gone.png", "pipe.png")
    ]
    os.mkfifo(tmp_path / "pipe.tar")
    with pytest.raises(PictureError, match="not a regular file"):
        found(tmp_path / "pipe.tar")


def test_a_picture_that_is_named_twice_is_refused(tmp_path):
    put(tmp_path, "a/1.png", "a/2.png")
    with pytest.raises(ParameterError, match=r"2\.png is named twice, as picture 1 and as picture 2"):
        listing(tmp_path, [tmp_path / "a", tmp_path / "a/2.png"])
    assert not list(tmp_path.glob(f"{storage.TEMPORARY}*"))


def test_lists_are_equal_where_the_pictures_are(tmp_path):
    put(tmp_path, "a/1.png", "a/2.png")
    first = listing(tmp_path, tmp_path / "a")
    first.keep()
    assert listing(tmp_path, tmp_path / "a").describe() == first.describe()
    (tmp_path / "a/2.png").write_bytes(b"longer than it was" * 100)
    second = listing(tmp_path, tmp_path / "a")
    assert second.describe() != first.describe()
    assert second.first_difference().startswith("picture 1 was ")
    (tmp_path / "source.jsonl").unlink()
    assert second.first_difference().endswith("is gone")


def test_a_listed_item_comes_back_as_it_was(tmp_path):
    items = [
        Item("a", tmp_path / "x.png", 3),
        Item("t/b", Part(tmp_path / "t.tar", 512, 9), None),
        Item("c", "c: why there is none", 1),
    ]
    taken = Listing(tmp_path, items)
    taken.take()
    taken.keep()
    assert list(taken.items()) == items
    assert list(taken.items(2)) == items[2:]


# True classes.


def test_labels_are_folders_tables_or_mappings(tmp_path):
    put(tmp_path, "cat/1.png", "dog/2.png", "3/3.png")
    assert [item.label for item in found(tmp_path, "folders")] == [3, 0, 1]
    assert [item.label for item in found(tmp_path)] == [None, None, None]
    (tmp_path / "l.csv").write_text("\ufeffname,label\n1.png,crane\ndog/2.png,2\n", encoding="utf-8")
    for labels in (str(tmp_path / "l.csv"), {"1.png": "crane", str(tmp_path / "dog/2.png"): 2}):
        assert [item.label for item in found(tmp_path, labels)] == [None, 3, 2]


def test_a_class_that_is_not_there_is_told_with_its_picture(tmp_path):
    put(tmp_path, "cat/1.png", "cta/2.png")
    with pytest.raises(ParameterError, match=r"cta/2\.png: unknown target 'cta'; did you mean 'cat'"):
        found(tmp_path, "folders")
    with pytest.raises(ParameterError, match=r"cat/1\.png: target 4 is out of range"):
        found(tmp_path, {"1.png": 4})


def test_a_table_that_fits_no_picture_or_two_is_an_error(tmp_path):
    put(tmp_path, "a/1.png", "b/1.png")
    with pytest.raises(ParameterError, match=r"name none of the source's pictures; the first is for 'x\.png'"):
        found(tmp_path, {"x.png": 1})
    with pytest.raises(ParameterError, match=r"fits both .*a/1\.png and .*b/1\.png"):
        found(tmp_path, {"1.png": 1})
    for text, message in (("1.png\n", "two columns"), ("", "two columns"), ("1.png,1\n1.png,2\n", "two classes")):
        (tmp_path / "l.csv").write_text(text)
        with pytest.raises(ParameterError, match=message):
            found(tmp_path, tmp_path / "l.csv")
    with pytest.raises(ParameterError, match="can't be read"):
        found(tmp_path, "folder")


def test_a_data_sets_own_classes_become_the_networks():
    by_name = translation(["dog", "cat"], CLASS_OF)
    assert [by_name(label) for label in (0, 1, np.int64(1), -1)] == [1, 0, 0, None]
    assert translation(["n01", "n02", "n03", "n04"], CLASS_OF)(2) == 2  # as many, worded otherwise
    for others in (["dog", "n02", "n03", "n04"], ["cat", "horse"], ["a", "b", "c", "d", "e"]):
        with pytest.raises(ParameterError, match="aren't the network's"):
            translation(others, CLASS_OF)


# Archives.


def archive(path, members):
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return path


def shard(folder, name="shard.tar"):
    members = [("a/001.jpg", png(1)), ("a/001.cls", b"3\n"), ("a/002.png", png(2)), ("a/002.json", b'{"label": "dog"}')]
    members += [("./a.b/003.PNG", png(3)), ("a/._001.jpg", b"no"), ("__readme", b"text"), ("a/004.txt", b"no picture")]
    return archive(folder / name, members)


def test_an_archives_pictures_are_read_in_place_with_their_classes(tmp_path):
    path = shard(tmp_path)
    items = found(path)
    assert names(items, path) == ["a/001.jpg", "a/002.png", "a.b/003.PNG"]
    assert [item.label for item in items] == [3, 1, None]
    whole = path.read_bytes()
    for number, item in enumerate(items, 1):
        assert item.content.path == path
        assert whole[item.content.offset :][: item.content.size] == png(number)
    assert [item.label for item in found(path, "none")] == [None] * 3
    assert [item.label for item in found(path, {"001.jpg": 2})] == [2, None, None]


def test_archives_come_from_folders_patterns_and_beside_others(tmp_path):
    shard(tmp_path, "s-1.tar")
    shard(tmp_path, "s-0.tar")
    assert len(found(tmp_path)) == len(found(tmp_path / "s-*.tar")) == 6
    put(tmp_path, "pics/1.png")
    both = found([tmp_path / "pics", tmp_path / "s-0.tar"])
    assert names(both, tmp_path) == ["pics/1.png", "s-0.tar/a/001.jpg", "s-0.tar/a/002.png", "s-0.tar/a.b/003.PNG"]
    assert names(found(tmp_path), tmp_path) == ["pics/1.png"]  # archives among pictures are left alone


def test_a_key_has_one_picture_unless_columns_say_which(tmp_path):
    path = archive(tmp_path / "s.tar", [("1.left.png", png(1)), ("1.right.png", png(2)), ("1.json", b'{"y": 2}')])
    with pytest.raises(ParameterError, match=r"several pictures \(left\.png, right\.png\)"):
        found(path)
    (item,) = found(path, image="right.png", label="y")
    assert (item.name, item.label) == (f"{path}/1.right.png", 2)


def test_classes_apart_from_their_pictures_are_an_error(tmp_path):
    path = archive(tmp_path / "s.tar", [("1.png", png()), ("2.png", png()), ("1.cls", b"1"), ("2.cls", b"2")])
    with pytest.raises(ParameterError, match="must follow each other"):
        found(path)


@pytest.mark.parametrize("wrong", [("1.cls", b"horse"), ("1.json", b'{"cls": [1]}'), ("1.json", b"{")])
def test_a_wrong_class_in_an_archive_is_told_with_its_name(tmp_path, wrong):
    path = archive(tmp_path / "s.tar", [("1.png", png()), wrong])
    with pytest.raises((ParameterError, PictureError), match=r"s\.tar"):
        found(path)


def test_a_damaged_archive_is_told_by_its_name_wherever_it_ends(tmp_path):
    whole = shard(tmp_path).read_bytes()
    end = whole.rstrip(b"\0")
    cut = tmp_path / "cut.tar"
    for length in [0, 1, *range(100, len(end) + 400, 211), 512, 1024, 5120]:
        if length >= (len(end) // 512 + 2) * 512:
            continue  # an end mark is left
        cut.write_bytes(whole[:length])
        with pytest.raises(PictureError, match=r"cut\.tar"):
            found(cut)
    header = whole.index(b"a/002.png")
    cut.write_bytes(whole[: header + 148] + b"9" + whole[header + 149 :])  # its checksum
    with pytest.raises(PictureError, match=r"cut\.tar.*damaged or cut off"):
        found(cut)
    cut.write_bytes(whole + whole)
    with pytest.raises(PictureError, match=r"cut\.tar: more follows"):
        found(cut)


@pytest.mark.parametrize("ending", ["tar.gz", "tgz", "tar"])
def test_a_packed_archive_is_to_be_unpacked(tmp_path, ending):
    path = tmp_path / f"s.{ending}"
    with tarfile.open(path, "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("1.png"))
    with pytest.raises(PictureError, match="packed"):
        found(path)


def test_a_link_in_an_archive_is_a_failure_of_its_own(tmp_path):
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        entry = tarfile.TarInfo("1.png")
        entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(entry)
    (item,) = found(tmp_path / "s.tar")
    assert item.content.endswith("no regular file of the archive")


# Parquet.


@pytest.fixture(scope="module")
def pa():
    pytest.importorskip("pyarrow.parquet")
    import pyarrow as pa

    return pa


def table(pa, path, content, groups=4, **options):
    import pyarrow.parquet as pq

    pq.write_table(pa.table(content), path, row_group_size=groups, **options)
    return path


@pytest.mark.parametrize("first", [0, 1, 3, 4, 9, 10, 25, 30])
def test_rows_are_the_same_from_wherever_one_begins(pa, tmp_path, monkeypatch, first):
    monkeypatch.setattr(tables, "ROWS", 3)
    data = [png(number) for number in range(30)]
    for part, rows in enumerate((range(10), range(10, 10), range(10, 30))):
        content = {
            "image": pa.array([data[row] for row in rows], pa.binary()),
            "label": pa.array([row % 4 for row in rows]),
        }
        table(pa, tmp_path / f"{part}.parquet", content, groups=7)
    source = find_source(tmp_path, None, CLASS_OF, {})
    assert source.count == 30
    items = list(source.items(first))
    assert [item.content for item in items] == data[first:]
    assert [item.label for item in items] == [row % 4 for row in range(first, 30)]
    expected = [f"{tmp_path}/{0 if row < 10 else 2}.parquet/{row if row < 10 else row - 10}" for row in range(30)]
    assert names(items) == expected[first:]


def test_pictures_are_bytes_structs_or_paths(pa, tmp_path):
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    rows = [{"bytes": png(1), "path": "1.png"}, {"bytes": None, "path": "2.png"}, None, {"bytes": None, "path": None}]
    items = found(table(pa, tmp_path / "t.parquet", {"image": pa.array(rows, struct)}))
    missing = [f"{tmp_path}/t.parquet/{number}" for number in (2, 3)]
    assert names(items) == ["1.png", "2.png", *missing]
    assert [item.content for item in items[:2]] == [png(1), tmp_path / "2.png"]
    assert [item.content for item in items[2:]] == [f"{name}: there is no picture" for name in missing]
    paths = pa.array(["a.png", "b.png"]).dictionary_encode()
    assert [item.content for item in found(table(pa, tmp_path / "p.parquet", {"img": paths}))] == [
        tmp_path / "a.png",
        tmp_path / "b.png",
    ]
    assert len(found(table(pa, tmp_path / "l.pq", {"photo": pa.array([png()], pa.large_binary()), "n": [1]}))) == 1


def test_columns_are_told_and_what_is_wrong_with_them(pa, tmp_path):
    content = {"a": [png()], "b": [png()], "n": [1.0], "y": ["dog"], "id": [7]}
    path = table(pa, tmp_path / "t.parquet", content)
    (item,) = found(path, image="b", label="y")
    assert (item.label, item.name) == (1, "7")
    assert found(path, image="b", name="")[0].name == f"{path}/0"
    for columns, message in (
        ({}, "which column has the pictures"),
        ({"image": "c"}, "unknown column 'c'"),
        ({"image": "n"}, "holds double, no encoded pictures"),
        ({"image": "a", "label": "n2"}, "unknown column"),
        ({"picture": "a"}, "unknown column 'picture'"),
    ):
        with pytest.raises(ParameterError, match=message):
            found(path, **columns)
    with pytest.raises(ParameterError, match="labels= are for files"):
        found(path, "folders", image="a")
    with pytest.raises(ParameterError, match="no column 'b'"):
        found([path, table(pa, tmp_path / "u.parquet", {"a": [png()]})], image="b")
    with pytest.raises(ParameterError, match=r"t\.parquet is named twice"):
        found([path, path], image="b")
    put(tmp_path, "1.png")
    with pytest.raises(ParameterError, match=r"can't share a job"):
        found([path, tmp_path / "1.png"], image="b")


def test_a_column_of_names_has_no_name_twice(pa, tmp_path):
    path = table(pa, tmp_path / "t.parquet", {"image": [png()] * 3, "who": ["x", "y", "x"]})
    with pytest.raises(ParameterError, match=r"'x' stands at .*parquet/0 and at .*parquet/2"):
        found(path, name="who")


def test_the_description_changes_with_the_content(pa, tmp_path):
    def described(seed, **columns):
        path = table(pa, tmp_path / "t.parquet", {"image": [png(seed)], "label": [1]})
        return find_source(path, None, CLASS_OF, columns).describe()

    assert described(1) == described(1) == json.loads(json.dumps(described(1)))
    assert described(1) != described(2)
    assert described(1) != described(1, label="")

    def of_one_size(seed):
        path = table(pa, tmp_path / "t.parquet", {"image": [np.random.default_rng(seed).bytes(9000)] * 2}, groups=1)
        return find_source(path, None, CLASS_OF, {}).describe()

    assert of_one_size(1) == of_one_size(1)
    assert of_one_size(1) != of_one_size(2)


def test_damaged_tables_are_told_and_damaged_pages_cost_their_group(pa, tmp_path):
    data = [np.random.default_rng(row).bytes(3000) for row in range(12)]
    path = table(
        pa, tmp_path / "t.parquet", {"image": data}, compression="none", use_dictionary=False, write_page_checksum=True
    )
    whole = path.read_bytes()
    for wrong in (b"", b"PAR1", whole[:-9], whole[:200]):
        path.write_bytes(wrong)
        with pytest.raises(PictureError, match=r"t\.parquet: no Parquet file, or damaged"):
            found(path)
    at = whole.index(data[5]) + 100
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    items = found(path)
    assert [isinstance(item.content, str) for item in items] == [False] * 4 + [True] * 4 + [False] * 4
    assert items[5].content.startswith(f"{path}/5: this part of the file is damaged")
    with pytest.raises(PictureError, match="no such file"):
        found(tmp_path / "gone.parquet")


def test_without_pyarrow_the_command_to_install_it_is_told(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    with pytest.raises(ParameterError, match=r'pip install "onnxplain\[parquet\]"'):
        found(tmp_path / "t.parquet")


@pytest.mark.parametrize("kind", ["archive", "table"])
def test_maps_are_the_same_wherever_the_pictures_lie(pa, folder, tmp_path, kind):
    files = [tmp_path / f"pics/{number}.png" for number in range(5)]
    put(tmp_path, *(f"pics/{file.name}" for file in files))
    data = [file.read_bytes() for file in files]
    if kind == "archive":
        given = archive(tmp_path / "s.tar", [(f"{number}.png", content) for number, content in enumerate(data)])
    else:
        given = table(pa, tmp_path / "t.parquet", {"image": data})
    for source, out in ((tmp_path / "pics", "files"), (given, kind)):
        Job(folder, source, tmp_path / out, output=Output(shard_size=3), device="cpu", workers=1).run()
    for shard in ("00000000", "00000001"):
        one, other = (tmp_path / out / "shards" / shard / "gradient.npy" for out in ("files", kind))
        assert one.read_bytes() == other.read_bytes()


# What Python holds.

PICTURES = [np.random.default_rng(seed).integers(0, 256, (5, 6, 3), np.uint8) for seed in range(5)]


class Loader:
    """Batches of mappings, as torch's DataLoader gives them: its length is that of its batches."""

    def __init__(self, size):
        self.size = size

    def __len__(self):
        return -(-len(PICTURES) // self.size)

    def __iter__(self):
        for first in range(0, len(PICTURES), self.size):
            some = slice(first, first + self.size)
            yield {"image": np.stack(PICTURES[some]), "label": np.arange(5)[some] % 4, "name": list("abcde")[some]}


class Numbered:
    """As torch's data sets: pairs by number, and no way to go through."""

    def __len__(self):
        return len(PICTURES)

    def __getitem__(self, number):
        if number == 3:
            raise RuntimeError("a bad sector")
        return Pillow.fromarray(PICTURES[number]), number % 4


@pytest.mark.parametrize(
    "given",
    [
        PICTURES,
        np.stack(PICTURES),
        tuple(Pillow.fromarray(picture) for picture in PICTURES),
        ({"image": picture, "label": 1} for picture in PICTURES),
        ((picture, 1) for picture in PICTURES),
        Loader(2),
        iter([PICTURES[:3], PICTURES[3:]]),
        ((np.stack(PICTURES[:4]), [0, 1, 2, 3]), (np.stack(PICTURES[4:]), [0])).__iter__(),
        np.stack(PICTURES)[:, None],
    ],
    ids=["list", "array", "Pillow", "mappings", "pairs", "loader", "lists", "batched pairs", "batches of one"],
)
def test_pictures_come_from_any_iterable(given):
    items = found(given)
    assert len(items) == 5
    for item, picture in zip(items, PICTURES, strict=True):
        np.testing.assert_array_equal(item.content, picture)


def test_entries_may_be_encoded_paths_or_missing():
    entries = [
        png(1),
        {"image": {"bytes": png(2), "path": "p.png"}},
        {"image": "x.png", "cls": 2},
        None,
        {"image": None},
    ]
    items = found(entries)
    assert [item.content for item in items[:3]] == [png(1), png(2), Path("x.png")]
    assert names(items) == ["picture 0", "p.png", "x.png", "picture 3", "picture 4"]
    assert [item.content for item in items[3:]] == [f"picture {number}: there is no picture" for number in (3, 4)]
    assert items[2].label == 2


def test_a_loaders_length_is_not_the_number_of_pictures():
    items = found(Loader(2))
    assert find_source(Loader(2), None, CLASS_OF, {}).count is None
    assert [(item.name, item.label) for item in items] == [("a", 0), ("b", 1), ("c", 2), ("d", 3), ("e", 0)]


def test_what_a_data_set_cannot_give_costs_one_picture():
    items = found(Numbered())
    assert [isinstance(item.content, str) for item in items] == [False, False, False, True, False]
    assert items[3].content == "picture 3: RuntimeError: a bad sector"
    assert [item.label for item in items] == [0, 1, 2, None, 0]


def test_wrong_entries_are_told():
    with pytest.raises(ParameterError, match="picture 0 is a mapping without 'image'; it has photo"):
        found([{"photo": PICTURES[0]}])
    with pytest.raises(ParameterError, match=r"the true class of picture 0: unknown target 'cow'.*labels='none'"):
        found([{"image": PICTURES[0], "label": "cow"}])
    assert found([{"image": PICTURES[0], "label": "cow"}], "none")[0].label is None
    with pytest.raises(ParameterError, match="entry 0 holds 5 pictures"):
        found([np.stack(PICTURES)])
    with pytest.raises(PictureError, match="no pictures"):
        found(iter(()))


def test_descriptions_tell_contents_apart():
    def described(given):
        return find_source(given, None, CLASS_OF, {}).describe()

    changed = [*PICTURES[:4], PICTURES[4] + 1]
    for kind in (list, np.stack):
        assert described(kind(PICTURES)) == described(kind(PICTURES))
        assert described(kind(PICTURES)) != described(kind(changed))
    assert described([b"ab", b"c"]) != described([b"a", b"bc"])
    assert described([{"image": PICTURES[0], "label": 1}]) != described([{"image": PICTURES[0], "label": 2}])
    assert described([Pillow.fromarray(PICTURES[0])])["fingerprint"] is None


# Continued.


@pytest.fixture
def finished(tmp_path):
    """What two shards of two pictures left, and how to say how many are in the second."""
    import hashlib

    def make(numbers=(0, 1), last=2):
        for number in numbers:
            folder = tmp_path / f"shards/{number:08d}"
            folder.mkdir(parents=True)
            rows = range(2 * number, 2 * number + (last if number == max(numbers) else 2))
            hashes = {row: hashlib.sha256(PICTURES[row].tobytes()).hexdigest() for row in rows}
            text = "".join(json.dumps({"number": row, "sha256": sha256}) + "\n" for row, sha256 in hashes.items())
            (folder / "index.jsonl").write_text(text)
            (folder / "failures.jsonl").write_text("")
        return Finished(tmp_path, list(numbers), 2)

    return make


def resumed(given, finished, first):
    source = find_source(given, None, CLASS_OF, {})
    source.recall(finished)
    return list(source.items(first))


@pytest.mark.parametrize("kind", [iter, Loader, list], ids=["generator", "loader", "list"])
def test_the_same_pictures_continue(finished, kind):
    given = Loader(3) if kind is Loader else kind(PICTURES)
    (item,) = resumed(given, finished(), 4)
    np.testing.assert_array_equal(item.content, PICTURES[4])


def test_a_generator_that_is_used_up_or_ends_early_is_an_error(finished):
    there = finished()
    for left in (0, 1, 3):
        with pytest.raises((ParameterError, PictureError), match=r"no pictures|ended after"):
            resumed(iter(PICTURES[:left]), there, 4)
    assert resumed(iter(PICTURES[:4]), there, 4) == []  # there may have been no more


def test_other_pictures_are_an_error(finished):
    there = finished()
    for wrong in range(4):
        changed = [picture + (number == wrong) for number, picture in enumerate(PICTURES)]
        with pytest.raises(ParameterError, match=f"picture {wrong} .* isn't the one that was explained before"):
            resumed(iter(changed), there, 4)
    with pytest.raises(ParameterError, match="picture 3 "):
        resumed([*PICTURES[:3], PICTURES[0], PICTURES[4]], there, 4)


def test_a_source_that_went_on_is_an_error(finished):
    there = finished(last=1)
    assert (there.least, there.most) == (3, 3)
    assert resumed(iter(PICTURES[:3]), there, 4) == []
    with pytest.raises(ParameterError, match="had 3 pictures, and has more now"):
        resumed(iter(PICTURES), there, 4)


def test_a_hole_among_the_shards_is_filled_with_what_was_there(finished):
    there = finished((1,))
    assert len(resumed(iter(PICTURES[:4]), there, 0)) == 4
    with pytest.raises(ParameterError, match="picture 2 "):
        resumed([PICTURES[0], PICTURES[1], PICTURES[1], PICTURES[3]], there, 0)
    with pytest.raises(ParameterError, match="ended after 3 pictures"):
        resumed(iter(PICTURES[:3]), there, 0)


def test_a_job_is_not_continued_with_other_pictures(folder, tmp_path):
    def run(given):
        return Job(folder, given, tmp_path / "out", output=Output(shard_size=2), device="cpu", workers=1).run()

    assert run(iter(PICTURES))["explained"] == 5
    assert run(iter(PICTURES))["explained"] == 5
    for wrong, message in (([], "no pictures"), (PICTURES[:4], "ended after 4"), ([*PICTURES, PICTURES[0]], "had 5")):
        with pytest.raises((ParameterError, PictureError), match=message):
            run(iter(wrong))
    shutil.rmtree(tmp_path / "out/shards/00000001")
    with pytest.raises(ParameterError, match=r"picture 1 .* isn't the one"):
        run(iter([PICTURES[0], *PICTURES[2:], PICTURES[1]]))
    assert run(iter(PICTURES))["explained"] == 5


# Hugging Face.


@pytest.fixture(scope="module")
def datasets():
    return pytest.importorskip("datasets", reason="not among the test extras: it brings a lot")


@pytest.mark.parametrize("decode", [True, False])
def test_a_hugging_face_split_is_taken_as_it_is(datasets, decode, tmp_path):
    features = datasets.Features(
        {"image": datasets.Image(decode=decode), "label": datasets.ClassLabel(names=["dog", "cat"])}
    )
    rows = {"image": [{"bytes": png(row), "path": None} for row in range(4)], "label": [0, 1, 0, -1]}
    split = datasets.Dataset.from_dict(rows, features=features)
    source = find_source(split, None, CLASS_OF, {})
    assert source.describe()["fingerprint"] == split._fingerprint
    for given in (split, split.to_iterable_dataset()):
        items = found(given)
        assert [item.content for item in items] == [png(row) for row in range(4)]  # decoded by the workers
        assert [item.label for item in items] == [1, 0, 1, None]
    split.to_parquet(tmp_path / "t.parquet")
    items = found(tmp_path / "t.parquet")
    assert [item.label for item in items] == [1, 0, 1, None]
    assert [item.content for item in items] == [png(row) for row in range(4)]
    with pytest.raises(ParameterError, match="give one of its entries \\('train'\\)"):
        found(datasets.DatasetDict({"train": split}))
    formatted = found(split.with_format("numpy"))
    np.testing.assert_array_equal(
        formatted[0].content if decode else cv2.imdecode(np.frombuffer(formatted[0].content, np.uint8), 1)[..., ::-1],
        cv2.imdecode(np.frombuffer(png(0), np.uint8), 1)[..., ::-1],
    )
