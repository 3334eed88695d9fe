"""Two bundles on the same pictures: how far their maps agree, and the command that says so."""

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.testing import assert_allclose

from onnxplain import Explainer, ParameterError
from onnxplain.cli import main
from onnxplain.comparing import compare
from toy_bundle import write_toy_bundle


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("bundles")


@pytest.fixture(scope="module")
def first(folder) -> Explainer:
    return Explainer(write_toy_bundle(folder / "first.explain"), device="cpu")


@pytest.fixture(scope="module")
def second(folder) -> Explainer:
    return Explainer(write_toy_bundle(folder / "second.explain", linear=True), device="cpu")


def test_networks_of_other_classes_are_not_compared(first, folder, pictures):
    description = json.loads((first.bundle.path / "explainer.json").read_text())
    outputs = [{**description["outputs"][0], "classes": 7, "labels": None}]
    other = Explainer(write_toy_bundle(folder / "other.explain", outputs=outputs), device="cpu")
    with pytest.raises(ParameterError, match="compare networks of the same classes"):
        compare(first, other, pictures)


@pytest.fixture
def bundles(first, second) -> list[str]:
    return [str(explainer.bundle.path) for explainer in (first, second)]


@pytest.fixture
def pictures():
    return list(np.random.default_rng(4).integers(0, 256, (3, 20, 31, 3), np.uint8))


@pytest.mark.parametrize("method", ["gradient", "smoothgrad", "integrated_gradients", "occlusion"])
def test_a_bundle_agrees_with_itself(method, first, pictures):
    for comparison in compare(first, first, pictures, method):
        assert comparison.rank_correlation == 1
        assert comparison.distance == 0
        assert comparison.overlap == 1
        assert not comparison.difference.any()


def test_the_numbers_are_those_of_the_maps(first, second, pictures):
    found = compare(first, second, pictures, "integrated_gradients")
    assert len(found) == 3
    for comparison in found:
        maps = [result.attribution[0].astype(np.float64) for result in (comparison.first, comparison.second)]
        one, two = (np.abs(each).sum(0) for each in maps)  # the toy's methods measure sensitivity
        assert comparison.first.targets.tolist() == comparison.second.targets.tolist()
        ranks = [values.ravel().argsort().argsort() for values in (one, two)]
        assert comparison.rank_correlation == pytest.approx(np.corrcoef(*ranks)[0, 1], abs=1e-9)
        a, b = one / np.linalg.norm(one), two / np.linalg.norm(two)
        assert comparison.distance == pytest.approx(np.linalg.norm(b - a), abs=1e-9)
        assert_allclose(comparison.difference, b - a, atol=1e-12)
        best = [set(values.ravel().argsort()[-3:]) for values in (a, b)]  # 5 % of 64 pixels
        assert comparison.overlap == pytest.approx(len(best[0] & best[1]) / 3)


def test_a_class_that_the_second_does_not_have_is_an_error(first, second, pictures):
    with pytest.raises(ParameterError, match="out of range"):
        compare(first, second, pictures, targets=99)
    with pytest.raises(ParameterError, match="one class"):
        compare(first, second, pictures, targets=[[0, 1]])


def test_the_command_writes_numbers_and_a_page(bundles, pictures, tmp_path, capsys):
    (tmp_path / "pictures").mkdir()
    for index, pixels in enumerate(pictures):
        cv2.imwrite(str(tmp_path / "pictures" / f"picture{index}.png"), pixels)
    (tmp_path / "pictures" / "broken.png").write_bytes(b"no picture")
    out = tmp_path / "out"
    command = ["compare", *bundles, str(tmp_path / "pictures"), "--method", "smoothgrad", "--set", "samples=3"]
    assert main([*command, "-o", str(out)]) == 1
    assert "3 pictures compared" in capsys.readouterr().out
    rows = list(csv.DictReader((out / "comparison.csv").read_text().splitlines()))
    assert [Path(row["picture"]).name for row in rows] == [f"picture{index}.png" for index in range(3)]
    assert all(-1 <= float(row["rank_correlation"]) <= 1 for row in rows)
    lines = [json.loads(line) for line in (out / "index.jsonl").read_text().splitlines()]
    assert [("error" in line) for line in lines] == [False] * 3 + [True]
    assert lines[0]["provenance"]["first"]["parameters"]["samples"] == 3
    page = (out / "report.html").read_text()
    assert page.count("<article>") == 3
    assert page.count("<figcaption>difference") == 3
    assert main([*command, "-o", str(out), "--overwrite"]) == 1


def test_bad_arguments_say_what_would_be_right(bundles, tmp_path, capsys):
    assert main(["compare", *bundles, str(tmp_path), "--method", "nothing", "-o", str(tmp_path / "out")]) == 2
    assert "it has: gradient" in capsys.readouterr().err
    assert main(["compare", *bundles, str(tmp_path), "--set", "samples=3", "-o", str(tmp_path / "out")]) == 2
    assert "gradient has: no parameters" in capsys.readouterr().err
