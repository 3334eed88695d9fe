"""Attributions as pictures: heat maps, signed maps, and either over its picture."""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.errors import ParameterError, unknown
from onnxplain.resize import interpolation_matrix, resize

CHANNEL_AXES = {"NCHW": -3, "NHWC": -1}
COLOUR_MAPS = ("inferno", "turbo", "viridis", "magma", "plasma", "cividis", "hot", "jet", "bone")
# Negative to positive, through white: ColorBrewer's RdBu turned round (colorbrewer2.org, Apache-2.0).
DIVERGING = (
    (5, 48, 97),
    (67, 147, 195),
    (209, 229, 240),
    (255, 255, 255),
    (253, 219, 199),
    (214, 96, 77),
    (103, 0, 31),
)
# ITU-R 601, as the grey of `cv2.cvtColor`.
LUMA = np.array([0.299, 0.587, 0.114])

Reduction = Callable[[NDArray[np.float64], int], NDArray[np.float64]]

# How the channels of an attribution become one number a pixel.
REDUCTIONS: dict[str, Reduction] = {
    "absolute_sum": lambda maps, axis: np.abs(maps).sum(axis=axis),
    "absolute_maximum": lambda maps, axis: np.abs(maps).max(axis=axis),
    "signed_sum": lambda maps, axis: maps.sum(axis=axis),
    "mean": lambda maps, axis: maps.mean(axis=axis),
}
# What the percentile is where it falls between two values: a point between them, or the smaller one.
STATISTICS = ("linear", "lower")
# Options of `heatmap` that draw as other systems do: FastEstimator 1.7 (SaliencyNet), MindSpore XAI 2.0, and PAIR
# saliency 0.2 (VisualizeImageGrayscale). Where theirs divide by zero (constant and sparse maps), ours are safe.
HEATMAP_PRESETS: dict[str, dict[str, Any]] = {
    "fastestimator": {"reduction": "absolute_sum", "percentile": 99.0, "statistic": "lower"},
    "mindspore": {"reduction": "absolute_maximum", "percentile": 100.0, "statistic": "linear"},
    "pair": {"reduction": "absolute_sum", "percentile": 99.0, "statistic": "linear"},
}


def heatmap(
    attribution: NDArray[Any],
    layout: str = "NCHW",
    *,
    percentile: float = 99.0,
    statistic: str = "linear",
    reduction: str = "absolute_sum",
) -> NDArray[np.float32]:
    """Return float32 `[..., H, W]` in 0..1 from an attribution `[..., C, H, W]` ("NCHW") or `[..., H, W, C]` ("NHWC").

    Absolute values are summed over the channels (or another of REDUCTIONS); each image's smallest sum becomes 0 and
    its 99th percentile 1 (the largest where that equals the smallest, as in a map of few pixels). A constant map gives
    zeros. Raises ParameterError for NaN or infinity.
    """
    total = reduced(attribution, layout, reduction)
    low = total.min(axis=(-2, -1), keepdims=True)
    high = _percentile(total, percentile, statistic)
    high = np.where(high > low, high, total.max(axis=(-2, -1), keepdims=True))
    span = np.where(high > low, high - low, 1.0)
    return np.clip((total - low) / span, 0.0, 1.0).astype(np.float32)


def reduced(attribution: NDArray[Any], layout: str = "NCHW", reduction: str = "absolute_sum") -> NDArray[np.float64]:
    """Return one number a pixel, `[..., H, W]`, from an attribution `[..., C, H, W]` ("NCHW") or `[..., H, W, C]`.

    Raises ParameterError for NaN or infinity.
    """
    if reduction not in REDUCTIONS:
        raise ParameterError(unknown("reduction", reduction, REDUCTIONS))
    return REDUCTIONS[reduction](_finite(attribution, layout), CHANNEL_AXES[layout])


def _percentile(maps: NDArray[np.float64], percentile: float, statistic: str) -> NDArray[np.float64]:
    """The percentile of each map `[..., H, W]`, as `[..., 1, 1]`."""
    if not 0 < percentile <= 100:
        raise ParameterError(f"percentile must be above 0 and at most 100, not {percentile}")
    if statistic == "linear":
        return np.percentile(maps, percentile, axis=(-2, -1), keepdims=True)
    if statistic == "lower":
        return np.percentile(maps, percentile, axis=(-2, -1), keepdims=True, method="lower")
    raise ParameterError(unknown("statistic", statistic, STATISTICS))


def overlay(
    seen: NDArray[np.uint8], heat: NDArray[Any], colour_map: str = "inferno", strength: float = 0.85
) -> NDArray[np.uint8]:
    """Return the picture `seen`, RGB uint8 `[H, W, 3]`, in darkened grey with `heat` `[H, W]` (0..1) glowing over it.

    Colour covers the picture as far as there is heat, `strength` (0..1) at most. Batches are welcome: `[N, H, W, 3]`
    with `[N, H, W]`.
    """
    _check_overlay(seen, heat, strength)
    heat = np.clip(heat.astype(np.float64), 0.0, 1.0)[..., None]
    grey = (seen @ LUMA)[..., None] * (1 - 0.35 * strength)
    # Colour is added, as light, over a picture that fades with the heat: weak heat tints it and never darkens it. The
    # first fifth fades in for colour maps that don't start at black.
    light = colours(heat[..., 0], colour_map) * np.minimum(5 * heat, 1.0)
    drawn = grey * (1 - strength * heat) + light * strength
    return np.rint(np.clip(drawn, 0, 255)).astype(np.uint8)


def _check_overlay(seen: NDArray[np.uint8], heat: NDArray[Any], strength: float) -> None:
    if seen.shape[:-1] != heat.shape:
        raise ParameterError(f"a map of {list(heat.shape)} doesn't fit a picture of {list(seen.shape[:-1])}")
    if not 0 <= strength <= 1:
        raise ParameterError(f"strength must be between 0 and 1, not {strength}")


def overlay_original(
    original: NDArray[np.uint8],
    heat: NDArray[Any],
    box: tuple[float, float, float, float],
    colour_map: str = "inferno",
    strength: float = 0.85,
) -> NDArray[np.uint8]:
    """Return the overlay on the `original` picture, `[H, W, 3]`; what the network didn't see has no heat.

    `heat` is `[h, w]`; `box` is the part of the original that it covers, (top, left, bottom, right) in the original's
    pixels.
    """
    rows = _covering(original.shape[0], heat.shape[0], box[0], box[2])
    columns = _covering(original.shape[1], heat.shape[1], box[1], box[3])
    return overlay(original, np.clip(rows @ heat @ columns.T, 0.0, 1.0), colour_map, strength)


def _covering(target: int, source: int, start: float, end: float) -> NDArray[np.float64]:
    """Return the weights that take a line of `source` pixels, lying from `start` to `end`, to a line of `target`."""
    per_pixel = source / (end - start)
    line = (-start * per_pixel, (target - start) * per_pixel)
    matrix = interpolation_matrix(source, target, "bilinear", True, line)
    centres = np.arange(target) + 0.5
    return np.where(((centres >= start) & (centres < end))[:, None], matrix, 0.0)


def at_size(maps: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    """Return a map `[h, w]`, that of a layer inside perhaps, as `[height, width]`: bilinear, centres at half-integers.

    Raises ParameterError for a map of other axes.
    """
    if maps.ndim != 2 or maps.size == 0:
        raise ParameterError(f"a map of one picture is [h, w], not {list(maps.shape)}")
    if maps.shape == (height, width):
        return maps
    return resize(maps[..., None], height, width, rounded=False)[..., 0]


def signed_picture(attribution: NDArray[Any], layout: str = "NCHW", *, percentile: float = 99.0) -> NDArray[np.uint8]:
    """Return RGB uint8 `[..., H, W, 3]`: red speaks for the target, blue against it, white is neither.

    See `signed_map` for the shapes, the scale and what is raised.
    """
    return diverging(signed_map(attribution, layout, percentile=percentile))


def signed_map(attribution: NDArray[Any], layout: str = "NCHW", *, percentile: float = 99.0) -> NDArray[np.float32]:
    """Return float32 `[..., H, W]` in −1..1 from an attribution `[..., C, H, W]` ("NCHW") or `[..., H, W, C]` ("NHWC").

    Channels are summed with their sign; 1 is each image's 99th percentile of the absolute sum (the largest where that
    is 0), −1 the same below, and 0 stays 0. Raises ParameterError for NaN or infinity.
    """
    total = reduced(attribution, layout, "signed_sum")
    high = _percentile(np.abs(total), percentile, "linear")
    high = np.where(high > 0, high, np.abs(total).max(axis=(-2, -1), keepdims=True))
    return np.clip(total / np.where(high > 0, high, 1.0), -1.0, 1.0).astype(np.float32)


def diverging(share: NDArray[Any]) -> NDArray[np.uint8]:
    """Return RGB uint8 `[..., 3]` for `share` `[...]` in −1..1: blue, white at 0, red."""
    position = (np.clip(share.astype(np.float64), -1.0, 1.0) + 1) / 2
    stops = np.linspace(0.0, 1.0, len(DIVERGING))
    channels = [np.interp(position, stops, [colour[channel] for colour in DIVERGING]) for channel in range(3)]
    return np.rint(np.stack(channels, axis=-1)).astype(np.uint8)


def signed_overlay(seen: NDArray[np.uint8], share: NDArray[Any], strength: float = 0.85) -> NDArray[np.uint8]:
    """Return the picture `seen`, RGB uint8 `[H, W, 3]`, in pale grey under the colours of `share` `[H, W]` (−1..1).

    Red speaks for the target, blue against it; where `share` is 0 the grey is bare, and colour covers it as far as
    `share` is from 0, `strength` (0..1) at most. Batches are welcome: `[N, H, W, 3]` with `[N, H, W]`.
    """
    _check_overlay(seen, share, strength)
    share = np.clip(share.astype(np.float64), -1.0, 1.0)
    # Pale, so that either sign's colour is darker than any of the picture.
    pale = 255 - (255 - (seen @ LUMA)[..., None]) * (1 - 0.65 * strength)
    covered = strength * np.abs(share)[..., None] ** 0.75
    # The weak end of the scale is nearly white and its strong end nearly black: colour comes from between, and how much
    # of it shows says how strong.
    colour = diverging(np.sign(share) * (0.4 + 0.45 * np.abs(share)))
    return np.rint(pale * (1 - covered) + colour * covered).astype(np.uint8)


def colours(heat: NDArray[Any], colour_map: str = "inferno") -> NDArray[np.uint8]:
    """Return RGB uint8 `[..., 3]` for `heat` `[...]` in 0..1."""
    return _table(colour_map)[np.rint(np.clip(heat, 0.0, 1.0) * 255).astype(np.uint8)]


@cache
def _table(colour_map: str) -> NDArray[np.uint8]:
    """The colours [256, 3] of a colour map."""
    import cv2  # heavy, and needed only where pictures are read or drawn

    if colour_map not in COLOUR_MAPS:
        raise ParameterError(unknown("colour map", colour_map, COLOUR_MAPS))
    ramp = np.arange(256, dtype=np.uint8)[:, None]
    table = cv2.applyColorMap(ramp, getattr(cv2, f"COLORMAP_{colour_map.upper()}"))[:, 0, ::-1]
    return np.ascontiguousarray(table, np.uint8)


def _finite(attribution: NDArray[Any], layout: str) -> NDArray[np.float64]:
    if layout not in CHANNEL_AXES:
        raise ParameterError(unknown("layout", str(layout), CHANNEL_AXES))
    if attribution.ndim < 3 or attribution.size == 0:
        raise ParameterError(f"an attribution of shape {list(attribution.shape)} has no height and width to draw")
    if not np.isfinite(attribution).all():
        bad = int((~np.isfinite(attribution)).sum())
        raise ParameterError(f"the attribution has {bad} values that are NaN or infinite; no map can be drawn from it")
    return attribution.astype(np.float64)
