"""Agreement with the score itself: do the map's numbers add up to what the network does?"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.errors import ParameterError
from onnxplain.fills import NAMES, baselines
from onnxplain.metrics.places import replaced, to_places
from onnxplain.metrics.registry import Measurement, metric
from onnxplain.metrics.subject import SCORES, Subject

Array = NDArray[np.float64]
CHANGES = ("squares", "noise")
ALL_SCORES = ("", *SCORES)
LIMITS = {"samples": (1, 1_000_000), "radius": (0, None), "seed": (0, 2**31 - 1)}


@metric(
    "infidelity",
    better="lower",
    needs=("places", "channels"),
    limits=LIMITS,
    choices={"change": CHANGES, "score": ALL_SCORES},
)
def infidelity(
    subject: Subject,
    *,
    change: str = "squares",
    samples: int = 50,
    radius: float = 0.2,
    fill: Any = None,
    scaled: bool = False,
    score: str = "",
    seed: int = 0,
) -> Measurement:
    """Mean squared difference between what the map says a change does to the score and what it does; 0 is best.

    A change I takes x to x − I: "squares" puts the fill into a square of random place and size, "noise" is normal of
    deviation `radius` times the image's range. The map says I·E where it measures sensitivity, and for contributions
    the sum of those in the square. The fill is the map's own baseline (the first of several) unless given. `scaled`
    multiplies the map by the number that fits best. The score is the one that the map explains. Yeh et al.: On the
    (in)fidelity and sensitivity of explanations, 2019, arXiv:1901.09392, sections 3 and 4.
    """
    score = score or subject.explains
    contributes = subject.measures != "sensitivity"
    if contributes and change == "noise":
        raise ParameterError("infidelity: contributions say nothing of noise; use change='squares'")
    maps = subject.maps.astype(np.float64)
    totals = to_places(maps, subject.map_layout, "sum")
    filled, own = next(_baselines(subject, fill, "fill")), subject.own_scores(score)
    said, done = np.zeros((len(subject), samples)), np.zeros((len(subject), samples))
    for block in subject.blocks(len(subject) * samples):
        images, numbers = np.divmod(np.arange(block.start, block.stop), samples)
        if change == "noise":
            rows, inside = _noisy(subject, images, numbers, radius, seed), None
        else:
            inside = _squares(subject.places, samples, seed)[numbers]
            given = filled[images] if len(filled) > 1 else filled
            rows = replaced(subject.rows[images], given, inside, subject.layout)
        done[images, numbers] = own[images] - subject.scores(rows, images, score)
        if contributes and inside is not None:
            said[images, numbers] = (totals[images] * inside).reshape(len(images), -1).sum(axis=1)
        else:
            moved = subject.rows[images].astype(np.float64) - rows
            said[images, numbers] = (moved * maps[images]).reshape(len(images), -1).sum(axis=1)
    return Measurement(_mean_square(said, done, scaled))


@metric("completeness", better="lower", needs=("contribution", "input"), choices={"score": ALL_SCORES})
def completeness(subject: Subject, *, baseline: Any = None, relative: bool = False, score: str = "") -> Measurement:
    """|sum of the map − (score of the image − score of the baseline)|; 0 is best, as the axiom of completeness demands.

    The baseline is the map's own unless given, 0 where it has none; the score of several is their mean. The score is
    the one that the map explains.
    `relative` divides by the difference of the scores (0 where both are 0, infinite where only that is). Sundararajan,
    Taly and Yan: Axiomatic attribution for deep networks, 2017, arXiv:1703.01365, section 3.
    """
    score = score or subject.explains
    changed = [
        subject.own_scores(score, np.broadcast_to(filled, subject.rows.shape).astype(subject.rows.dtype))
        for filled in _baselines(subject, baseline, "baseline")
    ]
    difference = subject.own_scores(score) - np.mean(changed, axis=0)
    gap = np.abs(subject.maps.astype(np.float64).reshape(len(subject), -1).sum(axis=1) - difference)
    if not relative:
        return Measurement(gap)
    size = np.abs(difference)
    divided = gap / np.where(size > 0, size, 1.0)
    return Measurement(np.where(size > 0, divided, np.where(gap > 0, np.inf, 0.0)))


def _baselines(subject: Subject, given: Any, name: str) -> Iterator[NDArray[Any]]:
    """What stands for nothing: what is given, else what did when the map was made (one or more), else 0."""
    own = [subject.parameters[each] for each in ("baseline", "fill") if each in subject.parameters]
    value = next((value for value in (given, *own) if value is not None), 0.0)
    if isinstance(value, str) and value not in NAMES:
        value = 0.0  # xrai's pairs of baselines: no picture is what both stand for
    if given is None and own and subject.bundle is not None:
        draws = subject.parameters.get("baselines", subject.parameters.get("samples", 1))
        return baselines(value, subject.rows, subject.bundle, draws, subject.parameters.get("seed", 0))
    return iter([subject.fill(value, name)])


def _squares(places: tuple[int, ...], samples: int, seed: int) -> NDArray[np.bool_]:
    """Boxes of random place and size [samples, *places]; squares where there are two axes of room for them."""
    random = np.random.default_rng(seed)
    inside = np.zeros((samples, *places), bool)
    for box in inside:
        side = int(random.integers(1, min(places, default=1) + 1))
        starts = [random.integers(0, max(size - side, 0) + 1) for size in places]
        box[tuple(slice(start, start + side) for start in starts)] = True
    return inside


def _noisy(
    subject: Subject, images: NDArray[np.int64], numbers: NDArray[np.int64], radius: float, seed: int
) -> NDArray[Any]:
    rows = subject.rows[images]
    shape, flat = rows.shape[1:], rows.reshape(len(rows), -1).astype(np.float64)
    noise = np.stack([np.random.default_rng([seed, int(number)]).normal(size=shape) for number in numbers])
    widths = radius * np.ptp(flat, axis=1)
    return (rows - noise * widths.reshape(-1, *[1] * len(shape))).astype(rows.dtype)


def _mean_square(said: Array, done: Array, scaled: bool) -> Array:
    """The mean of (b·said − done)² for each row, b the number that makes it least where `scaled`, else 1."""
    if scaled:
        power = (said * said).mean(axis=1)
        factor = np.where(power > 0, (said * done).mean(axis=1) / np.where(power > 0, power, 1.0), 0.0)
        said = said * factor[:, None]
    return np.asarray(((said - done) ** 2).mean(axis=1), np.float64)
