"""What can go wrong in a derivative rule, as changes of its syntax tree: one expression each, by kind.

A mutator yields (kind, what stands in the node's place) for one node of the tree.
"""

import ast
from collections.abc import Callable, Iterator

import onnx

Changes = Iterator[tuple[str, ast.AST]]

SMOOTH_NUMBERS = ("alpha", "beta", "gamma", "lambd", "bias", "epsilon", "scale", "spatial_scale", "cubic_coeff_a")
GEOMETRY = ("strides", "dilations", "pads", "output_padding", "kernel_shape", "ceil_mode", "count_include_pad")
NOT_OPTIONS = ("to", "outputs", "keepdims", "axis", "equation", "body", "num_scan_inputs")
"""Keywords without which a node isn't one, or that have a mutator of their own."""
TWINS = {"begin": "end", "strides": "dilations", "stride": "dilation"}
TWINS |= {second: first for first, second in TWINS.items()}
KINKS = {"Less": "LessOrEqual", "Greater": "GreaterOrEqual"}
KINKS |= {second: first for first, second in KINKS.items()}
COMPARISONS = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt}
FUNCTIONS = {"Sin": "Cos", "Sinh": "Cosh", "Max": "Min", "And": "Or", "ReduceMax": "ReduceMin", "ReduceL1": "ReduceL2"}
FUNCTIONS |= {second: first for first, second in FUNCTIONS.items()} | {"Floor": "Ceil", "Round": "Floor"}
UNARY = ("Abs", "Sign", "Exp", "Log", "Sqrt", "Tanh", "Sigmoid", "Erf", "Ceil", "Not")
UNLIKE = {"MatMul": (0, 1), "Div": (0, 1), "Pow": (0, 1), "Where": (1, 2), "Einsum": (0, 1)}
"""Operators with two operands that aren't alike."""
REPEATING = ("sum_to", "_sum_to_at_run_time", "expand_like", "Expand", "ReduceSum", "ReduceMean")
AXES = {"Squeeze": 1, "Unsqueeze": 1, "Slice": 3, "Split": 1}
"""Where an operator's list of axes stands."""
PRESENCE = ("None", "isinstance", "wants")
"""What asks whether something is there or known."""
ANSWERS = {"missing term": "op.Mul({}, 0.0)", "sign": "op.Neg({})", "factor": "op.Mul({}, 1.001)"}


def signs(node: ast.AST) -> Changes:
    """A Neg left out, a difference turned round, a sum made a difference."""
    name = operator(node)
    if name == "Neg":
        yield "sign", node.args[0]
    elif name == "Sub":
        yield "sign", called(node, "Sub", node.args[::-1])
        yield "sign", called(node, "Add", node.args)
    elif name == "Add" and len(node.args) == 2:
        yield "sign", called(node, "Sub", node.args)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        yield "sign", node.operand


def terms(node: ast.AST) -> Changes:
    """An addend or a factor left out."""
    name = operator(node)
    if name not in ("Add", "Sub", "Mul", "Div") or len(node.args) != 2:
        return
    kind = "missing term" if name in ("Add", "Sub") else "factor"
    yield kind, node.args[0]
    if name in ("Add", "Mul"):
        yield kind, node.args[1]


def answers(node: ast.AST) -> Changes:
    """An answer zeroed, negated or slightly scaled; two answers that change places."""
    if not isinstance(node, ast.Return) or not isinstance(node.value, ast.Tuple | ast.List):
        return
    listed = node.value.elts
    given = [i for i, answer in enumerate(listed) if not isinstance(answer, ast.Starred) and not is_none(answer)]
    for i in given:
        for kind, form in ANSWERS.items():
            changed = [*listed[:i], parsed(form.format(ast.unparse(listed[i]))), *listed[i + 1 :]]
            yield kind, ast.Return(type(node.value)(changed, ast.Load()))
    if len(given) > 1:
        yield "operand", ast.Return(type(node.value)(exchanged(listed, *given[:2]), ast.Load()))


def kinks(node: ast.AST) -> Changes:
    """A strict comparison made one that holds at the bound, and the reverse."""
    name = operator(node)
    if name in KINKS:
        yield "tie", called(node, KINKS[name], node.args)
    if isinstance(node, ast.Compare) and type(node.ops[0]) in COMPARISONS and len(node.ops) == 1:
        yield "tie", ast.Compare(node.left, [COMPARISONS[type(node.ops[0])]()], node.comparators)


def orders(node: ast.AST) -> Changes:
    """Another permutation, one not inverted, a range from the axis before or after, a product's indices exchanged."""
    if called_as(node, "np.argsort"):
        yield "axis", node.args[0]
    if called_as(node, "range") and len(node.args) > 1:
        yield from (("axis", ast.Call(node.func, [moved(node.args[0], by), *node.args[1:]], [])) for by in (1, -1))
    for word in keywords(node):
        if word.arg == "perm" and isinstance(word.value, ast.List) and len(word.value.elts) > 1:
            for i in (0, len(word.value.elts) - 2):
                yield "axis", reworded(node, "perm", ast.List(exchanged(word.value.elts, i, i + 1), ast.Load()))
        elif word.arg == "equation" and isinstance(word.value, ast.Constant):
            left, result = word.value.value.split("->")
            yield "axis", reworded(node, "equation", ast.Constant(f"{left}->{result[::-1]}"))


def axes(node: ast.AST) -> Changes:
    """The axis before or after."""
    for word in keywords(node):
        if word.arg == "axis":
            yield from (("axis", reworded(node, "axis", moved(word.value, by))) for by in (1, -1))
    name = operator(node)
    place = 1 if name.startswith("Reduce") else AXES.get(name, 0)
    if not place or len(node.args) <= place or not isinstance(node.args[place], ast.List):
        return
    listed = node.args[place].elts
    for i, axis in enumerate(listed):
        for by in (1, -1) if isinstance(number_of(axis), int) else ():
            other = ast.List([*listed[:i], moved(axis, by), *listed[i + 1 :]], ast.Load())
            yield "axis", called(node, name, [*node.args[:place], other, *node.args[place + 1 :]])


def windows(node: ast.AST) -> Changes:
    """Begin and end, stride and dilation exchanged; one more or less; a remainder not taken; an option forgotten."""
    if isinstance(node, ast.Attribute) and node.attr in TWINS and isinstance(node.ctx, ast.Load):
        yield "window", ast.Attribute(node.value, TWINS[node.attr], ast.Load())
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub) and not is_text(node):
        if number_of(node.right) == 1:
            yield "window", node.left
        yield "window", ast.BinOp(node.left, ast.Sub() if isinstance(node.op, ast.Add) else ast.Add(), node.right)
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mod | ast.FloorDiv):
        yield "window", node.left
    elif isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Slice) and node.slice.step is None:
        if (node.slice.lower is None) != (node.slice.upper is None):
            yield "window", ast.Subscript(node.value, ast.Slice(node.slice.upper, node.slice.lower), ast.Load())
    elif isinstance(node, ast.Dict):
        for i, key in enumerate(node.keys):
            if isinstance(key, ast.Constant) and key.value in GEOMETRY:
                yield "window", ast.Dict(node.keys[:i] + node.keys[i + 1 :], node.values[:i] + node.values[i + 1 :])


def broadcasts(node: ast.AST) -> Changes:
    """A sum over repeated entries or a repetition left out, a reduced axis kept or lost."""
    if called_as(node, "vjp") and any(word.arg == "broadcasts" for word in node.keywords):
        yield "broadcast", reworded(node, "broadcasts", None)
    if operator(node) in REPEATING:
        yield "broadcast", node.args[0]
    for word in keywords(node):
        if word.arg == "keepdims" and isinstance(word.value, ast.Constant):
            yield "broadcast", reworded(node, "keepdims", ast.Constant(1 - word.value.value))


def factors(node: ast.AST) -> Changes:
    """A number a thousandth larger or twice as large, a zero that isn't one, a product or quotient not taken."""
    if isinstance(node, ast.Constant) and isinstance(node.value, float):
        yield "factor", ast.Constant(node.value * 1.001 if node.value else 1e-3)
        if node.value:
            yield "factor", ast.Constant(node.value * 2)
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult | ast.Div):
        if isinstance(node.left, ast.List):
            return
        yield "factor", node.left
        other = ast.Mult() if isinstance(node.op, ast.Div) else ast.Div()
        if number_of(node.left) != 1 or isinstance(node.op, ast.Div):
            yield "factor", ast.BinOp(node.left, other, node.right)


def operands(node: ast.AST) -> Changes:
    """Another input or output of the node, two operands or two names exchanged."""
    if isinstance(node, ast.Subscript) and ast.unparse(node.value) in ("node.inputs", "node.outputs"):
        index = number_of(node.slice)
        if isinstance(index, int):
            yield "operand", ast.Subscript(node.value, ast.Constant(max(index - 1, 1 - index)), ast.Load())
        if index == 0:
            yield "operand", parsed("node.outputs[0]" if ".inputs" in ast.unparse(node) else "node.inputs[0]")
    name = operator(node)
    if name in UNLIKE and not any(isinstance(argument, ast.Starred) for argument in node.args):
        i, j = UNLIKE[name]
        yield "operand", called(node, name, exchanged(node.args, i, j))
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Tuple):
        names = [getattr(target, "id", "_") for target in node.targets[0].elts]
        if len(names) > 1 and "_" not in names[:2]:
            yield "operand", ast.Assign([ast.Tuple(exchanged(node.targets[0].elts, 0, 1), ast.Store())], node.value)


def forgotten(node: ast.AST) -> Changes:
    """An attribute of the node not read, one of an operator not written."""
    if called_as(node, "attribute") and len(node.args) == 3:
        name = getattr(node.args[1], "value", "")
        yield ("alpha, beta" if name in SMOOTH_NUMBERS else "option"), node.args[2]
    for word in keywords(node):
        if word.arg and word.arg not in NOT_OPTIONS and not is_default(operator(node), word.arg, word.value):
            kind = "window" if word.arg in GEOMETRY else "alpha, beta" if word.arg in SMOOTH_NUMBERS else "option"
            yield kind, reworded(node, word.arg, None)


def modes(node: ast.AST) -> Changes:
    """A mode taken for another."""
    if isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.Eq):
        if isinstance(getattr(node.comparators[0], "value", None), str):
            yield "option", ast.Compare(node.left, [ast.NotEq()], node.comparators)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield "option", node.operand
    elif isinstance(node, ast.IfExp) and not any(word in ast.unparse(node.test) for word in PRESENCE):
        yield from (("option", node.body), ("option", node.orelse))


def functions(node: ast.AST) -> Changes:
    """Another function, or none."""
    name = operator(node)
    if name in FUNCTIONS:
        yield "function", called(node, FUNCTIONS[name], node.args)
    if name in UNARY:
        yield "function", node.args[0]


MUTATORS: list[Callable[[ast.AST], Changes]] = [
    *(signs, terms, answers, kinks, orders, axes, windows, broadcasts, factors, operands, forgotten, modes, functions)
]


def changes(node: ast.AST) -> list[tuple[str, ast.AST]]:
    """Everything that can be changed at one node."""
    return [change for mutator in MUTATORS for change in mutator(node)]


# Pieces of syntax


def operator(node: ast.AST) -> str:
    """The name of the operator that a call emits, or of the emitter's function; empty for anything else."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return ""
    return node.func.attr if ast.unparse(node.func.value) in ("op", "self.op", "inner", "self") else ""


def keywords(node: ast.AST) -> list[ast.keyword]:
    """The attributes that a call of an operator writes."""
    return node.keywords if operator(node) else []


def called(node: ast.Call, name: str, arguments: list[ast.expr]) -> ast.Call:
    """The same call of another operator or with other operands."""
    return ast.Call(ast.Attribute(node.func.value, name, ast.Load()), arguments, node.keywords)


def called_as(node: ast.AST, name: str) -> bool:
    """Whether the node calls the function of this name."""
    return isinstance(node, ast.Call) and ast.unparse(node.func) == name


def reworded(node: ast.Call, name: str, value: ast.expr | None) -> ast.Call:
    """The call with one keyword changed or, for None, without it."""
    others = [word for word in node.keywords if word.arg != name]
    return ast.Call(node.func, node.args, others if value is None else [*others, ast.keyword(name, value)])


def exchanged(listed: list[ast.expr], i: int, j: int) -> list[ast.expr]:
    """The list with two entries exchanged."""
    return [listed[j] if k == i else listed[i] if k == j else entry for k, entry in enumerate(listed)]


def moved(value: ast.expr, by: int) -> ast.expr:
    """One more or less."""
    number = number_of(value)
    return ast.Constant(number + by) if number is not None else parsed(f"{ast.unparse(value)} + {by}")


def parsed(text: str) -> ast.expr:
    """The expression that the text is."""
    return ast.parse(text, mode="eval").body


def number_of(node: ast.AST) -> int | float | None:
    """A literal number, negative ones too."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        inner = number_of(node.operand)
        return None if inner is None else -inner
    value = node.value if isinstance(node, ast.Constant) else None
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def is_none(node: ast.AST) -> bool:
    """Whether the node is the word None."""
    return isinstance(node, ast.Constant) and node.value is None


def is_text(node: ast.AST) -> bool:
    """Whether the node holds a text."""
    return any(isinstance(part, ast.Constant) and isinstance(part.value, str) for part in ast.walk(node))


def is_default(name: str, attribute: str, value: ast.expr) -> bool:
    """Whether an attribute may be left out, since the standard has the same default."""
    if not name[0].isupper() or not isinstance(value, ast.Constant):
        return False
    default = onnx.defs.get_schema(name, 20).attributes[attribute].default_value
    found = onnx.helper.get_attribute_value(default) if default.name else None
    return (found.decode() if isinstance(found, bytes) else found) == value.value
