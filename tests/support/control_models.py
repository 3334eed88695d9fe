"""Small models with branches and loops, and their gradients in onnxruntime against torch."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnx_ir.passes.common as passes
import onnxruntime
import torch
from onnx import parser

from onnxplain_export.autodiff import differentiate
from onnxplain_export.normalize.control_flow import unroll
from onnxplain_export.normalize.shapes import infer_shapes

HELD = {"If", "Loop", "Scan"}
SCALES = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)
COMMON = """
    s = Constant<value = float[3] {1.0, 2.0, 0.5}>()
    first = Constant<value = int64[1] {0}>()
    one = Constant<value = int64 {1}>()
    true = Constant<value = bool {1}>()
"""


def load(nodes: str, inputs: str = "float[N, 3] x", outputs: str = "float[N, 3] y") -> ir.Model:
    """A model whose text may use the constants above, each node named after its first output."""
    text = f'<ir_version: 10, opset_import: ["" : 20]> g ({inputs}) => ({outputs}) {{ {COMMON} {nodes} }}'
    proto = parser.parse_model(text)
    onnx.checker.check_model(proto)
    model = ir.from_proto(proto)
    for node in model.graph.all_nodes():
        node.name = f"node_of_{node.outputs[0].name}"
    return tidied(model)


def tidied(model: ir.Model) -> ir.Model:
    """As normalisation does it around the unrolling."""
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    passes.RemoveUnusedNodesPass()(model)
    passes.NameFixPass()(model)
    infer_shapes(model)
    return model


def run(model: ir.Model, **feeds: np.ndarray) -> list[Any]:
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, feeds))


def held(model: ir.Model) -> set[str]:
    """The kinds of branches and loops that are left."""
    return {node.op_type for node in model.graph.all_nodes()} & HELD


def unrolled(model: ir.Model) -> ir.Model:
    """A copy that was unrolled, which computes the same."""
    copy = model.clone()
    unroll(copy.graph)
    tidied(copy)
    x = sample(model)
    for one, other in zip(run(model, x=x), run(copy, x=x), strict=True):
        np.testing.assert_array_equal(one, other)
    assert [value.name for value in copy.graph.outputs] == [value.name for value in model.graph.outputs]
    return copy


def sample(model: ir.Model) -> np.ndarray:
    shape = [axis if isinstance(axis, int) else 2 for axis in model.graph.inputs[0].shape or ()]
    return np.random.default_rng(4).uniform(-1, 1, shape).astype(np.float32)


def gradient(model: ir.Model, x: np.ndarray, u: np.ndarray) -> np.ndarray:
    """The gradient of ⟨u, y⟩ at x, in onnxruntime."""
    graph = model.clone().graph
    cotangent = ir.val("u", dtype=ir.DataType.FLOAT, shape=graph.outputs[0].shape)
    graph.inputs.append(cotangent)
    (result,) = differentiate(graph, graph.outputs[0], [graph.inputs[0]], cotangent)
    graph.outputs.clear()
    graph.outputs.append(result)
    result.dtype, result.shape = ir.DataType.FLOAT, graph.inputs[0].shape
    whole = ir.Model(graph, ir_version=10)
    passes.RemoveUnusedNodesPass()(whole)
    return run(whole, x=x, u=u)[0]


def agrees_with_torch(model: ir.Model, function: Callable[[torch.Tensor], torch.Tensor], x: np.ndarray) -> None:
    leaf = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    y = function(leaf)
    u = np.random.default_rng(5).standard_normal(tuple(y.shape)).astype(np.float32)
    np.testing.assert_allclose(run(model, x=x)[0], y.detach().numpy(), rtol=1e-5, atol=1e-5)
    (expected,) = torch.autograd.grad(y, leaf, torch.tensor(u, dtype=torch.float64))
    np.testing.assert_allclose(gradient(model, x, u), expected.numpy(), rtol=1e-4, atol=1e-5)
