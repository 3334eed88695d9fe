"""Faithfulness: does the score fall where the map says that it should?"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.metrics.correlation import pearson
from onnxplain.metrics.places import ranking
from onnxplain.metrics.registry import Measurement, metric
from onnxplain.metrics.subject import SCORES, Subject

LIMITS = {"steps": (1, 100_000), "share": (1e-6, 1)}
STEPS = 50


@metric("faithfulness", better="higher", needs=("places",), limits=LIMITS, choices={"score": SCORES})
def faithfulness(
    subject: Subject, *, steps: int = STEPS, share: float = 1.0, fill: Any = 0.0, score: str = "probabilities"
) -> Measurement:
    """Correlation of a group of pixels' attribution with the drop of the score when the fill replaces them, -1..1.

    The pixels, ranked by the map, are dealt into `steps` groups of equal size, of which each alone is replaced (the
    best `share` of the pixels is used). 0 where the map is constant or the score never changes. Alvarez-Melis and
    Jaakkola: Towards robust interpretability with self-explaining neural networks, 2018, arXiv:1806.07538.
    """
    pixels = subject.pixels().reshape(len(subject), -1)
    ranks, ends = ranking(pixels), _ends(pixels.shape[1], steps, share)
    scores = subject.scores_without(
        lambda images, numbers: _between(ranks[images], ends[numbers], ends[numbers + 1]),
        len(ends) - 1,
        fill=subject.fill(fill),
        score=score,
    )
    totals = np.cumsum(-np.sort(-pixels, axis=1), axis=1)
    groups = np.diff(totals[:, ends[1:] - 1], axis=1, prepend=0.0)
    drops = subject.own_scores(score)[:, None] - scores
    constant = np.ptp(pixels, axis=1) == 0  # groups of unequal size would still differ
    return Measurement(np.where(constant | (np.ptp(scores, axis=1) == 0), 0.0, pearson(groups, drops)))


@metric("deletion", better="lower", needs=("places",), limits=LIMITS, choices={"score": SCORES})
def deletion(
    subject: Subject, *, steps: int = STEPS, share: float = 1.0, fill: Any = 0.0, score: str = "probabilities"
) -> Measurement:
    """Area under the score while the fill replaces the pixels, the map's highest first; 0..1 for a probability.

    Lower is better: the score should fall at once. Trapezoids over the share of replaced pixels, from the untouched
    image to `share` of them, in `steps` equal steps; the area is divided by `share`. Petsiuk, Das and Saenko: RISE,
    2018, arXiv:1806.07421.
    """
    return _area(subject, steps, share, subject.fill(fill), score, inserted=False)


@metric("insertion", better="higher", needs=("places",), limits=LIMITS, choices={"score": SCORES})
def insertion(
    subject: Subject, *, steps: int = STEPS, share: float = 1.0, fill: Any = "blur", score: str = "probabilities"
) -> Measurement:
    """Area under the score while the image's pixels replace the fill, the map's highest first; 0..1 for a probability.

    Higher is better: the score should rise at once. From nothing but the fill (a blurred image, as in the paper) to
    `share` of the pixels; otherwise as `deletion`. Petsiuk, Das and Saenko: RISE, 2018, arXiv:1806.07421.
    """
    return _area(subject, steps, share, subject.fill(fill), score, inserted=True)


def _area(subject: Subject, steps: int, share: float, fill: NDArray[Any], score: str, inserted: bool) -> Measurement:
    pixels = subject.pixels().reshape(len(subject), -1)
    ranks, ends = ranking(pixels), _ends(pixels.shape[1], steps, share)

    def inside(images: NDArray[np.int64], numbers: NDArray[np.int64]) -> NDArray[np.bool_]:
        first = ranks[images] < ends[numbers][:, None]
        return ~first if inserted else first

    curves = subject.scores_without(inside, len(ends), fill=fill, score=score)
    at = ends / pixels.shape[1]
    areas = ((curves[:, 1:] + curves[:, :-1]) / 2 * np.diff(at)).sum(axis=1) / at[-1]
    return Measurement(areas, at, curves)


def _ends(places: int, steps: int, share: float) -> NDArray[np.int64]:
    """How many pixels are done after each step, from 0: int64 [K + 1]; never more steps than pixels."""
    most = max(1, round(share * places))
    return np.rint(np.linspace(0, most, min(steps, most) + 1)).astype(np.int64)


def _between(ranks: NDArray[np.int64], start: NDArray[np.int64], end: NDArray[np.int64]) -> NDArray[np.bool_]:
    return (ranks >= start[:, None]) & (ranks < end[:, None])
