"""The part of a network behind the explained value, as a network of its own: what a proof compares with."""

from dataclasses import replace

import onnx_ir as ir
import onnx_ir.passes.common as passes

from onnxplain_export.normalize import BATCH, Normalized, named_value
from onnxplain_export.normalize.scores import EXPLAINED
from onnxplain_export.normalize.shapes import infer_shapes

VALUE = "explainer/value"


def onward(normalized: Normalized) -> Normalized:
    """The network that goes on from the explained value, its first input; the model's own follow where still needed."""
    if not normalized.inside:
        return normalized
    model = normalized.model.clone()
    graph = model.graph
    taken = ir.val(VALUE, ir.DataType.FLOAT, [BATCH, *normalized.value_shape])
    scores = named_value(graph, EXPLAINED)
    ir.convenience.replace_all_uses_with(named_value(graph, normalized.value), taken)
    graph.outputs.clear()
    graph.outputs.append(scores)
    passes.RemoveUnusedNodesPass()(model)
    kept = [value for value in graph.inputs if value.uses()]
    graph.inputs.clear()
    graph.inputs.extend([taken, *kept])
    infer_shapes(model)
    return replace(
        normalized,
        model=model,
        image=VALUE,
        image_shape=normalized.value_shape,
        layout=None,
        value=VALUE,
        others=(),
    )
