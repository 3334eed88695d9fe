"""Deformable convolution: a convolution whose taps are read at computed positions."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxplain.errors import NoGradientError
from onnxplain_export.emitter import Emitter, attribute, ranked_dims
from onnxplain_export.vjp.registry import Cotangents, vjp
from onnxplain_export.vjp.sampling import Taps, taps_along
from onnxplain_export.vjp.window import spatial_sizes, window_of


@vjp("DeformConv")
def deform_conv(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """y = W (m s) + b with the samples s [N, C, taps, outputs] of x at tap + offset, m the mask.

    ds = m Wᵀ dy goes to x and to the offsets as GridSample's does; dm = Σ s Wᵀ dy, dW = Σ dy (m s)ᵀ, db = Σ dy.
    """
    x, weight, offset, bias, mask = (*node.inputs, None, None)[:5]
    sizes = _sizes(node)
    columns = _matrix_product(op, op.Transpose(_weight(op, weight, sizes), perm=[0, 2, 1]), g, sizes)
    images = op.Reshape(x, [-1, sizes.channels // sizes.offsets, *sizes.image])
    factors = None if mask is None else op.Reshape(mask, [-1, 1, sizes.taps * sizes.outputs])
    spread = columns if factors is None else op.Mul(columns, factors)
    taps = _taps(op, node, sizes)
    dx = op.reshape_like(taps.added_up(images, spread), x) if x is not None and op.wants(x) else None
    d_offset = d_mask = d_weight = None
    if op.wants(offset):
        slopes = [op.Reshape(taps.slope(images, spread, axis), [-1, sizes.taps, 1, sizes.outputs]) for axis in (0, 1)]
        d_offset = op.Reshape(op.Concat(*slopes, axis=2), op.Shape(offset))
    if op.wants(mask):
        d_mask = op.Reshape(op.ReduceSum(op.Mul(columns, taps.values(images)), [1], keepdims=0), op.Shape(mask))
    if op.wants(weight):
        samples = taps.values(images) if factors is None else op.Mul(taps.values(images), factors)
        grouped = op.Reshape(samples, [-1, sizes.group, sizes.channels // sizes.group * sizes.taps, sizes.outputs])
        product = op.MatMul(_grouped(op, g, sizes), op.Transpose(grouped, perm=[0, 1, 3, 2]))
        d_weight = op.Reshape(op.ReduceSum(product, [0], keepdims=0), op.Shape(weight))
    d_bias = op.ReduceSum(g, [0, 2, 3], keepdims=0) if op.wants(bias) else None
    return [dx, d_weight, d_offset, d_bias, d_mask][: len(node.inputs)]


@dataclass(frozen=True)
class _Sizes:
    """The numbers of a deformable convolution; `offsets` counts the groups of channels that share their offsets."""

    channels: int
    filters: int
    image: tuple[int, ...]
    taps: int
    outputs: int
    group: int
    offsets: int


def _sizes(node: ir.Node) -> _Sizes:
    x, weight, y = node.inputs[0], node.inputs[1], node.outputs[0]
    known = (ranked_dims(node, x)[1], ranked_dims(node, weight)[0], *ranked_dims(node, y)[2:])
    channels, filters, *outputs = (size for size in known if isinstance(size, int))
    image = spatial_sizes(node)
    if len(known) != 4 or len(outputs) != 2 or len(image) != 2:
        raise NoGradientError(f"DeformConv (node {node.name!r}): two spatial axes of known sizes have a rule")
    taps, groups = math.prod(window_of(node).kernel), (attribute(node, "group", 1), attribute(node, "offset_group", 1))
    return _Sizes(channels, filters, image, taps, math.prod(outputs), *groups)


def _taps(op: Emitter, node: ir.Node, sizes: _Sizes) -> Taps:
    """Where each tap of each output reads, all images and groups of offsets in the first axis."""
    window, outputs = window_of(node), ranked_dims(node, node.outputs[0])[2:]
    moves = op.Reshape(node.inputs[2], [-1, sizes.taps, 2, sizes.outputs])
    lanes = []
    for axis, size in enumerate(sizes.image):
        starts = np.arange(outputs[axis]) * window.strides[axis] - window.begin[axis]  # type: ignore[arg-type]  # known: see _sizes
        still = np.add.outer(np.arange(window.kernel[axis]) * window.dilations[axis], starts)
        around = [1, 1, 1, 1]
        around[axis], around[2 + axis] = still.shape
        whole = np.broadcast_to(still.reshape(around), (*window.kernel, *outputs))  # type: ignore[arg-type]
        moved = op.Add(op.Slice(moves, [axis], [axis + 1], [2]), op.floats(whole.reshape(1, sizes.taps, 1, -1)))
        lanes.append(taps_along(op, op.Reshape(moved, [0, -1, 1]), size))
    return Taps(op, lanes, sizes.image)


def _weight(op: Emitter, weight: ir.Value | None, sizes: _Sizes) -> ir.Value:
    """[group, filters / group, channels / group · taps]."""
    return op.Reshape(weight, [sizes.group, sizes.filters // sizes.group, -1])


def _grouped(op: Emitter, g: ir.Value, sizes: _Sizes) -> ir.Value:
    """[N, group, filters / group, outputs]."""
    return op.Reshape(g, [-1, sizes.group, sizes.filters // sizes.group, sizes.outputs])


def _matrix_product(op: Emitter, matrix: ir.Value, g: ir.Value, sizes: _Sizes) -> ir.Value:
    """Wᵀ g, [N · offsets, channels / offsets, taps · outputs]."""
    product = op.MatMul(matrix, _grouped(op, g, sizes))
    return op.Reshape(product, [-1, sizes.channels // sizes.offsets, sizes.taps * sizes.outputs])
