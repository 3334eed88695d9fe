"""The input and the explained scores are found, whatever they are called and however the network ends."""

import numpy as np
import pytest
from onnx import TensorProto, helper

import small_models
from normalizing import assert_same_scores, normalized, scores_of
from onnxplain.errors import ModelError, NoGradientError, ParameterError
from small_models import IMAGE, SCORES, TOKENS, WEIGHTS, conv, head, model, node, random_weight, tokens

FLOAT = TensorProto.FLOAT


# Names


@pytest.mark.parametrize(
    "name", ["target", "total", "gradient/x", "scores", "explainer/entry", "N", "rows", "top", "image", "model/x"]
)
def test_an_input_may_have_any_name(name: str) -> None:
    proto = model([conv(name), *head("c")], inputs=[(name, FLOAT, IMAGE[2])])
    found = assert_same_scores(proto)
    assert found.renamed == ({} if found.image == name else {name: f"model/{name}"})


def test_values_with_names_of_ours_are_moved_out_of_the_way() -> None:
    nodes = [
        node("Conv", ["x", "target", "model/target"], ["total"], pads=[1] * 4),
        node("Add", ["total", "y/folded"], ["gradient/x"]),
        *head("gradient/x", "scores"),
    ]
    weights = {"target": WEIGHTS["w"], "model/target": WEIGHTS["b"], "y/folded": np.float32(0.25)}
    found = assert_same_scores(model(nodes, weights, outputs=[("scores", FLOAT, ["N", 5])]), tapped="scores")
    assert found.renamed == {"scores": "model/scores"}


# Sizes and layouts


def test_a_free_size_must_be_named() -> None:
    proto = small_models.classifier(inputs=[("x", FLOAT, ["N", 3, "h", "w"])])
    with pytest.raises(ModelError, match=r"leaves axes \[2, 3\] free; name the picture's size: --size HEIGHT WIDTH"):
        normalized(proto)
    assert assert_same_scores(proto, size=(16, 24)).image_shape == (3, 16, 24)


def test_a_fixed_size_cannot_be_changed() -> None:
    with pytest.raises(ModelError, match="it can't be exported for 8x8"):
        normalized(small_models.classifier(), size=(8, 8))


def test_channels_last_pictures() -> None:
    proto = model(
        [node("Transpose", ["x"], ["p"], perm=[0, 3, 1, 2]), conv("p"), *head("c")],
        inputs=[("x", FLOAT, ["N", 12, 16, 3])],
    )
    found = assert_same_scores(proto)
    assert (found.layout, found.size) == ("NHWC", (12, 16))


# Scores

ENDINGS = {
    "plain": [],
    "Reshape": [node("Reshape", ["z", "four"], ["z4"])],
    "Flatten": [node("Flatten", ["z"], ["z4"])],
    "Cast": [node("Cast", ["z"], ["z4"], to=FLOAT)],
}


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize(
    ("activation", "kind"), [("Softmax", "softmax"), ("LogSoftmax", "softmax"), ("Sigmoid", "sigmoid")]
)
def test_the_scores_are_tapped_before_the_activation(activation: str, kind: str, ending: str) -> None:
    before = ENDINGS[ending]
    axis = {} if activation == "Sigmoid" else {"axis": 1}
    last = [
        node(activation, ["z4" if before else "z"], ["a"], **axis),
        node("Flatten", ["a"], ["f"]),
        node("Cast", ["f"], ["y"], to=FLOAT),
    ]
    proto = model([conv(), *head("c", "z"), *before, *last], {"four": np.array([-1, 5, 1, 1])})
    assert assert_same_scores(proto, tapped="z").scores.activation == kind
    assert assert_same_scores(proto, tapped="y", score="probabilities").scores.activation == "none"


def test_a_softmax_over_another_axis_is_no_activation() -> None:
    nodes = [*tokens(), node("Gemm", ["m", "fw", "fb"], ["z"]), node("Softmax", ["z"], ["y"], axis=0)]
    nodes.insert(3, node("ReduceMean", ["t", "one"], ["m"], keepdims=0))
    assert normalized(model(nodes, TOKENS)).scores.tapped == "y"


@pytest.mark.parametrize("shape", [["N", 1], ["N"]])
def test_one_logit_becomes_two_scores(shape: list) -> None:
    weights = {"fw": random_weight(8, 1), "fb": random_weight(1), "one": np.array([1])}
    end = [node("Squeeze", ["z", "one"], ["s"])] if len(shape) == 1 else [node("Identity", ["z"], ["s"])]
    proto = model(
        [conv(), *head("c", "z"), *end, node("Sigmoid", ["s"], ["y"])], weights, outputs=[("y", FLOAT, shape)]
    )
    found = normalized(proto)
    assert (found.scores.classes, found.scores.activation) == (2, "sigmoid")
    images = small_models.images(3, 16, 16)
    z = small_models.run(proto, {"x": images}, "z").reshape(-1, 1)
    np.testing.assert_allclose(scores_of(found, images), np.concatenate([-z, z], axis=1), rtol=1e-5, atol=1e-6)


def test_one_logit_without_activation_is_one_score() -> None:
    weights = {"fw": random_weight(8, 1), "fb": random_weight(1)}
    proto = model([conv(), *head("c")], weights, outputs=[("y", FLOAT, ["N", 1])])
    assert normalized(proto).scores.classes == 1
    assert normalized(proto, activation="sigmoid").scores.classes == 2


def test_scores_with_axes_of_one() -> None:
    nodes = [conv(), node("Relu", ["c"], ["r"]), node("GlobalAveragePool", ["r"], ["y"])]
    found = assert_same_scores(model(nodes, outputs=[("y", FLOAT, ["N", 8, 1, 1])]))
    assert found.scores.classes == 8


LABELLED = [
    conv(),
    *head("c", "z"),
    node("Softmax", ["z"], ["probabilities"]),
    node("ArgMax", ["probabilities"], ["best"], axis=1, keepdims=0),
    node("ArrayFeatureExtractor", ["names", "best"], ["found"], domain="ai.onnx.ml"),
    node("Reshape", ["found", "list"], ["label"]),
]


def test_label_and_probabilities_as_scikit_learn_models_have_them() -> None:
    weights = {"names": np.arange(5), "list": np.array([-1])}
    outputs = [("label", TensorProto.INT64, ["N"]), ("probabilities", FLOAT, ["N", 5])]
    proto = model(LABELLED, weights, outputs=outputs, domains={"ai.onnx.ml": 1}, opset=17)
    found = assert_same_scores(proto, tapped="z")
    assert found.scores.output == "probabilities"
    assert any("'label' dropped" in change for change in found.source.changes)


def test_zipmap_is_dropped_beside_another_output() -> None:
    nodes = [
        *LABELLED[:6],
        node("ZipMap", ["probabilities"], ["map"], domain="ai.onnx.ml", classlabels_int64s=list(range(5))),
    ]
    proto = model(nodes, outputs=[("probabilities", FLOAT, ["N", 5])], domains={"ai.onnx.ml": 1}, opset=17)
    kind = helper.make_sequence_type_proto(
        helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(FLOAT, None))
    )
    proto.graph.output.insert(0, helper.make_value_info("map", kind))
    assert_same_scores(proto, tapped="z")


def test_the_output_can_be_named() -> None:
    nodes = [conv(), *head("c", "z"), node("Softmax", ["z"], ["y"]), node("Neg", ["z"], ["other"])]
    proto = model(nodes, outputs=[SCORES, ("other", FLOAT, ["N", 5])])
    assert assert_same_scores(proto, tapped="other", output="other").scores.output == "other"
    with pytest.raises(ParameterError, match="unknown output 'othr'; did you mean 'other'"):
        normalized(proto, output="othr")


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"score": "logit"}, "unknown score 'logit'; did you mean 'logits'"),
        ({"activation": "sofmax"}, "unknown activation 'sofmax'; did you mean 'softmax'"),
        ({"image_input": "X"}, "unknown input 'X'"),
    ],
)
def test_unknown_options_suggest_the_nearest(option: dict, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        normalized(small_models.classifier(), **option)


def test_outputs_without_a_batch_axis_are_refused() -> None:
    squeezed = [conv(), *head("c", "z"), node("Squeeze", ["z", "zero"], ["y"])]
    with pytest.raises(ModelError, match="no output looks like scores"):
        normalized(
            model(squeezed, {"zero": np.array([0])}, inputs=[("x", FLOAT, [1, 3, 16, 16])], outputs=[("y", FLOAT, [5])])
        )


@pytest.mark.parametrize(
    ("nodes", "class_axis", "activation", "tapped"),
    [
        ([conv(result="y")], 1, "softmax", "y"),
        ([conv(), node("Softmax", ["c"], ["y"], axis=1)], 1, "softmax", "c"),
        ([conv(), node("Softmax", ["c"], ["y"], axis=3)], 3, "softmax", "c"),
        ([conv(), node("Sigmoid", ["c"], ["y"])], 1, "sigmoid", "c"),
    ],
    ids=["plain", "softmax over channels", "softmax over columns", "sigmoid"],
)
def test_a_segmentation_takes_a_cotangent(nodes: list, class_axis: int, activation: str, tapped: str) -> None:
    found = normalized(model(nodes, outputs=[("y", FLOAT, ["N", 8, 16, 16])])).scores
    assert found.free
    assert (found.shape, found.class_axis) == ((8, 16, 16), class_axis)
    assert (found.activation, found.tapped) == (activation, tapped)


def test_features_of_no_classes_take_a_cotangent() -> None:
    found = normalized(model(small_models.tokens(), small_models.TOKENS, outputs=[("t", FLOAT, ["N", 256, 8])])).scores
    assert (found.shape, found.class_axis, found.classes, found.activation) == ((256, 8), None, None, "none")
    assert found.free


def test_a_classifier_takes_a_cotangent_on_request() -> None:
    found = normalized(small_models.classifier(), cotangent=True).scores
    assert (found.free, found.shape, found.class_axis) == (True, (5,), 1)


def test_of_several_inputs_the_picture_is_explained() -> None:
    nodes = [conv(), *head("c", "z"), node("Mul", ["z", "x2"], ["y"])]
    proto = model(nodes, inputs=[("x2", FLOAT, ["N", 5]), IMAGE])
    found = normalized(proto)
    assert [value.name for value in found.model.graph.inputs] == ["x", "x2"]
    assert found.image == "x"
    other = normalized(proto, image_input="x2")
    assert (other.image, other.image_shape, other.layout) == ("x2", (5,), None)


def test_free_axes_are_fixed_by_name() -> None:
    nodes = [node("ReduceMean", ["x", "one"], ["mean"], keepdims=0), node("Gemm", ["mean", "fw", "fb"], ["y"])]
    proto = model(nodes, {"one": np.array([1])}, inputs=[("x", FLOAT, ["N", "length", 8])])
    assert normalized(proto, axes={"length": 7}).image_shape == (7, 8)
    with pytest.raises(ModelError, match="leaves axes \\['length'\\] free; name their sizes: --axis length=SIZE"):
        normalized(proto)
    with pytest.raises(ParameterError, match="unknown free axis 'lenght'; did you mean 'length'"):
        normalized(proto, axes={"lenght": 7})


def test_a_value_without_the_batch_axis_is_no_place_to_explain() -> None:
    with pytest.raises(ParameterError, match="unknown value 'poolde'; did you mean 'pooled'"):
        normalized(small_models.classifier(), wrt="poolde")
    nodes = [
        conv(),
        node("Transpose", ["c"], ["t"], perm=[1, 0, 2, 3]),
        node("Transpose", ["t"], ["u"], perm=[1, 0, 2, 3]),
    ]
    with pytest.raises(ModelError, match="only values \\[N, …\\] with a row for every image are explained"):
        normalized(model([*nodes, *head("u")]), wrt="t")
    found = normalized(model([*nodes, *head("u")]), wrt="u")
    assert (found.value, found.value_shape, found.inside) == ("u", (8, 16, 16), True)


def test_operators_outside_onnx_are_refused_by_node() -> None:
    for opset in (11, 20):
        proto = model(
            [conv(), node("Foo", ["c"], ["d"], domain="my.ops", name="mine"), *head("d")],
            domains={"my.ops": 1},
            opset=opset,
        )
        with pytest.raises(NoGradientError, match=r"my.ops::Foo \(node 'mine'\)"):
            normalized(proto)
