"""Gradients of a few nodes of any opset, after their expansion to opset 20, in float64 by the reference evaluator."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx import NodeProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx_ir.passes.common import LiftConstantsToInitializersPass, RemoveUnusedNodesPass

from onnxplain_export.autodiff import differentiate
from onnxplain_export.normalize.constants import fold_constants
from onnxplain_export.normalize.control_flow import unroll
from onnxplain_export.normalize.opset import to_opset_20
from onnxplain_export.normalize.precision import forget_types
from onnxplain_export.normalize.shapes import infer_shapes
from rule_harness import KERNELS

Array = np.ndarray
KINDS = {"float64": TensorProto.DOUBLE, "float32": TensorProto.FLOAT, "bool": TensorProto.BOOL}
KINDS |= {"int64": TensorProto.INT64, "int32": TensorProto.INT32}


def source(
    nodes: Sequence[NodeProto],
    feeds: Mapping[str, Array],
    opset: int,
    result: str = "y",
    kind: str = "float64",
    weights: Mapping[str, Array] | None = None,
) -> onnx.ModelProto:
    """A model of these nodes whose inputs are the `feeds`."""
    tensors = [numpy_helper.from_array(x, name) for name, x in (weights or {}).items()]
    inputs = [helper.make_tensor_value_info(n, KINDS[str(x.dtype)], x.shape) for n, x in feeds.items()]
    graph = helper.make_graph(
        nodes, "source", inputs, [helper.make_tensor_value_info(result, KINDS[kind], None)], tensors
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def expanded(proto: onnx.ModelProto) -> ir.Model:
    """The model in opset 20, loops unrolled, constants folded, shapes inferred; of doubles where its inputs are."""
    model = to_opset_20(ir.from_proto(proto))
    if any(value.dtype == ir.DataType.DOUBLE for value in model.graph.inputs):
        _widen(model)
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    infer_shapes(model)
    for _ in range(20):
        if not fold_constants(model.graph) and not unroll(model.graph):
            break
        RemoveUnusedNodesPass()(model)
        infer_shapes(model)
    return model


def _widen(model: ir.Model) -> None:
    """Makes float32, in which composites compute, float64, as normalisation makes every float one type."""
    for graph in (model.graph, *model.graph.subgraphs()):
        for value in graph.initializers.values():
            if value.dtype == ir.DataType.FLOAT:
                value.const_value = ir.tensor(value.const_value.numpy().astype(np.float64), name=value.name)
                value.dtype = ir.DataType.DOUBLE
        for value in [*graph.inputs, *graph.outputs]:
            if value.dtype == ir.DataType.FLOAT:
                value.dtype = ir.DataType.DOUBLE
    for node in model.graph.all_nodes():
        to, value = node.attributes.get("to"), node.attributes.get("value")
        if to is not None and to.value == int(ir.DataType.FLOAT):
            node.attributes["to"] = ir.AttrInt64("to", int(ir.DataType.DOUBLE))
        if node.op_type == "ConstantOfShape" and value is None:
            node.attributes["value"] = ir.AttrTensor("value", ir.tensor(np.zeros(1)))
        elif value is not None and value.value.dtype == ir.DataType.FLOAT:
            node.attributes["value"] = ir.AttrTensor("value", ir.tensor(value.value.numpy().astype(np.float64)))
    forget_types(model)


def value_and_gradients(
    proto: onnx.ModelProto, feeds: Mapping[str, Array], wrt: Sequence[str], u: Array
) -> tuple[Array, list[Array]]:
    """The first output, and the gradients of ⟨u, output⟩ at the inputs `wrt`."""
    model = expanded(proto)
    graph = model.graph
    values = {value.name: value for value in graph.inputs}
    of = graph.outputs[0]
    cotangent = ir.val("cotangent", dtype=of.dtype, shape=ir.Shape(u.shape))
    graph.inputs.append(cotangent)
    found = differentiate(graph, of, [values[name] for name in wrt], cotangent)
    for k, gradient in enumerate(found):
        node = ir.node("Identity", [gradient])
        node.outputs[0].name, node.outputs[0].dtype = f"gradient_{k}", of.dtype
        graph.append(node)
        graph.outputs.append(node.outputs[0])
    RemoveUnusedNodesPass()(model)
    session = ReferenceEvaluator(ir.to_proto(model), new_ops=KERNELS)
    y, *gradients = session.run(None, {**feeds, "cotangent": u})
    return y, gradients


def numbers(*shape: int, seed: int = 0) -> Array:
    """Standard normal numbers."""
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


def random_feeds(**shapes: Any) -> dict[str, Array]:
    """Numbers for each name, all different."""
    return {name: numbers(*shape, seed=len(name) + ord(name[0])) for name, shape in shapes.items()}
