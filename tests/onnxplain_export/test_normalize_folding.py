"""BatchNormalization is folded and padding made explicit without a change of the scores."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from normalizing import assert_same_scores, operators
from small_models import conv, head, model, node, random_weight

FLOAT = TensorProto.FLOAT


# BatchNormalization


def batch_norm(source: str, result: str) -> onnx.NodeProto:
    return node("BatchNormalization", [source, "scale", "shift", "mean", "var"], [result], epsilon=1e-3)


STATISTICS = {
    "scale": random_weight(8, seed=1),
    "shift": random_weight(8, seed=2),
    "mean": random_weight(8, seed=3),
    "var": np.abs(random_weight(8, seed=4)) + 0.5,
}


@pytest.mark.parametrize("opset", [7, 9, 14, 20])
def test_batch_normalization_folds_into_conv(opset: int) -> None:
    found = assert_same_scores(model([conv(), batch_norm("c", "n"), *head("n")], STATISTICS, opset=opset))
    assert "BatchNormalization" not in operators(found)


def test_batch_normalization_folds_into_conv_transpose_and_gemm() -> None:
    nodes = [
        node("ConvTranspose", ["x", "wt"], ["c"], strides=[2, 2]),
        batch_norm("c", "n"),
        node("GlobalAveragePool", ["n"], ["p"]),
        node("Flatten", ["p"], ["f"]),
        node("Gemm", ["f", "square", "row"], ["g"], transB=1),
        batch_norm("g", "m"),
        node("Gemm", ["m", "fw", "fb"], ["y"]),
    ]
    weights = {
        **STATISTICS,
        "wt": random_weight(3, 8, 3, 3),
        "square": random_weight(8, 8),
        "row": random_weight(8)[None],
    }
    assert "BatchNormalization" not in operators(assert_same_scores(model(nodes, weights)))


@pytest.mark.parametrize("linear", ["two readers", "grouped", "scaled"])
def test_batch_normalization_stays_where_it_cannot_fold(linear: str) -> None:
    nodes = [conv(), batch_norm("c", "n"), node("Add", ["c", "n"], ["s"]), *head("s")]
    weights = dict(STATISTICS)
    if linear == "grouped":
        nodes = [conv(), node("ConvTranspose", ["c", "wt"], ["d"], group=8), batch_norm("d", "n"), *head("n")]
        weights["wt"] = random_weight(8, 1, 3, 3)
    if linear == "scaled":
        nodes = [conv(), *head("c", "z"), node("Gemm", ["features", "square"], ["g"], alpha=0.5)]
        nodes = [*nodes[:-2], nodes[-1], batch_norm("g", "m"), node("Gemm", ["m", "fw", "fb"], ["y"])]
        weights["square"] = random_weight(8, 8)
    assert "BatchNormalization" in operators(assert_same_scores(model(nodes, weights)))


def test_two_convolutions_that_share_a_weight_fold_apart() -> None:
    other = {f"{name}2": np.flip(content).copy() for name, content in STATISTICS.items()}
    second = node("BatchNormalization", ["c2", *other], ["n2"])
    nodes = [
        conv(),
        batch_norm("c", "n"),
        node("Conv", ["x", "w", "b"], ["c2"], pads=[1] * 4),
        second,
        node("Add", ["n", "n2"], ["s"]),
        *head("s"),
    ]
    assert "BatchNormalization" not in operators(assert_same_scores(model(nodes, {**STATISTICS, **other})))


# Padding


@pytest.mark.parametrize("strides", [[1, 1], [2, 2], [3, 2]])
@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize("kind", ["Conv", "MaxPool", "AveragePool", "ConvTranspose"])
def test_auto_pad_becomes_explicit(kind: str, mode: str, strides: list[int]) -> None:
    attributes = {"auto_pad": mode, "strides": strides}
    if kind == "ConvTranspose":
        nodes = [node(kind, ["x", "wt"], ["c"], **attributes), *head("c")]
    elif kind == "Conv":
        nodes = [conv(**attributes), *head("c")]
    else:
        nodes = [conv(), node(kind, ["c"], ["p"], kernel_shape=[3, 2], **attributes), *head("p")]
    # A pooling by position: global averages alone would hide a shift by one.
    nodes[-3] = node("AveragePool", ["relu"], ["pooled"], kernel_shape=[2, 2])
    nodes[-2:] = [node("ReduceMax", ["pooled", "space"], ["features"], keepdims=0), nodes[-1]]
    weights = {"space": np.array([2, 3])} | ({"wt": random_weight(3, 8, 4, 3)} if kind == "ConvTranspose" else {})
    found = assert_same_scores(model(nodes, weights, inputs=[("x", FLOAT, ["N", 3, 13, 16])]))
    assert not any("auto_pad" in one.attributes for one in found.model.graph)


@pytest.mark.parametrize("mode", ["NOTSET", "SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize("size", [[31, 32], [30, 33], [33, 33]])
def test_conv_transpose_with_output_shape(mode: str, size: list[int]) -> None:
    attributes = {"output_shape": size, "strides": [2, 2], **({} if mode == "NOTSET" else {"auto_pad": mode})}
    nodes = [node("ConvTranspose", ["x", "wt"], ["c"], **attributes), node("Mul", ["c", "ramp"], ["r"]), *head("r")]
    weights = {"wt": random_weight(3, 8, 3, 3), "ramp": np.linspace(0, 1, size[1], dtype=np.float32)}
    found = assert_same_scores(model(nodes, weights))
    assert not any("output_shape" in one.attributes for one in found.model.graph)
