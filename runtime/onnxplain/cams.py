"""The formulas of the CAM family: maps of a feature layer from its features and the gradient of the score at them.

Features are [N, K, h, w] and gradients [N, T, K, h, w]: K channels on a grid of h rows and w columns, T targets. Maps
are float64 [N, T, h, w], signed and at the layer's size; `positive` and `enlarged` come after. All are defined for
features and gradients of zeros, whose maps are zeros.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.errors import BundleError, ParameterError, unknown
from onnxplain.resize import interpolation_matrix, resize

Array = NDArray[Any]
Maps = NDArray[np.float64]
Cam = Callable[[Array, Array], Maps]

LAYOUTS = ("NCHW", "NHWC", "tokens")
ALONE = 2**18
"""Multiplications that OpenBLAS leaves to one thread."""

CAMS: dict[str, Cam] = {}
"""The formulas over features and gradients, by the finish rule that a bundle names."""


def cam(name: str) -> Callable[[Cam], Cam]:
    """Registers a formula `(features, gradients) -> maps`; a name can be taken once."""

    def register(function: Cam) -> Cam:
        if name in CAMS:
            raise ValueError(f"the CAM {name!r} is registered twice")
        CAMS[name] = function
        return function

    return register


def find_cam(name: str) -> Cam:
    """The registered formula; BundleError for one that this version doesn't know."""
    if name not in CAMS:
        raise BundleError(unknown("CAM formula", name, CAMS) + "; pip install --upgrade onnxplain")
    return CAMS[name]


def weighted(features: Array, weights: Array) -> Maps:
    """Σ_k w_k A_k for weights [N, T, K]."""
    count, channels, height, width = features.shape
    places = features.reshape(count, channels, height * width).astype(np.float64)
    return (weights.astype(np.float64) @ places).reshape(*weights.shape[:2], height, width)


def means(values: Array) -> NDArray[np.float64]:
    """The means over places of values [N, T, K, h, w]."""
    height, width = values.shape[-2:]
    return np.einsum("ntkhw->ntk", values, dtype=np.float64) / (height * width)  # without a copy in float64


@cam("gradcam")
def gradcam(features: Array, gradients: Array) -> Maps:
    """Σ_k w_k A_k with w_k the gradient's mean over places.

    Selvaraju et al.: Grad-CAM (2017, arXiv:1610.02391), who keep the positive part.
    """
    return weighted(features, means(gradients))


@cam("gradcam_plus_plus")
def gradcam_plus_plus(features: Array, gradients: Array) -> Maps:
    """Σ_k w_k A_k with w_k = Σ_ij α_ij max(g_ij, 0) and α_ij = g_ij² / (2 g_ij² + g_ij³ Σ_ab A_ab), 0 for 0 / 0.

    The closed form for a score Y = exp(S) of a logit S with gradient g whose own second derivatives vanish (a network
    of ReLUs): then Y' = Y g, Y'' = Y g², Y''' = Y g³. The factor Y > 0 of all of them is left out: it scales the map.
    Chattopadhyay et al.: Grad-CAM++ (2018, arXiv:1710.11063), who keep the positive part.
    """
    sums = features.sum(axis=(-2, -1), dtype=np.float64)[:, None, :, None, None]
    rising = np.maximum(gradients, 0).astype(np.float64)
    # α g is g / (2 + g ΣA); falling gradients have no part in the sum.
    below = 2 + rising * sums
    shares = np.divide(rising, below, out=np.zeros_like(rising), where=below != 0)
    return weighted(features, shares.sum(axis=(-2, -1)))


@cam("hirescam")
def hirescam(features: Array, gradients: Array) -> Maps:
    """Σ_k g_k A_k, place by place.

    Where the score is linear in the features, the map adds up to it but for the bias. Draelos, Carin: Use HiResCAM
    instead of Grad-CAM (2020, arXiv:2011.08891).
    """
    return np.einsum("ntkhw,nkhw->nthw", gradients.astype(np.float64), features.astype(np.float64))


@cam("layercam")
def layercam(features: Array, gradients: Array) -> Maps:
    """Σ_k max(g_k, 0) A_k, place by place.

    Jiang et al.: LayerCAM (2021, doi:10.1109/TIP.2021.3089943), who keep the positive part.
    """
    return hirescam(features, np.maximum(gradients, 0))


@cam("xgradcam")
def xgradcam(features: Array, gradients: Array) -> Maps:
    """Σ_k w_k A_k with w_k = Σ_ij g_ij A_ij / Σ_ij A_ij, 0 for a channel that adds up to 0.

    Fu et al.: Axiom-based Grad-CAM (2020, arXiv:2008.02312).
    """
    sums = features.sum(axis=(-2, -1), dtype=np.float64)[:, None]
    products = np.einsum("ntkhw,nkhw->ntk", gradients.astype(np.float64), features.astype(np.float64))
    return weighted(features, np.divide(products, sums, out=np.zeros_like(products), where=sums != 0))


@cam("eigencam")
def eigencam(features: Array, gradients: Array) -> Maps:
    """The projection of each place's features [K] on their first right singular vector; the same for every target.

    The features aren't centred, as in the paper. A singular vector has no sign of its own: this one's makes the map add
    up to more than 0 (where it adds up to 0, its largest number by magnitude is positive), so that features from a ReLU
    have a map that is nowhere negative. Muhammad, Yeasin: Eigen-CAM (2020, arXiv:2008.00299).
    """
    count, channels, height, width = features.shape
    places = features.reshape(count, channels, height * width).transpose(0, 2, 1).astype(np.float64)
    left, values, _ = np.linalg.svd(places, full_matrices=False)
    maps = left[:, :, 0] * values[:, :1]
    total = maps.sum(axis=1)
    peaks = np.take_along_axis(maps, np.abs(maps).argmax(axis=1)[:, None], axis=1)[:, 0]
    level = np.abs(total) <= 1e-12 * np.abs(maps).sum(axis=1)
    signs = np.where(np.where(level, peaks, total) < 0, -1.0, 1.0)
    repeated = np.broadcast_to((maps * signs[:, None])[:, None], (count, gradients.shape[1], height * width))
    return repeated.reshape(count, gradients.shape[1], height, width).copy()


def scorecam_masks(features: Array, size: tuple[int, int]) -> NDArray[np.float32]:
    """Score-CAM's masks [K, H, W] of one image's features [K, h, w]: enlarged, each from 0 at its least to 1.

    Wang et al.: Score-CAM (2020, arXiv:1910.01279), equation 4. A constant channel's mask is 0.
    """
    large = enlarged(features, size)
    low, high = (reduce(large, axis=(-2, -1), keepdims=True) for reduce in (np.min, np.max))
    return np.divide(large - low, high - low, out=np.zeros_like(large), where=high > low).astype(np.float32)


def scorecam(features: Array, gains: Array) -> Maps:
    """Σ_k w_k A_k with w_k, `gains` [N, T, K], the score through the channel's mask minus the score of no picture.

    Wang et al. (as above), equations 5 to 7, on the probability (their section 3.3), who keep the positive part.
    """
    return weighted(features, gains)


def ablationcam(features: Array, scores: Array, ablated: Array) -> Maps:
    """Σ_k w_k A_k with w_k = (y − y_k) / |y|: how far the score y [N, T] falls to y_k [N, T, K] without channel k.

    The paper divides by y, which turns the map round where the score is negative; for y = 0 nothing is divided.
    Desai, Ramaswamy: Ablation-CAM (2020, doi:10.1109/WACV45572.2020.9093360), who keep the positive part.
    """
    y = scores.astype(np.float64)[..., None]
    return weighted(features, (y - ablated) / np.where(y == 0, 1.0, np.abs(y)))


def single_places(features: Array, first: int, last: int) -> Array:
    """One image's features [K, h, w] with all places but one set to 0, for the places `first` to `last`: [M, K, h, w].

    Places are counted row by row. Byun, Lee: Recipro-CAM (2022, arXiv:2209.14074): the map at a place is the
    probability that the network finds with that place alone.
    """
    height, width = features.shape[1:]
    kept = np.zeros((last - first, height * width), features.dtype)
    kept[np.arange(last - first), np.arange(first, last)] = 1
    return features[None] * kept.reshape(-1, 1, height, width)


def on_grid(values: Array, layout: str, grid: tuple[int, int], prefix: int = 0) -> Array:
    """Values of a layer [..., its own axes] as [..., K, h, w]; tokens that stand for no place are left out."""
    if layout not in LAYOUTS:
        raise BundleError(unknown("layer layout", layout, LAYOUTS) + "; pip install --upgrade onnxplain")
    if layout == "NCHW":
        return values
    if layout == "NHWC":
        return np.moveaxis(values, -1, -3)
    places = values[..., prefix:, :]
    return np.moveaxis(places.reshape(*places.shape[:-2], *grid, places.shape[-1]), -1, -3)


def in_layout(values: Array, layout: str, before: Array | None = None) -> Array:
    """What `on_grid` undoes: [..., K, h, w] in the layer's own axes, behind the tokens `before` [..., prefix, K]."""
    if layout == "NCHW":
        return values
    last = np.moveaxis(values, -3, -1)
    if layout == "NHWC":
        return last
    tokens = last.reshape(*last.shape[:-3], -1, last.shape[-1])
    if before is None:
        return tokens
    return np.concatenate([np.broadcast_to(before, (*tokens.shape[:-2], *before.shape[-2:])), tokens], axis=-2)


def positive(maps: Array) -> Array:
    """The positive part: what speaks for the target."""
    return np.maximum(maps, 0)


def enlarged(maps: Array, size: tuple[int, int]) -> Maps:
    """Maps [..., h, w] at the picture's size (H, W): bilinear, centres at half-integers, borders repeated."""
    rows, columns = (_enlarging(source, target) for source, target in zip(maps.shape[-2:], size, strict=True))
    return _product(_product(rows, maps.astype(np.float64)), columns.T)


def _product(left: Maps, right: Maps) -> Maps:
    """left [..., m, k] @ right [..., k, n] in pieces of some rows, too small for BLAS to share them among threads.

    Where others have the cores, its threads take milliseconds to wake, at times tens of them: longer than the product.
    """
    step = max(1, ALONE // max(1, right.shape[-2] * right.shape[-1]))
    batch = np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
    product = np.empty((*batch, left.shape[-2], right.shape[-1]))
    for start in range(0, left.shape[-2], step):
        part = slice(start, start + step)
        np.matmul(left[..., part, :], right, out=product[..., part, :])
    return product


@lru_cache(maxsize=8)
def _enlarging(source: int, target: int) -> Maps:
    matrix = interpolation_matrix(source, target, "bilinear", antialias=False)
    matrix.flags.writeable = False
    return matrix


def enlarged_in_bytes(maps: Array, size: tuple[int, int]) -> Maps:
    """Maps [..., h, w] at the picture's size as MindSpore XAI 2.0.0 makes it: through 8 bits, by Pillow's bilinear.

    What lies outside 0..1 wraps around (1.2 becomes 50/255), and what is below 1/255 is lost. Its pictures are square;
    of others this gives the map that it means, where it swaps height and width.
    """
    bytes_of = np.trunc(maps.astype(np.float32) * np.float32(255)).astype(np.int64).astype(np.uint8)
    planes = bytes_of.reshape(-1, *maps.shape[-2:])
    large = [
        resize(plane[..., None], *size, kernel="bilinear", antialias=True, rounded=True)[..., 0] for plane in planes
    ]
    return (
        np.stack(large).reshape(*maps.shape[:-2], *size) / np.float64(255)
        if large
        else np.zeros((*maps.shape[:-2], *size))
    )


UPSAMPLING: Mapping[str, Callable[[Array, tuple[int, int]], Array]] = {
    "bilinear": enlarged,
    "bytes": enlarged_in_bytes,
    "none": lambda maps, size: maps,  # noqa: ARG005 (the table's signature)
}
"""How a map of the layer comes to the picture's size, if at all."""


def upsampled(maps: Array, size: tuple[int, int], how: str) -> Array:
    """Maps [..., h, w] by the rule of that name."""
    if how not in UPSAMPLING:
        raise ParameterError(unknown("upsample", how, UPSAMPLING))
    return UPSAMPLING[how](maps, size)


def guided(maps: Array, gradients: Array, layout: str) -> Array:
    """Guided Grad-CAM [N, T, …]: positive maps [N, T, H, W] times the guided gradient [N, T, …] of every channel.

    Selvaraju et al. (2017, as above), section 3.2.
    """
    return maps[:, :, None] * gradients if layout == "NCHW" else maps[..., None] * gradients
