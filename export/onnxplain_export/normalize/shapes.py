"""Fixes the image's size, infers all shapes, and makes every padding explicit."""

from collections.abc import Sequence

import onnx_ir as ir
import onnx_ir.passes.common as passes

from onnxplain.errors import ModelError
from onnxplain_export.emitter import attribute

BATCH = "N"
"""The name of the free batch axis in every graph."""


def infer_shapes(model: ir.Model) -> None:
    """Fills in types and shapes wherever ONNX's own inference knows them."""
    passes.TopologicalSortPass()(model)
    passes.ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(model)


def image_layout(shape: Sequence[object]) -> str | None:
    """NCHW or NHWC for a batch of images with 1, 3 or 4 channels, None for anything else."""
    if len(shape) != 4:
        return None
    if shape[1] in (1, 3, 4):
        return "NCHW"
    return "NHWC" if shape[3] in (1, 3, 4) else None


def fix_input(image: ir.Value, size: tuple[int, int] | None) -> None:
    """Names the batch axis and gives every other axis of the explained input a number, from `size` where it is free."""
    if image.shape is None:
        raise ModelError(f"input {image.name!r} declares no shape; export the model with one")
    if len(image.shape) < 2:
        raise ModelError(f"input {image.name!r} has no batch axis (its shape is {image.shape})")
    axes: list[int | str | None] = [axis if isinstance(axis, int) else axis.value for axis in image.shape]
    axes[0] = BATCH
    layout = image_layout(axes)
    if layout is None and len(axes) == 4:
        layout = "NCHW" if isinstance(axes[1], int) or not isinstance(axes[3], int) else "NHWC"
    if size is not None and layout is not None:
        first = 2 if layout == "NCHW" else 1
        for axis, given in zip((first, first + 1), size, strict=True):
            if isinstance(axes[axis], int) and axes[axis] != given:
                raise ModelError(
                    f"input {image.name!r} is fixed at {axes}; it can't be exported for {size[0]}x{size[1]}"
                )
            axes[axis] = given
    free = [axis for axis in range(1, len(axes)) if not isinstance(axes[axis], int)]
    if free:
        raise ModelError(f"input {image.name!r} leaves axes {free} free; name the picture's size: --size HEIGHT WIDTH")
    image.shape = ir.Shape(axes)


def make_padding_explicit(graph: ir.Graph) -> None:
    """Replaces auto_pad (and ConvTranspose's output_shape) by the pads that it stands for."""
    for node in graph:
        if node.op_type not in ("Conv", "ConvTranspose", "MaxPool", "AveragePool", "LpPool"):
            continue
        mode = attribute(node, "auto_pad", "NOTSET")
        if mode in ("SAME_UPPER", "SAME_LOWER", "VALID") or "output_shape" in node.attributes:
            pads = _resolved_pads(node, mode)
            node.attributes["pads"] = ir.AttrInt64s("pads", pads)
        node.attributes.pop("auto_pad", None)
        node.attributes.pop("output_shape", None)


def _resolved_pads(node: ir.Node, mode: str) -> list[int]:
    source = static_dims_but_batch(node, node.inputs[0])
    kernel = attribute(node, "kernel_shape") or static_dims_but_batch(node, node.inputs[1])
    rank = len(source)
    strides = attribute(node, "strides", [1] * rank)
    dilations = attribute(node, "dilations", [1] * rank)
    if mode == "VALID":
        return [0] * (2 * rank)
    if node.op_type == "ConvTranspose":
        totals = _transposed_totals(node, source, kernel, strides, dilations)
    else:
        totals = [
            max((-(-size // stride) - 1) * stride + (k - 1) * dilation + 1 - size, 0)
            for size, k, stride, dilation in zip(source, kernel, strides, dilations, strict=True)
        ]
    small = [total // 2 for total in totals]
    large = [total - half for total, half in zip(totals, small, strict=True)]
    return small + large if mode == "SAME_UPPER" else large + small


def _transposed_totals(
    node: ir.Node, source: list[int], kernel: list[int], strides: list[int], dilations: list[int]
) -> list[int]:
    extra = attribute(node, "output_padding", [0] * len(source))
    goal = attribute(node, "output_shape") or [size * stride for size, stride in zip(source, strides, strict=True)]
    return [
        max(stride * (size - 1) + more + (k - 1) * dilation + 1 - out, 0)
        for size, k, stride, dilation, more, out in zip(
            source, kernel, strides, dilations, extra, goal[-len(source) :], strict=True
        )
    ]


def static_dims_but_batch(node: ir.Node, value: ir.Value | None) -> list[int]:
    """The spatial sizes of an operand [N, C, …] of `node`; refused where they aren't known."""
    shape = None if value is None or value.shape is None else list(value.shape)[2:]
    if shape is None or not all(isinstance(axis, int) for axis in shape):
        raise ModelError(f"{node.op_type} (node {node.name!r}): the size of its input isn't known at export")
    return [int(str(axis)) for axis in shape]
