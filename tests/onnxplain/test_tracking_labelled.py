"""Pictures with their classes, from folders and CSV files, and how a network numbers them."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from onnxplain.bundle_files import read_bundle
from onnxplain.errors import ParameterError, PictureError
from onnxplain.tracking.labelled import labelled_pictures, matched


@pytest.fixture
def bundle(folder):
    """The toy's, whose classes are cat, dog, "tench, Tinca tinca" and crane."""
    return read_bundle(folder)


@pytest.fixture
def nameless(bundle):
    return replace(bundle, outputs=tuple(replace(each, labels=None) for each in bundle.outputs))


def _write(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(root / name), np.zeros((4, 4, 3), np.uint8))
    return root


def test_folders_are_classes_by_name_synonym_or_number(tmp_path, bundle):
    data = _write(tmp_path / "data", "Dog/a.png", "Dog/deep/b.png", "tench/c.png", "3/d.png", "cat/e.png")
    found = labelled_pictures(data)
    told = {
        str(each.relative_to(data)): label
        for each, label in zip(found.pictures, matched(found, bundle).numbers, strict=True)
    }
    assert told == {"Dog/a.png": 1, "Dog/deep/b.png": 1, "tench/c.png": 2, "3/d.png": 3, "cat/e.png": 0}
    assert matched(found, bundle).names == {0: "cat", 1: "dog", 2: "tench, Tinca tinca", 3: "crane"}
    assert (matched(found, bundle).note, found.left_out) == ("", 0)


def test_a_class_that_is_called_by_a_number_is_that_class(tmp_path, bundle):
    data = _write(tmp_path / "data", "2/a.png", "0/b.png")
    numbered = replace(bundle, outputs=tuple(replace(each, labels=("2", "0", "x", "y")) for each in bundle.outputs))
    assert matched(labelled_pictures(data), numbered).numbers.tolist() == [1, 0]


def test_pictures_beside_the_folders_are_left_out_and_counted(tmp_path):
    data = _write(tmp_path / "data", "cat/a.png", "loose.png", "another.png", ".hidden/c.png")
    found = labelled_pictures(data)
    assert [each.name for each in found.pictures] == ["a.png"]
    assert found.left_out == 2
    assert list(found.folders) == ["cat"]


def test_a_csv_file_names_pictures_beside_it(tmp_path, bundle, monkeypatch):
    _write(tmp_path / "there", "a.png", "x/b.png", "c d.png")
    table = tmp_path / "there" / "list.csv"
    monkeypatch.chdir(tmp_path)
    for heading in ("path,label\n", "", "\ufefffile,class\r\n"):
        table.write_text(f'{heading}a.png,dog\n\n"x/b.png", 3 \nc d.png,tench\n', encoding="utf-8")
        found = labelled_pictures("there/list.csv")
        assert [each.name for each in found.pictures] == ["a.png", "b.png", "c d.png"]
        assert matched(found, bundle).numbers.tolist() == [1, 3, 2]


def test_without_names_folders_are_numbers_or_alphabetical_which_is_said(tmp_path, nameless):
    numbered = labelled_pictures(_write(tmp_path / "numbers", "0/a.png", "2/b.png"))
    assert matched(numbered, nameless).numbers.tolist() == [0, 2]
    assert matched(numbered, nameless).names[2] == "2"
    data = _write(tmp_path / "names", "ant/a.png", "bee/b.png", "eel/c.png")
    (data / "cow").mkdir()  # a class without pictures is one all the same
    found = matched(labelled_pictures(data), nameless)
    assert found.numbers.tolist() == [0, 1, 3]
    assert found.names == {0: "ant", 1: "bee", 2: "cow", 3: "eel"}
    assert (
        found.note
        == "toy doesn't name its classes: the folders are taken for them in alphabetical order (ant = 0, …, eel = 3)"
    )


def test_classes_of_one_name_are_told_apart(tmp_path, bundle):
    data = labelled_pictures(_write(tmp_path / "data", "cat/a.png"))
    cranes = replace(
        bundle, outputs=tuple(replace(each, labels=("crane", "cat", "x", "crane")) for each in bundle.outputs)
    )
    assert matched(data, cranes).names == {0: "crane (0)", 1: "cat", 2: "x", 3: "crane (3)"}


def test_wrong_data_is_refused_in_one_line(tmp_path, bundle, nameless):
    _write(
        tmp_path,
        "flat/a.png",
        "flat/b.png",
        "good/cat/a.png",
        "wrong/cta/a.png",
        "far/7/a.png",
        "three/x/a.png",
        "one.png",
    )
    (tmp_path / "empty" / "cat").mkdir(parents=True)
    for name, content in (
        ("missing", "a,cat\ngood/cat/a.png,cat\nb,dog\n"),
        ("short", "good/cat/a.png\n"),
        ("blank", "good/cat/a.png,\n"),
        ("nothing", "path,label\n"),
        ("unknown", "good/cat/a.png,cow\n"),
        ("nul", "good/cat/a.png\0,cow\n"),
    ):
        (tmp_path / f"{name}.csv").write_text(content)
    (tmp_path / "bytes.csv").write_bytes(b"\xff\xfe\n")
    for name, network, told in (
        ("nowhere", bundle, "nowhere: no such file or folder; give a folder with a folder for each class"),
        ("empty", bundle, "empty: no pictures in this folder"),
        ("flat", bundle, "flat: 2 pictures, and no folder for each class"),
        ("one.png", bundle, "is one picture; give a folder"),
        ("wrong", bundle, "wrong/cta: unknown class 'cta'; did you mean 'cat'?"),
        ("far", bundle, "far/7: class 7 is out of range: the network has classes 0 to 3"),
        ("three", nameless, "three: 1 folders of classes, but toy has 4 classes without names"),
        (
            "missing.csv",
            bundle,
            f"missing.csv, line 1: {tmp_path}/a is not there; paths begin at {tmp_path} (2 of its 3",
        ),
        ("short.csv", bundle, "short.csv, line 1: needs a path and a class"),
        ("blank.csv", bundle, "blank.csv, line 1: needs a path and a class"),
        ("bytes.csv", bundle, "bytes.csv, line 1: needs a path and a class"),
        ("nothing.csv", bundle, "nothing.csv: names no pictures"),
        ("unknown.csv", bundle, "unknown.csv, a.png: unknown class 'cow'"),
        ("unknown.csv", nameless, "'cow' is a name, but the bundle has no labels"),
    ):
        with pytest.raises((ParameterError, PictureError)) as error:
            matched(labelled_pictures(tmp_path / name), network)
        assert told in str(error.value)
        assert "\n" not in str(error.value)


def test_one_misnamed_folder_among_numbers_is_refused(tmp_path, nameless):
    data = _write(tmp_path / "data", "0/a.png", "1/b.png", "two/c.png", "3/d.png")
    with pytest.raises(
        ParameterError, match="the folder 'two' has a name and others have numbers; call all of them by"
    ):
        matched(labelled_pictures(data), nameless)
