"""Regions of pictures: their segmentation, and the growing of the most important ones."""

import importlib
import importlib.util
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.bundle import Method
from onnxplain.errors import ParameterError

Masks = NDArray[np.bool_]

# The settings of the reference implementation of XRAI, for pictures of this side.
SIDE = 224
SCALES = (50, 100, 150, 250, 500, 1200)
SMOOTHING = 0.8
SMALLEST = 150
DILATION = 5
SMALLEST_GAIN = 50
PIXELS_AT_ONCE = 4096


def lacking(method: Method, parameters: Mapping[str, Any]) -> str | None:
    """The package that a method needs to segment pictures, and how to get it; None where it has what it needs."""
    if "segments" not in method.parameters:
        return None
    segments = parameters.get("segments", method.parameters["segments"].default)
    segmenting = segments is None if method.loop == "xrai" else isinstance(segments, str) and segments == "slic"
    if not segmenting or importlib.util.find_spec("skimage") is not None:
        return None
    return 'scikit-image to segment pictures: pip install "onnxplain[segments]"'


def refuse_lacking(method: Method, parameters: Mapping[str, Any]) -> None:
    """ParameterError where a method lacks a package."""
    reason = lacking(method, parameters)
    if reason is not None:
        instead = "give segments= of your own" if method.loop == "xrai" else "use segments='grid'"
        raise ParameterError(f"{method.name} needs {reason}, or {instead}")


def picture_masks(picture: NDArray[Any]) -> Masks:
    """Overlapping segments of a picture [H, W, channels] at six scales, as masks [S, H, W].

    Felzenszwalb, Huttenlocher: Efficient Graph-Based Image Segmentation (2004), of the picture at 224 by 224 between −1
    and 1, each segment dilated by five pixels (fewer where the picture is smaller). ParameterError without
    scikit-image.
    """
    morphology, segmentation, transform = _scikit_image("morphology", "segmentation", "transform")
    height, width = picture.shape[:2]
    values = picture.astype(np.float64)
    low, high = values.min(), values.max()
    values = (values - low) / (high - low) * 2.0 - 1.0 if high > low else np.zeros_like(values)
    values = transform.resize(values, (SIDE, SIDE), order=3, mode="constant", preserve_range=True, anti_aliasing=True)
    masks = []
    for scale in SCALES:
        labels = segmentation.felzenszwalb(values, scale=scale, sigma=SMOOTHING, min_size=SMALLEST)
        shown = transform.resize(
            labels, (height, width), order=0, preserve_range=True, mode="constant", anti_aliasing=False
        )
        masks += [shown.astype(int) == label for label in range(int(shown.max()) + 1)]
    footprint = morphology.disk(_scaled(DILATION, min(height, width)))
    return np.stack([morphology.dilation(mask, footprint) for mask in masks if mask.any()])


def _scikit_image(*parts: str) -> list[Any]:
    """Modules of an optional, heavy library, most of it without types."""
    try:
        return [importlib.import_module(f"skimage.{part}") for part in parts]
    except ImportError:
        raise ParameterError(
            "segmentation needs scikit-image: pip install 'onnxplain[segments]', or give segments= of your own"
        ) from None


def given_masks(segments: Any, count: int, height: int, width: int) -> list[Masks]:
    """The caller's segments for each of `count` images, as masks [S, H, W].

    Whole numbers are labels, [H, W] for all images or [N, H, W] for each; True and False are masks, [S, H, W] for all
    or [N, S, H, W] for each. ParameterError for other shapes.
    """
    array = np.asarray(segments)
    masks = array.dtype == np.bool_
    if array.shape[-2:] == (height, width) and array.ndim - masks in (2, 3):
        each = array if array.ndim - masks == 3 else [array] * count
        if len(each) == count and array.size:
            return [np.asarray(one) if masks else _of_labels(np.asarray(one)) for one in each]
    raise ParameterError(
        f"segments of shape {list(array.shape)} ({array.dtype}) fit no picture here; give whole numbers [{height}, "
        f"{width}] or [{count}, {height}, {width}], or masks of True and False [S, {height}, {width}] or [{count}, S, "
        f"{height}, {width}]"
    )


def _of_labels(labels: NDArray[Any]) -> Masks:
    return np.stack([labels == label for label in np.unique(labels)])


def grown(attribution: NDArray[np.float64], masks: Masks) -> NDArray[np.float64]:
    """The map [H, W] of regions added one by one, best first, each worth the mean attribution of its new pixels.

    Segments that would add too few pixels (50 in a picture of 224 by 224) are left out; what no segment covers gets its
    own mean. Kapishnikov et al.: XRAI (2019, arXiv:1906.02825), algorithm 1.
    """
    least = _scaled_area(SMALLEST_GAIN, attribution.size)
    flat, spread = attribution.ravel(), masks.reshape(len(masks), -1)
    sums, sizes = _sums(spread, flat, np.arange(flat.size)), spread.sum(axis=1)
    worth, free = np.zeros(flat.size), np.ones(flat.size, np.bool_)
    while True:
        density = np.divide(sums, sizes, out=np.full(len(sums), -np.inf), where=sizes >= least)
        best = int(density.argmax())
        if not np.isfinite(density[best]):
            break
        added = spread[best] & free
        worth[added], free = flat[added].mean(), free & ~added
        # Only segments with some of the new pixels change.
        new = np.flatnonzero(added)
        sums, sizes = sums - _sums(spread, flat, new), sizes - spread[:, new].sum(axis=1)
    if free.any():
        worth[free] = flat[free].mean()
    return worth.reshape(attribution.shape)


def _sums(masks: Masks, values: NDArray[np.float64], pixels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Each mask's sum [S] of the values at some pixels, a part at a time: numpy makes floats of the masks."""
    parts = np.split(pixels, range(PIXELS_AT_ONCE, len(pixels), PIXELS_AT_ONCE))
    total: NDArray[np.float64] = np.sum([masks[:, part] @ values[part] for part in parts], axis=0)
    return total


def _scaled(length: int, side: int) -> int:
    """A length in pictures of SIDE, in a smaller one; larger ones keep it."""
    return max(1, min(length, round(length * side / SIDE)))


def _scaled_area(area: int, pixels: int) -> int:
    return max(1, min(area, round(area * pixels / SIDE**2)))
