"""Guided backpropagation and deconvolution: every form of a ReLU has their rule, every other activation its slope."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import NodeProto

import small_models
from onnxplain_export.graphs.gradient import gradient
from onnxplain_export.normalize import normalize
from onnxplain_export.sources import read_source
from onnxplain_export.tables import DECONVOLUTION, GUIDED, activation_treatment
from onnxplain_export.tables.guided import rectifies
from onnxplain_export.vjp import STANDARD, RuleTable
from small_models import head, node, random_weight
from table_cases import Between

ZERO, SIX = np.float32(0), np.float32(6)
IMAGES = small_models.images(3, 16, 16)
TARGETS = np.array([[0], [3], [4]])

GUIDED_FORMS: dict[str, list[NodeProto]] = {
    "Relu": [node("Relu", ["c"], ["m"])],
    "ReLU6": [node("Clip", ["c", "zero", "six"], ["m"])],
    "Clip without a ceiling": [node("Clip", ["c", "zero"], ["m"])],
    "Max": [node("Max", ["c", "zero"], ["m"])],
    "Max, zero first": [node("Max", ["zero", "c"], ["m"])],
    "Where greater": [node("Greater", ["c", "zero"], ["k"]), node("Where", ["k", "c", "zero"], ["m"])],
    "Where less": [node("Less", ["c", "zero"], ["k"]), node("Where", ["k", "zero", "c"], ["m"])],
    "ThresholdedRelu": [node("ThresholdedRelu", ["c"], ["m"], alpha=0.0)],
}
OTHER_FORMS: dict[str, list[NodeProto]] = {
    **{name: [node(name, ["c"], ["m"])] for name in ("LeakyRelu", "Elu", "Gelu", "HardSwish", "Sigmoid", "Mish")},
    "SiLU": [node("Sigmoid", ["c"], ["s"]), node("Mul", ["c", "s"], ["m"])],
    "Clip from below zero": [node("Clip", ["c", "minus", "six"], ["m"])],
    "PRelu": [node("PRelu", ["c", "slope"], ["m"])],
    "ThresholdedRelu": [node("ThresholdedRelu", ["c"], ["m"])],
    "Max of two": [node("Neg", ["c"], ["d"]), node("Max", ["c", "d"], ["m"])],
    "Where of another": [node("Greater", ["c", "half"], ["k"]), node("Where", ["k", "c", "zero"], ["m"])],
}
CONSTANTS = {"zero": ZERO, "six": SIX, "minus": np.float32(-1), "slope": np.float32([0.2]), "half": np.float32(0.5)}


def total(nodes: list[NodeProto], rules: RuleTable, smooth: bool = False) -> np.ndarray:
    """The map of a network with these nodes and a convolution before its head.

    The head's own ReLU may give way to a smooth function.
    """
    names = {name for one in nodes for name in one.input}
    weights = {name: value for name, value in CONSTANTS.items() if name in names}
    last = onnx.NodeProto()
    last.CopyFrom(nodes[-1])
    last.output[0] = "f"
    mixing = node("Conv", ["f", "w2"], ["m"])
    proto = Between([*nodes[:-1], last, mixing], {**weights, "w2": random_weight(8, 8, 1, 1)}).model()
    if smooth:
        before, after = head("m")[0], node("Softplus", ["m"], ["relu"])
        next(one for one in proto.graph.node if one.output == before.output).CopyFrom(after)
    found = normalize(read_source(proto))
    model = ir.to_proto(gradient(found, rules))
    return small_models.run(model, {found.image: IMAGES, "target": TARGETS}, "total")


@pytest.mark.parametrize("rules", [GUIDED, DECONVOLUTION], ids=["guided", "deconvolution"])
@pytest.mark.parametrize("form", GUIDED_FORMS)
def test_every_form_of_a_relu_has_the_rule(form: str, rules: RuleTable) -> None:
    expected = total(GUIDED_FORMS["Relu"], rules)
    np.testing.assert_allclose(total(GUIDED_FORMS[form], rules), expected, atol=1e-6 * np.abs(expected).max())
    assert np.abs(expected - total(GUIDED_FORMS["Relu"], STANDARD)).max() > 0.01 * np.abs(expected).max()


@pytest.mark.parametrize("rules", [GUIDED, DECONVOLUTION], ids=["guided", "deconvolution"])
@pytest.mark.parametrize("form", OTHER_FORMS)
def test_every_other_activation_keeps_its_derivative(form: str, rules: RuleTable) -> None:
    plain = total(OTHER_FORMS[form], STANDARD, smooth=True)
    np.testing.assert_array_equal(total(OTHER_FORMS[form], rules, smooth=True), plain)
    assert np.abs(plain).max() > 0


def test_the_two_rules_differ_where_a_neuron_is_off() -> None:
    guided, deconvolved = (total(GUIDED_FORMS["Relu"], rules) for rules in (GUIDED, DECONVOLUTION))
    assert np.abs(guided - deconvolved).max() > 0.01 * np.abs(guided).max()


def test_the_list_of_treatments_is_true() -> None:
    forms = activation_treatment()
    for name, treatment in forms.items():
        if name in STANDARD and name != "ThresholdedRelu":
            one = ir.node(name, [ir.val("x"), *([ir.val("slope")] if name == "PRelu" else [])])
            assert (treatment == "guided") == rectifies(one), name
    assert set(forms.values()) == {"guided", "derivative"}


def test_all_other_rules_are_the_derivatives() -> None:
    for rules in (GUIDED, DECONVOLUTION):
        assert set(rules) == set(STANDARD)
        changed = {name for name in rules if rules[name] is not STANDARD[name]}
        assert changed == {"Clip", "Max", "Relu", "ThresholdedRelu", "Where"}
