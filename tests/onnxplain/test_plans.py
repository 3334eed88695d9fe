import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from onnxplain.errors import BundleError, ParameterError
from onnxplain.plans import MOST_POINTS, PLANS, find_plan, gauss_legendre, plan

# Recorded tables, which the engines in other languages must match.
RECORDED = {
    "single": ({}, []),
    "draws": ({"samples": 3}, [[0, 1, 1, 0], [1, 1, 1, 0], [2, 1, 1, 0]]),
    "points": ({"steps": 2}, [[0.21132487, 0.5], [0.78867513, 0.5]]),
    "draws_points": (
        {"samples": 2, "steps": 2},
        [[0, 0.21132487, 0.5, 1], [0, 0.78867513, 0.5, 1], [1, 0.21132487, 0.5, 1], [1, 0.78867513, 0.5, 1]],
    ),
    "windows.captum": ({"window": (2, 3), "stride": 2}, [[0, 0, 2, 3], [0, 2, 2, 4], [2, 0, 3, 3], [2, 2, 3, 4]]),
    "windows.mindspore": ({"window": 0, "stride": 0}, [[0, 0, 3, 3], [0, 1, 3, 4]]),
    "random_masks": (
        {"masks": 2, "cells": 2, "probability": 0.25},
        [[0, 0.25, 2, 3, 3, 2, 2, 0, 0], [1, 0.25, 2, 3, 3, 2, 2, 0, 0]],
    ),
    "random_masks.mindspore": ({"masks": 1, "cells": 2, "probability": 0.5}, [[0, 0.5, 2, 6.5, 7, 11, 11, 0, 0]]),
    "windows": ({"window": 2, "stride": 2}, [[0, 0, 2, 2], [0, 2, 2, 4], [1, 0, 3, 2], [1, 2, 3, 4]]),
}


@pytest.mark.parametrize("name", PLANS)
def test_every_rule_makes_its_recorded_table(name):
    parameters, table = RECORDED[name]
    steps = PLANS[name].rule(parameters, 3, 4)
    assert steps.dtype == np.float32
    assert steps.shape == (max(1, len(table)), len(PLANS[name].columns))
    assert_allclose(steps, np.array(table, np.float32).reshape(steps.shape), atol=1e-7)


def test_a_name_can_be_registered_only_once():
    with pytest.raises(ValueError, match="'points' is registered twice"):
        plan("points", "alpha")(PLANS["points"].rule)


def test_an_unknown_rule_of_a_newer_bundle_says_to_upgrade():
    with pytest.raises(BundleError, match=r"did you mean 'points'.*upgrade"):
        find_plan("pointss")


@pytest.mark.parametrize("count", [1, 2, 5, 50])
def test_gauss_legendre_is_exact_for_polynomials_up_to_its_degree(count):
    alpha, weight = gauss_legendre(count).T
    degrees = np.arange(2 * count)
    assert_allclose((weight * alpha ** degrees[:, None]).sum(axis=1), 1 / (degrees + 1), rtol=1e-12)


def test_more_points_than_can_be_computed_are_refused_and_not_tried():
    with pytest.raises(ParameterError, match=str(MOST_POINTS)):
        gauss_legendre(MOST_POINTS + 1)


@pytest.mark.parametrize("size", [(8, 8), (7, 13), (64, 64), (5, 1), (1, 1), (224, 96)])
@pytest.mark.parametrize("window", [0, 1, 3])
@pytest.mark.parametrize("stride", [0, 1])
def test_windows_stay_inside_and_cover_every_pixel(size, window, stride):
    table = PLANS["windows"].rule({"window": window, "stride": stride}, *size)
    covered = np.zeros(size, int)
    for top, left, bottom, right in table.astype(int):
        assert 0 <= top < bottom <= size[0]
        assert 0 <= left < right <= size[1]
        covered[top:bottom, left:right] += 1
    assert covered.min() >= 1
    assert len(np.unique(table, axis=0)) == len(table)


@pytest.mark.parametrize("window", [8, 500])
def test_a_window_that_hides_everything_is_refused(window):
    with pytest.raises(ParameterError, match=f"window={window}"):
        PLANS["windows"].rule({"window": window, "stride": 0}, 8, 6)


def test_the_last_window_is_shifted_in_and_keeps_its_size():
    table = PLANS["windows"].rule({"window": 3, "stride": 3}, 8, 8)
    assert_array_equal(np.unique(table[:, [0, 2]], axis=0), [[0, 3], [3, 6], [5, 8]])


@pytest.mark.parametrize(("side", "window"), [(4, 1), (20, 3), (224, 28), (299, 37), (2, 1)])
def test_window_0_is_an_eighth_of_the_shorter_side(side, window):
    table = PLANS["windows"].rule({"window": 0, "stride": 0}, side, 2 * side)
    assert table[0].tolist() == [0, 0, window, window]
    assert table[1, 1] == max(1, window // 2)


def test_windows_on_an_input_without_rows_and_columns_are_an_error():
    with pytest.raises(ParameterError, match="has none"):
        PLANS["windows"].rule({"window": 0, "stride": 0}, 0, 0)
