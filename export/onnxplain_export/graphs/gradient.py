"""The plain gradient at the rows as they are: `gradient`, and the raw pass for methods of one's own."""

import onnx_ir as ir

from onnxplain_export.graphs.frame import (
    chosen_input,
    close_frame,
    enter,
    gradient_at_rows,
    open_at_value,
    per_image,
    row_cotangent,
    split_rows,
    told_scores,
)
from onnxplain_export.normalize import BATCH, Normalized
from onnxplain_export.vjp import STANDARD, RuleTable


def gradient(normalized: Normalized, rules: RuleTable = STANDARD, shares: bool = False) -> ir.Model:
    """total [N, T, …] = ∂ scores[target] / ∂ value, or of ⟨cotangent, scores⟩; norm is 1, scores are the images'."""
    frame = open_at_value(normalized, shares)
    op = frame.op
    chosen = chosen_input(frame)
    enter(frame, per_image(frame, frame.value), chosen)
    scores, settled = told_scores(frame, chosen)
    rows = gradient_at_rows(frame, row_cotangent(frame, settled), rules)
    total = op.Squeeze(split_rows(frame, rows, chosen, None), [1])
    ones = op.Expand(op.floats([[1.0]]), op.Shape(chosen, start=0, end=2))
    frame.output("total", total, [BATCH, "T", *frame.shape])
    frame.output("norm", op.Unsqueeze(ones, list(range(2, 2 + frame.rank))), [BATCH, "T", *[1] * frame.rank])
    frame.output("scores", scores, [BATCH, *normalized.scores.shape])
    return close_frame(frame, "gradient")
