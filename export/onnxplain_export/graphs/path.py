"""Weighted gradients along the straight path from a baseline to the image: integrated gradients and its relatives.

Sundararajan, Taly, Yan: Axiomatic Attribution for Deep Networks (2017, arXiv:1703.01365).
"""

import onnx_ir as ir

from onnxplain_export.graphs.frame import (
    chosen_input,
    close_frame,
    column,
    enter,
    gradient_at_rows,
    open_at_value,
    over_value,
    per_image,
    row_cotangent,
    weight_norm,
    weighted_rows,
)
from onnxplain_export.normalize import BATCH, Normalized
from onnxplain_export.vjp import STANDARD, RuleTable


def path(normalized: Normalized, rules: RuleTable = STANDARD, shares: bool = False) -> ir.Model:
    """total = (x − b) · Σ_k w_k g(b + α_k (x − b)), norm = Σ_k w_k."""
    frame = open_at_value(normalized, shares)
    op = frame.op
    chosen = chosen_input(frame)
    steps = frame.input("steps", ["S", "K", 2])
    baseline = frame.input("baseline", [f"baseline_{axis}" for axis in range(1 + frame.rank)])
    alpha, weight = column(frame, steps, 0), column(frame, steps, 1)
    difference = op.Sub(frame.value, baseline)
    moved = op.Mul(over_value(frame, alpha), per_image(frame, difference))
    enter(frame, op.Add(per_image(frame, baseline), moved), chosen)
    rows = gradient_at_rows(frame, row_cotangent(frame, chosen, weight), rules)
    summed = op.ReduceSum(weighted_rows(frame, rows, chosen, steps, weight), [1], keepdims=0)
    frame.output("total", op.Mul(summed, per_image(frame, difference)), [BATCH, "T", *frame.shape])
    frame.output("norm", weight_norm(frame, weight), ["S", 1, *[1] * frame.rank])
    return close_frame(frame, "path")
