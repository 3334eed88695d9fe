"""The adjoint of a convolution with strides of 2, without ConvTranspose.

ConvTranspose leaves the layout of onnxruntime's fast kernels, and adds its columns up on one thread. Of the input
positions with one remainder modulo the stride, each is read by the same taps: their gradient is an ordinary convolution
of dy with those taps of the weight, and the phases' results interleave. A depthwise convolution costs little more than
to move its numbers; there one convolution of dy with zeros between its places is faster.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from onnxplain_export.emitter import Emitter, is_constant, ranked_dims
from onnxplain_export.vjp.window import Lane, Window, spatial_sizes

FEW = 4
"""Of so few channels, the colours of a picture, all phases are the channels of one convolution."""

LAST, FIRST = [0, 2, 3, 1], [0, 3, 1, 2]
"""Channels last, where whole runs of them are moved, and first again: onnxruntime makes neither a pass of its own."""


@dataclass(frozen=True)
class Phase:
    """Input positions 2·a + their number: the taps `first`, first + 2, … that read them, and dy padded for those.

    A phase of `count` 0 taps gets no gradient.
    """

    first: int
    count: int
    begin: int
    end: int


def halves(node: ir.Node, window: Window) -> bool:
    """Whether a convolution with a constant weight moves by two rows and columns."""
    return window.strides == (2, 2) and max(window.dilations) == 1 and is_constant(node.inputs[1])


def phases(lane: Lane) -> list[Phase]:
    """The phases along one axis, both of the length of the longer one."""
    blocks = -(-lane.size // 2)
    found = []
    for number in range(2):
        first = (number + lane.begin) % 2
        count = max(-(-(lane.kernel - first) // 2), 0)
        shift = (number + lane.begin - first) // 2
        found.append(Phase(first, count, count - 1 - shift, blocks + shift - lane.count))
    return found


def through_phases(op: Emitter, node: ir.Node, window: Window, g: ir.Value) -> ir.Value | None:
    """The gradient of the input of a full convolution; None where it would need negative padding."""
    lanes = window.lanes(spatial_sizes(node))
    rows, columns = (phases(lane) for lane in lanes)
    if any(min(phase.begin, phase.end) < 0 for phase in (*rows, *columns) if phase.count):
        return None
    channels: Any = ranked_dims(node, node.inputs[0])[1]
    turned = op.Transpose(node.inputs[1], perm=[1, 0, 2, 3])
    if channels <= FEW and all(phase.count for phase in (*rows, *columns)):
        sizes = (-(-lanes[0].size // 2), -(-lanes[1].size // 2))
        return _cropped(op, _as_channels(op, turned, g, window, rows, columns, channels, sizes), lanes)
    parts = [[_phase(op, turned, g, window, row, column) for column in columns] for row in rows]
    return _cropped(op, _interleaved(op, parts, channels, lanes), lanes)


def with_zeros(op: Emitter, node: ir.Node, window: Window, g: ir.Value) -> tuple[ir.Value, list[int]] | None:
    """dy with zeros between its places, and the padding with which the flipped weight makes the gradient of it.

    None where the padding would be negative.
    """
    lanes = window.lanes(spatial_sizes(node))
    begin = [lane.kernel - 1 - lane.begin for lane in lanes]
    end = [lane.size - 2 * lane.count + lane.begin for lane in lanes]
    if min(*begin, *end) < 0:
        return None
    channels: Any = ranked_dims(node, node.outputs[0])[1]
    height, width = (lane.count for lane in lanes)
    places = op.Reshape(op.Transpose(g, perm=LAST), [-1, height, 1, width, channels])
    spread = op.Pad(places, [0, 0, 0, 0, 0, 0, 0, 1, 0, channels])
    return op.Transpose(op.Reshape(spread, [-1, 2 * height, 2 * width, channels]), perm=FIRST), [*begin, *end]


def _phase(op: Emitter, weight: ir.Value, g: ir.Value, window: Window, row: Phase, column: Phase) -> ir.Value | None:
    """The gradient at the positions of one phase of rows and one of columns."""
    if not row.count or not column.count:
        return None
    pads = [row.begin, column.begin, row.end, column.end]
    return op.Conv(g, _taps(op, weight, window, row, column), kernel_shape=[row.count, column.count], pads=pads)


def _taps(op: Emitter, weight: ir.Value, window: Window, row: Phase, column: Phase) -> ir.Value:
    """The phase's taps of the weight, the last one first."""
    if window.kernel == (1, 1):
        return weight
    last = [phase.first + 2 * (phase.count - 1) for phase in (row, column)]
    before = [phase.first - kernel - 1 for phase, kernel in zip((row, column), window.kernel, strict=True)]
    return op.Slice(weight, last, before, [2, 3], [-2, -2])


def _as_channels(
    op: Emitter,
    weight: ir.Value,
    g: ir.Value,
    window: Window,
    rows: Sequence[Phase],
    columns: Sequence[Phase],
    channels: int,
    sizes: tuple[int, int],
) -> ir.Value:
    """All phases as the channels of one convolution, whose window holds all of theirs, then laid out as positions.

    In two moves, each of one axis, which onnxruntime has fast kernels for: the column phases, which are outermost, go
    inside their columns, then whole rows find their places. DepthToSpace is one general transpose on one thread.
    """
    begin = [max(phase.begin for phase in along) for along in (rows, columns)]
    end = [max(phase.end for phase in along) for along in (rows, columns)]
    taps = []
    for column, row in itertools.product(columns, rows):
        before = [begin[0] - row.begin, begin[1] - column.begin]
        after = [end[0] - row.end, end[1] - column.end]
        taps.append(op.Pad(_taps(op, weight, window, row, column), [0, 0, *before, 0, 0, *after]))
    height, width = sizes
    planes = op.Conv(g, op.Concat(*taps, axis=0), pads=[*begin, *end])
    columns_last = op.Transpose(op.Reshape(planes, [-1, 2, 2 * channels * height * width]), perm=[0, 2, 1])
    rows_apart = op.Reshape(columns_last, [-1, 2, channels * height, 2 * width])
    return op.Reshape(op.Transpose(rows_apart, perm=[0, 2, 1, 3]), [-1, channels, 2 * height, 2 * width])


def _interleaved(op: Emitter, parts: list[list[ir.Value | None]], channels: int, lanes: Sequence[Lane]) -> ir.Value:
    """The phases [N, C, h, w] side by side."""
    height, width = (-(-lane.size // 2) for lane in lanes)
    rows = [_row(op, row, (height, width, channels)) for row in parts]
    there = [row for row in rows if row is not None]
    whole = op.Concat(*there, axis=2) if len(there) > 1 else there[0]
    if len(there) < len(rows):
        first = int(rows[0] is None)
        whole = op.Pad(whole, [0, 0, first, 0, 0, 0, 1 - first, 0])
    return op.Transpose(op.Reshape(whole, [-1, 2 * height, 2 * width, channels]), perm=FIRST)


def _row(op: Emitter, parts: list[ir.Value | None], sizes: tuple[int, int, int]) -> ir.Value | None:
    """The column phases of one row phase: [N, h, 1, w·2·C]."""
    height, width, channels = sizes
    there = [part for part in parts if part is not None]
    if not there:
        return None
    last = op.Transpose(there[0] if len(there) == 1 else op.Concat(*there, axis=1), perm=LAST)
    if len(there) < len(parts):
        first = int(parts[0] is None)
        last = op.Pad(last, [0, 0, 0, first * channels, 0, 0, 0, (1 - first) * channels])
    return op.Reshape(last, [-1, height, 1, 2 * width * channels])


def _cropped(op: Emitter, x: ir.Value, lanes: Sequence[Lane]) -> ir.Value:
    """Without the positions past the end of an odd size."""
    wide = [lane for lane in lanes if lane.size % 2]
    if not wide:
        return x
    return op.Slice(x, [0] * len(wide), [lane.size for lane in wide], [lane.axis for lane in wide])
