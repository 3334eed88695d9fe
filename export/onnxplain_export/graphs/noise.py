"""Gradients at noisy points: SmoothGrad, its squared and variance forms, and SmoothGrad of integrated gradients.

Smilkov et al.: SmoothGrad: removing noise by adding noise (2017, arXiv:1706.03825).
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
from onnxplain_export.graphs.random import normal
from onnxplain_export.normalize import BATCH, Normalized
from onnxplain_export.vjp import STANDARD, RuleTable


def noise(normalized: Normalized, rules: RuleTable = STANDARD, shares: bool = False) -> ir.Model:
    """total = Σ_k w_k g(b + α_k (x̃_k − b)) · f_k with x̃_k = x + σ z_k and f_k = x̃_k − b where `multiply` is 1, else 1.

    z_k depends on (seed, draw, element) alone; norm = Σ_k w_k. squares = Σ_k w_k² g_k² f_k², the sum of the squares of
    total's terms: with weights of 1, what the second moment of the gradient needs.
    """
    frame = open_at_value(normalized, shares)
    op = frame.op
    chosen = chosen_input(frame)
    steps = frame.input("steps", ["S", "K", 4])
    baseline = frame.input("baseline", [f"baseline_{axis}" for axis in range(1 + frame.rank)])
    sigma = frame.input("sigma", [BATCH])
    seed = frame.input("seed", [1], ir.DataType.INT64)
    draw, alpha, weight, multiply = (column(frame, steps, index) for index in range(4))
    noisy = op.Mul(normal(op, seed, draw, frame.shape), op.Unsqueeze(sigma, list(range(1, 2 + frame.rank))))
    difference = op.Add(per_image(frame, op.Sub(frame.value, baseline)), noisy)
    points = op.Add(per_image(frame, baseline), op.Mul(over_value(frame, alpha), difference))
    enter(frame, points, chosen)
    rows = gradient_at_rows(frame, row_cotangent(frame, chosen, weight), rules)
    times = over_value(frame, multiply)
    factor = op.Add(op.Mul(times, difference), op.Sub(1.0, times))
    terms = op.Mul(weighted_rows(frame, rows, chosen, steps, weight), op.Unsqueeze(factor, [2]))
    frame.output("total", op.ReduceSum(terms, [1], keepdims=0), [BATCH, "T", *frame.shape])
    frame.output("norm", weight_norm(frame, weight), ["S", 1, *[1] * frame.rank])
    frame.output("squares", op.ReduceSum(op.Mul(terms, terms), [1], keepdims=0), [BATCH, "T", *frame.shape])
    return close_frame(frame, "noise")
