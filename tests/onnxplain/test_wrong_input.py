"""Whatever can't be explained is one clear error, never a map."""

import json
import sys
from dataclasses import replace

import cv2
import numpy as np
import pytest

from onnxplain import Explainer, ModelError, ParameterError, PictureError
from onnxplain.bundle import Parameter
from onnxplain.errors import BundleError
from onnxplain.parameters import check
from onnxplain.regions import refuse_lacking
from onnxplain.solvers import coalitions
from toy_bundle import gradient_of, write_toy_bundle


def relative(a, b):
    return np.linalg.norm(np.asarray(a, np.float64) - b) / np.linalg.norm(b)


@pytest.mark.parametrize(
    ("method", "parameters", "message"),
    [
        ("smothgrad", {}, "unknown method 'smothgrad'; did you mean 'smoothgrad'. Which methods .* at export"),
        ("rise_plus", {}, "rise_plus needs a detector; train one: onnxplain detector .* --data PICTURES"),
        ("smoothgrad", {"sample": 3}, "unknown parameter of smoothgrad 'sample'; did you mean 'samples'"),
        ("gradient", {"samples": 3}, "gradient has no parameters, not 'samples'"),
        ("smoothgrad", {"samples": 0}, "samples=0 is out of range: 1 to 1000000"),
        ("smoothgrad", {"samples": 2.5}, "whole number"),
        ("smoothgrad", {"samples": "3"}, "whole number"),
        ("smoothgrad", {"samples": True}, "whole number"),
        ("smoothgrad", {"noise": -0.1}, "at least 0"),
        ("smoothgrad", {"noise": float("nan")}, "noise=nan"),
        ("smoothgrad", {"seed": 2**20}, "out of range"),
        ("integrated_gradients", {"baseline": "blak"}, "did you mean 'black'"),
        ("integrated_gradients", {"baseline": np.zeros((2, 2))}, "does not broadcast"),
        ("integrated_gradients", {"baseline": np.inf}, "NaN or infinity"),
        ("integrated_gradients", {"baseline": object()}, "no number, name or array"),
        ("integrated_gradients", {"steps": 100_000}, "at most 2000"),
        ("gradient", {"score": "logits"}, "score= is for perturbation methods; gradient explains the logits"),
        ("occlusion", {"score": "logit"}, "did you mean 'logits'"),
        ("gradient", {"memory": "10"}, "too little"),
    ],
)
def test_a_wrong_method_or_parameter_says_what_is_wrong(explainer, rows, method, parameters, message):
    with pytest.raises(ParameterError, match=message):
        explainer.explain(rows, method, **parameters)


@pytest.mark.parametrize(
    ("kind", "choices", "message"),
    [
        ("array", ("grid", "slic"), "unknown x 'no'; it can be grid, slic or an array (.npy file)"),
        ("array", (), "unknown x 'no'; it can be an array (.npy file)"),
        ("choice", ("a", "b"), "unknown x 'no'; it can be a, b"),
        ("choice", (), "unknown x 'no'"),
    ],
)
def test_a_wrong_choice_says_what_there_is(kind, choices, message):
    with pytest.raises(ParameterError) as raised:
        check(Parameter("x", kind, None, choices=choices, minimum=None, maximum=None, help=""), "no")
    assert str(raised.value) == message


def test_superpixels_without_scikit_image_are_refused_and_the_grid_is_not(explainer, monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage", None)
    segments = Parameter("segments", "array", "grid", None, None, "", ("grid", "slic"))
    method = replace(explainer.bundle.methods["gradient"], name="lime", parameters={"segments": segments})
    for harmless in ({}, {"segments": "grid"}, {"segments": np.zeros((8, 8), int)}):
        refuse_lacking(method, harmless)
    with pytest.raises(ParameterError, match=r"lime needs scikit-image to segment pictures: pip .*, or use segments"):
        refuse_lacking(method, {"segments": "slic"})


def test_too_few_samples_are_an_error_that_names_the_method():
    with pytest.raises(ParameterError, match="kernel_shap: samples=4 are too few for 49 segments; give at least 98"):
        coalitions({"samples": 4, "seed": 0}, 49)


@pytest.mark.parametrize("threads", [0, -1, 1.5, True])
def test_a_wrong_number_of_threads_is_an_error(folder, threads):
    with pytest.raises(ParameterError, match="threads"):
        Explainer(folder, device="cpu", threads=threads)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((1, 3, 8, 9), np.float32), r"shape \[3, 8, 9\]; the network's input 'image' takes \[3, 8, 8\]"),
        (np.zeros((8, 8, 3)), r"hand in a picture as uint8"),
        (np.zeros((4, 4, 4), np.uint8), r"a uint8 picture is \[H, W, 3\]"),
        (np.full((1, 3, 8, 8), np.nan), "image 0 contains NaN or infinity"),
        ([np.zeros((3, 8, 8)), np.full((3, 8, 8), np.inf)], "image 1 contains NaN or infinity"),
        ([object()], "an array of object is no image"),
        (7, "int is no picture"),
        ("lost.png", "lost.png"),
    ],
)
def test_a_wrong_image_says_what_is_wrong(explainer, images, message):
    with pytest.raises(PictureError, match=message):
        explainer.explain(images)


def test_a_bundle_without_preprocessing_takes_no_pictures(tmp_path, picture, rows):
    explainer = Explainer(write_toy_bundle(tmp_path, preprocessing=None), device="cpu")
    assert relative(explainer.explain(rows, targets=0).attribution, gradient_of(rows, 0)) < 1e-6
    (tmp_path / "a.png").write_bytes(cv2.imencode(".png", picture)[1].tobytes())
    with pytest.raises(PictureError, match=r"no preprocessing.*--preprocessing"):
        explainer.explain(tmp_path / "a.png")
    with pytest.raises(ParameterError, match="need a bundle with preprocessing"):
        explainer.explain(rows, "integrated_gradients", baseline="black")


def test_a_network_that_overflows_is_an_error_and_never_a_map(explainer, rows):
    rows[3] = 3e38
    with pytest.raises(ModelError, match=r"scores for image 3 contains NaN or infinity"):
        explainer.explain(rows)


def test_a_map_that_overflows_is_an_error_and_never_a_map(explainer, rows):
    with pytest.raises(ModelError, match=r"map for image 0 contains NaN or infinity"):
        explainer.explain(rows, "integrated_gradients", baseline=1e30)


def test_a_bundle_for_a_newer_engine_says_to_upgrade(tmp_path, rows):
    folder = write_toy_bundle(tmp_path)
    description = json.loads((folder / "explainer.json").read_text())
    for entry, message in ((("plan", "spiral"), "plan rule 'spiral'"), (("finish", "median"), "finish rule 'median'")):
        method = {**description["methods"]["gradient"], entry[0]: entry[1]}
        text = json.dumps({**description, "methods": {"gradient": method}})
        (folder / "explainer.json").write_text(text)
        with pytest.raises(BundleError, match=f"{message}.*upgrade"):
            Explainer(folder, device="cpu").explain(rows)


def test_a_graph_that_is_no_graph_is_an_error_of_the_bundle(tmp_path, rows):
    folder = write_toy_bundle(tmp_path)
    (folder / "gradient.onnx").write_bytes(b"nothing")
    with pytest.raises(BundleError, match=r"can't open .*gradient\.onnx"):
        Explainer(folder, device="cpu", verify=False).explain(rows)
