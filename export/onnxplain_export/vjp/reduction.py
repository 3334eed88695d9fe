"""Sums, means, extremes and norms over axes."""

import math
from typing import Any

import onnx_ir as ir

from onnxplain.errors import NoGradientError
from onnxplain_export.emitter import Emitter, attribute, constant_of, dims
from onnxplain_export.vjp.elementwise import zero_where
from onnxplain_export.vjp.registry import Cotangents, no_gradient, vjp

no_gradient("ArgMax", "ArgMin")


@vjp("ReduceSum")
def reduce_sum(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """d Σx = Σ dx."""
    return _answers(node, _spread(op, node, g))


@vjp("ReduceMean")
def reduce_mean(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """d mean(x) = Σ dx / n."""
    x, axes = node.inputs[0], _axes(node)
    known = None if x is None or isinstance(axes, ir.Value) else dims(x)
    counted = None if known is None else [known[axis] for axis in (range(len(known)) if axes is None else axes)]
    if counted is not None and all(isinstance(size, int) for size in counted):
        share = op.Mul(g, 1.0 / math.prod(size for size in counted if isinstance(size, int)))
    else:
        share = op.Div(g, op.Cast(op.Div(op.Size(x), op.Size(node.outputs[0])), to=int(op.float_type)))
    return _answers(node, _spread(op, node, share))


@vjp("ReduceMax")
def reduce_max(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """d max(x) = the largest entry's differential; equal ones share it, as in torch.amax."""
    return _extreme(op, node, g)


@vjp("ReduceMin")
def reduce_min(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """d min(x) = the smallest entry's differential; equal ones share it, as in torch.amin."""
    return _extreme(op, node, g)


@vjp("ReduceL1")
def reduce_l1(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """d Σ|x| = Σ sign(x) dx: 0 at 0, as torch does."""
    return _answers(node, op.Mul(_restored(op, node, g), op.Sign(node.inputs[0])))


@vjp("ReduceL2")
def reduce_l2(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """d|x| = Σ x dx / |x|: 0 at the zero vector, as torch does."""
    length = _restored(op, node, node.outputs[0])
    scaled = zero_where(op, op.Equal(length, 0.0), op.Div(_restored(op, node, g), length))
    return _answers(node, op.Mul(node.inputs[0], scaled))


@vjp("ReduceSumSquare")
def reduce_sum_square(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """d Σx² = 2 Σ x dx."""
    return _answers(node, op.Mul(node.inputs[0], _restored(op, node, op.Mul(g, 2.0))))


@vjp("ReduceLogSumExp")
def reduce_log_sum_exp(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """d ln Σexp(x) = Σ exp(x) dx / Σexp(x), with the largest x taken off first, so that nothing overflows."""
    x, axes = node.inputs[0], _axes(node)
    weights = op.Exp(op.Sub(x, op.ReduceMax(x, axes, keepdims=1)))
    share = op.Div(_restored(op, node, g), op.ReduceSum(weights, axes, keepdims=1))
    return _answers(node, op.Mul(weights, share))


@vjp("ReduceLogSum")
def reduce_log_sum(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """d ln Σx = Σ dx / Σx."""
    return _answers(node, _spread(op, node, op.Div(g, op.Exp(node.outputs[0]))))


@vjp("ReduceProd")
def reduce_prod(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """d Πx = Σ dx Π others. Zeros are counted and left out: where one entry is 0, it alone has a derivative."""
    x, options = node.inputs[0], _reduce_options(node)
    zero = op.Equal(x, 0.0)
    number = op.Cast(zero, to=int(op.float_type))
    factors = op.Where(zero, 1.0, x)
    product = op.ReduceProd(factors, _axes(node), keepdims=1, **options)
    lonely = op.Equal(op.ReduceSum(number, _axes(node), keepdims=1, **options), number)
    others = op.Where(lonely, op.Div(product, factors), 0.0)
    return _answers(node, op.Mul(others, _restored(op, node, g)))


@vjp("CumSum")
def cum_sum(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """g summed up from the other end."""
    backwards, exclusive = 1 - attribute(node, "reverse", 0), attribute(node, "exclusive", 0)
    return op.CumSum(g, node.inputs[1], reverse=backwards, exclusive=exclusive), None


def _extreme(op: Emitter, node: ir.Node, g: ir.Value) -> Cotangents:
    """`g` at the entries that equal the result, divided by their number."""
    axes = _axes(node)
    chosen = op.Cast(op.Equal(node.inputs[0], _restored(op, node, node.outputs[0])), to=int(op.float_type))
    number = op.ReduceSum(chosen, axes, keepdims=1, **_reduce_options(node))
    return _answers(node, op.Mul(chosen, op.Div(_restored(op, node, g), number)))


def _answers(node: ir.Node, dx: ir.Value) -> Cotangents:
    return [dx, None][: len(node.inputs)]


def _axes(node: ir.Node) -> Any:
    """The reduced axes as the node gives them: a list, a value computed at run time, None for all, empty for none."""
    given = node.inputs[1] if len(node.inputs) > 1 else None
    axes = constant_of(given)
    if axes is not None and axes.size:
        return [int(axis) for axis in axes]
    if not attribute(node, "noop_with_empty_axes", 0):
        return None if axes is not None else given
    if node.op_type not in ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin"):
        raise NoGradientError(f"{node.op_type} over no axes (node {node.name!r}) is read differently by each runtime")
    return given if given is not None and axes is None else []


def _reduce_options(node: ir.Node) -> dict[str, int]:
    """The attribute that makes an empty list of axes mean none, where the node has it."""
    return {"noop_with_empty_axes": 1} if attribute(node, "noop_with_empty_axes", 0) else {}


def _restored(op: Emitter, node: ir.Node, value: ir.Value) -> ir.Value:
    """A value in the shape of the result with the reduced axes put back with size 1; a scalar stays one."""
    axes = _axes(node)
    if attribute(node, "keepdims", 1) or axes is None or axes == []:
        return value
    return op.Unsqueeze(value, axes)


def _spread(op: Emitter, node: ir.Node, g: ir.Value) -> ir.Value:
    """`g` repeated along the reduced axes: by a constant shape where their sizes are known, a free axis being kept."""
    x, axes = node.inputs[0], _axes(node)
    known = None if x is None else dims(x)
    if x is None or axes == []:
        return g
    if known is None or isinstance(axes, ir.Value):
        return op.Expand(_restored(op, node, g), op.Shape(x))
    reduced = range(len(known)) if axes is None else [axis % len(known) for axis in axes]
    if any(not isinstance(known[axis], int) for axis in reduced):
        return op.Expand(_restored(op, node, g), op.Shape(x))
    return op.Expand(_restored(op, node, g), [size if isinstance(size, int) else 1 for size in known])
