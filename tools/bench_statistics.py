"""What the benchmark's seconds say: ratios paired by round, their intervals, and when a run is void."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

RESAMPLES = 2000
CONFIDENCE = 0.95
# Our gradient against itself: further apart than this, the machine was too busy for any ratio to count.
AGREEMENT = 0.03


def interval(values: Sequence[float], seed: int = 0) -> list[float]:
    """The bootstrap confidence interval [low, high] of the median (percentile method)."""
    sample = np.asarray(values, np.float64)
    drawn = np.random.default_rng(seed).integers(0, len(sample), (RESAMPLES, len(sample)))
    medians = np.median(sample[drawn], axis=1)
    tail = 50 * (1 - CONFIDENCE)
    return [float(bound) for bound in np.percentile(medians, [tail, 100 - tail])]


def median(values: Sequence[float]) -> dict[str, Any]:
    """The median and its interval."""
    return {"median": float(np.median(values)), "interval": interval(values), "rounds": len(values)}


def ratio(seconds: Mapping[str, Sequence[float]], over: str, under: str) -> dict[str, Any]:
    """The median of the ratio `over` ÷ `under` of two contenders, of the same round each, and its interval.

    Whatever slows the machine for a while slows both sides of a round.
    """
    return scaled_ratio(seconds, over, under, 1.0)


def scaled_ratio(seconds: Mapping[str, Sequence[float]], over: str, under: str, factor: float) -> dict[str, Any]:
    """The same times `factor`: that of their rows, say."""
    pairs = zip(seconds[over], seconds[under], strict=True)
    return median([factor * a / b for a, b in pairs])


def agrees(seconds: Mapping[str, Sequence[float]], one: str, same: str) -> bool:
    """Whether two contenders that are the same thing took the same time: what makes a run count."""
    return abs(ratio(seconds, same, one)["median"] - 1) <= AGREEMENT


def geometric_mean(values: Sequence[float]) -> float:
    """The mean of ratios."""
    return float(np.exp(np.mean(np.log(values))))
