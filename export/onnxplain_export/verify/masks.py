"""The graphs that mask at random and by segments against numpy's masks and the forward graph."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from onnxplain.activations import activate
from onnxplain.masks import painted_masks, random_masks
from onnxplain_export.verify.proof import Array, Proof, relative, worst

TOLERANCE = 1e-4
SEED = 1_000_003
"""Large, so that every remainder of the generator is at work."""
TWO = np.arange(2)
"""The numbers of the images that are tried."""


def masked_random(proof: Proof) -> dict[str, Any]:
    """Scores of two images under two random masks, and their sums over the masks, for two targets."""
    height, width = proof.normalized.size
    columns = [[3, 0.5, 2, height / 1.5, width / 1.5, height / 3, width / 3, 3, 1]]
    columns += [[700_001, 0.4, 3, height / 2, width / 2, 1, height / 4, 14, 0]]
    steps = np.array(columns, np.float32)
    masks = _in_layout(proof, random_masks(SEED, steps, height, width))
    errors = []
    for activated in _activations(proof):
        expected, feeds = _expected(proof, masks, activated)
        found, total, norm = proof.run(
            "masked.random",
            ["scores", "total", "norm"],
            TWO,
            **feeds,
            steps=steps[None],
            seed=np.array([SEED], np.int64),
        )
        errors += [
            relative(found, expected),
            relative(total, np.einsum("nkt,k...->nt...", expected, masks)),
            relative(norm, masks.sum(axis=0)),
        ]
    return {"error": worst(errors), "tolerance": TOLERANCE, "images": len(TWO)}


def masked_segments(proof: Proof) -> dict[str, Any]:
    """Scores of two images, each with segments of its own, for two states of these and two targets."""
    height, width = proof.normalized.size
    states = np.array([[1, 0, 0.25], [0, 1, 1]], np.float32)
    numbers = np.arange(2 * height * width).reshape(2, height, width) * 3 // (2 * width) % 3
    masks = [_in_layout(proof, painted_masks(states, numbers[image])) for image in TWO]
    errors = []
    for activated in _activations(proof):
        parts = [_expected(proof, own, activated)[0][image] for image, own in enumerate(masks)]
        feeds = _expected(proof, masks[0], activated)[1]
        (found,) = proof.run("masked.segments", ["scores"], TWO, **feeds, steps=states[None], segments=numbers)
        errors.append(relative(found, np.stack(parts)))
    return {"error": worst(errors), "tolerance": TOLERANCE, "images": len(TWO)}


def _activations(proof: Proof) -> tuple[int, ...]:
    return (0, 1) if proof.normalized.scores.activation != "none" else (0,)


def _expected(proof: Proof, masks: Array, activated: int) -> tuple[Array, Mapping[str, Array]]:
    """The scores [N, K, T] of two images kept where the masks [K, …] are 1, and the feeds that should give them."""
    images, chosen, scores = proof.feeds[proof.normalized.image][TWO], proof.chosen[TWO], proof.normalized.scores
    fill = np.full([1] * images.ndim, 0.5 * float(np.std(images)), np.float32)
    kind = scores.activation if activated else "none"
    given = []
    for mask in masks:
        rows = {proof.normalized.image: (fill + mask * (images - fill)).astype(np.float32)}
        found = proof.run("forward", ["scores"], TWO, **rows)[0]
        given.append(proof.explained(activate(found, kind, scores.class_axis or 1), chosen))
    feeds = {proof.chosen_name: chosen, "fill": fill, "activated": np.full(1, activated, np.float32)}
    return np.stack(given, axis=1), feeds


def _in_layout(proof: Proof, masks: Array) -> Array:
    """Masks [K, H, W] as [K, 1, H, W] or [K, H, W, 1]."""
    return masks[:, None] if proof.normalized.layout == "NCHW" else masks[..., None]
