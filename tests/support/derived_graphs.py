"""Small graphs turned into those of their gradients."""

import onnx_ir as ir

from onnxplain_export.autodiff import differentiate
from onnxplain_export.vjp import STANDARD, RuleTable


def derive(model: ir.Model, wrt: ir.Value, rules: RuleTable = STANDARD) -> None:
    """Makes a graph that of its gradient at `wrt`, with a further input u: the cotangent of its output."""
    graph = model.graph
    ir.passes.common.ShapeInferencePass()(model)
    y = graph.outputs[0]
    u = ir.val("u", dtype=y.dtype, shape=y.shape)
    graph.inputs.append(u)
    (found,) = differentiate(graph, y, [wrt], u, rules)
    found.dtype, found.shape = wrt.dtype, wrt.shape
    graph.outputs[:] = [found]
    ir.passes.common.RemoveUnusedNodesPass()(model)
