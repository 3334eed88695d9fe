"""Convolution and its transpose: each is the other's adjoint."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import onnx_ir as ir

from onnxplain.errors import NoGradientError
from onnxplain_export.emitter import Emitter, attribute, dims, ranked_dims
from onnxplain_export.vjp.joined import joined_parts
from onnxplain_export.vjp.phases import halves, through_phases, with_zeros
from onnxplain_export.vjp.registry import Cotangents, vjp
from onnxplain_export.vjp.window import Window, spatial_sizes, window_of


@vjp("Conv")
def conv(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """y = W * x: dx = Wᵀ * dy, by convolutions at strides of 1 and 2, else by a transposed one; db = Σ dy.

    dW is the convolution of x with dy over the batch.
    """
    x, weight, *bias = node.inputs
    window = window_of(node)
    gx = _conv_adjoint(op, node, weight, g) if op.wants(x) else None
    gw = _weight_gradient(op, node, x, g) if op.wants(weight) else None
    return gx, gw, *(_bias_gradient(op, b, g, window.rank) for b in bias)


@vjp("ConvTranspose")
def conv_transpose(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """y = Wᵀ * x: dx = W * dy, the convolution with the same weight and window; db = Σ dy, dW that convolution's."""
    x, weight, *bias = node.inputs
    window, group = window_of(node), attribute(node, "group", 1)
    if attribute(node, "output_shape") is not None:
        raise NoGradientError(f"ConvTranspose (node {node.name!r}): output_shape must be resolved to pads first")
    gx = op.Conv(g, weight, group=group, **_attributes(window)) if op.wants(x) else None
    gw = _weight_gradient(op, node, g, x) if op.wants(weight) else None
    return gx, gw, *(_bias_gradient(op, b, g, window.rank) for b in bias)


def _weight_gradient(op: Emitter, node: ir.Node, x: Any, y: Any) -> ir.Value:
    """Σ over the batch of x around each tap times y: a convolution of x with y as its weight, the batch as channels.

    x [N, C, …] becomes [C/g, g N, …], y [N, M, …] the weight [M, N, …]; strides and dilations change places.
    """
    window, group = window_of(node), attribute(node, "group", 1)
    spatial = range(window.rank)
    known = ranked_dims(node, node.inputs[0] if node.op_type == "Conv" else node.outputs[0])
    channels, sizes = known[1], known[2:]
    if not isinstance(channels, int) or not all(isinstance(size, int) for size in sizes):
        raise NoGradientError(f"{node.op_type} (node {node.name!r}): the weight's gradient needs fixed sizes")
    if group == 1:
        images = op.Transpose(x, perm=[1, 0, *(2 + axis for axis in spatial)])
    else:
        grouped = op.Reshape(x, [-1, group, channels // group, *sizes])
        swapped = op.Transpose(grouped, perm=[2, 1, 0, *(3 + axis for axis in spatial)])
        images = op.Reshape(swapped, [channels // group, -1, *sizes])
    kernels = op.Transpose(y, perm=[1, 0, *(2 + axis for axis in spatial)])
    options = {"strides": window.dilations, "dilations": window.strides, "pads": window.pads}
    taps = op.Conv(images, kernels, group=group, **options)
    if max(window.strides) > 1:  # the rows and columns that no window reaches
        taps = op.Slice(taps, [0] * window.rank, list(window.kernel), [2 + axis for axis in spatial])
    return op.Transpose(taps, perm=[1, 0, *(2 + axis for axis in spatial)])


def _conv_adjoint(op: Emitter, node: ir.Node, weight: ir.Value | None, g: ir.Value) -> ir.Value:
    """The gradient of a convolution's input."""
    window, group = window_of(node), attribute(node, "group", 1)
    mirrored = window.mirrored_pads
    if mirrored is not None:
        flipped, attributes = _flipped(op, node, window, group), _attributes(window) | {"pads": mirrored}
        parts = joined_parts(op, node.inputs[0], "Conv") if group == 1 else []
        if not parts:
            return op.Conv(g, flipped, group=group, **attributes)
        return op.Concat(*_part_by_part(op, g, flipped, parts, attributes), axis=1)
    found = _at_stride_two(op, node, window, g, group) if halves(node, window) and not op.is_half else None
    if found is not None:
        return found
    padding = window.remainders(spatial_sizes(node))
    return op.ConvTranspose(g, weight, group=group, output_padding=padding, **_attributes(window))


def _part_by_part(
    op: Emitter, g: ir.Value, flipped: ir.Value, parts: Sequence[ir.Value], attributes: Mapping[str, Any]
) -> Iterator[ir.Value]:
    """The gradients of the `parts` that the convolution's input is joined from: each by its part of the weight."""
    start = 0
    for part in parts:
        channels: Any = (dims(part) or (None, None))[1]
        weight = op.Slice(flipped, [start], [start + channels], [0])
        found = op.Conv(g, weight, **attributes)
        found.shape, found.type = part.shape, part.type
        yield found
        start += channels


def _at_stride_two(op: Emitter, node: ir.Node, window: Window, g: ir.Value, group: int) -> ir.Value | None:
    """The same without a transposed convolution, for full and depthwise convolutions."""
    if group == 1:
        return through_phases(op, node, window, g)
    spread = with_zeros(op, node, window, g) if ranked_dims(node, node.inputs[1])[:2] == (group, 1) else None
    if spread is None:
        return None
    flipped = _flipped(op, node, window, group)
    return op.Conv(spread[0], flipped, group=group, kernel_shape=window.kernel, pads=spread[1])


def _attributes(window: Window) -> dict[str, Any]:
    return {
        "kernel_shape": window.kernel,
        "strides": window.strides,
        "dilations": window.dilations,
        "pads": window.pads,
    }


def _flipped(op: Emitter, node: ir.Node, window: Window, group: int) -> ir.Value:
    """The weight [M, C/g, …] reversed in space with its channels swapped inside each group: [C, M/g, …].

    Written as operators on the same initializer: onnxruntime folds them at load, so the file holds one copy.
    """
    weight: Any = node.inputs[1]
    known = ranked_dims(node, weight)
    if not isinstance(known[0], int) or not isinstance(known[1], int):
        raise NoGradientError(f"Conv (node {node.name!r}): the weight's shape is unknown")
    outputs, inputs = known[0] // group, known[1]
    spatial = range(window.rank)
    flipped = weight
    if group == 1:
        flipped = op.Transpose(flipped, perm=[1, 0, *(2 + axis for axis in spatial)])
    elif (outputs, inputs) != (1, 1):
        grouped = op.Reshape(flipped, [group, outputs, inputs, *window.kernel])
        swapped = op.Transpose(grouped, perm=[0, 2, 1, *(3 + axis for axis in spatial)])
        flipped = op.Reshape(swapped, [group * inputs, outputs, *window.kernel])
    wide = [axis for axis in spatial if window.kernel[axis] > 1]
    if not wide:
        return flipped
    ends = [-window.kernel[axis] - 1 for axis in wide]
    return op.Slice(flipped, [-1] * len(wide), ends, [2 + axis for axis in wide], [-1] * len(wide))


def _bias_gradient(op: Emitter, bias: ir.Value | None, g: ir.Value, rank: int) -> ir.Value | None:
    if not op.wants(bias):
        return None
    return op.ReduceSum(g, [0, *range(2, 2 + rank)], keepdims=0)
