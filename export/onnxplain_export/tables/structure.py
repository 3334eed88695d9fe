"""What rules ask of the network around a node, and a node's like with other operands."""

from collections.abc import Mapping

import onnx_ir as ir

from onnxplain.errors import NoGradientError
from onnxplain_export.autodiff import describe
from onnxplain_export.emitter import Emitter, attribute, constant_of, dims
from onnxplain_export.origins import known
from onnxplain_export.vjp import STANDARD, operator_name

WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
"""The layers: operators with a weight."""

_STEPPED = {"Abs", "Clip", "HardSigmoid", "HardSwish", "LeakyRelu", "PRelu", "Relu", "Shrink", "ThresholdedRelu"}
_SMOOTH = {"Celu", "Elu", "Gelu", "Mish", "Selu", "Sigmoid", "Softplus", "Softsign", "Tanh"}
ACTIVATIONS = frozenset(_STEPPED | _SMOOTH)
"""Functions of one entry at a time."""
POINTWISE = ACTIVATIONS | {"Cast", "Erf", "Exp", "Identity", "Log", "Neg", "Pow", "Reciprocal", "Sqrt"}
"""The same and the pieces that such functions are written in."""
ARITHMETIC = frozenset({"Add", "Sub", "Mul", "Div", "Max", "Min"})

VIEWS = frozenset({"Cast", "Expand", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})
"""Operators after which a number is still itself."""
MOVING = VIEWS | {"Concat", "DepthToSpace", "Dropout", "Gather", "Slice", "SpaceToDepth", "Split", "Tile"}
"""Operators that bring each number, or none of it, to some places."""
AVERAGES = frozenset({"AveragePool", "GlobalAveragePool", "Mean", "ReduceMean", "ReduceSum", "Sum"})
SUMS = AVERAGES | {"Add", "CumSum", "Resize", "Sub"}
"""Sums of their inputs with fixed weights."""
MAXIMA = frozenset({"GlobalMaxPool", "MaxPool", "ReduceMax", "ReduceMin"})

GATES = frozenset({"HardSigmoid", "Sigmoid", "Softmax"})
"""What makes a factor a weight of the other one: numbers from 0 to 1."""


def wanted(op: Emitter, node: ir.Node) -> list[int]:
    """The numbers of the inputs that need an answer."""
    return [index for index, value in enumerate(node.inputs) if op.wants(value)]


def twin(
    op: Emitter,
    node: ir.Node,
    operands: Mapping[int, ir.Value | None],
    batch: int | str | None = None,
    **attributes: object,
) -> ir.Node:
    """The node once more, some operands and attributes replaced; its shapes are the node's, but for the first axis.

    That is `batch`, where one is given: a buffer of onnxruntime's is used again for another of the same symbols.
    """
    inputs = [operands.get(index, value) for index, value in enumerate(node.inputs)]
    given = {name: attribute(node, name) for name in node.attributes} | attributes
    made = getattr(op, node.op_type)(*inputs, **given)
    result: ir.Node = made.producer()
    for value, original in zip((*result.inputs, made), (*node.inputs, node.outputs[0]), strict=True):
        if value is not None and original is not None and value.shape is None:
            known = dims(original)
            batched = original is node.outputs[0] or op.wants(original)
            moved = (batch, *known[1:]) if batch is not None and known is not None and batched else known
            value.shape, value.type = None if moved is None else ir.Shape(list(moved)), original.type
    return result


def adjoint(op: Emitter, node: ir.Node, index: int, g: ir.Value) -> ir.Value:
    """The derivative rule's answer for one input, in that input's shape."""
    rule, x = STANDARD[operator_name(node)], node.inputs[index]
    if x is None:
        raise NoGradientError(f"{describe(node)} has no input {index}")
    active, op.active = op.active, frozenset({x})
    answer = rule.function(op, node, (g,) if rule.many_outputs else g)[index]
    op.active = active
    if answer is None:
        raise NoGradientError(f"{describe(node)} can't be differentiated with respect to its input {index}")
    return op.sum_to(answer, dims(node.outputs[0]), x) if rule.broadcasts else answer


def is_first_layer(op: Emitter, node: ir.Node) -> bool:
    """Whether no other layer lies between the explained value and this one."""
    waiting, seen = list(node.inputs), set[ir.Value]()
    while waiting:
        value = waiting.pop()
        if value is None or value in seen or not op.wants(value):
            continue
        seen.add(value)
        maker = value.producer()
        if maker is not None and any(op.wants(source) for source in maker.inputs):
            if maker.op_type in WEIGHTED:
                return False
            waiting += maker.inputs
    return True


def put_through(op: Emitter, value: ir.Value, entry: ir.Value) -> ir.Value:
    """What `value` would be if the explained value were `entry` [1, …]: the operators between them once more."""
    maker = value.producer()
    if maker is None or not any(op.wants(source) for source in maker.inputs):
        return entry
    replaced = {
        index: put_through(op, source, entry)
        for index, source in enumerate(maker.inputs)
        if source is not None and op.wants(source)
    }
    return twin(op, maker, replaced, batch=1).outputs[0]


def bias_of(op: Emitter, node: ir.Node) -> tuple[ir.Value | None, ir.Value]:
    """A layer's bias, as it is added to the output, and the output with it: also where an Add follows that adds it."""
    y = node.outputs[0]
    given = node.inputs[2] if len(node.inputs) > 2 else None
    if given is not None:
        rank = len(dims(y) or ())
        if node.op_type in ("Conv", "ConvTranspose"):
            return op.Reshape(given, [-1] + [1] * (rank - 2)), y
        beta = float(attribute(node, "beta", 1.0))
        return (given if beta == 1.0 else op.Mul(given, beta)), y
    add = _only_reader(y)
    if add is None or not adds_bias(op, add):
        return None, y
    return add.inputs[1 if add.inputs[0] is y else 0], add.outputs[0]


def adds_bias(op: Emitter, node: ir.Node) -> bool:
    """Whether an Add adds what depends on no image to a layer that has no bias yet and feeds nothing else."""
    if node.op_type != "Add" or len(wanted(op, node)) != 1:
        return False
    source = node.inputs[wanted(op, node)[0]]
    maker = None if source is None else source.producer()
    if source is None or maker is None or maker.op_type not in WEIGHTED or _only_reader(source) is not node:
        return False
    has_bias = len(maker.inputs) > 2 and maker.inputs[2] is not None
    return not has_bias and dims(source) is not None and dims(source) == dims(node.outputs[0])


def is_never_negative(value: ir.Value | None) -> bool:
    """Whether a value is 0 or more whatever the image: what follows a ReLU, through pools and movements too.

    Of constants single numbers are looked at, not weights, which may be negative after the next step of training.
    """
    found = known(value)
    if found is not None:
        fixed = constant_of(value) if found.content.size == 1 else None
        return fixed is not None and bool((fixed >= 0).all())
    node = None if value is None else value.producer()
    if node is None or node.op_type in ("Relu", "Sigmoid", "HardSigmoid", "Softplus", "Softmax", "Exp", "Abs", "Sqrt"):
        return node is not None
    if node.op_type in ("Clip", "Max"):
        return any(is_never_negative(floor) for floor in node.inputs[node.op_type == "Clip" :][:2])
    if node.op_type == "Pad":
        sources = [node.inputs[0], *(content for content in node.inputs[2:3] if content is not None)]
    elif node.op_type in ("Add", "Concat", "Mean", "Mul", "Sum"):
        sources = list(node.inputs)
    else:
        sources = list(node.inputs[:1]) if node.op_type in MOVING | AVERAGES | MAXIMA else []
    return bool(sources) and all(is_never_negative(source) for source in sources)


def gated_by_itself(op: Emitter, node: ir.Node) -> int | None:
    """Which operand of a product x·f(x) is x, f being a function of one entry at a time: SiLU or GELU written out."""
    a, b = node.inputs
    for index, (x, factor) in enumerate(((a, b), (b, a))):
        if x is not None and factor is not None and x is not factor and _is_function_of(op, factor, x):
            return index
    return None


def gate_of(node: ir.Node) -> int | None:
    """Which one of a product's two factors only weighs the other: the one that comes out of a sigmoid or a softmax."""
    found = [index for index, value in enumerate(node.inputs) if _is_gate(value)]
    return found[0] if len(found) == 1 else None


def _is_gate(value: ir.Value | None) -> bool:
    node = None if value is None else value.producer()
    while node is not None and node.op_type in VIEWS and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    return node is not None and node.op_type in GATES


def _is_function_of(op: Emitter, value: ir.Value, x: ir.Value) -> bool:
    """Whether each entry of `value` depends on the same entry of `x` and on nothing else of the image."""
    if value is x:
        return True
    node = value.producer()
    if node is None or dims(value) is None or dims(value) != dims(x):
        return False
    if node.op_type not in POINTWISE | ARITHMETIC:
        return False
    sources = [source for source in node.inputs if source is not None and op.wants(source)]
    return bool(sources) and all(_is_function_of(op, source, x) for source in sources)


def _only_reader(value: ir.Value) -> ir.Node | None:
    """The one node that reads a value, once, or None."""
    uses = list(value.uses())
    return uses[0].node if len(uses) == 1 and not value.is_graph_output() else None
