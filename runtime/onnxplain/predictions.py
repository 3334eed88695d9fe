"""The classes that a network gives an image, best first."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
