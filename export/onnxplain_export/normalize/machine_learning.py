"""scikit-learn's operators (ai.onnx.ml) in standard ones: their shapes are known then, and any runtime has them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as passes

from onnxplain.errors import NoGradientError
from onnxplain_export.emitter import Emitter, attribute, dims

Lowering = Callable[[Emitter, ir.Node, ir.Value], ir.Value | None]
"""(emitter, node, its first input) → what its last output is, None where the operator stays as it is."""


def lower_machine_learning(model: ir.Model) -> None:
    """Rewrites the differentiable operators of ai.onnx.ml; what gives labels and what runtimes disagree on stays.

    Trees stay as well, and the number of their scores is written behind them.
    """
    graph = model.graph
    for node in list(graph):
        lowering = LOWERINGS.get(node.op_type) if node.domain == "ai.onnx.ml" else None
        if lowering is not None and node.inputs and node.inputs[0] is not None:
            _lower(graph, node, lowering)
    passes.TopologicalSortPass()(model)
    passes.RemoveUnusedNodesPass()(model)


def _lower(graph: ir.Graph, node: ir.Node, lowering: Lowering) -> None:
    """Puts the standard operators in the place of the node's last output, under that output's name."""
    old, before = node.outputs[-1], len(graph)
    users = list(old.uses())
    op = Emitter(graph, f"{old.name}/lowered")
    new = lowering(op, node, node.inputs[0])  # type: ignore[arg-type]  # the caller has seen that it is there
    if new is None:
        graph.remove(list(graph)[before:])
        return
    new = op.Identity(new)
    new.name, old.name, new.type = old.name, f"{old.name}/before", ir.TensorType(ir.DataType.FLOAT)
    for user, index in users:
        user.replace_input_with(index, new)
    for index, value in enumerate(graph.outputs):
        if value is old:
            graph.outputs[index] = new


def _floats(op: Emitter, x: ir.Value) -> ir.Value:
    """These operators take any number and answer in floats."""
    return x if x.dtype == ir.DataType.FLOAT else op.Cast(x, to=int(ir.DataType.FLOAT))


def scaler(op: Emitter, node: ir.Node, x: ir.Value) -> ir.Value:
    """(x − offset) · scale."""
    shifted = op.Sub(_floats(op, x), op.floats(attribute(node, "offset", [0.0])))
    return op.Mul(shifted, op.floats(attribute(node, "scale", [1.0])))


def imputer(op: Emitter, node: ir.Node, x: ir.Value) -> ir.Value | None:
    """x, with what is missing replaced."""
    values, replaced = attribute(node, "imputed_value_floats"), float(attribute(node, "replaced_value_float", 0.0))
    if not values:
        return None
    x = _floats(op, x)
    return op.Where(op.IsNaN(x) if np.isnan(replaced) else op.Equal(x, replaced), op.floats(values), x)


def normalizer(op: Emitter, node: ir.Node, x: ir.Value) -> ir.Value:
    """x / |x|, 0 where |x| is 0; the sum of a softmax is 1 already."""
    norm, maker = attribute(node, "norm", "MAX"), _maker(x)
    if norm not in ("L1", "L2"):
        raise NoGradientError(f"Normalizer (node {node.name!r}): norm {norm!r} is read differently by each runtime")
    if norm == "L1" and maker is not None and maker.op_type == "Softmax" and attribute(maker, "axis", -1) in (-1, 1):
        return x
    x = _floats(op, x)
    length = op.ReduceL1(x, [-1], keepdims=1) if norm == "L1" else op.ReduceL2(x, [-1], keepdims=1)
    return op.Div(x, op.Where(op.Equal(length, 0.0), 1.0, length))


def linear_regressor(op: Emitter, node: ir.Node, x: ir.Value) -> ir.Value | None:
    """x Wᵀ + b."""
    if attribute(node, "post_transform", "NONE") != "NONE":
        return None
    return _linear(op, node, x, attribute(node, "targets", 1))


def linear_classifier(op: Emitter, node: ir.Node, x: ir.Value) -> ir.Value | None:
    """x Wᵀ + b, and the softmax or sigmoid of it."""
    rows = len(attribute(node, "intercepts", [])) or _classes(node)
    if rows < 2 or _classes(node) not in (0, rows):
        return None  # one row of weights for two classes: runtimes disagree
    return _transformed(op, node, _linear(op, node, x, rows))


def svm_regressor(op: Emitter, node: ir.Node, x: ir.Value) -> ir.Value | None:
    """Σ aᵢ k(x, sᵢ) + ρ, or x a + ρ without support vectors."""
    if attribute(node, "one_class", 0) or attribute(node, "post_transform", "NONE") != "NONE":
        return None
    weights = np.reshape(attribute(node, "coefficients"), (-1, 1))
    if not attribute(node, "n_supports", 0):
        return op.Add(op.MatMul(_floats(op, x), op.floats(weights)), _rho(op, node))
    order = _mixed(weights[:, 0] > 0)
    features = _kernel(op, node, _floats(op, x), order)
    return None if features is None else op.Add(op.MatMul(features, op.floats(weights[order])), _rho(op, node))


def svm_classifier(op: Emitter, node: ir.Node, x: ir.Value) -> ir.Value | None:
    """Σ aᵢ k(x, sᵢ) + ρ for each pair of classes; for two classes (−d, d).

    Probabilities are coupled by an iteration that stops early: such a node stays, as trees do.
    """
    counts = attribute(node, "vectors_per_class", [])
    if attribute(node, "prob_a", []):
        return stated(op, node, x)
    if len(counts) != _classes(node):
        return None
    order = _mixed(np.repeat(np.arange(len(counts)), counts))
    features = _kernel(op, node, _floats(op, x), order)
    if features is None:
        return None
    pairs = op.Add(op.MatMul(features, op.floats(_pair_weights(node, counts)[order])), _rho(op, node))
    return _transformed(op, node, pairs if len(counts) > 2 else op.Concat(op.Neg(pairs), pairs, axis=-1))


def array_feature_extractor(op: Emitter, node: ir.Node, x: ir.Value) -> ir.Value | None:
    """The picked columns; an array of labels stays with the labels."""
    known = dims(x)
    if x.is_initializer() or node.inputs[1] is None or (known is not None and len(known) < 2):
        return None
    if x.dtype is not None and not x.dtype.is_floating_point():
        return None
    return op.Gather(x, op.Reshape(node.inputs[1], [-1]), axis=-1)


def feature_vectorizer(op: Emitter, node: ir.Node, x: ir.Value) -> ir.Value | None:
    """The inputs' columns beside each other; inputs that it would cut or pad stay."""
    parts = [value for value in node.inputs if value is not None]
    widths = [(dims(value) or (None,))[1:] for value in (x, *parts[1:])]
    if widths != [(width,) for width in attribute(node, "inputdimensions", [])]:
        return None
    return op.Concat(*(_floats(op, value) for value in parts), axis=1)


def stated(op: Emitter, node: ir.Node, _: ir.Value) -> ir.Value:
    """What the operator itself says, with the number of its scores stated."""
    scores = _classes(node) or attribute(node, "n_targets", 1)
    return op.Reshape(op.Cast(node.outputs[-1], to=int(ir.DataType.FLOAT)), [-1, scores])


LOWERINGS: dict[str, Lowering] = {
    "ArrayFeatureExtractor": array_feature_extractor,
    "FeatureVectorizer": feature_vectorizer,
    "Imputer": imputer,
    "LinearClassifier": linear_classifier,
    "LinearRegressor": linear_regressor,
    "Normalizer": normalizer,
    "SVMClassifier": svm_classifier,
    "SVMRegressor": svm_regressor,
    "Scaler": scaler,
    "TreeEnsemble": stated,
    "TreeEnsembleClassifier": stated,
    "TreeEnsembleRegressor": stated,
}


def _linear(op: Emitter, node: ir.Node, x: ir.Value, rows: int) -> ir.Value:
    weights = np.reshape(attribute(node, "coefficients"), (rows, -1))
    bias = attribute(node, "intercepts") or [0.0] * rows
    return op.Add(op.MatMul(_floats(op, x), op.floats(weights.T)), op.floats(bias))


def _transformed(op: Emitter, node: ir.Node, scores: ir.Value) -> ir.Value | None:
    match attribute(node, "post_transform", "NONE"):
        case "NONE":
            return scores
        case "SOFTMAX":
            return op.Softmax(scores, axis=-1)
        case "LOGISTIC":
            return op.Sigmoid(scores)
    return None


def _mixed(groups: np.ndarray) -> np.ndarray:
    """An order of the support vectors in which all groups go along together: sums of both signs stay small on the way.

    onnxruntime adds them up in doubles; in floats, a sum of one sign after the other loses digits.
    """
    ranks = np.empty(len(groups))
    for group in np.unique(groups):
        own = groups == group
        ranks[own] = (np.arange(own.sum()) + 0.5) / own.sum()
    return np.argsort(ranks, kind="stable")


def _kernel(op: Emitter, node: ir.Node, x: ir.Value, order: np.ndarray) -> ir.Value | None:
    """k(x, sᵢ) of every row with every support vector in this order, [N, vectors]."""
    kind = attribute(node, "kernel_type", "LINEAR")
    if not attribute(node, "support_vectors"):
        return None
    vectors = np.reshape(attribute(node, "support_vectors"), (len(order), -1)).astype(np.float64)[order]
    gamma, shift, degree = (*attribute(node, "kernel_params", []), 0.0, 0.0, 0.0)[:3]
    inner = op.MatMul(x, op.floats(vectors.T))
    if kind == "LINEAR":
        return inner
    if kind == "RBF":  # |x − s|² by differences: the expanded square loses digits where x is near s
        apart = op.Sub(op.Unsqueeze(x, [1]), op.floats(vectors[None]))
        return op.Exp(op.Mul(op.ReduceSumSquare(apart, [2], keepdims=0), -float(gamma)))
    scaled = op.Add(op.Mul(inner, float(gamma)), float(shift))
    if kind == "SIGMOID":
        return op.Tanh(scaled)
    return op.Pow(scaled, float(degree)) if kind == "POLY" and degree == int(degree) else None


def _pair_weights(node: ir.Node, counts: list[int]) -> np.ndarray:
    """[vectors, pairs]: in a pair of classes (i, j), i's vectors weigh by row j − 1 of the coefficients, j's by i."""
    rows = np.reshape(attribute(node, "coefficients"), (len(counts) - 1, -1))
    of = np.repeat(np.arange(len(counts)), counts)
    pairs = [(i, j) for i in range(len(counts)) for j in range(i + 1, len(counts))]
    return np.stack([np.where(of == i, rows[j - 1], np.where(of == j, rows[i], 0)) for i, j in pairs], axis=1)


def _rho(op: Emitter, node: ir.Node) -> Any:
    return op.floats(attribute(node, "rho", [0.0]))


def _classes(node: ir.Node) -> int:
    names = ("classlabels_ints", "classlabels_strings", "classlabels_int64s")
    return max(len(attribute(node, name) or []) for name in names)


def _maker(x: ir.Value) -> ir.Node | None:
    """The node that made x, seen through Identity."""
    node = x.producer()
    while node is not None and node.op_type == "Identity" and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    return node
