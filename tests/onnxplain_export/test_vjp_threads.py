"""Every rule on tensors that onnxruntime divides among its threads: 1 and 4 threads agree, run after run."""

from dataclasses import replace

import numpy as np
import onnxruntime
import pytest

import rule_cases
from onnxplain_export.vjp import STANDARD
from rule_cases_large import LARGE
from rule_enlarging import Large, enlarged, whole
from rule_harness import FREE, TOLERANCE_FLOAT32, Case, feeds_of, free_inputs, gradient_model

RUNS = 3
BETWEEN_THREADS = 2e-6
SUMMED = 3e-4
"""What float32 leaves of a sum over as many rows: the gradient of a weight, whatever the order of its terms."""
OVER_EVERYTHING = {"MeanVarianceNormalization": 3e-5}
"""Operators whose mean is over all rows."""


def relative(one: np.ndarray, other: np.ndarray) -> float:
    assert one.shape == other.shape
    apart = float(np.linalg.norm(one.astype(np.float64) - other))
    return apart / max(float(np.linalg.norm(other)), 1e-30)


def check_threads(large: Large) -> None:
    with np.errstate(all="ignore"):
        model = gradient_model(large.case, STANDARD, FREE, np.float32).SerializeToString()
    found = {threads: run_often(model, large, threads) for threads in (1, 4)}
    for index, expected in enumerate(large.expected):
        summed = SUMMED if large.repeated and large.case.wrt[index] not in free_inputs(large.case) else 0.0
        slack = max(summed, OVER_EVERYTHING.get(large.case.op_type, 0.0))
        for threads, runs in found.items():
            for run in runs:
                message = f"{large.case}: input {large.case.wrt[index]}, {threads} threads"
                assert relative(run[index], found[1][0][index]) <= max(BETWEEN_THREADS, slack), f"{message}: another"
                assert relative(run[index], expected) <= max(TOLERANCE_FLOAT32, slack), f"{message}: wrong"


def run_often(model: bytes, large: Large, threads: int) -> list[list[np.ndarray]]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    types = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
    feeds = {**feeds_of(large.case), "cotangent": large.cotangent}
    for value in session.get_inputs():
        feeds[value.name] = feeds[value.name].astype(types.get(value.type, feeds[value.name].dtype))
    return [session.run(None, feeds) for _ in range(RUNS)]


CASES_OF: dict[str, list[Case]] = {}
for one in rule_cases.CASES:
    CASES_OF.setdefault(one.op_type, []).append(one)
HAND_WRITTEN = {
    "AffineGrid",
    "GRU",
    "LSTM",
    "OneHot",
    "RNN",
    "Range",
    "ReverseSequence",
    "RoiAlign",
    "ScatterND",
    "Unique",
}
"""No use of these can be enlarged by repeating its rows, which they mix; `LARGE` holds some of each."""


@pytest.mark.parametrize("op_type", sorted(CASES_OF.keys() - HAND_WRITTEN))
def test_a_use_with_many_rows(op_type):
    with np.errstate(all="ignore"):
        large = next(found for case in CASES_OF[op_type] if (found := enlarged(case)) is not None)
    check_threads(large)


@pytest.mark.parametrize("case", LARGE, ids=str)
def test_a_large_use(case):
    check_threads(whole(case))


def test_every_rule_has_a_large_use():
    assert {case.op_type for case in LARGE} >= HAND_WRITTEN
    assert set(STANDARD) <= CASES_OF.keys()


def test_what_differs_from_run_to_run_is_noticed(monkeypatch):
    """As sums do where threads lose each other's terms, which onnxruntime 1.31's ScatterND does; no rule has that."""
    large = whole(next(case for case in LARGE if case.op_type == "Gather"))
    good = STANDARD["Gather"]

    def unsteady(op, node, g):
        dx, _ = good.function(op, node, g)
        return op.Mul(dx, op.RandomUniformLike(dx, low=1.0, high=1.001)), None

    check_threads(large)
    monkeypatch.setitem(STANDARD, "Gather", replace(good, function=unsteady))
    with pytest.raises(AssertionError, match=r"Gather.*threads"):
        check_threads(large)
