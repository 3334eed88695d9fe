"""Derivative rules of the structured operators on random uses; `tools/rule_sweep.py` draws many more."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from onnxplain_export.vjp import STANDARD
from rule_harness import Case, check_rule
from rule_properties import BY_ADJOINT, EXPECTED_REFUSALS, STRATEGIES, check_drawn

SAME_EVERYWHERE = settings(
    max_examples=30,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],  # a matter of the machine
)


@pytest.mark.parametrize("op_type", STRATEGIES)
def test_rule_on_random_uses(op_type):
    @SAME_EVERYWHERE
    @given(STRATEGIES[op_type])
    def check(case):
        assert case.op_type == op_type
        check_drawn(case)

    check()


def scaled(op_type, factor=1.001):
    """The rules with the operator's answers a little too large."""
    good = STANDARD[op_type]

    def function(op, node, g):
        return [None if answer is None else op.Mul(answer, factor) for answer in good.function(op, node, g)]

    return {**STANDARD, op_type: replace(good, function=function)}


@pytest.mark.parametrize("op_type", STRATEGIES)
def test_random_uses_find_a_wrong_rule(op_type):
    rules = scaled(op_type)

    @settings(SAME_EVERYWHERE, max_examples=8, phases=[Phase.generate], report_multiple_bugs=False)
    @given(STRATEGIES[op_type])
    def check(case):
        check_drawn(case, rules)

    with pytest.raises(AssertionError, match=op_type):
        check()


def test_differences_are_extrapolated_to_eight_digits():
    case = Case("Tanh", [(3, 4)])
    with pytest.raises(AssertionError, match="finite differences"):
        check_rule(case, scaled("Tanh", 1 + 3e-8))
    check_rule(case, scaled("Tanh", 1 + 3e-9))


def test_a_refusal_that_is_not_listed_is_a_failure():
    refused = Case("ReduceL2", [(3, 4)], {"noop_with_empty_axes": 1})
    assert "over no axes" in check_drawn(refused)
    with pytest.raises(AssertionError, match="Det 2x20x20: refused"):
        check_drawn(Case("Det", [(2, 20, 20)]))


def test_only_drawn_operators_are_listed():
    assert set(EXPECTED_REFUSALS) | BY_ADJOINT <= set(STRATEGIES) <= set(STANDARD)


def test_the_oracle_by_adjoint_finds_a_wrong_rule():
    """A use of Resize where onnxruntime and the reference evaluator differ, so that only the adjoint decides."""
    by = np.array([0.5, 1.7], np.float32)
    attributes = {"coordinate_transformation_mode": "align_corners", "mode": "linear", "axes": [2, 3]}
    case = Case("Resize", [(1, 1, 5, 6), None, by], attributes, typed=(2,))
    check_drawn(case)
    with pytest.raises(AssertionError, match="not the adjoint"):
        check_drawn(case, scaled("Resize"))


# What random uses found


@pytest.mark.parametrize("scales", [[3.0, 1.25], [1.25, 1.25], [1.0, 1.25]], ids=str)
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_an_axis_that_a_scale_leaves_as_long_as_it_is_is_resampled_where_another_grows(mode, scales):
    """onnxruntime copies its input where no size changes, but only then."""
    check_drawn(Case("Resize", [(1, 1, 3, 3), None, np.array([1, 1, *scales], np.float32)], {"mode": mode}, typed=(2,)))


def test_a_slice_with_steps_and_no_axes_at_run_time():
    """onnxruntime 1.31 drops one from 0 to the end."""
    check_rule(Case("Slice", [(4, 1), np.array([0]), np.array([2**63 - 1]), None, np.array([2])]))
