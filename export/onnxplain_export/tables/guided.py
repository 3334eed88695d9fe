"""Guided backpropagation and the deconvolution: derivatives, but for what happens at a ReLU.

Springenberg et al. 2014 (arXiv:1412.6806); Zeiler and Fergus 2013 (arXiv:1311.2901). The rule belongs to the operator,
not to a module: a ReLU that is written as a function, or used twice, has it too, where hooks on modules pass it by.
"""

from collections.abc import Callable, Mapping
from typing import Any

import onnx_ir as ir

from onnxplain_export.emitter import Emitter, constant_of
from onnxplain_export.tables.structure import ACTIVATIONS
from onnxplain_export.vjp import STANDARD, Cotangents, Rule

ABOVE = {"Greater": 0, "GreaterOrEqual": 0, "Less": 1, "LessOrEqual": 1}
"""Comparisons, and which operand is the larger one where they hold."""


def activation_treatment() -> Mapping[str, str]:
    """How the two tables treat each form of activation: "guided", or its true "derivative".

    Guided is what is 0 below 0 and x above: ReLU, ReLU6 and any other clip from 0, and a ReLU written as max(x, 0) or
    where(x > 0, x, 0). Whatever has a slope below 0, or is smooth, keeps its derivative, as in Captum and MindSpore.
    """
    forms = dict.fromkeys(sorted(ACTIVATIONS - {"Abs", "Clip", "Relu"}), "derivative")
    guided = ["Relu", "Clip from 0 (ReLU6)", "Max(x, 0)", "Where(x > 0, x, 0)", "ThresholdedRelu at 0"]
    smooth = ["Clip from another number", "Mul(x, Sigmoid(x)) (SiLU)", "the activations inside LSTM, GRU and RNN"]
    return {**dict.fromkeys(guided, "guided"), **forms, **dict.fromkeys(smooth, "derivative")}


def rectifies(node: ir.Node) -> bool:
    """Whether the node is a ReLU in one of its forms, perhaps with a ceiling."""
    inputs = [*node.inputs, None, None]
    match node.op_type:
        case "Relu":
            return True
        case "Clip":
            return _is_zero(inputs[1])
        case "Max":
            return len(node.inputs) == 2 and any(_is_zero(value) for value in node.inputs)
        case "Where":
            return _chooses_positive(node)
        case "ThresholdedRelu":
            alpha = node.attributes.get("alpha")
            return alpha is not None and float(alpha.value) == 0.0
    return False


def _is_zero(value: ir.Value | None) -> bool:
    fixed = constant_of(value)
    return fixed is not None and fixed.size > 0 and not fixed.any()


def _chooses_positive(node: ir.Node) -> bool:
    """where(x > 0, x, 0) in any of its spellings."""
    condition, kept, other = node.inputs
    test = None if condition is None else condition.producer()
    if test is None or test.op_type not in ABOVE:
        return False
    larger, smaller = test.inputs[ABOVE[test.op_type]], test.inputs[1 - ABOVE[test.op_type]]
    if _is_zero(smaller):
        return kept is larger and _is_zero(other)
    return _is_zero(larger) and other is smaller and _is_zero(kept)


def _guided(op: Emitter, node: ir.Node, g: ir.Value) -> Cotangents:
    """The derivative of what is positive in g: a ReLU passes max(g, 0) where x > 0."""
    return STANDARD[node.op_type].function(op, node, op.Relu(g))


def _deconvolved(op: Emitter, node: ir.Node, g: ir.Value) -> Cotangents:
    """max(g, 0), whatever x was."""
    rectified = op.Relu(g)
    return [rectified if op.wants(value) else None for value in node.inputs]


def _at_rectifiers(rule: Callable[[Emitter, ir.Node, ir.Value], Cotangents]) -> dict[str, Rule]:
    """STANDARD with the rule at every node that rectifies."""

    def chosen(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
        return rule(op, node, g) if rectifies(node) else STANDARD[node.op_type].function(op, node, g)

    changed = ("Clip", "Max", "Relu", "ThresholdedRelu", "Where")
    return {**STANDARD, **{name: Rule(chosen, broadcasts=STANDARD[name].broadcasts) for name in changed}}


GUIDED: Mapping[str, Rule] = _at_rectifiers(_guided)
"""relu(g)·[x > 0] at every ReLU: what raises the score, through neurons that are on."""

DECONVOLUTION: Mapping[str, Rule] = _at_rectifiers(_deconvolved)
"""relu(g) at every ReLU: what raises the score, through neurons that are on or off."""
