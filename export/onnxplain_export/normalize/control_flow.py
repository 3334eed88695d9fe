"""Takes branches whose condition is known and unrolls loops whose number of steps is known.

What is left are branches that depend on the input (`If`) and loops that are long or of unknown length (as `Scan`),
which have rules of their own, and loops that end when something computed says so, which have none.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import onnx
import onnx.reference
import onnx_ir as ir

from onnxplain_export.emitter import OPSET, Emitter, attribute, constant_of, copied, dims, static_dims, subgraphs
from onnxplain_export.normalize.initializers import add_constant
from onnxplain_export.normalize.replacing import own_name, replace_node
from onnxplain_export.origins import Known, known

LARGEST_UNROLLED = 1024
"""Nodes; a loop that would become more stays a loop, since a runtime takes seconds to load thousands."""
LARGEST_TRIED = 8192
"""Nodes; as far a loop is followed to see whether it ends."""

RANDOM = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial"}
)


DEEPEST = 100
"""Nodes in a row that are computed to learn a condition."""

Memory = dict[ir.Value, np.ndarray | None]


def unroll(graph: ir.Graph) -> int:
    """Replaces what can be; returns the number of branches and loops that were replaced.

    Constants should be folded and shapes inferred before, and again after: values that were moved have no shapes.
    Identities inside the bodies that are left must stay: see `_make_outputs_distinct`.
    """
    replaced = 0
    waiting = [node for node in graph if subgraphs(node)]
    while waiting:
        node = waiting.pop()
        for body in subgraphs(node):
            replaced += unroll(body)
            _make_outputs_distinct(node, body)
            _hoist_constants(graph, node, body)
        kind = {"If": _branch, "Loop": _loop, "Scan": _scan}.get(node.op_type)
        added = None if kind is None else kind(graph, node)
        if added is not None:
            replaced += 1
            waiting.extend(new for new in added if subgraphs(new) and new.graph is graph)
    if replaced:
        graph.sort()
    return replaced


def _branch(graph: ir.Graph, node: ir.Node) -> list[ir.Node] | None:
    """Takes the branch that is always taken."""
    chosen = _truth(node.inputs[0], {})
    if chosen is None:
        return None
    branch = attribute(node, "then_branch" if chosen else "else_branch")
    nodes, results = _inlined(branch, [], own_name(node))
    graph.extend(nodes)
    replace_node(graph, node, results)
    return nodes


def _loop(graph: ir.Graph, node: ir.Node) -> list[ir.Node] | None:
    """Unrolls a loop whose end is known at every step, or makes it a Scan where it is long."""
    body, trips, condition = attribute(node, "body"), _known(node.inputs[0], {}), _truth(node.inputs[1], {})
    if condition and _never_breaks(body) and (trips is None or trips.item() * len(body) > LARGEST_UNROLLED):
        return _as_scan(graph, node, trips)
    if node.inputs[0] is not None and trips is None:
        return None
    nodes, results, collected = _followed(graph, node, condition, trips)
    if len(nodes) > LARGEST_UNROLLED:
        _discard(nodes)
        return None if results is None else _as_scan(graph, node, np.array(len(collected)))
    if results is None or (not collected and len(node.outputs) > len(results)):
        _discard(nodes)
        return None
    graph.extend(nodes)
    op = Emitter(graph, own_name(node))
    replace_node(graph, node, [*results, *(_stacked(op, parts, 0) for parts in zip(*collected, strict=True))])
    return nodes


def _followed(
    graph: ir.Graph, node: ir.Node, goes_on: bool | None, trips: np.ndarray | None
) -> tuple[list[ir.Node], list[ir.Value] | None, list[Sequence[ir.Value]]]:
    """A loop's steps, its last states and what each step puts out; None for the states where no end is in sight."""
    states, count = _present(node.inputs[2:]), len(node.inputs) - 2
    nodes: list[ir.Node] = []
    collected: list[Sequence[ir.Value]] = []
    memory: Memory = {}
    while goes_on and (trips is None or len(collected) < trips.item()) and len(nodes) <= LARGEST_TRIED:
        name = f"{own_name(node)}/step_{len(collected)}"
        number = add_constant(graph, f"{name}/number", np.array(len(collected), np.int64))
        truth = add_constant(graph, f"{name}/goes_on", np.array(True))
        new, results = _inlined(attribute(node, "body"), [number, truth, *states], name)
        nodes += new
        goes_on, states = _truth(results[0], memory), results[1 : count + 1]
        collected.append(results[count + 1 :])
    return nodes, None if goes_on is None or len(nodes) > LARGEST_TRIED else states, collected


def _as_scan(graph: ir.Graph, node: ir.Node, trips: np.ndarray | None) -> list[ir.Node] | None:
    """A loop that takes all its steps, or the given number, is a Scan over their numbers."""
    tensors = all(value is None or value.type is None or isinstance(value.type, ir.TensorType) for value in node.inputs)
    if not tensors or (trips is None and node.inputs[0] is None):
        return None
    prefix = f"{own_name(node)}/scan"
    op, body = Emitter(graph, prefix), copied(attribute(node, "body"), f"{prefix}/body")
    number, truth, *states = body.inputs
    body.outputs.pop(0)
    ir.convenience.replace_all_uses_with(truth, add_constant(graph, f"{prefix}/goes_on", np.array(True)))
    body.inputs.clear()
    body.inputs.extend([*states, number])
    if trips is None:
        last = op.Reshape(node.inputs[0], op.constant(np.zeros(0, np.int64)))
        numbers = op.Range(op.constant(0, np.int64), last, op.constant(1, np.int64))
    else:
        numbers = op.constant(np.arange(trips.item()))
    results = op.Scan(*node.inputs[2:], numbers, body=body, num_scan_inputs=1, outputs=len(node.outputs))
    replace_node(graph, node, [results] if len(node.outputs) == 1 else list(results))
    return []


def _never_breaks(body: ir.Graph) -> bool:
    """Whether the body passes its condition on, or says that it always holds."""
    value: ir.Value | None = body.outputs[0]
    while value is not None and (node := value.producer()) is not None and node.op_type == "Identity":
        value = node.inputs[0]
    return value is body.inputs[1] or bool(_truth(value, {}))


def _scan(graph: ir.Graph, node: ir.Node) -> list[ir.Node] | None:
    """Unrolls a Scan over sequences of known length."""
    body, scanned = attribute(node, "body"), attribute(node, "num_scan_inputs")
    count = len(node.inputs) - scanned
    axes = _given(node, "scan_input_axes", scanned)
    known = [None if x is None else dims(x) for x in node.inputs[count:]]
    lengths = {size[axis] for size, axis in zip(known, axes, strict=True) if size is not None}
    length = next((size for size in lengths if isinstance(size, int)), None)
    if not length or length * len(body) > LARGEST_UNROLLED:
        return None
    op, nodes = Emitter(graph, own_name(node)), []
    backwards = _given(node, "scan_input_directions", scanned)
    entries = [
        _entries(op, x, length, axis, bool(back))
        for x, axis, back in zip(node.inputs[count:], axes, backwards, strict=True)
    ]
    states, collected = list(node.inputs[:count]), [[] for _ in node.outputs[count:]]  # type: ignore[var-annotated]
    for step in range(length):
        arguments = [*states, *(entry[step] for entry in entries)]
        new, results = _inlined(body, arguments, f"{op.prefix}/step_{step}")
        nodes += new
        states = [*results[:count]]
        for parts, part in zip(collected, results[count:], strict=True):
            parts.append(part)
    graph.extend(nodes)
    axes = _given(node, "scan_output_axes", len(collected))
    backwards = _given(node, "scan_output_directions", len(collected))
    joined = [
        _stacked(op, parts[::-1] if back else parts, axis)
        for parts, axis, back in zip(collected, axes, backwards, strict=True)
    ]
    replace_node(graph, node, [*_present(states), *joined])
    return nodes


def _given(node: ir.Node, name: str, count: int) -> list[int]:
    """A list attribute whose missing numbers are 0."""
    numbers = [int(number) for number in attribute(node, name) or []]
    return [*numbers, *[0] * (count - len(numbers))]


def _entries(op: Emitter, x: ir.Value | None, length: int, axis: int, backwards: bool) -> Sequence[ir.Value]:
    """What each step reads of a sequence."""
    parts = [x] if length == 1 else op.Split(x, [1] * length, axis=axis, outputs=length)
    entries = [op.Squeeze(part, [axis]) for part in parts]
    return entries[::-1] if backwards else entries


def _stacked(op: Emitter, parts: Sequence[ir.Value], axis: int) -> ir.Value:
    return op.Concat(*(op.Unsqueeze(part, [axis]) for part in parts), axis=axis)


def _inlined(body: ir.Graph, arguments: Sequence[ir.Value | None], prefix: str) -> tuple[list[ir.Node], list[ir.Value]]:
    """New nodes that compute the body for its arguments, not yet in a graph, and the body's results."""
    copy = copied(body, prefix)
    results, nodes = list(copy.outputs), list(copy)
    copy.outputs.clear()
    copy.remove(nodes)
    for entry, value in zip(list(copy.inputs), _present(arguments), strict=True):
        ir.convenience.replace_all_uses_with(entry, value)
        results = [value if result is entry else result for result in results]
    for node in nodes:
        for output in node.outputs:
            output.shape = None  # of one step, which need not be that of another
    return nodes, results


def _present(values: Sequence[ir.Value | None]) -> list[ir.Value]:
    """Loops have no optional states."""
    return [value for value in values if value is not None]


def _discard(nodes: Sequence[ir.Node]) -> None:
    """Lets go of what nodes read that were never put into a graph."""
    for node in nodes:
        for held in subgraphs(node):
            _discard(list(held))
        for index in range(len(node.inputs)):
            node.replace_input_with(index, None)


def _make_outputs_distinct(node: ir.Node, body: ir.Graph) -> None:
    """Copies what a body puts out without having computed it, or twice.

    onnxruntime 1.31's Scan gives zeros for a value that is put out twice, and its If leaves the second one out.
    """
    seen: set[ir.Value] = set()
    for index, output in enumerate(list(body.outputs)):
        maker = output.producer()
        if output in seen or maker is None or maker.graph is not body or maker.op_type == "Constant":
            identity = ir.node("Identity", [output], name=f"{own_name(node)}/{body.name}/output_{index}")
            copy = identity.outputs[0]
            copy.name, copy.type, copy.shape = f"{identity.name}/value", output.type, output.shape
            body.append(identity)
            body.outputs[index] = copy
        seen.add(output)


def _hoist_constants(graph: ir.Graph, node: ir.Node, body: ir.Graph) -> None:
    """Moves a body's constants out of it, so that its copies share them."""
    moved: list[tuple[ir.Value, Known | None]] = [(value, known(value)) for value in list(body.initializers.values())]
    constants = [held for held in body if held.op_type == "Constant"]
    contents = [(held.outputs[0], _known(held.outputs[0], {})) for held in constants]
    moved += [(value, None if content is None else Known(content)) for value, content in contents]
    for value, content in moved:
        if content is not None:
            new = add_constant(graph, f"{own_name(node)}/{body.name}/{value.name}", content)
            ir.convenience.replace_all_uses_with(value, new)
            body.initializers.pop(value.name or "", None)
    for held in constants:
        if not held.outputs[0].uses():
            body.remove(held, safe=True)


def _truth(value: ir.Value | None, memory: Memory) -> bool | None:
    """What a condition says, None where that isn't known; a missing one always holds."""
    if value is None:
        return True
    known = _known(value, memory)
    return None if known is None else bool(known.any())


def _known(value: ir.Value | None, memory: Memory, depth: int = DEEPEST) -> np.ndarray | None:
    """The content of a value that is computed from constants only, else None."""
    if value is None:
        return None
    if value not in memory:
        memory[value] = constant_of(value)
        if memory[value] is None and value.producer() is not None and depth:
            memory[value] = _computed(value, memory, depth - 1)
    return memory[value]


def _computed(value: ir.Value, memory: Memory, depth: int) -> np.ndarray | None:
    node = value.producer()
    if node is None or node.domain != "" or node.op_type in RANDOM or subgraphs(node):
        return None
    if node.op_type == "Shape" and node.inputs[0] is not None:
        shape = static_dims(node.inputs[0])
        return (
            None if shape is None else np.array(shape[attribute(node, "start", 0) : attribute(node, "end")], np.int64)
        )
    feeds: dict[str, np.ndarray] = {}
    for operand in node.inputs:
        content = _known(operand, memory, depth)
        if operand is not None and content is None:
            return None
        if operand is not None and content is not None:
            feeds[str(operand.name)] = content
    names = [str(output.name) for output in node.outputs]
    graph = onnx.helper.make_graph([ir.to_proto(node)], "constant", _untyped(feeds), _untyped(names))
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", OPSET)])
    try:
        results = onnx.reference.ReferenceEvaluator(model).run(None, feeds)
    except Exception:  # the evaluator raises whatever its Python does; a loop that stays is as right as one unrolled
        return None
    return np.asarray(list(results)[names.index(str(value.name))])


def _untyped(names: Iterable[str]) -> list[onnx.ValueInfoProto]:
    return [onnx.helper.make_value_info(name, onnx.TypeProto()) for name in names]
