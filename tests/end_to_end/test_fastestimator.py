"""preset="fastestimator" gives FastEstimator's maps: its algorithm written out in numpy, fed with the same draws."""

import numpy as np
import pytest

import small_models
from onnxplain import Explainer
from onnxplain.fills import RANDOM_DRAWS
from onnxplain.random import normal, uniform
from onnxplain_export import export
from quadratic import CLASSES, SHAPE, gradient, network, top_class

SEED, NOISE = 77, 0.15


def smoothed(images: np.ndarray, targets: np.ndarray, samples: int, magnitude: bool = True) -> np.ndarray:
    sigma = NOISE * (images.max() - images.min())
    total = gradient(images, targets) ** (2 if magnitude else 1)
    targets = top_class(images)  # and the caller's are forgotten
    for draw in range(samples - 1):
        noisy = images + sigma * normal(SEED, [draw], SHAPE)
        total += gradient(noisy, targets) ** (2 if magnitude else 1)
    return total / samples


def integrated(images: np.ndarray, points: int, draw: int = 0) -> np.ndarray:
    low, high = float(images.min()), float(images.max())
    baseline = low + uniform(SEED, [RANDOM_DRAWS + draw], SHAPE) * (high - low)
    total = np.zeros(images.shape)
    for k in range(points):
        total += gradient(baseline + k / (points - 1) * (images - baseline), top_class(images))
    return total * (images - baseline)


def smoothed_integrated(images: np.ndarray, targets: np.ndarray, samples: int, points: int) -> np.ndarray:
    total = gradient(images, targets) ** 2
    for draw in range(samples - 1):
        total += integrated(images, points, draw) ** 2
    return total / samples


@pytest.fixture(scope="module")
def explainer(tmp_path_factory) -> Explainer:
    methods = ["gradient", "smoothgrad", "integrated_gradients", "smoothgrad_integrated"]
    return Explainer(
        export(network(), tmp_path_factory.mktemp("quadratic") / "net.explain", methods=methods), device="cpu"
    )


@pytest.fixture
def images() -> np.ndarray:
    """Three images of different ranges, so that the batch's differs from each one's."""
    return small_models.images(*SHAPE) * np.array([1, 2, 3], np.float32).reshape(-1, 1, 1, 1)


@pytest.fixture
def targets(images) -> np.ndarray:
    """Not the top classes."""
    return (top_class(images) + 1) % CLASSES


def assert_same(explainer: Explainer, images: np.ndarray, method: str, expected: np.ndarray, **options: object) -> None:
    found = explainer.explain(images, method, preset="fastestimator", **options).attribution
    assert np.linalg.norm(found - expected) / np.linalg.norm(expected) < 1e-5


def test_gradient(explainer, images, targets):
    assert_same(explainer, images, "gradient", gradient(images, targets), targets=targets)


@pytest.mark.parametrize("samples", [1, 2, 25])
def test_smoothed_maps_count_the_clean_pass_and_forget_the_target(explainer, images, targets, samples):
    expected = smoothed(images, targets, samples)
    assert_same(explainer, images, "smoothgrad", expected, targets=targets, seed=SEED, samples=samples)


def test_smoothed_maps_by_default_take_25_passes(explainer, images):
    assert_same(explainer, images, "smoothgrad", smoothed(images, top_class(images), 25), seed=SEED)


@pytest.mark.parametrize("points", [2, 25])
def test_integrated_maps_ignore_the_target_and_are_not_divided(explainer, images, targets, points):
    expected = integrated(images, points)
    assert_same(explainer, images, "integrated_gradients", expected, targets=targets, seed=SEED, steps=points)


@pytest.mark.parametrize(("samples", "points"), [(1, 3), (3, 5)])
def test_integrated_smoothed_maps_begin_with_the_plain_gradient(explainer, images, targets, samples, points):
    expected = smoothed_integrated(images, targets, samples, points)
    options = {"targets": targets, "seed": SEED, "samples": samples, "steps": points}
    assert_same(explainer, images, "smoothgrad_integrated", expected, **options)


def test_integrated_smoothed_maps_by_default_are_those_of_the_trace(explainer, images):
    expected = smoothed_integrated(images, top_class(images), 6, 100)
    assert_same(explainer, images, "smoothgrad_integrated", expected, seed=SEED)


def test_without_the_preset_the_target_is_kept_and_neighbours_dont_matter(explainer, images, targets):
    alone = explainer.explain(images[:1], "smoothgrad", targets[:1], seed=SEED)
    together = explainer.explain(images, "smoothgrad", targets, seed=SEED)
    # Pictures of a run share its draws, so that other steps are added up in one run: the same sum, in another order.
    np.testing.assert_allclose(alone.attribution[0], together.attribution[0], rtol=1e-5, atol=1e-5)
    sigma = NOISE * (images[0].max() - images[0].min())
    expected = gradient(images[0] + sigma * normal(SEED, np.arange(25), SHAPE), np.repeat(targets[:1], 25)).mean(axis=0)
    assert np.linalg.norm(alone.attribution[0] - expected) / np.linalg.norm(expected) < 1e-5
