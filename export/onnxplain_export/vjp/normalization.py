"""Normalisation layers as they run at inference."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxplain.errors import NoGradientError
from onnxplain_export.emitter import Emitter, attribute, ranked_dims
from onnxplain_export.origins import computed, known
from onnxplain_export.vjp.elementwise import zero_where
from onnxplain_export.vjp.registry import Cotangents, vjp


@vjp("BatchNormalization")
def batch_normalization(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """d(s (x - m)/√(v + ε) + b) = s/√(v + ε) dx with the stored m and v."""
    if attribute(node, "training_mode", 0):
        raise NoGradientError(
            f"BatchNormalization (node {node.name!r}) is in training mode; export the model for inference"
        )
    x, scale, bias, average, variance = node.inputs
    epsilon = float(attribute(node, "epsilon", 1e-5))
    to_channels = [-1] + [1] * (len(ranked_dims(node, x)) - 2)
    s, v = known(scale), known(variance)
    if s is not None and v is not None:
        double = int(ir.DataType.DOUBLE)
        deviation = computed("Sqrt", computed("Add", computed("Cast", v, to=double), epsilon))
        quotient = computed("Div", computed("Cast", s, to=double), deviation)
        factor = op.known(computed("Cast", computed("Reshape", quotient, to_channels), to=int(op.float_type)))
    else:
        factor = op.Reshape(op.Div(scale, op.Sqrt(op.Add(variance, epsilon))), to_channels)
    dx = op.Mul(g, factor)
    if not any(op.wants(value) for value in (scale, bias, average, variance)):
        return dx, None, None, None, None
    return dx, *_batch_statistics(op, node, g, epsilon)


def _batch_statistics(op: Emitter, node: ir.Node, g: ir.Value, epsilon: float) -> list[ir.Value]:
    """The cotangents of scale, bias, mean and variance: Σ g x̂, Σ g, -s/σ Σ g, -s/(2σ²) Σ g x̂."""
    x, scale, _, average, variance = node.inputs
    rank = len(ranked_dims(node, x))
    others, to_channels = [0, *range(2, rank)], [-1] + [1] * (rank - 2)
    width = op.Add(variance, epsilon)
    deviation = op.Sqrt(width)
    unit = op.Div(op.Sub(x, op.Reshape(average, to_channels)), op.Reshape(deviation, to_channels))
    ds = op.ReduceSum(op.Mul(g, unit), others, keepdims=0)
    db = op.ReduceSum(g, others, keepdims=0)
    dm = op.Neg(op.Mul(db, op.Div(scale, deviation)))
    return [ds, db, dm, op.Mul(op.Mul(ds, op.Div(scale, width)), -0.5)]


@vjp("LayerNormalization")
def layer_normalization(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """d(s x̂ + b) = s dx̂ + x̂ ds + db, x̂ = (x - mean)/√(var + ε) over the last axes; see `_normalized`."""
    x, scale, bias = (*node.inputs, None)[:3]
    shape = ranked_dims(node, x)
    axes = [*range(attribute(node, "axis", -1) % len(shape), len(shape))]
    dx, unit = _normalized(op, x, op.Mul(g, scale), axes, float(attribute(node, "epsilon", 1e-5)))
    ds = op.sum_to(op.Mul(g, unit), shape, scale) if scale is not None and op.wants(scale) else None
    db = op.sum_to(g, shape, bias) if bias is not None and op.wants(bias) else None
    return [dx, ds, db][: len(node.inputs)]


@vjp("InstanceNormalization")
def instance_normalization(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """d(s x̂ + b) = s dx̂ + x̂ ds + db, x̂ = (x - mean)/√(var + ε) over the spatial axes of each image and channel."""
    x, scale, bias = node.inputs
    rank = len(ranked_dims(node, x))
    per_channel = op.Reshape(scale, [-1] + [1] * (rank - 2))
    epsilon = float(attribute(node, "epsilon", 1e-5))
    dx, unit = _normalized(op, x, op.Mul(g, per_channel), [*range(2, rank)], epsilon)
    others = [0, *range(2, rank)]
    ds = op.ReduceSum(op.Mul(g, unit), others, keepdims=0) if op.wants(scale) else None
    db = op.ReduceSum(g, others, keepdims=0) if op.wants(bias) else None
    return dx, ds, db


@vjp("GroupNormalization")
def group_normalization(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """d(s x̂ + b) = s dx̂ + x̂ ds + db, x̂ = (x - mean)/√(var + ε) over each group of channels; one s, b a group."""
    x, scale, bias = node.inputs
    groups = attribute(node, "num_groups")
    if x is None or (*ranked_dims(node, scale), *ranked_dims(node, bias)) != (groups, groups):
        raise NoGradientError(f"GroupNormalization (node {node.name!r}): scale and bias must hold one number a group")
    grouped, spread = [op.Reshape(value, [0, groups, -1]) for value in (x, g)]
    per_group = op.Mul(spread, op.Reshape(scale, [-1, 1]))
    dx, unit = _normalized(op, grouped, per_group, [2], float(attribute(node, "epsilon", 1e-5)))
    ds = op.ReduceSum(op.Mul(spread, unit), [0, 2], keepdims=0)
    return op.reshape_like(dx, x), ds, op.ReduceSum(spread, [0, 2], keepdims=0)


@vjp("MeanVarianceNormalization")
def mean_variance_normalization(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """d x̂, x̂ = (x - mean)/(σ + 1e-9) over the axes: (g - mean(g))/(σ + 1e-9) - x̂ mean(g x̂)/σ, 0 where σ is 0."""
    x, axes = node.inputs[0], attribute(node, "axes", [0, 2, 3])
    centred = op.Sub(x, op.ReduceMean(x, axes, keepdims=1))
    deviation = op.Sqrt(op.ReduceMean(op.Mul(centred, centred), axes, keepdims=1))
    width = op.Add(deviation, 1e-9)
    unit = op.Div(centred, width)
    along = op.Div(op.Mul(unit, op.ReduceMean(op.Mul(g, unit), axes, keepdims=1)), deviation)
    across = op.Div(op.Sub(g, op.ReduceMean(g, axes, keepdims=1)), width)
    return (zero_where(op, op.Equal(deviation, 0.0), op.Sub(across, along)),)


@vjp("LRN")
def lrn(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """d(x D^-β) = D^-β dx - β x D^(-β-1) dD, D = bias + α/size Σ x² over neighbouring channels.

    Both sums over channels are 1×1 convolutions with a banded matrix of ones.
    """
    x, size = node.inputs[0], int(attribute(node, "size"))
    alpha, beta = float(attribute(node, "alpha", 1e-4)), float(attribute(node, "beta", 0.75))
    shape = ranked_dims(node, x)
    if not isinstance(shape[1], int):
        raise NoGradientError(f"the number of channels that LRN (node {node.name!r}) reads is unknown")
    steps = np.arange(shape[1])[None, :] - np.arange(shape[1])[:, None]
    band = ((steps >= -((size - 1) // 2)) & (steps <= size // 2)).reshape(shape[1], shape[1], *[1] * (len(shape) - 2))
    squares = op.Conv(op.Mul(x, x), op.floats(band))
    width = op.Add(op.Mul(squares, alpha / size), float(attribute(node, "bias", 1.0)))
    shrunk = op.Mul(g, op.Pow(width, -beta))
    through_width = op.Conv(op.Div(op.Mul(shrunk, x), width), op.floats(band.swapaxes(0, 1)))
    return (op.Sub(shrunk, op.Mul(op.Mul(x, 2.0 * alpha * beta / size), through_width)),)


@vjp("LpNormalization")
def lp_normalization(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """d(x/|x|) = (dx - y d|x|)/|x| along the axis: 0 where |x| is 0."""
    x, y, axis = node.inputs[0], node.outputs[0], [attribute(node, "axis", -1)]
    if attribute(node, "p", 2) == 1:
        length, slope = op.ReduceL1(x, axis, keepdims=1), op.Sign(x)
    else:
        length, slope = op.ReduceL2(x, axis, keepdims=1), y
    across = op.Sub(g, op.Mul(slope, op.ReduceSum(op.Mul(g, y), axis, keepdims=1)))
    return (zero_where(op, op.Equal(length, 0.0), op.Div(across, length)),)


def _normalized(
    op: Emitter, x: ir.Value | None, h: ir.Value, axes: Sequence[int], epsilon: float
) -> tuple[ir.Value, ir.Value]:
    """(h - mean(h) - x̂ mean(h x̂)) / √(var + ε), the cotangent of x from h, that of x̂, with x̂ itself.

    The statistics are computed again: TensorRT and others offer no more than the first output of these operators.
    """
    centred = op.Sub(x, op.ReduceMean(x, axes, keepdims=1))
    width = op.Add(op.ReduceMean(op.Mul(centred, centred), axes, keepdims=1), epsilon)
    scale = op.Reciprocal(op.Sqrt(width))
    # x̂ mean(h x̂) as c (mean(h c)/(var + ε)) with c = x - mean: what is divided by has one entry a row.
    slope = op.Div(op.ReduceMean(op.Mul(h, centred), axes, keepdims=1), width)
    across = op.Sub(op.Sub(h, op.ReduceMean(h, axes, keepdims=1)), op.Mul(centred, slope))
    return op.Mul(across, scale), op.Mul(centred, scale)
