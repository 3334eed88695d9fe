"""The gradient family's loops, against closed forms of a quadratic network with odd, unequal sides."""

import json
import shutil

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import quadratic
import small_models
from onnxplain import BundleError, Explainer, ParameterError
from onnxplain.fills import RANDOM_DRAWS, baselines, number_of_baselines, random_fill
from onnxplain.integration import RULES, points_of
from onnxplain.loops.paths import expected_draws
from onnxplain.random import normal, uniform
from onnxplain.run_sizes import RunSizes
from onnxplain_export import export
from quadratic import SHAPE, gradient, scores

METHODS = [
    "gradient",
    "input_x_gradient",
    "smoothgrad",
    "smoothgrad_squared",
    "vargrad",
    "integrated_gradients",
    "smoothgrad_integrated",
    "expected_gradients",
    "blur_integrated_gradients",
    "guided_integrated_gradients",
    "xrai",
]
FEW = {
    "smoothgrad": {"samples": 5},
    "smoothgrad_squared": {"samples": 5},
    "vargrad": {"samples": 5},
    "integrated_gradients": {"baseline": "random", "baselines": 2, "steps": 5},
    "smoothgrad_integrated": {"samples": 3, "steps": 5, "baseline": "mean"},
    "expected_gradients": {"samples": 7},
    "blur_integrated_gradients": {"steps": 6, "sigma": 4},
    "guided_integrated_gradients": {"steps": 9, "max_dist": 0.2},
    "xrai": {"steps": 5},
}


def exported(folder, **options) -> Explainer:
    return Explainer(export(quadratic.network(**options), folder / "net.explain", methods=METHODS), device="cpu")


@pytest.fixture(scope="module")
def explainer(tmp_path_factory):
    return exported(tmp_path_factory.mktemp("quadratic"))


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """The network without its squares."""
    return exported(tmp_path_factory.mktemp("linear"), curved=False)


@pytest.fixture(scope="module")
def channels_last(tmp_path_factory):
    """The network on images [N, H, W, C]."""
    return exported(tmp_path_factory.mktemp("last"), channels_last=True)


@pytest.fixture(scope="module")
def free(tmp_path_factory):
    """The network with a free cotangent in place of a target."""
    folder = tmp_path_factory.mktemp("free") / "net.explain"
    return Explainer(export(quadratic.network(), folder, methods=METHODS, cotangent=True), device="cpu")


@pytest.fixture
def images():
    """Seven images of different ranges."""
    return small_models.images(*SHAPE, count=7) * np.arange(1, 8, dtype=np.float32).reshape(-1, 1, 1, 1)


def relative(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


def at_noise(images, target, sigma, samples, seed):
    """The gradients at noisy copies, [samples, N, …]."""
    noise = normal(seed, np.arange(samples), SHAPE)
    return np.stack([gradient(images + np.reshape(sigma, (-1, 1, 1, 1)) * z, target) for z in noise])


# Every method.


@pytest.mark.parametrize("method", METHODS)
def test_a_map_is_the_same_alone_in_a_batch_and_among_other_targets(explainer, images, method):
    options = FEW.get(method, {})
    together = explainer.explain(images, method, targets=[[3, 1]] * 7, **options).attribution
    alone = explainer.explain(images[4], method, targets=1, **options).attribution
    axes = (1, *SHAPE[1:]) if method == "xrai" else SHAPE
    assert together.shape == (7, 2, *axes)
    assert alone.shape == (1, *axes)
    assert_allclose(together[4, 1], alone[0], rtol=1e-4, atol=1e-5 * np.abs(alone).max())


@pytest.mark.parametrize("method", METHODS)
def test_fewer_rows_in_a_run_give_the_same_map(explainer, images, method, monkeypatch):
    options = FEW.get(method, {})
    expected = explainer.explain(images[:3], method, targets=[2, 0, 3], **options).attribution
    monkeypatch.setattr(explainer, "_runs", RunSizes(explainer.bundle, "CPUExecutionProvider", threads=1, rows=2))
    found = explainer.explain(images[:3], method, targets=[2, 0, 3], **options).attribution
    assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("method", METHODS)
def test_a_constant_image_gives_a_finite_map(explainer, method):
    found = explainer.explain(np.zeros((1, *SHAPE), np.float32), method, targets=0, **FEW.get(method, {})).attribution
    assert np.isfinite(found).all()


@pytest.mark.parametrize("method", METHODS)
def test_channels_last_gives_the_same_map(explainer, channels_last, images, method):
    options = FEW.get(method, {})
    if "noise" in explainer.bundle.methods[method].parameters:
        options = {**options, "noise": 0}  # noise follows the order of the elements
    if options.get("baseline") == "random" or method == "expected_gradients":
        options = {**options, "baseline": 0.25}
    expected = explainer.explain(images[:2], method, targets=2, **options).attribution
    found = channels_last.explain(np.moveaxis(images[:2], 1, -1), method, targets=2, **options).attribution
    assert_allclose(np.moveaxis(found, -1, 1), expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("method", METHODS)
def test_a_cotangent_of_one_class_gives_that_classs_map(explainer, free, images, method):
    options = FEW.get(method, {})
    cotangent = np.eye(quadratic.CLASSES, dtype=np.float32)[2]
    expected = explainer.explain(images[:2], method, targets=2, **options).attribution
    found = free.explain(images[:2], method, cotangent=cotangent, **options).attribution
    assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


# The plain gradient's other forms, and noise.


def test_input_x_gradient(explainer, images):
    found = explainer.explain(images, "input_x_gradient", 2).attribution
    assert relative(found, images * gradient(images, 2)) < 1e-6


@pytest.mark.parametrize(("noise_of", "noise"), [("image", 0.2), ("batch", 0.2), ("absolute", 0.7)])
@pytest.mark.parametrize("method", ["smoothgrad", "smoothgrad_squared", "vargrad"])
def test_noise_is_a_share_of_each_image_of_the_batch_or_absolute(explainer, images, method, noise_of, noise):
    ranges = {
        "image": images.max(axis=(1, 2, 3)) - images.min(axis=(1, 2, 3)),
        "batch": np.full(7, images.max() - images.min()),
        "absolute": np.ones(7),
    }
    drawn = at_noise(images, 1, noise * ranges[noise_of], 6, 3)
    expected = {
        "smoothgrad": drawn.mean(axis=0),
        "smoothgrad_squared": (drawn**2).mean(axis=0),
        "vargrad": drawn.var(axis=0),
    }
    found = explainer.explain(images, method, 1, samples=6, seed=3, noise=noise, noise_of=noise_of).attribution
    # A variance is a small difference of squares where the noise is small beside the gradient.
    assert relative(found, expected[method]) < (1e-4 if method == "vargrad" else 1e-5)


def test_variance_is_never_negative_and_nothing_where_the_gradient_is_constant(straight, images):
    found = straight.explain(images, "vargrad", 1, samples=9).attribution
    assert found.min() >= 0
    assert found.max() < 1e-6 * float((quadratic.LINEAR**2).max())


def test_a_bundle_without_squares_says_to_export_again(explainer, images, tmp_path):
    folder = shutil.copytree(explainer.bundle.path, tmp_path / "old.explain")
    description = json.loads((folder / "explainer.json").read_text())
    outputs = description["graphs"]["noise"]["outputs"]
    description["graphs"]["noise"]["outputs"] = [entry for entry in outputs if entry["name"] != "squares"]
    (folder / "explainer.json").write_text(json.dumps(description))
    with pytest.raises(BundleError, match="exported before vargrad existed; export the network again"):
        Explainer(folder).explain(images, "vargrad")


def test_noise_below_0_is_refused(explainer, images):
    with pytest.raises(ParameterError, match=r"noise=-0\.1 is out of range"):
        explainer.explain(images, "smoothgrad_squared", noise=-0.1)


# Paths.


@pytest.mark.parametrize("rule", RULES)
def test_integrated_gradients_follow_the_rule(explainer, images, rule):
    expected = sum(
        weight * (images - 0.3) * gradient(0.3 + alpha * (images - 0.3), 2) for alpha, weight in points_of(rule, 4)
    )
    found = explainer.explain(images, "integrated_gradients", 2, steps=4, rule=rule, baseline=0.3).attribution
    assert relative(found, expected) < 1e-6


@pytest.mark.parametrize("rule", sorted(set(RULES) - {"riemann_trapezoid"}))
def test_integrated_gradients_are_complete(explainer, images, rule):
    found = explainer.explain(images, "integrated_gradients", 2, steps=1000, rule=rule).attribution
    total = scores(images)[:, 2]
    assert_allclose(found.sum(axis=(1, 2, 3)), total, rtol=0, atol=2e-3 * np.abs(total).max())


def test_several_baselines_give_the_mean_of_their_maps(explainer, images):
    several = small_models.images(*SHAPE, count=3, seed=8)
    maps = [explainer.explain(images, "integrated_gradients", 1, baseline=one).attribution for one in several]
    found = explainer.explain(images, "integrated_gradients", 1, baseline=several).attribution
    assert relative(found, np.mean(maps, axis=0)) < 1e-6
    each = np.broadcast_to(several, (7, 3, *SHAPE))
    for same in (several[None], each):
        assert_array_equal(explainer.explain(images, "integrated_gradients", 1, baseline=same).attribution, found)


def test_random_baselines_are_those_of_the_recorded_draws(explainer, images):
    low, high = (bound(axis=(1, 2, 3), keepdims=True) for bound in (images.min, images.max))
    drawn = [low + uniform(4, [RANDOM_DRAWS + k], SHAPE) * (high - low) for k in range(3)]
    maps = [explainer.explain(images, "integrated_gradients", 1, baseline=one).attribution for one in drawn]
    found = explainer.explain(images, "integrated_gradients", 1, baseline="random", baselines=3, seed=4).attribution
    assert relative(found, np.mean(maps, axis=0)) < 1e-6


def test_smoothgrad_integrated_is_the_mean_of_integrated_gradients_of_noisy_images(explainer, images):
    sigma = 0.2 * (images.max(axis=(1, 2, 3)) - images.min(axis=(1, 2, 3)))
    noisy = [images + sigma.reshape(-1, 1, 1, 1) * z for z in normal(2, np.arange(4), SHAPE)]
    options = {"steps": 3, "rule": "trapezoid", "baseline": 0.1}
    maps = [explainer.explain(one, "integrated_gradients", 1, **options).attribution for one in noisy]
    found = explainer.explain(images, "smoothgrad_integrated", 1, samples=4, seed=2, noise=0.2, **options).attribution
    assert relative(found, np.mean(maps, axis=0)) < 1e-5


def test_expected_gradients_are_those_of_the_recorded_draws(explainer, images):
    references = small_models.images(*SHAPE, count=5, seed=9)
    alpha, chosen = expected_draws(8, 5, 6, fresh=False)
    terms = [
        (images - references[k]) * gradient(references[k] + a * (images - references[k]), 3)
        for a, k in zip(alpha, chosen, strict=True)
    ]
    found = explainer.explain(images, "expected_gradients", 3, samples=8, baseline=references, seed=6).attribution
    assert relative(found, np.mean(terms, axis=0)) < 1e-6


def test_expected_gradients_are_complete_in_expectation(explainer, images):
    references = small_models.images(*SHAPE, count=4, seed=9)
    found = explainer.explain(images, "expected_gradients", 3, samples=4000, baseline=references).attribution
    gap = scores(images)[:, 3] - scores(references)[:, 3].mean()
    assert np.abs(found.sum(axis=(1, 2, 3)) - gap).max() < 0.05 * np.abs(gap).max()


def test_points_and_baselines_of_expected_gradients_are_even_and_independent():
    alpha, chosen = expected_draws(20_000, 10, 1, fresh=False)
    counts = np.bincount(np.floor(alpha * 10).astype(int) * 10 + chosen, minlength=100)
    assert ((counts - 200) ** 2 / 200).sum() < 150  # χ² with 99 degrees of freedom: 149 at 0.1%
    assert_array_equal(expected_draws(5, 10, 1, fresh=False)[0], alpha[:5])
    assert_array_equal(expected_draws(5, 5, 1, fresh=True)[1], np.arange(5))


# Baselines.


def test_a_random_baseline_lies_in_each_images_own_range_and_ignores_its_neighbours(images):
    found = random_fill(images, 3, 0)
    assert_array_equal(random_fill(images[2:3], 3, 0)[0], found[2])
    for image, baseline in zip(images, found, strict=True):
        assert image.min() <= baseline.min()
        assert baseline.max() <= image.max()
        assert np.ptp(baseline) > 0.95 * np.ptp(image)
    assert not np.array_equal(random_fill(images, 3, 1), found)
    assert not np.array_equal(random_fill(images, 4, 0), found)


def test_random_baselines_are_independent_of_the_noise_of_the_same_seed():
    shape = (3, 64, 64)
    baseline, noise = uniform(5, [RANDOM_DRAWS], shape), normal(5, [0], shape)
    assert abs(np.corrcoef(baseline.ravel(), noise.ravel())[0, 1]) < 0.03


@pytest.mark.parametrize(
    ("shape", "count"),
    [((), 1), (SHAPE, 1), ((7, *SHAPE), 1), ((4, *SHAPE), 4), ((1, 4, *SHAPE), 4), ((7, 2, *SHAPE), 2), ((3, 1, 1), 1)],
)
def test_an_array_is_one_baseline_or_several(explainer, images, shape, count):
    array = np.zeros(shape, np.float32)
    found = list(baselines(array, images, explainer.bundle))
    assert len(found) == number_of_baselines(array, images, 9) == count
    assert all(np.broadcast_shapes(one.shape, images.shape) == images.shape for one in found)


@pytest.mark.parametrize("shape", [(3, 9, 9), (2, 2, *SHAPE), (0, *SHAPE), (1, 0, *SHAPE)])
def test_a_baseline_of_a_wrong_shape_is_refused_with_the_right_ones(explainer, images, shape):
    with pytest.raises(ParameterError, match=r"fits no image here; give \[3, 12, 17\] for all, \[7, 3, 12, 17\]"):
        explainer.explain(images, "integrated_gradients", baseline=np.zeros(shape, np.float32))


@pytest.mark.parametrize("method", ["integrated_gradients", "guided_integrated_gradients", "blur_integrated_gradients"])
def test_zero_steps_are_refused(explainer, images, method):
    with pytest.raises(ParameterError, match="steps=0 is out of range"):
        explainer.explain(images, method, steps=0)


def test_an_unknown_rule_is_refused(explainer, images):
    with pytest.raises(ParameterError, match="unknown rule 'simpson'"):
        explainer.explain(images, "integrated_gradients", rule="simpson")
