"""Robustness: does the map stay the same where the network's answer does?"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.metrics.registry import Measurement, metric
from onnxplain.metrics.subject import Subject

Array = NDArray[np.float64]
UNITS = ("range", "input")
LIMITS = {
    "samples": (1, 100_000),
    "radius": (0, None),
    "seed": (0, 2**31 - 1),
    "bound": (0, None),
    "tries": (1, 10_000),
}


@metric("max_sensitivity", better="lower", needs=("again",), limits=LIMITS, choices={"unit": UNITS})
def max_sensitivity(
    subject: Subject,
    *,
    radius: float = 0.02,
    unit: str = "range",
    samples: int = 10,
    relative: bool = True,
    seed: int = 0,
) -> Measurement:
    """The largest change of the map, |E(y) − E(x)| / |E(x)|, over `samples` images y with |y − x| ≤ `radius` anywhere.

    The radius is a share of each image's own range, or in the input's own `unit`. Not divided by |E(x)| without
    `relative`. 0 for a map that is zero and stays zero, infinite for one that does not stay. Yeh et al.: On the
    (in)fidelity and sensitivity of explanations, 2019, arXiv:1901.09392.
    """
    widths = _widths(subject, radius, unit)
    largest = np.zeros(len(subject))
    for sample in range(samples):
        rows = moved(subject, widths, np.full(len(subject), sample), seed)
        largest = np.maximum(largest, changes(subject.maps, subject.maps_of(rows), relative))
    return Measurement(largest)


@metric("robustness", better="higher", needs=("again",), limits=LIMITS, choices={"unit": UNITS})
def robustness(
    subject: Subject,
    *,
    radius: float = 0.05,
    unit: str = "range",
    samples: int = 10,
    bound: float = 0.1,
    tries: int = 10,
    seed: int = 0,
) -> Measurement:
    """exp(−the largest relative change of the map) over images that look the same to the network, 0..1.

    Each of `samples` images is x + U(−radius, radius), drawn again, up to `tries` times, until its probabilities lie
    within `bound` (Euclidean) of those of x; one that never does is left out. NaN where none is left. As MindSpore XAI
    documents its robustness, for the radius in each image's own range instead of the input's `unit`.
    """
    widths = _widths(subject, radius, unit)
    everyone = np.arange(len(subject))
    own = subject.all_scores(subject.rows, everyone)
    largest = np.full(len(subject), np.nan)
    for sample in range(samples):
        rows, accepted = subject.rows.copy(), np.zeros(len(subject), bool)
        for attempt in range(tries):
            left = everyone[~accepted]
            if not len(left):
                break
            drawn = moved(subject, widths, np.full(len(subject), sample * tries + attempt), seed)
            scores = subject.all_scores(drawn[left], left)
            close = left[np.linalg.norm(scores - own[left], axis=1) <= bound]
            rows[close], accepted[close] = drawn[close], True
        if accepted.any():
            used = everyone[accepted]
            found = changes(subject.maps[used], subject.maps_of(rows[used], used), relative=True)
            largest[used] = np.fmax(largest[used], found)
    return Measurement(np.exp(-largest))


def changes(before: NDArray[Any], after: NDArray[Any], relative: bool) -> Array:
    """The length of the maps' change [N], over that of the map before; 0 where nothing changed, whatever that is."""
    first = np.asarray(before, np.float64).reshape(len(before), -1)
    change = np.linalg.norm(np.asarray(after, np.float64).reshape(first.shape) - first, axis=1)
    if not relative:
        return change
    length = np.linalg.norm(first, axis=1)
    divided = change / np.where(length > 0, length, 1.0)
    return np.where(length > 0, divided, np.where(change > 0, np.inf, 0.0))


def moved(subject: Subject, widths: Array, draws: NDArray[np.int64], seed: int) -> NDArray[Any]:
    """The rows [N, …] plus U(−width, width); a draw's noise is the same for all images, so none depends on another."""
    shape = subject.rows.shape[1:]
    noise = {int(draw): np.random.default_rng([seed, int(draw)]).uniform(-1, 1, shape) for draw in set(draws.tolist())}
    step = np.stack([noise[int(draw)] for draw in draws]) if len(draws) else np.zeros(subject.rows.shape)
    return (subject.rows + step * widths.reshape(-1, *[1] * len(shape))).astype(subject.rows.dtype)


def _widths(subject: Subject, radius: float, unit: str) -> Array:
    """The radius in the input's own unit, for each image [N]."""
    if unit == "input":
        return np.full(len(subject), radius)
    flat = subject.rows.reshape(len(subject), -1).astype(np.float64)
    return radius * np.ptp(flat, axis=1)
