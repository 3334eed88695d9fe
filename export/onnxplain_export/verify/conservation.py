"""Backward passes under other rules than the derivative's, proved by what they keep: sums, and one image at a time."""

from collections.abc import Callable
from typing import Any

import numpy as np

from onnxplain_export.evaluate import run, session_of
from onnxplain_export.graphs.relevance import relevance
from onnxplain_export.tables.guided import rectifies
from onnxplain_export.tables.relevance import Composite
from onnxplain_export.verify.proof import IMAGES, Array, Proof, relative, rows_of, worst

TOLERANCE = 1e-4
CONSERVATION_TOLERANCE = 1e-3
"""Of the sum of all relevances, positive and negative: where they cancel, rounding weighs more than in the score."""
ALL, TWO = np.arange(IMAGES), np.arange(2)


def conserved(name: str, composite: Composite) -> Callable[[Proof], dict[str, Any]]:
    """The check of the graph `name`: score = Σ relevance + what biases, ε and constants keep, for two targets.

    What is kept is summed up, neuron by neuron, from the forward sums by a copy of the graph that has it for an output.
    """

    def check(proof: Proof) -> dict[str, Any]:
        values, chosen = proof.values[TWO], proof.chosen[TWO]
        feeds = {proof.chosen_name: chosen, **composite_parameters(composite, values)}
        total, norm = proof.run(name, ["total", "norm"], TWO, **feeds)
        audit = session_of(relevance(proof.normalized, composite, audit=True))
        again, kept = run(audit, {**rows_of(proof.normalized, proof.feeds, TWO), **feeds}, ["total", "kept"])
        explained = proof.explained(proof.scores[TWO].astype(np.float64), chosen)
        errors = [_missing(total, explained - kept), relative(total, again), relative(norm, np.ones(norm.shape))]
        return {"error": worst(errors), "tolerance": CONSERVATION_TOLERANCE, "images": len(total)}

    return check


def complete(name: str) -> Callable[[Proof], dict[str, Any]]:
    """The check of the DeepLIFT graph `name`: Σ total = score(x) − score(b), for two targets.

    The forward graph says what the scores at the baseline are. One baseline for all images and one for each agree.
    """

    def check(proof: Proof) -> dict[str, Any]:
        values, chosen = proof.values[TWO], proof.chosen[TWO]
        baseline = baseline_of(values)
        feeds = {proof.chosen_name: chosen, "baseline": baseline}
        total, norm = proof.run(name, ["total", "norm"], TWO, **feeds)
        there = proof.scores_at(np.broadcast_to(baseline, values.shape), TWO)
        rise = proof.explained(proof.scores[TWO].astype(np.float64) - there, chosen)
        each = [proof.run(name, ["total"], TWO, **{**feeds, "baseline": np.repeat(baseline, 2, 0)})[0]]
        errors = [_missing(total, rise), relative(each[0], total), relative(norm, np.ones(norm.shape))]
        return {"error": worst(errors), "tolerance": TOLERANCE, "images": len(total)}

    return check


def guided(name: str) -> Callable[[Proof], dict[str, Any]]:
    """The check of the graph `name` under GUIDED or DECONVOLUTION: images alone and together, for two targets.

    Where the network has no ReLU, these are the plain gradient, which is proved by itself.
    """

    def check(proof: Proof) -> dict[str, Any]:
        chosen = proof.chosen
        together = proof.run(name, ["total"], ALL, **{proof.chosen_name: chosen})[0]
        alone = [proof.run(name, ["total"], ALL[i : i + 1], **{proof.chosen_name: chosen[i : i + 1]})[0] for i in ALL]
        errors = [relative(together, np.concatenate(alone)), 0.0 if np.isfinite(together).all() else float("inf")]
        if not any(rectifies(node) for node in proof.normalized.model.graph.all_nodes()) and len(proof.gradients):
            errors.append(relative(together[:, 0], proof.gradients))
        return {"error": worst(errors), "tolerance": TOLERANCE, "images": IMAGES}

    return check


def _missing(total: Array, expected: Array) -> float:
    """How far sums [N, T] of `total` [N, T, …] are from what is expected, as a share of all that is added up."""
    rows = total.reshape(*total.shape[:2], -1).astype(np.float64)
    scale = np.maximum(np.abs(rows).sum(-1), np.abs(expected))
    return float(np.max(np.abs(rows.sum(-1) - expected) / np.where(scale > 0, scale, 1.0)))


def baseline_of(values: Array) -> Array:
    """One baseline for all values that is no point of symmetry."""
    return np.full([1] * values.ndim, 0.1 * float(np.std(values)), np.float32)


def composite_parameters(composite: Composite, values: Array) -> dict[str, Array]:
    """The defaults of a composite; its bounds are those of the values."""
    bounds = {"low": float(values.min()), "high": float(values.max())}
    return {
        name: np.full([1] * (1 if default is not None else values.ndim), bounds.get(name, default), np.float32)
        for name, default in composite.parameters.items()
    }
