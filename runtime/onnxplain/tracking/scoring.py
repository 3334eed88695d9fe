"""Metrics of single samples: how hard each image is for a network, from its scores and its true class."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.bundle import ACTIVATIONS
from onnxplain.errors import ParameterError, unknown

Values = NDArray[np.float64]
Measure = Callable[[Values, NDArray[np.int64], str], Values]
HARDER = ("high", "low")
ROUNDING = 1e-4
"""How far a float16 network's own probabilities may lie outside of 0..1."""


@dataclass(frozen=True, slots=True)
class SampleMetric:
    """A metric of single samples, and which of its values are those of hard samples: the "high" or the "low" ones."""

    name: str
    measure: Measure
    harder: str

    @property
    def words(self) -> str:
        """Its name as a person writes it."""
        return self.name.replace("_", " ")

    @property
    def summary(self) -> str:
        """The first sentence of its documentation."""
        return inspect.getdoc(self.measure).split("\n")[0]  # type: ignore[union-attr]  # every metric has one

    def hardest(self, values: NDArray[Any], count: int, probability: NDArray[Any] | None = None) -> NDArray[np.int64]:
        """The places in `values` [N] of the `count` hardest samples, hardest first; NaN is harder than any number.

        Of equal values that with the lower `probability` [N] of its true class comes first, then the first.
        """
        ties = np.zeros(len(values)) if probability is None else probability
        order = np.lexsort((ties, values if self.harder == "low" else -values, ~np.isnan(values)))
        return order[:count].astype(np.int64)


SAMPLE_METRICS: dict[str, SampleMetric] = {}


def sample_metric(name: str, *, harder: str) -> Callable[[Measure], Measure]:
    """Registers a function of scores float64 [N, C], labels int64 [N] and the activation, which returns [N]."""

    def register(measure: Measure) -> Measure:
        if name in SAMPLE_METRICS:
            raise ValueError(f"metric {name!r} is registered twice")
        if harder not in HARDER or not inspect.getdoc(measure):
            raise ValueError(f"metric {name!r} needs a docstring, and 'high' or 'low' as what is harder")
        SAMPLE_METRICS[name] = SampleMetric(name, measure, harder)
        return measure

    return register


def find_sample_metric(name: str) -> SampleMetric:
    """The metric of this name; ParameterError for an unknown one."""
    if name not in SAMPLE_METRICS:
        raise ParameterError(unknown("metric", str(name), SAMPLE_METRICS))
    return SAMPLE_METRICS[name]


def score_samples(metric: str, scores: Any, labels: Any, activation: str = "softmax") -> Values:
    """The metric of each sample, float64 [N], from scores [N, C] (logits, where there are) and true classes [N].

    `activation` ("softmax", "sigmoid", "none") makes probabilities of the scores; with "none" they are taken as such.
    NaN where a sample's scores hold NaN. Raises ParameterError for an unknown metric, labels that don't fit the
    scores, and for metrics of probabilities where the scores are none.
    """
    entry = find_sample_metric(metric)
    if activation not in ACTIVATIONS:
        raise ParameterError(unknown("activation", str(activation), ACTIVATIONS))
    values, classes = np.asarray(scores, np.float64), np.asarray(labels)
    _check(values, classes)
    known = ~np.isnan(values).any(axis=1)
    found = np.full(len(values), np.nan)
    # A score may be infinite where a network overflows; what follows from it is the metric's value, not a warning.
    with np.errstate(all="ignore"):
        found[known] = entry.measure(values[known], classes[known].astype(np.int64), activation)
    return found


def _check(scores: Values, labels: NDArray[Any]) -> None:
    if scores.ndim != 2 or not scores.shape[1]:
        raise ParameterError(f"metrics of single samples need scores of classes [N, C], not {list(scores.shape)}")
    if labels.shape != scores.shape[:1] or (len(labels) and labels.dtype.kind not in "iu"):
        raise ParameterError(
            f"labels are class numbers [{len(scores)}], one for each sample, not {labels.dtype} {list(labels.shape)}"
        )
    if len(labels) and not (labels.min() >= 0 and labels.max() < scores.shape[1]):
        wrong = labels[(labels < 0) | (labels >= scores.shape[1])][0]
        raise ParameterError(f"label {wrong} is out of range: the network has classes 0 to {scores.shape[1] - 1}")


@sample_metric("cross_entropy", harder="high")
def cross_entropy(scores: Values, labels: NDArray[np.int64], activation: str) -> Values:
    """The negative logarithm of the true class's probability; of a sigmoid, the mean of the classes' binary ones.

    Equal to torch's cross_entropy and binary_cross_entropy_with_logits (a mean over the classes) of each sample.
    """
    if activation == "sigmoid":
        binary = np.maximum(scores, 0) - scores * _one_hot(labels, scores) + np.log1p(np.exp(-np.abs(scores)))
        return binary.mean(axis=1)
    if activation == "none":
        return -np.log(_of_label(_probabilities(scores, activation), labels)) + 0.0  # no -0 where one is sure
    return -_of_label(_log_softmax(scores), labels) + 0.0


@sample_metric("error", harder="high")
def error(scores: Values, labels: NDArray[np.int64], activation: str) -> Values:  # noqa: ARG001 (as every metric)
    """1 where another class than the true one has the highest score (of equal ones the first counts), else 0."""
    return (scores.argmax(axis=1) != labels).astype(np.float64)


@sample_metric("probability", harder="low")
def probability(scores: Values, labels: NDArray[np.int64], activation: str) -> Values:
    """The probability that the network gives the true class."""
    return _of_label(_probabilities(scores, activation), labels)


@sample_metric("confidence", harder="low")
def confidence(scores: Values, labels: NDArray[np.int64], activation: str) -> Values:  # noqa: ARG001 (as every metric)
    """The probability of the class that the network predicts, be it right or wrong."""
    return _probabilities(scores, activation).max(axis=1)


@sample_metric("margin", harder="low")
def margin(scores: Values, labels: NDArray[np.int64], activation: str) -> Values:  # noqa: ARG001 (as every metric)
    """The true class's score less the best of the others; negative where the network is wrong."""
    if scores.shape[1] < 2:
        raise ParameterError("a margin needs two classes, and the network has one")
    others = np.where(_one_hot(labels, scores) == 1, -np.inf, scores)
    return _of_label(scores, labels) - others.max(axis=1)


@sample_metric("brier", harder="high")
def brier(scores: Values, labels: NDArray[np.int64], activation: str) -> Values:
    """The squared distance of the probabilities from the truth, summed over all classes: 0 to 2 with a softmax.

    Brier: Verification of forecasts expressed in terms of probability (1950).
    """
    return ((_probabilities(scores, activation) - _one_hot(labels, scores)) ** 2).sum(axis=1)


def _probabilities(scores: Values, activation: str) -> Values:
    """Probabilities [N, C] in float64: in float32, a sure network's 1 − 1e-9 would be 1."""
    if activation == "softmax":
        return np.exp(_log_softmax(scores))
    if activation == "sigmoid":
        return (1 + np.tanh(scores / 2)) / 2
    if scores.size and not (scores.min() >= -ROUNDING and scores.max() <= 1 + ROUNDING):
        raise ParameterError(
            "this metric is of probabilities, and the network's scores are none (they lie outside of 0..1); take "
            "margin or error, or export the network with an activation"
        )
    return np.clip(scores, 0.0, 1.0)


def _log_softmax(scores: Values) -> Values:
    shifted = scores - scores.max(axis=1, keepdims=True)
    powers = np.exp(shifted)
    # The largest power is 1. Left to log1p, it doesn't swallow the others where the network is very sure.
    np.put_along_axis(powers, scores.argmax(axis=1)[:, None], 0.0, axis=1)
    return shifted - np.log1p(powers.sum(axis=1, keepdims=True))


def _of_label(values: Values, labels: NDArray[np.int64]) -> Values:
    return np.take_along_axis(values, labels[:, None], axis=1)[:, 0]


def _one_hot(labels: NDArray[np.int64], scores: Values) -> Values:
    return (np.arange(scores.shape[1]) == labels[:, None]).astype(np.float64)
