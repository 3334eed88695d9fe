"""Sampling at computed positions: grids and regions of interest."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxplain.errors import NoGradientError
from onnxplain_export.emitter import Emitter, attribute, ranked_dims
from onnxplain_export.vjp.registry import Cotangents, vjp
from onnxplain_export.vjp.window import spatial_sizes

KERNELS = {
    "nearest": (0, np.array([[1.0]])),
    "linear": (0, np.array([[1.0, 0.0], [-1.0, 1.0]])),
    "cubic": (
        -1,
        np.array([[0.0, 1.0, 0.0, 0.0], [-0.75, 0.0, 0.75, 0.0], [1.5, -2.25, 1.5, -0.75], [-0.75, 1.25, -1.25, 0.75]]),
    ),
}
"""Per mode the first tap's offset from the position below, and [power of t, tap] the taps' weights at t above it."""
ALIASES = {"bilinear": "linear", "bicubic": "cubic"}


@vjp("GridSample")
def grid_sample(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """y = Σ over the taps of w(grid) x[tap]: dx adds w dy up at the taps, d grid = Σ dw/d grid x[tap] dy.

    Border and reflection move every tap inside on its own, which is the same as moving the position.
    """
    x, grid = node.inputs
    sizes = spatial_sizes(node)
    rank = len(sizes)
    points = op.Reshape(grid, [0, -1, rank])  # [N, P, axes], the last axis first
    align, padding = bool(attribute(node, "align_corners", 0)), attribute(node, "padding_mode", "zeros")
    scales = [(size - 1) / 2 if align else size / 2 for size in sizes]
    lanes = []
    for axis, size in enumerate(sizes):
        along = op.Slice(points, [rank - 1 - axis], [rank - axis], [2])
        position = op.Add(op.Mul(along, scales[axis]), (size - 1) / 2)
        lanes.append(taps_along(op, position, size, attribute(node, "mode", "linear"), padding, align))
    taps = Taps(op, lanes, sizes)
    spread = op.Reshape(g, [0, 0, -1])  # [N, C, P]
    dx = taps.added_up(x, spread)
    if not op.wants(grid):
        return dx, None
    slopes = [op.Mul(taps.slope(x, spread, axis), scales[axis]) for axis in reversed(range(rank))]
    return dx, op.Reshape(op.Concat(*slopes, axis=2), op.Shape(grid))


@vjp("AffineGrid")
def affine_grid(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """grid = Θ [p; 1] at the positions p of the identity's grid: dΘ = Σ dy [p; 1]ᵀ."""
    theta, size = node.inputs
    rank = ranked_dims(node, theta)[1]
    if not isinstance(rank, int):
        raise NoGradientError(f"AffineGrid (node {node.name!r}): the number of spatial axes is unknown")
    one_image = op.Concat([1], op.Slice(size, [1], [rank + 2]), axis=0)
    still = op.AffineGrid(
        op.floats(np.eye(rank, rank + 1)[None]), one_image, align_corners=attribute(node, "align_corners", 0)
    )
    positions = op.Pad(op.Reshape(still, [-1, rank]), [0, 0, 0, 1], 1.0)  # [P, axes + 1]
    return op.MatMul(op.Transpose(op.Reshape(g, [0, -1, rank]), perm=[0, 2, 1]), positions), None


@dataclass(frozen=True)
class Along:
    """The taps of all points along one axis, each [N, P, taps]: places, weights, d weights / d position."""

    places: ir.Value
    weights: ir.Value
    slopes: ir.Value


def taps_along(
    op: Emitter, position: ir.Value, size: int, mode: str = "linear", padding: str = "zeros", align: bool = False
) -> Along:
    """The taps of the positions [N, P, 1] (in entries, 0 the first one's middle) along an axis."""
    first, table = KERNELS[ALIASES.get(mode, mode)]
    below = op.Round(position) if len(table) == 1 else op.Floor(position)
    t = op.Sub(position, below)
    weights, slopes = op.floats(table[-1]), op.floats(np.zeros(table.shape[1]))
    for row in table[-2::-1]:
        slopes = op.Add(op.Mul(slopes, t), weights)
        weights = op.Add(op.Mul(weights, t), op.floats(row))
    if len(table) == 1:
        weights, slopes = [op.Expand(value, op.Shape(t)) for value in (weights, slopes)]
    taps = op.Add(op.Cast(op.Clip(below, -1e9, 1e9), to=int(ir.DataType.INT64)), np.arange(table.shape[1]) + first)
    if padding == "zeros":
        inside = op.Cast(op.And(op.GreaterOrEqual(taps, 0), op.Less(taps, size)), to=int(op.float_type))
        weights, slopes = op.Mul(weights, inside), op.Mul(slopes, inside)
    elif padding == "reflection":
        taps = _reflected(op, taps, size, align)
    return Along(op.Max(op.Min(taps, size - 1), 0), weights, slopes)


def _reflected(op: Emitter, taps: ir.Value, size: int, align: bool) -> ir.Value:
    """The taps mirrored at the first and last entries (align) or at their outer edges, as often as needed."""
    period = max(2 * (size - 1), 1) if align else 2 * size
    turn = op.Mod(taps, period)
    return op.Min(turn, op.Sub(period if align else period - 1, turn))


@dataclass(frozen=True)
class Taps:
    """Where P points of each image read, with every combination of the taps along the axes of `sizes`."""

    op: Emitter
    lanes: Sequence[Along]
    sizes: tuple[int, ...]

    @cached_property
    def places(self) -> ir.Value:
        """The places counted through all axes, [N, P, taps]."""
        total = self.lanes[0].places
        for lane, size in zip(self.lanes[1:], self.sizes[1:], strict=True):
            total = self._paired("Add", self.op.Mul(total, size), lane.places)
        return total

    def added_up(self, x: Any, g: ir.Value) -> ir.Value:
        """The weighted g [N, C, P] added up at the taps, in the shape of x."""
        op = self.op
        parts = op.Mul(op.Unsqueeze(g, [3]), op.Unsqueeze(self._product([lane.weights for lane in self.lanes]), [1]))
        flat = op.Reshape(parts, [0, 0, -1])
        rows = op.Expand(op.Unsqueeze(op.Reshape(self.places, [0, -1]), [1]), op.Shape(flat))
        zeros = op.zeros_like(op.Reshape(x, [0, 0, -1]))
        return op.Reshape(op.ScatterElements(zeros, rows, flat, axis=2, reduction="add"), op.Shape(x))

    def slope(self, x: Any, g: ir.Value, axis: int) -> ir.Value:
        """The cotangent [N, P, 1] of the positions along one axis, from that of the values [N, C, P]."""
        op = self.op
        read = op.ReduceSum(op.Mul(self._read(x), op.Unsqueeze(g, [3])), [1], keepdims=0)
        along = self._product([lane.slopes if i == axis else lane.weights for i, lane in enumerate(self.lanes)])
        return op.ReduceSum(op.Mul(read, along), [2], keepdims=1)

    def values(self, x: Any) -> ir.Value:
        """What the points read, [N, C, P]."""
        weights = self.op.Unsqueeze(self._product([lane.weights for lane in self.lanes]), [1])
        return self.op.ReduceSum(self.op.Mul(self._read(x), weights), [3], keepdims=0)

    def _product(self, weights: Sequence[ir.Value]) -> ir.Value:
        total = weights[0]
        for weight in weights[1:]:
            total = self._paired("Mul", total, weight)
        return total

    def _paired(self, operator: str, a: ir.Value, b: ir.Value) -> ir.Value:
        """a [N, P, i] with b [N, P, j]: [N, P, i j]."""
        pairs = getattr(self.op, operator)(self.op.Unsqueeze(a, [3]), self.op.Unsqueeze(b, [2]))
        return self.op.Reshape(pairs, [0, 0, -1])

    def _read(self, x: Any) -> ir.Value:
        """The entries of x at the taps, [N, C, P, taps]."""
        op = self.op
        shape = op.Shape(self.places)
        wanted = op.Concat(op.Slice(shape, [0], [1]), op.Shape(x, start=1, end=2), op.Slice(shape, [1], [3]), axis=0)
        rows = op.Reshape(op.Expand(op.Unsqueeze(self.places, [1]), wanted), [0, 0, -1])
        return op.Reshape(op.GatherElements(op.Reshape(x, [0, 0, -1]), rows, axis=2), wanted)


@vjp("RoiAlign")
def roi_align(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """y = A x Bᵀ in each region, A and B the mean weights of its bilinear samples by row and column: dx = Σ Aᵀ dy B."""
    x, _, images = node.inputs
    if attribute(node, "mode", "avg") != "avg":
        raise NoGradientError(f"RoiAlign (node {node.name!r}): mode 'max' is computed differently by each runtime")
    height, width = spatial_sizes(node)
    rows = _region_weights(op, node, (1, 3), height, "output_height")  # [R, outputs, H]
    columns = _region_weights(op, node, (0, 2), width, "output_width")
    channels = ranked_dims(node, x)[1]
    if x is None or not isinstance(channels, int):
        raise NoGradientError(f"RoiAlign (node {node.name!r}): the number of channels must be known")
    across = op.MatMul(op.Transpose(op.Unsqueeze(rows, [1]), perm=[0, 1, 3, 2]), g)
    regions = op.MatMul(across, op.Unsqueeze(columns, [1]))  # [R, C, H, W]
    numbers = op.Range(0, op.Squeeze(op.Shape(x, start=0, end=1), [0]), 1)
    member = op.Cast(op.Equal(op.Unsqueeze(numbers, [1]), op.Unsqueeze(images, [0])), to=int(op.float_type))
    total = op.MatMul(member, op.Reshape(regions, [-1, channels * height * width]))
    return op.Reshape(total, [-1, channels, height, width]), None, None


def _region_weights(op: Emitter, node: ir.Node, corners: tuple[int, int], size: int, name: str) -> ir.Value:
    """What each entry along one axis counts in each output of each region: [R, outputs, size]."""
    rois, outputs = node.inputs[1], attribute(node, name, 1)
    half_pixel = attribute(node, "coordinate_transformation_mode", "half_pixel") == "half_pixel"
    scaled = op.Sub(op.Mul(rois, float(attribute(node, "spatial_scale", 1.0))), 0.5 if half_pixel else 0.0)
    start, end = (op.Slice(scaled, [corner], [corner + 1], [1]) for corner in corners)  # [R, 1]
    length = op.Sub(end, start)
    step = op.Div(length if half_pixel else op.Max(length, 1.0), float(outputs))
    ratio = attribute(node, "sampling_ratio", 0)
    found = op.Ceil(step) if ratio <= 0 else op.floats([[float(ratio)]])
    count = op.Max(found, 1.0)
    most = op.Cast(op.ReduceMax(count, keepdims=0), to=int(ir.DataType.INT64))
    number = op.Cast(op.Range(0, most, 1), to=int(op.float_type))  # [samples]
    used = op.Cast(op.Less(number, found), to=int(op.float_type))  # [R or 1, samples]
    within = op.Mul(op.Add(number, 0.5), op.Unsqueeze(op.Div(step, count), [2]))  # [R, 1, samples]
    bins = op.floats(np.arange(outputs).reshape(1, -1, 1))
    position = op.Add(op.Add(op.Unsqueeze(start, [2]), op.Mul(bins, op.Unsqueeze(step, [2]))), within)
    inside = op.And(op.GreaterOrEqual(position, -1.0), op.LessOrEqual(position, float(size)))
    share = op.Mul(op.Cast(inside, to=int(op.float_type)), op.Unsqueeze(op.Div(used, count), [1]))
    clipped = op.Unsqueeze(op.Clip(position, 0.0, float(size - 1)), [3])  # [R, outputs, samples, 1]
    near = op.Max(op.Sub(1.0, op.Abs(op.Sub(clipped, op.floats(np.arange(size))))), 0.0)
    return op.ReduceSum(op.Mul(near, op.Unsqueeze(share, [3])), [2], keepdims=0)
