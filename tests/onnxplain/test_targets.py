"""Which classes are explained, and how they are named."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from onnxplain import Explainer, ParameterError
from toy_bundle import LABELS, scores_of, write_toy_bundle


def softmax(scores):
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def test_the_top_class_is_explained_by_default_and_named(explainer, rows):
    result = explainer.explain(rows)
    assert_array_equal(result.targets, scores_of(rows).argmax(axis=1))
    assert result.labels == tuple(LABELS[target] for target in result.targets)


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        (2, [2, 2]),
        (np.int64(2), [2, 2]),
        ("Dog ", [1, 1]),
        ("Tinca tinca", [2, 2]),
        ("tench, Tinca tinca", [2, 2]),
        (["cat", 3], [0, 3]),
        (np.array([1, 0]), [1, 0]),
        ([[0, 1], ["dog", 0]], [[0, 1], [1, 0]]),
        ([[3], [2]], [[3], [2]]),
        (np.array([[0, 1], [2, 3]]), [[0, 1], [2, 3]]),
    ],
)
def test_targets_are_numbers_or_names_for_all_or_each(explainer, rows, targets, expected):
    assert explainer.explain(rows[:2], targets=targets).targets.tolist() == expected


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (4, "target 4 is out of range: the network has classes 0 to 3"),
        (-1, "target -1 is out of range"),
        ("tensh", "unknown target 'tensh'; did you mean 'tench'"),
        (1.5, "1.5"),
        (True, "True"),
        ([0], "1 targets for 2 pictures"),
        ([[0, 1], [2]], "same number of targets"),
        ([[], []], "at least one"),
        ([[0], 1], "no class number or name"),
    ],
)
def test_a_wrong_target_says_what_is_wrong(explainer, rows, targets, message):
    with pytest.raises(ParameterError, match=message):
        explainer.explain(rows[:2], targets=targets)


def test_a_name_of_two_classes_asks_for_the_number(tmp_path, rows):
    output = {"name": "o", "shape": ["N", 4], "explained": True, "classes": 4, "activation": "none"}
    twice = [{**output, "labels": ["crane", "b", "c", "crane"]}]
    explainer = Explainer(write_toy_bundle(tmp_path, outputs=twice), device="cpu")
    with pytest.raises(ParameterError, match="several classes: 0, 3"):
        explainer.explain(rows, targets="crane")
    unlabelled = Explainer(write_toy_bundle(tmp_path, outputs=[output]), device="cpu")
    with pytest.raises(ParameterError, match="no labels"):
        unlabelled.explain(rows, targets="crane")
    assert unlabelled.explain(rows, targets=2).labels == ("2",) * 5


@pytest.mark.parametrize(
    ("activation", "function"), [("softmax", softmax), ("sigmoid", lambda x: 1 / (1 + np.exp(-x))), ("none", np.array)]
)
def test_probabilities_come_from_the_activation(tmp_path, rows, activation, function):
    output = {"name": "o", "shape": ["N", 4], "explained": True, "classes": 4, "activation": activation}
    result = Explainer(write_toy_bundle(tmp_path, outputs=[output]), device="cpu").explain(rows)
    assert_allclose(result.probabilities, function(scores_of(rows)), rtol=1e-4, atol=1e-6)


def test_top_explains_each_images_best_classes(explainer, rows):
    result = explainer.explain(rows, top=2)
    best = np.argsort(-result.scores, axis=1)[:, :2]
    np.testing.assert_array_equal(result.targets, best)
    named = explainer.explain(rows, targets=best.tolist())
    np.testing.assert_array_equal(result.attribution, named.attribution)


@pytest.mark.parametrize("wrong", [0, 5, True, 1.5])
def test_a_wrong_top_is_refused(explainer, rows, wrong):
    with pytest.raises(ParameterError, match="top="):
        explainer.explain(rows, top=wrong)


def test_top_and_targets_exclude_each_other(explainer, rows):
    with pytest.raises(ParameterError, match="give one of them"):
        explainer.explain(rows, targets=1, top=2)
