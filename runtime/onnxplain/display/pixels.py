"""Maps as pictures in other ways than colour: grey between two levels, contour lines, and the most important pixels."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.errors import ParameterError
from onnxplain.heatmap import at_size, colours

# Shares of a heat map's scale at which contour lines are drawn.
LEVELS = (0.25, 0.5, 0.75)


def windowed(values: NDArray[Any], level: float | None = None, window: float | None = None) -> NDArray[np.uint8]:
    """Return grey uint8 of the shape of `values`: black at level − window/2 and below, white at level + window/2.

    Without them, black is the smallest value and white the largest; a constant array is then black. Raises
    ParameterError for a window that isn't positive, one of the two alone, and values that aren't finite.
    """
    if (level is None) != (window is None):
        raise ParameterError("a window needs a level and a level a window: give both or neither")
    _check_finite(values)
    exact = values.astype(np.float64)
    if level is None or window is None:
        low, span = exact.min(), float(np.ptp(exact)) or 1.0
    elif not (0 < window < np.inf and np.isfinite(level)):
        raise ParameterError(f"a window must be wider than 0 and finite, not {window} around {level}")
    else:
        low, span = level - window / 2, window
    return np.rint(np.clip((exact - low) / span, 0.0, 1.0) * 255).astype(np.uint8)


def top_pixels(maps: NDArray[Any], *, count: int | None = None, percent: float | None = None) -> NDArray[np.bool_]:
    """Return bool of the shape of `maps` `[..., H, W]`: True for the `count` or `percent` largest values of each map.

    Exactly so many are kept: of equal values those further up, then further left. `percent` is rounded to whole pixels,
    halves to the even number. Raises ParameterError unless one of the two is given, and for more pixels than there are.
    """
    pixels = maps.shape[-2] * maps.shape[-1] if maps.ndim >= 2 else 0
    if (count is None) == (percent is None) or not pixels:
        raise ParameterError(f"give a count or a percentage of the pixels of maps [..., H, W], not of {maps.ndim} axes")
    if percent is not None and not 0 <= percent <= 100:
        raise ParameterError(f"percent must be between 0 and 100, not {percent}")
    kept = round(pixels * percent / 100) if percent is not None else count
    if kept is None or not 0 <= kept <= pixels:
        raise ParameterError(f"count must be between 0 and the map's {pixels} pixels, not {count}")
    _check_finite(maps)
    flat = maps.reshape(*maps.shape[:-2], pixels).astype(np.float64)
    order = np.argsort(-flat, axis=-1, kind="stable")[..., :kept]
    mask = np.zeros(flat.shape, bool)
    np.put_along_axis(mask, order, True, axis=-1)
    return mask.reshape(maps.shape)


def shown_through(seen: NDArray[np.uint8], mask: NDArray[np.bool_], dim: float = 0.0) -> NDArray[np.uint8]:
    """Return the picture `seen`, uint8 `[..., H, W, 3]`, where `mask` `[..., H, W]` is True, and `dim` (0..1) of its
    brightness elsewhere: 0 is black.
    """
    if seen.shape[:-1] != mask.shape:
        raise ParameterError(f"a mask of {list(mask.shape)} doesn't fit a picture of {list(seen.shape[:-1])}")
    if not 0 <= dim <= 1:
        raise ParameterError(f"dim must be between 0 and 1, not {dim}")
    return np.where(mask[..., None], seen, np.rint(seen * dim)).astype(np.uint8)


def contoured(
    seen: NDArray[np.uint8],
    heat: NDArray[Any],
    levels: Sequence[float] = LEVELS,
    *,
    enlarge: int = 1,
    smooth: float = 0.0,
    colour_map: str = "turbo",
) -> NDArray[np.uint8]:
    """Return the picture `seen`, RGB uint8 `[H, W, 3]`, with lines round the regions where `heat` `[h, w]` is above a
    level.

    A line has the colour of its level (0..1) in `colour_map`, on a black rim. The picture is drawn `enlarge` times as
    large, `[enlarge·H, enlarge·W, 3]`, so that lines are thin beside the pixels of a small one; the map is brought to
    that size, and before that smoothed by a Gaussian of `smooth` of its own pixels (standard deviation) that keeps its
    maximum.
    """
    import cv2  # heavy, and needed only where pictures are read or drawn

    if enlarge < 1 or smooth < 0:
        raise ParameterError(f"enlarge must be at least 1 and smooth at least 0, not {enlarge} and {smooth}")
    if not all(0 <= level <= 1 for level in levels):
        raise ParameterError(f"levels lie between 0 and 1, not {list(levels)}")
    _check_finite(heat)
    drawn = np.ascontiguousarray(np.repeat(np.repeat(seen, enlarge, axis=0), enlarge, axis=1))
    surface = heat.astype(np.float64)
    if smooth > 0:
        blurred = cv2.GaussianBlur(surface, (0, 0), smooth)
        surface = blurred * (surface.max() / blurred.max() if blurred.max() > 0 else 1.0)
    surface = at_size(surface, *drawn.shape[:2])
    for level in sorted(levels):
        above = (surface > level).astype(np.uint8)
        lines, _ = cv2.findContours(above, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        red, green, blue = (int(value) for value in colours(np.array(level), colour_map))
        cv2.polylines(drawn, lines, True, (0, 0, 0), 4, cv2.LINE_AA)
        cv2.polylines(drawn, lines, True, (red, green, blue), 2, cv2.LINE_AA)
    return drawn


def _check_finite(values: NDArray[Any]) -> None:
    if values.size == 0 or not np.isfinite(values).all():
        raise ParameterError("the map is empty or has values that are NaN or infinite; no picture can be drawn from it")
