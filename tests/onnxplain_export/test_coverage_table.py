"""The coverage table says what was measured: counts, errors, reasons; and its networks are chosen away from kinks."""

import json
from pathlib import Path

import numpy as np
import pytest

import coverage_table
from coverage_networks import case
from coverage_networks.sources import SOURCES, names

PASSING = {
    "status": "passes", "exporter": "torch.onnx", "operators": 7, "own_error": 2e-7, "bar": 1e-5,
    "error": 3e-7, "error_alone": 4e-7, "ratio": 2.5,
}  # fmt: skip
LOOSE = {**PASSING, "own_error": 1e-3, "bar": 5e-3, "error": 2e-3, "ratio": 3.5}
BROKEN = {"status": "fails", "stage": "gradient", "reason": "error 1 | of\n2"}
UNWRITTEN = {"status": "fails", "stage": coverage_table.THEIRS, "reason": "it can't"}
TREE = {"status": "refused", "stage": "NoGradientError", "reason": "zero"}
RESULTS = {"networks": {"torch/a": PASSING, "torch/b": LOOSE, "timm/c": BROKEN, "timm/d": UNWRITTEN, "sklearn/e": TREE}}


def test_summary_counts_every_network_once() -> None:
    text = " ".join(coverage_table.summary(RESULTS))
    assert "**2 of 5 networks pass**" in text
    assert "1 refused because their gradient is zero; 2 fail (1 of them on the framework's side)" in text
    assert "1 of them are within 1e-5" in text
    assert "40% of its bar" in text
    assert "3.00 times a forward run" in text


def test_larger_of_the_two_errors_is_shown() -> None:
    (line,) = [line for line in coverage_table.networks(RESULTS) if line.startswith("| torch/a")]
    assert line == "| torch/a | torch.onnx | 7 | 4.0e-07 | 2.0e-07 | 2.50 |"


def test_every_failure_is_listed_with_its_reason_on_one_line() -> None:
    lines = list(coverage_table.failures(RESULTS))[2:]
    assert [line.split(" | ")[0] for line in lines] == ["| timm/c", "| timm/d", "| sklearn/e"]
    assert lines[0] == "| timm/c | gradient | error 1 \\| of 2 |"


def test_nothing_measured_yet_is_no_error() -> None:
    assert list(coverage_table.summary({"networks": {}})) == ["**0 of 0 networks pass**."]


def test_recorded_results_are_of_listed_networks() -> None:
    if not coverage_table.RESULTS.exists():
        pytest.skip("tools/coverage.py has not run")
    recorded = json.loads(coverage_table.RESULTS.read_text("utf-8"))["networks"]
    assert set(recorded) <= set(names())
    for name, entry in recorded.items():
        if entry["status"] == coverage_table.PASSES:
            assert max(entry["error"], entry["error_alone"]) <= entry["bar"], name
        else:
            assert entry["reason"], name


def test_networks_can_be_listed_without_their_framework() -> None:
    assert len(names()) == len(set(names())) >= 100
    assert all(hasattr(module, "build") and module.ENVIRONMENT for module in SOURCES.values())


def test_inputs_near_a_kink_are_not_chosen() -> None:
    candidates = np.ones((8, 4), np.float32)
    candidates[[1, 4, 6]], candidates[2] = 0.25, 0.5

    def reference(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return rows, rows, np.where(rows > 1, 2.0, 1.0)  # a kink at 1, where four of the candidates are

    def own(rows: np.ndarray, _cotangent: np.ndarray) -> list[np.ndarray]:
        wrong = np.ones_like(rows)
        wrong[2] = 1.5  # float32 is sure of this one, and wrong
        return [wrong]

    assert (case.steadiest(candidates, reference, own) == 0.25).all()


def test_case_is_written_and_read_back(tmp_path: Path) -> None:
    outputs = np.array([[1.0, 3.0, 2.0]])
    targets, cotangent = case.top_classes(outputs)
    gradient = np.ones((1, 4))
    made = case.Case(
        {"x": gradient}, outputs, gradient, [gradient, 2 * gradient], cotangent, targets, "by hand", ["numpy"]
    )
    made.write(tmp_path)
    read = np.load(tmp_path / case.REFERENCE)
    assert targets.tolist() == [1]
    assert cotangent.tolist() == [[0.0, 1.0, 0.0]]
    assert {"gradient", "gradient32_0", "gradient32_1", "targets"} <= set(read)
    assert json.loads((tmp_path / case.DESCRIPTION).read_text("utf-8"))["versions"]["numpy"] == np.__version__
