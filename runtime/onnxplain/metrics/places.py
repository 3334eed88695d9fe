"""The places of an image that a map ranks: pixels of a picture, elements of anything else."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.errors import ParameterError, unknown

Array = NDArray[np.float64]
CHANNELS = {"NCHW": 1, "NHWC": 3}
REDUCTIONS = ("sum", "absolute", "mean")


def channel_axis(layout: str | None, rank: int) -> int | None:
    """The axis of the channels in a batch of pictures; None where every element is a place of its own."""
    return CHANNELS.get(layout or "") if rank == 4 else None


def places_of(rows: NDArray[Any], layout: str | None) -> tuple[int, ...]:
    """The shape of one image's places: (H, W) of pictures, else all axes behind the batch."""
    axis = channel_axis(layout, rows.ndim)
    return tuple(size for at, size in enumerate(rows.shape) if at not in (0, axis))


def to_places(maps: NDArray[Any], layout: str | None, reduction: str) -> Array:
    """One number for each place, float64 [N, *places], from maps [N, C, H, W], [N, H, W, C] or of any other shape.

    "sum" adds up the channels with their signs: contributions to a score stay contributions. "absolute" adds up their
    sizes: how strongly a pixel acts, whichever way. "mean" is the sum over the number of channels.
    """
    if reduction not in REDUCTIONS:
        raise ParameterError(unknown("reduction", reduction, REDUCTIONS))
    values = np.asarray(maps, np.float64)
    axis = channel_axis(layout, values.ndim)
    if reduction == "absolute":
        values = np.abs(values)
    if axis is None:
        return values
    return values.mean(axis=axis) if reduction == "mean" else values.sum(axis=axis)


def replaced(rows: NDArray[Any], fill: NDArray[Any], inside: NDArray[np.bool_], layout: str | None) -> NDArray[Any]:
    """Rows [M, …] with the fill where `inside` [M, *places] says so, all channels of a pixel together."""
    axis = channel_axis(layout, rows.ndim)
    chosen = inside if axis is None else np.expand_dims(inside, axis)
    return np.where(chosen, fill, rows).astype(rows.dtype, copy=False)


def ranking(pixels: NDArray[Any]) -> NDArray[np.int64]:
    """The rank of every place [N, P], 0 for the largest of each row; of equal ones the first comes first."""
    order = np.argsort(-pixels, axis=1, kind="stable")
    ranks = np.empty(order.shape, np.int64)
    np.put_along_axis(ranks, order, np.broadcast_to(np.arange(pixels.shape[1]), order.shape), axis=1)
    return ranks
