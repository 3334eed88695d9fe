"""Means of a metric over pictures, with what is uncertain about them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Summary:
    """The mean of the finite values, `count` of `total`, and its 95 % interval; None where there is none."""

    mean: float | None
    low: float | None
    high: float | None
    count: int
    total: int


def summarise(values: NDArray[np.float64], seed: int = 0) -> Summary:
    """The mean of the finite values [N] and a bootstrap interval of it: the middle 95 % of means of resamples.

    Efron: Bootstrap methods: another look at the jackknife, 1979, doi:10.1214/aos/1176344552. One value has no
    interval.
    """
    finite = values[np.isfinite(values)]
    if not len(finite):
        return Summary(None, None, None, 0, len(values))
    mean = float(finite.mean())
    if len(finite) == 1:
        return Summary(mean, None, None, 1, len(values))
    random = np.random.default_rng(seed)
    means = [finite[random.integers(0, len(finite), len(finite))].mean() for _ in range(RESAMPLES)]
    low, high = np.percentile(means, [2.5, 97.5])
    return Summary(mean, float(low), float(high), len(finite), len(values))
