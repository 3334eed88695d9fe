"""Scores of masked images, and their sums over the masks: one body for every method that perturbs a picture.

- `masked`: a window is replaced. Occlusion (Zeiler, Fergus 2013, arXiv:1311.2901).
- `masked_random`: random cells are kept. RISE (Petsiuk, Das, Saenko 2018, arXiv:1806.07421).
- `masked_segments`: segments are kept as the step says. What is solved outside: KernelSHAP, LIME, Sobol, HSIC.
- `masked_detected`: as `masked_random`, each mask weighted by how much the masked image looks like the training data.
"""

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxplain.errors import ModelError
from onnxplain.plans import RANDOM_MASKS
from onnxplain_export.graphs.features import pooled
from onnxplain_export.graphs.frame import (
    Frame,
    chosen_input,
    close_frame,
    connect,
    open_frame,
    per_image,
)
from onnxplain_export.graphs.masks import painted, random_cells, windows
from onnxplain_export.normalize import BATCH, Normalized, named_value

NORM_ROOM = 1e-4
"""Added to the norms of features and weights, as DeConf does."""
SMALLEST_RANGE = 1e-12
"""Keeps 0 / 0 from happening where low and high are equal."""


@dataclass(frozen=True)
class Detector:
    """A head that says how much an image looks like the training data: the largest cosine of features and a class.

    `features` names the value [rows, …, F, …] that holds them, `axis` is that of F; the other axes are averaged.
    `weight` is [classes, F].
    """

    features: str
    axis: int
    weight: NDArray[np.float32]


@dataclass
class _Masked:
    """The graph up to the scores: the inputs that all have, the masks in the image's layout, the scores [N, K, T]."""

    frame: Frame
    mask: ir.Value
    scores: ir.Value
    map_shape: list[int]


def masked(normalized: Normalized) -> ir.Model:
    """total = Σ_k m_k (reference − score_k), norm = Σ_k m_k, and the scores [N, K, T] of the masked images themselves.

    m_k is 1 inside the window (top ≤ row < bottom, left ≤ column < right), where the image becomes `fill`.
    """
    frame = _open(normalized)
    op = frame.op
    chosen, steps = chosen_input(frame), frame.input("steps", ["S", "K", 4])
    fill = _fill_input(frame)
    reference = frame.input("reference", [BATCH, "T"])
    made = _scored(frame, windows(op, steps, normalized.size), fill, chosen, keep=False)
    drop = op.Sub(op.Unsqueeze(reference, [1]), made.scores)
    frame.output("scores", made.scores, [BATCH, "K", "T"])
    frame.output("total", _weighted_sum(made, drop), [BATCH, "T", *made.map_shape])
    frame.output("norm", op.ReduceSum(made.mask, [1], keepdims=1), ["S", 1, *made.map_shape])
    return close_frame(frame, "masked")


def masked_random(normalized: Normalized) -> ir.Model:
    """total = Σ_k m_k score_k, norm = Σ_k m_k, and the scores [N, K, T] of the images masked at random."""
    made, _ = _random(normalized)
    frame, op = made.frame, made.frame.op
    frame.output("scores", made.scores, [BATCH, "K", "T"])
    frame.output("total", _weighted_sum(made, made.scores), [BATCH, "T", *made.map_shape])
    frame.output("norm", op.ReduceSum(made.mask, [1], keepdims=1), ["S", 1, *made.map_shape])
    return close_frame(frame, "masked.random")


def masked_segments(normalized: Normalized) -> ir.Model:
    """The scores [N, K, T] of images whose segments are kept (1), replaced by `fill` (0), or mixed (between).

    A step is the state of every segment; `segments` numbers each pixel's.
    """
    frame = _open(normalized)
    chosen, steps = chosen_input(frame), frame.input("steps", ["S", "K", "segments"])
    segments = frame.input("segments", ["P", *normalized.size], ir.DataType.INT64)
    fill = _fill_input(frame)
    made = _scored(frame, painted(frame.op, steps, segments, normalized.size), fill, chosen)
    frame.output("scores", made.scores, [BATCH, "K", "T"])
    return close_frame(frame, "masked.segments")


def masked_detected(normalized: Normalized, detector: Detector) -> ir.Model:
    """total = Σ_k s_k m_k score_k, norm = Σ_k m_k; scores [N, K, T] and the detector's `confidence` [N, K].

    s_k = (clip(confidence, low, high) − low) / (high − low): scores and detector come from the same forward pass.
    """
    made, steps = _random(normalized)
    frame, op = made.frame, made.frame.op
    low, high = (op.Unsqueeze(frame.input(name, [BATCH]), [1]) for name in ("low", "high"))
    count = op.Shape(steps, start=1, end=2)
    confidence = op.Reshape(_confidence(frame, detector), op.Concat([-1], count, axis=0))
    span = op.Add(op.Sub(high, low), SMALLEST_RANGE)
    share = op.Div(op.Sub(op.Min(op.Max(confidence, low), high), low), span)
    terms = op.Mul(made.scores, op.Unsqueeze(share, [2]))
    frame.output("scores", made.scores, [BATCH, "K", "T"])
    frame.output("confidence", confidence, [BATCH, "K"])
    frame.output("total", _weighted_sum(made, terms), [BATCH, "T", *made.map_shape])
    frame.output("norm", op.ReduceSum(made.mask, [1], keepdims=1), ["S", 1, *made.map_shape])
    return close_frame(frame, "masked.detected")


def _random(normalized: Normalized) -> tuple[_Masked, ir.Value]:
    """The graph up to the scores of randomly masked images, and its step table."""
    frame = _open(normalized)
    chosen, steps = chosen_input(frame), frame.input("steps", ["S", "K", len(RANDOM_MASKS)])
    fill = _fill_input(frame)
    seed = frame.input("seed", [1], ir.DataType.INT64)
    return _scored(frame, random_cells(frame.op, steps, seed, normalized.size), fill, chosen), steps


def _open(normalized: Normalized) -> Frame:
    if normalized.layout is None:
        raise ModelError(
            f"methods that mask need pictures; input {normalized.image!r} has shape {normalized.image_shape}"
        )
    return open_frame(normalized)


def _fill_input(frame: Frame) -> ir.Value:
    return frame.input("fill", [f"fill_{axis}" for axis in range(1 + frame.rank)])


def _scored(frame: Frame, mask: ir.Value, fill: ir.Value, chosen: ir.Value, keep: bool = True) -> _Masked:
    """Feeds the masked images to the network: `mask` [N or 1, K, H, W] is where the image is kept, or replaced."""
    op, normalized = frame.op, frame.normalized
    activated = frame.input("activated", [1])
    channels_first = normalized.layout == "NCHW"
    mask = op.Unsqueeze(mask, [2 if channels_first else 4])
    replaced = op.Sub(1.0, mask) if keep else mask
    change = op.Mul(replaced, per_image(frame, op.Sub(fill, frame.value)))
    points = op.Add(per_image(frame, frame.value), change)
    count = op.Shape(points, start=1, end=2)
    connect(frame, op.Reshape(points, [-1, *frame.shape]), [count])
    scores = _scores_of_targets(frame, chosen, count, activated)
    return _Masked(frame, mask, scores, [1, *normalized.size] if channels_first else [*normalized.size, 1])


def _weighted_sum(made: _Masked, terms: ir.Value) -> ir.Value:
    """Σ_k m_k terms_k: [N, T, 1, H, W] (NHWC: [N, T, H, W, 1])."""
    op = made.frame.op
    masks = op.Reshape(made.mask, [0, 0, -1])
    return op.Reshape(op.MatMul(op.Transpose(terms, perm=[0, 2, 1]), masks), [0, 0, *made.map_shape])


def _scores_of_targets(frame: Frame, chosen: ir.Value, count: ir.Value, activated: ir.Value) -> ir.Value:
    """The targets' scores [N, K, T], activated where `activated` is 1; of free scores ⟨cotangent, scores⟩."""
    op, shape = frame.op, frame.normalized.scores.shape
    images = op.Shape(chosen, start=0, end=1)
    table = op.Reshape(_activated(frame, activated), op.Concat(images, count, list(shape), axis=0))
    if frame.normalized.scores.free:
        products = op.Mul(op.Unsqueeze(table, [2]), op.Unsqueeze(chosen, [1]))
        return op.ReduceSum(products, list(range(3, 3 + len(shape))), keepdims=0) if shape else products
    repeated = op.Expand(op.Unsqueeze(chosen, [1]), op.Concat([1], count, [1], axis=0))
    return op.GatherElements(table, repeated, axis=2)


def _activated(frame: Frame, activated: ir.Value) -> ir.Value:
    """The scores, or where `activated` is 1 what their softmax or sigmoid makes of them."""
    op, scores, kind = frame.op, frame.normalized.scores, frame.normalized.scores.activation
    if kind == "none":
        # Keeps `activated` a used input, so that every bundle is fed alike.
        return op.Add(frame.scores, op.Mul(activated, 0.0))
    axis = 1 if scores.class_axis is None else scores.class_axis
    probabilities = op.Softmax(frame.scores, axis=axis) if kind == "softmax" else op.Sigmoid(frame.scores)
    return op.Where(op.Greater(activated, 0.5), probabilities, frame.scores)


def _confidence(frame: Frame, detector: Detector) -> ir.Value:
    """The detector's answer [rows]: the largest cosine between a row's features and a class's weight."""
    op = frame.op
    features = pooled(frame, named_value(frame.graph, detector.features), detector.axis)
    length = op.Sqrt(op.ReduceSum(op.Mul(features, features), [1], keepdims=1))
    weight = detector.weight / (np.linalg.norm(detector.weight, axis=1, keepdims=True) + NORM_ROOM)
    cosines = op.MatMul(op.Div(features, op.Add(length, NORM_ROOM)), op.floats(weight.T))
    return op.ReduceMax(cosines, [1], keepdims=0)
