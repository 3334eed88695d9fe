"""The masked graphs: masks that are numpy's, scores of exactly the images that these masks leave, and their sums."""

import functools

import numpy as np
import onnx_ir as ir
import pytest

import small_models
from onnxplain.masks import painted_masks, random_masks
from onnxplain.plans import PLANS
from onnxplain_export.emitter import Emitter
from onnxplain_export.evaluate import run, session_of
from onnxplain_export.graphs import COLUMNS
from onnxplain_export.graphs.features import features_graph, own_name, penultimate
from onnxplain_export.graphs.masked import (
    NORM_ROOM,
    Detector,
    masked_detected,
    masked_random,
    masked_segments,
)
from onnxplain_export.graphs.masks import painted, random_cells
from onnxplain_export.normalize import normalize
from onnxplain_export.sources import read_source
from small_models import conv, head, model, node, random_weight

HEIGHT, WIDTH, SEED = 12, 17, 1_000_003
IMAGES = small_models.images(3, HEIGHT, WIDTH)
TARGETS = np.array([[0, 3], [1, 1], [4, 2]], np.int64)
FILL = np.full((1, 1, 1, 1), 0.25, np.float32)
HEAD = random_weight(4, 8, seed=5)
LAYOUTS = ("NCHW", "NHWC")


def network(layout: str):
    first = [] if layout == "NCHW" else [node("Transpose", ["x"], ["p"], perm=[0, 3, 1, 2])]
    shape = [3, HEIGHT, WIDTH] if layout == "NCHW" else [HEIGHT, WIDTH, 3]
    return model([*first, conv("p" if first else "x"), *head("c")], inputs=[("x", 1, ["N", *shape])])


@functools.cache
def session(layout: str, make):
    normalized = normalize(read_source(network(layout)), activation="softmax")
    if make is not masked_detected:
        return session_of(make(normalized))
    return session_of(make(normalized, Detector(*penultimate(normalized), HEAD)))


def fed(layout: str, make, **feeds):
    """All outputs of a graph by name."""
    images = IMAGES if layout == "NCHW" else np.ascontiguousarray(IMAGES.transpose(0, 2, 3, 1))
    given = {"x": images, "target": TARGETS, "fill": FILL, "activated": np.ones(1, np.float32), **feeds}
    one = session(layout, make)
    names = [output.name for output in one.get_outputs()]
    return dict(zip(names, run(one, {e.name: given[e.name] for e in one.get_inputs()}, names), strict=True))


def probabilities(masks) -> np.ndarray:
    """The targets' probabilities [N, K, T] of the images kept where the masks [K, H, W] or [N, K, H, W] are 1."""
    masks = np.broadcast_to(masks, (3, *masks.shape[-3:]))[:, :, None]
    rows = (IMAGES[:, None] * masks + 0.25 * (1 - masks)).reshape(-1, 3, HEIGHT, WIDTH)
    logits = small_models.run(network("NCHW"), {"x": rows.astype(np.float32)}).astype(np.float64)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    found = (powers / powers.sum(axis=1, keepdims=True)).reshape(3, -1, 5)
    return np.take_along_axis(found, TARGETS[:, None].repeat(found.shape[1], 1), axis=2)


def rise_steps(count: int = 6) -> np.ndarray:
    return PLANS["random_masks"].rule({"masks": count, "cells": 5, "probability": 0.4}, HEIGHT, WIDTH)


def one_graph(make) -> list[np.ndarray]:
    """What a mask maker makes of steps [S, K, columns], seed and segments, each where it takes it."""
    graph = ir.Graph([], [], nodes=[], opset_imports={"": 20}, name="mask")
    steps = ir.val("steps", ir.DataType.FLOAT, ["S", "K", "columns"])
    seed, segments = ir.val("seed", ir.DataType.INT64, [1]), ir.val("segments", ir.DataType.INT64, ["P", "H", "W"])
    graph.inputs.extend([steps, seed, segments])
    mask = make(Emitter(graph, "test"), steps, seed, segments)
    mask.name, mask.type, mask.shape = "mask", ir.TensorType(ir.DataType.FLOAT), ir.Shape(["N", "K", "H", "W"])
    graph.outputs.append(mask)
    return session_of(ir.Model(graph, ir_version=10))


@pytest.mark.parametrize("seed", [0, SEED])
@pytest.mark.parametrize("cells", [2, 7, 32])
@pytest.mark.parametrize("design", ["independent", "orthogonal"])
def test_random_masks_in_the_graph_are_numpys(seed: int, cells: int, design: str) -> None:
    parameters = {"masks": 2500, "cells": cells, "probability": 0.5, "design": design}
    steps = PLANS["random_masks"].rule(parameters, 37, 64)[::125]
    steps[:, 0] = np.random.default_rng(0).integers(0, 2**20, 20)
    one = one_graph(lambda op, steps, seed, _: random_cells(op, steps, seed, (37, 64)))
    feeds = {"steps": np.stack([steps, steps[::-1]]), "seed": np.array([seed]), "segments": np.zeros((1, 1, 1), int)}
    (found,) = run(one, feeds, ["mask"])
    expected = random_masks(seed, steps, 37, 64)
    np.testing.assert_allclose(found[0], expected, atol=2e-6)
    np.testing.assert_allclose(found[1], expected[::-1], atol=2e-6)


@pytest.mark.parametrize("states", [1, 3])
@pytest.mark.parametrize("pictures", [1, 3])
def test_states_and_segments_may_each_be_shared_or_an_images_own(states: int, pictures: int) -> None:
    rng = np.random.default_rng(1)
    table = rng.random((states, 4, 6)).astype(np.float32)
    numbers = rng.integers(0, 6, (pictures, 5, 7))
    one = one_graph(lambda op, steps, seed, segments: painted(op, steps, segments, (5, 7)))
    (found,) = run(one, {"steps": table, "seed": np.zeros(1, int), "segments": numbers}, ["mask"])
    assert found.shape == (max(states, pictures), 4, 5, 7)
    for image, mask in enumerate(found):
        own = numbers[image if pictures > 1 else 0]
        np.testing.assert_array_equal(mask, painted_masks(table[image if states > 1 else 0], own))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rise_sums_the_scores_of_the_kept_parts(layout: str) -> None:
    steps = rise_steps()
    found = fed(layout, masked_random, steps=steps[None], seed=np.array([SEED]))
    masks = random_masks(SEED, steps, HEIGHT, WIDTH)
    expected = probabilities(masks)
    np.testing.assert_allclose(found["scores"], expected, rtol=1e-4, atol=1e-6)
    total = np.einsum("nkt,khw->nthw", expected, masks)
    np.testing.assert_allclose(np.squeeze(found["total"]), total, rtol=1e-4, atol=1e-6)
    assert found["total"].shape == ((3, 2, 1, 12, 17) if layout == "NCHW" else (3, 2, 12, 17, 1))
    np.testing.assert_allclose(np.squeeze(found["norm"]), masks.sum(axis=0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_image_may_have_segments_and_states_of_its_own(layout: str) -> None:
    rng = np.random.default_rng(2)
    states, numbers = rng.random((3, 5, 4)).astype(np.float32), rng.integers(0, 4, (3, HEIGHT, WIDTH))
    found = fed(layout, masked_segments, steps=states, segments=numbers)["scores"]
    masks = np.stack([painted_masks(own, where) for own, where in zip(states, numbers, strict=True)])
    np.testing.assert_allclose(found, probabilities(masks), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_detectors_share_weighs_each_mask(layout: str) -> None:
    steps = rise_steps()
    masks = random_masks(SEED, steps, HEIGHT, WIDTH)
    low, high = np.array([0.1, -1, 0.6], np.float32), np.array([0.5, 1, 0.2], np.float32)
    found = fed(layout, masked_detected, steps=steps[None], seed=np.array([SEED]), low=low, high=high)
    rows = (IMAGES[:, None] * masks[:, None] + 0.25 * (1 - masks[:, None])).reshape(-1, 3, HEIGHT, WIDTH)
    features = small_models.run(network("NCHW"), {"x": rows.astype(np.float32)}, "features")
    unit, classes = (each / (np.linalg.norm(each, axis=1, keepdims=True) + NORM_ROOM) for each in (features, HEAD))
    confidence = (unit @ classes.T).max(axis=1).reshape(3, -1)
    np.testing.assert_allclose(found["confidence"], confidence, rtol=1e-4, atol=1e-6)
    assert np.ptp(confidence) > 0.05
    share = (np.minimum(np.maximum(confidence, low[:, None]), high[:, None]) - low[:, None]) / (high - low)[:, None]
    np.testing.assert_allclose(share[2], 1)  # where low > high every mask counts, as in MindSpore
    total = np.einsum("nk,nkt,khw->nthw", share, probabilities(masks), masks)
    np.testing.assert_allclose(np.squeeze(found["total"]), total, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(np.squeeze(found["norm"]), masks.sum(axis=0), rtol=1e-3, atol=1e-5)


def test_equal_ends_of_the_detectors_scale_give_zeros_not_nan() -> None:
    ends = np.full(3, 0.3, np.float32)
    found = fed("NCHW", masked_detected, steps=rise_steps()[None], seed=np.array([0]), low=ends, high=ends)
    assert not found["total"].any()
    assert found["norm"].any()


@pytest.mark.parametrize("rule", ["random_masks", "random_masks.mindspore"])
def test_the_columns_are_those_of_the_plan(rule: str) -> None:
    assert COLUMNS["masked.random"] == COLUMNS["masked.detected"] == PLANS[rule].columns


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        (head("c"), ("features", 1)),
        (
            [
                node("Relu", ["c"], ["r"]),
                node("Conv", ["r", "last"], ["l"]),
                *head("l")[:2],
                node("Reshape", ["pooled", "two"], ["y"]),
            ],
            ("r", 1),
        ),
        (
            [
                node("Reshape", ["c", "flat"], ["channels"]),
                node("Transpose", ["channels"], ["t"], perm=[0, 2, 1]),
                node("MatMul", ["t", "fw"], ["each"]),
                node("ReduceMean", ["each", "one"], ["y"], keepdims=0),
            ],
            ("t", 2),
        ),
    ],
    ids=["linear", "convolution", "tokens"],
)
def test_the_last_linear_layers_input_holds_the_features(nodes, expected) -> None:
    weights = {
        "last": random_weight(8, 8, 1, 1),
        "two": np.array([0, 5]) if expected[0] != "r" else np.array([0, 8]),
        "flat": np.array([0, 8, HEIGHT * WIDTH]),
        "one": np.array([1]),
    }
    used = {name for one in nodes for name in one.input}
    given = model(
        [conv(), *nodes],
        {name: content for name, content in weights.items() if name in used},
        inputs=[("x", 1, ["N", 3, HEIGHT, WIDTH])],
        outputs=[("y", 1, ["N", 8 if expected[0] == "r" else 5])],
    )
    normalized = normalize(read_source(given))
    name, axis = penultimate(normalized)
    assert (own_name(name), axis) == expected
    assert penultimate(normalized, expected[0]) == (name, axis)
    (features,) = run(session_of(features_graph(normalized, name, axis)), {"x": IMAGES}, ["features"])
    value = small_models.run(given, {"x": IMAGES}, own_name(name))
    places = tuple(each for each in range(1, value.ndim) if each != axis)
    np.testing.assert_allclose(features, value.mean(axis=places) if places else value, rtol=1e-4, atol=1e-6)
