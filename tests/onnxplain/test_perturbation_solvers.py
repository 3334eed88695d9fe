"""What the solvers find, against games and models whose answer is known."""

import itertools
import math

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.linear_model import Ridge

from onnxplain.errors import BundleError, ParameterError
from onnxplain.solvers import SOLVERS, find_solver, latin_hypercube

WEIGHTS = np.random.default_rng(0).standard_normal((9, 2))
SHAPLEY = {"samples": 300, "seed": 3}
LIME = {"samples": 200, "seed": 3, "distance": "cosine", "width": 0.25, "ridge": 1.0}


def additive(states):
    """Two scores, each a sum of what the segments bring."""
    return states.astype(np.float64) @ WEIGHTS + [0.5, -2.0]


def nonlinear(states):
    """Two scores with interactions of all orders."""
    sums = states.astype(np.float64) @ WEIGHTS[: states.shape[1]]
    product = states[:, 0] * states[:, states.shape[1] // 2] * states[:, -1]
    return np.stack([np.tanh(sums[:, 0]) + product, sums[:, 1] ** 2], axis=1)


def solved(name, parameters, segments, game):
    solver = find_solver(name)
    design = solver.design(parameters, segments)
    return design, solver.solve(design, game(design.states), parameters)


def shapley_by_definition(game, segments):
    """Σ over coalitions without i of |S|! (n − |S| − 1)! / n! · (v(S ∪ i) − v(S))."""
    states = np.array(list(itertools.product([0, 1], repeat=segments)), np.float32)
    worth = {tuple(state): value for state, value in zip(states.astype(int), game(states), strict=True)}
    values = np.zeros((segments, 2))
    for state, value in worth.items():
        size = sum(state)
        for i in np.flatnonzero(np.equal(state, 0)):
            joined = (*state[:i], 1, *state[i + 1 :])
            share = math.factorial(size) * math.factorial(segments - size - 1) / math.factorial(segments)
            values[i] += share * (worth[joined] - value)
    return values


@pytest.mark.parametrize("segments", [1, 2, 5, 6])
def test_all_coalitions_give_exact_shapley_values(segments):
    design, values = solved("shapley", {"samples": max(2, 2**segments - 2), "seed": 0}, segments, nonlinear)
    assert len(np.unique(design.states, axis=0)) == len(design.states) == 2**segments
    assert_allclose(values, shapley_by_definition(nonlinear, segments), atol=1e-9)


def test_the_shapley_values_of_an_additive_game_are_exact_with_few_coalitions():
    design, values = solved("shapley", {"samples": 60, "seed": 5}, 9, additive)
    assert len(design.states) == 62
    assert_allclose(values, WEIGHTS, atol=1e-9)


def test_sampled_shapley_values_approach_the_exact_ones_and_add_up():
    _, values = solved("shapley", SHAPLEY, 9, nonlinear)
    exact = shapley_by_definition(nonlinear, 9)
    assert_allclose(values.sum(axis=0), exact.sum(axis=0), atol=1e-9)
    assert np.linalg.norm(values - exact) / np.linalg.norm(exact) < 0.15


def test_coalitions_come_with_their_complements_and_the_kernels_weights():
    design = find_solver("shapley").design({"samples": 150, "seed": 1}, 8)
    shown = {tuple(state) for state in design.states}
    assert all(tuple(1 - state) in shown for state in design.states)
    sizes = design.states.sum(axis=1)
    # 16 coalitions of sizes 1 and 7 are paid for, 56 of sizes 2 and 6 too; the other sizes share the rest.
    assert (np.bincount(sizes.astype(int))[[0, 1, 2, 6, 7, 8]] == [1, 8, 28, 28, 8, 1]).all()
    for size in (1, 2, 7):
        kernel = 7 / (math.comb(8, size) * size * (8 - size))
        assert_allclose(design.weights[sizes == size], kernel)
    assert_allclose(design.weights.sum(), sum(7 / (s * (8 - s)) for s in range(1, 8)))


def test_too_few_coalitions_are_refused_with_the_number_that_is_needed():
    with pytest.raises(ParameterError, match="at least 98"):
        find_solver("shapley").design({"samples": 97, "seed": 0}, 49)


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_lime_is_scikit_learns_weighted_ridge_regression(distance):
    parameters = {**LIME, "distance": distance, "ridge": 2.5}
    design, values = solved("ridge", parameters, 9, nonlinear)
    assert_array_equal(design.states[0], np.ones(9))
    similarity = design.states.sum(axis=1) / np.sqrt(9 * np.maximum(design.states.sum(axis=1), 1e-30))
    lengths = np.sqrt((1 - design.states).sum(axis=1) / 9)
    distances = 1 - similarity if distance == "cosine" else lengths
    weights = np.exp(-(distances**2) / 0.25**2)
    model = Ridge(alpha=2.5).fit(design.states.astype(np.float64), nonlinear(design.states), weights)
    assert_allclose(values, model.coef_.T, atol=1e-7)


def test_total_sobol_indices_of_the_ishigami_function_have_their_closed_form():
    def ishigami(states):
        x = np.pi * (2 * states.astype(np.float64) - 1)
        y = np.sin(x[:, 0]) + 7 * np.sin(x[:, 1]) ** 2 + 0.1 * x[:, 2] ** 4 * np.sin(x[:, 0])
        return np.stack([y, np.full(len(y), 3.0)], axis=1)

    _, values = solved("total_indices", {"designs": 8192, "seed": 2}, 3, ishigami)
    assert_allclose(values[:, 0], [0.5576, 0.4424, 0.2437], atol=0.02)
    assert_array_equal(values[:, 1], 0)  # a score that never changes


def test_hsic_is_the_trace_of_the_centred_kernels():
    design, values = solved("dependence", {"samples": 1500, "seed": 2}, 4, nonlinear)
    assert_allclose(design.states.mean(axis=0), 0.5)
    count = len(design.states)
    centring = np.eye(count) - 1 / count
    for column, scores in enumerate(nonlinear(design.states).T):
        distances = np.abs(scores[:, None] - scores)
        width = np.median(distances[:1000, :1000][np.triu_indices(1000, 1)])
        output = centring @ np.exp(-(distances**2) / (2 * width**2)) @ centring
        for segment in range(4):
            same = design.states[:, segment, None] == design.states[None, :, segment]
            assert_allclose(values[segment, column], (same * output).sum() / count**2, rtol=1e-9)


def test_hsic_of_a_score_that_never_changes_is_zero():
    _, values = solved("dependence", {"samples": 10, "seed": 2}, 4, lambda states: np.ones((len(states), 1)))
    assert_array_equal(values, 0)


def test_a_latin_hypercube_has_one_point_in_every_interval():
    points = latin_hypercube(7, np.arange(5), 50)
    assert_array_equal(np.sort(np.floor(points * 50), axis=0), np.arange(50)[:, None].repeat(5, 1))
    assert abs(np.corrcoef(points.T) - np.eye(5)).max() < 0.4
    place, within = np.floor(points * 50).ravel(), (points * 50 % 1).ravel()
    assert abs(np.corrcoef(place, within)[0, 1]) < 0.2
    assert within.min() < 0.05
    assert within.max() > 0.95


@pytest.mark.parametrize("name", ["ridge", "total_indices", "dependence"])
def test_a_segments_column_does_not_depend_on_how_many_others_there_are(name):
    parameters = {**LIME, "designs": 8}
    few, many = (SOLVERS[name].design(parameters, count).states for count in (4, 6))
    rows = 8 if name == "total_indices" else len(few)
    assert_array_equal(few[1:rows], many[1:rows, :4])


@pytest.mark.parametrize("name", SOLVERS)
def test_another_seed_is_another_design(name):
    parameters = {**LIME, "samples": 60, "designs": 8}
    first, second = (SOLVERS[name].design({**parameters, "seed": seed}, 9).states for seed in (1, 2))
    assert (first != second).any()


def test_a_solver_of_a_later_version_is_named():
    with pytest.raises(BundleError, match="solver 'shaply'; did you mean 'shapley'"):
        find_solver("shaply")
