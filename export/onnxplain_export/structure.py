"""How a network is built, apart from what it has learned: its nodes in order, what they read, their attributes."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import onnx_ir as ir

from onnxplain.errors import ModelError
from onnxplain_export.emitter import captured
from onnxplain_export.origins import source_tensors

WEIGHT = "weight "
"""What stands before a tensor's name among the things that a node reads."""

LONGEST = 60
"""Characters of an attribute in a message."""
ENDS = ("inputs", "outputs")

Line = Mapping[str, Any]
"""A node: its "op", its "name", what it reads ("inputs"), and its "attributes" as text by name."""


def structure_of(model: ir.Model) -> list[Line]:
    """The nodes of a source whose constants are initializers, with those of branches and bodies behind their node.

    What a node reads is "input 0" of the graph, "body 3.0" of the third body, output "5.0" of the fifth node,
    "weight NAME", or "" for what is left out. The first line is the graph's inputs, the last its outputs.
    """
    names: dict[ir.Value | None, str] = {None: ""}
    names.update((value, f"input {index}") for index, value in enumerate(model.graph.inputs))
    for number, body in enumerate(model.graph.subgraphs()):
        names.update((value, f"body {number}.{index}") for index, value in enumerate(body.inputs))
    names.update((value, WEIGHT + name) for name, value in source_tensors(model))
    ends = _plain_outputs(model.graph)
    needed = _leading_to(ends)
    nodes = [node for node in model.graph.all_nodes() if node in needed or node.graph is not model.graph]
    for number, node in enumerate(nodes):
        names.update((value, f"{number}.{index}") for index, value in enumerate(node.outputs))
    lines: list[Line] = [
        {
            "op": f"{node.domain}::{node.op_type}" if node.domain else node.op_type,
            "name": str(node.name),
            "inputs": [names.get(value, "?") for value in node.inputs],
            "attributes": dict(_attributes(node, names)),
        }
        for node in nodes
    ]
    shapes = {f"input {index}": _shape(value) for index, value in enumerate(model.graph.inputs)}
    return [
        {"op": "inputs", "name": "", "inputs": [], "attributes": shapes},
        *lines,
        {"op": "outputs", "name": "", "inputs": [names.get(value, "?") for value in ends], "attributes": {}},
    ]


def _plain_outputs(graph: ir.Graph) -> list[ir.Value]:
    """The outputs that standard operators compute (a label isn't one), or all where there are none."""
    foreign: set[ir.Value | None] = set()
    for node in graph:
        if node.domain != "" or any(value in foreign for value in node.inputs):
            foreign.update(node.outputs)
    return [value for value in graph.outputs if value not in foreign] or list(graph.outputs)


def _leading_to(ends: Sequence[ir.Value]) -> set[ir.Node]:
    found: set[ir.Node] = set()
    waiting = [value.producer() for value in ends]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in found:
            found.add(node)
            waiting += [value.producer() for value in (*node.inputs, *captured(node)) if value is not None]
    return found


def matched_weights(old: Sequence[Line], new: Sequence[Line]) -> dict[str, str]:
    """The name in the `new` network of each tensor of the `old` one, by where it is read.

    Raises ModelError, naming the first difference, where the networks aren't built alike.
    """
    found: dict[str, str] = {}
    back: dict[str, str] = {}
    for before, after in zip(old, new, strict=False):
        _same_node(before, after)
        for index, (was, now) in enumerate(zip(before["inputs"], after["inputs"], strict=True)):
            if not (was.startswith(WEIGHT) and now.startswith(WEIGHT)):
                if was != now:
                    raise ModelError(f"{_called(before)} reads {now or 'nothing'!r} as input {index}, not {was!r}")
                continue
            if found.setdefault(was, now) != now:
                raise ModelError(f"{_called(before)} reads {now[7:]!r}; when exported, it shared {was[7:]!r}")
            if back.setdefault(now, was) != was:
                raise ModelError(f"{_called(before)} shares {now[7:]!r}; when exported, it had {was[7:]!r} of its own")
    if len(old) != len(new):
        raise ModelError(f"the network has {len(new) - 2} nodes, not {len(old) - 2}")
    return {was.removeprefix(WEIGHT): now.removeprefix(WEIGHT) for was, now in found.items()}


def _same_node(before: Line, after: Line) -> None:
    if before["op"] != after["op"]:
        raise ModelError(f"{_called(before)} has become {_called(after)}")
    if len(before["inputs"]) != len(after["inputs"]):
        raise ModelError(f"{_called(before)} reads {len(after['inputs'])} values, not {len(before['inputs'])}")
    for name in {**before["attributes"], **after["attributes"]}:
        was, now = before["attributes"].get(name), after["attributes"].get(name)
        if was != now:
            values = f"{_short(now, 'no more')}, not {_short(was, 'given before')}"
            whose = f"{name} is" if before["op"] in ENDS else f"{_called(before)} has {name}"
            raise ModelError(f"{whose} {values}")


def _short(text: str | None, missing: str) -> str:
    if text is None:
        return missing
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def _called(line: Line) -> str:
    return f"the {line['op']}" if line["op"] in ENDS else f"{line['op']} (node {line['name']!r})"


def _shape(value: ir.Value) -> str:
    kind = "" if value.dtype is None else value.dtype.name.lower()
    axes = ["N", *list(value.shape or ())[1:]]  # export frees the batch axis, whatever it was
    return f"{kind} [{', '.join(str(axis) if isinstance(axis, int) or axis == 'N' else '?' for axis in axes)}]"


def _attributes(node: ir.Node, names: Mapping[ir.Value | None, str]) -> Iterator[tuple[str, str]]:
    for name, attribute in sorted(node.attributes.items()):
        if attribute.type == ir.AttributeType.GRAPH:
            yield name, " ".join(names.get(value, "?") for value in attribute.as_graph().outputs)
        elif attribute.type == ir.AttributeType.TENSOR:
            yield name, hashlib.sha256(attribute.as_tensor().tobytes()).hexdigest()[:16]
        elif attribute.type in (ir.AttributeType.INTS, ir.AttributeType.FLOATS, ir.AttributeType.STRINGS):
            yield name, str(list(attribute.value))
        else:
            yield name, str(attribute.value)
