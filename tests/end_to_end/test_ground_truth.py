"""Where the right answer is known, the maps are it: closed forms, a planted pattern, and the tool for both."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

import ground_truth_advice as advising
import ground_truth_measure as measuring
import ground_truth_table as tables
from ground_truth_networks import (
    BACKGROUND,
    INK,
    KNOWN,
    STEPS,
    THRESHOLD,
    WIDE,
    Known,
    largest_response,
    patterns,
    smooth_fields,
)
from onnxplain import Explainer
from onnxplain_export import export
from onnxplain_export.methods import METHODS

Array = NDArray[Any]

# Methods that give each pixel its own term of any additive network, and how far rounding and their steps may lead off.
ADDITIVE = {
    "integrated_gradients": 1e-5,
    "guided_integrated_gradients": 2e-2,
    "deeplift": 1e-4,
    "lrp_epsilon": 1e-4,
}
LINEAR = {**ADDITIVE, "input_x_gradient": 1e-6, "guided_integrated_gradients": 1e-4}
GRADIENTS = {"gradient": 1e-6, "smoothgrad": 1e-5, "guided_backprop": 1e-6, "deconvolution": 1e-6}
LAYERED = ("gradcam", "hirescam", "xgradcam")
SEGMENTED = {"kernel_shap": {}, "lime": {"ridge": 0.0}}
ON_PATTERN = (*ADDITIVE, "input_x_gradient", "gradient", "smoothgrad", "expected_gradients", "guided_backprop")
NEEDED = {
    "linear": {*LINEAR, *GRADIENTS, "smoothgrad_squared", "vargrad", "occlusion"},
    "additive": {*ADDITIVE, *SEGMENTED, "gradient", "occlusion"},
    "pooled": LAYERED,
    "planted": ON_PATTERN,
}


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Known, Explainer]]:
    """Each network of known answers with four pictures and its bundle."""
    folder = tmp_path_factory.mktemp("known")
    opened = {}
    for name, make in KNOWN.items():
        network = make(4)
        methods = sorted(NEEDED[name])
        bundle = export(network.model, folder / f"{name}.explain", methods=methods, preprocessing=STEPS, name=name)
        opened[name] = network, Explainer(bundle, device="cpu")
    return opened


def relative(a: Array, b: Array) -> float:
    return float(np.linalg.norm(a.astype(np.float64) - b) / np.linalg.norm(b))


def both(network: Known, explainer: Explainer, kind: str, method: str, **options: Any) -> tuple[Array, Array]:
    """The method's map and the right one, for the top class and for the last."""
    pictures, rows = list(network.pictures), explainer.values(list(network.pictures)).astype(np.float64)
    ours, exact = [], []
    for targets in (None, explainer.bundle.scores.classes - 1):  # type: ignore[operator]  # all have classes
        result = explainer.explain(pictures, method, targets, **options)
        ours.append(result.attribution)
        exact.append(network.exact[kind](rows, result.targets))
    return np.concatenate(ours), np.concatenate(exact)


@pytest.mark.parametrize("method", LINEAR)
def test_contributions_to_a_linear_score_are_the_weights_times_the_picture(
    method: str, known: dict[str, tuple[Known, Explainer]]
) -> None:
    ours, exact = both(*known["linear"], "contribution", method)
    assert relative(ours, exact) <= LINEAR[method]


@pytest.mark.parametrize("method", GRADIENTS)
def test_the_gradient_of_a_linear_score_is_its_weights(method: str, known: dict[str, tuple[Known, Explainer]]) -> None:
    ours, exact = both(*known["linear"], "gradient", method)
    assert relative(ours, exact) <= GRADIENTS[method]


def test_the_gradient_of_a_linear_score_has_no_spread(known: dict[str, tuple[Known, Explainer]]) -> None:
    ours, exact = both(*known["linear"], "gradient", "vargrad", samples=5)
    assert np.abs(ours).max() <= 1e-6 * (exact**2).max()
    squared, _ = both(*known["linear"], "gradient", "smoothgrad_squared", samples=5)
    assert relative(squared, exact**2) <= 1e-5


@pytest.mark.parametrize("method", ADDITIVE)
def test_contributions_to_an_additive_score_are_its_terms(
    method: str, known: dict[str, tuple[Known, Explainer]]
) -> None:
    ours, exact = both(*known["additive"], "contribution", method)
    assert relative(ours, exact) <= ADDITIVE[method]


def test_the_gradient_of_an_additive_score_is_that_of_its_terms(known: dict[str, tuple[Known, Explainer]]) -> None:
    ours, exact = both(*known["additive"], "gradient", "gradient")
    assert relative(ours, exact) <= 1e-6


@pytest.mark.parametrize("name", ["linear", "additive"])
def test_hiding_one_pixel_costs_its_contribution(name: str, known: dict[str, tuple[Known, Explainer]]) -> None:
    ours, exact = both(*known[name], "contribution", "occlusion", window=1, stride=1, score="logits")
    assert relative(ours[:, 0], exact.sum(axis=1)) <= 1e-4


@pytest.mark.parametrize("method", SEGMENTED)
def test_what_a_segment_adds_to_an_additive_score_is_the_sum_of_its_pixels(
    method: str, known: dict[str, tuple[Known, Explainer]]
) -> None:
    segments = np.kron(np.arange(6).reshape(2, 3), np.ones((10, 8), int))
    options = {"segments": segments, "samples": 200, "score": "logits", **SEGMENTED[method]}
    ours, exact = both(*known["additive"], "contribution", method, **options)
    sums = [exact.sum(axis=1)[:, segments == number].sum(axis=1) for number in range(6)]
    assert relative(ours[:, 0], np.stack(sums, axis=1)[:, segments]) <= 1e-4


@pytest.mark.parametrize("method", LAYERED)
def test_class_activation_maps_are_the_places_parts_of_the_score(
    method: str, known: dict[str, tuple[Known, Explainer]]
) -> None:
    ours, exact = both(*known["pooled"], "layer", method, relu=False)
    assert relative(ours, exact) <= 1e-5


def test_nothing_beside_the_pattern_can_pass_the_threshold() -> None:
    assert BACKGROUND <= largest_response() < THRESHOLD < 2 * INK / 255 - 1


def test_another_background_leaves_the_planted_scores_as_they_are() -> None:
    network = KNOWN["planted"](4)
    session = onnxruntime.InferenceSession(network.model.SerializeToString(), providers=["CPUExecutionProvider"])
    rows = (network.pictures / 255.0 - 0.5).transpose(0, 3, 1, 2).astype(np.float32) / np.float32(0.5)
    other = smooth_fields(123, 4, WIDE)
    other *= BACKGROUND / np.abs(other).max()
    changed = np.where(network.masks["pattern"][:, None], rows, other)
    before, after = (session.run(None, {"image": each})[0] for each in (rows, changed))
    np.testing.assert_allclose(after, before, rtol=1e-6)
    assert list(before.argmax(axis=1)) == [0, 1, 2, 3]
    without = np.where(network.masks["pattern"][:, None], other, rows)
    assert np.ptp(session.run(None, {"image": without})[0]) == 0


def test_the_largest_response_notices_a_louder_background(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ground_truth_networks.BACKGROUND", 0.4)
    assert largest_response() > THRESHOLD


def test_patterns_have_no_answer_to_flat_pictures() -> None:
    assert np.abs(patterns().sum(axis=(2, 3))).max() == 0


@pytest.mark.parametrize("method", ON_PATTERN)
def test_a_planted_pattern_holds_the_whole_map(method: str, known: dict[str, tuple[Known, Explainer]]) -> None:
    network, explainer = known["planted"]
    attribution = np.abs(explainer.explain(list(network.pictures), method).attribution).sum(axis=1)
    inside = network.masks["pattern"]
    assert attribution[inside].sum() > 0
    assert attribution[~inside].sum() <= 1e-3 * attribution[inside].sum()


def test_the_integral_over_the_planted_threshold_is_known(known: dict[str, tuple[Known, Explainer]]) -> None:
    ours, exact = both(*known["planted"], "path", "integrated_gradients", steps=300)
    assert relative(ours, exact) <= 5e-3


def test_the_tool_measures_a_method_and_counts_its_passes(tmp_path: Path) -> None:
    measuring.export_case("pooled", tmp_path)
    figures = measuring.measure_method("gradcam", tmp_path, ["pooled"], fast=True)
    assert figures["networks"]["pooled"]["exact"]["error"] <= 1e-5
    explainer = measuring.open_case("pooled", tmp_path, fast=True).explainer
    with measuring.counted(explainer) as passes:
        explainer.explain(list(KNOWN["pooled"](3).pictures), "integrated_gradients", steps=7)
    assert passes == {"forward": 3, "gradient": 21}
    with measuring.counted(explainer) as passes:
        explainer.explain(list(KNOWN["pooled"](3).pictures), "occlusion", window=(10, 12), stride=(10, 12))
    assert passes == {"forward": 3 + 3 * 4, "gradient": 0}


def results_of(end: float, mass: float) -> dict[str, Any]:
    """Results of the gradient alone, with these figures."""
    interval = {"mean": mass, "low": mass, "high": mass, "count": 12}
    alike = {"mean": end, "low": end, "high": end, "count": 12}
    found = {"metrics": {"relevance_mass": interval, "class_sensitivity": interval}}
    honest = {**found, "randomisation": {"mean": alike}}
    entry = {
        "measures": "sensitivity",
        "networks": {"honest": honest, "shortcut": found},
        "cost": {"forward": 0.0, "gradient": 1.0, "time": 1.0},
    }
    chance = {"honest": {"digit": 0.08}, "shortcut": {"patch": 0.07}}
    return {"chance": chance, "methods": {"gradient": entry}}


def test_advice_is_given_only_where_the_figures_bear_it_out() -> None:
    assert advising.advice("gradient", results_of(0.1, 0.4)) == advising.ADVICE["gradient"].text
    assert advising.advice("gradient", results_of(0.1, 0.1)) == "–"
    assert advising.unsupported("gradient", results_of(0.1, 0.1)) == ["finds"]


def test_a_method_that_fails_the_randomisation_check_is_said_to() -> None:
    failing = results_of(0.9, 0.4)
    assert advising.verdict(failing["methods"]["gradient"]) == "**fails** (0.90)"
    assert advising.advice("gradient", failing) == advising.FAILING


def test_every_piece_of_advice_is_about_a_method() -> None:
    assert set(advising.ADVICE) <= set(METHODS)


def test_the_table_has_a_line_for_every_measured_method() -> None:
    results = json.loads(tables.RESULTS.read_text("utf-8"))
    lines = list(tables.table())
    for name, figures in results["methods"].items():
        assert name in METHODS
        assert any(line.startswith(f"| `{name}` |") for line in lines) == ("cost" in figures)
    head = next(line for line in lines if line.startswith("| method"))
    assert head.count("|") == 9
