"""Any opset from 7 to 28, function or composite becomes opset 20 with the same scores."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import small_models
from normalizing import assert_same_scores, normalized, operators
from onnxplain.errors import ModelError
from small_models import SCORES, TOKENS, conv, head, model, node, pooled_tokens, random_weight, tokens

FLOAT = TensorProto.FLOAT


def old_softmax(opset: int) -> onnx.ModelProto:
    """Before opset 13 a Softmax at axis 1 runs over all later axes together."""
    nodes = [conv(), node("Softmax", ["c"], ["soft"], axis=1), node("Mul", ["soft", "c"], ["mixed"]), *head("mixed")]
    return model(nodes, opset=opset)


@pytest.mark.parametrize("opset", range(7, 27))
def test_every_opset(opset: int) -> None:
    found = assert_same_scores(small_models.classifier(opset=opset))
    assert "Conv" in operators(found)


@pytest.mark.parametrize("opset", [7, 11, 12, 13])
def test_softmax_means_what_its_opset_says(opset: int) -> None:
    assert_same_scores(old_softmax(opset))


@pytest.mark.parametrize("opset", [7, 11, 12, 13, 20])
def test_dropout_is_removed(opset: int) -> None:
    attributes = {"ratio": 0.5} if opset < 12 else {}
    extra = {} if opset < 12 else {"ratio": np.float32(0.5)}
    drop = node("Dropout", ["c", *extra], ["d"], **attributes)
    found = assert_same_scores(model([conv(), drop, *head("d")], extra, opset=opset))
    assert "Dropout" not in operators(found)


@pytest.mark.parametrize("opset", [7, 11, 13, 20])
def test_squeeze_and_unsqueeze_with_axes_as_attribute_or_input(opset: int) -> None:
    if opset < 13:
        pair = [node("Unsqueeze", ["c"], ["u"], axes=[2]), node("Squeeze", ["u"], ["s"], axes=[2])]
        weights = {}
    else:
        pair = [node("Unsqueeze", ["c", "axes"], ["u"]), node("Squeeze", ["u", "axes"], ["s"])]
        weights = {"axes": np.array([2])}
    assert_same_scores(model([conv(), *pair, *head("s")], weights, opset=opset))


def test_upsample_7_to_9_become_resize() -> None:
    attribute = model(
        [conv(), node("Upsample", ["c"], ["u"], scales=[1.0, 1.0, 2.0, 2.0], mode="nearest"), *head("u")], opset=8
    )
    scales = {"scales": np.array([1, 1, 2, 2], np.float32)}
    given = model([conv(), node("Upsample", ["c", "scales"], ["u"], mode="linear"), *head("u")], scales, opset=9)
    for proto in (attribute, given):
        assert "Resize" in operators(assert_same_scores(proto))


@pytest.mark.parametrize("opset", [6, 29])
def test_opsets_outside_the_range_are_refused(opset: int) -> None:
    with pytest.raises(ModelError, match=f"opset {opset}; opsets 7 to 28 are read"):
        normalized(small_models.classifier(opset=opset))


@pytest.mark.parametrize("opset", [23, 24, 26])
def test_newer_composites_are_inlined(opset: int) -> None:
    nodes = [
        *tokens(),
        node("RMSNormalization", ["t", "scale"], ["n"], axis=-1, epsilon=1e-5),
        node("Attention", ["n", "n", "n"], ["a"], q_num_heads=2, kv_num_heads=2),
        *pooled_tokens("a"),
    ]
    found = assert_same_scores(model(nodes, {**TOKENS, "scale": random_weight(8)}, opset=opset))
    assert not {"Attention", "RMSNormalization"} & set(operators(found))


def test_rotary_embedding_is_inlined() -> None:
    angles = np.arange(256)[:, None] * 0.1 ** np.arange(4)[None]
    weights = {**TOKENS, "cos": np.cos(angles).astype(np.float32)[None], "sin": np.sin(angles).astype(np.float32)[None]}
    nodes = [
        *tokens(),
        node("Expand", ["cos", "wide"], ["cosN"]),
        node("Expand", ["sin", "wide"], ["sinN"]),
        node("RotaryEmbedding", ["t", "cosN", "sinN"], ["r"], num_heads=1),
        node("Mul", ["r", "t"], ["m"]),
        *pooled_tokens("m"),
    ]
    weights["wide"] = np.array([1, 256, 4])
    proto = model(nodes, weights, inputs=[("x", FLOAT, [1, 3, 16, 16])], opset=23)
    found = assert_same_scores(proto)
    assert "RotaryEmbedding" not in operators(found)


def test_an_attribute_that_opset_20_lacks_is_refused_by_node() -> None:
    proto = model(
        [conv(), node("Cast", ["c"], ["d"], to=FLOAT, round_mode="down", name="rounded"), *head("d")], opset=24
    )
    with pytest.raises(ModelError, match=r"Cast \(node 'rounded'\).*round_mode"):
        normalized(proto)


def test_an_operator_that_opset_20_lacks_is_refused_by_node() -> None:
    proto = model([conv(), node("Foo", ["c"], ["d"], name="mine"), *head("d")])
    with pytest.raises(ModelError, match=r"Foo \(node 'mine'\) is no operator of opset 20"):
        normalized(proto)


def test_initializers_among_the_inputs_are_not_inputs() -> None:
    proto = small_models.classifier(ir_version=3, opset=8)
    for tensor in proto.graph.initializer:
        proto.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    assert len(proto.graph.input) == 5
    assert_same_scores(proto)


def test_local_functions_are_inlined() -> None:
    double = helper.make_function(
        "mine", "Double", ["a"], ["b"], [node("Add", ["a", "a"], ["b"])], [helper.make_opsetid("", 20)]
    )
    proto = model(
        [conv(), node("Double", ["c"], ["d"], domain="mine"), *head("d")], domains={"mine": 1}, functions=[double]
    )
    assert "Double" not in operators(assert_same_scores(proto))


def test_nodes_may_be_in_any_order() -> None:
    proto = small_models.classifier()
    backwards = list(proto.graph.node)[::-1]
    del proto.graph.node[:]
    proto.graph.node.extend(backwards)
    assert_same_scores(proto)


def test_a_mask_of_dropout_is_no_output_of_inference() -> None:
    drop = node("Dropout", ["c"], ["d", "mask"])
    outputs = [SCORES, ("mask", TensorProto.BOOL, ["N", 8, 16, 16])]
    assert_same_scores(model([conv(), drop, *head("d")], outputs=outputs))
