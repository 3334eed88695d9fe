"""The gradient graph against central differences of the forward graph, which share no line of a derivative rule."""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from onnxplain_export.verify.proof import Array, Proof, worst

DIRECTIONS = 3
TOLERANCE = 1e-2
"""On directional derivatives by finite differences of float32 scores."""
TOLERANCE_STRAIGHT_THROUGH = 5e-2
"""Of a quantised network with its roundings held: equal numbers tie in its max pools, where a difference is a mean; and
of a gradient in half precision, which ties them too."""
STEP_SIZES = (1e-3, 1e-4, 1e-2, 1e-5, 3e-4, 3e-5, 1e-1, 3e-6, 1e-6)
"""Of the central differences, as shares of the image's own norm, in the order in which they are tried; the best one
counts. A long step crosses kinks and curvature, a short one drowns in the rounding of the scores."""
SEGMENTS = (1e-5, 1e-4)
SEGMENT_POINTS = 16
"""Where no step is short enough for the kinks: the gradient's mean over the step, at so many points, is compared."""
LOCAL = 1e-3
"""The longest step whose disagreement is held against a gradient: longer ones leave the plateau of a saturated unit."""
GOOD = 0.3
"""The share of the tolerance at which no further step size is tried."""
MISSING_TOLERANCE = 0.3
"""Of the gradient's own size: the kinks of a deep ReLU network with random weights alone make up to 0.21 of it, at the
shortest step that the rounding of float32 scores allows (Inception v2 with He weights)."""
MISSING_STEP_SIZES = (1e-3, 3e-3, 1e-2, 1e-4, 1e-1)
"""Of the unstructured directions, which move the score far less."""
FLAT = 1e-2
"""An image whose gradient is a smaller share of the largest one's lies on a plateau of the scores."""
VISIBLE = 0.3
"""The largest share of the tolerance that rounding alone may make; step sizes at which it makes more prove nothing."""
ROUNDING_STEP = 1e-6

Error = Callable[[Array, float], float]
"""Of measured slopes, given how much rounding alone makes them jitter."""


def rounding_of_scores(proof: Proof) -> Array:
    """How much the difference of two scores of each image jitters under moves too small to matter otherwise.

    At least the last place of the scores.
    """
    generator = np.random.default_rng(0)
    found = []
    for index, gradient in enumerate(_in_own_units(proof)):
        way = generator.standard_normal((2, *gradient.shape))
        directions = [direction / np.linalg.norm(direction) for direction in way]
        step = ROUNDING_STEP * _length(proof, index)
        jitter = 2 * step * (_differences(proof, index, directions, step) - _predicted(gradient, directions))
        found.append(max(float(np.sqrt(np.mean(jitter**2))), _last_place(proof, index)))
    return np.array(found)


def along_the_gradient(proof: Proof, rounding: Array) -> dict[str, Any]:
    """Directional derivatives along the gradient and along random reweightings of it, of each image that isn't flat."""
    generator = np.random.default_rng(1)
    errors: dict[int, float] = {}
    tied = proof.normalized.straight_through or proof.normalized.half is not None
    tolerance = TOLERANCE_STRAIGHT_THROUGH if tied else TOLERANCE
    for index, gradient in enumerate(_in_own_units(proof)):
        own = [gradient, *(gradient * generator.uniform(0, 2, gradient.shape) for _ in range(DIRECTIONS))]
        if not gradient.any():
            continue  # nothing to go along; `across_the_gradient` sees whether the scores move after all
        directions = [direction / np.linalg.norm(direction) for direction in own]
        predicted = _predicted(gradient, directions)

        def error(measured: Array, _: float, predicted: Array = predicted) -> float:
            return float(np.max(np.abs(measured - predicted) / predicted))

        best = _best(
            proof, index, rounding[index], directions, error, STEP_SIZES, tolerance, float(predicted.min()), LOCAL
        )
        if best is not None:
            errors[index] = best if best <= tolerance else min(best, _over_segments(proof, index, directions))
    return {
        "error": worst(errors.values()),
        "tolerance": tolerance,
        "images": len(errors),
        "directions": DIRECTIONS + 1,
    }


def across_the_gradient(proof: Proof, rounding: Array) -> dict[str, Any]:
    """Central differences along unstructured random directions, which also see what the gradient lacks altogether.

    Each moves the score by about a share 1/√size of what the gradient's own direction does: the error is in that unit.
    """
    generator = np.random.default_rng(2)
    typical = max(float(np.linalg.norm(gradient)) for gradient in _in_own_units(proof))
    errors = []
    for index, gradient in enumerate(_in_own_units(proof)):
        random = [generator.standard_normal(gradient.shape) for _ in range(DIRECTIONS)]
        directions = [direction / np.linalg.norm(direction) for direction in random]
        predicted = _predicted(gradient, directions)
        length = float(np.linalg.norm(gradient))
        flat = length < FLAT * typical
        unit = (length or typical) / np.sqrt(gradient.size)

        def error(measured: Array, jitter: float, predicted: Array = predicted, unit: float = unit) -> float:
            return float(np.sqrt(max(np.mean((measured - predicted) ** 2) - jitter**2, 0.0))) / unit

        best = _best(
            proof,
            index,
            rounding[index],
            directions,
            error,
            MISSING_STEP_SIZES,
            MISSING_TOLERANCE,
            unit,
            LOCAL if flat else 1.0,
        )
        if best is not None:
            errors.append(best)
    return {"error": worst(errors), "tolerance": MISSING_TOLERANCE, "images": len(errors), "directions": DIRECTIONS}


def _predicted(gradient: Array, directions: Sequence[Array]) -> Array:
    return np.array([np.vdot(gradient, direction) for direction in directions])


def _best(
    proof: Proof,
    index: int,
    rounding: float,
    directions: Sequence[Array],
    error: Error,
    sizes: Sequence[float],
    tolerance: float,
    signal: float,
    local: float = 1.0,
) -> float | None:
    """The smallest error over the step sizes at which `signal` stands out of the rounding; None if it never does.

    A disagreement at a step beyond `local` proves nothing and isn't counted.
    """
    length = _length(proof, index)
    found: dict[float, float] = {}
    slopes: dict[float, Array] = {}
    for size in sizes:
        jitter = rounding / (2 * size * length)
        if jitter > VISIBLE * tolerance * signal:
            continue
        slopes[size] = _differences(proof, index, directions, size * length)
        wrong = error(slopes[size], jitter)
        if size <= local or wrong <= tolerance:
            found[size] = wrong
        if wrong <= GOOD * tolerance:
            return wrong
    return min([*found.values(), *(error(slope, 0.0) for slope in _extrapolated(slopes))]) if found else None


def _over_segments(proof: Proof, index: int, directions: Sequence[Array]) -> float:
    """Differences of the scores against the integral of the gradient between the two points, which kinks don't upset.

    The smallest error over the lengths that are tried, as a share of the integral.
    """
    errors = []
    for size in SEGMENTS:
        step = size * _length(proof, index)
        claimed = np.array([_mean_slope(proof, index, direction, step) for direction in directions])
        measured = _differences(proof, index, directions, step)
        errors.append(float(np.max(np.abs(measured - claimed) / np.abs(claimed))))
    return min(errors)


def _mean_slope(proof: Proof, index: int, direction: Array, step: float) -> float:
    """The mean of ⟨gradient, direction⟩ over a step back and forth, by the midpoint rule."""
    places = (np.arange(SEGMENT_POINTS) + 0.5) / SEGMENT_POINTS * 2 - 1
    slopes = []
    for place in places:
        row = proof.values[index] + place * step * direction * proof.spread
        images = np.array([index])
        gradient = proof.gradient_at(row[None], images, proof.chosen[images, :1])[0, 0].astype(np.float64)
        slopes.append(np.vdot(gradient * proof.spread, direction))
    return float(np.mean(slopes))


def _extrapolated(slopes: dict[float, Array]) -> Iterator[Array]:
    """Richardson's extrapolation of neighbouring step sizes: without the curvature that a sharp unit has."""
    for short, long in pairwise(sorted(slopes)):
        ratio = (long / short) ** 2
        yield (ratio * slopes[short] - slopes[long]) / (ratio - 1)


def _differences(proof: Proof, index: int, directions: Sequence[Array], step: float) -> Array:
    """Central differences of what is explained, along each direction."""
    value = proof.values[index].astype(np.float64)
    moves = [direction * proof.spread for direction in directions]
    rows = np.stack([value + sign * step * move for move in moves for sign in (1, -1)])
    images = np.full(len(rows), index)
    scores = proof.explained(proof.scores_at(rows, images), proof.chosen[images, :1])[:, 0]
    return (scores[0::2] - scores[1::2]) / (2 * step)


def _in_own_units(proof: Proof) -> Array:
    """The gradients with respect to values that are measured by their own spread, in which all directions are taken."""
    return proof.gradients * proof.spread


def _length(proof: Proof, index: int) -> float:
    """The value's length in those units; of features around a mean, that of a typical deviation."""
    if (proof.spread != 1).any():
        return float(np.sqrt(proof.spread.size))
    return max(float(np.linalg.norm(proof.values[index])), 1e-6)


def _last_place(proof: Proof, index: int) -> float:
    """The last place of the explained score in float32; of a weighted sum, what those of its parts add up to."""
    places = np.spacing(np.abs(proof.scores[index]).astype(np.float32)).astype(np.float64)
    if not proof.normalized.scores.free:
        return float(places[proof.chosen[index, 0]])
    return float(np.linalg.norm(places * proof.chosen[index, 0]))
