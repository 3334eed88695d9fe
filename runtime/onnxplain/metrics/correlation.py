"""Correlations of rows, defined for constant rows too."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def pearson(first: NDArray[Any], second: NDArray[Any]) -> Array:
    """Pearson's correlation of each row of two arrays [N, K]: [N] in -1..1.

    It does not exist for a row of equal values. It is 1 here where both rows are the same, else 0.
    """
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    same = (a == b).all(axis=1)
    flat = (np.ptp(a, axis=1) == 0) | (np.ptp(b, axis=1) == 0)
    a, b = _unit(a), _unit(b)
    found = np.clip((a * b).sum(axis=1), -1.0, 1.0)
    return np.where(same, 1.0, np.where(flat, 0.0, found))


def spearman(first: NDArray[Any], second: NDArray[Any]) -> Array:
    """Spearman's rank correlation of each row of two arrays [N, K]; equal values share their mean rank."""
    return pearson(mean_ranks(first), mean_ranks(second))


def mean_ranks(values: NDArray[Any]) -> Array:
    """The ranks of each row [N, K], from 0 for the smallest; equal values share their mean rank."""
    ranks = np.empty(values.shape, np.float64)
    for row, found in zip(values, ranks, strict=True):
        _, which, counts = np.unique(row, return_inverse=True, return_counts=True)
        ends = np.cumsum(counts)
        found[:] = (ends - (counts + 1) / 2)[which.reshape(-1)]
    return ranks


def _unit(values: Array) -> Array:
    centred = values - values.mean(axis=1, keepdims=True)
    # Scaled before it is squared: maps of tiny gradients would underflow.
    largest = np.abs(centred).max(axis=1, keepdims=True)
    centred = centred / np.where(largest > 0, largest, 1.0)
    length = np.sqrt((centred * centred).sum(axis=1, keepdims=True))
    return centred / np.where(length > 0, length, 1.0)
