"""What only moves entries is written in fewer operators without a change of the scores."""

import numpy as np
import pytest

from normalizing import assert_same_scores, normalized, operators
from onnxplain_export.emitter import dims
from small_models import TOKENS, conv, head, model, node, pooled_tokens, tokens

LAST = np.iinfo(np.int64).max


def cut(start: int, end: int, axis: int, step: int = 1) -> list[np.ndarray]:
    return [np.array([number]) for number in (start, end, axis, step)]


def sliced(*cuts: list[np.ndarray]):
    """The feature maps cut in pieces that are joined in another order."""
    names = [[f"{k}_{i}" for i in range(len(one))] for k, one in enumerate(cuts)]
    weights = {name: x for line, one in zip(names, cuts, strict=True) for name, x in zip(line, one, strict=True)}
    pieces = [node("Slice", ["c", *line], [f"piece_{k}"]) for k, line in enumerate(names)]
    joined = node("Concat", [f"piece_{k}" for k in reversed(range(len(cuts)))], ["joined"], axis=int(cuts[0][2].item()))
    return model([conv(), *pieces, joined, *head("joined")], weights)


@pytest.mark.parametrize(
    "cuts",
    [[cut(0, 5, 2), cut(5, LAST, 2)], [cut(-3, LAST, 2), cut(0, -3, 2)], [cut(0, 2, 1), cut(2, 5, 1), cut(5, 8, 1)]],
)
def test_slices_that_cover_an_axis_become_a_split(cuts):
    found = operators(assert_same_scores(sliced(*cuts)))
    assert "Slice" not in found
    assert found.count("Split") == 1


@pytest.mark.parametrize(
    "cuts",
    [
        [cut(0, 6, 2), cut(5, LAST, 2)],  # overlapping
        [cut(0, 5, 2), cut(6, LAST, 2)],  # one row left out
        [cut(0, LAST, 2, 2), cut(1, LAST, 2, 2)],  # every other row
    ],
)
def test_other_slices_stay(cuts):
    assert operators(assert_same_scores(sliced(*cuts))).count("Slice") == len(cuts)


def test_gathers_of_every_index_become_a_split():
    nodes = [
        *tokens(),
        node("Reshape", ["t", "apart"], ["r"]),
        node("Gather", ["r", "first"], ["q"], axis=2),
        node("Gather", ["r", "last"], ["k"], axis=2),
        node("Mul", ["q", "k"], ["m"]),
        node("Concat", ["m", "k"], ["wide"], axis=2),
        *pooled_tokens("wide"),
    ]
    weights = {**TOKENS, "apart": np.array([0, 256, 2, 4]), "first": np.array(0), "last": np.array(-1)}
    found = operators(assert_same_scores(model(nodes, weights)))
    assert "Gather" not in found
    assert found.count("Split") == 1


def test_a_transposition_between_merged_axes_is_one_of_the_whole():
    nodes = [
        conv(),
        node("Reshape", ["c", "merged"], ["m"]),
        node("Transpose", ["m"], ["t"], perm=[0, 2, 1]),
        node("Reshape", ["t", "apart"], ["r"]),
        *head("r"),
    ]
    weights = {"merged": np.array([-1, 16, 16]), "apart": np.array([-1, 8, 16, 16])}
    found = assert_same_scores(model(nodes, weights))
    # Flatten is a Reshape too.
    assert [name for name in operators(found) if name in ("Reshape", "Transpose")] == ["Transpose", "Reshape"]


def test_padding_by_nothing_is_dropped():
    nodes = [conv(), node("Pad", ["c", "none"], ["p"]), *head("p")]
    assert "Pad" not in operators(assert_same_scores(model(nodes, {"none": np.zeros(8, np.int64)})))


def test_a_transposed_operand_is_scaled_before():
    nodes = [
        *tokens(),
        node("Transpose", ["t"], ["k"], perm=[0, 2, 1]),
        node("Mul", ["k", "scale"], ["s"]),
        node("MatMul", ["s", "t"], ["square"]),
        *pooled_tokens("square"),
    ]
    found = operators(assert_same_scores(model(nodes, {**TOKENS, "scale": np.array(0.1, np.float32)})))
    assert found[found.index("MatMul") - 1] == "Transpose"


def test_axes_that_hold_several_entries_of_an_image_have_a_name():
    nodes = [
        conv(),
        node("Reshape", ["c", "windows"], ["r"]),
        node("Transpose", ["r"], ["t"], perm=[0, 2, 3, 1]),
        node("Reshape", ["t", "flat"], ["f"]),
        node("Softmax", ["f"], ["s"]),
        node("Reshape", ["s", "whole"], ["h"]),
        *head("h"),
    ]
    weights = {"windows": np.array([-1, 8, 16, 16]), "flat": np.array([-1, 4, 128]), "whole": np.array([-1, 8, 16, 16])}
    found = normalized(model(nodes, weights))
    (softmax,) = [one for one in found.model.graph if one.op_type == "Softmax"]
    assert dims(softmax.outputs[0]) == ("4*N", 4, 128)
