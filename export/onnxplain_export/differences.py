"""The gradient graph against central differences of the forward graph, which share no line of a derivative rule."""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from onnxplain_export.proof import Array, Proof, worst

DIRECTIONS = 3
TOLERANCE = 1e-2
"""On directional derivatives by finite differences of float32 scores."""
STEP_SIZES = (1e-3, 1e-4, 1e-2, 1e-5, 3e-4, 3e-5, 1e-1, 3e-6)
"""Of the central differences, as shares of the image's own norm, in the order in which they are tried; the best one
counts. A long step crosses kinks and curvature, a short one drowns in the rounding of the scores."""
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
    for index, gradient in enumerate(proof.gradients):
        way = generator.standard_normal((2, *gradient.shape))
        directions = [direction / np.linalg.norm(direction) for direction in way]
        step = ROUNDING_STEP * max(float(np.linalg.norm(proof.images[index])), 1e-6)
        jitter = 2 * step * (_differences(proof, index, directions, step) - _predicted(gradient, directions))
        last_place = np.spacing(np.abs(proof.scores[index, proof.targets[index]]).astype(np.float32))
        found.append(max(float(np.sqrt(np.mean(jitter**2))), float(last_place)))
    return np.array(found)


def along_the_gradient(proof: Proof, rounding: Array) -> dict[str, Any]:
    """Directional derivatives along the gradient and along random reweightings of it, of each image that isn't flat."""
    generator = np.random.default_rng(1)
    errors: dict[int, float] = {}
    for index, gradient in enumerate(proof.gradients):
        own = [gradient, *(gradient * generator.uniform(0, 2, gradient.shape) for _ in range(DIRECTIONS))]
        if not gradient.any():
            continue  # nothing to go along; `across_the_gradient` sees whether the scores move after all
        directions = [direction / np.linalg.norm(direction) for direction in own]
        predicted = _predicted(gradient, directions)

        def error(measured: Array, _: float, predicted: Array = predicted) -> float:
            return float(np.max(np.abs(measured - predicted) / predicted))

        best = _best(
            proof, index, rounding[index], directions, error, STEP_SIZES, TOLERANCE, float(predicted.min()), LOCAL
        )
        if best is not None:
            errors[index] = best
    return {
        "error": worst(errors.values()),
        "tolerance": TOLERANCE,
        "images": len(errors),
        "directions": DIRECTIONS + 1,
    }


def across_the_gradient(proof: Proof, rounding: Array) -> dict[str, Any]:
    """Central differences along unstructured random directions, which also see what the gradient lacks altogether.

    Each moves the score by about a share 1/√size of what the gradient's own direction does: the error is in that unit.
    """
    generator = np.random.default_rng(2)
    typical = max(float(np.linalg.norm(gradient)) for gradient in proof.gradients)
    errors = []
    for index, gradient in enumerate(proof.gradients):
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
    length = max(float(np.linalg.norm(proof.images[index])), 1e-6)
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


def _extrapolated(slopes: dict[float, Array]) -> Iterator[Array]:
    """Richardson's extrapolation of neighbouring step sizes: without the curvature that a sharp unit has."""
    for short, long in pairwise(sorted(slopes)):
        ratio = (long / short) ** 2
        yield (ratio * slopes[short] - slopes[long]) / (ratio - 1)


def _differences(proof: Proof, index: int, directions: Sequence[Array], step: float) -> Array:
    """Central differences of the target's score along each direction."""
    image = proof.images[index].astype(np.float64)
    rows = np.stack([image + sign * step * direction for direction in directions for sign in (1, -1)])
    scores = proof.scores_at(rows)[:, int(proof.targets[index])]
    return (scores[0::2] - scores[1::2]) / (2 * step)
