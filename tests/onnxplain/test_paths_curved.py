"""The paths that are no straight lines: through blurred images, and guided by the gradient."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

import quadratic
import small_models
from onnxplain import Explainer, ModelError, ParameterError
from onnxplain.loops.blur_path import blurred, gaussian_matrix
from onnxplain.loops.guided_path import guided_path
from onnxplain_export import export
from quadratic import SHAPE, gradient, scores

METHODS = ["gradient", "integrated_gradients", "blur_integrated_gradients", "guided_integrated_gradients"]
AXES = (2, 3)


@pytest.fixture(scope="module")
def explainer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quadratic") / "net.explain"
    return Explainer(export(quadratic.network(), folder, methods=METHODS), device="cpu")


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """The network without its squares."""
    folder = tmp_path_factory.mktemp("linear") / "net.explain"
    return Explainer(export(quadratic.network(curved=False), folder, methods=METHODS), device="cpu")


@pytest.fixture
def images():
    return small_models.images(*SHAPE)


def relative(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


# Through scale space.


@pytest.mark.parametrize("sigma", [0, 0.05, 0.3, 2.0, 50.0])
def test_a_blur_is_scipys_gaussian_filter_with_zeros_outside(images, sigma):
    ndimage = pytest.importorskip("scipy.ndimage")
    expected = ndimage.gaussian_filter(images.astype(np.float64), [0, 0, sigma, sigma], mode="constant")
    assert_allclose(blurred(images, sigma, AXES), expected, atol=1e-12)


def test_a_blurred_line_keeps_its_sum_away_from_the_ends():
    assert_allclose(gaussian_matrix(101, 3.0).sum(axis=0)[20:80], 1)


def test_the_blur_path_of_a_linear_network_is_its_weights_times_what_blurring_takes(straight, images):
    found = straight.explain(images, "blur_integrated_gradients", 2, sigma=6, steps=5).attribution
    assert relative(found, quadratic.LINEAR[2] * (images - blurred(images, 6, AXES))) < 1e-6


def test_the_blur_path_is_complete_down_to_the_blurred_image(explainer, images):
    gap = (scores(images) - scores(blurred(images, 6, AXES)))[:, 2]
    errors = {}
    for rule in ("midpoint", "riemann_left"):
        found = explainer.explain(images, "blur_integrated_gradients", 2, sigma=6, steps=300, rule=rule).attribution
        errors[rule] = np.abs(found.sum(axis=(1, 2, 3)) - gap).max() / np.abs(gap).max()
    assert errors["midpoint"] < 1e-3
    assert errors["riemann_left"] < 0.05


def test_the_left_rule_is_the_reference_implementations(explainer, images):
    sigmas = np.arange(5) * 0.8
    expected = np.zeros(images.shape)
    for low in sigmas[:-1]:
        here = blurred(images, low, AXES)
        expected -= 0.8 * gradient(here, 1) * (blurred(images, low + 0.01, AXES) - here) / 0.01
    options = {"sigma": 3.2, "steps": 4, "rule": "riemann_left"}
    found = explainer.explain(images, "blur_integrated_gradients", 1, **options).attribution
    assert relative(found, expected) < 1e-5


def test_a_table_has_no_scale_space(tmp_path):
    nodes = [small_models.node("Gemm", ["x", "table"], ["y"])]
    weights = {"table": small_models.random_weight(20, 5)}
    network = small_models.model(nodes, weights, inputs=[("x", 1, ["N", 20])])
    with pytest.raises(ModelError, match="blur_integrated_gradients needs pictures"):
        export(network, tmp_path / "net.explain", methods=["blur_integrated_gradients"])


# Guided.


def test_without_freedom_the_guided_path_is_the_straight_one(explainer, images):
    straight = explainer.explain(images, "integrated_gradients", 2, steps=20, rule="riemann_left").attribution
    found = explainer.explain(images, "guided_integrated_gradients", 2, steps=20, max_dist=0).attribution
    assert relative(found, straight) < 1e-5


def test_any_path_of_a_linear_network_gives_its_weights_times_the_difference(straight, images):
    found = straight.explain(images, "guided_integrated_gradients", 2, steps=7, baseline=0.4, max_dist=0.5).attribution
    assert relative(found, quadratic.LINEAR[2] * (images - 0.4)) < 1e-6


@pytest.mark.parametrize("fraction", [0.05, 0.25, 1.0])
def test_the_guided_path_is_complete(explainer, images, fraction):
    options = {"steps": 400, "fraction": fraction, "max_dist": 0.1}
    found = explainer.explain(images, "guided_integrated_gradients", 2, **options).attribution
    total = scores(images)[:, 2]
    assert_allclose(found.sum(axis=(1, 2, 3)), total, atol=0.02 * np.abs(total).max())


def test_the_path_comes_nearer_by_equal_steps_and_stays_near_the_straight_one(images):
    start, visited = np.full_like(images, 0.2), []

    def slope(rows):
        visited.append(rows.copy())
        return gradient(rows, 1)

    guided_path(slope, images, start, 10, 0.25, 0.15)
    total = np.abs(images - start).sum(axis=(1, 2, 3))
    for step, rows in enumerate(visited):
        assert_allclose(np.abs(images - rows).sum(axis=(1, 2, 3)), total * (1 - step / 10), rtol=1e-6)
        share = (rows - start) / (images - start)
        assert np.abs(share - step / 10).max() < 0.15 + 1e-6


def test_the_least_sensitive_elements_move_first():
    image, cost = np.ones((1, 4)), np.array([[3.0, 1.0, 2.0, 4.0]])
    visited = []

    def slope(rows):
        visited.append(rows[0].copy())
        return cost

    guided_path(slope, image, np.zeros_like(image), 4, 0.25, 1.0)
    assert_allclose(visited, [[0, 0, 0, 0], [0, 1, 0, 0], [0, 1, 1, 0], [1, 1, 1, 0]], atol=1e-9)


def test_an_image_that_is_its_own_baseline_has_no_map(explainer, images):
    found = explainer.explain(images, "guided_integrated_gradients", 2, steps=3, baseline=images).attribution
    assert not found.any()


def test_a_network_that_ignores_the_image_gives_zeros():
    zeros = guided_path(lambda rows: np.zeros_like(rows), np.ones((2, 5)), np.zeros((2, 5)), 6, 0.25, 0.02)
    assert not zeros.any()


def test_a_guided_path_has_one_baseline(explainer, images):
    with pytest.raises(ParameterError, match="takes one baseline for each image"):
        explainer.explain(images, "guided_integrated_gradients", baseline="random", baselines=2)
