"""Integrals of a gradient along a path from values at unevenly spaced points, with an estimate of their error.

Along a path a ReLU network's gradient jumps at thousands of kinks, and so moves like a random walk: from its values at
a few points the best estimate of the integral is that of straight lines between them (the trapezoid rule), and the
error of an interval of length h, over which the walk's variance grows by r·h, is h³·r / 12 in the mean square. The
points themselves tell r: a point's distance from the line between its neighbours has the variance r·h₁h₂ / (h₁ + h₂).
Smooth networks (GELU, SiLU) are followed closer by cubics, which are taken where they predict the points better. A
gradient has so many entries that both estimates are sharp from eight points on.

Everything here is computed from inner products of the gradients alone.
"""

import heapq
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

FIRST = 2.0**-12
"""The first point. Not 0: many a baseline lies on kinks (an even picture in a max pooling, a zero in a ReLU)."""
START = (FIRST, 1 / 32, 1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1.0)
"""Points that every path begins with. Near a baseline of zeros, biases matter at every scale: so one is at 1/32."""
SAFETY = 1.1
"""What estimates are multiplied by. They are right on average; with this, 95 of 100 maps and more are within them."""
SMOOTH = 0.8
"""Cubics are taken where their estimated error is less than this share of the straight lines'."""
LINE_GAIN, CUBIC_GAIN = 8.0, 64.0
"""By how much less the squared error of either half of an interval is, once it has been halved."""
SHARE = 0.5
"""Of the points that a forecast calls for, how many are computed before the next forecast."""
NARROWEST = 2.0**-20
"""Intervals shorter than this are left as they are: float32 has no more points there."""
GAUSS = 1 / np.sqrt(3.0)
TINY = np.finfo(np.float64).tiny


@dataclass(frozen=True, slots=True)
class Integral:
    """Weights of the points [n], which sum to 1, and the squared errors: each interval's [n − 1], and a common one."""

    weights: Floats
    errors: Floats
    common: float
    cubic: bool

    @property
    def error(self) -> float:
        """The estimated squared length of the error of the whole integral."""
        return float(self.errors.sum()) + self.common


def integral(points: Floats, products: Floats) -> Integral:
    """The integral over [0, 1] of a gradient known at `points` [n], ascending, by its inner products [n, n].

    The products may be those of the gradients less any one vector.
    """
    lines = _rule(points, products, cubic=False)
    cubics = _rule(points, products, cubic=True)
    return cubics if cubics.error < SMOOTH**2 * lines.error else lines


def splits(low: Floats, high: Floats, errors: Floats, common: float, goal: float, cubic: bool) -> list[int]:
    """The intervals [low, high] to halve next, by number: of those that a forecast halves until the error is `goal`.

    `errors` and `goal` are squared. The worst interval is always the next; one that is halved several times is named
    once.
    """
    gain = CUBIC_GAIN if cubic else LINE_GAIN
    heap = [(-float(error), number, float(high[number] - low[number])) for number, error in enumerate(errors)]
    heapq.heapify(heap)
    whole = left = float(errors.sum())
    halved: list[int] = []
    while heap and len(halved) < len(errors) and left + common * left / max(whole, TINY) > goal:
        error, number, width = heapq.heappop(heap)
        if width < NARROWEST:
            continue
        halved.append(number)
        left += error * (1 - 2 / gain)
        for _ in range(2):
            heapq.heappush(heap, (error / gain, number, width / 2))
    return list(dict.fromkeys(halved[: math.ceil(len(halved) * SHARE)]))


def _rule(points: Floats, products: Floats, cubic: bool) -> Integral:
    """The integral by straight lines or local cubics between the points."""
    gaps = np.diff(points)
    weights = _cubic_weights(points) if cubic else _line_weights(points)
    weights[0] += points[0]  # from 0 to the first point, the gradient is taken to be what it is there
    places, factors = _predictions(points, cubic)
    squares = _quadratic(products, places, factors)
    walked = _quadratic(np.minimum.outer(points, points), places, factors)
    rates = np.maximum(squares, 0) / walked
    # Never more than the difference of its ends says.
    norms = np.diagonal(products)
    steps = np.maximum(norms[1:] + norms[:-1] - 2 * np.diagonal(products, 1), 0)
    inside = np.concatenate([rates[:1], (rates[1:] + rates[:-1]) / 2, rates[-1:]])
    errors = gaps**2 * np.minimum(gaps * inside, steps) / 12
    # What curvature adds: h³·g″ / 12 of lines, 11/720·h⁵·g⁗ of cubics, as the predictions' errors tell the derivatives.
    bend = np.zeros(len(points))
    scale = (points[2:] - points[:-2]) / 2 * (11 / 120 if cubic else 1 / 6)
    np.add.at(bend, places, scale[:, None] * factors)
    return Integral(weights, errors, max(0.0, float(bend @ products @ bend)), cubic)


def _predictions(points: Floats, cubic: bool) -> tuple[NDArray[np.int64], Floats]:
    """Each inner point less its prediction from its neighbours: which points [n − 2, k], and their factors."""
    count, reach = len(points), 2 if cubic else 1
    middle = np.arange(1, count - 1)
    first = np.clip(middle - reach, 0, count - 1 - 2 * reach)
    window = first[:, None] + np.arange(2 * reach + 1)
    others = np.stack([row[row != at] for row, at in zip(window, middle, strict=True)])
    factors = -_lagrange(points[others], points[middle])
    return np.column_stack([middle, others]), np.column_stack([np.ones(len(middle)), factors])


def _quadratic(products: Floats, places: NDArray[np.int64], factors: Floats) -> Floats:
    """The squared lengths [m] of the sums of vectors `places` [m, k] times `factors`, from the vectors' products."""
    found: Floats = np.einsum("mi,mj,mij->m", factors, factors, products[places[:, :, None], places[:, None, :]])
    return found


def _line_weights(points: Floats) -> Floats:
    gaps, weights = np.diff(points), np.zeros(len(points))
    weights[1:] += gaps / 2
    weights[:-1] += gaps / 2
    return weights


def _cubic_weights(points: Floats) -> Floats:
    """Each interval's integral of the cubic through the four points around it."""
    count, weights = len(points), np.zeros(len(points))
    low, high = points[:-1], points[1:]
    places = np.clip(np.arange(count - 1) - 1, 0, count - 4)[:, None] + np.arange(4)
    half = (high - low) / 2
    for side in (-GAUSS, GAUSS):  # two Gauss points integrate a cubic
        factors = _lagrange(points[places], (low + high) / 2 + side * half)
        np.add.at(weights, places, half[:, None] * factors)
    return weights


def _lagrange(nodes: Floats, at: Floats) -> Floats:
    """The factors [m, k] of values at `nodes` [m, k] in the polynomial through them at `at` [m]."""
    factors = np.ones_like(nodes)
    for one in range(nodes.shape[1]):
        for other in range(nodes.shape[1]):
            if one != other:
                factors[:, one] *= (at - nodes[:, other]) / (nodes[:, one] - nodes[:, other])
    return factors
