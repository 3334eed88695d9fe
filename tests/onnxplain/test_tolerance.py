"""tolerance=: maps that are computed until they are known well enough, each image as far as it needs."""

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import quadratic
from onnxplain import Explainer, ParameterError
from onnxplain.cli import main
from onnxplain.tolerance.quadrature import START
from onnxplain_export import export

MODELS = Path(__file__).parents[2] / "models"
PICTURES = sorted((MODELS / "pictures").glob("*.png"))[:4]
METHODS = ["integrated_gradients", "smoothgrad", "smoothgrad_squared", "vargrad", "rise", "gradient", "occlusion"]
PREPROCESSING = [
    {"step": "colour", "order": "RGB"},
    {"step": "scale", "factor": 1 / 255},
    {"step": "mean", "values": [0.5] * 3},
    {"step": "std", "values": [0.5] * 3},
    {"step": "layout", "order": "NCHW"},
]
SAMPLED = {"smoothgrad": 0.2, "smoothgrad_squared": 0.12, "vargrad": 0.12, "rise": 0.15}
MANY = {"smoothgrad": {"samples": 700}, "smoothgrad_squared": {"samples": 1200}, "vargrad": {"samples": 1200}}


@pytest.fixture(scope="module")
def explainer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("honest") / "honest.explain"
    return Explainer(export(MODELS / "honest.onnx", folder, methods=METHODS, preprocessing=PREPROCESSING), device="cpu")


@pytest.fixture(scope="module")
def closed(tmp_path_factory):
    """Networks whose gradient is constant, or straight, along every path."""
    found = {}
    for curved in (False, True):
        folder = tmp_path_factory.mktemp("closed") / "net.explain"
        network = quadratic.network(curved=curved)
        found[curved] = Explainer(
            export(network, folder, methods=["integrated_gradients", "smoothgrad", "vargrad"]), device="cpu"
        )
    return found


@pytest.fixture
def images():
    return np.random.default_rng(3).normal(size=(5, *quadratic.SHAPE)).astype(np.float32)


def distance(maps, reference, centred=False):
    """‖map − reference‖ / ‖reference‖ of each image."""
    a, b = (values.reshape(len(values), -1).astype(np.float64) for values in (maps, reference))
    if centred:
        a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    return np.linalg.norm(a - b, axis=1) / np.linalg.norm(b, axis=1)


@pytest.mark.parametrize("curved", [False, True])
def test_a_straight_gradient_takes_no_more_than_the_first_points(closed, images, curved):
    result = closed[curved].explain(images, "integrated_gradients", tolerance=0.001)
    assert_array_equal(result.steps, len(START))
    truth = images * quadratic.gradient(images / 2 if curved else 0 * images, result.targets)
    assert distance(result.attribution, truth).max() < 1e-3 if curved else 1e-6
    assert (result.errors <= 0.001).all()


def test_the_map_is_as_close_to_that_of_many_steps_as_it_says(explainer):
    result = explainer.explain(PICTURES[:2], "integrated_gradients", tolerance=0.03)
    truth = explainer.explain(PICTURES[:2], "integrated_gradients", steps=600).attribution
    found = distance(result.attribution, truth)
    assert (found <= 0.03).all()
    assert (result.errors <= 0.03).all()
    assert_allclose(found, result.errors, rtol=0.35)
    assert (result.steps < 50).all()
    assert result.converged.all()


def test_a_smaller_tolerance_takes_more_steps(explainer):
    steps = [explainer.explain(PICTURES[:2], "integrated_gradients", tolerance=t).steps for t in (0.1, 0.05, 0.02)]
    assert (np.diff(steps, axis=0) > 0).all()


@pytest.mark.parametrize(("method", "tolerance"), SAMPLED.items())
def test_samples_are_drawn_until_their_standard_error_is_small(explainer, method, tolerance):
    result = explainer.explain(PICTURES[0], method, tolerance=tolerance)
    truth = explainer.explain(PICTURES[0], method, **MANY.get(method, {"masks": 4096}), seed=99).attribution
    assert (result.errors <= tolerance).all()
    # The reference has an error of its own.
    assert 0.4 * tolerance <= distance(result.attribution, truth, centred=method == "rise")[0] <= 1.3 * tolerance


@pytest.mark.parametrize("method", ["integrated_gradients", *SAMPLED])
def test_an_image_does_not_depend_on_its_neighbours(explainer, method):
    tolerance = SAMPLED.get(method, 0.05)
    together = explainer.explain(PICTURES, method, tolerance=tolerance)
    alone = explainer.explain(PICTURES[2], method, tolerance=tolerance)
    backwards = explainer.explain(PICTURES[::-1], method, tolerance=tolerance)
    assert together.steps[2] == alone.steps[0]
    assert len(set(together.steps.tolist())) > 1
    scale = np.abs(alone.attribution).max()
    assert_allclose(together.attribution[2], alone.attribution[0], rtol=0, atol=1e-6 * scale)
    assert_array_equal(backwards.steps[::-1], together.steps)


def test_squares_continue_the_sequence_of_draws(explainer):
    result = explainer.explain(PICTURES[0], "smoothgrad_squared", tolerance=0.2, seed=5)
    same = explainer.explain(PICTURES[0], "smoothgrad_squared", samples=int(result.steps[0]), seed=5)
    assert_allclose(result.attribution, same.attribution, rtol=1e-5)


def test_smoothgrad_takes_each_draw_with_either_sign(closed, images):
    # What a straight gradient's slope adds then cancels, so that nothing is left but the gradient.
    result = closed[True].explain(images, "smoothgrad", tolerance=0.01)
    assert_array_equal(result.steps, 32)
    assert_allclose(result.attribution, quadratic.gradient(images, result.targets), rtol=1e-4, atol=1e-4)


def test_the_variance_needs_no_more_samples_where_the_mean_is_large(closed, images):
    # The scatter of squares and of means cancels: what is left is that of a normal variable's variance, 2 / samples.
    result = closed[True].explain(images, "vargrad", tolerance=0.2, noise=0.01, targets=1)
    sigma = 0.01 * np.ptp(images.reshape(len(images), -1), axis=1)
    truth = (quadratic.SQUARE[1] * sigma[:, None, None, None]) ** 2
    assert distance(result.attribution, truth).max() <= 0.25  # of one sequence of draws, the same for all
    assert result.steps.max() < 150


@pytest.mark.parametrize(
    ("method", "limit"),
    [("integrated_gradients", {"steps": 20}), ("rise", {"masks": 300}), ("vargrad", {"samples": 30})],
)
def test_a_limit_is_kept_and_told(explainer, method, limit):
    result = explainer.explain(PICTURES[:2], method, tolerance=0.001, **limit)
    assert_array_equal(result.steps, next(iter(limit.values())))
    assert (result.errors > 0.001).all()
    assert not result.converged.any()


def test_where_nothing_can_be_estimated_the_error_is_unknown(explainer):
    result = explainer.explain(PICTURES[0], "rise", tolerance=0.1, masks=100)
    assert result.errors.tolist() == [np.inf]
    assert result.provenance["pictures"][0]["error"] is None


def test_every_target_is_within_the_tolerance(explainer):
    targets = [[1, 2, 7]] * 2
    result = explainer.explain(PICTURES[:2], "integrated_gradients", targets, tolerance=0.05)
    truth = explainer.explain(PICTURES[:2], "integrated_gradients", targets, steps=200).attribution
    assert result.errors.shape == (2, 3)
    for target in range(3):
        assert distance(result.attribution[:, target], truth[:, target]).max() <= 0.05
    assert result[1].errors.shape == (1, 3)


def test_several_baselines_share_the_points(explainer):
    options = {"baseline": "random", "baselines": 3, "seed": 4}
    result = explainer.explain(PICTURES[:2], "integrated_gradients", tolerance=0.05, **options)
    truth = explainer.explain(PICTURES[:2], "integrated_gradients", steps=150, **options).attribution
    assert distance(result.attribution, truth).max() <= 0.05
    assert (result.steps >= 3 * len(START)).all()
    own = np.random.default_rng(0).normal(size=(2, 2, 3, 64, 64)).astype(np.float32)  # two for each image
    result = explainer.explain(PICTURES[:2], "integrated_gradients", tolerance=0.05, baseline=own)
    truth = explainer.explain(PICTURES[:2], "integrated_gradients", steps=150, baseline=own).attribution
    assert distance(result.attribution, truth).max() <= 0.05


def test_a_stream_and_a_bound_on_memory_change_nothing(explainer):
    whole = explainer.explain(PICTURES, "integrated_gradients", tolerance=0.05)
    bounded = explainer.explain(PICTURES, "integrated_gradients", tolerance=0.05, memory="60MB")
    streamed = list(explainer.stream(PICTURES, "integrated_gradients", tolerance=0.05))
    assert_array_equal(bounded.steps, whole.steps)
    assert [int(result.steps[0]) for result in streamed] == whole.steps.tolist()
    scale = np.abs(whole.attribution).max()
    assert_allclose(bounded.attribution, whole.attribution, rtol=0, atol=1e-6 * scale)


def test_the_record_says_how_many_steps_and_how_good(explainer):
    result = explainer.explain(PICTURES[:2], "integrated_gradients", tolerance=0.05)
    made = result.provenance
    assert made["tolerance"] == 0.05
    assert [entry["steps"] for entry in made["pictures"]] == result.steps.tolist()
    assert_allclose([entry["error"] for entry in made["pictures"]], result.errors)


@pytest.mark.parametrize(
    ("method", "given", "steps"),
    [
        ("gradient", {}, 1),
        ("smoothgrad", {"samples": 7}, 7),
        ("integrated_gradients", {"steps": 9, "baseline": "random", "baselines": 2}, 18),
        ("occlusion", {"window": 32, "stride": 32}, 4),
    ],
)
def test_steps_are_known_without_a_tolerance(explainer, method, given, steps):
    result = explainer.explain(PICTURES[:3], method, **given)
    assert_array_equal(result.steps, steps)
    assert result.errors is None
    assert "tolerance" not in result.provenance
    assert result.converged.all()


@pytest.mark.parametrize(
    ("method", "given", "words"),
    [
        ("gradient", {"tolerance": 0.1}, "it is for integrated_gradients, smoothgrad"),
        ("integrated_gradients", {"tolerance": 0}, "0.02 for 2 %"),
        ("integrated_gradients", {"tolerance": "2%"}, "0.02 for 2 %"),
        ("integrated_gradients", {"tolerance": 0.1, "rule": "midpoint"}, "leave out rule="),
        ("integrated_gradients", {"tolerance": 0.1, "steps": 5}, "at least 8 points"),
        ("integrated_gradients", {"tolerance": 0.1, "preset": "fastestimator"}, "tolerance= is not for"),
        ("smoothgrad", {"tolerance": 0.1, "samples": 1}, "taken twice"),
    ],
)
def test_what_cannot_be_is_refused(explainer, method, given, words):
    with pytest.raises(ParameterError, match=words):
        explainer.explain(PICTURES[0], method, **given)


def test_the_command_tells_steps_and_warns_of_maps_that_missed(explainer, tmp_path, capsys):
    pictures, bundle = [str(path) for path in PICTURES[:2]], str(explainer.bundle.path)
    wanted = ["--method", "gradient,integrated_gradients", "--tolerance"]
    assert main(["explain", bundle, *pictures, *wanted, "0.05", "-o", str(tmp_path / "met")]) == 0
    said = capsys.readouterr()
    assert "integrated_gradients: " in said.out
    assert "steps a picture" in said.out
    assert "warning" not in said.err
    lines = [json.loads(line) for line in (tmp_path / "met" / "index.jsonl").read_text().splitlines()]
    assert {line["method"]: line["provenance"].get("tolerance") for line in lines} == {
        "gradient": None,
        "integrated_gradients": 0.05,
    }
    assert main(["explain", bundle, *pictures, *wanted, "0.001", "--steps", "9", "-o", str(tmp_path / "missed")]) == 0
    assert "2 of 2 maps of integrated_gradients" in capsys.readouterr().err


def test_the_command_refuses_a_tolerance_that_no_method_takes(explainer, tmp_path, capsys):
    arguments = ["explain", str(explainer.bundle.path), str(PICTURES[0]), "--tolerance", "0.1"]
    assert main([*arguments, "-o", str(tmp_path / "out")]) != 0
    assert "it is for integrated_gradients" in capsys.readouterr().err
