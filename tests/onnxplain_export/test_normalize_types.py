"""Half and double precision and integer pictures are computed in float32, with the same scores."""

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto

import small_models
from normalizing import assert_same_scores, normalized, scores_of
from onnxplain.errors import ModelError
from small_models import IMAGE, SCORES, TOKENS, WEIGHTS, conv, head, model, node, pooled_tokens, random_weight

FLOAT = TensorProto.FLOAT


def in_type(dtype: type, kind: int, opset: int = 20) -> onnx.ModelProto:
    weights = {name: content.astype(dtype) for name, content in WEIGHTS.items()}
    return model(
        [conv(), *head("c")], weights, inputs=[("x", kind, IMAGE[2])], outputs=[("y", kind, SCORES[2])], opset=opset
    )


def test_float16_is_computed_in_float32() -> None:
    found = assert_same_scores(in_type(np.float16, TensorProto.FLOAT16), dtype=np.float16, tolerance=5e-3)
    assert found.source.precision == "float16"
    assert "float16 computed in float32" in found.source.changes


def test_double_is_computed_in_float32() -> None:
    nodes = [node("Gemm", ["x", "fw", "fb"], ["h"]), node("Tanh", ["h"], ["y"])]
    weights = {name: WEIGHTS[name].astype(np.float64) for name in ("fw", "fb")}
    kinds = {"inputs": [("x", TensorProto.DOUBLE, ["N", 8])], "outputs": [("y", TensorProto.DOUBLE, ["N", 5])]}
    assert assert_same_scores(model(nodes, weights, **kinds), dtype=np.float64).source.precision == "double"


def test_bfloat16_weights_are_widened_exactly() -> None:
    half = WEIGHTS["w"].astype(ml_dtypes.bfloat16)
    narrow = model([node("Cast", ["h"], ["w"], to=FLOAT), conv(), *head("c")], {"h": half})
    narrow.graph.initializer.remove(next(tensor for tensor in narrow.graph.initializer if tensor.name == "w"))
    assert_same_scores(narrow)
    whole = normalized(in_type(ml_dtypes.bfloat16, TensorProto.BFLOAT16, 22))  # onnxruntime has no kernels for it
    wide = small_models.classifier(
        weights={n: v.astype(ml_dtypes.bfloat16).astype(np.float32) for n, v in WEIGHTS.items()}
    )
    images = small_models.images(3, 16, 16)
    np.testing.assert_allclose(scores_of(whole, images), small_models.run(wide, {"x": images}), rtol=1e-5, atol=1e-6)


def integer_model(kind: int, channels_last: bool) -> onnx.ModelProto:
    scaled = [node("Cast", ["p"], ["f"], to=FLOAT), node("Mul", ["f", "share"], ["s"]), conv("s"), *head("c")]
    if channels_last:
        nodes, shape = [node("Transpose", ["x"], ["p"], perm=[0, 3, 1, 2]), *scaled], ["N", 16, 16, 3]
    else:
        nodes, shape = [node("Cast", ["x"], ["p"], to=TensorProto.INT32), *scaled], IMAGE[2]
    return model(nodes, {"share": np.float32(1 / 255)}, inputs=[("x", kind, shape)])


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(("kind", "dtype"), [(TensorProto.UINT8, np.uint8), (TensorProto.INT32, np.int32)])
def test_an_integer_picture_is_explained_as_floats(kind: int, dtype: type, channels_last: bool) -> None:
    found = assert_same_scores(integer_model(kind, channels_last), dtype=dtype)
    assert found.integers
    assert found.layout == ("NHWC" if channels_last else "NCHW")


def test_tokens_are_explained_at_their_embedding() -> None:
    nodes = [node("Gather", ["table", "x"], ["e"], name="embedding"), *pooled_tokens("e")]
    proto = model(
        nodes, {"table": random_weight(20, 8), "one": TOKENS["one"]}, inputs=[("x", TensorProto.INT64, ["N", 7])]
    )
    found = normalized(proto)
    assert (found.image, found.image_shape, found.value, found.value_shape) == ("x", (7,), "e", (7, 8))
    assert found.source.changes == ["explained at the embedding 'e' of 'x'"]


def test_integers_that_are_computed_with_are_refused_by_the_node_that_reads_them() -> None:
    nodes = [
        node("Mod", ["x", "seven"], ["m"], name="remainder"),
        node("Cast", ["m"], ["e"], to=1),
        *pooled_tokens("e"),
    ]
    tensors = {"seven": np.array(7), "one": TOKENS["one"]}
    proto = model(nodes, tensors, inputs=[("x", TensorProto.INT64, ["N", 7, 8])])
    with pytest.raises(ModelError, match=r"Mod \(node 'remainder'\) computes with the integers of input 'x'"):
        normalized(proto)
