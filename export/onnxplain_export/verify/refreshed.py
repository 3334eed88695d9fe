"""Proves a bundle that was given new weights: its scores against the network's, its gradient against differences.

The graphs were proved when they were derived; what is looked for here is a weight that didn't find its place.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from onnxplain.errors import VerificationError
from onnxplain_export.evaluate import run, session_of
from onnxplain_export.new_weights import NewWeights
from onnxplain_export.normalize import BATCH
from onnxplain_export.recipe import Recipe
from onnxplain_export.verify.proof import IMAGES, Array, Sessions, random_images, relative, worst

TOLERANCE = 1e-5
ROUNDED_TOLERANCE = 5e-2
"""Against a network in half precision, or with weights that export rounds to it."""
JITTER = 1e-7
JITTERS_ALLOWED = 8.0
"""Times what the scores move when the image moves by a rounding error: badly conditioned networks."""
ALONG_TOLERANCE = 5e-2
"""Of the slope along the gradient, by differences of float32 scores: kinks and rounding make up to 1e-2 of it."""
STEP_SIZES = (1e-3, 1e-2, 1e-4, 3e-3, 1e-5, 1e-1)
"""As shares of the image's norm; the best one counts."""
GOOD = 0.2
"""The share of the tolerance at which no further step size is tried."""


def verify_refreshed(folder: Path, told: Mapping[str, Any], recipe: Recipe, given: NewWeights) -> dict[str, Any]:
    """The measured errors; VerificationError where the scores or the gradient aren't those of the new weights."""
    sessions = {
        name: session_of(folder / told["graphs"][name]["file"])
        for name in ("forward", "gradient")
        if name in told["graphs"]
    }
    feeds = _feeds(told)
    record: dict[str, Any] = {}
    if given.outputs is not None:
        rounded = _is_rounded(told, given.precision)
        outputs = told["graphs"]["forward"]["outputs"]
        batched = [entry["name"] for entry in outputs if entry["shape"][:1] == [BATCH]]
        tolerance = ROUNDED_TOLERANCE if rounded else TOLERANCE
        record["forward"] = _forward(sessions, feeds, recipe, given, batched, tolerance)
        if not record["forward"]["error"] <= record["forward"]["tolerance"]:
            raise VerificationError(
                "the bundle's scores differ from the model's by {error:.1e} (tolerance {tolerance:.0e}); something "
                "that holds no weights isn't as it was at export".format(**record["forward"])
            )
    if "gradient" in sessions and not told.get("value") and recipe.quantized is None and not _is_free(told):
        record["gradient"] = _along_the_gradient(sessions, feeds, told)
        if not record["gradient"]["error"] <= ALONG_TOLERANCE:
            raise VerificationError(
                "the gradient differs from differences of the scores by {error:.1e} (tolerance {tolerance:.0e}); "
                "please report this model, and export it again".format(**record["gradient"])
            )
    return record


def _is_rounded(told: Mapping[str, Any], precision: str | None) -> bool:
    """Whether the network computes in half precision, or the bundle holds its weights so."""
    changes = told["source"]["changes"]
    halves = "float16" in (precision or told["source"]["precision"])  # bfloat16 too
    return halves or any("rounded to float16" in change for change in changes)


def _is_free(told: Mapping[str, Any]) -> bool:
    return any(entry["name"] == "cotangent" for entry in told["graphs"]["gradient"]["inputs"])


def _feeds(told: Mapping[str, Any]) -> dict[str, Array]:
    """IMAGES rows of every input of the model, by name and in its order: images, small numbers, ones for masks."""
    generator = np.random.default_rng(20170612)
    feeds: dict[str, Array] = {}
    for entry in told["inputs"]:
        shape = [axis if isinstance(axis, int) else IMAGES for axis in entry["shape"]]
        if entry["explained"] and entry["dtype"] == "float32":
            integers = any("integer input" in change for change in told["source"]["changes"])
            steps = told["preprocessing"]["steps"]
            feeds[entry["name"]] = random_images(shape[1:], entry["layout"], steps, integers, generator)
        elif entry["dtype"] == "float32":
            feeds[entry["name"]] = generator.standard_normal(shape).astype(np.float32)
        elif entry["explained"]:
            feeds[entry["name"]] = generator.integers(0, 2, shape).astype(entry["dtype"])
        else:
            feeds[entry["name"]] = np.ones(shape, entry["dtype"])
    return feeds


def _forward(
    sessions: Sessions,
    feeds: Mapping[str, Array],
    recipe: Recipe,
    given: NewWeights,
    batched: Collection[str],
    tolerance: float,
) -> dict[str, Any]:
    """The largest difference of any output with a row for each image that both have."""
    assert given.outputs is not None
    theirs = given.outputs(list(feeds.values()))
    found = [(name, truth) for name, truth in zip(recipe.outputs, theirs, strict=False) if name is not None]
    pairs = [(name, truth) for name, truth in found if name in batched]
    if not pairs:
        raise VerificationError("none of the model's outputs is among the bundle's")
    names = [name for name, _ in pairs]
    ours = run(sessions["forward"], feeds, names)
    error = worst(
        relative(mine.reshape(IMAGES, -1), truth.reshape(IMAGES, -1))
        for mine, (_, truth) in zip(ours, pairs, strict=True)
    )
    allowed = tolerance
    if error > tolerance:
        moved = run(sessions["forward"], _jittered(feeds), names)
        allowed = max(tolerance, JITTERS_ALLOWED * worst(relative(a, b) for a, b in zip(moved, ours, strict=True)))
    return {"error": error, "tolerance": allowed, "images": IMAGES}


def _jittered(feeds: Mapping[str, Array]) -> dict[str, Array]:
    generator = np.random.default_rng(1)
    return {
        name: (value * (1 + JITTER * generator.choice([-1, 1], value.shape))).astype(np.float32)
        if value.dtype == np.float32
        else value
        for name, value in feeds.items()
    }


def _along_the_gradient(sessions: Sessions, feeds: Mapping[str, Array], told: Mapping[str, Any]) -> dict[str, Any]:
    """|g| against the slope of the top class' score along g, over the images whose gradient isn't zero."""
    image = next(entry["name"] for entry in told["inputs"] if entry["explained"])
    scores = run(sessions["forward"], feeds, ["scores"])[0]
    target = scores.argmax(axis=1)[:, None]
    (found,) = run(sessions["gradient"], {**feeds, "target": target}, ["total"])
    gradient = found[:, 0].astype(np.float64)
    lengths = np.linalg.norm(gradient.reshape(IMAGES, -1), axis=1)
    if not np.isfinite(lengths).all():
        raise VerificationError("the gradient holds NaN or infinite values")
    steep = np.flatnonzero(lengths > 1e-2 * lengths.max())
    rows = feeds[image].astype(np.float64)
    sizes = np.linalg.norm(rows.reshape(IMAGES, -1), axis=1)
    best = np.full(IMAGES, np.inf)
    for share in STEP_SIZES:
        step = (share * np.maximum(sizes, 1e-3) / np.maximum(lengths, 1e-30)).reshape(-1, *[1] * (rows.ndim - 1))
        ends = [
            _scores_at(sessions, {**feeds, image: (rows + sign * step * gradient).astype(np.float32)}, target)
            for sign in (1, -1)
        ]
        slope = (ends[0] - ends[1]) / (2 * step.ravel() * np.maximum(lengths, 1e-30))
        best = np.minimum(best, np.abs(slope - lengths) / np.maximum(lengths, 1e-30))
        if best[steep].max(initial=0) < GOOD * ALONG_TOLERANCE:
            break
    error = float(best[steep].max(initial=0)) if lengths.any() else 0.0
    return {"error": error, "tolerance": ALONG_TOLERANCE, "images": len(steep), "directions": 1}


def _scores_at(sessions: Sessions, feeds: Mapping[str, Array], target: Array) -> Array:
    (scores,) = run(sessions["forward"], feeds, ["scores"])
    return np.take_along_axis(scores.astype(np.float64), target, axis=1)[:, 0]
