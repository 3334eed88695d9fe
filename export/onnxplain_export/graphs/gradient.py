"""The plain gradient at the rows as they are: `gradient`, and the raw pass for methods of one's own."""

import onnx_ir as ir

from onnxplain_export.graphs.frame import (
    close_frame,
    enter,
    gradient_at_rows,
    one_hot,
    open_frame,
    per_image,
    split_rows,
)
from onnxplain_export.normalize import BATCH, Normalized
from onnxplain_export.vjp import STANDARD, RuleTable


def gradient(normalized: Normalized, rules: RuleTable = STANDARD) -> ir.Model:
    """total [N, T, …] = ∂ scores[target] / ∂ image; norm is 1."""
    frame = open_frame(normalized)
    op, shape = frame.op, normalized.image_shape
    target = frame.input("target", [BATCH, "T"], ir.DataType.INT64)
    enter(frame, per_image(frame, frame.image), target)
    rows = gradient_at_rows(frame, one_hot(frame, target), rules)
    total = op.Squeeze(split_rows(frame, rows, target, None), [1])
    ones = op.Cast(op.Equal(target, target), to=int(ir.DataType.FLOAT))
    frame.output("total", total, [BATCH, "T", *shape])
    frame.output("norm", op.Unsqueeze(ones, list(range(2, 2 + frame.rank))), [BATCH, "T", *[1] * frame.rank])
    return close_frame(frame, "gradient")
