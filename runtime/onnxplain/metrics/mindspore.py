"""The metrics of MindSpore XAI 2.0 to the letter, errors included, for `preset="mindspore"`.

Each says where it departs from the definition that the plain metric follows. Theirs take one image at a time; here
they give one value for each of N.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from onnxplain.activations import activate
from onnxplain.errors import ParameterError
from onnxplain.metrics.places import ranking, to_places
from onnxplain.metrics.registry import Measurement, metric
from onnxplain.metrics.robustness import moved
from onnxplain.metrics.specificity import extreme_maps
from onnxplain.metrics.subject import Subject

Array = NDArray[np.float64]
Numbers = NDArray[np.int64]
PRESET = "mindspore"
LOCALIZING = ("places", "picture", "masks")


@metric("faithfulness", preset=PRESET, better="higher", needs=("places",))
def naive_faithfulness(subject: Subject) -> Measurement:
    """(1 − ρ) / 2 of the mean saliency of ⌊√P⌋ chunks of half the pixels and the probability without each, 0..1."""
    ranks, count, size = _chunks(subject)
    scores = _scores(
        subject, lambda i, n: (ranks[i] >= n[:, None] * size) & (ranks[i] < (n[:, None] + 1) * size), count
    )
    ordered = -np.sort(-_saliency(subject), axis=1)[:, : count * size]
    means = ordered.reshape(len(subject), count, size).mean(axis=2)
    return Measurement((1 - _rho(means, scores)) / 2)


@metric("deletion", preset=PRESET, better="higher", needs=("places",))
def inverted_deletion(subject: Subject) -> Measurement:
    """1 − A / 2 for the area A above the deletion curve, without its end values.

    Said to be better when higher, but a larger drop gives a lower value; the area leaves out both ends, where a
    trapezoid halves them.
    """
    ranks, count, size = _chunks(subject)
    scores = _scores(subject, lambda i, n: ranks[i] < (n[:, None] + 1) * size, count)
    return Measurement(1 - _area(subject.own_scores()[:, None] - scores) / 2)


@metric("insertion", preset=PRESET, better="higher", needs=("places",))
def endless_insertion(subject: Subject) -> Measurement:
    """(1 + A) / 2 for the area A under the insertion curve over an image of zeros, without its end values."""
    ranks, count, size = _chunks(subject)
    scores = _scores(subject, lambda i, n: ranks[i] >= (n[:, None] + 1) * size, count)
    empty = subject.scores(np.zeros_like(subject.rows), np.arange(len(subject)))
    return Measurement((1 + _area(scores - empty[:, None])) / 2)


@metric("pointing_game", preset=PRESET, better="higher", needs=LOCALIZING)
def transposed_pointing_game(subject: Subject) -> Measurement:
    """1 if the mask lies less than 15 pixels from the maximum with row and column exchanged, else 0.

    MindSpore fails on pictures that aren't square; here the exchanged point may lie outside them.
    """
    masks = np.zeros(0, bool) if subject.masks is None else subject.masks
    saliency = _saliency(subject)
    found = np.zeros(len(subject))
    for at, mask in enumerate(masks):
        row, column = np.unravel_index(saliency[at].argmax(), mask.shape)
        rows, columns = np.nonzero(mask)
        found[at] = ((rows - column) ** 2 + (columns - row) ** 2 < 15**2).any()
    return Measurement(found)


@metric("iosr", preset=PRESET, better="higher", needs=LOCALIZING)
def iosr(subject: Subject) -> Measurement:
    """The share of the region above half the maximum that lies in the mask, |R ∩ mask| / max(|R|, 1e-10)."""
    masks = np.zeros((len(subject), 0), bool) if subject.masks is None else subject.masks.reshape(len(subject), -1)
    saliency = _saliency(subject)
    region = saliency > 0.5 * saliency.max(axis=1, keepdims=True)
    return Measurement((region & masks).sum(axis=1) / np.maximum(region.sum(axis=1), 1e-10))


@metric("robustness", preset=PRESET, better="higher", needs=("again",), limits={"seed": (0, 2**31 - 1)})
def unchecked_robustness(subject: Subject, *, seed: int = 0) -> Measurement:
    """exp(−the largest relative change of the map) over 10 images x + U(−0.2, 0.2); NaN for a map of zeros.

    The check that should redraw up to 3 times activates the scores of x twice instead of looking at the draw: an image
    takes always its first draw or always its third.
    """
    everyone = np.arange(len(subject))
    once = subject.all_scores(subject.rows, everyone)
    twice = activate(once.astype(np.float32), subject.activation)
    taken = np.where(np.linalg.norm(once - twice, axis=1) <= 0.1, 0, 2)
    before = subject.maps.reshape(len(subject), -1).astype(np.float64)
    largest = np.zeros(len(subject))
    for sample in range(10):
        rows = moved(subject, np.full(len(subject), 0.2), sample * 3 + taken, seed)
        change = subject.maps_of(rows).reshape(before.shape) - before
        with np.errstate(divide="ignore", invalid="ignore"):  # theirs divides by zero too
            largest = np.maximum(largest, np.linalg.norm(change, axis=1) / np.linalg.norm(before, axis=1))
    return Measurement(np.exp(-largest))


@metric("class_sensitivity", preset=PRESET, better="higher", needs=("again",))
def class_sensitivity(subject: Subject) -> Measurement:
    """(1 − ρ) / 2 of the maps for the best and the worst class; ρ is 0 for a map of zeros, NaN for a constant one."""
    best, worst = extreme_maps(subject)
    values = np.array([_correlated(first, second) for first, second in zip(best, worst, strict=True)])
    return Measurement((1 - values) / 2)


def _saliency(subject: Subject) -> Array:
    """The map averaged over its channels, [N, P]."""
    return to_places(subject.maps, subject.map_layout, "mean").reshape(len(subject), -1)


def _chunks(subject: Subject) -> tuple[Numbers, int, int]:
    """The pixels' ranks [N, P], the number of steps n = ⌊√P⌋, and the pixels of a step, ⌊P / 2n⌋."""
    ranks = ranking(_saliency(subject))
    count = int(np.sqrt(ranks.shape[1]))
    if ranks.shape[1] < 2:
        raise ParameterError("MindSpore's faithfulness changes half the pixels, and this network's input has one")
    return ranks, count, int(0.5 * ranks.shape[1] / count)


def _scores(subject: Subject, inside: Callable[[Numbers, Numbers], NDArray[np.bool_]], count: int) -> Array:
    """The probabilities [N, count] of images with the places `inside` set to 0."""
    return subject.scores_without(inside, count, fill=subject.fill(0.0), score="probabilities")


def _area(drops: Array) -> Array:
    return (drops.sum(axis=1) - drops[:, 0] - drops[:, -1]) / drops.shape[1]


def _rho(means: Array, scores: Array) -> Array:
    """Pearson's correlation of each row, 0 where one of them is constant."""
    flat = (np.ptp(means, axis=1) == 0) | (np.ptp(scores, axis=1) == 0)
    pairs = zip(means, scores, flat, strict=True)
    return np.array([0.0 if constant else np.corrcoef(a, b)[0, 1] for a, b, constant in pairs])


def _correlated(first: Array, second: Array) -> float:
    if not first.any() or not second.any():
        return 0.0
    with np.errstate(divide="ignore", invalid="ignore"):  # NaN for a constant map, as theirs
        return float(np.corrcoef(first, second)[0, 1])
