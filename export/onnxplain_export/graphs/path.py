"""Weighted gradients along the straight path from a baseline to the image: integrated gradients and its relatives.

Sundararajan, Taly, Yan: Axiomatic Attribution for Deep Networks (2017, arXiv:1703.01365).
"""

import onnx_ir as ir

from onnxplain_export.graphs.frame import (
    close_frame,
    column,
    enter,
    gradient_at_rows,
    one_hot,
    open_frame,
    over_image,
    per_image,
    split_rows,
    weight_norm,
)
from onnxplain_export.normalize import BATCH, Normalized
from onnxplain_export.vjp import STANDARD, RuleTable


def path(normalized: Normalized, rules: RuleTable = STANDARD) -> ir.Model:
    """total = (x − b) · Σ_k w_k g(b + α_k (x − b)), norm = Σ_k w_k."""
    frame = open_frame(normalized)
    op, shape = frame.op, normalized.image_shape
    target = frame.input("target", [BATCH, "T"], ir.DataType.INT64)
    steps = frame.input("steps", ["S", "K", 2])
    baseline = frame.input("baseline", [f"baseline_{axis}" for axis in range(1 + frame.rank)])
    alpha, weight = column(frame, steps, 0), column(frame, steps, 1)
    difference = op.Sub(frame.image, baseline)
    moved = op.Mul(over_image(frame, alpha), per_image(frame, difference))
    enter(frame, op.Add(per_image(frame, baseline), moved), target)
    # The reverse pass is linear in the cotangent: weighting it there costs nothing.
    rows = gradient_at_rows(frame, one_hot(frame, target, weight), rules)
    summed = op.ReduceSum(split_rows(frame, rows, target, steps), [1], keepdims=0)
    frame.output("total", op.Mul(summed, per_image(frame, difference)), [BATCH, "T", *shape])
    frame.output("norm", weight_norm(frame, weight), ["S", 1, *[1] * frame.rank])
    return close_frame(frame, "path")
