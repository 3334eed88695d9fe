"""Archives are read in place, with the classes that stand beside the pictures, and a damaged one is told."""

import tarfile

import pytest

from job_sources import archive, found, names, png, put
from onnxplain import ParameterError, PictureError


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
