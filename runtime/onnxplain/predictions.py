"""The classes that a network gives an image, best first."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.bundle import Output
from onnxplain.cotangents import win_counts
from onnxplain.targets import name_of


@dataclass(frozen=True, slots=True)
class Prediction:
    """One class of one image."""

    target: int
    label: str
    score: float
    probability: float


def top_classes(
    scores: NDArray[np.floating[Any]],
    probabilities: NDArray[np.floating[Any]],
    labels: Sequence[str] | None,
    count: int,
) -> list[Prediction]:
    """The `count` classes with the highest scores [classes], ties in the classes' order."""
    best = np.argsort(-scores, kind="stable")[:count]
    return [Prediction(int(i), name_of(int(i), labels), float(scores[i]), float(probabilities[i])) for i in best]


def predictions(
    scores: NDArray[np.float32], probabilities: NDArray[np.float32], output: Output, count: int
) -> list[Prediction]:
    """The best classes of one image's scores [classes], or [classes, H, W] by the share of places that a class wins.

    None where the output holds no classes.
    """
    if scores.ndim == 1 and output.class_axis == 1:
        return top_classes(scores, probabilities, output.labels, count)
    if output.class_axis is None:
        return []
    axis = output.class_axis
    (places,) = win_counts(scores[None].argmax(axis=axis), scores.shape[axis - 1])
    shares = places / places.sum()
    return [each for each in top_classes(shares, shares, output.labels, count) if each.probability > 0]
