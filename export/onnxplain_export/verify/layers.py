"""The graphs of a feature layer against the network behind it, by other graphs and by finite differences."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from onnxplain_export.evaluate import run, session_of
from onnxplain_export.graphs.forward import forward
from onnxplain_export.graphs.gradient import gradient
from onnxplain_export.grids import Layer
from onnxplain_export.normalize.onward import onward
from onnxplain_export.verify.differences import along_the_gradient, rounding_of_scores
from onnxplain_export.verify.proof import IMAGES, Array, Proof, relative, rows_of, worst

TOLERANCE = 1e-4
EACH = np.arange(IMAGES)


def layer_checks(proof: Proof, at: Layer, graph: str, tail: str | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """What explainer.json records of a layer's graphs, by name: each an error, its tolerance and the number of images.

    The features are those of the network itself, the gradients those of the network behind them for two targets, and
    for the first as its scores rise and fall (`slopes`); the tail's scores are those of the network.
    """
    found = proof.run(graph, ["layer_features", "total", "norm"], EACH, **{proof.chosen_name: proof.chosen})
    features, total, norm = found
    there = _proof_at(proof, at, features, total)
    expected = there.gradient_at(features, EACH, proof.chosen)
    errors = [relative(features, _features(proof, at)), relative(total, expected), relative(norm, np.ones(norm.shape))]
    entry = {"error": worst(errors), "tolerance": TOLERANCE, "images": IMAGES}
    if entry["error"] <= TOLERANCE and not proof.normalized.straight_through:  # whose roundings make slopes 0
        slopes = along_the_gradient(there, rounding_of_scores(there))
        right = slopes["error"] <= slopes["tolerance"]
        entry = {**entry, "slopes": slopes["error"]} if right else slopes
    yield graph, entry
    if tail is not None:
        session = proof.sessions[tail]
        feeds = {**rows_of(proof.normalized, proof.feeds, EACH), "layer": features}
        (scores,) = run(session, {entry.name: feeds[entry.name] for entry in session.get_inputs()}, ["scores"])
        yield tail, {"error": relative(scores, proof.scores), "tolerance": TOLERANCE, "images": IMAGES}


def _features(proof: Proof, at: Layer) -> Array:
    """The layer's values as the plain network computes them."""
    if at.name == proof.normalized.image:
        return proof.feeds[at.name]
    session = session_of(forward(replace(proof.normalized.full, value=at.name, value_shape=at.shape)))
    return run(session, rows_of(proof.normalized, proof.feeds, EACH), ["explained"])[0]


def _proof_at(proof: Proof, at: Layer, features: Array, total: Array) -> Proof:
    """The proof of gradients at the layer, in the network that goes on from there."""
    behind = onward(replace(proof.normalized.full, value=at.name, value_shape=at.shape))
    return replace(
        proof,
        onward={"forward": session_of(forward(behind)), "gradient": session_of(gradient(behind))},
        entry=behind.image,
        values=features,
        gradients=total[:, 0].astype(np.float64),
        spread=np.ones(at.shape),
    )
