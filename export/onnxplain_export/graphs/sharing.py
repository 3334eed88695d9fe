"""Several targets of an image share its forward pass: only what the reverse pass reads of it is repeated.

The network runs on N·K rows and the reverse pass on N·K·T. What depends on the rows alone (the forward pass, but also
the masks and slopes that rules make of it) is computed once for each row, and repeated where it meets a cotangent.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from onnxplain.errors import NoGradientError
from onnxplain_export.autodiff import FLOATS, describe, reads
from onnxplain_export.emitter import Dim, Emitter, attribute, dims, subgraphs

ROWS, REPEATED = "rows", "rows·targets"
"""The axis of the rows that the network runs on, and of those of the reverse pass."""


def repeat_rows(
    op: Emitter,
    forward: Iterable[ir.Node],
    roots: Sequence[ir.Value],
    cotangent: ir.Value,
    result: ir.Value,
    targets: ir.Value,
) -> None:
    """Repeats what depends on `roots` [rows, …] `targets` ([1]) times where it meets the `cotangent` on to `result`.

    `forward` are the nodes that were there before the reverse pass. All are in topological order, shapes inferred.
    NoGradientError where something that is to be repeated doesn't begin with the rows' axis.
    """
    needed = _leading(list(op.graph), result)
    nodes = [node for node in op.graph if node in needed]
    there = set(forward)
    of_rows = _depending(nodes, roots)
    # What the reverse pass counts with a shape counts its own rows.
    shapes = {n.outputs[0]: n.inputs[0] for n in nodes if n.op_type == "Shape" and n not in there}
    shapes = {shape: value for shape, value in shapes.items() if value in of_rows}
    late = _depending(nodes, [cotangent, *shapes])
    maps = {dims(node.outputs[0]) for node in there if node.op_type == "Conv"}
    repeating = _Repeating(op, op.Shape(roots[0], start=0, end=1), targets, {axes[1:] for axes in maps if axes})
    repeated: dict[ir.Value, ir.Value] = {}
    for shape in [shape for shape, value in shapes.items() if value not in late]:
        repeating.lengthen(shape)
    for node in nodes:
        if node in there or node.op_type == "Shape" or not any(output in late for output in node.outputs):
            continue
        if any(value in of_rows for body in subgraphs(node) for held in body.all_nodes() for value in held.inputs):
            raise NoGradientError(f"{describe(node)} reads the forward pass from inside a branch or a body")
        for index, value in enumerate(node.inputs):
            if value is not None and value in of_rows and value not in late:
                if value not in repeated:
                    repeated[value] = repeating.repeated(value, node)
                node.replace_input_with(index, repeated[value])
        for output in node.outputs:
            output.shape = repeated_shape(output)


def _depending(nodes: Sequence[ir.Node], roots: Iterable[ir.Value]) -> set[ir.Value]:
    found = set(roots)
    for node in nodes:
        if any(value in found for value in reads(node)):
            found.update(node.outputs)
    return found


def _leading(nodes: Sequence[ir.Node], result: ir.Value) -> set[ir.Node]:
    """The nodes that `result` is computed by; a rule may have emitted others."""
    wanted, found = {result}, set()
    for node in reversed(nodes):
        if any(output in wanted for output in node.outputs):
            found.add(node)
            wanted.update(value for value in reads(node) if value is not None)
    return found


def repeated_shape(value: ir.Value) -> ir.Shape | None:
    """What a value's shape [rows, …] becomes; None, to be inferred again, for another."""
    axes = dims(value) or ()
    return ir.Shape([REPEATED, *axes[1:]]) if axes[:1] == (ROWS,) else None


@dataclass(frozen=True)
class _Repeating:
    """How values are repeated: `rows` and `targets` are their numbers at run time, each [1].

    `maps` are the shapes of one image's feature maps.
    """

    op: Emitter
    rows: ir.Value
    targets: ir.Value
    maps: set[tuple[Dim, ...]]
    zeros: dict[tuple[Dim, ...], ir.Value] = field(default_factory=dict)

    def repeated(self, value: ir.Value, reader: ir.Node) -> ir.Value:
        """[rows·m, …] → [rows·T·m, …], the m entries of a row staying together."""
        axes = dims(value)
        if not axes or isinstance(axes[0], int) or not all(isinstance(axis, int) for axis in axes[1:]):
            raise NoGradientError(f"{describe(reader)} reads {value.name!r} {axes}, which doesn't begin with the rows")
        if len(axes) == 1 and value.dtype not in FLOATS:
            raise NoGradientError(f"{describe(reader)} reads {value.name!r}, a shape or places counted over all rows")
        blocked = value.dtype != ir.DataType.FLOAT16  # half precision is for accelerators, which know no such layout
        if blocked and axes[0] == ROWS and axes[1:] in self.maps and reader.op_type in ("Add", "Mul"):
            return self._repeated_map(value, axes)
        return self._times(value, self.targets)

    def _times(self, value: ir.Value, times: ir.Value) -> ir.Value:
        op = self.op
        apart = op.Reshape(value, op.Concat(self.rows, [1, -1], axis=0))
        wide = op.Expand(apart, op.Concat([1], times, [1], axis=0))
        return op.Reshape(wide, [-1, *(int(str(axis)) for axis in (dims(value) or ())[1:])])

    def _repeated_map(self, value: ir.Value, axes: tuple[Dim, ...]) -> ir.Value:
        """Feature maps [rows, C, H, W] → [rows·T, C, H, W]; those of a single row by adding zeros [T, C, 1, W].

        It is the one way to repeat rows in the blocked layout of onnxruntime's convolutions: an Expand makes everything
        behind it leave that layout, which takes longer than the masks themselves.
        """
        op, channels, width = self.op, axes[1], axes[3]
        several = op.Where(op.Equal(self.rows, 1), 1, self.targets)
        there = op.Conv(self._times(value, several), op.floats(np.ones((channels, 1, 1, 1))), group=channels)
        there.shape, there.type = ir.Shape([None, *axes[1:]]), value.type
        if (channels, width) not in self.zeros:
            line = op.Expand(op.floats(0.0), op.Concat(op.Mul(self.rows, self.targets), [1, 1, width], axis=0))
            zeros = op.Conv(line, op.floats(np.zeros((channels, 1, 1, 1))))
            zeros.shape, zeros.type = ir.Shape([REPEATED, channels, 1, width]), value.type
            self.zeros[channels, width] = zeros
        wide = op.Add(there, self.zeros[channels, width])
        wide.shape, wide.type = ir.Shape([REPEATED, *axes[1:]]), value.type
        return wide

    def lengthen(self, shape: ir.Value) -> None:
        """Makes all who read a value's shape read the one that it will have: its first axis T times as long."""
        node, axes, op = shape.producer(), dims(shape), self.op
        if node is None or attribute(node, "start", 0) != 0 or not axes or not isinstance(axes[0], int):
            raise NoGradientError(f"the reverse pass reads a part of the shape {shape.name!r}")
        readers = list(shape.uses())
        factors = self.targets if axes[0] == 1 else op.Concat(self.targets, [1] * (axes[0] - 1), axis=0)
        longer = op.Mul(shape, factors)
        for reader, index in readers:
            reader.replace_input_with(index, longer)
