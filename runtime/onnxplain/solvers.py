"""What scores of masked images say about the segments: KernelSHAP, LIME, Sobol indices, HSIC.

A solver makes a design, the states [K, S] in which the S segments are shown (1 kept, 0 replaced), and turns the scores
[K, M] of the masked images, a column for each image and target, into values [S, M]. All draws come from
`onnxplain.random`, so that every engine makes the same design; a segment's column never depends on the others' number
except where the method itself does.
"""

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.errors import BundleError, ParameterError, unknown
from onnxplain.random import uniform

Array = NDArray[np.float64]
Parameters = Mapping[str, Any]

MEDIAN_OF = 1000
"""How many scores the median distance of HSIC is taken over: all pairs of them."""
ROWS = 128
"""Rows of a kernel matrix that are held at once."""


@dataclass(frozen=True, slots=True)
class Design:
    """The states [K, S] of the segments in K masked images, and what each counts for in the fit."""

    states: NDArray[np.float32]
    weights: Array


@dataclass(frozen=True, slots=True)
class Solver:
    """`design(parameters, S)` says what to show the network, `solve(design, scores, parameters)` what follows."""

    design: Callable[[Parameters, int], Design]
    solve: Callable[[Design, Array, Parameters], Array]


def find_solver(name: str) -> Solver:
    """The solver that a method's finish rule names; BundleError for one that this version doesn't know."""
    if name not in SOLVERS:
        raise BundleError(unknown("solver", name, SOLVERS) + "; pip install --upgrade onnxplain")
    return SOLVERS[name]


def coalitions(parameters: Parameters, segments: int) -> Design:
    """The design of KernelSHAP: the empty coalition, the full one, then at most `samples` others.

    Sizes 1 and S − 1, 2 and S − 2, … are shown completely as long as their share of the Shapley kernel
    (S − 1) / (C(S, s)·s·(S − s)) pays for it; of the others, pairs of a coalition and its complement are drawn from the
    kernel. 2^S − 2 samples show everything, and the values are exact.

    Lundberg, Lee: A unified approach to interpreting model predictions (2017, arXiv:1705.07874); pairs: Covert, Lee
    (2021, arXiv:2012.01536).
    """
    samples, least = int(parameters["samples"]), min(2 * segments, 2 ** min(segments, 40) - 2)
    if samples < least:
        raise ParameterError(
            f"kernel_shap: samples={samples} are too few for {segments} segments; give at least {least}"
        )
    shown = [np.zeros((1, segments)), np.ones((1, segments))]
    weights = [np.zeros(2)]
    mass = {size: _pair_mass(size, segments) for size in range(1, segments // 2 + 1)}
    for size in list(mass):
        both = 1 if 2 * size == segments else 2
        number = both * math.comb(segments, size)
        if samples * mass[size] < (number - 1e-9) * sum(mass.values()):
            break
        subsets = _subsets(segments, size)
        shown += [subsets, 1 - subsets][:both]
        weights.append(np.full(number, mass.pop(size) / number))
        samples -= number
    if mass and samples >= 2:
        drawn = _drawn_pairs(int(parameters["seed"]), samples // 2, segments, mass)
        shown.append(drawn)
        weights.append(np.full(len(drawn), sum(mass.values()) / len(drawn)))
    return Design(np.concatenate(shown).astype(np.float32), np.concatenate(weights))


def _pair_mass(size: int, segments: int) -> float:
    """The Shapley kernel's mass on all coalitions of a size and of its complement's."""
    return (1 if 2 * size == segments else 2) * (segments - 1) / (size * (segments - size))


def _subsets(segments: int, size: int) -> Array:
    chosen = np.array(list(itertools.combinations(range(segments), size)))
    states = np.zeros((len(chosen), segments))
    np.put_along_axis(states, chosen, 1, axis=1)
    return states


def _drawn_pairs(seed: int, pairs: int, segments: int, mass: Mapping[int, float]) -> Array:
    """Coalitions of sizes drawn by their mass, each followed by its complement."""
    noise = uniform(seed, np.arange(pairs), (segments + 1,)).astype(np.float64)
    edges = np.cumsum(list(mass.values()))
    sizes = np.array(list(mass))[np.searchsorted(edges, noise[:, segments] * edges[-1])]
    order = np.argsort(np.argsort(noise[:, :segments], axis=1, kind="stable"), axis=1)
    states = (order < sizes[:, None]).astype(np.float64)
    return np.stack([states, 1 - states], axis=1).reshape(-1, segments)


def shapley_values(design: Design, scores: Array, parameters: Parameters) -> Array:  # noqa: ARG001 (every solver's)
    """The weighted least squares fit whose values add up to the difference of the full and the empty coalition."""
    empty, gain = scores[0], scores[1] - scores[0]
    states = design.states.astype(np.float64)
    last = states[:, -1:]
    root = np.sqrt(design.weights)[:, None]
    # The last value is the gain less the others: one unknown less, and no constraint.
    matrix, target = root * (states[:, :-1] - last), root * (scores - empty - last * gain)
    others = np.linalg.lstsq(matrix, target, rcond=None)[0]
    return np.concatenate([others, (gain - others.sum(axis=0))[None]])


def coin_flips(parameters: Parameters, segments: int) -> Design:
    """The design of LIME: the picture itself, then segments kept with probability 1/2; weights exp(−D² / width²).

    D is the cosine distance to the picture itself ("cosine"), or the Euclidean one as a share of the largest.

    Ribeiro, Singh, Guestrin: "Why should I trust you?" (2016, arXiv:1602.04938).
    """
    samples, seed = int(parameters["samples"]), int(parameters["seed"])
    states = (uniform(seed, np.arange(samples), (segments,)) < 0.5).astype(np.float32)
    states[0] = 1
    kept = states.mean(axis=1, dtype=np.float64)
    distance = 1 - np.sqrt(kept) if parameters["distance"] == "cosine" else np.sqrt(1 - kept)
    return Design(states, np.exp(-((distance / float(parameters["width"])) ** 2)))


def ridge_values(design: Design, scores: Array, parameters: Parameters) -> Array:
    """The slopes of a weighted ridge regression with a free intercept."""
    weights = (design.weights / design.weights.sum())[:, None]
    states = design.states - (weights * design.states).sum(axis=0)
    centred = scores - (weights * scores).sum(axis=0)
    penalty = float(parameters["ridge"]) / design.weights.sum()
    matrix = states.T @ (weights * states) + penalty * np.eye(states.shape[1])
    return np.linalg.lstsq(matrix, states.T @ (weights * centred), rcond=None)[0]


def latin_hypercube(seed: int, columns: NDArray[np.int64], count: int) -> Array:
    """`count` points in (0, 1) for each column [count, columns]: one in every interval of length 1 / count.

    Column c takes draw 2c for the order of the intervals and draw 2c + 1 for the places within.
    McKay, Beckman, Conover (1979).
    """
    order = np.argsort(np.argsort(uniform(seed, 2 * columns, (count,)), axis=1, kind="stable"), axis=1)
    return ((order + uniform(seed, 2 * columns + 1, (count,)).astype(np.float64)) / count).T


def replicated(parameters: Parameters, segments: int) -> Design:
    """The design of Sobol's indices: points A, then for every segment A with that segment's column taken from B.

    Fel et al.: Look at the variance! (2021, arXiv:2111.04138), with a Latin hypercube for Sobol's sequence, whose first
    points are strongly correlated in so many dimensions.
    """
    count, seed = int(parameters["designs"]), int(parameters["seed"])
    column = 2 * np.arange(segments)
    first, second = (latin_hypercube(seed, column + which, count) for which in (0, 1))
    states = np.repeat(first[None], segments + 1, axis=0)
    for segment in range(segments):
        states[segment + 1, :, segment] = second[:, segment]
    return Design(states.reshape(-1, segments).astype(np.float32), np.ones(len(states) * count))


def total_indices(design: Design, scores: Array, parameters: Parameters) -> Array:  # noqa: ARG001
    """Total-order Sobol indices by Jansen's estimator (1999); 0 where the score never changes.

    The variance is that of all scores: every part of the design is distributed alike, and A alone is few points.
    """
    parts = scores.reshape(design.states.shape[1] + 1, -1, scores.shape[1])
    variance = scores.var(axis=0, ddof=1)
    differences = ((parts[1:] - parts[0]) ** 2).mean(axis=1) / 2
    return np.divide(differences, variance, out=np.zeros_like(differences), where=variance > 0)


def halves(parameters: Parameters, segments: int) -> Design:
    """The design of HSIC: a binary Latin hypercube, each segment shown in half of the images.

    Novello, Fel, Vigouroux: Making sense of dependence (2022, arXiv:2206.06219).
    """
    samples = int(parameters["samples"])
    points = latin_hypercube(int(parameters["seed"]), np.arange(segments), samples)
    return Design((points < 0.5).astype(np.float32), np.ones(samples))


def dependence(design: Design, scores: Array, parameters: Parameters) -> Array:  # noqa: ARG001
    """HSIC = tr(K H L H) / K² of each segment's state and the score.

    The kernel of the states is 1 where they are equal, else 0; that of the scores Gaussian, with their median distance
    as its width (Gretton et al. 2005). 0 where the score never changes.
    """
    # Centred, the kernel of binary states is 2 x̃ x̃ᵀ, so no matrix is needed for each segment.
    states = design.states - design.states.mean(axis=0, dtype=np.float64)
    return np.stack([_dependence(states, column) for column in scores.T], axis=1)


def _dependence(states: Array, scores: Array) -> Array:
    some = scores[:MEDIAN_OF]
    distances = np.abs(np.concatenate([some[first + 1 :] - some[first] for first in range(len(some))]))
    width = float(np.median(distances)) or float(distances.mean())
    if not width:
        return np.zeros(states.shape[1])
    product = np.empty_like(states)
    for start in range(0, len(scores), ROWS):
        block = scores[start : start + ROWS, None] - scores
        product[start : start + ROWS] = np.exp(-(block**2) / (2 * width**2)) @ states
    return 2 * (states * product).sum(axis=0) / len(scores) ** 2


SOLVERS: dict[str, Solver] = {
    "shapley": Solver(coalitions, shapley_values),
    "ridge": Solver(coin_flips, ridge_values),
    "total_indices": Solver(replicated, total_indices),
    "dependence": Solver(halves, dependence),
}
"""The solvers by the name that a method's finish rule gives."""
