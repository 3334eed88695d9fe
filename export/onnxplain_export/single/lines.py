"""The interpolation matrices of onnxplain.resize, made in a graph from sizes that are known when it runs.

They are in float64, as there: of the 22 binary places that Pillow keeps of a weight, float32 would miss the last.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxplain.resize import SUPPORT
from onnxplain_export.emitter import Emitter

DOUBLE = int(ir.DataType.DOUBLE)


@dataclass(frozen=True)
class Line:
    """`source` pixels become `target`, of which `count` are wanted from `first` on (float64 numbers, but `count`)."""

    source: ir.Value
    target: ir.Value
    first: ir.Value
    count: int


def weights_of(op: Emitter, line: Line, kernel: str, antialias: bool) -> ir.Value:
    """The weights [count, source] in float64; a row of zeros for a pixel beyond the target's ends."""
    number = _Numbers(op)
    wanted = op.Add(op.constant(np.arange(line.count)[:, None], np.float64), line.first)
    inside = op.And(op.GreaterOrEqual(wanted, number(0)), op.Less(wanted, line.target))
    taps = op.Range(number(0), line.source, number(1))
    scale = op.Div(line.source, line.target)
    if kernel == "nearest":
        found = _nearest(op, number, line, wanted, taps, scale)
    else:
        centres = op.Mul(op.Add(wanted, number(0.5)), scale)
        make = _antialiased if antialias else _interpolated
        found = make(op, number, line, centres, taps, kernel)
    return op.Where(inside, found, number(0))


class _Numbers:
    """Constants in float64."""

    def __init__(self, op: Emitter) -> None:
        self._op = op

    def __call__(self, value: float) -> ir.Value:
        return self._op.constant(float(value), np.float64)


def _nearest(op: Emitter, number: _Numbers, line: Line, wanted: ir.Value, taps: ir.Value, scale: ir.Value) -> ir.Value:
    # Added up, not multiplied: see resize.py.
    places = op.Range(number(0), line.target, number(1))
    widths = op.Mul(scale, op.Where(op.Equal(places, number(0)), number(0.5), number(1)))
    pixels = op.Floor(op.CumSum(widths, op.constant(0, np.int64)))
    last = op.Sub(line.target, number(1))
    chosen = op.Cast(op.Max(op.Min(wanted, last), number(0)), to=int(ir.DataType.INT64))
    nearest = op.Min(op.Gather(pixels, chosen, axis=0), op.Sub(line.source, number(1)))
    return op.Where(op.Equal(taps, nearest), number(1), number(0))


def _antialiased(op: Emitter, number: _Numbers, line: Line, centres: ir.Value, taps: ir.Value, kernel: str) -> ir.Value:
    width = op.Max(op.Div(line.source, line.target), number(1))
    support = op.Mul(width, number(SUPPORT[kernel]))
    centres = op.Min(op.Max(centres, number(0)), line.source)
    middle = op.Add(centres, number(0.5))
    first = op.Floor(op.Sub(middle, support))
    past = op.Floor(op.Add(middle, support))
    distance = op.Div(op.Add(op.Sub(taps, centres), number(0.5)), width)
    near = op.And(op.GreaterOrEqual(taps, first), op.Less(taps, past))
    weights = op.Where(near, _kernel(op, number, kernel, -0.5)(distance), number(0))
    total = op.ReduceSum(weights, [1], keepdims=1)
    return op.Div(weights, op.Where(op.Equal(total, number(0)), number(1), total))


def _interpolated(
    op: Emitter, number: _Numbers, line: Line, centres: ir.Value, taps: ir.Value, kernel: str
) -> ir.Value:
    positions = op.Sub(centres, number(0.5))
    first, last = op.Floor(positions), op.Sub(line.source, number(1))
    shape = _kernel(op, number, kernel, -0.75)
    total: Any = None
    for offset in (0, 1) if kernel == "bilinear" else (-1, 0, 1, 2):
        tap = op.Add(first, number(offset))
        weight = shape(op.Sub(positions, tap))
        read = op.Min(op.Max(tap, number(0)), last)
        part = op.Where(op.Equal(taps, read), weight, number(0))
        total = part if total is None else op.Add(total, part)
    return total


def _kernel(op: Emitter, number: _Numbers, kernel: str, a: float) -> Callable[[ir.Value], ir.Value]:
    """The triangle, or the cubic kernel with slope `a`, at distances in pixels."""

    def triangle(x: ir.Value) -> ir.Value:
        return op.Max(op.Sub(number(1), op.Abs(x)), number(0))

    def cubic(x: ir.Value) -> ir.Value:
        x = op.Abs(x)
        square = op.Mul(x, x)
        near = op.Add(op.Mul(op.Sub(op.Mul(number(a + 2), x), number(a + 3)), square), number(1))
        far = op.Sub(op.Mul(op.Add(op.Mul(op.Sub(x, number(5)), x), number(8)), x), number(4))
        outer = op.Where(op.Less(x, number(2)), op.Mul(far, number(a)), number(0))
        return op.Where(op.Less(x, number(1)), near, outer)

    return triangle if kernel == "bilinear" else cubic
