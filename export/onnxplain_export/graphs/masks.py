"""Masks made inside a graph from the step table: windows, random cells (RISE), the states of an image's segments.

Every maker returns [N or 1, K, height, width]; what 1 means is the graph's.
"""

import numpy as np
import onnx_ir as ir

from onnxplain.masks import MOST_CELLS, PLACE_BITS
from onnxplain_export.emitter import Emitter
from onnxplain_export.graphs.random import uniform

Size = tuple[int, int]


def windows(op: Emitter, steps: ir.Value, size: Size) -> ir.Value:
    """1 where top ≤ row < bottom and left ≤ column < right, else 0."""
    height, width = size
    top, left, bottom, right = (_column(op, steps, index) for index in range(4))
    row = op.floats(np.arange(height).reshape(height, 1))
    column = op.floats(np.arange(width).reshape(1, width))
    rows = op.And(op.LessOrEqual(top, row), op.Less(row, bottom))
    columns = op.And(op.LessOrEqual(left, column), op.Less(column, right))
    return op.Cast(op.And(rows, columns), to=op.float_type)


def random_cells(op: Emitter, steps: ir.Value, seed: ir.Value, size: Size) -> ir.Value:
    """The masks of RISE, as `onnxplain.masks.random_masks` describes them.

    Bilinear interpolation is R·cells·Cᵀ with tent weights R [H, cells] and C [W, cells]; cells beyond the number that a
    step has lie outside every tent.
    """
    side = MOST_CELLS
    draw = op.Gather(steps, op.constant(0, np.int64), axis=2)
    probability, cells = _column(op, steps, 1), _column(op, steps, 2)
    noise = uniform(op, seed, draw, (side * side + 2,))
    on = op.Less(op.Slice(noise, [0], [side * side], [2]), op.Squeeze(probability, [3]))
    kept = op.Abs(op.Sub(op.Cast(on, to=op.float_type), _turned_over(op, steps)))
    grid = op.Reshape(kept, [0, 0, side, side])
    tents = []
    for axis, length in enumerate(size):
        start = side * side + axis
        offset = op.Unsqueeze(op.Slice(noise, [start], [start + 1], [2]), [3])
        shift = op.Floor(op.Mul(offset, _column(op, steps, 5 + axis)))
        tents.append(_tents(op, shift, _column(op, steps, 3 + axis), cells, length))
    rows, columns = tents
    return op.MatMul(op.MatMul(rows, grid), op.Transpose(columns, perm=[0, 1, 3, 2]))


def _turned_over(op: Emitter, steps: ir.Value) -> ir.Value:
    """1 for every cell that is turned over, [N or 1, K, cells], as `onnxplain.masks.turned_over` describes them."""
    row, flip = (op.Gather(steps, op.constant([index], np.int64), axis=2) for index in (7, 8))
    halves = op.Floor(op.Mul(row, op.floats(2.0 ** -np.arange(len(PLACE_BITS)))))
    bits = op.Sub(halves, op.Mul(op.Floor(op.Mul(halves, 0.5)), 2.0))
    common = op.Add(op.MatMul(bits, op.floats(PLACE_BITS)), flip)
    return op.Sub(common, op.Mul(op.Floor(op.Mul(common, 0.5)), 2.0))


def _tents(op: Emitter, shift: ir.Value, scale: ir.Value, cells: ir.Value, length: int) -> ir.Value:
    """The weight of every cell for every pixel, [N or 1, K, length, MOST_CELLS]: half-pixel centres, edges repeated."""
    centre = op.floats((np.arange(length) + 0.5).reshape(length, 1))
    place = op.Sub(op.Div(op.Add(centre, shift), scale), 0.5)
    inside = op.Min(op.Max(place, 0.0), op.Sub(cells, 1.0))
    distance = op.Abs(op.Sub(inside, op.floats(np.arange(MOST_CELLS).reshape(1, MOST_CELLS))))
    return op.Max(op.Sub(1.0, distance), 0.0)


def painted(op: Emitter, states: ir.Value, segments: ir.Value, size: Size) -> ir.Value:
    """Every pixel's state: states [N or 1, K, S] of the segments that `segments` [N or 1, height, width] numbers."""
    pixels = op.Reshape(segments, [0, 1, size[0] * size[1]])
    index = op.Expand(pixels, op.Concat(op.Shape(states, start=0, end=2), [1], axis=0))
    spread = op.Expand(states, op.Concat(op.Shape(segments, start=0, end=1), [1, 1], axis=0))
    return op.Reshape(op.GatherElements(spread, index, axis=2), [0, 0, *size])


def _column(op: Emitter, steps: ir.Value, index: int) -> ir.Value:
    """One column of the step table as [N or 1, K, 1, 1]."""
    return op.Unsqueeze(op.Gather(steps, op.constant(index, np.int64), axis=2), [2, 3])
