"""Sequences and optionals whose content is known at export become what they hold."""

# ruff: noqa: ARG001 (the functions of a table have one signature)

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from onnxplain_export.emitter import Emitter, attribute, constant_of, dims
from onnxplain_export.normalize.replacing import own_name, replace_node

Held = dict[ir.Value, list[ir.Value]]
"""What each sequence holds; of an optional, its one value."""


def fold_sequences(graph: ir.Graph) -> int:
    """Replaces what is read from known sequences by their entries; returns how many nodes were replaced.

    The nodes that only made a sequence stay, for the removal of unused nodes.
    """
    held: Held = {}
    replaced = 0
    for node in list(graph):
        if node.domain != "":
            continue
        entries = _MAKERS[node.op_type](graph, node, held) if node.op_type in _MAKERS else None
        if entries is not None:
            held[node.outputs[0]] = entries
        elif node.op_type in _READERS and node.inputs[0] in held:
            result = _READERS[node.op_type](Emitter(graph, f"{own_name(node)}/read"), node, held[node.inputs[0]])
            if result is not None:
                replace_node(graph, node, [result])
                replaced += 1
    if replaced:
        graph.sort()
    return replaced


def _constructed(graph: ir.Graph, node: ir.Node, held: Held) -> list[ir.Value] | None:
    return [value for value in node.inputs if value is not None]


def _split(graph: ir.Graph, node: ir.Node, held: Held) -> list[ir.Value] | None:
    """The pieces: of the given lengths, of one given length, or slices without the axis unless `keepdims`."""
    x, given = node.inputs[0], node.inputs[1] if len(node.inputs) > 1 else None
    lengths, known = constant_of(given), None if x is None else dims(x)
    axis = attribute(node, "axis", 0)
    size = None if known is None else known[axis]
    if x is None or (given is not None and lengths is None) or not (isinstance(size, int) and node.outputs[0].uses()):
        return None
    if lengths is None or lengths.ndim == 0:
        step = 1 if lengths is None else int(lengths)
        sizes = [min(step, size - start) for start in range(0, size, step)]
    else:
        sizes = [int(length) for length in lengths]
    op = Emitter(graph, f"{own_name(node)}/pieces")
    parts = [x] if len(sizes) == 1 else list(op.Split(x, sizes, axis=axis, outputs=len(sizes)))
    if given is None and not attribute(node, "keepdims", 1):
        parts = [op.Squeeze(part, [axis]) for part in parts]
    return parts


def _inserted(graph: ir.Graph, node: ir.Node, held: Held) -> list[ir.Value] | None:
    sequence, entry, *place = node.inputs
    at = _place(place, len(held[sequence]), 0) if sequence in held else None
    return None if at is None or entry is None else [*held[sequence][:at], entry, *held[sequence][at:]]  # type: ignore[index]


def _erased(graph: ir.Graph, node: ir.Node, held: Held) -> list[ir.Value] | None:
    sequence, *place = node.inputs
    at = _place(place, len(held[sequence]), 1) if sequence in held else None
    return None if at is None else [*held[sequence][:at], *held[sequence][at + 1 :]]  # type: ignore[index]


def _same(graph: ir.Graph, node: ir.Node, held: Held) -> list[ir.Value] | None:
    return held.get(node.inputs[0]) if node.inputs[0] is not None else None


def _place(given: Sequence[ir.Value | None], count: int, before_end: int) -> int | None:
    """A position among `count` entries as a number from 0; that far before the end where none is given."""
    if not given or given[0] is None:
        return count - before_end
    content = constant_of(given[0])
    return None if content is None else int(content) + (count if content < 0 else 0)


def _entry(op: Emitter, node: ir.Node, entries: list[ir.Value]) -> ir.Value | None:
    place = constant_of(node.inputs[1])
    return None if place is None else entries[int(place)]


def _joined(op: Emitter, node: ir.Node, entries: list[ir.Value]) -> ir.Value:
    axis = attribute(node, "axis")
    parts = [op.Unsqueeze(entry, [axis]) for entry in entries] if attribute(node, "new_axis", 0) else entries
    return op.Concat(*parts, axis=axis)


def _length(op: Emitter, node: ir.Node, entries: list[ir.Value]) -> ir.Value:
    return op.constant(len(entries), np.int64)


def _content(op: Emitter, node: ir.Node, entries: list[ir.Value]) -> ir.Value | None:
    return entries[0] if len(entries) == 1 else None


def _presence(op: Emitter, node: ir.Node, entries: list[ir.Value]) -> ir.Value:
    return op.constant(len(entries) == 1)


_MAKERS: dict[str, Callable[[ir.Graph, ir.Node, Held], list[ir.Value] | None]] = {
    "Identity": _same,
    "Optional": _constructed,
    "SequenceConstruct": _constructed,
    "SequenceEmpty": _constructed,
    "SequenceErase": _erased,
    "SequenceInsert": _inserted,
    "SplitToSequence": _split,
}
_READERS: dict[str, Callable[[Emitter, ir.Node, list[ir.Value]], ir.Value | None]] = {
    "ConcatFromSequence": _joined,
    "OptionalGetElement": _content,
    "OptionalHasElement": _presence,
    "SequenceAt": _entry,
    "SequenceLength": _length,
}
