"""Activation functions, differentiated from their outputs where that is possible."""

import math
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxplain_export.emitter import Emitter, attribute, constant_of, dims
from onnxplain_export.vjp.joined import joined_parts, readers_of
from onnxplain_export.vjp.registry import Cotangents, no_gradient, vjp

no_gradient("Hardmax")


@vjp("Relu")
def relu(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """d relu(x) = [relu(x) > 0] dx: 0 at 0, as torch does."""
    if only_read_by_max_pools(op, node.outputs[0]):
        return (g,)
    if op.is_half:  # a mask of one byte
        return (op.Where(op.Greater(node.outputs[0], 0.0), g, 0.0),)
    return (op.Mul(g, positive(op, node.outputs[0])),)


@vjp("LeakyRelu")
def leaky_relu(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """d leaky(x) = [x > 0] dx + α [x ≤ 0] dx, α = 0.01 by default."""
    alpha = float(attribute(node, "alpha", 0.01))
    sign = node.outputs[0] if alpha >= 0 else node.inputs[0]
    return (op.Where(op.Greater(sign, 0.0), g, op.Mul(g, alpha)),)


@vjp("PRelu", broadcasts=True)
def prelu(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """d prelu(x, s) = [x > 0] dx + [x ≤ 0] (s dx + x ds)."""
    x, slope = node.inputs
    above_zero = op.Greater(x, 0.0)
    return op.Where(above_zero, g, op.Mul(g, slope)), op.Where(above_zero, 0.0, op.Mul(g, x))


@vjp("Elu")
def elu(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """d elu(x) = dx for x > 0, α exp(x) dx = (y + α) dx below, without a second exponential that could overflow."""
    y, alpha = node.outputs[0], float(attribute(node, "alpha", 1.0))
    if alpha == 1.0:
        return (op.Mul(g, op.Add(op.Min(y, 0.0), 1.0)),)
    sign = y if alpha > 0 else node.inputs[0]
    return (op.Mul(g, op.Where(op.Greater(sign, 0.0), 1.0, op.Add(y, alpha))),)


@vjp("Selu")
def selu(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """d selu(x) = γ dx for x > 0, γ α exp(x) dx = (y + γ α) dx below."""
    alpha = float(attribute(node, "alpha", 1.67326319217681884765625))
    gamma = float(attribute(node, "gamma", 1.05070102214813232421875))
    x, y = node.inputs[0], node.outputs[0]
    return (op.Mul(g, op.Where(op.Greater(x, 0.0), gamma, op.Add(y, alpha * gamma))),)


@vjp("Celu")
def celu(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """d celu(x) = dx for x > 0, exp(x/α) dx = (y/α + 1) dx below."""
    below_zero = op.Min(node.outputs[0], 0.0)
    return (op.Mul(g, op.Add(op.Mul(below_zero, 1.0 / float(attribute(node, "alpha", 1.0))), 1.0)),)


@vjp("Sigmoid")
def sigmoid(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """dσ(x) = σ(x) (1 - σ(x)) dx."""
    y = node.outputs[0]
    return (op.Mul(g, op.Mul(y, complement(op, y))),)


@vjp("Tanh")
def tanh(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """d tanh(x) = (1 - tanh(x)²) dx."""
    y = node.outputs[0]
    return (op.Mul(g, op.Sub(1.0, op.Mul(y, y))),)


@vjp("Softplus")
def softplus(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """d ln(1 + exp(x)) = σ(x) dx."""
    return (op.Mul(g, op.Sigmoid(node.inputs[0])),)


@vjp("Softsign")
def softsign(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """d x/(1 + |x|) = dx / (1 + |x|)²."""
    width = op.Add(op.Abs(node.inputs[0]), 1.0)
    return (op.Div(op.Div(g, width), width),)


@vjp("HardSigmoid")
def hard_sigmoid(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """d clip(αx + β, 0, 1) = α dx inside: 0 at both ends, as torch does."""
    y, alpha = node.outputs[0], float(attribute(node, "alpha", 0.2))
    return (op.Mul(op.Mul(g, alpha), op.Mul(positive(op, y), below(op, y, 1.0))),)


@vjp("HardSwish")
def hard_swish(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """d(x h) = (h + x/6 [0 < h < 1]) dx with h = clip(x/6 + 1/2, 0, 1): 0 at -3 and 1 at 3, as torch does."""
    x = node.inputs[0]
    h = op.HardSigmoid(x, alpha=1 / 6, beta=0.5)
    inside = op.Mul(x, below(op, op.Mul(x, x), 9.0))
    slope = affine(op, x, inside, 1 / 6, 0.0, h)
    return (op.Mul(g, slope if slope is not None else op.Add(h, op.Mul(inside, 1 / 6))),)


@vjp("Mish")
def mish(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """d(x t) = (t + x (1 - t²) σ(x)) dx with t = tanh(ln(1 + exp(x)))."""
    x = node.inputs[0]
    # OpenCV 5.0 takes any product with Tanh(Softplus(x)) for Mish(x).
    t = op.Neg(op.Tanh(op.Neg(op.Softplus(x))))
    bend = op.Mul(op.Mul(x, op.Sigmoid(x)), op.Sub(1.0, op.Mul(t, t)))
    return (op.Mul(g, op.Add(t, bend)),)


@vjp("Gelu")
def gelu(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """d(xΦ(x)) = (Φ(x) + x φ(x)) dx with the normal Φ, φ; with `approximate` the derivative of the tanh formula."""
    x = node.inputs[0]
    if attribute(node, "approximate", "none") == "tanh":
        return (op.Mul(g, _gelu_tanh_slope(op, x)),)
    # With u = x/√2, Φ = (1 + erf(u))/2 as one operator and xφ = u exp(-u² - ln √π): nine passes over the tensor.
    u = op.Mul(x, math.sqrt(0.5))
    cumulative = op.HardSigmoid(op.Erf(u), alpha=0.5, beta=0.5)
    density = op.Exp(op.Sub(-0.5 * math.log(math.pi), op.Mul(u, u)))
    return (op.Mul(g, op.Add(cumulative, op.Mul(u, density))),)


@vjp("ThresholdedRelu")
def thresholded_relu(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """d = [x > α] dx, α = 1 by default."""
    return (op.Where(op.Greater(node.inputs[0], float(attribute(node, "alpha", 1.0))), g, 0.0),)


@vjp("Shrink")
def shrink(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """d = [x < -λ or x > λ] dx, λ = 0.5 by default."""
    x, width = node.inputs[0], float(attribute(node, "lambd", 0.5))
    return (op.Where(op.Or(op.Less(x, -width), op.Greater(x, width)), g, 0.0),)


@vjp("Softmax")
def softmax(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """d softmax: y (g - Σ g y), summed along the axis."""
    y, axis = node.outputs[0], attribute(node, "axis", -1)
    product = _attention(y, g) if axis in (-1, len(dims(y) or ()) - 1) else None
    # Where g = h Vᵀ is that of attention A = y V, Σ g y = Σ h A, over the few entries of a head rather than all tokens.
    terms = op.Mul(g, y) if product is None else op.Mul(*product)
    return (op.Mul(y, op.Sub(g, op.ReduceSum(terms, [axis], keepdims=1))),)


@vjp("LogSoftmax")
def log_softmax(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """d log softmax: g - exp(y) Σ g, summed along the axis."""
    total = op.ReduceSum(g, [attribute(node, "axis", -1)], keepdims=1)
    return (op.Sub(g, op.Mul(op.Exp(node.outputs[0]), total)),)


@vjp("Clip")
def clip(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """d clip(x, a, b) = [a ≤ x ≤ b] dx + [x < a ≤ b] da + [max(x, a) > b] db.

    1 at the bounds, as torch.clamp; ReLU6 (0 to 6) has 0 there, as torch's.
    """
    x, low, high = (*node.inputs, None, None)[:3]
    bounds = [_along_low(op, x, low, high, g), _along_high(op, x, low, high, g)]
    if _number(low) == 0.0 and _number(high) == 6.0:
        if op.is_half:
            inside = op.And(op.Greater(node.outputs[0], 0.0), op.Less(node.outputs[0], 6.0))
            return [op.Where(inside, g, 0.0), *bounds]
        # From the output: a mask that reads x would keep onnxruntime from fusing Conv and Clip.
        y = node.outputs[0]
        return [op.Mul(g, op.Mul(positive(op, y), below(op, y, 6.0))), *bounds]
    if low is not None:
        g = op.Mul(g, _at_least(op, x, low))
    if high is not None:
        g = op.Mul(g, _at_most(op, x, high))
    return [g, *bounds][: len(node.inputs)]


def only_read_by_max_pools(op: Emitter, y: ir.Value | None) -> bool:
    """Whether y is the output of a ReLU that keeps its derivative, and gradients of it come from MaxPools alone.

    They hand the gradient to maxima, so that the mask [y > 0] may as well be put before them, on the fewer numbers
    that they put out; not where the gradient of y itself is asked for. Between them channels may be joined.
    """
    maker = None if y is None else y.producer()
    if y is None or maker is None or maker.op_type != "Relu" or {"Relu", "MaxPool"} & op.changed or y in op.ends:
        return False
    readers = readers_of(op, y)
    return bool(readers) and all(
        node.op_type == "MaxPool" or joined_parts(op, node.outputs[0], "MaxPool") for node in readers
    )


def positive(op: Emitter, y: ir.Value) -> ir.Value:
    """1 where y > 0, else 0, as one operator that keeps onnxruntime's blocked layout.

    Exact for y > 1e-30. The tiny negative beta stands for 0, which OpenVINO reads as HardSigmoid's default of 0.5.
    In half precision a comparison: the factor overflows.
    """
    if op.is_half:
        return op.Cast(op.Greater(y, 0.0), to=int(op.float_type))
    return op.HardSigmoid(y, alpha=1e30, beta=-1e-20)


def below(op: Emitter, y: ir.Value, bound: float) -> ir.Value:
    """1 where y < bound, else 0, for a bound other than 0, as one operator; in half precision by a comparison."""
    if op.is_half:
        return op.Cast(op.Less(y, bound), to=int(op.float_type))
    steepness = 2.0 * _steepness(bound)
    return op.HardSigmoid(y, alpha=-steepness, beta=steepness * bound)


def complement(op: Emitter, y: ir.Value | None) -> ir.Value:
    """1 - y for y between 0 and 1, as one operator that keeps onnxruntime's blocked layout, which Sub doesn't."""
    if op.is_half:
        return op.Sub(1.0, y)
    return op.HardSigmoid(y, alpha=-1.0, beta=1.0)


def affine(
    op: Emitter, x: ir.Value | None, y: ir.Value, factor: float, offset: float, more: ir.Value | None = None
) -> ir.Value | None:
    """`more` (x unless given) + factor y + offset where x is a convolution's result of known channels, else None.

    A depthwise convolution of one tap, into which onnxruntime takes the sum: one pass in its blocked layout.
    """
    node, shape = None if x is None else x.producer(), None if x is None else dims(x)
    if (
        op.is_half
        or node is None
        or node.op_type != "Conv"
        or shape is None
        or len(shape) != 4
        or not isinstance(shape[1], int)
    ):
        return None
    weight = op.floats(np.full((shape[1], 1, 1, 1), factor))
    bias = [op.floats(np.full(shape[1], offset))] if offset else []
    product = op.Conv(y, weight, *bias, group=shape[1], kernel_shape=[1, 1])
    return op.Add(product, x if more is None else more)


def _attention(y: ir.Value, g: ir.Value) -> tuple[ir.Value, ir.Value] | None:
    """h and y V where g = h Vᵀ is the cotangent of `y` from a product with V that the network has computed."""
    node = g.producer()
    h, transposed = node.inputs if node is not None and node.op_type == "MatMul" else (None, None)
    if h is None or transposed is None:
        return None
    for reader, index in y.uses():
        v = reader.inputs[1] if reader.op_type == "MatMul" and index == 0 else None
        if v is not None and (_is_transposition(transposed, v) or _is_transposition(v, transposed)):
            return h, reader.outputs[0]
    return None


def _is_transposition(x: ir.Value, y: ir.Value) -> bool:
    """Whether x is y with its last two axes exchanged."""
    node = x.producer()
    if node is None or node.op_type != "Transpose" or node.inputs[0] is not y:
        return False
    order = attribute(node, "perm")
    rank = 0 if order is None else len(order)
    return bool(rank) and order == [*range(rank - 2), rank - 1, rank - 2]


def _along_low(op: Emitter, x: Any, low: ir.Value | None, high: ir.Value | None, g: ir.Value) -> ir.Value | None:
    """The lower bound's cotangent."""
    if low is None or not op.wants(low):
        return None
    effective = op.Less(x, low) if high is None else op.And(op.Less(x, low), op.LessOrEqual(low, high))
    return op.Reshape(op.ReduceSum(op.Where(effective, g, 0.0), keepdims=0), op.Shape(low))


def _along_high(op: Emitter, x: Any, low: ir.Value | None, high: ir.Value | None, g: ir.Value) -> ir.Value | None:
    """The upper bound's cotangent."""
    if high is None or not op.wants(high):
        return None
    effective = op.Greater(x if low is None else op.Max(x, low), high)
    return op.Reshape(op.ReduceSum(op.Where(effective, g, 0.0), keepdims=0), op.Shape(high))


def _at_least(op: Emitter, x: ir.Value | None, low: ir.Value) -> ir.Value:
    """1 where x ≥ low, else 0."""
    bound = _number(low)
    if bound is None or op.is_half:
        return op.Cast(op.GreaterOrEqual(x, low), to=int(op.float_type))
    return op.HardSigmoid(x, alpha=_steepness(bound), beta=1.0 - _steepness(bound) * bound)


def _at_most(op: Emitter, x: ir.Value | None, high: ir.Value) -> ir.Value:
    """1 where x ≤ high, else 0."""
    bound = _number(high)
    if bound is None or op.is_half:
        return op.Cast(op.LessOrEqual(x, high), to=int(op.float_type))
    return op.HardSigmoid(x, alpha=-_steepness(bound), beta=1.0 + _steepness(bound) * bound)


def _steepness(bound: float) -> float:
    """One over the distance from `bound` to the next float32: a power of two, so that the ramp is an exact step."""
    return min(1.0 / float(np.spacing(np.float32(abs(bound)))), 2.0**100)


def _number(bound: ir.Value | None) -> float | None:
    """A constant finite bound as a number."""
    fixed = constant_of(bound)
    return float(fixed.reshape(())) if fixed is not None and np.isfinite(fixed).all() else None


def _gelu_tanh_slope(op: Emitter, x: ir.Value | None) -> ir.Value:
    """(1 + t)/2 + x/2 (1 - t²) c (1 + 3·0.044715 x²) with t = tanh(c (x + 0.044715 x³)), c = √(2/π)."""
    c = math.sqrt(2.0 / math.pi)
    square = op.Mul(x, x)
    t = op.Tanh(op.Mul(x, op.Add(op.Mul(square, 0.044715 * c), c)))
    inner = op.Mul(op.Mul(x, 0.5), op.Add(op.Mul(square, 3 * 0.044715 * c), c))
    return op.Add(op.Add(op.Mul(t, 0.5), 0.5), op.Mul(inner, op.Sub(1.0, op.Mul(t, t))))
