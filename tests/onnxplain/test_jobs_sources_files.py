"""Where a job's pictures come from: folders, patterns and lists of files, in one order, with their true classes."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from job_sources import CLASS_OF, found, names, png, put
from onnxplain import ParameterError, PictureError
from onnxplain.jobs import storage
from onnxplain.jobs.items import Item, Part
from onnxplain.jobs.listing import Listing
from onnxplain.jobs.sources import find_source
from onnxplain.jobs.sources.labels import translation

links = pytest.mark.skipif(sys.platform == "win32", reason="needs links, pipes and rights")


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
