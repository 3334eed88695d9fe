"""Operators that read some of the entries: their cotangents are written back where the entries came from."""

import math
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxplain.errors import NoGradientError
from onnxplain_export.emitter import Dim, Emitter, attribute, constant_of, ranked_dims
from onnxplain_export.vjp.registry import Cotangents, no_gradient, vjp

no_gradient("NonMaxSuppression", "NonZero", "OneHot")
# A tree picks one of its leaves: constant between the thresholds.
no_gradient("ai.onnx.ml::TreeEnsemble", "ai.onnx.ml::TreeEnsembleClassifier", "ai.onnx.ml::TreeEnsembleRegressor")


@vjp("Slice")
def slice_(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """g between zeros: the entries that the slice left out have none."""
    shape = ranked_dims(node, node.inputs[0])
    for axis, start, end, step in _slice_arguments(node, len(shape)):
        size = shape[axis]
        if isinstance(size, int):
            # Python and ONNX cut alike, except that ONNX moves a start before the first entry to that entry.
            g = _put_back(op, g, np.arange(size)[max(start, -size) : end : step], shape, axis)
        elif (start, step) != (0, 1) or end < np.iinfo(np.int32).max:
            raise NoGradientError(f"Slice (node {node.name!r}) cuts axis {axis}, whose size is unknown")
    return [g, *[None] * (len(node.inputs) - 1)]


@vjp("Gather")
def gather(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """g added up at the indices: by constant positions where they are known and different, else by ScatterElements."""
    x, indices = node.inputs
    shape, index_shape = ranked_dims(node, x), ranked_dims(node, indices)
    axis = attribute(node, "axis", 0) % len(shape)
    if len(index_shape) != 1:
        g = _one_index_axis(op, node, g, axis, index_shape)
    fixed, size = constant_of(indices), shape[axis]
    if fixed is not None and isinstance(size, int):
        positions = np.where(fixed < 0, fixed + size, fixed).reshape(-1)
        if len(np.unique(positions)) == positions.size:
            return _put_back(op, g, positions, shape, axis), None
    column = op.Reshape(indices, [-1] + [1] * (len(shape) - axis - 1))
    return _add_at(op, x, op.Expand(column, op.Shape(g)), g, axis), None


@vjp("GatherElements")
def gather_elements(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """g added up at the indices."""
    x, indices = node.inputs
    return _add_at(op, x, indices, g, attribute(node, "axis", 0)), None


def _add_at(op: Emitter, x: Any, indices: Any, g: ir.Value, axis: int) -> ir.Value:
    """g added up at the indices along the axis; never ScatterND, which adds with a data race in onnxruntime 1.31."""
    return op.ScatterElements(op.zeros_like(x), indices, g, axis=axis, reduction="add")


def _put_back(op: Emitter, g: ir.Value, positions: np.ndarray, shape: tuple[Dim, ...], axis: int) -> ir.Value:
    """g with the k-th entry along the axis at `positions[k]` (all different) of `shape`, zeros elsewhere."""
    size, count = shape[axis], len(positions)
    if not isinstance(size, int):
        raise ValueError("the axis must have a known size")
    if np.array_equal(positions, np.arange(size)):
        return g
    pads = np.zeros((2, len(shape)), dtype=np.int64)
    if count and np.array_equal(positions, np.arange(positions[0], positions[0] + count)):
        pads[:, axis] = positions[0], size - positions[0] - count
        return op.Pad(g, op.constant(pads.reshape(-1)))
    pads[1, axis] = 1
    source = np.full(size, count, dtype=np.int64)
    source[positions] = np.arange(count)
    return op.Gather(op.Pad(g, op.constant(pads.reshape(-1))), op.constant(source), axis=axis)


def _one_index_axis(op: Emitter, node: ir.Node, g: ir.Value, axis: int, index_shape: tuple[Dim, ...]) -> ir.Value:
    """g with the axes of the indices, none or many, made one."""
    if not index_shape:
        return op.Unsqueeze(g, [axis])
    x, known = node.inputs[0], [size for size in index_shape if isinstance(size, int)]
    shape = ranked_dims(node, x)
    count = math.prod(known) if len(known) == len(index_shape) else None
    sizes = [*shape[:axis], count, *shape[axis + 1 :]]
    if sum(not isinstance(size, int) for size in sizes) <= 1:
        return op.Reshape(g, [size if isinstance(size, int) else -1 for size in sizes])
    around = op.Shape(x)
    before, after = op.Slice(around, [0], [axis], [0]), op.Slice(around, [axis + 1], [len(shape)], [0])
    return op.Reshape(g, op.Concat(before, [-1], after, axis=0))


def _slice_arguments(node: ir.Node, rank: int) -> list[tuple[int, int, int, int]]:
    """(axis, start, end, step) of each axis that a Slice cuts."""
    given = [constant_of(value) for value in node.inputs[1:]]
    if any(value is not None and array is None for value, array in zip(node.inputs[1:], given, strict=True)):
        raise NoGradientError(f"the bounds of Slice (node {node.name!r}) are computed while the model runs")
    starts, ends, *rest = (array.tolist() for array in given if array is not None)
    axes = [axis % rank for axis in rest[0]] if len(given) > 2 and given[2] is not None else range(len(starts))
    steps = rest[-1] if len(given) > 3 and given[3] is not None else [1] * len(starts)
    return list(zip(axes, starts, ends, steps, strict=True))
