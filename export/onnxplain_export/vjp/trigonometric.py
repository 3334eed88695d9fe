"""Trigonometric and hyperbolic functions."""

from typing import Any

import onnx_ir as ir

from onnxplain_export.emitter import Emitter
from onnxplain_export.vjp.elementwise import zero_where
from onnxplain_export.vjp.registry import Cotangents, vjp


@vjp("Sin")
def sin(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """d sin(x) = cos(x) dx."""
    return (op.Mul(g, op.Cos(node.inputs[0])),)


@vjp("Cos")
def cos(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """d cos(x) = -sin(x) dx."""
    return (op.Neg(op.Mul(g, op.Sin(node.inputs[0]))),)


@vjp("Tan")
def tan(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """d tan(x) = (1 + tan(x)²) dx."""
    y = node.outputs[0]
    return (op.Mul(g, op.Add(op.Mul(y, y), 1.0)),)


@vjp("Asin")
def asin(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """d asin(x) = dx / √(1 - x²): 0 at ±1, where torch has infinity."""
    return (_over(op, g, op.Sqrt(_one_minus_square(op, node.inputs[0]))),)


@vjp("Acos")
def acos(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """d acos(x) = -dx / √(1 - x²): 0 at ±1, where torch has infinity."""
    return (op.Neg(_over(op, g, op.Sqrt(_one_minus_square(op, node.inputs[0])))),)


@vjp("Atan")
def atan(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """d atan(x) = dx / (1 + x²)."""
    x = node.inputs[0]
    return (op.Div(g, op.Add(op.Mul(x, x), 1.0)),)


@vjp("Sinh")
def sinh(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """d sinh(x) = cosh(x) dx."""
    return (op.Mul(g, op.Cosh(node.inputs[0])),)


@vjp("Cosh")
def cosh(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """d cosh(x) = sinh(x) dx."""
    return (op.Mul(g, op.Sinh(node.inputs[0])),)


@vjp("Asinh")
def asinh(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """d asinh(x) = dx / √(1 + x²)."""
    x = node.inputs[0]
    return (op.Div(g, op.Sqrt(op.Add(op.Mul(x, x), 1.0))),)


@vjp("Acosh")
def acosh(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """d acosh(x) = dx / √(x² - 1): 0 at 1, where torch has infinity."""
    x = node.inputs[0]
    return (_over(op, g, op.Sqrt(op.Mul(op.Sub(x, 1.0), op.Add(x, 1.0)))),)


@vjp("Atanh")
def atanh(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """d atanh(x) = dx / (1 - x²): 0 at ±1, where torch has infinity."""
    return (_over(op, g, _one_minus_square(op, node.inputs[0])),)


def _one_minus_square(op: Emitter, x: ir.Value | None) -> ir.Value:
    """1 - x² as a product, which keeps its digits near ±1."""
    return op.Mul(op.Sub(1.0, x), op.Add(x, 1.0))


def _over(op: Emitter, g: ir.Value, width: ir.Value) -> ir.Value:
    """g / width, 0 where the width is 0."""
    return zero_where(op, op.Equal(width, 0.0), op.Div(g, width))
