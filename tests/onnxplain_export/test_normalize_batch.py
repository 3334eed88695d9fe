"""A batch axis that was baked in as a number is freed, wherever the network carries it."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from normalizing import assert_same_scores
from small_models import TOKENS, conv, head, model, node, pooled_tokens, random_weight, tokens

FLOAT = TensorProto.FLOAT


BAKED = [("x", FLOAT, [1, 3, 16, 16])]
ONE = [("y", FLOAT, [1, 5])]


def windows() -> tuple[list[onnx.NodeProto], dict[str, np.ndarray]]:
    """Swin's windows: the batch merged with the windows' axes and taken apart again."""
    nodes = [
        conv(),
        node("Transpose", ["c"], ["last"], perm=[0, 2, 3, 1]),
        node("Reshape", ["last", "grid"], ["g"]),
        node("Transpose", ["g"], ["g2"], perm=[0, 1, 3, 2, 4, 5]),
        node("Reshape", ["g2", "merged"], ["m"]),
        node("Softmax", ["m"], ["soft"], axis=1),
        node("Mul", ["m", "soft"], ["p"]),
        node("Reshape", ["p", "back"], ["g3"]),
        node("Transpose", ["g3"], ["g4"], perm=[0, 5, 1, 3, 2, 4]),
        node("Reshape", ["g4", "flat"], ["f"]),
        *head("f"),
    ]
    shapes = {"grid": [1, 4, 4, 4, 4, 8], "merged": [16, 16, 8], "back": [1, 4, 4, 4, 4, 8], "flat": [1, 8, 16, 16]}
    return nodes, {name: np.array(shape) for name, shape in shapes.items()}


def sequence_first() -> tuple[list[onnx.NodeProto], dict[str, np.ndarray]]:
    """torch's MultiheadAttention: the batch in axis 1, merged with the heads by a Reshape."""
    nodes = [
        *tokens(),
        node("Transpose", ["t"], ["s"], perm=[1, 0, 2]),
        node("Reshape", ["s", "heads"], ["h"]),
        node("Transpose", ["h"], ["h2"], perm=[1, 0, 2]),
        node("Softmax", ["h2"], ["soft"], axis=1),
        node("Mul", ["h2", "soft"], ["p"]),
        node("Transpose", ["p"], ["p2"], perm=[1, 0, 2]),
        node("Reshape", ["p2", "joined"], ["j"]),
        node("ReduceMean", ["j", "zero"], ["mean"], keepdims=0),
        node("Gemm", ["mean", "fw", "fb"], ["y"]),
    ]
    shapes = {"flat": [1, 8, 256], "heads": [256, 2, 4], "joined": [256, 1, 8], "zero": [0]}
    return nodes, {name: np.array(shape) for name, shape in shapes.items()}


def class_token() -> tuple[list[onnx.NodeProto], dict[str, np.ndarray]]:
    nodes = [
        *tokens(),
        node("Concat", ["token", "t"], ["all"], axis=1),
        node("Softmax", ["all"], ["soft"], axis=1),
        node("Mul", ["all", "soft"], ["p"]),
        *pooled_tokens("p"),
    ]
    return nodes, {**TOKENS, "flat": np.array([1, 8, 256]), "token": random_weight(1, 1, 8)}


def merged_reshape() -> tuple[list[onnx.NodeProto], dict[str, np.ndarray]]:
    nodes = [conv(), *head("c")]
    nodes[3] = node("Reshape", ["pooled", "rest"], ["features"])
    return nodes, {"rest": np.array([1, -1])}


def resized() -> tuple[list[onnx.NodeProto], dict[str, np.ndarray]]:
    nodes = [conv(), node("Resize", ["c", "", "", "sizes"], ["r"], mode="linear"), *head("r")]
    return nodes, {"sizes": np.array([1, 8, 21, 25])}


def computed_shape() -> tuple[list[onnx.NodeProto], dict[str, np.ndarray]]:
    nodes = [
        conv(),
        node("Shape", ["c"], ["shape"]),
        node("ConstantOfShape", ["shape"], ["zeros"]),
        node("Concat", ["c", "zeros"], ["d"], axis=2),
        *head("d"),
    ]
    return nodes, {}


def rows_of_tokens() -> tuple[list[onnx.NodeProto], dict[str, np.ndarray]]:
    """A linear layer on [L, N, D] as torch's attention writes it: flattened to [L·N, D] and taken apart again."""
    nodes = [
        *tokens(),
        node("Transpose", ["t"], ["s"], perm=[1, 0, 2]),
        node("Reshape", ["s", "rows"], ["r"]),
        node("Gemm", ["r", "square"], ["g"]),
        node("Reshape", ["g", "apart"], ["a"]),
        node("Softmax", ["a"], ["soft"], axis=0),
        node("Mul", ["soft", "s"], ["m"]),
        node("ReduceMean", ["m", "zero"], ["mean"], keepdims=0),
        node("Gemm", ["mean", "fw", "fb"], ["y"]),
    ]
    weights = {"flat": np.array([1, 8, 256]), "rows": np.array([256, 8]), "apart": np.array([256, 1, 8])}
    return nodes, {**weights, "square": random_weight(8, 8), "zero": np.array([0])}


FORMS = {
    make.__name__: make
    for make in (windows, sequence_first, rows_of_tokens, class_token, merged_reshape, resized, computed_shape)
}


@pytest.mark.parametrize("form", FORMS)
def test_a_baked_batch_is_freed(form: str) -> None:
    nodes, weights = FORMS[form]()
    found = assert_same_scores(model(nodes, weights, inputs=BAKED, outputs=ONE))
    assert found.baked == 1
    assert "batch axis freed from 1" in found.source.changes


@pytest.mark.parametrize("form", ["windows", "merged_reshape"])
def test_a_baked_batch_of_four_is_freed(form: str) -> None:
    nodes, weights = FORMS[form]()
    if form == "windows":
        weights = {name: shape * np.array([4] + [1] * (len(shape) - 1)) for name, shape in weights.items()}
    else:
        weights = {"rest": np.array([4, -1])}
    assert (
        assert_same_scores(
            model(nodes, weights, inputs=[("x", FLOAT, [4, 3, 16, 16])], outputs=[("y", FLOAT, [4, 5])])
        ).baked
        == 4
    )


def test_a_free_batch_is_followed_through_axes_that_it_is_merged_with() -> None:
    """torch's attention turns keys by way of [N·heads, …]; a Resize behind that sees a batch that nobody knows."""
    nodes = [
        conv(),
        node("Reshape", ["c", "merged"], ["m"]),
        node("Transpose", ["m"], ["t"], perm=[0, 2, 1]),
        node("Reshape", ["t", "apart"], ["a"], allowzero=1),
        node("Relu", ["a"], ["r"]),
        node("Shape", ["x"], ["n"], start=0, end=1),
        node("Concat", ["n", "goal"], ["sizes"], axis=0),
        node("Resize", ["r", "", "", "sizes"], ["up"], mode="linear"),
        node("Reshape", ["up", "rows"], ["f"], allowzero=1),
        *head("f"),
    ]
    shapes = {"merged": [-1, 16, 16], "apart": [-1, 8, 16, 16], "goal": [8, 24, 24], "rows": [-1, 8, 24, 24]}
    found = assert_same_scores(model(nodes, {name: np.array(shape) for name, shape in shapes.items()}))
    assert found.scores.value.shape is not None
    (resize,) = (one for one in found.model.graph if one.op_type == "Resize")
    assert list(resize.attributes["axes"].value) == [1, 2, 3]
    (last,) = (one for one in found.model.graph if one.outputs[0].name == "f")
    assert last.inputs[1].const_value.numpy().tolist() == [0, 8, 24, 24]


def test_a_number_for_the_whole_batch_is_no_place_for_its_axis() -> None:
    """A loss beside the scores, averaged over everything and given a shape again."""
    nodes = [
        conv(),
        *head("c"),
        node("ReduceMean", ["c"], ["mean"], keepdims=0),
        node("Reshape", ["mean", "one"], ["r"]),
        node("Reshape", ["r", "none"], ["loss"]),
    ]
    shapes = {"one": np.array([1]), "none": np.zeros(0, np.int64)}
    assert_same_scores(model(nodes, shapes, inputs=BAKED, outputs=[*ONE, ("loss", FLOAT, [])]))
