"""Operators that write entries at indices or pick them by n-dimensional ones; one gather or scatter along one axis."""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import onnx_ir as ir

from onnxplain.errors import NoGradientError
from onnxplain_export.emitter import Dim, Emitter, attribute, ranked_dims
from onnxplain_export.vjp.registry import Cotangents, vjp


@vjp("ScatterElements")
def scatter_elements(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """y = data with updates written at, or combined with, the entries at the indices; see `_Written`."""
    data, indices, updates = node.inputs
    written = _Written(op, indices, attribute(node, "axis", 0) % len(ranked_dims(node, data)))
    dx, du = written.gradients(attribute(node, "reduction", "none"), data, updates, g)
    return dx, None, du


@vjp("ScatterND")
def scatter_nd(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """The same for slices: data as [entries, slice], the indices as positions in its first axis."""
    data, indices, updates = node.inputs
    depth = _index_depth(node, indices)
    whole = ranked_dims(node, data)
    flat_data, flat_g = [_grouped(op, x, whole, [depth]) for x in (data, g)]
    positions = op.Reshape(_positions(op, node, 0, depth), [-1, 1])
    slices = _grouped(op, updates, ranked_dims(node, updates), [len(ranked_dims(node, indices)) - 1])
    written = _Written(op, op.Expand(positions, op.Shape(slices)), 0)
    dx, du = written.gradients(attribute(node, "reduction", "none"), flat_data, slices, flat_g)
    return _shaped(op, dx, data), None, _shaped(op, du, updates)


@vjp("GatherND")
def gather_nd(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """g added up at the indices: data as [batch, entries, slice], the indices as positions in its second axis."""
    data, indices = node.inputs
    batch = attribute(node, "batch_dims", 0)
    depth, tuples = _index_depth(node, indices), ranked_dims(node, indices)[:-1]
    whole = ranked_dims(node, data)
    slices = _grouped(op, g, (*tuples, *whole[batch + depth :]), [batch, len(tuples)])
    rows = _grouped(op, _positions(op, node, batch, depth), (*tuples, 1), [batch, len(tuples)])
    zeros = op.zeros_like(_grouped(op, data, whole, [batch, batch + depth]))
    total = op.ScatterElements(zeros, op.Expand(rows, op.Shape(slices)), slices, axis=1, reduction="add")
    return _shaped(op, total, data), None


@vjp("TopK")
def top_k(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """Each chosen entry gets its g, the others zeros; of equal entries the one that the forward pass chose."""
    return op.ScatterElements(
        op.zeros_like(_given(node, node.inputs[0])), node.outputs[1], g, axis=attribute(node, "axis", -1)
    ), None


@vjp("Compress")
def compress(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """g put back where the condition holds, along the axis or in the flattened x."""
    x, condition = _given(node, node.inputs[0]), node.inputs[1]
    axis = attribute(node, "axis")
    positions = op.Reshape(op.NonZero(condition), [-1])
    if axis is None:
        zeros = op.Expand(op.floats(0.0), op.Reshape(op.Size(x), [1]))
        return op.reshape_like(op.ScatterElements(zeros, positions, g, reduction="add"), x), None
    column = op.Reshape(positions, [-1] + [1] * (len(ranked_dims(node, x)) - axis % len(ranked_dims(node, x)) - 1))
    rows = op.Expand(column, op.Shape(g))
    return op.ScatterElements(op.zeros_like(x), rows, g, axis=axis, reduction="add"), None


@vjp("Unique")
def unique(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """Each entry gets the g of its value in y, divided among the equal ones."""
    x, axis = _given(node, node.inputs[0]), attribute(node, "axis")
    where = {} if axis is None else {"axis": axis}
    _, _, inverse, counts = op.Unique(x, outputs=4, sorted=attribute(node, "sorted", 1), **where)
    number = op.Cast(counts, to=int(op.float_type))
    if axis is None:
        return (op.reshape_like(op.Gather(op.Div(g, number), inverse), x),)
    rank = len(ranked_dims(node, x))
    column = op.Reshape(number, [-1] + [1] * (rank - axis % rank - 1))
    return (op.Gather(op.Div(g, column), inverse, axis=axis),)


@dataclass(frozen=True)
class _Written:
    """Updates at `indices` along one axis of some data."""

    op: Emitter
    indices: Any
    axis: int

    def gradients(self, reduction: str, data: Any, updates: Any, g: Any) -> tuple[ir.Value, ir.Value]:
        """The cotangents of data and updates.

        none: overwritten data gets nothing (the standard wants all indices different). add: g to both. mul: g times the
        product of the other factors. min, max: g to the extreme one, equal ones share it.
        """
        if reduction == "none":
            return self.put(g, self.op.zeros_like(updates), "none"), self.read(g)
        if reduction == "add":
            return g, self.read(g)
        if reduction == "mul":
            return self._of_product(data, updates, g)
        # The result is computed again: onnxruntime 1.31's ScatterND loses updates when it runs on several threads.
        return self._of_extreme(data, updates, self.put(data, updates, reduction), g)

    def read(self, x: ir.Value) -> ir.Value:
        """The entries of x at the indices."""
        return self.op.GatherElements(x, self.indices, axis=self.axis)

    def put(self, x: ir.Value, updates: ir.Value, reduction: str) -> ir.Value:
        """x with the updates at the indices."""
        return self.op.ScatterElements(x, self.indices, updates, axis=self.axis, reduction=reduction)

    def _of_extreme(self, data: Any, updates: Any, y: Any, g: Any) -> tuple[ir.Value, ir.Value]:
        op = self.op
        kept = op.Cast(op.Equal(data, y), to=int(op.float_type))
        chosen = op.Cast(op.Equal(updates, self.read(y)), to=int(op.float_type))
        share = op.Div(g, self.put(kept, chosen, "add"))
        return op.Mul(kept, share), op.Mul(chosen, self.read(share))

    def _of_product(self, data: Any, updates: Any, g: Any) -> tuple[ir.Value, ir.Value]:
        """Zeros are counted and left out of the product: where one factor is 0, it alone has a derivative."""
        op = self.op
        zeros = [op.Equal(x, 0.0) for x in (data, updates)]
        factors = [op.Where(zero, 1.0, x) for zero, x in zip(zeros, (data, updates), strict=True)]
        counts = [op.Cast(zero, to=int(op.float_type)) for zero in zeros]
        product, number = self.put(factors[0], factors[1], "mul"), self.put(counts[0], counts[1], "add")
        scaled = op.Mul(g, product)
        return (
            op.Where(op.Equal(number, counts[0]), op.Div(scaled, factors[0]), 0.0),
            op.Where(op.Equal(self.read(number), counts[1]), op.Div(self.read(scaled), factors[1]), 0.0),
        )


def _positions(op: Emitter, node: ir.Node, first: int, depth: int) -> ir.Value:
    """The index tuples, counted through the `depth` axes of data that follow `first`; [*tuples]."""
    data, indices = node.inputs[:2]
    sizes = ranked_dims(node, data)
    total: Any = None
    for level in range(depth):
        known = sizes[first + level]
        size = known if isinstance(known, int) else op.Gather(op.Shape(data), first + level)
        index = op.Gather(indices, level, axis=-1)
        index = op.Where(op.Less(index, 0), op.Add(index, size), index)
        total = index if total is None else op.Add(op.Mul(total, size), index)
    return total


def _index_depth(node: ir.Node, indices: ir.Value | None) -> int:
    """How many axes one index tuple names."""
    depth = ranked_dims(node, indices)[-1]
    if not isinstance(depth, int):
        raise NoGradientError(
            f"{node.op_type} (node {node.name!r}): the last axis of the indices must have a known size"
        )
    return depth


def _grouped(op: Emitter, x: Any, known: tuple[Dim, ...], cuts: list[int]) -> ir.Value:
    """x, whose shape is `known`, with its axes merged in groups: before the first cut, …, from the last cut on."""
    edges = list(pairwise([0, *cuts, len(known)]))
    sizes: list[int | None] = []
    for start, end in edges:
        numbers = [size for size in known[start:end] if isinstance(size, int)]
        sizes.append(math.prod(numbers) if len(numbers) == end - start else None)
    if sizes.count(None) <= 1 and 0 not in sizes:
        return op.Reshape(x, [-1 if size is None else size for size in sizes])
    shape = op.Shape(x)
    parts = [
        op.ReduceProd(op.Slice(shape, [start], [end]), keepdims=1) if size is None else op.constant([size])
        for size, (start, end) in zip(sizes, edges, strict=True)
    ]
    return op.Reshape(x, op.Concat(*parts, axis=0))


def _shaped(op: Emitter, g: ir.Value, x: ir.Value | None) -> Any:
    return None if x is None else op.reshape_like(g, x)


def _given(node: ir.Node, x: ir.Value | None) -> ir.Value:
    if x is None:
        raise NoGradientError(f"{node.op_type} (node {node.name!r}) lacks an input")
    return x
