"""What FastEstimator 1.7 (Apache-2.0) shows at the end of an epoch: visual maps, highlight overlays, and its columns.

`figure_grid` draws the columns.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.errors import ParameterError
from onnxplain.heatmap import HEATMAP_PRESETS, heatmap

# Prefixes of the columns, weakest first; the highlight follows the last that there is.
KINDS = {"raw": "", "smoothed": "Smoothed ", "integrated": "Integrated ", "smoothed_integrated": "SmInt "}


def visual_map(attribution: NDArray[Any], layout: str = "NCHW") -> NDArray[np.float32]:
    """Return float32 `[..., H, W]` in 0..1 from an attribution `[..., C, H, W]` ("NCHW") or `[..., H, W, C]` ("NHWC").

    The sum of |a| over channels, from its minimum to its "lower" 99th percentile: of n sorted values the one at
    floor(0.99·(n−1)). Constant and sparse maps, NaN in FastEstimator, are drawn as by `heatmap`.
    """
    return heatmap(attribution, layout, **HEATMAP_PRESETS["fastestimator"])


def highlight(pictures: NDArray[Any], heat: NDArray[Any], layout: str = "NCHW") -> NDArray[np.float64]:
    """Return the pictures, lit up where there is heat: 0.3·(h·(x − m) + m) + 0.3·x + 0.4·h·(M − m) + m.

    `pictures` x `[N, C, H, W]` ("NCHW") or `[N, H, W, C]` ("NHWC") on any scale, `heat` h `[N, H, W]` in 0..1; m and M
    are the smallest and largest value of the whole batch. `display_pixels` makes bytes of it.
    """
    heat = np.expand_dims(heat.astype(np.float64), 1 if layout == "NCHW" else -1)
    if heat.ndim != pictures.ndim or heat.shape[2:-1] != pictures.shape[2:-1]:
        raise ParameterError(f"maps of {list(heat.shape)} don't fit pictures of {list(pictures.shape)}")
    values = pictures.astype(np.float64)
    low = values.min()
    span = values.max() - low
    return 0.3 * (heat * (values - low) + low) + 0.3 * values + 0.4 * heat * span + low


def display_pixels(image: NDArray[Any]) -> NDArray[np.uint8]:
    """Return one image `[H, W]` or `[H, W, C]` as bytes, on the scale that its own values suggest; truncated.

    Whole numbers are taken as bytes (wrapped, not clipped). Floats in 0..1, or in −0.5..0.5 or −1..1 with both signs,
    are stretched from that range; any others by (x + |min|) / (|max| + |min|), each channel for itself. Two images of a
    batch may so be scaled differently. Raises ParameterError for NaN, infinity and other shapes.
    """
    if image.ndim not in (2, 3) or image.size == 0:
        raise ParameterError(f"an image is [H, W] or [H, W, C], not {list(image.shape)}")
    if np.issubdtype(image.dtype, np.integer):
        return image.astype(np.uint8)
    values = image.astype(np.float64)
    if not np.isfinite(values).all():
        raise ParameterError("the image has values that are NaN or infinite; no picture can be drawn from it")
    low, high = values.min(), values.max()
    if low >= 0 and high <= 1:
        stretched = values * 255
    elif -0.5 <= low < 0 < high <= 0.5:
        stretched = (values + 0.5) * 255
    elif -1 <= low < 0 < high <= 1:
        stretched = (values + 1) * 127.5
    else:
        least, most = np.abs(values.min(axis=(0, 1))), np.abs(values.max(axis=(0, 1)))
        # A channel of zeros, NaN in FastEstimator, stays black.
        stretched = (values + least) / np.where(least + most > 0, least + most, 1.0) * 255
    return stretched.astype(np.uint8)


def grid_columns(
    pictures: NDArray[Any],
    maps: Mapping[str, NDArray[Any]],
    *,
    classes: Sequence[object] | None = None,
    predictions: Sequence[object] | None = None,
    layout: str = "NCHW",
    picture: str = "x",
    output: str = "saliency",
) -> dict[str, list[object]]:
    """Return the columns of FastEstimator's grid, in its order, for `figure_grid`.

    Class, prediction, picture, highlight, then a column for each of `maps`: visual maps float `[N, H, W]` under the
    names "raw", "smoothed", "integrated", "smoothed_integrated". `pictures` are `[N, C, H, W]` or `[N, H, W, C]`; the
    highlight follows the last map that is given. `picture` and `output` are the names that head the columns.
    """
    if not maps or not maps.keys() <= KINDS.keys():
        raise ParameterError(f"maps are named {', '.join(KINDS)} here, not {', '.join(maps) or 'nothing'}")
    columns: dict[str, list[object]] = {}
    if classes is not None:
        columns["class"] = [str(name) for name in classes]
    if predictions is not None:
        columns["prediction"] = [str(name) for name in predictions]
    strongest = [maps[kind] for kind in KINDS if kind in maps][-1]
    columns[picture] = [_channels_last(one, layout) for one in pictures]
    columns[f"{picture} {output}"] = [_channels_last(one, layout) for one in highlight(pictures, strongest, layout)]
    columns.update({prefix + output: list(maps[kind]) for kind, prefix in KINDS.items() if kind in maps})
    return columns


def _channels_last(image: NDArray[Any], layout: str) -> NDArray[np.uint8]:
    return display_pixels(np.moveaxis(image, 0, -1) if layout == "NCHW" else image)
