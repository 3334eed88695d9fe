"""The linear operators of ai.onnx.ml, and the smooth ones."""

from typing import Any

import numpy as np
import onnx_ir as ir

from onnxplain.errors import NoGradientError
from onnxplain_export.emitter import Emitter, attribute, ranked_dims
from onnxplain_export.vjp.elementwise import zero_where
from onnxplain_export.vjp.registry import Cotangents, no_gradient, vjp

# A tree picks one of its leaves: constant between the thresholds.
no_gradient("ai.onnx.ml::TreeEnsemble", "ai.onnx.ml::TreeEnsembleClassifier", "ai.onnx.ml::TreeEnsembleRegressor")
no_gradient(
    "ai.onnx.ml::Binarizer", "ai.onnx.ml::CategoryMapper", "ai.onnx.ml::LabelEncoder", "ai.onnx.ml::OneHotEncoder"
)


@vjp("ai.onnx.ml::Scaler")
def scaler(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """d((x - offset) s) = s dx."""
    return (_typed(op, node, op.Mul(g, op.floats(attribute(node, "scale", [1.0])))),)


@vjp("ai.onnx.ml::Imputer")
def imputer(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """d = dx, 0 where x is what gets replaced."""
    x, replaced = node.inputs[0], float(attribute(node, "replaced_value_float", 0.0))
    missing = op.IsNaN(x) if np.isnan(replaced) else op.Equal(x, op.CastLike(replaced, x))
    return (_typed(op, node, zero_where(op, missing, g)),)


@vjp("ai.onnx.ml::Normalizer")
def normalizer(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """d(x/|x|) = (dx - y d|x|)/|x| in each row: 0 where |x| is 0."""
    x, y = node.inputs[0], node.outputs[0]
    norm = attribute(node, "norm", "MAX")
    if norm not in ("L1", "L2"):
        raise NoGradientError(f"Normalizer (node {node.name!r}): norm {norm!r} is read differently by each runtime")
    x = op.Cast(x, to=int(op.float_type))
    y = op.Cast(y, to=int(op.float_type))
    length = op.ReduceL1(x, [-1], keepdims=1) if norm == "L1" else op.ReduceL2(x, [-1], keepdims=1)
    slope = op.Sign(x) if norm == "L1" else y
    across = op.Sub(g, op.Mul(slope, op.ReduceSum(op.Mul(g, y), [-1], keepdims=1)))
    return (_typed(op, node, zero_where(op, op.Equal(length, 0.0), op.Div(across, length))),)


@vjp("ai.onnx.ml::LinearRegressor")
def linear_regressor(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """d(x Wᵀ + b) = dx Wᵀ."""
    weights = np.reshape(attribute(node, "coefficients"), (attribute(node, "targets", 1), -1))
    _refuse_transform(node)
    return (_typed(op, node, op.MatMul(g, op.floats(weights))),)


@vjp("ai.onnx.ml::LinearClassifier", many_outputs=True)
def linear_classifier(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """d(x Wᵀ + b) = dx Wᵀ in the scores; the label has no gradient."""
    if g[1] is None or g[0] is not None:
        raise NoGradientError(f"LinearClassifier (node {node.name!r}) can be differentiated through its scores only")
    rows = len(attribute(node, "intercepts", [])) or len(_labels(node))
    if rows < 2 or len(_labels(node)) not in (0, rows):
        raise NoGradientError(f"LinearClassifier (node {node.name!r}): one row of weights for two classes has no rule")
    weights = np.reshape(attribute(node, "coefficients"), (rows, -1))
    return (_typed(op, node, op.MatMul(_before_transform(op, node, g[1]), op.floats(weights))),)


@vjp("ai.onnx.ml::SVMRegressor")
def svm_regressor(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """d Σ aᵢ k(x, sᵢ): a for <x, s>, γ p (γ<x, s> + c)^(p-1) s, γ (1 - tanh²) s, 2γ exp(-γ|x - s|²) (s - x)."""
    if attribute(node, "one_class", 0):
        raise NoGradientError(f"SVMRegressor (node {node.name!r}) tells one class from the rest: no gradient")
    _refuse_transform(node)
    x = op.Cast(node.inputs[0], to=int(op.float_type))
    count, kernel = attribute(node, "n_supports", 0), attribute(node, "kernel_type", "LINEAR")
    coefficients = np.array(attribute(node, "coefficients"))
    if not count:
        return (_typed(op, node, op.MatMul(g, op.floats(coefficients.reshape(1, -1)))),)
    vectors = np.reshape(attribute(node, "support_vectors"), (count, -1))
    gamma, shift, degree = (*attribute(node, "kernel_params", []), 0.0, 0.0, 0.0)[:3]
    share = op.Mul(g, op.floats(coefficients.reshape(1, -1)))  # [N, vectors]
    if kernel == "RBF":
        apart = op.Sub(op.Unsqueeze(x, [1]), op.floats(vectors[None]))  # [N, vectors, features]
        share = op.Mul(share, op.Exp(op.Mul(op.ReduceSumSquare(apart, [2], keepdims=0), -gamma)))
        dx = op.Mul(op.ReduceSum(op.Mul(op.Unsqueeze(share, [2]), apart), [1], keepdims=0), -2.0 * gamma)
        return (_typed(op, node, dx),)
    inner = op.Add(op.Mul(op.MatMul(x, op.floats(vectors.T)), gamma), shift)
    if kernel == "POLY":
        if degree != int(degree):
            raise NoGradientError(
                f"SVMRegressor (node {node.name!r}): runtimes disagree on the fractional degree {degree}"
            )
        share = op.Mul(share, op.Mul(op.Pow(inner, float(int(degree) - 1)), gamma * int(degree)))
    elif kernel == "SIGMOID":
        t = op.Tanh(inner)
        share = op.Mul(share, op.Mul(op.Sub(1.0, op.Mul(t, t)), gamma))
    return (_typed(op, node, op.MatMul(share, op.floats(vectors))),)


@vjp("ai.onnx.ml::FeatureVectorizer")
def feature_vectorizer(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """Each input gets its columns of g."""
    widths = attribute(node, "inputdimensions", [])
    for x, width in zip(node.inputs, widths, strict=True):
        if ranked_dims(node, x)[1:] != (width,):
            raise NoGradientError(f"FeatureVectorizer (node {node.name!r}) cuts or pads an input: no rule")
    pieces = op.Split(g, op.constant(widths, np.int64), axis=1, outputs=len(widths)) if len(widths) > 1 else [g]
    return [_typed(op, node, piece, i) for i, piece in enumerate(pieces)]


@vjp("ai.onnx.ml::ArrayFeatureExtractor")
def array_feature_extractor(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """g added up at the columns that were picked."""
    x, columns = node.inputs
    if x is None:
        raise NoGradientError(f"ArrayFeatureExtractor (node {node.name!r}) lacks an input")
    column = op.Reshape(columns, [-1])
    if len(ranked_dims(node, x)) == 1:
        g = op.Reshape(g, [-1])
    return op.ScatterElements(op.zeros_like(x), op.Expand(column, op.Shape(g)), g, axis=-1, reduction="add"), None


def _refuse_transform(node: ir.Node) -> None:
    """onnxruntime 1.31 leaves a transform of one number out, the reference evaluator refuses all."""
    transform = attribute(node, "post_transform", "NONE")
    if transform != "NONE":
        raise NoGradientError(
            f"{node.op_type} (node {node.name!r}): post_transform {transform!r} has no derivative rule"
        )


def _before_transform(op: Emitter, node: ir.Node, g: ir.Value) -> ir.Value:
    """The cotangent of a classifier's scores before the transform that it ends with."""
    transform, y = attribute(node, "post_transform", "NONE"), node.outputs[1]
    if transform == "NONE":
        return g
    if transform == "LOGISTIC":
        return op.Mul(g, op.Mul(y, op.Sub(1.0, y)))
    if transform == "SOFTMAX":
        return op.Mul(y, op.Sub(g, op.ReduceSum(op.Mul(g, y), [-1], keepdims=1)))
    raise NoGradientError(f"{node.op_type} (node {node.name!r}): post_transform {transform!r} has no derivative rule")


def _labels(node: ir.Node) -> list[Any]:
    return attribute(node, "classlabels_ints") or attribute(node, "classlabels_strings") or []


def _typed(op: Emitter, node: ir.Node, dx: ir.Value, index: int = 0) -> ir.Value:
    """dx in the input's type: these operators take doubles and answer in floats."""
    x = node.inputs[index]
    if x is None or x.dtype is None or x.dtype == op.float_type:
        return dx
    return op.Cast(dx, to=int(x.dtype))
