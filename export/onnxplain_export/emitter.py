"""Writes standard operators into a graph, checked against the schema of the one opset that this package speaks."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from onnxplain.errors import NoGradientError, unknown
from onnxplain_export.origins import Known, attach, known, pin

OPSET = 20
"""Every graph is normalised to exactly this opset; rules and emitted nodes know no other."""
IR_VERSION = 10

Dim = int | str | None
PullBack = Callable[
    ["Emitter", Sequence[ir.Node], Mapping[ir.Value, ir.Value], Sequence[ir.Value]], dict[ir.Value, ir.Value]
]
"""(emitter, nodes, cotangents of values, the values wanted) → all cotangents that were found on the way."""
Operand = ir.Value | Known | np.ndarray | float | int | Sequence[int] | None


def dims(value: ir.Value) -> tuple[Dim, ...] | None:
    """Each axis of `value` as a number, a symbol's name or None where nothing is known; None for an unknown rank."""
    if value.shape is None:
        return None
    return tuple(axis if isinstance(axis, int) else axis.value for axis in value.shape)


def static_dims(value: ir.Value) -> tuple[int, ...] | None:
    """The shape of `value` when every axis is a known number, else None."""
    known = dims(value)
    if known is None or not all(isinstance(axis, int) for axis in known):
        return None
    return tuple(axis for axis in known if isinstance(axis, int))


def ranked_dims(node: ir.Node, value: ir.Value | None) -> tuple[Dim, ...]:
    """The axes of one of the node's values, for a rule that needs at least their number."""
    known = None if value is None else dims(value)
    if known is None:
        raise NoGradientError(f"the rank of what {node.op_type} (node {node.name or '<unnamed>'!r}) reads is unknown")
    return known


def constant_of(value: ir.Value | None) -> np.ndarray | None:
    """The content of an initializer as an array, None for absent or computed values.

    Whoever looks at a content builds the graph after it, so it is pinned: no refresh may change it. `known` is for
    contents that are only passed on, `is_constant` for whether there is one.
    """
    found = known(value)
    if found is None:
        return None
    pin(found.origin)
    return found.content


def is_constant(value: ir.Value | None) -> bool:
    """Whether a value is an initializer, whatever it holds."""
    return value is not None and value.const_value is not None and value.is_initializer()


def attribute(node: ir.Node, name: str, default: Any = None) -> Any:
    """The attribute as a plain Python value (numbers, lists, text), or `default` where the node doesn't carry it."""
    found = node.attributes.get(name)
    if found is None:
        return default
    if found.type == ir.AttributeType.STRING:
        return found.as_string()
    if found.type in (ir.AttributeType.INTS, ir.AttributeType.FLOATS):
        return list(found.value)
    return found.value


def subgraphs(node: ir.Node) -> list[ir.Graph]:
    """The branches or the body that a node holds."""
    return [a.as_graph() for a in node.attributes.values() if a.type == ir.AttributeType.GRAPH]


def captured(node: ir.Node) -> list[ir.Value]:
    """What the graphs that `node` holds take from outside, besides its inputs, in the order of their first use."""
    inner: set[ir.Value] = set()
    found: dict[ir.Value, None] = {}
    for graph in subgraphs(node):
        inner.update(graph.inputs, graph.initializers.values())
        for held in graph:
            found.update(dict.fromkeys(value for value in (*held.inputs, *captured(held)) if value is not None))
            inner.update(held.outputs)
        found.update(dict.fromkeys(graph.outputs))
    return [value for value in found if value not in inner]


def copied(graph: ir.Graph, prefix: str) -> ir.Graph:
    """A copy of a branch or a body, all of whose names begin with `prefix`."""
    copy = graph.clone(allow_outer_scope_values=True)
    values = [*copy.inputs, *copy.initializers.values()]
    for node in copy.all_nodes():
        node.name = f"{prefix}/{node.name}"
        values += [output for output in node.outputs if output.name]
        for held in subgraphs(node):
            values += [*held.inputs, *held.initializers.values()]
    for value in values:
        tensor = value.const_value
        if value.is_initializer() and tensor is not None:  # shared with the original, whose name it would take along
            value.const_value = ir.Tensor(tensor.numpy(), dtype=tensor.dtype, name=value.name)
        value.name = f"{prefix}/{value.name}"
    return copy


class Emitter:
    """Appends nodes to `graph`: `op.Mul(a, b)` returns the product as a value.

    Operands may be values, arrays, numbers (of the emitter's float type) or lists of integers (int64); attributes go
    by keyword. `outputs=n` returns a tuple of n values. Operator and attribute names are checked against opset 20.
    During a reverse pass `float_type` is that of the node which is differentiated, `active` are the values that the
    pass goes through, `ends` those whose cotangents are given or asked for, and `changed` the operators whose rule
    isn't their derivative in it: no other rule may take their part over. `is_half` says that the network computes in
    half precision, be the node itself in float32: then all is for accelerators, in the plain form. The forms that keep
    onnxruntime's CPU in its blocked layout (masks by steep ramps, convolutions that change nothing, strides taken
    apart) cost a GPU passes over memory, and their large factors overflow: inf·0 is NaN.
    """

    def __init__(self, graph: ir.Graph, prefix: str, float_type: ir.DataType = ir.DataType.FLOAT) -> None:
        self.graph = graph
        self.prefix = prefix
        self.float_type = float_type
        self.active: frozenset[ir.Value] = frozenset()
        self.ends: frozenset[ir.Value] = frozenset()
        self.pull_back: PullBack | None = None
        self.changed: frozenset[str] = frozenset()
        self.is_half = False
        self._count = 0
        self._constants: dict[Any, ir.Value] = {}

    def __getattr__(self, op_type: str) -> Callable[..., Any]:
        """The operator `op_type` as a function of its inputs and attributes."""
        if op_type.startswith("_"):
            raise AttributeError(op_type)
        schema = _schema(op_type)

        def emit(*inputs: Operand, outputs: int = 1, **attributes: Any) -> Any:
            for name in attributes:
                if name not in schema.attributes:
                    raise TypeError(f"{op_type}: {unknown('attribute', name, schema.attributes)}")
            return self._append(op_type, inputs, outputs, attributes)

        return emit

    def wants(self, value: ir.Value | None) -> bool:
        """Whether a cotangent of `value` is needed; rules skip what nobody asks for."""
        return value is not None and value in self.active

    def constant(self, content: Any, dtype: np.dtype[Any] | type | None = None) -> ir.Value:
        """An initializer holding `content`; equal constants are stored once."""
        array = np.ascontiguousarray(np.asarray(content, dtype=dtype)).reshape(np.shape(content))
        return self._held((str(array.dtype), array.shape, array.tobytes()), Known(array))

    def known(self, found: Known) -> ir.Value:
        """An initializer holding what was computed from the source's tensors, which remembers how."""
        return self.constant(found.content) if found.origin is None else self._held(found.key, found)

    def _held(self, key: Any, found: Known) -> ir.Value:
        if key not in self._constants:
            name = f"{self.prefix}/constant_{len(self._constants)}"
            value = attach(ir.val(name, const_value=ir.tensor(found.content, name=name)), found.origin)
            self.graph.register_initializer(value)
            self._constants[key] = value
        return self._constants[key]

    def floats(self, content: Any) -> ir.Value:
        """A constant of the emitter's float type."""
        return self.constant(content, self.float_type.numpy())

    def sum_to(self, g: ir.Value, shape: tuple[Dim, ...] | None, x: ir.Value) -> ir.Value:
        """`g`, whose shape is `shape`, summed over the axes along which `x` was broadcast to it."""
        target = dims(x)
        if shape is None or target is None:
            return self._sum_to_at_run_time(g, x)
        if shape == target and None not in shape:
            return g
        lead = len(shape) - len(target)
        axes = list(range(lead))
        for axis, (wide, narrow) in enumerate(zip(shape[lead:], target, strict=True), start=lead):
            if narrow == 1 and wide != 1:
                axes.append(axis)
            elif not isinstance(narrow, int) and (narrow is None or narrow != wide):
                return self._sum_to_at_run_time(g, x)
        if not axes:
            return g
        height, width = shape[-2:] if axes == [2, 3] and len(shape) == 4 else (None, None)
        if isinstance(height, int) and isinstance(width, int) and not self.is_half:
            # The cotangent of a gate on channels: a mean stays in onnxruntime's blocked layout, ReduceSum doesn't.
            return self.Mul(self.GlobalAveragePool(g), float(height * width))
        summed = self.ReduceSum(g, axes, keepdims=1)
        return self.Squeeze(summed, list(range(lead))) if lead else summed

    def reshape_like(self, g: ir.Value, x: ir.Value) -> ir.Value:
        """`g` in the shape of `x`: a constant shape where at most one axis is free, else read at run time."""
        known = dims(x)
        if known is not None and 0 not in known and sum(not isinstance(axis, int) for axis in known) <= 1:
            return self.Reshape(g, [axis if isinstance(axis, int) else -1 for axis in known])
        return self.Reshape(g, self.Shape(x))

    def expand_like(self, g: ir.Value, x: ir.Value) -> ir.Value:
        """`g` broadcast to the shape of `x`."""
        known = static_dims(x)
        return self.Expand(g, list(known) if known is not None else self.Shape(x))

    def zeros_like(self, x: ir.Value) -> ir.Value:
        """Zeros in the shape of `x` (never x·0, which is NaN where x isn't finite)."""
        return self.expand_like(self.floats(0.0), x)

    def _sum_to_at_run_time(self, g: ir.Value, x: ir.Value) -> ir.Value:
        """The same where the shapes are known only when the graph runs."""
        wide, narrow = self.Shape(g), self.Shape(x)
        lead = self.Sub(self.Size(wide), self.Size(narrow))
        aligned = self.Concat(self.Expand(self.constant([1], np.int64), self.Unsqueeze(lead, [0])), narrow, axis=0)
        repeated = self.And(self.Equal(aligned, 1), self.Not(self.Equal(wide, 1)))
        axes = self.Reshape(self.NonZero(repeated), [-1])
        summed = self.ReduceSum(g, axes, keepdims=1, noop_with_empty_axes=1)
        return self.Reshape(summed, narrow)

    def _append(self, op_type: str, inputs: Iterable[Operand], outputs: int, attributes: dict[str, Any]) -> Any:
        self._count += 1
        name = f"{self.prefix}/{op_type}_{self._count}"
        operands = [self._operand(operand) for operand in inputs]
        node = ir.node(op_type, operands, attributes, num_outputs=outputs, name=name)
        for index, output in enumerate(node.outputs):
            output.name = name if outputs == 1 else f"{name}/{index}"
        self.graph.append(node)
        return node.outputs[0] if outputs == 1 else tuple(node.outputs)

    def _operand(self, operand: Operand) -> ir.Value | None:
        if operand is None or isinstance(operand, ir.Value):
            return operand
        if isinstance(operand, Known):
            return self.known(operand)
        if isinstance(operand, np.ndarray):
            return self.constant(operand)
        if isinstance(operand, float):
            return self.floats(operand)
        return self.constant(operand, np.int64)


def _schema(op_type: str) -> onnx.defs.OpSchema:
    try:
        return onnx.defs.get_schema(op_type, OPSET, "")
    except onnx.defs.SchemaError:
        names = {schema.name for schema in onnx.defs.get_all_schemas() if schema.domain == ""}
        raise AttributeError(unknown("operator", op_type, names)) from None
