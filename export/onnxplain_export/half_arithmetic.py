"""Networks that compute in half precision: weights and activations, forward and backward, for GPUs.

The network's inputs and outputs stay float32, and so does all that is around it in a graph. What is in half precision
is decided node by node: operators of `IN_HALF`, as far as they work on the image's numbers. Between the two kinds of
nodes there are Casts, and since a Cast has a derivative, the reverse pass follows: each node's in the node's own type.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from onnxplain.errors import ModelError
from onnxplain_export.emitter import OPSET, attribute, captured, dims, static_dims, subgraphs
from onnxplain_export.half_forms import use_half_forms
from onnxplain_export.half_range import cotangent_scale
from onnxplain_export.half_statistics import of_statistics
from onnxplain_export.normalize import Normalized
from onnxplain_export.normalize.normalized import Half
from onnxplain_export.normalize.shapes import infer_shapes
from onnxplain_export.origins import Known, attach, computed, origin_of

FLOAT, HALF = ir.DataType.FLOAT, ir.DataType.FLOAT16

PRODUCTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
"""What tensor cores are for; they add up in float32."""

POINTWISE = frozenset(
    {
        *("Abs", "Add", "Clip", "Div", "Elu", "Erf", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mul", "Neg"),
        *("PRelu", "Relu", "Sigmoid", "Sub", "Sum", "Tanh", "Where"),
        *("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"),
    }
)
"""What neither amplifies rounding nor leaves the range, forward and backward; half the bytes are half the time."""

MEANS = frozenset({"AveragePool", "GlobalAveragePool"})
"""Over so few places that half precision holds their shares; they add up in float32."""

MOVING = frozenset(
    {
        *("Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "Identity", "Pad", "Reshape", "Resize", "Slice"),
        *("SpaceToDepth", "Split", "Squeeze", "Transpose", "Unsqueeze"),
    }
)
"""What only puts numbers elsewhere, or weighs neighbours by numbers up to 1."""

IN_HALF = PRODUCTS | POINTWISE | MEANS | MOVING
"""All else stays in float32, between Casts:

- normalisations, whole or in parts (`half_statistics`), and sums and means by Reduce operators: onnxruntime's divide
  afterwards, and 256² is out of range;
- softmax and exponentials, powers, roots, logarithms and quotients: steep where they are small;
- maxima, whose derivative asks which number equals the largest: onnxruntime's CPU has few half kernels, computes chains
  in float32 and rounds the one side and not the other (measured: max pools lost their gradient);
- recurrences, whose errors add up over the steps, and lookups at computed places, whose coordinates are float32;
- what has no half kernel on GPUs.
"""

LARGEST = float(np.finfo(np.float16).max)
PLACES = 2**14
"""One over more is no normal number of half precision: a mean's derivative over more places stays in float32."""


def in_half(normalized: Normalized, steps: Sequence[dict[str, Any]]) -> Normalized:
    """The network in half precision, its cotangent's scale chosen on random images that `steps` prepare.

    Raises ModelError for quantised networks and for weights that half precision can't hold.
    """
    source = normalized.source
    if normalized.straight_through or any(node.op_type == "DequantizeLinear" for node in normalized.model.graph):
        raise ModelError(f"{source.file}: a quantised network doesn't compute in half precision; leave precision out")
    model = normalized.model.clone()
    use_half_forms(model.graph)
    _Conversion(model.graph, source.file).convert()
    infer_shapes(model)
    unscaled = replace(normalized, model=model, half=Half(normalized))
    scale = cotangent_scale(unscaled, steps)
    source.changes.append(f"computed in half precision (float16), cotangents times {scale:g}")
    return replace(unscaled, half=Half(normalized, scale))


@dataclass
class _Conversion:
    """A graph on its way to half precision; `casts` are the values that exist in the other type too."""

    graph: ir.Graph
    file: str
    casts: dict[tuple[ir.Value, ir.DataType], ir.Value] = field(default_factory=dict)

    def convert(self) -> None:
        """Retypes the results of the nodes that are to be in half precision, and casts what nodes read otherwise."""
        moved = _of_inputs(self.graph)
        apart = of_statistics(self.graph, moved, PRODUCTS)
        chosen = {
            node
            for node in self.graph
            if node not in apart and _fits(node) and any(value in moved for value in node.inputs)
        }
        for node in chosen:
            for output in node.outputs:
                if output.dtype == FLOAT:
                    output.type = ir.TensorType(HALF)
        for node in list(self.graph):
            for index, value in enumerate(node.inputs):
                if value is not None and value.dtype in (FLOAT, HALF):
                    kind = HALF if node in chosen and _may_be_half(node, index) else FLOAT
                    node.replace_input_with(index, self._cast(value, kind))
            self._cast_captured(node)
        for value in [value for value in self.graph.initializers.values() if not value.uses()]:
            del self.graph.initializers[str(value.name)]
        self.graph.sort()

    def _cast(self, value: ir.Value, kind: ir.DataType) -> ir.Value:
        if value.dtype == kind:
            return value
        if (value, kind) not in self.casts:
            self.casts[value, kind] = self._rounded(value) if value.is_initializer() else self._cast_node(value, kind)
        return self.casts[value, kind]

    def _cast_node(self, value: ir.Value, kind: ir.DataType) -> ir.Value:
        name = f"{value.name}/{'half' if kind == HALF else 'float'}"
        node = ir.node("Cast", [value], {"to": int(kind)}, name=name)
        result = node.outputs[0]
        result.name, result.shape, result.type = name, value.shape, ir.TensorType(kind)
        self.graph.append(node)
        return result

    def _rounded(self, value: ir.Value) -> ir.Value:
        """A weight in half precision."""
        tensor = value.const_value
        assert tensor is not None  # an initializer
        with np.errstate(over="ignore"):
            half = computed("Cast", Known(tensor.numpy(), origin_of(value)), to=int(HALF))
        if not np.array_equal(np.isfinite(half.content), np.isfinite(tensor.numpy())):
            raise ModelError(
                f"{self.file}: the weight {value.name!r} has values beyond float16's 65504; "
                "export with precision='float32'"
            )
        name = f"{value.name}/half"
        result = attach(ir.val(name, const_value=ir.Tensor(half.content, name=name)), half.origin)
        result.type, result.shape = ir.TensorType(HALF), value.shape
        self.graph.register_initializer(result)
        return result

    def _cast_captured(self, node: ir.Node) -> None:
        """Branches and bodies read the float32 form of what is around them."""
        wide = {value: self._cast(value, FLOAT) for value in captured(node) if value.dtype == HALF}
        for body in subgraphs(node) if wide else ():
            for inner in body.all_nodes():
                for index, value in enumerate(inner.inputs):
                    if value in wide:
                        inner.replace_input_with(index, wide[value])
            for index, output in enumerate(body.outputs):
                body.outputs[index] = wide.get(output, output)


def _of_inputs(graph: ir.Graph) -> set[ir.Value]:
    """The values that depend on what the graph's inputs hold, not merely on their shapes."""
    found = set(graph.inputs)
    for node in graph:
        if node.op_type not in ("Shape", "Size") and any(
            value in found for value in (*node.inputs, *captured(node)) if value is not None
        ):
            found.update(node.outputs)
    return found


def _fits(node: ir.Node) -> bool:
    """Whether a node computes in half precision, if it works on the image's numbers at all."""
    if node.domain or node.op_type not in IN_HALF:
        return False
    if not any(value is not None and value.dtype == FLOAT for value in node.inputs):
        return False
    if node.op_type == "Div" and not _is_fixed(node.inputs[1]):
        return False  # what may be near 0
    if node.op_type == "GlobalAveragePool" and not _is_small(node.inputs[0]):
        return False
    if node.op_type == "Resize" and attribute(node, "mode", "nearest") == "cubic":
        return False
    return not any(_is_lost(value) for value in node.inputs)


def _is_fixed(value: ir.Value | None) -> bool:
    return value is not None and value.is_initializer()


def _is_small(value: ir.Value | None) -> bool:
    """Whether a mean over the places of a map has a share that half precision holds."""
    sizes = None if value is None else (dims(value) or ())[2:]
    if not sizes or not all(isinstance(size, int) for size in sizes):
        return False
    return int(np.prod([int(str(size)) for size in sizes])) <= PLACES


def _is_lost(value: ir.Value | None) -> bool:
    """Whether half precision loses a single number that a node reads: an ε that becomes 0, a mask of -3e38."""
    if value is None or not value.is_initializer() or value.dtype != FLOAT or np.prod(static_dims(value) or ()) != 1:
        return False
    number = abs(float(value.const_value.numpy().reshape(()))) if value.const_value is not None else 0.0
    return np.isfinite(number) and number != 0 and not float(np.finfo(np.float16).tiny) <= number <= LARGEST


def _may_be_half(node: ir.Node, index: int) -> bool:
    """Whether the operator takes float16 at that input: a Resize's scales are float32 always."""
    inputs = onnx.defs.get_schema(node.op_type, OPSET, "").inputs
    formal = inputs[min(index, len(inputs) - 1)]
    return "tensor(float16)" in formal.types
