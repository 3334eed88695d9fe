"""Scores of images with a window replaced, and their sums over the windows: occlusion.

Zeiler, Fergus: Visualizing and Understanding Convolutional Networks (2013, arXiv:1311.2901).
"""

import numpy as np
import onnx_ir as ir

from onnxplain.errors import ModelError
from onnxplain_export.graphs.frame import (
    Frame,
    chosen_input,
    close_frame,
    column,
    connect,
    open_frame,
    per_image,
)
from onnxplain_export.normalize import BATCH, Normalized


def masked(normalized: Normalized) -> ir.Model:
    """total = Σ_k m_k (reference − score_k), norm = Σ_k m_k, and the scores [N, K, T] of the masked images themselves.

    m_k is 1 inside the window (top ≤ row < bottom, left ≤ column < right), where the image becomes `fill`.
    """
    if normalized.layout is None:
        raise ModelError(f"occlusion needs pictures; input {normalized.image!r} has shape {normalized.image_shape}")
    frame = open_frame(normalized)
    op = frame.op
    chosen = chosen_input(frame)
    steps = frame.input("steps", ["S", "K", 4])
    fill = frame.input("fill", [f"fill_{axis}" for axis in range(1 + frame.rank)])
    reference = frame.input("reference", [BATCH, "T"])
    activated = frame.input("activated", [1])
    mask = _window(frame, steps)
    change = op.Mul(mask, per_image(frame, op.Sub(fill, frame.value)))
    rows = op.Reshape(op.Add(per_image(frame, frame.value), change), [-1, *frame.shape])
    connect(frame, rows, [op.Shape(steps, start=1, end=2)])
    scores = _scores_of_targets(frame, chosen, steps, activated)
    drop = op.Sub(op.Unsqueeze(reference, [1]), scores)
    map_shape = [1, *normalized.size] if normalized.layout == "NCHW" else [*normalized.size, 1]
    weighted = op.Mul(op.Unsqueeze(mask, [2]), op.Unsqueeze(drop, [3, 4, 5]))
    frame.output("scores", scores, [BATCH, "K", "T"])
    frame.output("total", op.ReduceSum(weighted, [1], keepdims=0), [BATCH, "T", *map_shape])
    frame.output("norm", op.ReduceSum(mask, [1], keepdims=1), ["S", 1, *map_shape])
    return close_frame(frame, "masked")


def _window(frame: Frame, steps: ir.Value) -> ir.Value:
    """The windows as masks [N or 1, K, 1, H, W] (or [N or 1, K, H, W, 1])."""
    op = frame.op
    height, width = frame.normalized.size
    channels_first = frame.normalized.layout == "NCHW"
    top, left, bottom, right = (op.Unsqueeze(column(frame, steps, index), [2, 3, 4]) for index in range(4))
    row = np.arange(height, dtype=np.float32).reshape((height, 1) if channels_first else (height, 1, 1))
    col = np.arange(width, dtype=np.float32).reshape((1, width) if channels_first else (width, 1))
    rows = op.And(op.LessOrEqual(top, op.constant(row)), op.Less(op.constant(row), bottom))
    columns = op.And(op.LessOrEqual(left, op.constant(col)), op.Less(op.constant(col), right))
    return op.Cast(op.And(rows, columns), to=int(ir.DataType.FLOAT))


def _scores_of_targets(frame: Frame, chosen: ir.Value, steps: ir.Value, activated: ir.Value) -> ir.Value:
    """The targets' scores [N, K, T], activated where `activated` is 1; of free scores ⟨cotangent, scores⟩."""
    op, shape = frame.op, frame.normalized.scores.shape
    images, count = op.Shape(chosen, start=0, end=1), op.Shape(steps, start=1, end=2)
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
