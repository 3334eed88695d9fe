"""Quantised numbers: no gradient by default; straight through where normalisation has marked the nodes.

The true derivative of a rounding is zero almost everywhere. The straight-through estimator (Bengio, Léonard and
Courville 2013, arXiv:1308.3432) takes that of the identity in its place, here inside the range that the integers can
hold and zero outside, as in quantisation-aware training (Jacob et al. 2018, arXiv:1712.05877) and torch's fake
quantisation. What is computed forwards stays the quantised network.
"""

from collections.abc import Iterable
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir

from onnxplain.errors import NoGradientError
from onnxplain_export.emitter import Emitter, attribute, constant_of, ranked_dims
from onnxplain_export.vjp.registry import Cotangents, refused, straight_through

refused(
    "the true gradient of a rounding is zero: export with --quantized straight-through (quantized='straight-through' "
    "in Python) for the gradient of a network that doesn't round, at the quantised one's values",
    "QuantizeLinear",
    "DequantizeLinear",
)
refused(
    "it computes with integers: export the model in QDQ format (QuantizeLinear and DequantizeLinear around float "
    "operators), and this with --quantized straight-through",
    "ConvInteger",
    "DynamicQuantizeLinear",
    "MatMulInteger",
    "QLinearConv",
    "QLinearMatMul",
)

FLOAT8 = frozenset(
    {
        ir.DataType.FLOAT8E4M3FN,
        ir.DataType.FLOAT8E4M3FNUZ,
        ir.DataType.FLOAT8E5M2,
        ir.DataType.FLOAT8E5M2FNUZ,
    }
)
QUANTIZED = FLOAT8 | {ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT32}
"""What opset 20 quantises to; int32 is what integer convolutions yield."""

MOVING = frozenset(
    {
        "Concat",
        "DepthToSpace",
        "DequantizeLinear",
        "Expand",
        "Flatten",
        "Gather",
        "Identity",
        "Reshape",
        "Slice",
        "SpaceToDepth",
        "Split",
        "Squeeze",
        "Tile",
        "Transpose",
        "Unsqueeze",
    }
)
"""Operators through which the cotangent of quantised numbers may pass: they don't compute with them, or undo them."""


def is_quantized(value: ir.Value | None) -> bool:
    """Whether a value that depends on the input, on a way for gradients, is made of quantised numbers."""
    return value is not None and value.dtype in QUANTIZED


def holds_quantized(node: ir.Node, reached: Iterable[ir.Value]) -> list[ir.Value]:
    """The node's outputs that carry `reached` values on as quantised numbers: they would be a way that is lost."""
    begins = node.domain == "" and node.op_type in ("QuantizeLinear", "DynamicQuantizeLinear")
    if begins:
        return [node.outputs[0]]
    goes_on = any(value is not None and is_quantized(value) and value in reached for value in node.inputs)
    return [value for value in node.outputs if value.dtype in QUANTIZED] if goes_on else []


@straight_through("QuantizeLinear")
def quantize_linear(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """q = saturate(round(x/s) + z): dx = dq / s where the rounded number is in range, else 0."""
    x: Any = node.inputs[0]
    lowest, highest = limits(op, node)
    inside = op.And(op.GreaterOrEqual(x, lowest), op.Less(x, highest))
    dx = op.Mul(op.Div(g, constant_along_axis(op, node, 1)), op.Cast(inside, to=int(op.float_type)))
    return [dx, *[None] * (len(node.inputs) - 1)]


@straight_through("DequantizeLinear")
def dequantize_linear(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """y = (q - z) s: dq = s dy."""
    return [op.Mul(g, constant_along_axis(op, node, 1)), *[None] * (len(node.inputs) - 1)]


@straight_through("Round")
def rounded(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """The identity, where normalisation has spelt out a quantisation; a Clip after it is the range."""
    return (g,)


def constant_along_axis(op: Emitter, node: ir.Node, index: int) -> ir.Value:
    """The node's scale (1) or zero point (2) as floats, in the shape in which it goes along its axis."""
    return _along_axis(op, node, _constant(node, index))


def limits(op: Emitter, node: ir.Node) -> tuple[ir.Value, ir.Value]:
    """The least x that a QuantizeLinear can represent, and the least that is too large."""
    lowest, highest = _range(node)
    return _along_axis(op, node, lowest), _along_axis(op, node, highest)


def _range(node: ir.Node) -> tuple[np.ndarray, np.ndarray]:
    """The least x that isn't too small, and the least that is too large, for each scale.

    Half of a step beyond the last number still rounds to it; halves are rounded to even numbers.
    """
    scale, zero = _constant(node, 1), _constant(node, 2) if _has(node, 2) else np.zeros(())
    kind = node.outputs[0].dtype
    if kind in FLOAT8 and kind is not None:
        largest = float(ml_dtypes.finfo(kind.numpy()).max)  # type: ignore[no-untyped-call]
        return -largest * scale, np.nextafter(largest * scale, np.inf)
    limits = np.iinfo(np.uint8 if kind is None else kind.numpy())
    return (limits.min - zero - 0.5) * scale, (limits.max - zero + 0.5) * scale


def _along_axis(op: Emitter, node: ir.Node, numbers: np.ndarray) -> ir.Value:
    """One number for all, or one for each entry along the node's axis, as a constant that broadcasts."""
    if numbers.ndim == 0 or numbers.size == 1:
        return op.floats(numbers.reshape(()))
    rank = len(ranked_dims(node, node.inputs[0]))
    axis = attribute(node, "axis", 1) % rank
    return op.floats(numbers.reshape([-1 if i == axis else 1 for i in range(rank)]))


def _constant(node: ir.Node, index: int) -> np.ndarray:
    content = constant_of(node.inputs[index])
    if content is None:
        raise NoGradientError(
            f"{node.op_type} (node {node.name!r}): its scale and zero point are computed from the input, which only "
            "constant ones can be differentiated past"
        )
    return content.astype(np.float64)


def _has(node: ir.Node, index: int) -> bool:
    return len(node.inputs) > index and node.inputs[index] is not None
