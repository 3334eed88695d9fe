"""Pools. Every window here is separable: a pool along all axes is one pool after another, the last axis first."""

from dataclasses import replace
from functools import reduce
from itertools import pairwise
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxplain.errors import NoGradientError
from onnxplain_export.emitter import Emitter, attribute, constant_of, ranked_dims
from onnxplain_export.vjp.activation import only_read_by_max_pools, positive
from onnxplain_export.vjp.joined import joined_parts
from onnxplain_export.vjp.overlapping import stays_blocked, through_row_maxima
from onnxplain_export.vjp.registry import Cotangents, vjp
from onnxplain_export.vjp.window import Lane, Window, lanes_of, spatial_sizes, window_of


@vjp("MaxPool")
def max_pool(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """dx = Σ over the windows of dy at the window's first maximum in row-major order, as onnxruntime and torch do.

    Of joined channels each part by itself: so the gradient is parted where it is smaller, and ReLUs before the join
    leave their masks to the pool.
    """
    parts = joined_parts(op, node.inputs[0], "MaxPool")
    if not parts:
        return (_at_first_maxima(op, node, g),)
    shapes = [ranked_dims(node, part) for part in parts]
    pieces = op.Split(g, op.constant([shape[1] for shape in shapes], np.int64), axis=1, outputs=len(parts))
    found = []
    for part, piece in zip(parts, pieces, strict=True):
        dx = _at_first_maxima(op, _pool_of(op, node, part), piece)
        dx.shape, dx.type = part.shape, part.type
        found.append(dx)
    return (op.Concat(*found, axis=1),)


@vjp("AveragePool")
def average_pool(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """dx = Σ over the windows of dy / (positions that the window counts)."""
    counts = _counts(lanes_of(node), bool(attribute(node, "count_include_pad", 0)))
    return (_sum_over_windows(op, node, g, 1 / counts),)


@vjp("LpPool")
def lp_pool(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """y = (Σ |x|ᵖ)^(1/p): dx = sign(x) |x|^(p-1) Σ over the windows of dy y^(1-p), 0 where y = 0."""
    inner, outer = _lp_factors(op, node)
    return (op.Mul(inner, _sum_over_windows(op, node, op.Mul(g, outer), np.ones(()))),)


@vjp("GlobalAveragePool")
def global_average_pool(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """dx = dy / (number of positions), everywhere."""
    x: Any = node.inputs[0]
    return (op.expand_like(op.Mul(g, float(1 / np.prod(spatial_sizes(node)))), x),)


@vjp("GlobalMaxPool")
def global_max_pool(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """dx = dy at the maximum; several equal maxima share it evenly, as ReduceMax's rule and torch.amax do."""
    axes = list(range(2, 2 + len(spatial_sizes(node))))
    best = op.Cast(op.Equal(node.inputs[0], node.outputs[0]), to=op.float_type)
    return (op.Mul(best, op.Div(g, op.ReduceSum(best, axes, keepdims=1))),)


@vjp("GlobalLpPool")
def global_lp_pool(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """y = (Σ |x|ᵖ)^(1/p): dx = sign(x) |x|^(p-1) dy y^(1-p), 0 where y = 0."""
    inner, outer = _lp_factors(op, node)
    return (op.Mul(inner, op.Mul(g, outer)),)


@vjp("MaxUnpool")
def max_unpool(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """Each entry gets the g of the place that it was put at; the places are counted through the whole output."""
    window = window_of(node)
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        raise NoGradientError(f"MaxUnpool (node {node.name!r}): runtimes disagree on the indices under output_shape")
    if any(kernel > stride for kernel, stride in zip(window.kernel, window.strides, strict=True)):
        raise NoGradientError(f"MaxUnpool (node {node.name!r}): windows that overlap may write one place twice")
    return op.Gather(op.Reshape(g, [-1]), node.inputs[1]), None


@vjp("Col2Im")
def col2im(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """y adds the columns up at the places of their windows: dx reads the windows of g, one column each."""
    x, image, block = node.inputs
    sizes, kernel = constant_of(image), constant_of(block)
    if x is None or sizes is None or kernel is None:
        raise NoGradientError(f"Col2Im (node {node.name!r}): the shapes of image and block must be constants")
    rank = len(sizes)
    pads = attribute(node, "pads", [0] * (2 * rank))
    strides, dilations = attribute(node, "strides", [1] * rank), attribute(node, "dilations", [1] * rank)
    taken = op.Pad(g, [0, 0, *pads[:rank], 0, 0, *pads[rank:]])
    for axis in reversed(range(rank)):
        taps = np.arange(kernel[axis]) * dilations[axis]
        room = sizes[axis] + pads[axis] + pads[rank + axis] - taps[-1] - 1
        starts = np.arange(room // strides[axis] + 1) * strides[axis]
        taken = op.Gather(taken, op.constant(taps[:, None] + starts, np.int64), axis=2 + axis)
    order = [0, 1, *range(2, 2 + 2 * rank, 2), *range(3, 3 + 2 * rank, 2)]
    return op.reshape_like(op.Transpose(taken, perm=order), x), None, None


def _pool_of(op: Emitter, node: ir.Node, part: ir.Value) -> ir.Node:
    """The same pool of one part of its input's channels."""
    y = op.MaxPool(part, **{name: attribute(node, name) for name in node.attributes})
    rows, _, *sizes = ranked_dims(node, node.outputs[0])
    y.shape, y.type = ir.Shape([rows, ranked_dims(node, part)[1], *sizes]), node.outputs[0].type
    maker: Any = y.producer()
    return maker


def _at_first_maxima(op: Emitter, node: ir.Node, g: ir.Value) -> ir.Value:
    """The gradient of a MaxPool's input.

    One axis at a time: the first maximum in row-major order is the first one along the last axis, in the first row that
    holds it, and so on upwards. The Indices output isn't used: it costs onnxruntime its fast path.
    """
    window, lanes = window_of(node), lanes_of(node)
    masked = only_read_by_max_pools(op, node.inputs[0])  # then that ReLU's rule leaves its mask to us
    if masked:
        g = op.Mul(g, positive(op, node.outputs[0]))
    if stays_blocked(op, node, window, lanes, masked):
        return through_row_maxima(op, node, lanes, g)
    stages: list[Any] = [node.inputs[0]]
    for lane in reversed(lanes[1:]):
        stages.append(_max_along(op, stages[-1], lane, window))
    stages.append(node.outputs[0])
    channels: Any = ranked_dims(node, node.inputs[0])[1]
    last = window.rank == 2 and isinstance(channels, int)
    if last:
        g, *stages = [op.Transpose(value, perm=[0, 2, 3, 1]) for value in (g, *stages)]
        lanes = [replace(lane, axis=lane.axis - 1, rest=(*lane.rest, channels)) for lane in lanes]
    for lane, (y, x) in zip(lanes, pairwise(reversed(stages)), strict=True):
        g = _spread(op, _claims(op, _taps(op, x, lane), y, g), lane)
    return op.Transpose(g, perm=[0, 3, 1, 2]) if last else g


def _lp_factors(op: Emitter, node: ir.Node) -> tuple[Any, Any]:
    """sign(x) |x|^(p-1) and y^(1-p), the latter 0 where y = 0."""
    x, y = node.inputs[0], node.outputs[0]
    p = attribute(node, "p", 2)
    if p < 1:
        raise NoGradientError(f"{node.op_type} (node {node.name!r}): p = {p} has no gradient at 0")
    inner = op.Mul(op.Sign(x), op.Pow(op.Abs(x), float(p - 1))) if p != 2 else x
    silent = op.Equal(y, 0.0)
    return inner, op.Where(silent, 0.0, op.Pow(op.Where(silent, 1.0, y), float(1 - p)))


def _max_along(op: Emitter, x: ir.Value, lane: Lane, window: Window) -> ir.Value:
    """The maximum over the window along one axis."""

    def only(number: int, other: int) -> list[int]:
        return [number if axis == lane.axis else other for axis in range(2, 2 + window.rank)]

    return op.MaxPool(
        x,
        kernel_shape=only(lane.kernel, 1),
        strides=only(lane.stride, 1),
        dilations=only(lane.dilation, 1),
        pads=only(lane.begin, 0) + only(lane.end, 0),
        ceil_mode=int(window.ceil),
    )


def _taps(op: Emitter, x: ir.Value, lane: Lane) -> list[ir.Value]:
    """What the windows read first, second, …, where any of them reads the input; the padding is the lowest number."""
    lowest = float(np.finfo(op.float_type.numpy()).min)
    taps = []
    for offset in lane.reading:
        first, past = lane.inside(offset)
        start, end = first * lane.stride + offset - lane.begin, (past - 1) * lane.stride + offset - lane.begin + 1
        tap = (
            x
            if (start, end, lane.stride) == (0, lane.size, 1)
            else op.Slice(x, [start], [end], [lane.axis], [lane.stride])
        )
        taps.append(_surround(op, tap, lane, (first, lane.count - past), lowest))
    return taps


def _claims(op: Emitter, taps: list[ir.Value], y: ir.Value, g: ir.Value) -> list[ir.Value]:
    """`g` divided among the taps: each element goes whole to the first tap equal to `y`, the last takes the rest."""
    claimed = []
    for tap in taps[:-1]:
        part = op.Mul(g, op.Cast(op.Equal(tap, y), to=op.float_type))
        g = op.Sub(g, part)
        claimed.append(part)
    return [*claimed, g]


def _spread(op: Emitter, parts: list[ir.Value], lane: Lane) -> ir.Value:
    """Adds up the parts, one per tap, at the positions that the taps read; the adjoint of `_taps`.

    A tap's positions have one phase, offset mod stride: each phase is a sum of shifted parts, and the phases
    interleave. On onnxruntime that is faster than a transposed convolution with a one-hot kernel.
    """
    blocks = -(-lane.size // lane.stride)
    phases: list[list[ir.Value]] = [[] for _ in range(lane.stride)]
    for offset, part in zip(lane.reading, parts, strict=True):
        first, past = lane.inside(offset)
        shift, phase = divmod(offset - lane.begin, lane.stride)
        there = part if (first, past) == (0, lane.count) else op.Slice(part, [first], [past], [lane.axis])
        phases[phase].append(_surround(op, there, lane, (first + shift, blocks - past - shift), 0.0))
    some = next(phase[0] for phase in phases if phase)
    sums = [reduce(op.Add, phase) if phase else op.zeros_like(some) for phase in phases]
    spread = sums[0]
    if lane.stride > 1:
        spread = op.Concat(*(op.Unsqueeze(total, [lane.axis + 1]) for total in sums), axis=lane.axis + 1)
        spread = op.Reshape(spread, [*[0] * lane.axis, blocks * lane.stride, *lane.rest])
    return spread if blocks * lane.stride == lane.size else op.Slice(spread, [0], [lane.size], [lane.axis])


def _surround(op: Emitter, x: ir.Value, lane: Lane, widths: tuple[int, int], content: float) -> ir.Value:
    """`x` with `content` before and after it along the lane's axis."""
    if widths == (0, 0):
        return x
    lead, trail = [0] * lane.axis, [0] * len(lane.rest)
    return op.Pad(x, [*lead, widths[0], *trail, *lead, widths[1], *trail], content)


def _counts(lanes: list[Lane], include_pads: bool) -> np.ndarray:
    """How many positions the average of each window divides by; what overhangs the end pad never counts."""
    counts = np.ones((), dtype=np.float64)
    for lane in lanes:
        starts = np.arange(lane.count) * lane.stride - lane.begin
        read = starts[:, None] + np.array(lane.offsets)
        first, end = (-lane.begin, lane.size + lane.end) if include_pads else (0, lane.size)
        counts = counts[..., None] * ((read >= first) & (read < end)).sum(axis=1)
    return counts


def _sum_over_windows(op: Emitter, node: ir.Node, g: ir.Value, weights: np.ndarray) -> ir.Value:
    """At each input position the sum of `g` times `weights` over the windows of `node` that read it."""
    window = window_of(node)
    if window.kernel == window.strides and window.rank == 2 and _tiles(node, window):
        scales = op.constant([1, 1, *window.kernel], np.float32)
        options = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        return op.Resize(_scaled(op, g, weights), None, scales, **options)
    mirrored = window.mirrored_pads
    if mirrored is not None and max(window.dilations) == 1:  # dilated, they may exceed the kernel: onnxruntime refuses
        scaled = _scaled(op, g, weights * np.prod(window.kernel))
        return op.AveragePool(scaled, kernel_shape=window.kernel, pads=mirrored, count_include_pad=1)
    g = _scaled(op, g, weights)
    for lane in lanes_of(node):
        g = _spread(op, [g] * len(lane.reading), lane)
    return g


def _tiles(node: ir.Node, window: Window) -> bool:
    """Whether the windows cover every position once."""
    sizes = zip(spatial_sizes(node), window.kernel, window.spans, strict=True)
    return not any(window.pads) and all(size % kernel == 0 and kernel == span for size, kernel, span in sizes)


def _scaled(op: Emitter, g: ir.Value, factors: np.ndarray) -> ir.Value:
    """`g` times `factors`, by a scalar or not at all where that says the same."""
    if factors.min() < factors.max():
        return op.Mul(g, op.floats(factors))
    return g if factors.min() == 1 else op.Mul(g, float(factors.min()))
