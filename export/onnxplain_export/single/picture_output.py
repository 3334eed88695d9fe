"""Heat maps and overlays inside a graph: the arithmetic of onnxplain.heatmap, bytes out."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxplain.heatmap import LUMA, colours
from onnxplain_export.emitter import Emitter

PERCENTILE = 0.99
STRENGTH = 0.85
BYTE = int(ir.DataType.UINT8)


def heat_of(op: Emitter, attribution: ir.Value, layout: str, size: tuple[int, int]) -> ir.Value:
    """Σ|a| over channels of [N, T, …], from each map's minimum to its 99th percentile: [N, T, H, W] in 0..1.

    A constant map gives zeros; where percentile and minimum are equal, the largest is 1.
    """
    total = op.ReduceSum(op.Abs(attribution), [2 if layout == "NCHW" else 4], keepdims=0)
    low, most = (reduce(total, [2, 3], keepdims=1) for reduce in (op.ReduceMin, op.ReduceMax))
    high = _percentile(op, total, size)
    high = op.Where(op.Greater(high, low), high, most)
    varied = op.Greater(high, low)
    span = op.Where(varied, op.Sub(high, low), 1.0)
    return op.Clip(op.Div(op.Sub(total, low), span), 0.0, 1.0)


def _percentile(op: Emitter, total: ir.Value, size: tuple[int, int]) -> ir.Value:
    """The 99th percentile, between two values as numpy's "linear" has it: [N, T, 1, 1]."""
    count = size[0] * size[1]
    position = PERCENTILE * (count - 1)
    below = math.floor(position)
    largest, _ = op.TopK(op.Reshape(total, [0, 0, count]), [count - below], axis=2, outputs=2)
    last = count - below - 1
    lower = op.Slice(largest, [last], [last + 1], [2])
    upper = op.Slice(largest, [max(last - 1, 0)], [max(last - 1, 0) + 1], [2])
    return op.Unsqueeze(op.Add(lower, op.Mul(op.Sub(upper, lower), position - below)), [3])


def as_bytes(op: Emitter, heat: ir.Value) -> ir.Value:
    """0..1 as 0 to 255."""
    return op.Cast(op.Round(op.Mul(heat, 255.0)), to=BYTE)


def overlaid(op: Emitter, seen: ir.Value, heat: ir.Value) -> ir.Value:
    """`heat` [N, T, H, W] glowing over pictures [N, H, W, 3] in darkened grey: RGB uint8 [N, T, H, W, 3]."""
    grey = op.MatMul(op.Unsqueeze(seen, [1]), op.floats(LUMA[:, None] * (1 - 0.35 * STRENGTH)))
    table = op.floats(colours(np.arange(256) / 255))
    index = op.Cast(op.Round(op.Mul(heat, 255.0)), to=int(ir.DataType.INT64))
    strong = op.Unsqueeze(op.Min(op.Mul(heat, 5.0), 1.0), [4])
    light = op.Mul(op.Gather(table, index, axis=0), strong)
    faded = op.Mul(grey, op.Sub(1.0, op.Mul(op.Unsqueeze(heat, [4]), STRENGTH)))
    drawn = op.Add(faded, op.Mul(light, STRENGTH))
    return op.Cast(op.Round(op.Clip(drawn, 0.0, 255.0)), to=BYTE)


def undone(op: Emitter, image: ir.Value, steps: Sequence[Mapping[str, Any]]) -> ir.Value:
    """The picture RGB [N, H, W, 3], 0 to 255, that a preprocessed image [N, …] stands for."""
    by_name = {step["step"]: step for step in steps}
    values = op.Cast(image, to=int(ir.DataType.FLOAT))
    if by_name["layout"]["order"] == "NCHW":
        values = op.Transpose(values, perm=[0, 2, 3, 1])
    if "std" in by_name:
        values = op.Mul(values, op.floats(by_name["std"]["values"]))
    if "mean" in by_name:
        values = op.Add(values, op.floats(by_name["mean"]["values"]))
    if "scale" in by_name:
        values = op.Mul(values, 1 / float(by_name["scale"]["factor"]))
    pixels = op.Clip(op.Round(values), 0.0, 255.0)
    order = by_name.get("colour", {"order": "RGB"})["order"]
    if order == "BGR":
        return op.Gather(pixels, [2, 1, 0], axis=3)
    return op.Concat(pixels, pixels, pixels, axis=3) if order == "GREY" else pixels
