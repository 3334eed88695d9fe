"""The segments of a picture that are kept or replaced as a whole: a grid, superpixels, or whatever the user gives."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.errors import ParameterError
from onnxplain.images import spatial_axes

Segments = NDArray[np.int64]

SLIC_COMPACTNESS = 10.0
"""Achanta et al.'s m (SLIC superpixels compared to state-of-the-art superpixel methods, 2012) in CIELAB units."""


def segments_of(parameters: Mapping[str, Any], rows: NDArray[Any], layout: str) -> Segments:
    """The number of every pixel's segment, [1, H, W] for all images or [N, H, W], counted from 0 without gaps.

    `segments` is "grid" (cells × cells rectangles), "slic" (about as many superpixels of each image, by scikit-image),
    or an array [H, W] or [N, H, W] of whole numbers. ParameterError where that doesn't fit the images.
    """
    height, width = (rows.shape[axis] for axis in spatial_axes(layout, rows))
    given = parameters["segments"]
    if isinstance(given, str) or given is None:
        cells = int(parameters["cells"])
        if cells > min(height, width):
            raise ParameterError(
                f"cells={cells} is out of range for an image of {height}x{width}: at most {min(height, width)}"
            )
        return superpixels(rows, layout, cells * cells) if given == "slic" else grid(cells, height, width)[None]
    return _given(np.asarray(given), len(rows), height, width)


def grid(cells: int, height: int, width: int) -> Segments:
    """cells × cells rectangles [H, W], numbered row by row, of sides as equal as whole pixels allow."""
    rows, columns = np.arange(height) * cells // height, np.arange(width) * cells // width
    return rows[:, None] * cells + columns


def superpixels(rows: NDArray[Any], layout: str, count: int) -> Segments:
    """About `count` superpixels of each image, [N, H, W]."""
    try:
        from skimage.segmentation import slic  # an optional extra: the engine itself loads numpy and onnxruntime alone
    except ImportError:
        raise ParameterError(
            "segments='slic' needs scikit-image: pip install 'onnxplain[segments]', or use segments='grid'"
        ) from None
    found = []
    for image in np.moveaxis(rows, 1, -1) if layout == "NCHW" else rows:
        low, high = float(image.min()), float(image.max())
        picture = (image.astype(np.float64) - low) / (high - low or 1.0)
        if picture.shape[-1] != 3:  # slic measures colours in CIELAB, which it makes of three channels
            picture = np.repeat(picture.mean(axis=-1, keepdims=True), 3, axis=-1)
        numbers = slic(picture, n_segments=count, compactness=SLIC_COMPACTNESS, start_label=0)
        found.append(_without_gaps(numbers))
    return np.stack(found) if found else np.zeros((0, *rows.shape[1:3]), np.int64)


def _given(array: NDArray[Any], images: int, height: int, width: int) -> Segments:
    """The user's own segments, checked."""
    shapes = [(height, width), (1, height, width), (images, height, width)]
    if array.shape not in shapes:
        raise ParameterError(
            f"segments of shape {list(array.shape)} don't fit: [{height}, {width}] is right for all images, "
            f"[{images}, {height}, {width}] for one each"
        )
    if array.dtype.kind not in "biuf" or (array != np.floor(array)).any():
        raise ParameterError("segments must hold whole numbers, one for each pixel: the number of its segment")
    return np.stack([_without_gaps(numbers) for numbers in array.reshape(-1, height, width)])


def _without_gaps(numbers: NDArray[Any]) -> Segments:
    """The same segments with numbers 0 … S − 1."""
    return np.unique(numbers, return_inverse=True)[1].reshape(numbers.shape).astype(np.int64)
