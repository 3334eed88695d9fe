"""Operators that read some of the entries: their cotangents are written back where the entries came from."""

import math
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxplain_export.emitter import Dim, Emitter, attribute, constant_of, dims, ranked_dims
from onnxplain_export.vjp.registry import Cotangents, no_gradient, vjp

no_gradient("NonMaxSuppression", "NonZero")


@vjp("Slice")
def slice_(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """g between zeros: the entries that the slice left out have none."""
    arguments = _slice_arguments(node)
    if arguments is None:
        return [_slice_at_run_time(op, node, g), *[None] * (len(node.inputs) - 1)]
    shape = ranked_dims(node, node.inputs[0])
    for axis, start, end, step in arguments:
        size = shape[axis]
        if isinstance(size, int):
            # Python and ONNX cut alike, except that ONNX moves a start before the first entry to that entry.
            g = _put_back(op, g, np.arange(size)[max(start, -size) : end : step], shape, axis)
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


@vjp("OneHot")
def one_hot(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """y = off + (on - off) h with h of zeros and ones: d off = Σ (1 - h) g, d on = Σ h g."""
    indices, depth, _ = node.inputs
    hot = op.Cast(op.OneHot(indices, depth, [0, 1], axis=attribute(node, "axis", -1)), to=int(op.float_type))
    on = op.ReduceSum(op.Mul(g, hot), keepdims=0)
    off = op.ReduceSum(op.Mul(g, op.Sub(1.0, hot)), keepdims=0)
    return None, None, op.Concat(op.Unsqueeze(off, [0]), op.Unsqueeze(on, [0]), axis=0)


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


def _slice_arguments(node: ir.Node) -> list[tuple[int, int, int, int]] | None:
    """(axis, start, end, step) of each axis that a Slice cuts; None where that is known only when the model runs."""
    given = [constant_of(value) for value in node.inputs[1:]]
    if any(value is not None and array is None for value, array in zip(node.inputs[1:], given, strict=True)):
        return None
    shape = dims(node.inputs[0]) if node.inputs[0] is not None else None
    if shape is None:
        return None
    starts, ends, *rest = (array.tolist() for array in given if array is not None)
    axes = [axis % len(shape) for axis in rest[0]] if len(given) > 2 and given[2] is not None else range(len(starts))
    steps = rest[-1] if len(given) > 3 and given[3] is not None else [1] * len(starts)
    arguments = list(zip(axes, starts, ends, steps, strict=True))
    uncut = [(start, step) == (0, 1) and end >= np.iinfo(np.int32).max for _, start, end, step in arguments]
    known = [isinstance(shape[axis], int) or whole for axis, whole in zip(axes, uncut, strict=True)]
    return arguments if all(known) else None


def _slice_at_run_time(op: Emitter, node: ir.Node, g: ir.Value) -> ir.Value:
    """The entries' numbers, cut as the entries were, say where g belongs."""
    x = node.inputs[0]
    count, last = op.Size(x), [-1]
    numbers = op.Reshape(op.Range(0, count, 1), op.Shape(x))
    starts, ends, axes, *steps = (*node.inputs[1:], None)[: max(len(node.inputs) - 1, 3)]
    if axes is None:  # onnxruntime 1.31 drops a Slice from 0 to the end without axes, whatever its steps
        axes = op.CastLike(op.Range(0, op.Size(starts), 1), starts)
    left = op.Reshape(op.Slice(numbers, starts, ends, axes, *steps), last)
    zeros = op.Expand(op.floats(0.0), op.Reshape(count, [1]))
    return op.Reshape(op.ScatterElements(zeros, left, op.Reshape(g, last), reduction="add"), op.Shape(x))
