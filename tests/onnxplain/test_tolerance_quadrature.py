"""Integrals from few points: exact where they must be, and estimates of the error that hold."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from onnxplain.tolerance.quadrature import FIRST, SAFETY, START, integral, splits

START_POINTS = np.array(START)


def of(values, points=START_POINTS):
    """The integral of a function whose values at the points are `values` [n, D], and the rule."""
    values = np.asarray(values, np.float64)
    moved = values - values[0]
    rule = integral(points, moved @ moved.T)
    return rule.weights @ values, rule


def refined(function, tolerance, most=400):
    """Points, integral and estimated error once a function of points [n] -> [n, D] is known to a tolerance."""
    points = START_POINTS
    while True:
        total, rule = of(function(points), points)
        length = total @ total
        error = SAFETY * np.sqrt(rule.error / length)
        if error <= tolerance or len(points) >= most:
            return points, total, error
        goal = (tolerance / SAFETY) ** 2 * length
        found = splits(points[:-1], points[1:], rule.errors, rule.common, goal, rule.cubic)
        points = np.sort(np.append(points, [(points[at] + points[at + 1]) / 2 for at in found]))


def walk(seed, rate, entries=1500, size=1536):
    """A random walk of a vector, whose variance grows by rate(α), as a function of points."""
    rng, grid = np.random.default_rng(seed), (np.arange(size) + 0.5) / size
    jumps = rng.normal(size=(size, entries)) * np.sqrt(rate(grid) / size)[:, None]
    path = rng.normal(size=entries) + np.concatenate([np.zeros((1, entries)), np.cumsum(jumps, axis=0)])
    return lambda points: path[np.round(np.asarray(points) * size).astype(int)], path[1:-1].mean(axis=0)


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_cubics_and_everything_below_are_integrated_exactly(degree):
    # Up to the first point the gradient is taken to be constant.
    total, rule = of((START_POINTS**degree)[:, None] * [1.0, -2.0])
    assert_allclose(total, np.array([1, -2]) / (degree + 1), atol=FIRST)
    assert SAFETY * np.sqrt(rule.error) < (1e-3 if degree in (0, 1, 3) else 0.05)


def test_weights_sum_to_one_and_keep_to_the_points():
    rule = of(np.random.default_rng(0).normal(size=(len(START), 50)))[1]
    assert len(rule.weights) == len(START)
    assert rule.weights.sum() == pytest.approx(1, abs=1e-12)


def test_a_smooth_gradient_is_followed_by_cubics_and_a_walk_by_lines():
    smooth = np.stack([np.sin(3 * START_POINTS + phase) for phase in np.linspace(0, 3, 40)], axis=1)
    assert of(smooth)[1].cubic
    assert not of(walk(1, np.ones_like)[0](START_POINTS))[1].cubic


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "rate", [np.ones_like, lambda a: np.exp(-8 * a) * 8, lambda a: 25 * np.exp(-(((a - 0.6) / 0.05) ** 2))]
)
def test_what_is_said_to_be_within_the_tolerance_is(seed, rate):
    function, truth = walk(seed, rate)
    _, total, error = refined(function, 0.02)
    assert error <= 0.02
    assert np.linalg.norm(total - truth) <= 0.02 * np.linalg.norm(truth)
    # Nor is the estimate much too careful: points would be wasted.
    assert np.linalg.norm(total - truth) >= 0.5 * error * np.linalg.norm(truth)


def test_points_go_where_the_gradient_changes():
    function, _ = walk(5, lambda a: 25 * np.exp(-(((a - 0.6) / 0.05) ** 2)))
    points, _, _ = refined(function, 0.01)
    assert ((points > 0.48) & (points < 0.72)).mean() > 0.5  # a quarter of the path


def test_a_jump_is_found():
    points, total, _ = refined(lambda at: np.where(np.asarray(at)[:, None] < 0.37, [[1.0, 0.0]], [[0.0, 1.0]]), 0.01)
    assert_allclose(total, [0.37, 0.63], atol=0.01)
    assert len(points) < 25


def test_nothing_is_split_where_nothing_is_wrong():
    assert splits(START_POINTS[:-1], START_POINTS[1:], np.zeros(len(START) - 1), 0.0, 0.0, cubic=False) == []
