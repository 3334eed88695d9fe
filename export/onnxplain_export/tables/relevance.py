"""Layer-wise relevance propagation: what a composite of rules does at each operator.

The walk carries relevances in the place of cotangents. It sets out with the explained score, and every operator hands
on what it is given. Composites have the names that the literature and its tools use (Montavon et al. 2019; Kohlbrenner
et al. 2020, arXiv:1910.09840).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType
from typing import Any

import onnx_ir as ir

from onnxplain.errors import NoGradientError
from onnxplain_export.autodiff import Rules, describe
from onnxplain_export.emitter import Emitter
from onnxplain_export.tables import layers
from onnxplain_export.tables.layers import Layer, LayerRule, Ledger, Parameters, stabilised
from onnxplain_export.tables.structure import (
    ACTIVATIONS,
    MAXIMA,
    MOVING,
    SUMS,
    adds_bias,
    gate_of,
    gated_by_itself,
    is_first_layer,
    wanted,
)
from onnxplain_export.vjp import STANDARD, Cotangents, Rule, operator_name
from onnxplain_export.vjp.registry import NOTHING

ROUTED = sorted(MOVING | MAXIMA)
"""What moves entries or chooses one: relevance goes back where the entry came from, as a derivative does."""
CUTTING = ["Pad", "Trilu", "Where"]
"""The same, where a constant may take an entry's place; its relevance stays there."""

PASSED = sorted(ACTIVATIONS | {"LRN", "Neg"})
"""What works on one entry at a time: its input has the output's relevance. LRN's divisor counts as a constant."""

MISSING = (
    "layer-wise relevance propagation knows convolutions, dense layers, sums, pools, movements and activations of one "
    "entry at a time; use a gradient method such as integrated_gradients, or replace the operator before exporting"
)


@dataclass(frozen=True)
class Composite:
    """Which rule each kind of layer has.

    `parameters` are the graph's inputs that choose numbers, with their defaults (None: an image). Where `biases` stay
    behind, what a normalisation between layers adds has its share of the relevance too, as a layer's bias has;
    otherwise such an operator passes relevance on whole.
    """

    name: str
    convolution: LayerRule
    dense: LayerRule
    first: LayerRule | None = None
    biases: bool = False
    parameters: Mapping[str, float | None] = field(default_factory=lambda: MappingProxyType({"epsilon": 1e-6}))

    def table(self, parameters: Parameters, ledger: Ledger) -> Rules:
        """The rules, for the values of the parameters."""
        weighted = {"Conv": self.convolution, "ConvTranspose": self.convolution, "Gemm": self.dense}
        weighted["MatMul"] = self.dense
        bound = (parameters, ledger)
        rules = {name: Rule(partial(_layer, rule, self.first, bound)) for name, rule in weighted.items()}
        rules |= {name: STANDARD[name] for name in ROUTED}
        rules |= {name: Rule(partial(_cut, bound), STANDARD[name].broadcasts) for name in CUTTING}
        rules |= {name: Rule(_passed) for name in PASSED}
        rules |= {name: Rule(partial(_summed, bound, self.biases), STANDARD[name].broadcasts) for name in SUMS}
        rules["BatchNormalization"] = Rule(partial(_normalised, bound) if self.biases else _passed)
        rules |= {"Mul": Rule(_product, broadcasts=True), "Div": Rule(_quotient, broadcasts=True)}
        rules |= {name: Rule(_extreme, broadcasts=True) for name in ("Max", "Min")}
        return Rules(rules, "relevance", MISSING)


def _layer(
    rule: LayerRule, first: LayerRule | None, bound: tuple[Parameters, Ledger], op: Emitter, node: ir.Node, g: Any
) -> Cotangents:
    """The layer's rule, that for the first layer where there is one and no layer comes before."""
    layer = Layer(op, node, g, *bound)
    chosen = first if first is not None and is_first_layer(op, node) else rule
    answer = chosen(layer)
    return [answer if index == layer.data else None for index in range(len(node.inputs))]


def _passed(_: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """The output's relevance as it is."""
    return [g, *[None] * (len(node.inputs) - 1)]


def _cut(bound: tuple[Parameters, Ledger], op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """Back where each entry came from; what a constant has stays there."""
    answers = STANDARD[node.op_type].function(op, node, g)
    _, ledger = bound
    ledger.add(op, g, node.outputs[0])
    for index in wanted(op, node):
        answer, x = answers[index], node.inputs[index]
        if answer is not None and x is not None:
            reference = node.outputs[0] if STANDARD[node.op_type].broadcasts else x
            ledger.add(op, op.Neg(answer), reference)
    return answers


def _summed(bound: tuple[Parameters, Ledger], biases: bool, op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """R_i = x_i w_i / (y + ε sign y) R; one image-dependent operand alone has all of it, unless `biases` count."""
    parameters, ledger = bound
    found = wanted(op, node)
    if node.op_type in ("Add", "Sub") and len(found) == 1 and (not biases or adds_bias(op, node)):
        return [g if index in found else None for index in range(len(node.inputs))]
    s = op.Div(g, stabilised(op, node.outputs[0], parameters))
    answers = STANDARD[node.op_type].function(op, node, s)
    shares = [
        op.Mul(node.inputs[index], answer) if index in found and answer is not None else None
        for index, answer in enumerate(answers)
    ]
    ledger.add(op, op.Sub(g, op.Mul(s, _from_images(op, node, found))), node.outputs[0])
    return shares


def _from_images(op: Emitter, node: ir.Node, found: list[int]) -> ir.Value:
    """The output without the constants in it."""
    y = node.outputs[0]
    if node.op_type == "Add" and len(found) == 1:
        return node.inputs[found[0]]  # type: ignore[return-value]  # it is wanted
    if node.op_type == "Sub" and len(found) == 1:
        return node.inputs[0] if found == [0] else op.Neg(node.inputs[1])  # type: ignore[return-value]
    if node.op_type in ("Sum", "Mean") and len(found) < len(node.inputs):
        raise NoGradientError(f"relevance isn't defined for {describe(node)}: some of its operands are constants")
    return y


def _normalised(bound: tuple[Parameters, Ledger], op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """y = w x + b: R_x = w x / (y + ε sign y) R."""
    parameters, ledger = bound
    s = op.Div(g, stabilised(op, node.outputs[0], parameters))
    (answer, *others) = STANDARD[node.op_type].function(op, node, s)
    share = op.Mul(node.inputs[0], answer)
    ledger.add(op, op.Sub(g, share), node.outputs[0])
    return share, *others


def _product(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """All of it for the factor that depends on the image, and where both do for the one that isn't a gate.

    A gate comes out of a sigmoid or is a function of the other factor (SiLU): it weighs, the other is weighed (Arras
    et al. 2017, arXiv:1706.07206). Two of a kind have half each (Achtibat et al. 2024, arXiv:2402.05602).
    """
    found = wanted(op, node)
    if len(found) == 1:
        return [g if index in found else None for index in range(2)]
    weighed = gated_by_itself(op, node)
    gate = gate_of(node) if weighed is None else 1 - weighed
    if gate is not None:
        return [NOTHING if index == gate else g for index in range(2)]
    half = op.Mul(g, 0.5)
    return half, half


def _quotient(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """All of it for the dividend; a divisor that depends on the image has no share that is defined."""
    if op.wants(node.inputs[1]):
        raise NoGradientError(f"relevance isn't defined for {describe(node)}: it divides by what depends on the image")
    return g, None


def _extreme(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """All of it for the largest (smallest) operand, or for the only one that depends on the image, as in max(x, 0)."""
    found = wanted(op, node)
    if len(found) == 1:
        return [g if index in found else None for index in range(len(node.inputs))]
    return STANDARD[operator_name(node)].function(op, node, g)


EPSILON = Composite("epsilon", layers.epsilon, layers.epsilon, biases=True)
"""ε everywhere."""
EPSILON_PLUS = Composite("epsilon_plus", layers.positive_only, layers.epsilon)
"""z⁺ in convolutions, ε in dense layers."""
EPSILON_PLUS_FLAT = replace(EPSILON_PLUS, name="epsilon_plus_flat", first=layers.flat)
"""The same with the flat rule at the image."""
GAMMA = Composite("gamma", layers.gamma, layers.gamma, parameters={"epsilon": 1e-6, "gamma": 0.25})
"""γ everywhere."""
EPSILON_GAMMA_BOX = Composite(
    "epsilon_gamma_box",
    layers.gamma,
    layers.epsilon,
    layers.box,
    parameters={"epsilon": 1e-6, "gamma": 0.25, "low": None, "high": None},
)
"""γ in convolutions, ε in dense layers, z^B at the image."""
ALPHA_BETA = Composite("alpha_beta", layers.alpha_beta, layers.alpha_beta, parameters={"epsilon": 1e-6, "alpha": 2.0})
"""αβ everywhere; β = α − 1."""
EPSILON_ALPHA2_BETA1 = replace(ALPHA_BETA, name="epsilon_alpha2_beta1", dense=layers.epsilon)
"""αβ in convolutions (α2β1 by default), ε in dense layers."""
EPSILON_ALPHA2_BETA1_FLAT = replace(EPSILON_ALPHA2_BETA1, name="epsilon_alpha2_beta1_flat", first=layers.flat)
"""The same with the flat rule at the image."""

COMPOSITES: Mapping[str, Composite] = {
    composite.name: composite
    for composite in (
        EPSILON,
        EPSILON_PLUS,
        EPSILON_PLUS_FLAT,
        GAMMA,
        EPSILON_GAMMA_BOX,
        ALPHA_BETA,
        EPSILON_ALPHA2_BETA1,
        EPSILON_ALPHA2_BETA1_FLAT,
    )
}
"""All of them, by name."""
