"""Random uses of the structured operators: hypothesis draws a valid `Case`, `check_drawn` proves the rule on it.

Invalid uses are never drawn; a rule may refuse a use only for a reason that is listed in `EXPECTED_REFUSALS`.
"""

import re
from collections.abc import Mapping

import numpy as np
from hypothesis.strategies import SearchStrategy
from onnx.reference import ReferenceEvaluator

import rule_properties_indexing
import rule_properties_linear
import rule_properties_moving
import rule_properties_resize
import rule_properties_windows
from onnxplain.errors import NoGradientError
from onnxplain_export.vjp import STANDARD, RuleTable
from rule_harness import FREE, KERNELS, Case, check_rule, feeds_of, forward_model, gradients, run_float32

STRATEGIES: dict[str, SearchStrategy[Case]] = {
    **rule_properties_windows.STRATEGIES,
    **rule_properties_resize.STRATEGIES,
    **rule_properties_indexing.STRATEGIES,
    **rule_properties_moving.STRATEGIES,
    **rule_properties_linear.STRATEGIES,
}
"""What is drawn, by operator."""

_WINDOWS = "onnxruntime computes .* windows where the model says"
_NO_AXES = "over no axes .* is read differently by each runtime"

EXPECTED_REFUSALS: Mapping[str, str] = {
    "MaxPool": _WINDOWS,  # ceil_mode with a last window inside the end pad
    "AveragePool": _WINDOWS,
    "LpPool": _WINDOWS,
    "Pad": "needs a fixed axis and no negative pads",  # edge, reflect or wrap around what negative pads removed
    **dict.fromkeys(
        ["ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceProd", "ReduceSumSquare"], _NO_AXES
    ),
}
"""What a rule may say, as an expression, where it refuses a use that is drawn."""

BY_ADJOINT = frozenset({"Resize"})
"""Linear operators of which onnxruntime itself is the oracle where the reference evaluator computes something else."""


def check_drawn(case: Case, rules: RuleTable = STANDARD) -> str | None:
    """Raises AssertionError where the rule is wrong; returns the reason where it refuses, as it may, else None."""
    try:
        gradients(case, rules, FREE)
    except NoGradientError as error:
        expected = EXPECTED_REFUSALS.get(case.op_type)
        if expected is None or not re.search(expected, str(error)):
            raise AssertionError(f"{case}: refused: {error}") from error
        return str(error)
    with np.errstate(all="ignore"):
        computed = run_float32(forward_model(case, FREE, np.float32), feeds_of(case))[0]
        (expected_values,) = ReferenceEvaluator(forward_model(case), new_ops=KERNELS).run(None, feeds_of(case))
    alike = computed.shape == expected_values.shape and np.allclose(computed, expected_values, rtol=1e-4, atol=1e-4)
    if not alike and case.op_type in BY_ADJOINT:
        _check_adjoint(case, computed, rules)
        return None
    assert alike, f"{case}: onnxruntime computes {computed.ravel()[:6]}, the reference {expected_values.ravel()[:6]}"
    check_rule(case, rules, flat=True)
    return None


def _check_adjoint(case: Case, y: np.ndarray, rules: RuleTable) -> None:
    """⟨u, y(x)⟩ = ⟨Jᵀu, x⟩ with the y that onnxruntime computes."""
    u = np.random.default_rng(3).standard_normal(y.shape)
    (found,) = gradients(case, rules, cotangent=u)
    (x,) = (case.arrays()[i] for i in case.wrt)
    distance = abs(float(np.sum(u * y) - np.sum(found * x)))
    message = f"{case}: not the adjoint of what onnxruntime computes, by {distance}"
    assert distance <= 1e-5 * np.linalg.norm(u) * np.linalg.norm(y), message
