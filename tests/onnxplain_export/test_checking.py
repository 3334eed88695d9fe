"""`onnxplain check` says before any export what can be differentiated and what stands in the way, by node."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import small_models
from onnxplain.cli import main
from onnxplain_export.check.checking import check
from onnxplain_export.check.text_table import table
from onnxplain_export.vjp import STANDARD
from small_models import conv, head, model, node, random_weight


@pytest.fixture(autouse=True)
def no_rule_for_det(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(STANDARD, "Det", raising=False)


def determinant() -> onnx.ModelProto:
    nodes = [node("Det", ["x"], ["d"], name="mine"), node("Gemm", ["d", "weights"], ["y"], name="head")]
    return model(nodes, {"weights": random_weight(3, 5)})


def rounded() -> onnx.ModelProto:
    return model([node("Round", ["x"], ["r"]), conv("r"), *head("c")])


def test_a_differentiable_model_has_no_obstacles() -> None:
    verdict = check(small_models.classifier(opset=9))
    assert verdict.differentiable
    assert verdict.operators == {
        "differentiated": {"Conv": 1, "Flatten": 1, "Gemm": 1, "GlobalAveragePool": 1, "Relu": 1, "Reshape": 1}
    }
    assert (verdict.classes, verdict.activation, verdict.shape) == (5, "softmax", (3, 16, 16))


def test_operators_without_a_rule_are_listed_by_node() -> None:
    verdict = check(determinant())
    assert not verdict.differentiable
    assert [(one["operator"], one["node"]) for one in verdict.obstacles] == [("Det", "mine")]
    assert verdict.operators["no rule"] == {"Det": 1}


def test_a_gradient_that_is_zero_everywhere_is_said() -> None:
    verdict = check(rounded())
    assert verdict.zero
    assert not verdict.differentiable
    assert verdict.operators["no gradient"] == {"Round": 1}


def vision(**options: Any) -> onnx.ModelProto:
    """A model whose answer is the place of the best score."""
    nodes = [conv(), *head("c", "z"), node("ArgMax", ["z"], ["y"], axis=1, keepdims=0, name="best")]
    return model(nodes, outputs=[("y", TensorProto.INT64, ["N"])], **options)


def detector() -> onnx.ModelProto:
    weights = {"to_boxes": np.array([0, 512, 4]), "to_scores": np.array([0, 1, 2048]), "most": np.array([3])}
    nodes = [
        conv(),
        node("Reshape", ["c", "to_boxes"], ["boxes"]),
        node("Reshape", ["c", "to_scores"], ["ratings"]),
        node("NonMaxSuppression", ["boxes", "ratings", "most"], ["kept"], name="nms"),
        node("Cast", ["kept"], ["y"], to=TensorProto.FLOAT),
    ]
    return model(nodes, weights, outputs=[("y", TensorProto.FLOAT, ["picked", 3])])


def quantised() -> onnx.ModelProto:
    nodes = [
        node("QuantizeLinear", ["x", "scale", "zero"], ["q"], name="quantise"),
        node("DequantizeLinear", ["q", "scale", "zero"], ["back"], name="restore"),
        conv("back"),
        *head("c"),
    ]
    return model(nodes, {"scale": np.float32(0.1), "zero": np.int8(0)})


def tree() -> onnx.ModelProto:
    leaves = {
        "nodes_treeids": [0] * 3,
        "nodes_nodeids": [0, 1, 2],
        "nodes_featureids": [0] * 3,
        "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF"],
        "nodes_values": [0.5, 0.0, 0.0],
        "nodes_truenodeids": [1, 0, 0],
        "nodes_falsenodeids": [2, 0, 0],
        "target_treeids": [0, 0],
        "target_nodeids": [1, 2],
        "target_ids": [0, 0],
        "target_weights": [1.0, 2.0],
    }
    nodes = [node("TreeEnsembleRegressor", ["x"], ["y"], name="tree", domain="ai.onnx.ml", n_targets=1, **leaves)]
    features = [("x", TensorProto.FLOAT, ["N", 4])]
    return model(
        nodes, inputs=features, outputs=[("y", TensorProto.FLOAT, ["N", 1])], domains={"ai.onnx.ml": 3}, opset=17
    )


def listed() -> onnx.ModelProto:
    """A sequence whose length is known only when the model runs."""
    half = helper.make_graph(
        [node("Relu", ["e"], ["f"])],
        "body",
        [helper.make_tensor_value_info("e", TensorProto.FLOAT, None)],
        [helper.make_tensor_value_info("f", TensorProto.FLOAT, None)],
    )
    nodes = [
        node("ReduceSum", ["x"], ["sum"], keepdims=0),
        node("Cast", ["sum"], ["length"], to=TensorProto.INT64),
        node("SplitToSequence", ["x", "length"], ["parts"], axis=2, name="cut"),
        node("SequenceMap", ["parts"], ["mapped"], name="each", body=half),
        node("ConcatFromSequence", ["mapped"], ["joined"], axis=2, name="join"),
        node("Conv", ["joined", "w", "b"], ["c"], pads=[1] * 4),
        *head("c"),
    ]
    return model(nodes)


def fused() -> onnx.ModelProto:
    nodes = [node("FusedConv", ["x", "w", "b"], ["c"], domain="com.microsoft", name="fused"), *head("c")]
    return model(nodes, domains={"com.microsoft": 1})


def tokens() -> onnx.ModelProto:
    nodes = [
        node("Mul", ["x", "two"], ["doubled"], name="double"),
        node("Gather", ["table", "doubled"], ["embedding"]),
        node("ReduceMean", ["embedding", "one"], ["mean"], keepdims=0),
        node("Gemm", ["mean", "fw", "fb"], ["y"]),
    ]
    weights = {"two": np.array(2), "table": random_weight(20, 8), "one": np.array([1])}
    return model(nodes, weights, inputs=[("x", TensorProto.INT64, ["N", 6])])


def any_size() -> onnx.ModelProto:
    return small_models.classifier(inputs=[("x", TensorProto.FLOAT, ["N", 3, "height", "width"])])


REFUSALS = {
    "no rule": (determinant, "Det", "replace it, add a rule"),
    "zero": (rounded, "Round", "explain by perturbation (pictures: export with --methods occlusion)"),
    "a place": (vision, "ArgMax", "explain a value before it: --score-output z"),
    "boxes": (detector, "NonMaxSuppression", "explain a value before it: --score-output boxes or ratings"),
    "quantised": (quantised, "QuantizeLinear", "--quantized straight-through"),
    "tree": (tree, "ai.onnx.ml::TreeEnsembleRegressor", "features: replace some and compare the scores"),
    "sequence": (listed, "SequenceMap", "tensors of fixed size"),
    "optimised": (fused, "com.microsoft::FusedConv", "without onnxruntime's optimisation"),
}


@pytest.mark.parametrize("kind", REFUSALS)
def test_each_obstacle_comes_with_what_to_do(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make, operator, advice = REFUSALS[kind]
    file = tmp_path / "net.onnx"
    onnx.save(make(), file)
    assert main(["check", str(file), "--json"]) == 1
    verdict = json.loads(capsys.readouterr().out)
    found = [one for one in verdict["obstacles"] if one["operator"] == operator]
    assert not verdict["differentiable"]
    assert found
    assert set(found[0]) == {"operator", "node", "output", "why", "advice"}
    assert advice in found[0]["advice"]
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["check", str(file)]) == 1
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    assert operator in text.partition("in the way")[2]
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("make", "error", "advice"),
    [
        (tokens, "Mul .*computes with the integers of input 'x'", "--wrt embedding"),
        (any_size, "leaves axes .* free; name the picture's size", None),
        (vision, "no output looks like scores", "--score-output NAME"),
        (lambda: vision(opset=6, ir_version=3), "opset 6; opsets", "convert_version"),
    ],
    ids=["tokens", "sizes", "labels alone", "old"],
)
def test_a_model_that_cannot_be_normalised_is_still_looked_at(
    make: Callable[[], onnx.ModelProto], error: str, advice: str | None
) -> None:
    verdict = check(make())
    assert not verdict.differentiable
    assert verdict.error is not None
    assert re.search(error, verdict.error)
    assert (advice in verdict.advice) if advice and verdict.advice else verdict.advice == advice
    assert sum(verdict.operators["not examined"].values()) == len(make().graph.node)


def test_operators_with_a_rule_are_no_obstacles_of_a_model_that_was_not_examined() -> None:
    nodes = [
        node("Scaler", ["x"], ["s"], domain="ai.onnx.ml", scale=[2.0], offset=[1.0]),
        node("Normalizer", ["s"], ["n"], domain="ai.onnx.ml", norm="MAX"),
        node("Gemm", ["n", "fw", "fb"], ["y"]),
    ]
    verdict = check(model(nodes, inputs=[("x", TensorProto.FLOAT, ["N", 8])], domains={"ai.onnx.ml": 3}))
    assert verdict.error is not None
    assert verdict.obstacles == ()


def test_what_a_rule_has_against_a_node_is_found_before_any_export() -> None:
    nodes = [conv(), node("GlobalLpPool", ["c"], ["p"], p=0, name="mine"), node("Flatten", ["p"], ["f"])]
    verdict = check(model([*nodes, node("Gemm", ["f", "fw", "fb"], ["y"])]))
    assert verdict.obstacles == ()
    assert verdict.operators == {
        "differentiated": {"Conv": 1, "Flatten": 1, "Gemm": 1, "GlobalLpPool": 1, "Reshape": 1}
    }
    assert "GlobalLpPool (node 'mine'): p = 0" in str(verdict.error)
    assert not verdict.differentiable


def test_a_good_model_is_said_to_be_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "net.onnx"
    onnx.save(small_models.classifier(), file)
    assert main(["check", str(file)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "net: x [N, 3, 16, 16] → y [N, 5], 5 classes (softmax)"
    assert [line.split() for line in lines if line.startswith("Conv")] == [["Conv", "1", "differentiated"]]
    assert lines[-1] == "every gradient method can be exported"
    assert main(["check", str(file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["differentiable"]


def test_tables_keep_to_their_width() -> None:
    words = "a few words that go on and on " * 4
    lines = list(table(("name", "why", "what"), [("ai.onnx.ml::TreeEnsembleClassifier", words, words)], 90))
    assert max(map(len, lines)) <= 90
    assert "ai.onnx.ml::TreeEnsembleClassifier" in lines[1]
    assert " ".join(" ".join(line[36:63].split()) for line in lines[1:]).split() == words.split()


def test_flags_of_export_prepare_pictures_as_they_say(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "net.onnx"
    onnx.save(small_models.classifier(inputs=[("x", TensorProto.FLOAT, ["N", 3, "h", "w"])]), file)
    options = ["--size", "16", "24", "--mean", "0.5", "--std", "0.25", "--methods", "gradient, occlusion"]
    assert main(["export", str(file), "-o", str(tmp_path / "net.explain"), *options]) == 0
    assert "proved: the gradient is that of finite differences" in capsys.readouterr().out
    description = json.loads((tmp_path / "net.explain" / "explainer.json").read_text())
    steps = {step["step"]: step for step in description["preprocessing"]["steps"]}
    assert (steps["mean"]["values"], steps["std"]["values"]) in [([0.5], [0.25]), ([0.5] * 3, [0.25] * 3)]
    assert description["inputs"][0]["shape"] == ["N", 3, 16, 24]
    assert list(description["methods"]) == ["gradient", "occlusion"]
