"""`onnxplain check` says before any export what can be differentiated and what stands in the way, by node."""

import json
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto

import small_models
from onnxplain.cli import main
from onnxplain_export.checking import check
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


@pytest.mark.parametrize(
    ("proto", "code", "said"),
    [
        (small_models.classifier(), 0, "every gradient method can be exported"),
        (determinant(), 1, "in the way: Det (node 'mine', output 'd')"),
        (rounded(), 1, "the gradient is zero everywhere"),
    ],
    ids=["good", "no rule", "zero"],
)
def test_the_command_says_it_and_exits_accordingly(
    proto: onnx.ModelProto, code: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "net.onnx"
    onnx.save(proto, file)
    assert main(["check", str(file)]) == code
    assert said in capsys.readouterr().out
    assert main(["check", str(file), "--json"]) == code
    verdict = json.loads(capsys.readouterr().out)
    assert verdict["differentiable"] == (code == 0)
    assert list(tmp_path.iterdir()) == [file]


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
