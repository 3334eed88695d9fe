"""The formulas of onnxplain.cams in ONNX: maps [N, T, places] of features and gradients.

Features are [N, K, places], gradients [N, T, K, places]. Papers and conventions are named there.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxplain.errors import ParameterError
from onnxplain.resize import interpolation_matrix
from onnxplain_export.emitter import Emitter

Formula = Callable[[Emitter, ir.Value, ir.Value], ir.Value]


def gradcam(op: Emitter, features: ir.Value, gradients: ir.Value) -> ir.Value:
    """Σ_k w_k A_k with w_k the gradient's mean over places."""
    return op.MatMul(op.ReduceMean(gradients, [3], keepdims=0), features)


def gradcam_plus_plus(op: Emitter, features: ir.Value, gradients: ir.Value) -> ir.Value:
    """Σ_k w_k A_k with w_k = Σ_ij g / (2 + g ΣA) over rising gradients, 0 for 0 / 0."""
    sums = op.Unsqueeze(op.ReduceSum(features, [2], keepdims=1), [1])
    rising = op.Relu(gradients)
    shares = _ratio(op, rising, op.Add(op.Mul(rising, sums), 2.0))
    return op.MatMul(op.ReduceSum(shares, [3], keepdims=0), features)


def hirescam(op: Emitter, features: ir.Value, gradients: ir.Value) -> ir.Value:
    """Σ_k g_k A_k, place by place."""
    return op.ReduceSum(op.Mul(gradients, op.Unsqueeze(features, [1])), [2], keepdims=0)


def layercam(op: Emitter, features: ir.Value, gradients: ir.Value) -> ir.Value:
    """Σ_k max(g_k, 0) A_k, place by place."""
    return hirescam(op, features, op.Relu(gradients))


def xgradcam(op: Emitter, features: ir.Value, gradients: ir.Value) -> ir.Value:
    """Σ_k w_k A_k with w_k = Σ g A / Σ A, 0 for a channel that adds up to 0."""
    products = op.ReduceSum(op.Mul(gradients, op.Unsqueeze(features, [1])), [3], keepdims=0)
    sums = op.Unsqueeze(op.ReduceSum(features, [2], keepdims=0), [1])
    return op.MatMul(_ratio(op, products, sums), features)


CAMS: dict[str, Formula] = {
    "gradcam": gradcam,
    "gradcam_plus_plus": gradcam_plus_plus,
    "hirescam": hirescam,
    "layercam": layercam,
    "xgradcam": xgradcam,
}
"""By the finish rule that a method names."""


def positive(op: Emitter, maps: ir.Value) -> ir.Value:
    """What speaks for the target."""
    return op.Relu(maps)


def upsampled(op: Emitter, maps: ir.Value, grid: tuple[int, int], size: tuple[int, int], how: str) -> ir.Value:
    """Maps [N, T, places] as [N, T, H, W], by two interpolation matrices, or [N, T, h, w] where that is "none"."""
    squares = op.Reshape(maps, [0, 0, *grid])
    if how == "none":
        return squares
    if how != "bilinear":
        raise ParameterError(f"upsample={how!r} isn't made inside a single file; use bilinear or none")
    rows, columns = (_matrix(source, target) for source, target in zip(grid, size, strict=True))
    return op.MatMul(op.MatMul(op.floats(rows), squares), op.floats(columns.T))


def _matrix(source: int, target: int) -> np.ndarray[Any, Any]:
    return interpolation_matrix(source, target, "bilinear", antialias=False)


def _ratio(op: Emitter, above: ir.Value, below: ir.Value) -> ir.Value:
    """above / below, 0 where below is 0."""
    nothing = op.Equal(below, 0.0)
    return op.Where(nothing, 0.0, op.Div(above, op.Where(nothing, 1.0, below)))
