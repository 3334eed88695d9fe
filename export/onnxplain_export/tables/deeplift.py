"""DeepLIFT's rescale rule: what a difference at an operator's input explains of the difference at its output.

Shrikumar, Greenside, Kundaje 2017 (arXiv:1704.02685). The walk carries multipliers m = Δscore/Δvalue, where Δ is the
difference between the image and a baseline: linear operators hand them on as they do derivatives, functions of one
entry by Δy/Δx in place of the slope. So Σ (x − b)·m is the difference of the scores, but for rounding.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import onnx_ir as ir

from onnxplain.errors import NoGradientError
from onnxplain_export.autodiff import Rules, describe, pull_back
from onnxplain_export.emitter import Emitter, dims
from onnxplain_export.tables.guided import rectifies
from onnxplain_export.tables.structure import MAXIMA, MOVING, POINTWISE, SUMS, WEIGHTED, gated_by_itself, wanted
from onnxplain_export.vjp import STANDARD, Cotangents, Rule
from onnxplain_export.vjp.registry import NOTHING, RuleFunction

NEAR = 1e-6
"""Differences below this count as none: the multiplier is the derivative there."""

References = Mapping[ir.Value, ir.Value]
"""Each value that depends on the image → the same at the baseline."""

PRODUCTS = frozenset({"BatchNormalization", "Div", "Einsum", "Mul"}) | WEIGHTED
LINEAR = sorted(MOVING | SUMS | PRODUCTS | {"GatherElements", "GatherND", "Neg", "Pad", "Trilu", "Where"})
"""Linear in what depends on the image, as long as it is multiplied or chosen by constants."""
CHOOSING = frozenset({"Gather", "GatherElements", "GatherND"})
INTEGERS: frozenset[Any] = frozenset({ir.DataType.INT64, ir.DataType.INT32})
"""Numbers of these types are sizes and places, which the image's content doesn't change, but where they choose."""
EXTREMES = sorted(MAXIMA | {"Max", "Min"})
RESCALED = sorted(POINTWISE - {"Cast", "Identity", "Neg"})
HOOKED = frozenset({"Elu", "LeakyRelu", "MaxPool", "Relu", "Sigmoid", "Softplus", "Tanh"})
"""What Captum has hooks for."""

MISSING = (
    "DeepLIFT's rescale rule knows linear operators, maxima and functions of one entry at a time; use "
    "integrated_gradients, which has the same completeness for every differentiable network"
)


def deeplift_table(references: References, captum: bool = False) -> Rules:
    """The rules, given what each value is at the baseline.

    With `captum`, an activation or a max pool that directly follows an activation hands multipliers on as derivatives:
    that is what Captum 0.9 computes there, whose hook on the first one's output reads them before the hook on the
    second one's input has changed them. Its sums then miss the difference of the scores.
    """
    rules = {name: Rule(partial(_linear, references), *_options(name)) for name in LINEAR if name in STANDARD}
    rules |= {name: Rule(partial(_rescaled, references)) for name in RESCALED}
    rules |= {name: Rule(partial(_extreme, references), *_options(name)) for name in EXTREMES}
    if captum:
        rules |= {name: Rule(partial(_as_hooks_do, rules[name].function)) for name in HOOKED}
    return Rules(rules, "DeepLIFT", MISSING)


def _options(name: str) -> tuple[bool, bool]:
    return STANDARD[name].broadcasts, STANDARD[name].many_outputs


def _linear(references: References, op: Emitter, node: ir.Node, m: Any) -> Cotangents:
    """The derivative's rule, where no second operand depends on the image: then a product or a choice isn't linear."""
    found = wanted(op, node)
    others = [
        value
        for index, value in enumerate(node.inputs)
        if index not in found and value is not None and value in references
        if value.dtype not in INTEGERS or node.op_type in CHOOSING
    ]
    multiplied = node.op_type in PRODUCTS and (len(found) > 1 or (node.op_type == "Div" and found != [0]))
    if not others and not multiplied:
        return STANDARD[node.op_type].function(op, node, m)
    if node.op_type in ("Mul", "Div") and not others:
        if len(found) == 1:
            return [_slope(references, op, node, found[0], m) if index in found else None for index in range(2)]
        weighed = gated_by_itself(op, node)
        if weighed is not None:
            answer = _slope(references, op, node, weighed, m)
            return [answer if index == weighed else NOTHING for index in range(2)]
    if node.op_type == "Where" and rectifies(node):
        return [_slope(references, op, node, found[0], m) if index in found else None for index in range(3)]
    raise NoGradientError(
        f"DeepLIFT isn't defined for {describe(node)}: it multiplies, divides or chooses by what depends on the image, "
        "as attention and gates do; use integrated_gradients"
    )


def _rescaled(references: References, op: Emitter, node: ir.Node, m: Any) -> Cotangents:
    """m Δy/Δx; only the first input may depend on the image."""
    if wanted(op, node) != [0] or any(value in references for value in node.inputs[1:]):
        raise NoGradientError(f"DeepLIFT isn't defined for {describe(node)}: its parameters depend on the image")
    return [_slope(references, op, node, 0, m), *[None] * (len(node.inputs) - 1)]


def _extreme(references: References, op: Emitter, node: ir.Node, m: Any) -> Cotangents:
    """What the maximum rises goes to where it is, what it falls to where it was: Captum's rule for max pools.

    With M the larger of y and its reference: m (M − y_ref) / Δx at the maximum of x, m (y − M) / Δx at the reference's.
    A minimum has the smaller one. Where windows overlap the parts add up. One operand beside constants is a ReLU.
    """
    found = wanted(op, node)
    if node.op_type in ("Max", "Min") and len(found) == 1:
        return [
            _slope(references, op, node, found[0], m) if index in found else None for index in range(len(node.inputs))
        ]
    y, reference = node.outputs[0], references[node.outputs[0]]
    lower = node.op_type in ("Min", "ReduceMin")
    between = op.Min(y, reference) if lower else op.Max(y, reference)
    route, before = STANDARD[node.op_type].function, reference.producer()
    if before is None:
        raise NoGradientError(f"{describe(node)} has no counterpart at the baseline")
    ahead = route(op, node, op.Mul(m, op.Sub(between, reference)))
    behind = route(op, before, op.Mul(m, op.Sub(y, between)))
    plain = route(op, node, m)
    answers: list[ir.Value | None] = [None] * len(node.inputs)
    for index in found:
        x = node.inputs[index]
        if x is not None:
            difference = op.Sub(x, references[x])
            moved = op.Div(op.Add(ahead[index], behind[index]), difference)
            answers[index] = op.Where(_near(op, difference), plain[index], moved)
    return answers


def _as_hooks_do(rule: RuleFunction, op: Emitter, node: ir.Node, m: Any) -> Cotangents:
    """The rule, but the derivative where an activation made the input."""
    maker = None if node.inputs[0] is None else node.inputs[0].producer()
    if maker is not None and maker.op_type in HOOKED and maker.op_type != "MaxPool":
        return STANDARD[node.op_type].function(op, node, m)
    return rule(op, node, m)


def _slope(references: References, op: Emitter, node: ir.Node, index: int, m: ir.Value) -> ir.Value:
    """m Δy/Δx, or m dy/dx where there is no difference."""
    x, y = node.inputs[index], node.outputs[0]
    if x is None or x not in references or dims(x) != dims(y):
        raise NoGradientError(f"DeepLIFT isn't defined for {describe(node)}: it isn't a function of single entries")
    difference = op.Sub(x, references[x])
    secant = op.Div(op.Sub(y, references[y]), difference)
    return op.Where(_near(op, difference), _tangent(op, node, x, m), op.Mul(m, secant))


def _tangent(op: Emitter, node: ir.Node, x: ir.Value, m: ir.Value) -> ir.Value:
    """m dy/dx through all that leads from x to the node's output."""
    active = op.active
    found = pull_back(op, _between(node, x), {node.outputs[0]: m}, [x], STANDARD)
    op.active = active
    return found[x] if x in found else op.zeros_like(x)


def _between(node: ir.Node, x: ir.Value) -> list[ir.Node]:
    """The node after those that its operands are computed by from x, each after what it reads."""
    before: list[ir.Node] = []
    for value in node.inputs:
        maker = None if value is None or value is x else value.producer()
        if maker is not None and _reads(maker, x):
            before += [one for one in _between(maker, x) if one not in before]
    return [*before, node]


def _reads(node: ir.Node, x: ir.Value) -> bool:
    """Whether the node depends on x, through functions of one entry."""
    makers = [value.producer() for value in node.inputs if value is not None and value is not x]
    return x in node.inputs or any(maker is not None and _reads(maker, x) for maker in makers)


def _near(op: Emitter, difference: ir.Value) -> ir.Value:
    return op.Less(op.Abs(difference), NEAR)
