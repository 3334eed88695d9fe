import argparse
import csv
import json
import os

import cv2
import numpy as np
import pytest
from numpy.testing import assert_allclose

from metric_subjects import measuring_bundle
from onnxplain import Explainer, OnnxplainError, OutputError, PictureError
from onnxplain.commands import evaluate as command
from onnxplain.metrics import METRICS, evaluate


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return measuring_bundle(tmp_path_factory.mktemp("toy") / "toy.explain")


@pytest.fixture
def working(tmp_path, monkeypatch):
    """A working folder with two pictures in `pictures` and their masks in `masks`."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(6)
    for folder in ("pictures", "masks"):
        (tmp_path / folder).mkdir()
    for name, size in (("a", (20, 31)), ("b", (40, 16))):
        cv2.imwrite(f"pictures/{name}.png", random.integers(0, 256, (*size, 3), np.uint8))
        cv2.imwrite(f"masks/{name}.png", np.tri(*size, dtype=np.uint8))
    return tmp_path


def onnxplain(*arguments):
    parser = argparse.ArgumentParser()
    command.add_command(parser.add_subparsers())
    parsed = parser.parse_args(["evaluate", *map(str, arguments)])
    return parsed.run(parsed)


def test_the_command_prints_the_table_and_writes_the_files(folder, working, capsys):
    given = ("--method", "gradient,occlusion", "--metric", "deletion,iosr", "--masks", "masks", "--set", "window=4")
    assert onnxplain(folder, "pictures", *given, "--set", "deletion.steps=3", "-o", "out") == 0
    printed = capsys.readouterr().out
    assert "deletion ↓" in printed
    assert "see out/evaluation.csv" in printed
    content = json.loads((working / "out/evaluation.json").read_text())
    assert content["pictures"] == 2
    assert content["provenance"]["metrics"]["deletion"]["steps"] == 3
    assert content["provenance"]["methods"]["occlusion"]["parameters"]["window"] == 4
    expected = evaluate(
        Explainer(folder, device="cpu"),
        ["pictures/a.png", "pictures/b.png"],
        "gradient",
        "iosr",
        masks=["masks/a.png", "masks/b.png"],
    )
    with (working / "out/evaluation.csv").open() as stream:
        lines = [line for line in csv.DictReader(stream) if (line["method"], line["metric"]) == ("gradient", "iosr")]
    assert_allclose([float(line["value"]) for line in lines], expected.values["gradient", "iosr"])


def test_masks_may_be_the_folder_of_their_files(folder, working):
    explainer, pictures = Explainer(folder, device="cpu"), ["pictures/a.png", "pictures/b.png"]
    expected = evaluate(explainer, pictures, "gradient", "iosr", masks=["masks/a.png", "masks/b.png"])
    for masks in ("masks", working / "masks", "masks/{name}.png"):
        found = evaluate(explainer, pictures, "gradient", "iosr", masks=masks)
        assert_allclose(found.values["gradient", "iosr"], expected.values["gradient", "iosr"])


def test_a_bad_picture_among_good_ones_is_reported_and_the_others_measured(folder, working, capsys):
    (working / "pictures/empty.png").write_bytes(b"")
    given = ("--method", "gradient", "--metric", "sparseness,iosr", "--masks", "masks", "-o", "out")
    assert onnxplain(folder, "pictures", *given) == 1
    assert capsys.readouterr().err.splitlines()[0].startswith("onnxplain: pictures/empty.png: ")
    assert json.loads((working / "out/evaluation.json").read_text())["pictures"] == 2
    with pytest.raises(PictureError, match="none of the 1 pictures"):
        onnxplain(folder, "pictures/empty.png", "--method", "gradient")


def test_an_earlier_evaluation_is_replaced_only_when_asked(folder, working):
    given = (folder, "pictures", "--method", "gradient", "--metric", "sparseness", "-o", "out")
    assert onnxplain(*given) == 0
    with pytest.raises(OutputError, match="--overwrite"):
        onnxplain(*given)
    assert onnxplain(*given, "--overwrite") == 0
    (working / "out/mine.txt").write_text("mine")
    with pytest.raises(OutputError, match="did not write"):
        onnxplain(*given, "--overwrite")


def test_the_command_takes_presets_targets_and_classes(folder, working, capsys):
    given = ("--metric", "deletion", "--method", "gradient", "--preset", "mindspore", "--target", "dog", "--classes")
    assert onnxplain(folder, "pictures", *given) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("deletion ↑")  # as they say
    assert lines[2].startswith("  dog")
    assert sorted(os.listdir(working)) == ["masks", "pictures"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--method", "gradint"), "did you mean 'gradient'"),
        (("--method", "lime"), "Which methods a bundle has is chosen at export"),
        (("--set", "window=4", "--method", "gradient,smoothgrad"), "gradient, smoothgrad have no parameter 'window'"),
        (("--metric", ","), "--metric names no metric"),
        (("--set", "steps"), "write NAME=VALUE"),
        (("--set", "samples=3", "--method", "gradient"), "gradient has no parameter 'samples'"),
        (("--set", "deltion.steps=3"), "did you mean 'deletion'"),
        (("--set", "deletion.steps=three"), "no number"),
        (("--metric", "iosr"), "iosr needs masks"),
        (("--metric", "iosr", "--masks", "nowhere"), "nowhere is no folder"),
        (("--metric", "sparseness", "--preset", "mindspore"), "no mindspore form"),
    ],
)
def test_wrong_options_leave_nothing(given, message, folder, working):
    with pytest.raises(OnnxplainError, match=message):
        onnxplain(folder, "pictures", "-o", "out", *given)
    assert sorted(os.listdir(working)) == ["masks", "pictures"]


def test_help_lists_every_metric(capsys):
    with pytest.raises(SystemExit):
        onnxplain("--help")
    printed = capsys.readouterr().out
    assert all(name in printed for name in METRICS)
