"""Sequences and optionals of known content become their entries; others are refused by node."""

import numpy as np
import pytest

from normalizing import assert_same_scores, normalized, operators
from onnxplain.errors import NoGradientError
from onnxplain_export.graphs.gradient import gradient
from small_models import conv, head, model, node

WEIGHTS = {"first": np.array(0), "last": np.array(-1), "sizes": np.array([3, 5]), "three": np.array(3)}
WEIGHTS |= {"axes": np.array([0])}
HANDLED = {
    "SequenceAt",
    "SequenceConstruct",
    "SplitToSequence",
    "ConcatFromSequence",
    "SequenceInsert",
    "SequenceEmpty",
}
HANDLED |= {"SequenceErase", "SequenceLength", "Optional", "OptionalGetElement", "OptionalHasElement"}

FORMS = {
    "pieces by place": [
        node("SplitToSequence", ["c", "sizes"], ["s"], axis=1),
        node("SequenceAt", ["s", "last"], ["tail"]),
        node("SequenceAt", ["s", "first"], ["front"]),
        node("Concat", ["tail", "front"], ["d"], axis=1),
    ],
    "pieces of one size": [
        node("SplitToSequence", ["c", "three"], ["s"], axis=1),
        node("SequenceErase", ["s", "first"], ["fewer"]),
        node("SequenceInsert", ["fewer", "front"], ["all"]),
        node("ConcatFromSequence", ["all"], ["d"], axis=1),
    ],
    "slices": [
        node("SplitToSequence", ["c"], ["s"], axis=1, keepdims=0),
        node("ConcatFromSequence", ["s"], ["d"], axis=1, new_axis=1),
    ],
    "a list that grows and shrinks": [
        node("Tanh", ["c"], ["t"]),
        node("SequenceConstruct", ["t", "c"], ["s"]),
        node("SequenceInsert", ["s", "t", "last"], ["s3"]),
        node("SequenceErase", ["s3", "last"], ["s2"]),
        node("ConcatFromSequence", ["s2"], ["pair"], axis=0, new_axis=1),
        node("ReduceProd", ["pair", "axes"], ["d"], keepdims=0),
    ],
    "an empty list filled": [
        node("SequenceEmpty", [], ["s"]),
        node("SequenceInsert", ["s", "c"], ["s1"]),
        node("Tanh", ["c"], ["t"]),
        node("SequenceInsert", ["s1", "t"], ["s2"]),
        node("SequenceLength", ["s2"], ["count"]),
        node("Cast", ["count"], ["number"], to=1),
        node("SequenceAt", ["s2", "last"], ["entry"]),
        node("Mul", ["entry", "number"], ["d"]),
    ],
    "an optional": [
        node("Optional", ["c"], ["o"]),
        node("OptionalHasElement", ["o"], ["there"]),
        node("OptionalGetElement", ["o"], ["content"]),
        node("Where", ["there", "content", "x8"], ["d"]),
    ],
}


@pytest.mark.parametrize("form", FORMS)
def test_what_a_known_sequence_holds(form: str) -> None:
    nodes = [conv(), *FORMS[form], *head("d")]
    if form == "pieces of one size":
        nodes.insert(1, node("Slice", ["c", "axes", "three1", "one1"], ["front"]))
    used = {name for one in nodes for name in one.input}
    weights = {**WEIGHTS, "three1": np.array([3]), "one1": np.array([1]), "x8": np.float32(0)}
    found = assert_same_scores(model(nodes, {name: content for name, content in weights.items() if name in used}))
    assert not HANDLED & set(operators(found))


def test_a_place_that_is_computed_is_refused_by_node() -> None:
    nodes = [
        conv(),
        node("SequenceConstruct", ["c", "c"], ["s"]),
        node("ReduceMax", ["x"], ["most"], keepdims=0),
        node("Cast", ["most"], ["whole"], to=7),
        node("SequenceAt", ["s", "whole"], ["d"], name="picked"),
        *head("d"),
    ]
    with pytest.raises(NoGradientError, match=r"SequenceAt \(node 'picked'.*known at export"):
        gradient(normalized(model(nodes)))
