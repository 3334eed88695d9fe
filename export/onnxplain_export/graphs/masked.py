"""Scores of images with a window replaced, and their sums over the windows: occlusion.

Zeiler, Fergus: Visualizing and Understanding Convolutional Networks (2013, arXiv:1311.2901).
"""

import numpy as np
import onnx_ir as ir

from onnxplain.errors import ModelError
from onnxplain_export.graphs.frame import Frame, close_frame, column, connect, open_frame, per_image
from onnxplain_export.normalize import BATCH, Normalized


def masked(normalized: Normalized) -> ir.Model:
    """total = Σ_k m_k (reference − score_k), norm = Σ_k m_k, and the scores [N, K, T] of the masked images themselves.

    m_k is 1 inside the window (top ≤ row < bottom, left ≤ column < right), where the image becomes `fill`.
    """
    if normalized.layout is None:
        raise ModelError(f"occlusion needs pictures; input {normalized.image!r} has shape {normalized.image_shape}")
    frame = open_frame(normalized)
    op = frame.op
    target = frame.input("target", [BATCH, "T"], ir.DataType.INT64)
    steps = frame.input("steps", ["S", "K", 4])
    fill = frame.input("fill", [f"fill_{axis}" for axis in range(1 + frame.rank)])
    reference = frame.input("reference", [BATCH, "T"])
    activated = frame.input("activated", [1])
    mask = _window(frame, steps)
    change = op.Mul(mask, per_image(frame, op.Sub(fill, frame.image)))
    connect(frame, op.Reshape(op.Add(per_image(frame, frame.image), change), [-1, *normalized.image_shape]))
    scores = _scores_of_targets(frame, target, steps, activated)
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


def _scores_of_targets(frame: Frame, target: ir.Value, steps: ir.Value, activated: ir.Value) -> ir.Value:
    """The targets' scores [N, K, T], activated where `activated` is 1."""
    op, scores = frame.op, frame.scores
    kind = frame.normalized.scores.activation
    if kind != "none":
        probabilities = op.Softmax(scores, axis=1) if kind == "softmax" else op.Sigmoid(scores)
        scores = op.Where(op.Greater(activated, 0.5), probabilities, scores)
    else:
        # Keeps `activated` a used input, so that every bundle is fed alike.
        scores = op.Add(scores, op.Mul(activated, 0.0))
    count = op.Shape(steps, start=1, end=2)
    images = op.Shape(target, start=0, end=1)
    table = op.Reshape(scores, op.Concat(images, count, [frame.normalized.scores.classes], axis=0))
    repeated = op.Expand(op.Unsqueeze(target, [1]), op.Concat([1], count, [1], axis=0))
    return op.GatherElements(table, repeated, axis=2)
