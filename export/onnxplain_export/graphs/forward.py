"""image → scores [N, classes], the top class, and the model's other outputs."""

import onnx_ir as ir

from onnxplain_export.graphs.frame import close_frame, connect, open_frame
from onnxplain_export.normalize import BATCH, Normalized


def forward(normalized: Normalized) -> ir.Model:
    """The network as it is, with the explained scores and their largest class beside its own outputs."""
    frame = open_frame(normalized)
    others = [(v.name, v.shape, v.dtype) for v in normalized.model.graph.outputs if v.name in normalized.others]
    values = {value.name: value for node in frame.graph for value in node.outputs}
    connect(frame, frame.image, BATCH)
    frame.output("scores", frame.scores, [BATCH, normalized.scores.classes])
    frame.output("top", frame.op.ArgMax(frame.scores, axis=1, keepdims=0), [BATCH], ir.DataType.INT64)
    for name, shape, dtype in others:
        if name in values:
            values[name].shape, values[name].type = shape, ir.TensorType(dtype or ir.DataType.FLOAT)
            frame.graph.outputs.append(values[name])
    return close_frame(frame, "forward")
