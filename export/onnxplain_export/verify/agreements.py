"""Every other graph of a bundle against numpy's account of it, fed by the gradient and the forward graph."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from onnxplain.activations import activate
from onnxplain.random import normal
from onnxplain_export.graphs import SHARING
from onnxplain_export.tables import COMPOSITES
from onnxplain_export.verify.conservation import complete, conserved, guided
from onnxplain_export.verify.masks import masked_random, masked_segments
from onnxplain_export.verify.proof import Array, Proof, relative, worst

TOLERANCE = 1e-4
ROUNDING = 4.0
"""Times what the reference moves under rounding of its points is allowed: a deep ReLU network's gradient jumps."""
SEED, DRAWS = 1_000_003, (3, 700_001)
"""Large, so that every remainder of the generator is at work."""
STEPS = np.array([[0.25, 0.5], [1.0, 2.0]], np.float32)
"""(alpha, weight) of two points of a path."""
ONE, TWO = np.arange(1), np.arange(2)
"""The numbers of the images that are tried."""


def path(proof: Proof) -> dict[str, Any]:
    """total = (x − b)·Σ w·g(b + α(x − b)) at two points of two images, for a baseline other than 0."""
    values, chosen = proof.values[TWO], proof.chosen[TWO, :1]
    baseline = np.full([1] * values.ndim, 0.1 * float(np.std(values)), np.float32)
    difference = values - baseline
    points = [baseline + np.float32(alpha) * difference for alpha, _ in STEPS]

    def expected(points: list[Array]) -> Array:
        gradients = [
            weight * proof.gradient_at(rows, TWO, chosen) for rows, (_, weight) in zip(points, STEPS, strict=True)
        ]
        return np.sum(gradients, axis=0) * difference[:, None]

    feeds = {proof.chosen_name: chosen, "steps": STEPS[None], "baseline": baseline}
    total, norm = proof.run("path", ["total", "norm"], TWO, **feeds)
    return _compared(total, expected, points, norm, STEPS[:, 1].sum())


def noise(proof: Proof) -> dict[str, Any]:
    """Rows x + σ·z with z from the generator's numpy twin; one step of SmoothGrad, one on a path, for two targets."""
    values, chosen = proof.values[ONE], proof.chosen[ONE]
    baseline = np.full([1] * values.ndim, 0.1 * float(np.std(values)), np.float32)
    sigma = np.full(1, 0.2 * np.std(values), np.float32)
    steps = np.array([[DRAWS[0], 1, 1, 0], [DRAWS[1], 0.5, 2, 1]], np.float32)
    differences = [values - baseline + sigma * normal(SEED, [draw], values.shape[1:]) for draw in DRAWS]
    points = [baseline + np.float32(step[1]) * moved for step, moved in zip(steps, differences, strict=True)]

    def terms(points: list[Array]) -> list[Array]:
        plain = proof.gradient_at(points[0], ONE, chosen)
        return [plain, 2 * proof.gradient_at(points[1], ONE, chosen) * differences[1][:, None]]

    feeds = {proof.chosen_name: chosen, "steps": steps[None], "baseline": baseline, "sigma": sigma}
    outputs = ["total", "norm", "squares"]
    total, norm, squares = proof.run("noise", outputs, ONE, **feeds, seed=np.array([SEED], np.int64))
    weights = steps[:, 2].sum()
    found = [
        _compared(total, lambda points: np.sum(terms(points), axis=0), points, norm, weights),
        _compared(squares, lambda points: np.sum(np.square(terms(points)), axis=0), points, norm, weights),
    ]
    return max(found, key=lambda one: one["error"] / one["tolerance"])


def masked(proof: Proof) -> dict[str, Any]:
    """Scores of images with a window replaced, their drops summed over the windows, for two windows and two targets."""
    images, chosen, scores = proof.feeds[proof.normalized.image][TWO], proof.chosen[TWO], proof.normalized.scores
    height, width = proof.normalized.size
    windows = np.array([[0, 0, height // 2 + 1, width], [height // 3, width // 2, height, width]], np.float32)
    masks = np.stack([_window(proof, window) for window in windows])
    fill = np.full([1] * images.ndim, 0.5 * float(np.std(images)), np.float32)
    feeds = {proof.chosen_name: chosen, "steps": windows[None], "fill": fill}
    reference = 2 * proof.explained(proof.scores[TWO].astype(np.float64), chosen)
    feeds["reference"] = reference.astype(np.float32)
    rows = [_forward(proof, np.where(mask > 0, fill, images)) for mask in masks]
    errors = []
    for activated in (0, 1) if scores.activation != "none" else (0,):
        kind = scores.activation if activated else "none"
        given = [proof.explained(activate(row, kind, scores.class_axis or 1), chosen) for row in rows]
        expected = np.stack(given, axis=1)
        found, total, norm = proof.run(
            "masked", ["scores", "total", "norm"], TWO, **feeds, activated=np.full(1, activated, np.float32)
        )
        drops = feeds["reference"][:, None] - expected
        errors += [
            relative(feeds["reference"][:, None] - found, drops),
            relative(total, np.einsum("nkt,k...->nt...", drops, masks)),
            relative(norm, masks.sum(0)),
        ]
    return {"error": worst(errors), "tolerance": TOLERANCE, "images": len(images)}


def sharing(name: str, proof: Proof) -> dict[str, Any]:
    """A graph in which an image's targets share its forward pass, against the one that repeats it."""
    values, chosen = proof.values[TWO], proof.chosen[TWO]
    feeds = {
        proof.chosen_name: chosen,
        "steps": STEPS[None]
        if name == "path"
        else np.array([[[DRAWS[0], 1, 1, 0], [DRAWS[1], 0.5, 2, 1]]], np.float32),
        "baseline": np.full([1] * values.ndim, 0.1 * float(np.std(values)), np.float32),
        "sigma": np.full(2, 0.2 * np.std(values), np.float32),
        "seed": np.array([SEED], np.int64),
    }
    given = {entry.name for entry in proof.sessions[name].get_inputs()}
    used = {role: value for role, value in feeds.items() if role in given}
    plain, shared = (proof.run(graph, ["total", "norm"], TWO, **used) for graph in (name, f"{name}.targets"))
    error = worst([relative(ours, theirs) for ours, theirs in zip(shared, plain, strict=True)])
    return {"error": error, "tolerance": TOLERANCE, "images": len(values)}


def _forward(proof: Proof, images: Array) -> Array:
    """The forward graph's scores of other images."""
    return proof.run("forward", ["scores"], TWO, **{proof.normalized.image: images.astype(np.float32)})[0]


AGREEMENTS: Mapping[str, Callable[[Proof], dict[str, Any]]] = {
    "path": path,
    "noise": noise,
    "masked": masked,
    "masked.random": masked_random,
    "masked.segments": masked_segments,
    **{name: partial(sharing, plain) for name, plain in SHARING.items()},
    "gradient.guided": guided("gradient.guided"),
    "gradient.deconvolution": guided("gradient.deconvolution"),
    **{f"relevance.{name}": conserved(f"relevance.{name}", composite) for name, composite in COMPOSITES.items()},
    "deeplift": complete("deeplift"),
}


def _compared(
    total: Array, expected: Callable[[list[Array]], Array], points: list[Array], norm: Array, weights: float
) -> dict[str, Any]:
    """The error of `total`, with the tolerance widened to what the expected value itself owes to rounding."""
    truth = expected(points)
    error = worst([relative(total, truth), relative(norm, np.full(norm.shape, weights))])
    tolerance = TOLERANCE
    if error > TOLERANCE:
        generator = np.random.default_rng(3)
        # The graph's noise differs from numpy's by up to 2e-6 of its size, its sums by the order of adding.
        nudged = [row + 1e-6 * float(np.std(row)) * generator.standard_normal(row.shape) for row in points]
        tolerance = max(TOLERANCE, ROUNDING * relative(expected(nudged), truth))
    return {"error": error, "tolerance": tolerance, "images": len(total)}


def _window(proof: Proof, window: Array) -> Array:
    """One window as a mask [1, H, W] or [H, W, 1]."""
    height, width = proof.normalized.size
    top, left, bottom, right = window
    rows, columns = np.arange(height)[:, None], np.arange(width)[None]
    inside = ((top <= rows) & (rows < bottom) & (left <= columns) & (columns < right)).astype(np.float32)
    return inside[None] if proof.normalized.layout == "NCHW" else inside[..., None]
