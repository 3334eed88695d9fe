"""Integration rules: their tables, what they are exact for, and what they refuse."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from onnxplain.errors import ParameterError
from onnxplain.integration import RULES, points_of

THIRD = 1 / 3
RECORDED = {
    "gausslegendre": [[0.1127016654, 5 / 18], [0.5, 8 / 18], [0.8872983346, 5 / 18]],
    "midpoint": [[1 / 6, THIRD], [0.5, THIRD], [5 / 6, THIRD]],
    "riemann_middle": [[1 / 6, THIRD], [0.5, THIRD], [5 / 6, THIRD]],
    "trapezoid": [[0, 0.25], [0.5, 0.5], [1, 0.25]],
    "riemann_trapezoid": [[0, 1 / 6], [0.5, THIRD], [1, 1 / 6]],
    "riemann_left": [[0, THIRD], [THIRD, THIRD], [2 * THIRD, THIRD]],
    "riemann_right": [[THIRD, THIRD], [2 * THIRD, THIRD], [1, THIRD]],
    "inclusive": [[0, THIRD], [0.5, THIRD], [1, THIRD]],
}


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_makes_its_recorded_table(rule):
    assert_allclose(points_of(rule, 3), RECORDED[rule], atol=1e-9)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("count", [2, 7, 50])
def test_weights_add_up_to_1_except_captums_trapezoid(rule, count):
    expected = (count - 1) / count if rule == "riemann_trapezoid" else 1
    assert_allclose(points_of(rule, count)[:, 1].sum(), expected)


@pytest.mark.parametrize("rule", ["gausslegendre", "midpoint", "trapezoid", "riemann_middle"])
def test_symmetric_rules_integrate_straight_lines_exactly(rule):
    alpha, weight = points_of(rule, 4).T
    assert_allclose((weight * alpha).sum(), 0.5)


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_converges(rule):
    def error(count):
        alpha, weight = points_of(rule, count).T
        return abs((weight * np.exp(alpha)).sum() - (np.e - 1))

    assert error(400) < 0.005
    assert error(400) < error(20) / 10 or error(20) < 1e-12


def test_an_unknown_rule_is_refused_with_the_known_ones():
    with pytest.raises(ParameterError, match=r"unknown rule 'simpson'; known: gausslegendre, midpoint, .*inclusive"):
        points_of("simpson", 5)


@pytest.mark.parametrize("count", [0, -1, 2001])
@pytest.mark.parametrize("rule", RULES)
def test_no_points_and_too_many_are_refused(rule, count):
    with pytest.raises(ParameterError, match=f"steps={count} is out of range.*1 to 2000"):
        points_of(rule, count)


@pytest.mark.parametrize("rule", ["trapezoid", "riemann_trapezoid", "inclusive"])
def test_one_point_cant_include_both_ends(rule):
    with pytest.raises(ParameterError, match=r"steps=1 is too few.*give 2"):
        points_of(rule, 1)
