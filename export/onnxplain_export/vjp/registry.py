"""The tables of derivative rules: which operator has one, which has no gradient, which is unknown."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from onnxplain_export.emitter import Emitter

Cotangents = Sequence[ir.Value | None]
RuleFunction = Callable[[Emitter, ir.Node, Any], Cotangents]


@dataclass(frozen=True)
class Rule:
    """One operator's derivative.

    `function(op, node, g)` returns one cotangent per input, None where the input isn't differentiable. With
    `broadcasts` the answers have the output's shape and the walker sums them to each input's. With `many_outputs`
    `g` is a tuple, one cotangent or None per output.
    """

    function: RuleFunction
    broadcasts: bool = False
    many_outputs: bool = False


RuleTable = Mapping[str, Rule]

MARK, STRAIGHT_THROUGH = "onnxplain.gradient", "straight-through"
"""A node whose metadata say `STRAIGHT_THROUGH` under `MARK` has the rule that is registered as such, in every table."""

NOTHING = ir.val("nothing")
"""A rule's answer for an input that gets nothing, such as a gate in relevance: the walk doesn't go on from it."""

STANDARD: dict[str, Rule] = {}
"""The true derivatives, by operator name (`Mul`; `ai.onnx.ml::Scaler` outside the default domain)."""

SUBSTITUTES: dict[str, Rule] = {}
"""What marked nodes have in the place of their true derivative; see `vjp/quantized.py`."""

REFUSED: dict[str, str] = {}
"""Why an operator has no rule, and what to do about it."""

NO_GRADIENT: set[str] = set()
"""Operators whose derivative is zero almost everywhere or has no meaning, registered as such."""


def vjp(
    op_type: str, *, broadcasts: bool = False, many_outputs: bool = False
) -> Callable[[RuleFunction], RuleFunction]:
    """Registers the decorated function as the rule of `op_type`."""

    def register(function: RuleFunction) -> RuleFunction:
        _refuse_duplicate(op_type)
        STANDARD[op_type] = Rule(function, broadcasts, many_outputs)
        return function

    return register


def no_gradient(*op_types: str) -> None:
    """Registers operators that pass no gradient."""
    for op_type in op_types:
        _refuse_duplicate(op_type)
        NO_GRADIENT.add(op_type)


def straight_through(op_type: str) -> Callable[[RuleFunction], RuleFunction]:
    """Registers the decorated function as the rule of those nodes of `op_type` that are marked."""

    def register(function: RuleFunction) -> RuleFunction:
        SUBSTITUTES[op_type] = Rule(function)
        return function

    return register


def refused(reason: str, *op_types: str) -> None:
    """Registers what to say of operators that have no rule; `reason` follows the node's name."""
    for op_type in op_types:
        REFUSED[op_type] = reason


def rule_of(node: ir.Node, rules: RuleTable) -> Rule | None:
    """The node's rule: its operator's, unless it is marked."""
    mark = node.metadata_props.get(MARK)
    if mark is None:
        return rules.get(operator_name(node))
    return SUBSTITUTES[node.op_type] if mark == STRAIGHT_THROUGH else None


def passes_gradient(node: ir.Node) -> bool:
    """Whether a gradient must go through the node; a marked Round stands for a quantisation."""
    return operator_name(node) not in NO_GRADIENT or MARK in node.metadata_props


def operator_name(node: ir.Node) -> str:
    """The key of a node's operator in the tables."""
    return node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}::{node.op_type}"


def _refuse_duplicate(op_type: str) -> None:
    if op_type in STANDARD or op_type in NO_GRADIENT:
        raise ValueError(f"operator {op_type!r} is registered twice")
