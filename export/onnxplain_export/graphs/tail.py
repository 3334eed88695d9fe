"""The network behind a feature layer: scores of features that were changed, for Ablation-CAM and Recipro-CAM."""

from dataclasses import replace

import onnx_ir as ir

from onnxplain_export.graphs.frame import close_frame, connect, open_frame
from onnxplain_export.grids import Layer
from onnxplain_export.normalize import BATCH, Normalized, named_value


def tail(normalized: Normalized, at: Layer) -> ir.Model:
    """scores [N, …] of the features `layer` [N, …]; the model's own inputs are asked for only where a way avoids them.

    An image's other inputs have a row for each of its rows of features.
    """
    frame = open_frame(replace(normalized, value=at.name, value_shape=at.shape))
    if at.name != normalized.image:
        frame.entry, frame.shape = named_value(frame.graph, at.name), at.shape
    frame.value = frame.input("layer", [BATCH, *at.shape])
    connect(frame, frame.value)
    frame.output("scores", frame.scores, [BATCH, *normalized.scores.shape])
    model = close_frame(frame, "tail")
    for value in list(model.graph.inputs):
        if value is not frame.value and not value.uses():
            model.graph.inputs.remove(value)
    return model
