"""Each graph of a bundle keeps its contract: what it sums, in which shape, however steps and images are split."""

import functools

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto

import small_models
from onnxplain.random import normal
from onnxplain_export.graphs import GRAPHS
from onnxplain_export.normalize import normalize
from onnxplain_export.sources import read_source
from small_models import head, model, node, random_weight

IMAGES = small_models.images(3, 12, 16)
TARGETS = np.array([[0, 3], [1, 1], [4, 2]], np.int64)
SEED = 11
LAYOUTS = ("NCHW", "NHWC", "table")


def network(layout: str):
    """A smooth network, so that small differences of its input make small differences of its gradient."""
    if layout == "table":
        nodes = [
            node("Gemm", ["x", "table"], ["h"]),
            node("Tanh", ["h"], ["t"]),
            node("Gemm", ["t", "fw", "fb"], ["y"]),
        ]
        return model(nodes, {"table": random_weight(20, 8)}, inputs=[("x", TensorProto.FLOAT, ["N", 20])])
    first = [] if layout == "NCHW" else [node("Transpose", ["x"], ["p"], perm=[0, 3, 1, 2])]
    nodes = [
        *first,
        node("Conv", ["p" if first else "x", "w", "b"], ["c"], strides=[2, 2]),
        node("Tanh", ["c"], ["t"]),
        *head("t"),
    ]
    nodes[-4] = node("Softplus", ["t"], ["relu"])
    shape = [3, 12, 16] if layout == "NCHW" else [12, 16, 3]
    return model(nodes, inputs=[("x", TensorProto.FLOAT, ["N", *shape])])


@functools.cache
def session(layout: str, graph: str) -> onnxruntime.InferenceSession:
    return small_models.session(ir.to_proto(GRAPHS[graph](normalize(read_source(network(layout))))))


def images_of(layout: str) -> np.ndarray:
    if layout == "table":
        return small_models.images(20)
    return IMAGES if layout == "NCHW" else np.ascontiguousarray(IMAGES.transpose(0, 2, 3, 1))


def run(
    layout: str,
    graph: str,
    images: np.ndarray,
    targets: np.ndarray = TARGETS,
    steps: np.ndarray | None = None,
    **changes,
):
    """All outputs of a graph by name; what isn't given has a value that hides nothing."""
    ones = [1] * (images.ndim - 1)
    feeds = {
        "x": images,
        "target": targets,
        "steps": steps,
        "baseline": np.full([1, *ones], 0.25, np.float32),
        "fill": np.full([1, *ones], 0.5, np.float32),
        "sigma": np.linspace(0.1, 0.3, 3, dtype=np.float32)[: len(images)],
        "seed": np.array([SEED], np.int64),
        "reference": np.zeros(targets.shape, np.float32),
        "activated": np.zeros(1, np.float32),
        **changes,
    }
    one = session(layout, graph)
    names = [output.name for output in one.get_outputs()]
    given = {entry.name: feeds[entry.name] for entry in one.get_inputs()}
    return dict(zip(names, one.run(names, given), strict=True))


def steps_of(graph: str, count: int = 4) -> np.ndarray:
    """Some steps [1, count, columns], all different."""
    rng = np.random.default_rng(0)
    graph = graph.removesuffix(".targets")
    if graph == "path":
        table = rng.uniform(0.2, 1, (count, 2))
    elif graph == "noise":
        table = np.stack(
            [np.arange(count), rng.uniform(0.2, 1, count), rng.uniform(0.5, 2, count), np.arange(count) % 2], 1
        )
    else:
        top, left = rng.integers(0, 6, (2, count))
        table = np.stack([top, left, top + rng.integers(1, 7, count), left + rng.integers(1, 10, count)], 1)
    return table[None].astype(np.float32)


def stepped(layouts: tuple[str, ...] = LAYOUTS):
    graphs = ("path", "noise", "masked", "path.targets", "noise.targets")
    return [(layout, graph) for graph in graphs for layout in layouts if (layout, graph) != ("table", "masked")]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_forward_gives_scores_the_top_class_and_the_models_outputs(layout: str) -> None:
    images = images_of(layout)
    found = run(layout, "forward", images)
    np.testing.assert_allclose(found["scores"], small_models.run(network(layout), {"x": images}), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found["scores"], found["y"])
    np.testing.assert_array_equal(found["top"], found["scores"].argmax(1))
    assert found["top"].dtype == np.int64


@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradient_is_that_of_finite_differences(layout: str) -> None:
    images = images_of(layout)
    found = run(layout, "gradient", images)
    assert found["total"].shape == (3, 2, *images.shape[1:])
    assert found["norm"].shape == (3, 2, *[1] * (images.ndim - 1))
    assert (found["norm"] == 1).all()
    rng = np.random.default_rng(0)
    for column in range(2):
        way = rng.standard_normal(images.shape).astype(np.float32)
        up, down = (run(layout, "forward", images + sign * 1e-2 * way)["scores"].astype(np.float64) for sign in (1, -1))
        slopes = np.take_along_axis(up - down, TARGETS[:, column : column + 1], 1).ravel() / 2e-2
        predicted = (found["total"][:, column] * way).reshape(3, -1).sum(1)
        np.testing.assert_allclose(predicted, slopes, rtol=2e-3, atol=2e-3 * np.abs(slopes).max())


def expected(layout: str, graph: str, images: np.ndarray, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """total and norm by numpy, step by step, with the gradient and forward graphs alone."""
    if graph == "masked":
        return expected_masked(layout, images, steps)
    graph = graph.removesuffix(".targets")
    total, norm = 0, 0
    sigma = np.linspace(0.1, 0.3, 3, dtype=np.float32).reshape(-1, *[1] * (images.ndim - 1))
    for k in range(steps.shape[1]):
        step = steps[:, k].reshape(-1, steps.shape[2], *[1] * (images.ndim - 1))
        alpha, weight = (step[:, 0], step[:, 1]) if graph == "path" else (step[:, 1], step[:, 2])
        moved, multiply = images - 0.25, 1.0
        if graph == "noise":
            draws = normal(SEED, steps[:, k, 0].astype(int), images.shape[1:])
            moved, multiply = moved + sigma * draws, step[:, 3]
        rows = (0.25 + alpha * moved).astype(np.float32)
        factor = multiply * moved + (1 - multiply)
        total = total + weight[:, None] * run(layout, "gradient", rows)["total"] * factor[:, None]
        norm = norm + weight[:, None]
    return total, norm


def expected_masked(layout: str, images: np.ndarray, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    last = layout == "NHWC"
    total, norm = 0, 0
    for k in range(steps.shape[1]):
        mask = np.zeros((len(steps), 12, 16), np.float32)
        for row, (top, left, bottom, right) in zip(mask, steps[:, k].astype(int), strict=True):
            row[top:bottom, left:right] = 1
        mask = mask[..., None] if last else mask[:, None]
        scores = run(layout, "forward", np.where(mask > 0, np.float32(0.5), images))["scores"]
        chosen = np.take_along_axis(scores, TARGETS, 1)
        total = total + mask[:, None] * (0 - chosen)[:, :, None, None, None]
        norm = norm + mask[:, None]
    return total, norm


@pytest.mark.parametrize("own", [False, True], ids=["shared steps", "steps of each image"])
@pytest.mark.parametrize(("layout", "graph"), stepped())
def test_a_graph_sums_what_its_contract_says(layout: str, graph: str, own: bool) -> None:
    images, steps = images_of(layout), steps_of(graph)
    if own:
        steps = np.concatenate([steps, steps[:, ::-1], steps_of(graph, 5)[:, 1:]])
    found = run(layout, graph, images, steps=steps)
    total, norm = expected(layout, graph, images, steps)
    np.testing.assert_allclose(found["total"], total, rtol=0, atol=2e-5 * np.abs(total).max())
    np.testing.assert_allclose(np.broadcast_to(found["norm"], norm.shape), norm, rtol=1e-6)
    image_axes = images.shape[1:] if graph != "masked" else (1, 12, 16) if layout == "NCHW" else (12, 16, 1)
    assert found["total"].shape == (3, 2, *image_axes)
    assert found["norm"].shape[:2] == (3 if own else 1, 1)
    assert found["norm"].ndim == found["total"].ndim


@pytest.mark.parametrize(("layout", "graph"), stepped())
def test_several_targets_are_each_as_if_alone(layout: str, graph: str) -> None:
    images, steps = images_of(layout), steps_of(graph)
    together = run(layout, graph, images, steps=steps)["total"]
    for column in range(2):
        alone = run(layout, graph, images, TARGETS[:, column : column + 1], steps)["total"]
        np.testing.assert_allclose(together[:, column], alone[:, 0], rtol=0, atol=2e-6 * np.abs(alone).max())


@pytest.mark.parametrize(("layout", "graph"), stepped())
def test_any_split_of_the_steps_adds_up(layout: str, graph: str) -> None:
    images, steps = images_of(layout), steps_of(graph, 5)
    whole = run(layout, graph, images, steps=steps)
    for cuts in ([1], [2, 4], [1, 2, 3, 4]):
        parts = [run(layout, graph, images, steps=part) for part in np.split(steps, cuts, axis=1)]
        for name in ("total", "norm"):
            summed = np.sum([part[name] for part in parts], axis=0)
            np.testing.assert_allclose(summed, whole[name], rtol=0, atol=2e-6 * np.abs(whole[name]).max())


@pytest.mark.parametrize(("layout", "graph"), stepped())
def test_an_images_sums_do_not_depend_on_its_neighbours(layout: str, graph: str) -> None:
    images, steps = images_of(layout), steps_of(graph)
    together = run(layout, graph, images, steps=steps)["total"]
    for index in range(3):
        sigma = np.linspace(0.1, 0.3, 3, dtype=np.float32)[index : index + 1]
        alone = run(layout, graph, images[index : index + 1], TARGETS[index : index + 1], steps, sigma=sigma)["total"]
        np.testing.assert_allclose(together[index], alone[0], rtol=0, atol=2e-6 * np.abs(alone).max())


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_masked_gives_the_scores_themselves_and_their_drops(layout: str) -> None:
    images, steps = images_of(layout), steps_of("masked")
    plain = run(layout, "masked", images, steps=steps)
    assert plain["scores"].shape == (3, 4, 2)
    activated = run(layout, "masked", images, steps=steps, activated=np.ones(1, np.float32))
    assert ((activated["scores"] > 0) & (activated["scores"] < 1)).all()
    shifted = run(layout, "masked", images, steps=steps, reference=np.ones((3, 2), np.float32))
    np.testing.assert_allclose(
        shifted["total"] - plain["total"], np.broadcast_to(plain["norm"], plain["total"].shape), atol=1e-5
    )


@pytest.mark.parametrize("layout", LAYOUTS)
def test_integrated_gradients_are_complete(layout: str) -> None:
    """Σ attributions = F(x) − F(baseline) (Sundararajan et al. 2017, proposition 1)."""
    images = images_of(layout)
    steps = gauss_legendre(50)
    found = run(layout, "path", images, steps=steps)
    attribution = (found["total"] / found["norm"]).reshape(3, 2, -1).sum(2)
    high = run(layout, "forward", images)["scores"]
    low = run(layout, "forward", np.full_like(images, 0.25))["scores"]
    gap = np.take_along_axis(high - low, TARGETS, 1)
    np.testing.assert_allclose(attribution, gap, rtol=0, atol=1e-4 * np.abs(gap).max())


def gauss_legendre(count: int) -> np.ndarray:
    points, weights = np.polynomial.legendre.leggauss(count)
    return np.stack([(points + 1) / 2, weights / 2], 1)[None].astype(np.float32)


def test_a_baseline_may_be_an_image_of_its_own() -> None:
    steps, rng = steps_of("path"), np.random.default_rng(0)
    baselines = rng.standard_normal(IMAGES.shape).astype(np.float32)
    together = run("NCHW", "path", IMAGES, steps=steps, baseline=baselines)["total"]
    for index in range(3):
        one = slice(index, index + 1)
        alone = run("NCHW", "path", IMAGES[one], TARGETS[one], steps, baseline=baselines[one])["total"]
        np.testing.assert_allclose(together[one], alone, rtol=0, atol=2e-6 * np.abs(alone).max())
