"""Metrics of single samples against torch in float64, against closed forms, and at the edges."""

import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from onnxplain.errors import ParameterError
from onnxplain.tracking import scoring
from onnxplain.tracking.scoring import SAMPLE_METRICS, find_sample_metric, sample_metric, score_samples

COUNT, CLASSES = 40, 7
_random = np.random.default_rng(5)
SCORES = _random.normal(scale=4, size=(COUNT, CLASSES))
LABELS = _random.integers(0, CLASSES, COUNT)
PROBABILITIES = torch.softmax(torch.from_numpy(SCORES), 1).numpy()
ONE_HOT = np.eye(CLASSES)[LABELS]


def _by_torch(metric, activation):
    """What torch says of the same scores, each sample for itself."""
    functional, scores, labels = torch.nn.functional, torch.from_numpy(SCORES), torch.from_numpy(LABELS)
    given = {"softmax": scores, "sigmoid": scores, "none": torch.from_numpy(PROBABILITIES)}[activation]
    makes = {"softmax": lambda x: functional.softmax(x, 1), "sigmoid": torch.sigmoid, "none": lambda x: x}
    probabilities = makes[activation](given)
    if metric == "cross_entropy":
        if activation == "sigmoid":
            truth = functional.one_hot(labels, CLASSES).double()
            return functional.binary_cross_entropy_with_logits(given, truth, reduction="none").mean(1)
        if activation == "softmax":
            return functional.cross_entropy(given, labels, reduction="none")
        return functional.nll_loss(given.log(), labels, reduction="none")
    if metric == "brier":
        truth = functional.one_hot(labels, CLASSES).double()
        return functional.mse_loss(probabilities, truth, reduction="none").sum(1)
    if metric == "margin":
        others = given.masked_fill(functional.one_hot(labels, CLASSES).bool(), -math.inf)
        return given.gather(1, labels[:, None])[:, 0] - others.max(1).values
    return {
        "error": (given.argmax(1) != labels).double(),
        "probability": probabilities.gather(1, labels[:, None])[:, 0],
        "confidence": probabilities.max(1).values,
    }[metric]


@pytest.mark.parametrize("activation", ["softmax", "sigmoid", "none"])
@pytest.mark.parametrize("metric", SAMPLE_METRICS)
def test_every_metric_is_torchs_in_float64(metric, activation):
    given = PROBABILITIES if activation == "none" else SCORES
    found = score_samples(metric, given, LABELS, activation)
    assert found.dtype == np.float64
    assert_allclose(found, _by_torch(metric, activation).numpy(), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("metric", "scores", "label", "activation", "expected"),
    [
        ("cross_entropy", [0.0, 0.0, 0.0, 0.0], 2, "softmax", math.log(4)),
        # Where exp overflows, and where the sum rounds to the largest term.
        ("cross_entropy", [1e4, 0.0], 1, "softmax", 1e4),
        ("cross_entropy", [1e4, 0.0], 0, "softmax", 0.0),
        ("cross_entropy", [0.0, -50.0], 0, "softmax", math.log1p(math.exp(-50))),
        ("cross_entropy", [-800.0, 800.0], 0, "sigmoid", 800.0),
        # The two classes of one logit z are −z and z: the mean is the logit's own binary cross-entropy.
        ("cross_entropy", [-0.3, 0.3], 1, "sigmoid", math.log1p(math.exp(-0.3))),
        ("cross_entropy", [0.0, 1.0], 0, "none", math.inf),
        ("error", [2.0, 2.0], 0, "softmax", 0.0),
        ("error", [2.0, 2.0], 1, "softmax", 1.0),
        ("probability", [0.0, math.log(3)], 1, "softmax", 0.75),
        ("probability", [-800.0, 800.0], 0, "sigmoid", 0.0),
        ("confidence", [0.0, math.log(3)], 0, "softmax", 0.75),
        ("margin", [1.5, -2.0, 4.0], 0, "softmax", -2.5),
        ("margin", [1.5, -2.0, 4.0], 2, "none", 2.5),
        ("brier", [0.0, 0.0], 1, "softmax", 0.5),
        ("brier", [1.0, 0.0], 1, "none", 2.0),
    ],
)
def test_closed_forms(metric, scores, label, activation, expected):
    (found,) = score_samples(metric, [scores], [label], activation)
    assert found == pytest.approx(expected, rel=1e-7, abs=1e-30)
    assert not math.copysign(1, found) < 0 or found != 0  # no -0 to be shown


@pytest.mark.parametrize("metric", SAMPLE_METRICS)
def test_a_sample_with_nan_is_nan_and_the_others_are_what_they_are(metric):
    scores = SCORES.copy()
    scores[3, 1] = np.nan
    found, expected = (score_samples(metric, given, LABELS) for given in (scores, SCORES))
    assert_array_equal(np.isnan(found), np.arange(COUNT) == 3)
    assert_array_equal(np.delete(found, 3), np.delete(expected, 3))


@pytest.mark.parametrize("metric", SAMPLE_METRICS)
def test_no_samples_give_no_values(metric):
    assert score_samples(metric, np.zeros((0, 3)), np.zeros(0, np.int64)).shape == (0,)


@pytest.mark.parametrize("metric", SAMPLE_METRICS)
def test_which_side_is_harder_is_true(metric):
    """A sample whose true class wins more clearly is the easier one."""
    values = score_samples(metric, [[0.0, 0.1], [0.2, 0.0], [6.0, 0.0]], [0, 0, 0])
    hardest = find_sample_metric(metric).hardest(values, 3)
    assert hardest[-1] == 2 or metric == "error"
    assert values[hardest[0]] in (values.max(), values.min())
    assert find_sample_metric(metric).harder == ("high" if metric in ("cross_entropy", "error", "brier") else "low")


def test_the_hardest_are_nan_first_then_by_value_then_in_their_order():
    values = np.array([0.2, np.nan, 0.9, 0.2, 0.9])
    assert find_sample_metric("cross_entropy").hardest(values, 4).tolist() == [1, 2, 4, 0]
    assert find_sample_metric("margin").hardest(values, 4).tolist() == [1, 0, 3, 2]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("cross-entropy", SCORES, LABELS), "unknown metric 'cross-entropy'; did you mean 'cross_entropy'?"),
        (("error", SCORES, LABELS, "softmx"), "unknown activation 'softmx'; did you mean 'softmax'?"),
        (("error", SCORES, LABELS[:-1]), "labels are class numbers [40], one for each sample, not int64 [39]"),
        (("error", SCORES, LABELS[:, None]), "not int64 [40, 1]"),
        (("error", SCORES, LABELS.astype(float)), "not float64 [40]"),
        (("error", SCORES, LABELS + 1), "label 7 is out of range: the network has classes 0 to 6"),
        (("error", SCORES, LABELS - 1), "label -1 is out of range"),
        (("error", SCORES[0], LABELS), "need scores of classes [N, C], not [7]"),
        (("error", SCORES.reshape(10, 4, 7), LABELS[:10]), "not [10, 4, 7]"),
        (("margin", SCORES[:, :1], LABELS * 0), "a margin needs two classes"),
        (("brier", SCORES, LABELS, "none"), "the network's scores are none (they lie outside of 0..1); take margin"),
    ],
)
def test_wrong_input_is_named_in_one_line(arguments, told):
    with pytest.raises(ParameterError) as error:
        score_samples(*arguments)
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_a_metric_is_registered_once_with_a_direction_and_a_docstring():
    def documented(scores, labels, activation):
        """A metric."""

    for name, harder, function in (
        ("error", "high", documented),
        ("new", "sideways", documented),
        ("new", "high", lambda scores, labels, activation: None),
    ):
        with pytest.raises(ValueError, match="metric"):
            sample_metric(name, harder=harder)(function)
    assert "new" not in SAMPLE_METRICS
    assert all(entry.summary for entry in scoring.SAMPLE_METRICS.values())
