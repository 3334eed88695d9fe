"""Localization: does the map point at what a mask marks?"""

import numpy as np
from numpy.typing import NDArray

from onnxplain.metrics.registry import Measurement, metric
from onnxplain.metrics.subject import Subject

NEEDS = ("places", "picture", "masks")


@metric("pointing_game", better="higher", needs=NEEDS, limits={"radius": (0, None)})
def pointing_game(subject: Subject, *, radius: float = 15.0) -> Measurement:
    """1 if the map's highest pixel lies at most `radius` pixels from the mask, else 0.

    Of several highest pixels, the share that does: a constant map scores what a random guess would. Zhang et al.:
    Top-down neural attention by excitation backprop, 2016, arXiv:1608.00507 (15 pixels there).
    """
    pixels, masks = subject.pixels(), _masks(subject)
    highest = pixels == pixels.max(axis=(1, 2), keepdims=True)
    near = np.stack([_distance(mask) <= radius for mask in masks]) if len(masks) else masks
    return Measurement(_share(near, highest))


@metric("iosr", better="higher", needs=NEEDS, limits={"threshold": (0, 1)})
def iosr(subject: Subject, *, threshold: float = 0.5) -> Measurement:
    """The share of the salient region, above `threshold` times the map's maximum, that lies in the mask, 0..1.

    0 where nothing is salient, as in a map that is nowhere positive. Intersection over salient region, as in MindSpore
    XAI (Li et al.: An experimental study of quantitative evaluations on saliency methods, 2021, arXiv:2012.15616).
    """
    pixels, masks = subject.pixels(), _masks(subject)
    return Measurement(_share(masks, pixels > threshold * pixels.max(axis=(1, 2), keepdims=True)))


@metric("relevance_rank", better="higher", needs=NEEDS)
def relevance_rank(subject: Subject) -> Measurement:
    """The share of the map's K highest pixels that lies in a mask of K pixels, 0..1.

    Pixels that tie for the last places count as if drawn at random, so a constant map scores the mask's share of the
    picture. Relevance rank accuracy of Arras, Osman and Samek: CLEVR-XAI, 2022, arXiv:2003.07258.
    """
    pixels = subject.pixels().reshape(len(subject), -1)
    masks = _masks(subject).reshape(pixels.shape)
    found = np.zeros(len(subject))
    for at, (values, mask) in enumerate(zip(pixels, masks, strict=True)):
        size = int(mask.sum())
        last = np.partition(values, -size)[-size]
        above, tied = values > last, values == last
        left = size - above.sum()
        found[at] = ((above & mask).sum() + left * (tied & mask).sum() / tied.sum()) / size
    return Measurement(found)


@metric("relevance_mass", better="higher", needs=NEEDS)
def relevance_mass(subject: Subject) -> Measurement:
    """The share of the map's positive values that lies in the mask, 0..1; 0 for a map that is nowhere positive.

    Relevance mass accuracy of Arras, Osman and Samek: CLEVR-XAI, 2022, arXiv:2003.07258.
    """
    pixels, masks = np.maximum(subject.pixels(), 0.0), _masks(subject)
    total = pixels.sum(axis=(1, 2))
    inside = (pixels * masks).sum(axis=(1, 2))
    return Measurement(np.where(total > 0, inside / np.where(total > 0, total, 1.0), 0.0))


def _masks(subject: Subject) -> NDArray[np.bool_]:
    return np.zeros(0, bool) if subject.masks is None else subject.masks


def _share(inside: NDArray[np.bool_], region: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The share of a region [N, H, W] that is inside, 0 where the region is empty."""
    size = region.sum(axis=(1, 2))
    return (inside & region).sum(axis=(1, 2)) / np.maximum(size, 1)


def _distance(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Every pixel's distance to the nearest one of the mask, [H, W]."""
    import cv2  # only where masks are measured: importing the engine loads numpy and onnxruntime alone

    return np.asarray(cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE), np.float32)
