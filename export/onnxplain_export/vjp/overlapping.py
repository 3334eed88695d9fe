"""Max pools of 3 by 3 at strides of 2, in the layout that onnxruntime's CPU kernels for convolutions work in.

Slice, Pad, Equal and Sub leave that layout, and the first two run on one thread. Here a convolution of one tap picks
what the windows read there, and with the maximum added and a steep HardSigmoid it is one operator that says whether
it is less. The even and odd rows and columns of the gradient are computed apart; in the end they interleave.

Numbers must be finite, and equal or more than 1e-30 apart. What is compared has all come through a convolution, so that
one which rounds (to TF32, to bfloat16) rounds either side alike: numbers that become equal then count as equal.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxplain_export.emitter import Emitter, is_constant, ranked_dims
from onnxplain_export.origins import known
from onnxplain_export.vjp.activation import positive
from onnxplain_export.vjp.phases import FIRST, LAST
from onnxplain_export.vjp.window import Lane, Window

BLOCK = 16
"""Channels that lie together in the layout; pools of other numbers of channels leave it."""

FINITE = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "Relu", "Sigmoid", "Tanh", "Softmax"})
"""Operators behind which an infinity before them isn't to be expected, unless the network itself overflows."""

Pair = tuple[int, int]
"""One number for rows and one for columns."""


def stays_blocked(op: Emitter, node: ir.Node, window: Window, lanes: Sequence[Lane], masked: bool) -> bool:
    """Whether this form serves a MaxPool.

    It takes padding for zeros. So windows may reach it only if the cotangent is `masked`: 0 where the maximum is 0 or
    less.
    """
    if op.is_half or window.kernel != (3, 3) or window.strides != (2, 2) or max(window.dilations) > 1:
        return False
    channels: Any = ranked_dims(node, node.inputs[0])[1]
    if not isinstance(channels, int) or channels % BLOCK:
        return False
    if any(lane.begin not in (0, 1) for lane in lanes):
        return False
    if _reads_infinities(node.inputs[0]):
        return False
    return masked or all(lane.inside(offset) == (0, lane.count) for lane in lanes for offset in lane.offsets)


def through_row_maxima(op: Emitter, node: ir.Node, lanes: Sequence[Lane], g: ir.Value) -> ir.Value:
    """The gradient of the pool's input: `g` at the window's first maximum in row-major order.

    A window reads three rows. The first is the last of the window above: what they get is added up before it is given
    to columns, by the maxima of the rows. In the middle row the maximum can only be the window's own.
    """
    channels: Any = ranked_dims(node, node.inputs[0])[1]
    pool = _Pool(op, node.inputs[0], channels, _framed(lanes[0]), _framed(lanes[1]))
    added = [framed.count - lane.count for framed, lane in zip((pool.rows, pool.columns), lanes, strict=True)]
    y: ir.Value = pool.framed(node.outputs[0], added)
    g = pool.framed(g, added) if any(added) else g
    best = pool.row_maxima()
    first, rest = pool.divided(g, y, pool.tap(best, (0, 0), (2, 1), [1, 0, 0, 0], factor=-1.0))
    *middle, last = pool.claims(rest, y, 1, 3)
    return pool.interleaved(middle, pool.claims(pool.joined(first, last, 0), best, 2, 2))


def _reads_infinities(x: ir.Value | None) -> bool:
    """Whether an infinite constant may get into x, as that which some pad or mask with, or who knows what.

    0·∞ is no number, and a convolution of one tap has zeros around it.
    """
    waiting, seen = [x], set[ir.Value]()
    while waiting:
        value = waiting.pop()
        if value is None or value in seen:
            continue
        seen.add(value)
        constant, node = known(value), value.producer()
        if constant is not None and constant.content.dtype.kind == "f" and not np.isfinite(constant.content).all():
            return True
        if node is None or node.op_type in FINITE:
            continue
        if node.op_type == "Pad" and len(node.inputs) > 2 and node.inputs[2] and not is_constant(node.inputs[2]):
            return True
        waiting += node.inputs
    return False


@dataclass(frozen=True)
class _Pool:
    """The pool's input x [N, C, H, W], and its windows: all begin before it."""

    op: Emitter
    x: Any
    channels: int
    rows: Lane
    columns: Lane

    def tap(
        self, x: ir.Value, at: Pair, kernel: Pair, pads: Sequence[int], strides: Pair = (1, 1), factor: float = 1.0
    ) -> ir.Value:
        """`factor` times what one tap of a window reads, channel by channel; zeros in the padding."""
        weight = np.zeros((self.channels, 1, *kernel))
        weight[:, :, at[0], at[1]] = factor
        options = {"group": self.channels, "kernel_shape": kernel, "strides": strides, "pads": pads}
        return self.op.Conv(x, self.op.floats(weight), **options)

    def framed(self, value: Any, added: Sequence[int]) -> ir.Value:
        """One number for each window, with zeros for so many rows and columns of them that were added."""
        return self.tap(value, (0, 0), (1, 1), [*added, 0, 0])

    def minus_tap(self, row: int, column: int) -> ir.Value:
        """−x where the windows' taps of this row and column read it."""
        (top, tall, above, below), (left, wide, before, after) = _reach(row, self.rows), _reach(column, self.columns)
        return self.tap(self.x, (top, left), (tall, wide), [above, before, below, after], (2, 2), -1.0)

    def row_maxima(self) -> ir.Value:
        """The maximum over each window's columns, in its last row."""
        lane, x, stride = self.columns, self.x, 2
        at, kernel, begin, end = _reach(2, self.rows)
        if (at, kernel, begin, end) != (0, 1, 0, 0):
            x, stride = self.tap(x, (at, 0), (kernel, 1), [begin, 0, end, 0], (2, 1)), 1
        pads = [0, lane.begin, 0, max(lane.needed - lane.begin - lane.size, 0)]
        best = self.op.MaxPool(x, kernel_shape=[1, 3], strides=[stride, 2], pads=pads)
        return self.framed(best, (0, 0))

    def divided(self, g: ir.Value, maximum: ir.Value, minus: ir.Value) -> tuple[ir.Value, ir.Value]:
        """`g` where a number, of which `minus` the negative is given, is the maximum, and `g` elsewhere."""
        op = self.op
        rest = op.Mul(g, positive(op, op.Add(minus, maximum)))
        return op.Add(self.tap(rest, (0, 0), (1, 1), [0, 0, 0, 0], factor=-1.0), g), rest

    def claims(self, g: ir.Value, maximum: ir.Value, row: int, columns: int) -> list[ir.Value]:
        """`g` divided among so many columns of a row, each element to the first that is the maximum, and the rest."""
        parts = []
        for column in range(columns):
            part, g = self.divided(g, maximum, self.minus_tap(row, column))
            parts.append(part)
        return [*parts, g]

    def joined(self, first: ir.Value, last: ir.Value, axis: int) -> ir.Value:
        """What each window's last row (axis 0) or column gets: from it, and from the next window, whose first it is."""
        kernel, pads = ((2, 1), [0, 0, 1, 0]) if axis == 0 else ((1, 2), [0, 0, 0, 1])
        return self.op.Add(self.tap(first, (1 - axis, axis), kernel, pads), last)

    def interleaved(self, middle: Sequence[ir.Value], outer: Sequence[ir.Value]) -> ir.Value:
        """The gradient, from the parts of the windows' three columns in their middle and in their last rows."""
        op, lanes = self.op, (self.rows, self.columns)
        rows = []
        for first, second, last in (middle, outer):
            pair = op.Transpose(op.Concat(second, self.joined(first, last, 1), axis=1), perm=LAST)
            rows.append(op.Reshape(pair, [-1, lanes[0].count, 1, 2 * lanes[1].count * self.channels]))
        places = op.Reshape(op.Concat(*rows, axis=2), [-1, *(2 * lane.count for lane in lanes), self.channels])
        start = [lane.begin - 1 for lane in lanes]
        missing = [lane.size + at - 2 * lane.count for at, lane in zip(start, lanes, strict=True)]
        whole = op.Transpose(places, perm=FIRST)
        if not any(start) and not any(missing):
            return whole
        kernel = tuple(1 + at - min(miss, 0) for at, miss in zip(start, missing, strict=True))
        return self.tap(
            whole, (start[0], start[1]), (kernel[0], kernel[1]), [0, 0, *(max(miss, 0) for miss in missing)]
        )


def _framed(lane: Lane) -> Lane:
    """With one window before the first where that begins at the input's first position.

    Windows that begin outside are read by taps without any space before them, in fewer steps.
    """
    return lane if lane.begin else replace(lane, begin=2, count=lane.count + 1)


def _reach(offset: int, lane: Lane) -> tuple[int, int, int, int]:
    """The tap, the kernel and the pads of a convolution that reads what all windows have at `offset`."""
    start = offset - lane.begin
    at, begin = max(start, 0), max(-start, 0)
    missing = 2 * (lane.count - 1) + at + 1 - begin - lane.size
    return at, at + max(-missing, 1), begin, max(missing, 0)
