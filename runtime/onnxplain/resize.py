"""Resizing as two small matrix products, the same numbers in every language that runs a bundle.

Libraries disagree on what "bilinear" means: Pillow widens its kernel when it shrinks a picture, OpenCV does not. A
network sees the difference, so a bundle names the kernel and this module computes it.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.errors import ParameterError, unknown

KERNELS = ("bilinear", "bicubic", "nearest")
SUPPORT = {"bilinear": 1.0, "bicubic": 2.0}
# Pillow's fixed point for 8-bit pictures: weights are rounded to this many binary places (Resample.c, PRECISION_BITS).
PILLOW_BITS = 22
BLOCK = 16
"""Lines of a result that are computed together: beside each other they read nearly the same lines of the source."""

Region = tuple[int, int, int, int]
"""The part of a picture that is wanted: top, bottom, left, right."""


def triangle(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the bilinear kernel at distances `x` (source pixels)."""
    return np.maximum(0.0, 1.0 - np.abs(x))


def cubic(x: NDArray[np.float64], a: float) -> NDArray[np.float64]:
    """Return the cubic kernel with slope `a` at distances `x` (Keys 1981, doi:10.1109/TASSP.1981.1163711)."""
    x = np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def interpolation_matrix(
    source: int, target: int, kernel: str, antialias: bool, box: tuple[float, float] | None = None
) -> NDArray[np.float64]:
    """Return the weights `[target, source]` that resample a line of pixels; each row sums to 1.

    Pixel centres lie at half-integers. `box` is the stretch of the line, in source pixels, that the target covers (all
    of it by default; what lies beyond the ends repeats the border). With `antialias` the kernel widens as the line
    shrinks and is cut off at the ends, and bicubic has slope -0.5 (Pillow, torchvision on PIL pictures); without it,
    taps beyond the ends repeat the border and bicubic has slope -0.75 (OpenCV, torch). "nearest" takes the pixel that
    the centre falls in (Pillow, torch "nearest-exact").
    """
    taps, weights = _taps(source, target, kernel, antialias, box)
    matrix = np.zeros((target, source))
    np.add.at(matrix, (np.arange(target)[:, None], taps), weights)
    return matrix


def _taps(
    source: int, target: int, kernel: str, antialias: bool, box: tuple[float, float] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The source pixels [target, n] that each target pixel reads, and their weights; some weights may be 0."""
    if kernel not in KERNELS:
        raise ParameterError(unknown("resize kernel", kernel, KERNELS))
    if source < 1 or target < 1:
        raise ParameterError(f"can't resize {source} pixels to {target}: both must be at least 1")
    start, end = box if box is not None else (0.0, float(source))
    scale = (end - start) / target
    if kernel == "nearest":
        # Added up, not multiplied, as Pillow does (Geometry.c): where a centre falls between two pixels the rounding
        # decides.
        centres = np.cumsum([start + 0.5 * scale] + [scale] * (target - 1))
        return np.clip(np.floor(centres).astype(np.int64), 0, source - 1)[:, None], np.ones((target, 1))
    centres = np.asarray(start + (np.arange(target) + 0.5) * scale, np.float64)
    if antialias:
        return _antialiased(centres, max(scale, 1.0), source, kernel)
    return _interpolated(centres, source, kernel)


def _antialiased(
    centres: NDArray[np.float64], width: float, source: int, kernel: str
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    # The bounds truncate as Pillow's precompute_coeffs does; a tap just inside the support but outside them must stay
    # 0.
    support = SUPPORT[kernel] * width
    centres = np.clip(centres, 0.0, source)[:, None]
    first = np.maximum(np.trunc(centres - support + 0.5), 0.0)
    past = np.minimum(np.trunc(centres + support + 0.5), source)
    taps = first + np.arange(max(int((past - first).max()), 1))
    distance = (taps - centres + 0.5) * (1.0 / width)
    weights = np.where(taps < past, triangle(distance) if kernel == "bilinear" else cubic(distance, -0.5), 0.0)
    return np.minimum(taps, source - 1).astype(np.int64), weights / weights.sum(axis=1, keepdims=True)


def _interpolated(
    centres: NDArray[np.float64], source: int, kernel: str
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    positions = centres - 0.5
    first = np.floor(positions).astype(np.int64)
    offsets = np.arange(2) if kernel == "bilinear" else np.arange(-1, 3)
    taps = first[:, None] + offsets
    distance = positions[:, None] - taps
    return np.clip(taps, 0, source - 1), triangle(distance) if kernel == "bilinear" else cubic(distance, -0.75)


@dataclass(frozen=True, slots=True)
class _Band:
    """Some lines of a result, `start` and on, as weights [lines, taps] of the source's lines `first` and on."""

    start: int
    first: int
    weights: NDArray[np.float64]


@lru_cache(maxsize=64)
def _bands(
    source: int, target: int, kernel: str, antialias: bool, fixed: bool, start: int, end: int
) -> tuple[_Band, ...]:
    """The lines from `start` to `end` of a result; with `fixed` the weights are in Pillow's fixed point."""
    taps, weights = _taps(source, target, kernel, antialias)
    if fixed:
        scaled = weights * 2.0**PILLOW_BITS
        weights = np.trunc(scaled + np.copysign(0.5, scaled)) * 2.0**-PILLOW_BITS
    bands = []
    for begin in range(start, end, BLOCK):
        lines = slice(begin, min(begin + BLOCK, end))
        first = int(taps[lines].min())
        dense = np.zeros((lines.stop - begin, int(taps[lines].max()) + 1 - first))
        np.add.at(dense, (np.arange(len(dense))[:, None], taps[lines] - first), weights[lines])
        bands.append(_Band(begin - start, first, dense))
    return tuple(bands)


def resize(
    pixels: NDArray[Any],
    height: int,
    width: int,
    *,
    kernel: str = "bilinear",
    antialias: bool = True,
    rounded: bool = True,
    region: Region | None = None,
) -> NDArray[Any]:
    """Return `pixels` `[H, W, C]` resized to `[height, width, C]`: uint8 if `rounded`, else float32.

    With `antialias` and `rounded` the result equals Pillow's for 8-bit pictures bit for bit: the width first, then the
    height, each in fixed point and rounded to a byte. (Pillow 13 takes the height first for some shapes, and then may
    differ by a rounding.) Of a result of which only a `region` is wanted, no more is computed.
    """
    fixed = antialias and rounded
    top, bottom, left, right = region or (0, height, 0, width)
    across = _lines(pixels.shape[1], width, kernel, antialias, fixed, left, right)
    down = _lines(pixels.shape[0], height, kernel, antialias, fixed, top, bottom)
    rows = _read(down, top, bottom)
    columns = _read(across, left, right)
    part = pixels[rows, columns]
    if across is not None:
        # Plane by plane, so that a line is a row of a matrix product.
        planes = [_product(part[..., channel], across, columns.start, 1) for channel in range(pixels.shape[2])]
        part = np.stack([_to_bytes(plane) if fixed else plane for plane in planes], axis=-1)
    if down is not None:
        flat = _product(part.reshape(len(part), -1), down, rows.start, 0)
        part = (_to_bytes(flat) if fixed else flat).reshape(len(flat), *part.shape[1:])
    return _to_bytes(part) if rounded else part.astype(np.float32)


def _lines(
    source: int, target: int, kernel: str, antialias: bool, fixed: bool, start: int, end: int
) -> tuple[_Band, ...] | None:
    """The bands that make lines of the result; None where they are the source's own."""
    return None if source == target else _bands(source, target, kernel, antialias, fixed, start, end)


def _read(bands: tuple[_Band, ...] | None, start: int, end: int) -> slice:
    """The lines of the source that are read."""
    if bands is None:
        return slice(start, end)
    return slice(min(band.first for band in bands), max(band.first + band.weights.shape[1] for band in bands))


def _product(plane: NDArray[Any], bands: tuple[_Band, ...], begin: int, axis: int) -> NDArray[np.float64]:
    """The lines of a result along an axis of `plane` [h, w], which starts at the source's line `begin`."""
    exact = plane.astype(np.float64)
    lines = bands[-1].start + len(bands[-1].weights)
    result = np.empty((lines, plane.shape[1]) if axis == 0 else (len(plane), lines))
    for band in bands:
        taps = slice(band.first - begin, band.first - begin + band.weights.shape[1])
        made = slice(band.start, band.start + len(band.weights))
        if axis == 0:
            np.matmul(band.weights, exact[taps], out=result[made])
        else:
            np.matmul(exact[:, taps], band.weights.T, out=result[:, made])
    return result


def _to_bytes(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """Rounded, halves up, to 0..255."""
    if pixels.dtype == np.uint8:
        return pixels
    shifted = pixels + 0.5
    np.clip(shifted, 0, 255.5, out=shifted)
    return shifted.astype(np.uint8)  # none is negative, so the part behind the point falls away
