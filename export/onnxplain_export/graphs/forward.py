"""image → scores, the top class, the explained value where it lies inside, and the model's other outputs."""

import onnx_ir as ir

from onnxplain_export.graphs.frame import Frame, close_frame, connect, in_float32, open_frame
from onnxplain_export.normalize import BATCH, Normalized, named_value


def forward(normalized: Normalized) -> ir.Model:
    """The network as it is, with the explained scores, their largest class and the explained value beside its own."""
    frame = open_frame(normalized)
    scores = normalized.scores
    others = [(v.name, v.shape, v.dtype) for v in normalized.model.graph.outputs if v.name in normalized.others]
    values = {value.name: value for node in frame.graph for value in node.outputs}
    value = in_float32(frame.op, named_value(frame.graph, normalized.value)) if normalized.inside else None
    connect(frame, frame.value)
    frame.output("scores", frame.scores, [BATCH, *scores.shape])
    if scores.class_axis is not None:
        top = frame.op.ArgMax(frame.scores, axis=scores.class_axis, keepdims=0)
        behind = [size for axis, size in enumerate(scores.shape, 1) if axis != scores.class_axis]
        frame.output("top", top, [BATCH, *behind], ir.DataType.INT64)
    if value is not None:
        frame.output("explained", value, [BATCH, *normalized.value_shape])
    for name, shape, dtype in others:
        if name in values:
            result = _own_output(frame, values[name], name)
            result.shape, result.type = shape, ir.TensorType(result.dtype or dtype or ir.DataType.FLOAT)
            frame.graph.outputs.append(result)
    return close_frame(frame, "forward")


def _own_output(frame: Frame, value: ir.Value, name: str) -> ir.Value:
    """One of the model's own outputs, in float32 where it is in half precision."""
    result = in_float32(frame.op, value)
    if result is not value:
        value.name, result.name = f"{name}/half", name
    return result
