"""Preprocessing inside a graph: pictures, uint8 [N, H, W, 3] of any size, become what the network takes.

The arithmetic is that of onnxplain.preprocessing and onnxplain.resize. Pillow's fixed point is kept to the last bit in
float32, which holds whole numbers up to 2^24: weights of 22 binary places are split in two, of 14 and 8 places, whose
products with bytes add up exactly each by itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxplain.resize import PILLOW_BITS
from onnxplain_export.emitter import Emitter
from onnxplain_export.single.lines import Line, weights_of

LOW_BITS = 8
HIGH_BITS = PILLOW_BITS - LOW_BITS
GREY = (19595.0, 38470.0, 7471.0)
"""ITU-R 601 in Pillow's 16 binary places (Convert.c, L24)."""


@dataclass(frozen=True)
class Prepared:
    """`rows` [N, …] as the network takes them, and the picture as it sees it: `seen`, RGB [N, h, w, 3], 0 to 255."""

    rows: ir.Value
    seen: ir.Value


def prepared(
    op: Emitter, picture: ir.Value, steps: Sequence[Mapping[str, Any]], size: tuple[int, int], dtype: ir.DataType
) -> Prepared:
    """What the preprocessing `steps` make of pictures for a network that takes `size` (height, width)."""
    by_name = {step["step"]: step for step in steps}
    planes = op.Transpose(op.Cast(picture, to=int(ir.DataType.FLOAT)), perm=[0, 3, 1, 2])
    order = by_name.get("colour", {"order": "RGB"})["order"]
    planes = _coloured(op, planes, order)
    planes = _placed(op, picture, planes, by_name.get("resize"), by_name.get("crop"), size)
    rows = _valued(op, planes, by_name)
    if by_name["layout"]["order"] == "NHWC":
        rows = op.Transpose(rows, perm=[0, 2, 3, 1])
    return Prepared(op.Cast(rows, to=int(dtype)), _seen(op, planes, order))


def _coloured(op: Emitter, planes: ir.Value, order: str) -> ir.Value:
    if order == "BGR":
        return op.Gather(planes, [2, 1, 0], axis=1)
    if order == "GREY":
        weighted = op.Mul(planes, op.floats(np.reshape(GREY, (1, 3, 1, 1))))
        return op.Floor(op.Mul(op.Add(op.ReduceSum(weighted, [1], keepdims=1), 32768.0), 2.0**-16))
    return planes


def _placed(
    op: Emitter,
    picture: ir.Value,
    planes: ir.Value,
    resized: Mapping[str, Any] | None,
    crop: Mapping[str, Any] | None,
    size: tuple[int, int],
) -> ir.Value:
    """Planes [N, C, H, W] resized and cropped at their centre, padded with 0 where they are smaller: [N, C, *size]."""
    if resized is None and crop is None:
        return op.Reshape(planes, [0, 0, *size])
    lengths = [
        op.Cast(op.Squeeze(op.Shape(picture, start=axis, end=axis + 1), [0]), to=int(ir.DataType.DOUBLE))
        for axis in (1, 2)
    ]
    targets = _resized(op, lengths, resized)
    down, across = (
        Line(source, target, _first(op, target, count), count)
        for source, target, count in zip(lengths, targets, size, strict=True)
    )
    how = resized or {"kernel": "nearest", "antialias": False, "round": True}
    fixed = bool(how["antialias"] and how["round"])
    planes = _product(op, planes, weights_of(op, across, how["kernel"], how["antialias"]), fixed, across=True)
    planes = _product(op, planes, weights_of(op, down, how["kernel"], how["antialias"]), fixed, across=False)
    return planes if fixed or not how["round"] else _to_bytes(op, planes)


def _resized(op: Emitter, lengths: Sequence[ir.Value], step: Mapping[str, Any] | None) -> Sequence[ir.Value]:
    """Height and width after the resize, numbers in float64: those of the source where there is none."""
    if step is None:
        return lengths
    if step["rule"] == "exact":
        return [op.constant(float(side), np.float64) for side in step["size"]]
    shorter = op.Min(*lengths)
    side = op.constant(float(step["size"]), np.float64)
    return [op.Floor(op.Div(op.Mul(side, length), shorter)) for length in lengths]


def _first(op: Emitter, target: ir.Value, count: int) -> ir.Value:
    """The line of the resized picture at which its part of `count` lines begins; negative where that is padded.

    As torchvision's center_crop: the padding before is rounded down, a crop's start half to even.
    """
    more = op.Sub(target, op.constant(float(count), np.float64))
    half = op.Mul(more, op.constant(0.5, np.float64))
    zero = op.constant(0.0, np.float64)
    return op.Where(op.Less(more, zero), op.Ceil(half), op.Round(half))


def _product(op: Emitter, planes: ir.Value, weights: ir.Value, fixed: bool, across: bool) -> ir.Value:
    """Planes [N, C, h, w] resampled by weights [lines, pixels] of one axis, to bytes in Pillow's fixed point."""

    def applied(values: ir.Value, matrix: ir.Value) -> ir.Value:
        return op.MatMul(values, op.Transpose(matrix, perm=[1, 0])) if across else op.MatMul(matrix, values)

    if not fixed:
        exact = op.Cast(planes, to=int(ir.DataType.DOUBLE))
        return applied(exact, weights)
    scaled = op.Mul(weights, op.constant(2.0**PILLOW_BITS, np.float64))
    whole = op.Mul(op.Sign(scaled), op.Floor(op.Add(op.Abs(scaled), op.constant(0.5, np.float64))))
    high = op.Floor(op.Mul(whole, op.constant(2.0**-LOW_BITS, np.float64)))
    low = op.Sub(whole, op.Mul(high, op.constant(2.0**LOW_BITS, np.float64)))
    tall, small = (applied(planes, op.Cast(part, to=int(ir.DataType.FLOAT))) for part in (high, low))
    carried = op.Floor(op.Mul(small, 2.0**-LOW_BITS))
    rounded = op.Floor(op.Mul(op.Add(op.Add(tall, carried), 2.0 ** (HIGH_BITS - 1)), 2.0**-HIGH_BITS))
    return op.Clip(rounded, 0.0, 255.0)


def _to_bytes(op: Emitter, planes: ir.Value) -> ir.Value:
    """Whole numbers, halves rounded up, 0 to 255."""
    half, zero, most = (op.constant(number, np.float64) for number in (0.5, 0.0, 255.0))
    return op.Min(op.Max(op.Floor(op.Add(planes, half)), zero), most)


def _valued(op: Emitter, planes: ir.Value, steps: Mapping[str, Mapping[str, Any]]) -> ir.Value:
    """The numbers that the network takes, in float64 [N, C, h, w]."""
    values = op.Cast(planes, to=int(ir.DataType.DOUBLE))
    if "scale" in steps:
        values = op.Mul(values, op.constant(float(steps["scale"]["factor"]), np.float64))
    for name, apply in (("mean", op.Sub), ("std", op.Div)):
        if name in steps:
            values = apply(values, op.constant(np.reshape(steps[name]["values"], (1, -1, 1, 1)), np.float64))
    return values


def _seen(op: Emitter, planes: ir.Value, order: str) -> ir.Value:
    shown = op.Clip(op.Round(op.Cast(planes, to=int(ir.DataType.FLOAT))), 0.0, 255.0)
    if order == "GREY":
        shown = op.Concat(shown, shown, shown, axis=1)
    elif order == "BGR":
        shown = op.Gather(shown, [2, 1, 0], axis=1)
    return op.Transpose(shown, perm=[0, 2, 3, 1])
