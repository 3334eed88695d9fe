"""Reverse-mode differentiation: one walk from the explained output back to the chosen values; no operator knowledge."""

from collections.abc import Sequence

import onnx_ir as ir

from onnxplain.errors import NoGradientError
from onnxplain_export.emitter import Emitter, dims
from onnxplain_export.vjp import NO_GRADIENT, STANDARD, RuleTable, operator_name

FLOATS = frozenset({ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.BFLOAT16})


def differentiate(
    graph: ir.Graph,
    of: ir.Value,
    wrt: Sequence[ir.Value],
    cotangent: ir.Value,
    rules: RuleTable = STANDARD,
    prefix: str = "gradient",
) -> list[ir.Value]:
    """Appends the reverse pass to `graph` and returns the gradient of ⟨cotangent, of⟩ at each value of `wrt`.

    `cotangent` has the shape of `of`. The graph's nodes must be in topological order and its shapes inferred. Raises
    NoGradientError where an operator on the way has no rule or no gradient reaches a value of `wrt`.
    """
    op = Emitter(graph, prefix, of.dtype or ir.DataType.FLOAT)
    nodes = [node for node in graph if node.outputs]
    op.active = frozenset(active_values(nodes, of, wrt))
    cotangents: dict[ir.Value, ir.Value] = {of: cotangent}
    for node in reversed(nodes):
        if any(output in cotangents and output in op.active for output in node.outputs):
            _pull_back(op, node, cotangents, rules)
    return [_arrived(value, of, cotangents) for value in wrt]


def active_values(nodes: Sequence[ir.Node], of: ir.Value, wrt: Sequence[ir.Value]) -> set[ir.Value]:
    """The values through which `of` depends on `wrt` by operators that pass a gradient, both ends included."""
    reached = set(wrt)
    for node in nodes:
        if operator_name(node) not in NO_GRADIENT and any(value in reached for value in node.inputs):
            reached.update(output for output in node.outputs if output.dtype is None or output.dtype in FLOATS)
    leading = {of}
    for node in reversed(nodes):
        if operator_name(node) not in NO_GRADIENT and any(value in leading for value in node.outputs):
            leading.update(value for value in node.inputs if value is not None)
    return reached & leading


def blocking_nodes(
    graph: ir.Graph, of: ir.Value, wrt: Sequence[ir.Value], rules: RuleTable = STANDARD
) -> list[ir.Node]:
    """The nodes between `wrt` and `of` whose operator has no derivative rule, in graph order."""
    nodes = list(graph)
    active = active_values(nodes, of, wrt)
    on_the_way = (
        node for node in nodes if any(v in active for v in node.inputs) and any(v in active for v in node.outputs)
    )
    return [node for node in on_the_way if operator_name(node) not in rules]


def describe(node: ir.Node) -> str:
    """A node as an error message names it."""
    return f"{operator_name(node)} (node {node.name or '<unnamed>'!r}, output {node.outputs[0].name!r})"


def _pull_back(op: Emitter, node: ir.Node, cotangents: dict[ir.Value, ir.Value], rules: RuleTable) -> None:
    """Adds the node's contribution to the cotangents of its inputs."""
    wanted = [index for index, value in enumerate(node.inputs) if op.wants(value)]
    if not wanted:
        return
    rule = rules.get(operator_name(node))
    if rule is None:
        raise NoGradientError(
            f"no derivative rule for {describe(node)}; add one in export/onnxplain_export/vjp/, "
            "or replace the operator before exporting the model"
        )
    g = tuple(cotangents.get(output) for output in node.outputs)
    if not rule.many_outputs and (g[0] is None or any(other is not None for other in g[1:])):
        raise NoGradientError(f"{describe(node)} can be differentiated through its first output only")
    answers = rule.function(op, node, g if rule.many_outputs else g[0])
    if len(answers) != len(node.inputs):
        raise NoGradientError(f"the rule of {describe(node)} gave {len(answers)} answers for {len(node.inputs)} inputs")
    for index in wanted:
        value, answer = node.inputs[index], answers[index]
        if value is None or answer is None:
            raise NoGradientError(f"{describe(node)} can't be differentiated with respect to its input {index}")
        if rule.broadcasts:
            answer = op.sum_to(answer, dims(node.outputs[0]), value)
        cotangents[value] = op.Add(cotangents[value], answer) if value in cotangents else answer


def _arrived(value: ir.Value, of: ir.Value, cotangents: dict[ir.Value, ir.Value]) -> ir.Value:
    if value not in cotangents:
        raise NoGradientError(
            f"the gradient of {of.name!r} with respect to {value.name!r} is zero everywhere: every path between them "
            "passes an operator without a gradient (a tree, an argmax, a rounding); use a perturbation method such as "
            "occlusion"
        )
    return cotangents[value]
