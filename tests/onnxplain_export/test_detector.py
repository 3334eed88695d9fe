"""RISE+ : the detector is trained, proved, written beside the other graphs, and costs two passes more than RISE."""

import json
import shutil

import cv2
import numpy as np
import onnx
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from onnx import numpy_helper

import small_models
from onnxplain import Explainer
from onnxplain.cli import main
from onnxplain.errors import BundleError, ModelError, ParameterError, PictureError
from onnxplain.masks import random_masks
from onnxplain.plans import PLANS
from onnxplain.sessions import Sessions
from onnxplain_export import export
from onnxplain_export.bundle import sha256_of
from onnxplain_export.detector import train_detector
from small_models import WEIGHTS, conv, head, model, node

SIDE = 16
LABELS = ["red", "green", "blue", "yellow", "cyan"]
RISE = {"masks": 24, "cells": 4, "seed": 3}
METHODS = ["gradient", "rise"]
CENTRED = [
    {"step": "colour", "order": "RGB"},
    {"step": "scale", "factor": 1 / 255},
    {"step": "mean", "values": [0.5] * 3},
    {"step": "std", "values": [0.25] * 3},
    {"step": "layout", "order": "NCHW"},
]


def picture(rng, name):
    """A picture of the class's colour, with blotches."""
    colour = {"red": (2,), "green": (1,), "blue": (0,), "yellow": (1, 2), "cyan": (0, 1)}[name]
    level = np.full(3, 40)
    level[list(colour)] = 210
    blotches = rng.integers(-40, 40, (4, 4, 1)).repeat(4, 0).repeat(4, 1)
    return np.clip(level + blotches + rng.normal(0, 8, (SIDE, SIDE, 3)), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for name in LABELS:
        (folder / name).mkdir()
        for number in range(12):
            cv2.imwrite(str(folder / name / f"{number}.png"), picture(rng, name))
    return folder


def network():
    """A random network, its scores shifted so that they differ from picture to picture in which is the largest."""
    rng = np.random.default_rng(1)
    rows = (
        np.stack([picture(rng, name) for name in LABELS])[..., ::-1].transpose(0, 3, 1, 2).astype(np.float32) / 63.75
        - 2
    )
    given = model([conv(), *head("c")], inputs=[("x", 1, ["N", 3, SIDE, SIDE])])
    return model(
        [conv(), *head("c")],
        {"fb": WEIGHTS["fb"] - small_models.run(given, {"x": rows}).mean(axis=0)},
        inputs=[("x", 1, ["N", 3, SIDE, SIDE])],
    )


def bundle(folder, **options):
    given = network()
    return export(given, folder, methods=METHODS, labels=LABELS, preprocessing=CENTRED, activation="softmax", **options)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return bundle(tmp_path_factory.mktemp("plain") / "net.explain")


@pytest.fixture(scope="module")
def trained(tmp_path_factory, plain, pictures):
    """A bundle with a detector, and what was recorded of it."""
    folder = tmp_path_factory.mktemp("trained") / "net.explain"
    shutil.copytree(plain, folder)
    return folder, train_detector(folder, pictures)


@pytest.fixture
def images():
    rng = np.random.default_rng(9)
    return np.stack([picture(rng, name) for name in ("red", "yellow", "blue")])


def test_the_detector_knows_its_pictures_and_is_written_down(trained, plain):
    folder, record = trained
    told = json.loads((folder / "explainer.json").read_text())
    assert told["detector"] == record
    assert record["network"] == told["source"]["sha256"]
    assert (record["features"], record["pictures"], record["classes"]) == ("features", 60, 5)
    assert record["accuracy"] > 0.9
    assert told["verification"]["masked.detected"]["error"] < 1e-4
    before = json.loads((plain / "explainer.json").read_text())
    assert {name: entry["file"] for name, entry in told["graphs"].items() if name in before["graphs"]} == {
        name: entry["file"] for name, entry in before["graphs"].items()
    }
    assert set(told["methods"]) == {*METHODS, "rise_plus"}


def test_the_other_methods_give_the_same_maps_as_before(trained, plain, images):
    for method, parameters in (("gradient", {}), ("rise", RISE)):
        maps = [Explainer(folder, device="cpu").explain(images, method, **parameters) for folder in (plain, trained[0])]
        assert_array_equal(maps[0].attribution, maps[1].attribution)


def test_a_second_detector_takes_the_place_of_the_first(trained, pictures, tmp_path):
    folder = tmp_path / "net.explain"
    shutil.copytree(trained[0], folder)
    record = train_detector(folder, pictures, labels="network", seed=1, epochs=3)
    told = json.loads((folder / "explainer.json").read_text())
    assert told["detector"] == record
    assert record["training"]["epochs"] == 3
    assert 2 <= record["classes"] <= 5
    assert list(told["graphs"]).count("masked.detected") == 1
    assert sha256_of(folder / "masked.detected.onnx") != sha256_of(trained[0] / "masked.detected.onnx")


def test_training_twice_gives_the_same_detector(trained, plain, pictures, tmp_path):
    folder = tmp_path / "net.explain"
    shutil.copytree(plain, folder)
    assert train_detector(folder, pictures) == trained[1]
    assert sha256_of(folder / "weights.data") == sha256_of(trained[0] / "weights.data")


def counted(monkeypatch, explainer, images, method, **parameters):
    """The rows that enter the network while a map is made."""
    rows = []
    run = Sessions.run

    def counting(self, graph, outputs, inputs, *rest):
        steps = next((inputs[e.name].shape[1] for e in graph.inputs if e.role == "steps"), 1)
        count = next(len(inputs[e.name]) for e in graph.inputs if e.role == "image")
        rows.append(count * steps)
        return run(self, graph, outputs, inputs, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(Sessions, "run", counting)
        result = explainer.explain(images, method, **parameters)
    return sum(rows), result.attribution


@pytest.mark.parametrize("count", [1, 3])
def test_rise_plus_takes_two_passes_more_than_rise(monkeypatch, trained, images, count):
    explainer = Explainer(trained[0], device="cpu")
    passes = [counted(monkeypatch, explainer, images[:count], name, **RISE)[0] for name in ("rise", "rise_plus")]
    assert passes == [count * 25, count * 27]


def head_of(folder):
    """The detector's normalised weight [F, classes], read from the graph."""
    graph = onnx.load(folder / "masked.detected.onnx").graph
    found = [numpy_helper.to_array(t, str(folder)) for t in graph.initializer if list(t.dims) == [8, 5]]
    return next(weight for weight in found if np.allclose(np.linalg.norm(weight, axis=0), 1, atol=1e-2))


def by_definition(folder, rows, target, mindspore=False):
    """RISE+ of one image: masks weighted by the detector's confidence, between the empty image's and the image's."""
    explainer = Explainer(folder, device="cpu")
    rule = "random_masks.mindspore" if mindspore else "random_masks"
    parameters = {"masks": 24, "cells": 4, "probability": 0.5, "design": "orthogonal"}
    steps = PLANS[rule].rule(parameters, SIDE, SIDE)
    masks = random_masks(3, steps, SIDE, SIDE)
    given = network()

    def confidence(batch):
        features = small_models.run(given, {"x": batch}, "features")
        return (features / (np.linalg.norm(features, axis=1, keepdims=True) + 1e-4) @ head_of(folder)).max(axis=1)

    masked = rows * masks[:, None]
    logits = explainer.scores(masked).astype(np.float64)
    scores = (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True))[:, target]
    low, high = confidence(np.zeros_like(rows))[0], confidence(rows)[0]
    if mindspore:
        share = (np.clip(confidence(masked), low, high) - low) / (high - low + 2.2e-16)
        return np.einsum("k,k,khw->hw", share, scores, masks) / 24
    low, high = min(low, high), max(low, high)
    share = (np.clip(confidence(masked), low, high) - low) / (high - low)
    return np.einsum("k,k,khw->hw", share, scores, masks) / masks.sum(axis=0)


@pytest.mark.parametrize("preset", [None, "mindspore"])
def test_the_map_is_that_of_the_definition(trained, images, preset):
    explainer = Explainer(trained[0], device="cpu")
    maps = []
    for image in images:
        rows = explainer.values([image])
        found = explainer.explain([image], "rise_plus", 1, preset=preset, **RISE).attribution[0, 0]
        assert_allclose(found, by_definition(trained[0], rows, 1, preset is not None), rtol=1e-3, atol=1e-6)
        maps.append(found)
    assert np.ptp(maps, axis=(1, 2)).max() > 1e-3


def inverted(monkeypatch, low, high):
    """Makes the detector's two ends what is said."""
    collect = "onnxplain.loops.perturbation._ends"
    monkeypatch.setattr(collect, lambda work: (np.full(work.count, low), np.full(work.count, high)))


def test_ends_that_changed_places_are_put_right_and_mindspores_are_not(monkeypatch, trained, images):
    explainer = Explainer(trained[0], device="cpu")
    inverted(monkeypatch, 0.2, 0.9)
    right = explainer.explain(images, "rise_plus", 0, **RISE).attribution
    inverted(monkeypatch, 0.9, 0.2)
    assert_array_equal(explainer.explain(images, "rise_plus", 0, **RISE).attribution, right)
    assert np.abs(right - explainer.explain(images, "rise", 0, **RISE).attribution).max() > 1e-5
    found, plain_rise = (
        explainer.explain(images, name, 0, preset="mindspore", **RISE).attribution for name in ("rise_plus", "rise")
    )
    assert_allclose(found, plain_rise, rtol=1e-5)
    inverted(monkeypatch, 0.5, 0.5)
    assert_allclose(
        explainer.explain(images, "rise_plus", 0, **RISE).attribution,
        explainer.explain(images, "rise", 0, **RISE).attribution,
        rtol=1e-5,
    )
    assert not explainer.explain(images, "rise_plus", 0, preset="mindspore", **RISE).attribution.any()


def test_a_detector_of_another_network_is_refused(trained, images, tmp_path):
    folder = tmp_path / "net.explain"
    shutil.copytree(trained[0], folder)
    told = json.loads((folder / "explainer.json").read_text())
    told["detector"]["network"] = "0" * 64
    (folder / "explainer.json").write_text(json.dumps(told))
    with pytest.raises(BundleError, match=r"another network \(000000000000…\); train one for this: onnxplain detector"):
        Explainer(folder, device="cpu").explain(images, "rise_plus", **RISE)


def test_what_a_detector_cannot_be_trained_on_is_an_error_and_changes_nothing(plain, pictures, tmp_path):
    before = sha256_of(plain / "explainer.json")
    (tmp_path / "empty").mkdir()
    with pytest.raises(PictureError, match="no pictures"):
        train_detector(plain, tmp_path / "empty")
    shutil.copytree(pictures / "red", tmp_path / "one" / "red")
    shutil.copytree(pictures / "red", tmp_path / "wrong" / "redd")
    with pytest.raises(ParameterError, match="all pictures are of one class"):
        train_detector(plain, tmp_path / "one")
    with pytest.raises(ParameterError, match="did you mean 'red'"):
        train_detector(plain, tmp_path / "wrong")
    with pytest.raises(ModelError, match="did you mean 'features'"):
        train_detector(plain, pictures, features="feature")
    with pytest.raises(ParameterError, match="epochs=0"):
        train_detector(plain, pictures, epochs=0)
    assert sha256_of(plain / "explainer.json") == before


def test_a_network_without_a_linear_layer_before_its_scores_asks_for_the_features(tmp_path, pictures):
    nodes = [conv(), node("Relu", ["c"], ["r"]), node("GlobalMaxPool", ["r"], ["p"]), node("Flatten", ["p"], ["y"])]
    given = model(nodes, inputs=[("x", 1, ["N", 3, SIDE, SIDE])], outputs=[("y", 1, ["N", 8])])
    folder = export(given, tmp_path / "net.explain", methods=METHODS, preprocessing="unit", activation="softmax")
    with pytest.raises(ModelError, match="features="):
        train_detector(folder, pictures, labels="network")


@pytest.mark.parametrize(("accuracy", "chance"), [(1 / 6, True), (0.9, False)])
def test_the_command_says_how_often_the_detector_is_right(monkeypatch, capsys, accuracy, chance):
    record = {"features": "pool", "pictures": 60, "classes": 6, "accuracy": accuracy}
    monkeypatch.setattr("onnxplain_export.commands.detector_command.train_detector", lambda *_, **__: record)
    assert main(["detector", "net.explain", "--data", "pictures"]) == 0
    said = capsys.readouterr()
    assert f"right on {100 * accuracy:.1f} % of its training pictures" in said.out
    assert ("no better than chance" in said.err) == chance
