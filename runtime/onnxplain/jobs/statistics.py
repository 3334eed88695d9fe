"""What a job notes of every map, so that a person can find the unusual ones among ten thousand."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Planes = tuple[NDArray[Any], NDArray[Any]]
"""A map's sum over the channels and its sum of absolute values, [H, W] each."""
NAMES = ("total", "magnitude", "positive", "concentration", "centre", "peak")


def statistics(plane: NDArray[np.floating[Any]], sizes: NDArray[np.floating[Any]]) -> dict[str, Any]:
    """Numbers of one map: `plane` [H, W] is its sum over the channels, `sizes` [H, W] the sum of absolute values.

    `total` and `magnitude` are the sums of the two; `positive` the share of |plane| that speaks for the target;
    `concentration` 1 - 1/(n Σ p²) for shares p = sizes/magnitude of n places: 0 where all is even, near 1 where few
    places have everything; `centre` the sizes' centre of mass and `peak` the place of the largest, both as (row,
    column) in shares of height and width. Of a map of zeros positive, concentration and places are None.
    """
    magnitude, total = float(sizes.sum(dtype=np.float64)), float(plane.sum(dtype=np.float64))
    noted: dict[str, Any] = {"total": total, "magnitude": magnitude}
    if not magnitude > 0:
        return noted | dict.fromkeys(NAMES[2:])
    height, width = sizes.shape
    rows, columns = sizes.sum(axis=1, dtype=np.float64), sizes.sum(axis=0, dtype=np.float64)
    centre = [float(part @ (np.arange(len(part)) + 0.5) / len(part) / magnitude) for part in (rows, columns)]
    row, column = divmod(int(sizes.argmax()), width)
    spread = float(np.square(sizes, dtype=np.float64).sum()) / magnitude**2
    both = float(np.abs(plane).sum(dtype=np.float64))
    return noted | {
        "positive": 0.5 + 0.5 * total / both if both > 0 else None,
        "concentration": 1 - 1 / (sizes.size * spread),
        "centre": centre,
        "peak": [(row + 0.5) / height, (column + 0.5) / width],
    }


def planes(attribution: NDArray[Any], layout: str | None) -> Planes | None:
    """The sum over channels and that of absolute values, [H, W] each, of one map; None where it is no picture's."""
    if layout not in ("NCHW", "NHWC") or attribution.ndim != 3:
        return None
    axis = 0 if layout == "NCHW" else 2
    if attribution.shape[axis] == 1:
        one = attribution.squeeze(axis)
        return one, np.abs(one)
    channels = np.moveaxis(attribution, axis, 0)
    plane, sizes = channels[0].copy(), np.abs(channels[0])
    size = np.empty_like(sizes)
    for channel in channels[1:]:  # a channel at a time stays in the processor's cache
        plane += channel
        sizes += np.abs(channel, out=size)
    return plane, sizes
