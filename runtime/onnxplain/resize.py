"""Resizing as two small matrix products, the same numbers in every language that runs a bundle.

Libraries disagree on what "bilinear" means: Pillow widens its kernel when it shrinks a picture, OpenCV does not. A
network sees the difference, so a bundle names the kernel and this module computes it.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.errors import ParameterError, unknown

KERNELS = ("bilinear", "bicubic", "nearest")
SUPPORT = {"bilinear": 1.0, "bicubic": 2.0}
# Pillow's fixed point for 8-bit pictures: weights are rounded to this many binary places (Resample.c, PRECISION_BITS).
PILLOW_BITS = 22


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
        return _gather(np.floor(centres).astype(np.int64)[:, None], np.ones((target, 1)), source)
    centres = np.asarray(start + (np.arange(target) + 0.5) * scale, np.float64)
    if antialias:
        return _antialiased(centres, max(scale, 1.0), source, kernel)
    return _interpolated(centres, source, kernel)


def _antialiased(centres: NDArray[np.float64], width: float, source: int, kernel: str) -> NDArray[np.float64]:
    # The bounds truncate as Pillow's precompute_coeffs does; a tap just inside the support but outside them must stay
    # 0.
    support = SUPPORT[kernel] * width
    centres = np.clip(centres, 0.0, source)[:, None]
    taps = np.arange(source)
    inside = (taps >= np.trunc(centres - support + 0.5)) & (taps < np.trunc(centres + support + 0.5))
    distance = (taps - centres + 0.5) * (1.0 / width)
    weights = np.where(inside, triangle(distance) if kernel == "bilinear" else cubic(distance, -0.5), 0.0)
    return weights / weights.sum(axis=1, keepdims=True)


def _interpolated(centres: NDArray[np.float64], source: int, kernel: str) -> NDArray[np.float64]:
    positions = centres - 0.5
    first = np.floor(positions).astype(np.int64)
    offsets = np.arange(2) if kernel == "bilinear" else np.arange(-1, 3)
    taps = first[:, None] + offsets
    distance = positions[:, None] - taps
    return _gather(taps, triangle(distance) if kernel == "bilinear" else cubic(distance, -0.75), source)


def _gather(taps: NDArray[np.int64], weights: NDArray[np.float64], source: int) -> NDArray[np.float64]:
    matrix = np.zeros((len(taps), source))
    np.add.at(matrix, (np.arange(len(taps))[:, None], np.clip(taps, 0, source - 1)), weights)
    return matrix


def resize(
    pixels: NDArray[Any],
    height: int,
    width: int,
    *,
    kernel: str = "bilinear",
    antialias: bool = True,
    rounded: bool = True,
) -> NDArray[Any]:
    """Return `pixels` `[H, W, C]` resized to `[height, width, C]`: uint8 if `rounded`, else float32.

    With `antialias` and `rounded` the result equals Pillow's for 8-bit pictures bit for bit: the width first, then the
    height, each in fixed point and rounded to a byte. (Pillow 13 takes the height first for some shapes, and then may
    differ by a rounding.)
    """
    for axis, target in ((1, width), (0, height)):
        matrix = interpolation_matrix(pixels.shape[axis], target, kernel, antialias)
        if pixels.shape[axis] == target:
            continue
        if antialias and rounded:
            pixels = _to_bytes(_along(pixels, axis, _fixed_point(matrix)), 2.0**-PILLOW_BITS)
        else:
            pixels = _along(pixels, axis, matrix)
    return _to_bytes(pixels, 1.0) if rounded else pixels.astype(np.float32)


def _fixed_point(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    scaled = matrix * 2.0**PILLOW_BITS
    return np.trunc(scaled + np.copysign(0.5, scaled))


def _to_bytes(pixels: NDArray[Any], unit: float) -> NDArray[np.uint8]:
    return pixels if pixels.dtype == np.uint8 else np.clip(np.floor(pixels * unit + 0.5), 0, 255).astype(np.uint8)


def _along(pixels: NDArray[Any], axis: int, matrix: NDArray[np.float64], block: int = 16) -> NDArray[np.float64]:
    """Return `pixels` with `matrix` applied along `axis`, in blocks of rows that skip the zeros off its diagonal."""
    lines = np.moveaxis(pixels, axis, 0)
    flat = lines.reshape(len(lines), -1)
    result = np.empty((len(matrix), flat.shape[1]))
    for start in range(0, len(matrix), block):
        rows = matrix[start : start + block]
        used = np.flatnonzero(rows.any(axis=0))
        taps = slice(used[0], used[-1] + 1)
        np.matmul(rows[:, taps], flat[taps].astype(np.float64), out=result[start : start + block])
    return np.moveaxis(result.reshape(len(matrix), *lines.shape[1:]), 0, axis)
