"""Branches and loops: the gradient of a graph inside a graph is a graph inside the gradient.

What a branch or a body takes from outside counts as inputs of its node, after the listed ones. Loops whose number of
steps is known are unrolled before, and other plain ones made a Scan, by `normalize/control_flow.py`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from onnxplain_export.emitter import Emitter, attribute, captured, copied, ranked_dims
from onnxplain_export.vjp.registry import Cotangents, vjp
from onnxplain_export.vjp.steps import reversed_

FLOATS = frozenset({ir.DataType.FLOAT, ir.DataType.DOUBLE})


@vjp("If", many_outputs=True)
def if_(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """The gradient of the branch that is taken; zeros for what only the other one reads."""
    taken = captured(node)
    wanted = [value for value in taken if op.wants(value)]
    branches = {}
    for name in ("then_branch", "else_branch"):
        inner = _copied(op, node, name)
        found = _pulled_back(inner, inner.graph.outputs, g, wanted)
        _put_out(inner, [found.get(value) or inner.zeros_like(value) for value in wanted])
        branches[name] = inner.graph
    gradients = _listed(op.If(node.inputs[0], **branches, outputs=len(wanted)))
    by_value = dict(zip(wanted, gradients, strict=True))
    return [None, *(by_value.get(value) for value in taken)]


@dataclass(frozen=True)
class Wanted:
    """What of a Scan gets a cotangent, by index: of its inputs and, after those, what its body takes from outside.

    `arriving` are the indices of the outputs put together that have one.
    """

    states: Sequence[int]
    scanned: Sequence[int]
    taken: Sequence[ir.Value]
    arriving: Sequence[int]


@vjp("Scan", many_outputs=True)
def scan(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """One Scan forwards that keeps the states, one backwards through the body's gradient.

    The backward one carries the states' cotangents and the sums of those of what the body takes from outside.
    """
    operands: Any = node.inputs
    count = _state_count(node)
    states, taken = operands[:count], captured(node)
    wanted = Wanted(
        states=[k for k, state in enumerate(states) if _is_float(state)],
        scanned=[k for k, x in enumerate(operands) if k >= count and op.wants(x)],
        taken=[value for value in taken if op.wants(value)],
        arriving=[k for k, gy in enumerate(g) if k >= count and gy is not None],
    )
    sequences = [_to_front(op, node, x, k, "input") for k, x in enumerate(operands[count:])]
    cotangents = [_to_front(op, node, g[k], k - count, "output") for k in wanted.arriving]
    first = [g[k] or op.zeros_like(states[k]) for k in wanted.states]
    first += [op.zeros_like(value) for value in wanted.taken]
    backwards = [reversed_(op, x) for x in (*_kept_states(op, node, states, sequences), *sequences, *cotangents)]
    body = _backward_body(op, node, wanted)
    gradients = _listed(
        op.Scan(*first, *backwards, body=body, num_scan_inputs=len(backwards), outputs=len(body.outputs))
    )
    answers: dict[int | ir.Value, ir.Value] = dict(zip((*wanted.states, *wanted.taken), gradients, strict=False))
    for k, dx in zip(wanted.scanned, gradients[len(first) :], strict=True):
        answers[k] = _from_front(op, node, reversed_(op, dx), k - count)
    return [*(answers.get(k) for k in range(len(operands))), *(answers.get(value) for value in taken)]


def _backward_body(op: Emitter, node: ir.Node, wanted: Wanted) -> ir.Graph:
    """(cotangents of states, sums for what is taken; states, sequences, cotangents) → (both, cotangents of sequences).

    One step of the body and its gradient.
    """
    inner = _copied(op, node, "body")
    body = inner.graph
    entries, results = list(body.inputs), list(body.outputs)
    d_states = [_input(inner, f"d_state_{k}", entries[k]) for k in wanted.states]
    sums = [_input(inner, f"sum_{k}", value) for k, value in enumerate(wanted.taken)]
    d_outputs = [_input(inner, f"d_output_{k}", results[k]) for k in wanted.arriving]
    arriving = dict(zip((*wanted.states, *wanted.arriving), (*d_states, *d_outputs), strict=True))
    differentiated = [entries[k] for k in (*wanted.states, *wanted.scanned)]
    g = [arriving.get(k) for k in range(len(results))]
    found = _pulled_back(inner, results, g, [*differentiated, *wanted.taken])
    d_entries = [found.get(entry) or inner.zeros_like(entry) for entry in differentiated]
    pairs = zip(sums, (found.get(value) for value in wanted.taken), strict=True)
    added = [total if part is None else inner.Add(total, part) for total, part in pairs]
    body.inputs.clear()
    body.inputs.extend([*d_states, *sums, *entries, *d_outputs])
    _put_out(inner, [*d_entries[: len(d_states)], *added, *d_entries[len(d_states) :]])
    return body


def _kept_states(op: Emitter, node: ir.Node, states: Sequence[Any], sequences: Sequence[ir.Value]) -> list[ir.Value]:
    """Each state as every step finds it, by the same Scan without its other results."""
    if not states:
        return []
    inner = _copied(op, node, "body", "again")
    count = len(states)
    _put_out(inner, [*inner.graph.outputs[:count], *inner.graph.inputs[:count]])
    results = op.Scan(*states, *sequences, body=inner.graph, num_scan_inputs=len(sequences), outputs=2 * count)
    return list(results[count:])


def _pulled_back(
    inner: Emitter, outputs: Sequence[ir.Value], g: Iterable[ir.Value | None], wanted: Sequence[ir.Value]
) -> Mapping[ir.Value, ir.Value]:
    """The cotangents of `wanted` that reach them inside, for the cotangents `g` of the graph's outputs."""
    if inner.pull_back is None:
        raise ValueError("this emitter isn't one of a walk")
    seeds: dict[ir.Value, ir.Value] = {}
    for output, value in zip(outputs, g, strict=True):
        if value is not None:
            seeds[output] = inner.Add(seeds[output], value) if output in seeds else value
    return inner.pull_back(inner, list(inner.graph), seeds, wanted)


def _copied(op: Emitter, node: ir.Node, which: str, purpose: str = "back") -> Emitter:
    """Writes at the end of a copy of one of the node's graphs, whose names are new."""
    own = next(value.name for value in node.outputs if value.name)
    prefix = f"{op.prefix}/{which}_of_{own}/{purpose}"
    inner = Emitter(copied(attribute(node, which), prefix), prefix, op.float_type)
    inner.pull_back = op.pull_back
    return inner


def _put_out(inner: Emitter, values: Sequence[ir.Value]) -> None:
    """Makes `values` the graph's outputs: by Identity, since one may be an input, from outside or there twice."""
    results = [inner.Identity(value) for value in values]
    inner.graph.outputs.clear()
    inner.graph.outputs.extend(results)


def _input(inner: Emitter, name: str, like: ir.Value | None) -> ir.Value:
    return ir.val(f"{inner.prefix}/{name}", dtype=None if like is None else like.dtype)


def _is_float(value: ir.Value | None) -> bool:
    return value is not None and (value.dtype is None or value.dtype in FLOATS)


def _listed(results: Any) -> list[ir.Value]:
    return [results] if isinstance(results, ir.Value) else list(results)


def _state_count(node: ir.Node) -> int:
    return len(node.inputs) - int(attribute(node, "num_scan_inputs"))


def _axis(node: ir.Node, k: int, side: str) -> int:
    axes = attribute(node, f"scan_{side}_axes") or []
    return int(axes[k]) if k < len(axes) else 0


def _backwards(node: ir.Node, k: int, side: str) -> bool:
    directions = attribute(node, f"scan_{side}_directions") or []
    return k < len(directions) and directions[k] == 1


def _to_front(op: Emitter, node: ir.Node, value: ir.Value, k: int, side: str) -> ir.Value:
    """A sequence with its steps along axis 0, in the order in which they are run."""
    axis = _axis(node, k, side)
    if axis:
        rank = len(ranked_dims(node, (node.inputs if side == "input" else node.outputs)[_state_count(node) + k]))
        value = op.Transpose(value, perm=[axis % rank, *(i for i in range(rank) if i != axis % rank)])
    return reversed_(op, value) if _backwards(node, k, side) else value


def _from_front(op: Emitter, node: ir.Node, value: ir.Value, k: int) -> ir.Value:
    """The cotangent of a scanned input in that input's own axes and order."""
    value = reversed_(op, value) if _backwards(node, k, "input") else value
    axis = _axis(node, k, "input")
    if not axis:
        return value
    rank = len(ranked_dims(node, node.inputs[_state_count(node) + k]))
    return op.Transpose(value, perm=[*range(1, axis % rank + 1), 0, *range(axis % rank + 1, rank)])
