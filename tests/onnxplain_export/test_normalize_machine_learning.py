"""scikit-learn's operators in standard ones compute what onnxruntime makes of them; activations are named again."""

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto

import small_models
from onnxplain.errors import NoGradientError
from onnxplain_export.normalize.activations import name_activations
from onnxplain_export.normalize.machine_learning import lower_machine_learning
from onnxplain_export.normalize.shapes import infer_shapes
from small_models import model, node

FLOAT = TensorProto.FLOAT
ROWS = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)
HOLED = np.where(np.abs(ROWS) < 0.5, np.nan, ROWS).astype(np.float32)
WEIGHTS = np.random.default_rng(1).standard_normal((3, 4)).astype(np.float32)
VECTORS = np.random.default_rng(2).standard_normal((6, 4)).astype(np.float32)
LINEAR = {"coefficients": WEIGHTS.ravel().tolist(), "intercepts": [0.5, -0.25, 0.125]}


def machine(kernel: str, classes: int, **more: Any) -> dict[str, Any]:
    """The attributes of a support vector machine; with no classes, those of a regression."""
    rows = max(classes - 1, 1)
    pairs = max(classes * (classes - 1) // 2, 1)
    own = {"classlabels_ints": list(range(classes)), "vectors_per_class": {2: [4, 2], 3: [1, 3, 2]}.get(classes)}
    return {
        "kernel_type": kernel,
        "kernel_params": [0.5, 0.25, 3.0],
        "coefficients": np.random.default_rng(3).standard_normal(rows * 6).tolist(),
        "support_vectors": VECTORS.ravel().tolist(),
        "rho": [0.5, -1.0, 0.25][:pairs],
        **(own if classes else {"n_supports": 6}),
        **more,
    }


KERNELS = ("LINEAR", "RBF", "POLY", "SIGMOID")
USES: list[tuple[str, dict[str, Any], np.ndarray]] = [
    ("Scaler", {"offset": [1.0, 2.0, 3.0, 4.0], "scale": [0.5, 1.0, -2.0, 3.0]}, ROWS),
    ("Scaler", {"offset": [1.0, 2.0, 3.0, 4.0], "scale": [0.5, 1.0, -2.0, 3.0]}, ROWS.astype(np.float64)),
    ("Scaler", {"offset": [1.0], "scale": [2.0]}, np.arange(8, dtype=np.int64).reshape(2, 4)),
    ("Imputer", {"imputed_value_floats": [1.0, 2.0, 3.0, 4.0], "replaced_value_float": float("nan")}, HOLED),
    ("Imputer", {"imputed_value_floats": [7.0], "replaced_value_float": 0.0}, np.maximum(ROWS, 0)),
    ("Normalizer", {"norm": "L1"}, ROWS),
    ("Normalizer", {"norm": "L2"}, np.concatenate([ROWS, 0 * ROWS[:1]])),
    ("LinearRegressor", {**LINEAR, "targets": 3}, ROWS),
    ("LinearRegressor", {"coefficients": [1.0, 2.0, 3.0, 4.0]}, ROWS),
    *[
        ("LinearClassifier", {**LINEAR, "classlabels_ints": [0, 1, 2], "post_transform": transform}, ROWS)
        for transform in ("NONE", "SOFTMAX", "LOGISTIC")
    ],
    *[("SVMRegressor", machine(kernel, 0), ROWS) for kernel in KERNELS],
    ("SVMRegressor", {**machine("LINEAR", 0), "n_supports": 0, "coefficients": [1.0, 2.0, 3.0, 4.0]}, ROWS),
    *[("SVMClassifier", machine(kernel, classes), ROWS) for kernel in KERNELS for classes in (2, 3)],
]


def lowered(kind: str, attributes: dict[str, Any], rows: np.ndarray) -> tuple[Any, ir.Model]:
    """A model of the one operator, and what lowering makes of it."""
    outputs = ["y"] if not kind.endswith("Classifier") else ["label", "y"]
    proto = model(
        [node(kind, ["x"], outputs, domain="ai.onnx.ml", name="mine", **attributes)],
        inputs=[
            (
                "x",
                {"f": FLOAT, "d": TensorProto.DOUBLE, "q": TensorProto.INT64}[rows.dtype.char.replace("l", "q")],
                ["N", 4],
            )
        ],
        outputs=[("y", FLOAT, None)],
        domains={"ai.onnx.ml": 3},
    )
    result = ir.from_proto(proto)
    lower_machine_learning(result)
    return proto, result


@pytest.mark.parametrize("use", range(len(USES)), ids=lambda i: f"{USES[i][0]}-{i}")
def test_lowering_computes_what_the_operator_does(use: int) -> None:
    kind, attributes, rows = USES[use]
    proto, result = lowered(kind, attributes, rows)
    assert {one.domain for one in result.graph} == {""}
    ours = small_models.run(ir.to_proto(result), {"x": rows}, "y")
    truth = small_models.run(proto, {"x": rows}, "y")
    np.testing.assert_allclose(ours, truth.reshape(ours.shape), rtol=1e-5, atol=1e-5 * np.abs(truth).max())
    infer_shapes(result)
    assert str(result.graph.outputs[0].shape) == f"[N,{ours.shape[1]}]"


@pytest.mark.parametrize(
    ("kind", "attributes"),
    [
        ("SVMClassifier", machine("RBF", 2, prob_a=[-1.5], prob_b=[0.25])),
        ("SVMClassifier", machine("RBF", 3, prob_a=[-1.5] * 3, prob_b=[0.25] * 3)),
        ("LinearClassifier", {**LINEAR, "classlabels_ints": [0, 1, 2], "post_transform": "SOFTMAX_ZERO"}),
        ("LinearClassifier", {"coefficients": [1.0] * 4, "intercepts": [0.0], "classlabels_ints": [0, 1]}),
        ("SVMRegressor", machine("RBF", 0, one_class=1)),
        ("SVMRegressor", {**machine("POLY", 0), "kernel_params": [0.5, 0.25, 2.5]}),
    ],
    ids=[
        "two coupled",
        "three coupled",
        "softmax of what isn't zero",
        "one row for two",
        "one class",
        "fractional degree",
    ],
)
def test_what_runtimes_disagree_on_stays(kind: str, attributes: dict[str, Any]) -> None:
    _, result = lowered(kind, attributes, ROWS)
    assert "ai.onnx.ml" in {one.domain for one in result.graph}
    assert result.graph.outputs[0].name == "y"


def test_a_norm_that_runtimes_read_differently_is_refused() -> None:
    with pytest.raises(NoGradientError, match=r"Normalizer \(node 'mine'\): norm 'MAX'"):
        lowered("Normalizer", {"norm": "MAX"}, ROWS)


def test_a_label_stays_beside_the_scores() -> None:
    """An array of names that is picked from isn't taken for scores."""
    nodes = [
        node("LinearClassifier", ["x"], ["label", "z"], domain="ai.onnx.ml", classlabels_ints=[0, 1, 2], **LINEAR),
        node("ArgMax", ["z"], ["best"], axis=1),
        node("ArrayFeatureExtractor", ["names", "best"], ["name"], domain="ai.onnx.ml"),
        node("ArrayFeatureExtractor", ["z", "two"], ["y"], domain="ai.onnx.ml"),
    ]
    weights = {"names": np.array([5, 6, 7]), "two": np.array([2, 0])}
    outputs = [("name", TensorProto.INT64, None), ("y", FLOAT, None)]
    proto = model(nodes, weights, inputs=[("x", FLOAT, ["N", 4])], outputs=outputs, domains={"ai.onnx.ml": 3})
    result = ir.from_proto(proto)
    lower_machine_learning(result)
    assert [one.op_type for one in result.graph if one.domain] == ["ArrayFeatureExtractor"]
    for name in ("name", "y"):
        ours = small_models.run(ir.to_proto(result), {"x": ROWS}, name)
        np.testing.assert_allclose(ours, small_models.run(proto, {"x": ROWS}, name), rtol=1e-5, atol=1e-6)


def named(nodes: list[Any], **weights: Any) -> tuple[ir.Model, list[str]]:
    """The model of x [N, 4] (and what a sigmoid makes of it) whose output y has its activation named."""
    proto = model(nodes, weights, inputs=[("x", FLOAT, ["N", 4])], outputs=[("y", FLOAT, ["N", "classes"])])
    result = ir.from_proto(proto)
    for output in result.graph.outputs:
        output.shape = None
    infer_shapes(result)
    name_activations(result)
    ours = small_models.run(ir.to_proto(result), {"x": ROWS})
    np.testing.assert_allclose(ours, small_models.run(proto, {"x": ROWS}), rtol=1e-5, atol=1e-6)
    return result, [one.op_type for one in result.graph]


LOG_SUM = node("ReduceLogSumExp", ["x", "axes"], ["total"], keepdims=1)
RATIO = [node("ReduceSum", ["e", "axes"], ["s"], keepdims=1), node("Div", ["e", "s"], ["y"])]
FIRST = [node("Slice", ["x", "zero", "one", "axes"], ["z"]), node("Sigmoid", ["z"], ["p"])]


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ([LOG_SUM, node("Sub", ["x", "total"], ["l"]), node("Exp", ["l"], ["y"])], ["Softmax"]),
        ([node("Exp", ["x"], ["e"]), *RATIO], ["Softmax"]),
        (
            [
                node("ReduceMax", ["x", "axes"], ["m"]),
                node("Sub", ["x", "m"], ["d"]),
                node("Exp", ["d"], ["e"]),
                *RATIO,
            ],
            ["ReduceMax", "Sub", "Softmax"],
        ),
        (
            [*FIRST, node("Sub", ["unit", "p"], ["q"]), node("Concat", ["q", "p"], ["y"], axis=1)],
            ["Slice", "Reshape", "Neg", "Concat", "Sigmoid"],
        ),
    ],
    ids=["logarithms", "ratios", "ratios of differences", "two sigmoids"],
)
def test_activations_in_simpler_operators_are_named(nodes: list[Any], expected: list[str]) -> None:
    weights = {"axes": np.array([1]), "unit": np.float32(1), "zero": np.array([0]), "one": np.array([1])}
    assert named(nodes, **weights)[1] == expected


@pytest.mark.parametrize(
    "nodes",
    [
        [
            node("ReduceLogSumExp", ["x", "first"], ["total"], keepdims=1),
            node("Sub", ["x", "total"], ["l"]),
            node("Exp", ["l"], ["y"]),
        ],
        [node("Abs", ["x"], ["other"]), LOG_SUM, node("Sub", ["other", "total"], ["l"]), node("Exp", ["l"], ["y"])],
        [
            node("Exp", ["x"], ["e"]),
            node("Abs", ["x"], ["a"]),
            node("ReduceSum", ["a", "axes"], ["s"]),
            node("Div", ["e", "s"], ["y"]),
        ],
        [*FIRST, node("Sub", ["two", "p"], ["q"]), node("Concat", ["q", "p"], ["y"], axis=1)],
        [*FIRST, node("Sub", ["unit", "p"], ["q"]), node("Concat", ["p", "q"], ["y"], axis=1)],
    ],
    ids=["along the batch", "of another", "of another sum", "not one", "the other way round"],
)
def test_what_only_looks_like_one_is_left_alone(nodes: list[Any]) -> None:
    weights = {
        "axes": np.array([1]),
        "first": np.array([0]),
        "unit": np.float32(1),
        "two": np.float32(2),
        "zero": np.array([0]),
        "one": np.array([1]),
    }
    assert named(nodes, **weights)[1] == [one.op_type for one in nodes]
