"""Saliency maps as MindSpore XAI 2.0 draws them (visual/cv/saliency.py, Apache-2.0): viridis, opaque where strong.

Its numbers are kept to the last bit, which makes two things worth knowing: a constant map isn't normalised, and without
a picture behind it the opacity is dropped, not blended with black.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.display.viridis import viridis
from onnxplain.errors import ParameterError
from onnxplain.resize import resize

# As matplotlib's are: values [H, W] in 0..1 → RGBA [H, W, 4] in 0..1.
ColourMap = Callable[[NDArray[Any]], NDArray[Any]]


def normalize_saliency(saliency: NDArray[Any]) -> NDArray[Any]:
    """Return a map `[H, W]` (axes of size 1 are dropped) scaled from minimum 0 to maximum 1, in its own float type.

    A map that is constant or has values that aren't finite is returned as it is. Raises ParameterError for anything
    but float32 or float64 of two axes.
    """
    saliency = _one_map(saliency)
    low, high = saliency.min(), saliency.max()
    if not np.isfinite(low) or not np.isfinite(high) or high <= low:
        return saliency
    return (saliency - low) / (high - low)


def _one_map(saliency: NDArray[Any]) -> NDArray[Any]:
    squeezed = saliency if saliency.ndim == 2 else np.squeeze(saliency)
    if squeezed.ndim != 2 or squeezed.size == 0 or squeezed.dtype not in (np.float32, np.float64):
        given = f"{saliency.dtype} {list(saliency.shape)}"
        raise ParameterError(f"a saliency map is float32 or float64 [H, W], not {given}")
    return squeezed


def saliency_to_rgba(
    saliency: NDArray[Any],
    colour_map: ColourMap | None = None,
    alpha_factor: float = 1.2,
    as_uint8: bool = True,
    normalize: bool = True,
) -> NDArray[Any]:
    """Return RGBA `[H, W, 4]` of a map `[H, W]`: viridis, and `alpha_factor` times the map as opacity.

    uint8 (truncated, not rounded), or float64 in 0..1. `colour_map` may be any of matplotlib's. Raises ParameterError
    as `normalize_saliency` does.
    """
    shares = normalize_saliency(saliency) if normalize else _one_map(saliency)
    pixels = _viridis(shares) if colour_map is None else np.array(colour_map(shares), np.float64)
    pixels[:, :, -1] = shares * alpha_factor
    if not as_uint8:
        return np.clip(pixels, 0, 1)
    return np.nan_to_num(np.clip(pixels * 255, 0, 255), nan=0.0).astype(np.uint8)


def _viridis(shares: NDArray[Any]) -> NDArray[np.float64]:
    """RGBA float64 [H, W, 4] as matplotlib looks it up: truncated to 256 steps, clear where not a number."""
    known = ~np.isnan(shares)
    # The last step holds 1 itself.
    steps = np.clip(np.where(known, shares, 0) * 256, 0, 255).astype(np.int64)
    pixels = np.concatenate([viridis()[steps], np.ones((*shares.shape, 1))], axis=-1)
    return np.where(known[..., None], pixels, 0.0)


def saliency_to_image(
    saliency: NDArray[Any],
    original: NDArray[np.uint8] | None = None,
    colour_map: ColourMap | None = None,
    normalize: bool = True,
    with_alpha: bool = False,
) -> NDArray[np.uint8]:
    """Return a map `[H, W]` as a picture of its own size, RGB uint8 `[H, W, 3]`, or RGBA `[H, W, 4]` `with_alpha`.

    `original`, uint8 `[h, w, 3]`, `[h, w, 4]` or grey `[h, w]`, is brought to the map's size (bicubic, as Pillow) and
    put under it. Raises ParameterError as `normalize_saliency` does, or for another kind of picture.
    """
    drawn: NDArray[np.uint8] = saliency_to_rgba(saliency, colour_map, normalize=normalize)
    if original is not None:
        drawn = alpha_composite(_resized(_with_alpha(original), *drawn.shape[:2]), drawn)
    return drawn if with_alpha else drawn[..., :3]


def _with_alpha(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if picture.dtype != np.uint8 or not (picture.ndim == 2 or (picture.ndim == 3 and picture.shape[2] in (3, 4))):
        shape = list(picture.shape)
        raise ParameterError(f"a picture is uint8 [H, W, 3], [H, W, 4] or [H, W], not {picture.dtype} {shape}")
    colour = np.repeat(picture[..., None], 3, axis=2) if picture.ndim == 2 else picture
    if colour.shape[2] == 4:
        return colour
    return np.concatenate([colour, np.full((*colour.shape[:2], 1), 255, np.uint8)], axis=2)


def _resized(picture: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """RGBA [H, W, 4] at another size, as Pillow: colours are weighed by their opacity while they are mixed."""
    if picture.shape[:2] == (height, width):
        return picture
    weighed = np.concatenate([_over_255(picture[..., :3].astype(np.uint32) * picture[..., 3:]), picture[..., 3:]], 2)
    mixed = resize(weighed.astype(np.uint8), height, width, kernel="bicubic").astype(np.int64)
    colour, alpha = mixed[..., :3], mixed[..., 3:]
    unweighed = np.where((alpha == 0) | (alpha == 255), colour, np.minimum(255 * colour // np.maximum(alpha, 1), 255))
    return np.concatenate([unweighed, alpha], axis=2).astype(np.uint8)


def alpha_composite(under: NDArray[np.uint8], over: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return RGBA `over` on RGBA `under`, uint8 `[H, W, 4]`, in the whole numbers of Pillow's AlphaComposite.c."""
    lower, upper = under.astype(np.uint32), over.astype(np.uint32)
    lower_alpha, upper_alpha = lower[..., 3:], upper[..., 3:]
    opacity = upper_alpha * 255 + lower_alpha * (255 - upper_alpha)
    share = upper_alpha * 255 * 255 * 128 // np.maximum(opacity, 1)
    colour = _over_255(upper[..., :3] * share + lower[..., :3] * (255 * 128 - share), 128) // 128
    mixed = np.concatenate([colour, _over_255(opacity)], axis=-1)
    return np.where(upper_alpha == 0, lower, mixed).astype(np.uint8)


def _over_255(values: NDArray[np.uint32], unit: int = 1) -> NDArray[np.uint32]:
    """Whole `values` / 255, rounded, as Pillow's SHIFTFORDIV255 has it; `unit` is what they count 1 as."""
    values = values + np.uint32(128 * unit)
    return ((values >> np.uint32(8)) + values) >> np.uint32(8)
