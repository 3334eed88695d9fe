"""Reverse-mode differentiation: one walk from the explained output back to the chosen values; no operator knowledge."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial

import onnx_ir as ir

from onnxplain.errors import NoGradientError
from onnxplain_export.emitter import Emitter, attribute, captured, dims, subgraphs
from onnxplain_export.vjp import STANDARD, RuleTable, operator_name
from onnxplain_export.vjp.quantized import MOVING, holds_quantized, is_quantized
from onnxplain_export.vjp.registry import MARK, NOTHING, REFUSED, Rule, passes_gradient, rule_of

FLOATS = frozenset({ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.BFLOAT16})


class Rules(dict[str, Rule]):
    """A table of other rules than derivatives: `what` they compute, and `missing`, why an operator has none."""

    def __init__(self, rules: Mapping[str, Rule], what: str, missing: str) -> None:
        super().__init__(rules)
        self.what, self.missing = what, missing


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
    op.pull_back = partial(pull_back, rules=rules)
    op.is_half = any(output.dtype == ir.DataType.FLOAT16 for node in graph for output in node.outputs)
    cotangents = pull_back(op, list(graph), {of: cotangent}, wrt, rules)
    return [_arrived(value, of, cotangents) for value in wrt]


def pull_back(
    op: Emitter,
    nodes: Sequence[ir.Node],
    given: Mapping[ir.Value, ir.Value],
    wrt: Sequence[ir.Value],
    rules: RuleTable,
) -> dict[ir.Value, ir.Value]:
    """The cotangents that `given` ones cause on the way to `wrt`; a value that no gradient reaches is left out.

    Rules of operators that hold graphs walk through those by it, as `op.pull_back`.
    """
    nodes = [node for node in nodes if node.outputs]
    op.active = frozenset(_between(nodes, given, wrt))
    before = op.changed, op.ends
    op.changed = frozenset(name for name in STANDARD if rules.get(name) is not STANDARD[name])
    op.ends = frozenset([*given, *wrt])
    cotangents = dict(given)
    for node in reversed(nodes):
        if any(output in cotangents and output in op.active for output in node.outputs):
            _pull_back(op, node, cotangents, rules)
    op.changed, op.ends = before
    return cotangents


def active_values(nodes: Sequence[ir.Node], of: ir.Value, wrt: Sequence[ir.Value]) -> set[ir.Value]:
    """The values through which `of` depends on `wrt` by operators that pass a gradient, both ends included."""
    return _between(nodes, [of], wrt)


def blocking_nodes(
    graph: ir.Graph, of: ir.Value, wrt: Sequence[ir.Value], rules: RuleTable = STANDARD
) -> list[ir.Node]:
    """The nodes between `wrt` and `of`, in branches and bodies too, whose operator has no rule, in graph order."""
    return list(_blocking(list(graph), [of], wrt, rules))


def reads(node: ir.Node) -> tuple[ir.Value | None, ...]:
    """What a node's result depends on: its inputs and what the graphs that it holds take from outside."""
    return (*node.inputs, *captured(node))


def describe(node: ir.Node) -> str:
    """A node as an error message names it."""
    return f"{operator_name(node)} (node {node.name or '<unnamed>'!r}, output {node.outputs[0].name!r})"


def _between(nodes: Sequence[ir.Node], of: Iterable[ir.Value], wrt: Sequence[ir.Value]) -> set[ir.Value]:
    """The values through which any of `of` depends on any of `wrt`."""
    reached = _reached(nodes, wrt)
    leading = set(of)
    for node in reversed(nodes):
        if passes_gradient(node) and any(value in leading for value in node.outputs):
            leading.update(value for value in reads(node) if value is not None)
    return reached & leading


def _reached(nodes: Sequence[ir.Node], start: Iterable[ir.Value]) -> set[ir.Value]:
    """The values that depend on those of `start`, which are among them, by operators that pass a gradient."""
    reached = set(start)
    for node in nodes:
        if passes_gradient(node) and any(value in reached for value in reads(node)):
            outputs = _reached_outputs(node, reached) if operator_name(node) in ("If", "Scan") else node.outputs
            reached.update(output for output in outputs if output.dtype is None or output.dtype in FLOATS)
            reached.update(holds_quantized(node, reached))
    return reached


def _reached_outputs(node: ir.Node, reached: set[ir.Value]) -> set[ir.Value]:
    """The outputs of an If or a Scan that depend on `reached` values inside its branches or its body."""
    found: set[ir.Value] = set()
    for body in subgraphs(node):
        pairs = zip(body.inputs, node.inputs, strict=False)  # a branch has no inputs
        start = {inner for inner, outer in pairs if outer in reached} | (reached & set(captured(node)))
        states = max(len(body.inputs) - attribute(node, "num_scan_inputs", 0), 0)
        inside = _reached(list(body), start)
        while not (carried := {body.inputs[k] for k in range(states) if body.outputs[k] in inside}) <= start:
            start |= carried
            inside = _reached(list(body), start)
        found.update(outer for outer, inner in zip(node.outputs, body.outputs, strict=True) if inner in inside)
    return found


def _blocking(
    nodes: Sequence[ir.Node], of: Sequence[ir.Value], wrt: Sequence[ir.Value], rules: RuleTable
) -> Iterator[ir.Node]:
    active = _between(nodes, of, wrt)
    for node in nodes:
        if not any(value in active for value in reads(node)) or not any(value in active for value in node.outputs):
            continue
        if rule_of(node, rules) is None:
            yield node
            continue
        for body in subgraphs(node):
            taken = [value for value in captured(node) if value in active]
            yield from _blocking(list(body), body.outputs, [*body.inputs, *taken], rules)


def _pull_back(op: Emitter, node: ir.Node, cotangents: dict[ir.Value, ir.Value], rules: RuleTable) -> None:
    """Adds the node's contribution to the cotangents of its inputs."""
    inputs = reads(node)
    wanted = [index for index, value in enumerate(inputs) if op.wants(value)]
    if not wanted:
        return
    rule = rule_of(node, rules)
    if rule is None:
        raise NoGradientError(_refusal(node, rules))
    if node.op_type not in MOVING and any(is_quantized(inputs[index]) for index in wanted):
        raise NoGradientError(f"{describe(node)} computes with quantised numbers; {REFUSED['QLinearConv']}")
    g = tuple(cotangents.get(output) for output in node.outputs)
    before, op.float_type = op.float_type, _float_type(node, op.float_type)
    if not rule.many_outputs and (g[0] is None or any(other is not None for other in g[1:])):
        raise NoGradientError(f"{describe(node)} can be differentiated through its first output only")
    answers = rule.function(op, node, g if rule.many_outputs else g[0])
    if len(answers) != len(inputs):
        raise NoGradientError(f"the rule of {describe(node)} gave {len(answers)} answers for {len(inputs)} inputs")
    for index in wanted:
        value, answer = inputs[index], answers[index]
        if answer is NOTHING:
            continue
        if value is None or answer is None:
            raise NoGradientError(f"{describe(node)} can't be differentiated with respect to its input {index}")
        if rule.broadcasts:
            answer = op.sum_to(answer, dims(node.outputs[0]), value)
        known = cotangents.get(value)
        cotangents[value] = _shaped_like(value, answer if known is None else _added(op, known, answer))
    op.float_type = before


def _float_type(node: ir.Node, default: ir.DataType) -> ir.DataType:
    """The type of float that a node computes in, which differs among the nodes of a network in half precision."""
    found = (output.dtype for output in node.outputs if output.dtype in FLOATS)
    return ir.DataType(next(found, None) or default)


def _added(op: Emitter, one: ir.Value, other: ir.Value) -> ir.Value:
    """The sum of two cotangents of one value. Where one is a repeated one, the addition repeats it."""
    for repeated, whole in ((other, one), (one, other)):
        node, full = repeated.producer(), whole.producer()
        if node is not None and node.op_type == "Expand" and full is not None and full.op_type != "Expand":
            return op.Add(whole, node.inputs[0])
    return op.Add(one, other)


def _shaped_like(value: ir.Value, cotangent: ir.Value) -> ir.Value:
    """The cotangent with the shape of its value written down, its symbols too.

    onnxruntime keeps a chain of elementwise operators in its blocked layout only where their shapes are provably equal.
    """
    if cotangent.producer() is not None and value.shape is not None:
        cotangent.shape = value.shape
        if value.dtype in FLOATS:  # else it is quantised, and a cotangent never is
            cotangent.type = cotangent.type or value.type
    return cotangent


def _refusal(node: ir.Node, rules: RuleTable) -> str:
    if isinstance(rules, Rules):
        return f"{rules.what} isn't defined for {describe(node)}: {rules.missing}"
    return f"no derivative rule for {describe(node)}; {_advice(node)}"


def _advice(node: ir.Node) -> str:
    return REFUSED.get(
        "QuantizeLinear" if MARK in node.metadata_props else operator_name(node),
        "add one in export/onnxplain_export/vjp/, or replace the operator before exporting the model",
    )


def _arrived(value: ir.Value, of: ir.Value, cotangents: dict[ir.Value, ir.Value]) -> ir.Value:
    if value not in cotangents:
        raise NoGradientError(
            f"the gradient of {of.name!r} with respect to {value.name!r} is zero everywhere: every path between them "
            "passes an operator without a gradient (a tree, an argmax, a rounding); use a perturbation method such as "
            "occlusion"
        )
    return cotangents[value]
