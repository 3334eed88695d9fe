"""The proof at the end of an export holds for backward passes under other rules, and catches a fault in each."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest

from onnxplain.errors import VerificationError
from onnxplain_export.bundle import write_graphs
from onnxplain_export.graphs.deeplift import deeplift
from onnxplain_export.graphs.forward import forward
from onnxplain_export.graphs.gradient import gradient
from onnxplain_export.graphs.relevance import relevance
from onnxplain_export.normalize import Normalized, normalize
from onnxplain_export.sources import read_source
from onnxplain_export.tables import COMPOSITES, DECONVOLUTION, GUIDED, layers
from onnxplain_export.tables import deeplift as deeplift_rules
from onnxplain_export.tables.layers import Layer
from onnxplain_export.verify import verify
from onnxplain_export.verify.agreements import AGREEMENTS
from onnxplain_export.verify.conservation import complete, conserved, guided
from onnxplain_export.vjp import STANDARD
from onnxplain_export.vjp.registry import Rule
from small_models import conv, head, model, node, random_weight

Made = Callable[[Normalized], ir.Model]


def residual() -> onnx.ModelProto:
    """A residual block with a smooth and a kinked activation: two paths from the picture to the scores."""
    nodes = [
        conv(),
        node("Relu", ["c"], ["r"]),
        node("Conv", ["r", "w2"], ["d"], pads=[1] * 4),
        node("Sigmoid", ["d"], ["s"]),
        node("Mul", ["d", "s"], ["silu"]),
        node("Add", ["silu", "c"], ["sum"]),
        *head("sum"),
    ]
    return model(nodes, {"w2": random_weight(8, 8, 3, 3)})


def proved(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, make: Made, check, **options) -> dict:
    """What the proof says of a bundle that has this graph too."""
    found = normalize(read_source(residual()), **options)
    made = {"forward": forward(found), "gradient": gradient(found), name: make(found)}
    monkeypatch.setitem(AGREEMENTS, name, check)
    write_graphs(folder, made)
    return verify(found, folder, made, [])[name]


@pytest.mark.parametrize("name", COMPOSITES)
def test_relevance_is_proved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    make = partial(relevance, composite=COMPOSITES[name])
    record = proved(tmp_path, monkeypatch, "relevance", make, conserved("relevance", COMPOSITES[name]))
    assert record["error"] < 1e-4


@pytest.mark.parametrize("wrt", [None, "r"])
def test_deeplift_is_proved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrt: str | None) -> None:
    assert proved(tmp_path, monkeypatch, "deeplift", deeplift, complete("deeplift"), wrt=wrt)["error"] < 1e-5


@pytest.mark.parametrize("rules", [GUIDED, DECONVOLUTION], ids=["guided", "deconvolution"])
def test_guided_gradients_are_proved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rules) -> None:
    make = partial(gradient, rules=rules)
    assert proved(tmp_path, monkeypatch, "gradient.guided", make, guided("gradient.guided"))["error"] < 1e-5


@pytest.mark.parametrize("name", COMPOSITES)
def test_a_graph_by_a_wrong_rule_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Whichever layer has it: the first, a convolution or a dense one."""
    composite = COMPOSITES[name]

    def wrong(rule: Callable[[Layer], ir.Value], layer: Layer) -> ir.Value:
        return layer.op.Mul(rule(layer), 1.1)

    for part in ("first", "convolution", "dense"):
        if getattr(composite, part) is not None:
            faulty = replace(composite, **{part: partial(wrong, getattr(composite, part))})
            check = conserved("relevance", faulty)
            (tmp_path / part).mkdir()
            with pytest.raises(VerificationError, match="relevance"):
                proved(tmp_path / part, monkeypatch, "relevance", partial(relevance, composite=faulty), check)


def test_a_branch_that_gets_no_relevance_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forgetful(layer: Layer) -> ir.Value:
        return layer.op.Mul(layers.epsilon(layer), 0.0)

    composite = replace(COMPOSITES["epsilon"], first=forgetful)
    make = partial(relevance, composite=composite)
    with pytest.raises(VerificationError, match="relevance"):
        proved(tmp_path, monkeypatch, "relevance", make, conserved("relevance", composite))


def test_a_wrong_slope_in_deeplift_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The derivative in the place of Δy/Δx."""

    def derivative(_, op, node, index: int, m: ir.Value) -> ir.Value:
        return deeplift_rules._tangent(op, node, node.inputs[index], m)

    monkeypatch.setattr(deeplift_rules, "_slope", derivative)
    with pytest.raises(VerificationError, match="deeplift"):
        proved(tmp_path, monkeypatch, "deeplift", deeplift, complete("deeplift"))


def test_a_map_of_the_whole_batch_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that get their neighbours' part, as Captum's max pool gives all images the first one's."""
    own = STANDARD["Conv"].function

    def mixed(op, node, g):
        dx, *others = own(op, node, g)
        return op.Add(dx, op.ReduceMean(dx, [0], keepdims=1)), *others

    make = partial(gradient, rules={**GUIDED, "Conv": Rule(mixed)})
    with pytest.raises(VerificationError, match="guided"):
        proved(tmp_path, monkeypatch, "gradient.guided", make, guided("gradient.guided"))
