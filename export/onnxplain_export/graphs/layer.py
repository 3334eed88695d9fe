"""A feature layer and the gradient at it: Grad-CAM and its relatives. The backward pass stops at the layer."""

from dataclasses import replace

import onnx_ir as ir

from onnxplain_export.graphs.frame import (
    chosen_input,
    close_frame,
    enter,
    gradient_at_rows,
    in_float32,
    open_at_value,
    per_image,
    row_cotangent,
    split_rows,
    told_scores,
)
from onnxplain_export.grids import Layer
from onnxplain_export.normalize import BATCH, Normalized, named_value


def layer(normalized: Normalized, at: Layer) -> ir.Model:
    """features [N, …], total [N, T, …] = ∂ scores[target] / ∂ features, or of ⟨cotangent, scores⟩; norm is 1,
    scores are the images'.

    Rows are repeated for the targets only behind the last value that every way passes.
    """
    frame = open_at_value(replace(normalized, value=at.entry, value_shape=at.entry_shape))
    op = frame.op
    chosen = chosen_input(frame)
    inside = None if at.name == at.entry else named_value(frame.graph, at.name)
    enter(frame, per_image(frame, frame.value), chosen)
    features = frame.value
    if inside is not None:
        frame.rows, frame.shape = inside, at.shape
        first = op.Gather(split_rows(frame, inside, chosen, None), op.constant([0]), axis=2)
        features = in_float32(op, op.Squeeze(first, [1, 2]))
    scores, settled = told_scores(frame, chosen)
    rows = gradient_at_rows(frame, row_cotangent(frame, settled))
    ones = op.Expand(op.floats([[1.0]]), op.Shape(chosen, start=0, end=2))
    frame.output("layer_features", features, [BATCH, *at.shape])
    frame.output("total", op.Squeeze(split_rows(frame, rows, chosen, None), [1]), [BATCH, "T", *at.shape])
    frame.output("norm", op.Unsqueeze(ones, list(range(2, 2 + frame.rank))), [BATCH, "T", *[1] * frame.rank])
    frame.output("scores", scores, [BATCH, *normalized.scores.shape])
    return close_frame(frame, "layer")
