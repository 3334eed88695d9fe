"""Loops over the images of a batch have rules that need shapes; loops that end on data are refused by node."""

from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from onnx import NodeProto, TensorProto, helper

from normalizing import assert_same_scores, normalized, operators
from onnxplain.errors import NoGradientError
from onnxplain_export.graphs.gradient import gradient
from small_models import model, node, random_weight

INPUT = ("x", TensorProto.FLOAT, ["N", 3, 8])
WEIGHTS = {"zero": np.array(0), "axis": np.array([0]), "one": np.array([1]), "two": np.array([2])}
WEIGHTS |= {"true": np.array(True), "kernel": random_weight(3, 3, 3), "square": random_weight(8, 8)}
WEIGHTS |= {"ones": np.ones(8, np.float32), "head": random_weight(3, 5), "bias": random_weight(5)}

BODIES = {
    "Conv": [node("Conv", ["u", "kernel"], ["v"], pads=[1, 1])],
    "MatMul": [node("MatMul", ["u", "square"], ["v"])],
    "MaxPool": [node("MaxPool", ["u"], ["v"], kernel_shape=[2], strides=[2])],
    "LayerNormalization": [node("LayerNormalization", ["u", "ones"], ["v"])],
    "Softmax": [node("Softmax", ["u"], ["v"], axis=1)],
    "ReduceMean": [node("Tanh", ["u"], ["t"]), node("ReduceMean", ["t", "two"], ["v"])],
    "If": [
        node("ReduceSum", ["u"], ["total"], keepdims=0),
        node("Greater", ["total", "nought"], ["condition"]),
        node(
            "If",
            ["condition"],
            ["v"],
            then_branch=helper.make_graph(
                [node("MatMul", ["u", "square"], ["a"])], "then", [], [helper.make_tensor_value_info("a", 1, None)]
            ),
            else_branch=helper.make_graph(
                [node("Tanh", ["u"], ["b"])], "else", [], [helper.make_tensor_value_info("b", 1, None)]
            ),
        ),
    ],
}


def loop_over_images(inner: Sequence[NodeProto], opset: int) -> onnx.ModelProto:
    """Each image by itself, as old exporters write a Python loop over a batch."""
    nodes = [
        node("Gather", ["x", "i"], ["row"], axis=0),
        node("Unsqueeze", ["row", "axis"], ["u"]),
        *inner,
        node("Squeeze", ["v", "axis"], ["done"]),
        node("Identity", ["c"], ["again"]),
    ]
    inputs = [helper.make_tensor_value_info("i", TensorProto.INT64, []), helper.make_tensor_value_info("c", 9, [])]
    outputs = [helper.make_tensor_value_info("again", 9, []), helper.make_tensor_value_info("done", 1, None)]
    outer = [
        node("Shape", ["x"], ["shape"]),
        node("Gather", ["shape", "zero"], ["count"], axis=0),
        node("Loop", ["count", "true"], ["r"], body=helper.make_graph(nodes, "body", inputs, outputs), name="rows"),
        node("Tanh", ["r"], ["bent"]),
        node("ReduceMean", ["bent", "two"], ["mean"], keepdims=0)
        if opset >= 18
        else node("ReduceMean", ["bent"], ["mean"], axes=[2], keepdims=0),
        node("Gemm", ["mean", "head", "bias"], ["y"]),
    ]
    return model(outer, {**WEIGHTS, "nought": np.float32(0)}, inputs=[INPUT], opset=opset)


@pytest.mark.parametrize("opset", [13, 20, 24])
@pytest.mark.parametrize("kind", BODIES)
def test_a_loop_over_the_images(kind: str, opset: int) -> None:
    if kind in ("ReduceMean", "LayerNormalization") and opset < 18:
        pytest.skip("the body is written for later opsets")
    found = assert_same_scores(loop_over_images(BODIES[kind], opset))
    assert "Scan" in operators(found)


def test_a_loop_that_ends_on_data_is_refused_by_node() -> None:
    body = helper.make_graph(
        [
            node("Mul", ["s", "ones"], ["m"]),
            node("Sin", ["m"], ["next"]),
            node("ReduceMax", ["next"], ["most"], keepdims=0),
            node("Less", ["most", "limit"], ["again"]),
        ],
        "body",
        [helper.make_tensor_value_info(*entry) for entry in (("i", 7, []), ("c", 9, []), ("s", 1, None))],
        [helper.make_tensor_value_info(*entry) for entry in (("again", 9, []), ("next", 1, None))],
    )
    nodes = [
        node("Loop", ["many", "true", "x"], ["r"], body=body, name="until"),
        node("ReduceMean", ["r", "two"], ["mean"], keepdims=0),
        node("Gemm", ["mean", "head", "bias"], ["y"]),
    ]
    proto = model(nodes, {**WEIGHTS, "many": np.array(20), "limit": np.float32(0.5)}, inputs=[INPUT])
    with pytest.raises(NoGradientError, match=r"Loop \(node 'until'.*fixed number of steps"):
        gradient(normalized(proto))
