"""Scores that are means of a convolution's channels: the reverse pass begins with one class's row of the weight."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
import torch.nn.functional as F  # noqa: N812

import small_models
from normalizing import normalized
from onnxplain_export.graphs import frame
from onnxplain_export.graphs.class_layer import class_layer
from onnxplain_export.graphs.gradient import gradient
from onnxplain_export.graphs.layer import layer
from onnxplain_export.graphs.path import path
from onnxplain_export.layers import named_layer
from onnxplain_export.normalize import Normalized
from onnxplain_export.tables import GUIDED
from small_models import conv, node, random_weight

Array = np.ndarray[Any, np.dtype[Any]]

WEIGHT, BIAS = random_weight(5, 8, 1, 1), np.linspace(-0.3, 0.3, 5, dtype=np.float32)
TALL = random_weight(5, 8, 3, 3)
MEANS = {
    "GlobalAveragePool": node("GlobalAveragePool", ["s"], ["p"]),
    "ReduceMean": node("ReduceMean", ["s", "places"], ["p"], keepdims=0),
    "AveragePool": node("AveragePool", ["s"], ["p"], kernel_shape=[16, 16]),
}


def network(
    mean: str = "GlobalAveragePool", relu: bool = True, weight: Array = WEIGHT, **attributes: Any
) -> Normalized:
    """A convolution, a ReLU, and a convolution with a channel for each class, whose means are the scores."""
    nodes = [
        conv(),
        node("Relu", ["c"], ["r"]),
        node("Conv", ["r", "classes", "bias"], ["m"], name="classes", **attributes),
        node("Relu" if relu else "Identity", ["m"], ["s"]),
        MEANS[mean],
        node("Flatten", ["p"], ["y"]),
    ]
    return normalized(small_models.model(nodes, {"classes": weight, "bias": BIAS, "places": np.array([2, 3])}))


def in_torch(pictures: Array, target: int, relu: bool = True, weight: Array = WEIGHT) -> Array:
    x = torch.tensor(pictures, dtype=torch.float64, requires_grad=True)
    weights = {name: torch.tensor(array, dtype=torch.float64) for name, array in small_models.WEIGHTS.items()}
    features = torch.relu(F.conv2d(x, weights["w"], weights["b"], padding=1))
    padding = weight.shape[-1] // 2
    maps = F.conv2d(features, torch.tensor(weight).double(), torch.tensor(BIAS).double(), padding=padding)
    scores = (torch.relu(maps) if relu else maps).mean((2, 3))
    return torch.autograd.grad(scores[:, target].sum(), x)[0].numpy()


def run(model: ir.Model, **feeds: Array) -> Array:
    (found,) = small_models.session(ir.to_proto(model)).run(["total"], feeds)
    return np.asarray(found)


def reads_maps_of_classes(model: ir.Model) -> bool:
    """Whether some convolution reads maps that have a channel for each class."""
    return any(n.op_type == "Conv" and (n.inputs[0].shape or ir.Shape([0, 0]))[1] == 5 for n in model.graph)


@pytest.fixture
def without_it(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], ir.Model]], ir.Model]:
    """Builds a graph whose reverse pass begins at the scores."""

    def build(make: Callable[[], ir.Model]) -> ir.Model:
        with monkeypatch.context() as patch:
            patch.setattr(frame, "class_layer", lambda scores, rows: None)
            return make()

    return build


@pytest.mark.parametrize("relu", [True, False], ids=["rectified", "linear"])
@pytest.mark.parametrize("mean", MEANS)
def test_the_gradient_is_torchs_without_a_convolution_of_all_classes(mean: str, relu: bool) -> None:
    model = gradient(network(mean, relu))
    pictures = small_models.images(3, 16, 16, count=2)
    found = run(model, x=pictures, target=np.array([[3], [3]]))
    expected = in_torch(pictures, 3, relu)
    assert np.abs(found[:, 0] - expected).max() <= 1e-6 * np.abs(expected).max()
    assert not reads_maps_of_classes(model)


def at_one_place(wrt: str | None = None) -> Normalized:
    nodes = [
        conv(),
        node("Relu", ["c"], ["r"]),
        node("GlobalAveragePool", ["r"], ["p"]),
        node("Conv", ["p", "classes", "bias"], ["m"], name="classes"),
        node("Flatten", ["m"], ["y"]),
    ]
    return normalized(small_models.model(nodes, {"classes": WEIGHT, "bias": BIAS}), wrt=wrt)


def test_scores_that_are_a_convolutions_only_place(without_it: Any) -> None:
    source = at_one_place()
    pictures, target = small_models.images(3, 16, 16, count=2), np.array([[3], [0]])
    found = gradient(source)
    assert not reads_maps_of_classes(found)
    plain = without_it(lambda: gradient(source))
    np.testing.assert_array_equal(run(found, x=pictures, target=target), run(plain, x=pictures, target=target))


@pytest.mark.parametrize("wrt", ["p", "m"])
@pytest.mark.parametrize("shares", [False, True], ids=["each alone", "shared"])
def test_gradients_at_what_it_reads_and_gives(wrt: str, shares: bool) -> None:
    found = run(gradient(at_one_place(wrt), shares=shares), x=small_models.images(3, 16, 16), target=np.full((3, 1), 2))
    expected = WEIGHT[2] if wrt == "p" else np.eye(5)[2][:, None, None]
    np.testing.assert_array_equal(found, np.broadcast_to(expected.astype(np.float32), found.shape))


@pytest.mark.parametrize("shares", [False, True], ids=["each alone", "shared"])
@pytest.mark.parametrize("relu", [True, False], ids=["rectified", "linear"])
def test_weighted_sums_are_those_from_the_scores_bit_for_bit(relu: bool, shares: bool, without_it: Any) -> None:
    """Weights below zero and of zero, targets that aren't there: no gradient, not another class's."""
    source = network(relu=relu)
    feeds = {
        "x": small_models.images(3, 16, 16, count=2),
        "target": np.array([[0, 4, 2], [1, -1, 5]]),
        "baseline": np.zeros((1, 3, 16, 16), np.float32),
        "steps": np.array([[[0.3, 0.5], [0.6, -0.25], [0.9, 0.0]]], np.float32),
    }
    found = run(path(source, shares=shares), **feeds)
    plain = run(without_it(lambda: path(source, shares=shares)), **feeds)
    np.testing.assert_array_equal(found, plain)
    assert np.abs(found[0]).max(axis=(1, 2, 3)).min() > 0
    assert not found[1, 1:].any()


@pytest.mark.parametrize("name", ["r", "m", "s"])
def test_layers_before_and_behind_it(name: str, without_it: Any) -> None:
    source = network()
    at = named_layer(source, name)
    feeds = {"x": small_models.images(3, 16, 16, count=2), "target": np.array([[0], [4]])}
    found = run(layer(source, at), **feeds)
    assert np.abs(found).max() > 0
    np.testing.assert_array_equal(found, run(without_it(lambda: layer(source, at)), **feeds))


def test_it_lies_behind_the_rows() -> None:
    model = network().model
    values = {str(value.name): value for one in model.graph for value in one.outputs}
    scores = model.graph.outputs[0]
    found = {name: class_layer(scores, values[name]) for name in ("c", "r", "m", "s")}
    assert [name for name, one in found.items() if one is not None] == ["c", "r"]


def test_convolutions_that_see_more_than_a_place_stay_whole() -> None:
    model = gradient(network(weight=TALL, pads=[1, 1, 1, 1]))
    pictures = small_models.images(3, 16, 16, count=1)
    expected = in_torch(pictures, 1, weight=TALL)
    assert (
        np.abs(run(model, x=pictures, target=np.array([[1]]))[:, 0] - expected).max() <= 1e-6 * np.abs(expected).max()
    )


def test_other_rules_than_derivatives_begin_at_the_scores() -> None:
    assert reads_maps_of_classes(gradient(network(), GUIDED))
