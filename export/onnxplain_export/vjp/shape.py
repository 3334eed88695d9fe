"""Operators that move, repeat, join and split entries."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxplain.errors import NoGradientError
from onnxplain_export.emitter import Dim, Emitter, attribute, constant_of, dims, ranked_dims
from onnxplain_export.vjp.registry import Cotangents, no_gradient, vjp

no_gradient("Constant", "ConstantOfShape", "EyeLike", "Shape", "Size")


@vjp("Reshape")
def reshape(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """The entries' order stays: g in the shape of x."""
    return _reshaped(op, node, g)


@vjp("Flatten")
def flatten(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """The entries' order stays: g in the shape of x."""
    return _reshaped(op, node, g)


@vjp("Squeeze")
def squeeze(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """The entries' order stays: g in the shape of x."""
    return _reshaped(op, node, g)


@vjp("Unsqueeze")
def unsqueeze(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """The entries' order stays: g in the shape of x."""
    return _reshaped(op, node, g)


@vjp("Transpose")
def transpose(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """The inverse permutation of g."""
    order = attribute(node, "perm")
    return (op.Transpose(g) if order is None else transposed(op, g, [int(axis) for axis in np.argsort(order)]),)


@vjp("Expand", broadcasts=True)
def expand(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """g summed over the repeated axes, which the walker does."""
    return g, None


@vjp("Tile")
def tile(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """g summed over the repetitions: each axis is split in (repetition, entry)."""
    x, repeats = node.inputs[0], constant_of(node.inputs[1])
    shape = ranked_dims(node, x)
    axes = [*range(0, 2 * len(shape), 2)]
    if repeats is None or sum(not isinstance(size, int) for size in shape) > 1:
        both = op.Concat(op.Unsqueeze(node.inputs[1], [1]), op.Unsqueeze(op.Shape(x), [1]), axis=1)
        return op.ReduceSum(op.Reshape(g, op.Reshape(both, [-1])), axes, keepdims=0), None
    counts = [int(count) for count in repeats]
    pairs = [(count, size if isinstance(size, int) else -1) for count, size in zip(counts, shape, strict=True)]
    apart = op.Reshape(g, [entry for pair in pairs for entry in pair])
    return op.ReduceSum(apart, axes, keepdims=0), None


@vjp("Concat")
def concat(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """Each input gets its piece of g."""
    if len(node.inputs) == 1:
        return (g,)
    shapes = [ranked_dims(node, x) for x in node.inputs]
    axis = attribute(node, "axis") % len(shapes[0])
    sizes = [shape[axis] for shape in shapes]
    known = all(isinstance(size, int) for size in sizes)
    if known and _joins(g.producer(), axis, shapes):
        return tuple(g.producer().inputs)
    if known:
        lengths = op.constant(sizes, np.int64)
    else:
        lengths = op.Concat(*[op.Shape(x, start=axis, end=axis + 1) for x in node.inputs], axis=0)
    return op.Split(g, lengths, axis=axis, outputs=len(sizes))


def _joins(node: ir.Node | None, axis: int, shapes: list[tuple[Dim, ...]]) -> bool:
    """Whether a rule has just joined pieces of these shapes along the axis."""
    if node is None or node.op_type != "Concat" or attribute(node, "axis") % len(shapes[0]) != axis:
        return False
    return [None if piece is None else dims(piece) for piece in node.inputs] == shapes


@vjp("Split", many_outputs=True)
def split(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """The pieces of g, joined; zeros for pieces that nothing reads."""
    pieces = [op.zeros_like(y) if piece is None else piece for piece, y in zip(g, node.outputs, strict=True)]
    return [op.Concat(*pieces, axis=attribute(node, "axis", 0)), None][: len(node.inputs)]


@vjp("DepthToSpace")
def depth_to_space(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """The entries moved back: SpaceToDepth, or its twin with the block inside the channels (mode CRD)."""
    s = attribute(node, "blocksize")
    if attribute(node, "mode", "DCR") == "DCR":
        return (op.SpaceToDepth(g, blocksize=s),)
    shape = ranked_dims(node, node.inputs[0])
    if not all(isinstance(size, int) for size in shape[1:]):
        raise NoGradientError(f"the size of what DepthToSpace (node {node.name!r}) reads is unknown")
    channels, height, width = (size for size in shape[1:] if isinstance(size, int))
    blocks = op.Reshape(g, [-1, channels // (s * s), height, s, width, s])
    return (op.Reshape(op.Transpose(blocks, perm=[0, 1, 3, 5, 2, 4]), [-1, channels, height, width]),)


@vjp("SpaceToDepth")
def space_to_depth(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """The entries moved back: DepthToSpace."""
    return (op.DepthToSpace(g, blocksize=attribute(node, "blocksize")),)


@vjp("Trilu")
def trilu(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """The same triangle of g."""
    k = node.inputs[1] if len(node.inputs) > 1 else None
    return [op.Trilu(g, k, upper=attribute(node, "upper", 1)), None][: len(node.inputs)]


@vjp("ReverseSequence")
def reverse_sequence(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """Reversed once more."""
    axes = {"batch_axis": attribute(node, "batch_axis", 1), "time_axis": attribute(node, "time_axis", 0)}
    return op.ReverseSequence(g, node.inputs[1], **axes), None


@vjp("Range")
def range_(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """d(start + i step) = d start + i d step; the limit only counts."""
    numbers = op.Cast(op.Range(0, op.Size(g), 1), to=int(op.float_type))
    return op.ReduceSum(g, keepdims=0), op.floats(0.0), op.ReduceSum(op.Mul(g, numbers), keepdims=0)


def transposed(op: Emitter, x: ir.Value, order: Sequence[int]) -> ir.Value:
    """`x` with its axes in another order; two transpositions in a row become one or, where they undo it, none."""
    source, first = transposed_from(x)
    both = [first[axis] for axis in order] if first is not None and len(first) == len(order) else None
    if both is None:
        return op.Transpose(x, perm=list(order))
    return source if both == sorted(both) else op.Transpose(source, perm=both)


def transposed_from(x: ir.Value) -> tuple[ir.Value, list[int] | None]:
    """What a transposition made `x` of, with the order of the axes; `x` itself and None where no such node did."""
    node = x.producer()
    source = node.inputs[0] if node is not None and node.op_type == "Transpose" else None
    order = None if node is None or source is None else attribute(node, "perm")
    return (x, None) if source is None or order is None else (source, order)


def _reshaped(op: Emitter, node: ir.Node, g: ir.Value) -> Cotangents:
    x = node.inputs[0]
    return [None if x is None else op.reshape_like(g, x), None][: len(node.inputs)]
