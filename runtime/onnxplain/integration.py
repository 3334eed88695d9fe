"""Integration rules: at which points of a path the gradient is taken, and what each is weighted by.

`riemann_trapezoid` and `inclusive` are what other systems do; the other weights add up to 1.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from onnxplain.errors import ParameterError
from onnxplain.plans import MOST_POINTS, gauss_legendre

Table = NDArray[np.float64]


def midpoint(count: int) -> Table:
    """The middles of equal intervals; exact for straight lines."""
    return _even((np.arange(count) + 0.5) / count, 1 / count)


def trapezoid(count: int) -> Table:
    """Equally spaced points from end to end, the ends with half the weight; exact for straight lines."""
    table = _even(_from_end_to_end("trapezoid", count), 1 / (count - 1))
    table[[0, -1], 1] /= 2
    return table


def riemann_left(count: int) -> Table:
    """The beginnings of equal intervals."""
    return _even(np.arange(count) / count, 1 / count)


def riemann_right(count: int) -> Table:
    """The ends of equal intervals."""
    return _even(np.arange(1, count + 1) / count, 1 / count)


def inclusive(count: int) -> Table:
    """Equally spaced points from end to end, all weighted alike: PAIR's and FastEstimator's mean, which is no rule."""
    return _even(_from_end_to_end("inclusive", count), 1 / count)


def riemann_trapezoid(count: int) -> Table:
    """Captum's trapezoid: weights 1 / count with halved ends, which add up to (count − 1) / count."""
    table = inclusive(count)
    table[[0, -1], 1] /= 2
    return table


RULES: dict[str, Callable[[int], Table]] = {
    "gausslegendre": gauss_legendre,
    "midpoint": midpoint,
    "trapezoid": trapezoid,
    "riemann_left": riemann_left,
    "riemann_right": riemann_right,
    "riemann_middle": midpoint,
    "riemann_trapezoid": riemann_trapezoid,
    "inclusive": inclusive,
}
"""By the names that Captum uses, where it has them."""


def points_of(rule: str, count: int) -> Table:
    """Points and weights [count, 2] of a rule on [0, 1], 0 being the path's start; ParameterError for an unknown one.

    `count` is 1 to 2000, and at least 2 for the rules that include both ends.
    """
    if rule not in RULES:
        raise ParameterError(f"unknown rule {rule!r}; known: {', '.join(RULES)}")
    if not 1 <= count <= MOST_POINTS:
        raise ParameterError(f"steps={count} is out of range: a path has 1 to {MOST_POINTS} points")
    return RULES[rule](count)


def _even(alpha: NDArray[np.float64], weight: float) -> Table:
    return np.stack([alpha, np.full_like(alpha, weight)], axis=1)


def _from_end_to_end(rule: str, count: int) -> NDArray[np.float64]:
    if count < 2:
        raise ParameterError(f"steps={count} is too few: the rule {rule!r} includes both ends of the path; give 2")
    return np.linspace(0.0, 1.0, count)
