"""Arithmetic and pointwise functions."""

import math
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxplain.errors import NoGradientError
from onnxplain_export.emitter import Emitter, constant_of
from onnxplain_export.vjp.activation import affine, complement
from onnxplain_export.vjp.registry import NOTHING, Cotangents, no_gradient, vjp

no_gradient("Ceil", "Floor", "Round", "Sign")
no_gradient("And", "Equal", "Greater", "GreaterOrEqual", "IsInf", "IsNaN", "Less", "LessOrEqual", "Not", "Or", "Xor")
no_gradient("BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor")
no_gradient("BlackmanWindow", "HammingWindow", "HannWindow", "MelWeightMatrix")
no_gradient("ImageDecoder", "RegexFullMatch", "StringConcat", "StringNormalizer", "StringSplit", "TfIdfVectorizer")
no_gradient("OptionalHasElement", "SequenceEmpty", "SequenceLength")
no_gradient("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike")


@vjp("Add", broadcasts=True)
def add(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """d(a + b) = da + db."""
    return g, g


@vjp("Sub", broadcasts=True)
def sub(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """d(a - b) = da - db."""
    return g, op.Neg(g)


@vjp("Mul", broadcasts=True)
def mul(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """d(ab) = b da + a db; d(x σ(x)) = (σ + y (1 - σ)) dx at once: SiLU, spelled out."""
    a, b = node.inputs
    for x, gate in ((a, b), (b, a)):
        if op.wants(gate) and op.wants(x) and _is_sigmoid_of(gate, x) and "Sigmoid" not in op.changed:
            dx = _through_silu(op, x, gate, node.outputs[0], g)
            return [dx if value is x else NOTHING for value in node.inputs]
    return op.Mul(g, b), op.Mul(g, a)


@vjp("Div", broadcasts=True)
def div(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """d(a/b) = (da - (a/b) db) / b."""
    scaled = op.Div(g, node.inputs[1])
    return scaled, op.Neg(op.Mul(scaled, node.outputs[0]))


@vjp("Sum", broadcasts=True)
def sum_(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """d(a + b + …) = da + db + …."""
    return [g] * len(node.inputs)


@vjp("Mean", broadcasts=True)
def mean(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """d mean(a, b, …) = (da + db + …) / n."""
    return [op.Mul(g, 1.0 / len(node.inputs))] * len(node.inputs)


@vjp("Max", broadcasts=True)
def max_(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """d max(a, b, …) = the largest one's differential; equal ones share it, as in torch.maximum."""
    return _extreme(op, node, g)


@vjp("Min", broadcasts=True)
def min_(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """d min(a, b, …) = the smallest one's differential; equal ones share it, as in torch.minimum."""
    return _extreme(op, node, g)


@vjp("Neg")
def neg(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """d(-x) = -dx."""
    return (op.Neg(g),)


@vjp("Abs")
def abs_(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """d|x| = sign(x) dx: 0 at 0, as torch does."""
    return (op.Mul(g, op.Sign(node.inputs[0])),)


@vjp("Reciprocal")
def reciprocal(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """d(1/x) = -(1/x)² dx."""
    y = node.outputs[0]
    return (op.Neg(op.Mul(g, op.Mul(y, y))),)


@vjp("Sqrt")
def sqrt(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """d√x = dx / 2√x: 0 at 0, where torch has infinity."""
    y = node.outputs[0]
    return (zero_where(op, op.Equal(y, 0.0), op.Div(op.Mul(g, 0.5), y)),)


@vjp("Pow", broadcasts=True)
def pow_(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """d(x^p) = p x^(p-1) dx + x^p ln(x) dp: 0 at x = 0 where either is infinite or 0·∞."""
    x, exponent, y = node.inputs[0], node.inputs[1], node.outputs[0]
    if x is None or exponent is None:
        raise NoGradientError(f"Pow (node {node.name!r}) lacks an input")
    p = op.Cast(exponent, to=int(x.dtype or op.float_type))
    fixed = constant_of(exponent)
    if fixed is not None:
        p = op.floats(fixed)
    slope = x if fixed is not None and np.all(fixed == 2) else op.Pow(x, op.Sub(p, 1.0))
    if fixed is None or np.any(fixed < 1):
        slope = zero_where(op, op.And(op.Equal(x, 0.0), op.Less(p, 1.0)), slope)
    along_p = zero_where(op, op.Equal(x, 0.0), op.Mul(y, op.Log(x)))
    return op.Mul(g, op.Mul(p, slope)), op.Mul(g, along_p)


@vjp("Exp")
def exp(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """d exp(x) = exp(x) dx."""
    return (op.Mul(g, node.outputs[0]),)


@vjp("Log")
def log(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """d ln(x) = dx / x."""
    return (op.Div(g, node.inputs[0]),)


@vjp("Erf")
def erf(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """d erf(x) = 2/√π exp(-x²) dx."""
    x = node.inputs[0]
    return (op.Mul(g, op.Mul(op.Exp(op.Neg(op.Mul(x, x))), 2.0 / math.sqrt(math.pi))),)


@vjp("Mod", broadcasts=True)
def mod(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """d(a - n b) = da - n db with n the whole number of times that b fits in a."""
    a, b = node.inputs
    times = op.Round(op.Div(op.Sub(a, node.outputs[0]), b))
    return g, op.Neg(op.Mul(g, times))


@vjp("Where", broadcasts=True)
def where(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """d where(c, a, b) = where(c, da, db); a selection, so that nothing of the other branch, not even ∞, gets in."""
    chosen = node.inputs[0]
    return None, op.Where(chosen, g, 0.0), op.Where(chosen, 0.0, g)


@vjp("Identity")
def identity(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """d x = dx."""
    return (g,)


@vjp("Dropout")
def dropout(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """d x = dx at inference."""
    training = node.inputs[2] if len(node.inputs) > 2 else None
    fixed = constant_of(training)
    if training is not None and (fixed is None or fixed.any()):
        raise NoGradientError(f"Dropout (node {node.name!r}) may be in training mode; export the model for inference")
    return [g, None, None][: len(node.inputs)]


@vjp("Cast")
def cast(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """d cast(x) = cast(dx), between floating types."""
    x = node.inputs[0]
    if x is None or x.dtype is None:
        raise NoGradientError(f"the type of what Cast (node {node.name!r}) reads is unknown")
    return (g if x.dtype == node.outputs[0].dtype else op.Cast(g, to=int(x.dtype)),)


def zero_where(op: Emitter, condition: ir.Value, value: ir.Value) -> ir.Value:
    """`value`, but 0 where `condition` holds, whatever stands there."""
    return op.Where(condition, 0.0, value)


def _through_silu(op: Emitter, x: Any, gate: Any, y: ir.Value, g: ir.Value) -> ir.Value:
    """g σ (1 + x - y) or the same as g (σ + y (1 - σ)), whichever takes fewer passes."""
    difference = affine(op, x, y, -1.0, 1.0)
    if difference is not None:
        return op.Mul(op.Mul(g, gate), difference)
    return op.Mul(g, op.Add(gate, op.Mul(y, complement(op, gate))))


def _is_sigmoid_of(y: ir.Value | None, x: ir.Value | None) -> bool:
    node = None if y is None else y.producer()
    return node is not None and node.op_type == "Sigmoid" and node.inputs[0] is x


def _extreme(op: Emitter, node: ir.Node, g: ir.Value) -> Cotangents:
    """`g` at the inputs that equal the output, divided by their number."""
    y = node.outputs[0]
    if len(node.inputs) == 1:
        return (g,)
    chosen = [op.Cast(op.Equal(x, y), to=int(op.float_type)) for x in node.inputs]
    share = op.Div(g, op.Sum(*chosen))
    return [op.Mul(share, mask) for mask in chosen]
