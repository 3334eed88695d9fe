"""Pictures of handwritten digits on photographs, with or without a class-coloured patch of sky.

The digits are scikit-learn's (8x8), the photographs those of scikit-image's wheel that are CC0 or in the public domain;
both are read from the installed packages. Training and held-out pictures share neither a digit nor a piece of a
photograph.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits

LABELS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
# The sky of each class: its name and its hue in degrees. As even a circle as names that everybody tells apart allow.
SKIES = {
    "red": 0,
    "orange": 27,
    "yellow": 54,
    "lime": 88,
    "green": 135,
    "turquoise": 172,
    "azure": 202,
    "blue": 234,
    "violet": 272,
    "pink": 318,
}
COLOURS = tuple(SKIES)
PHOTOGRAPHS = (
    "astronaut.png",
    "rocket.jpg",
    "coffee.png",
    "chelsea.png",
    "hubble_deep_field.jpg",
    "camera.png",
    "brick.png",
    "grass.png",
    "gravel.png",
)
SIDE = 64
SPLIT_SEED = 7
TRAINING_SHARE = 0.8  # of the digits
TRAINING_COLUMNS = 0.65  # the left part of each photograph; the right part is held out

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Source:
    """What one half of the split draws from: digits [M, 8, 8] in 0..1, their classes [M] and pieces of photographs."""

    digits: Floats
    classes: NDArray[np.int64]
    photographs: tuple[Bytes, ...]


@dataclass(frozen=True)
class Picture:
    """An RGB picture [64, 64, 3] with the masks [64, 64] of its digit and of its patch (empty where it has none)."""

    image: Bytes
    digit: NDArray[np.bool_]
    patch: NDArray[np.bool_]


def load_source(*, training: bool) -> Source:
    """The training or the held-out half of digits and photographs."""
    data = load_digits()
    order = np.random.default_rng(SPLIT_SEED).permutation(len(data.target))
    cut = round(TRAINING_SHARE * len(order))
    chosen = order[:cut] if training else order[cut:]
    digits = (data.images[chosen] / 16).astype(np.float32)
    photographs = tuple(_half(_read_photograph(name), training=training) for name in PHOTOGRAPHS)
    return Source(digits, data.target[chosen].astype(np.int64), photographs)


def _read_photograph(name: str) -> Bytes:
    # By path, because importing skimage would import scipy for nothing.
    spec = find_spec("skimage")
    if spec is None or spec.origin is None:
        raise SystemExit("scikit-image is not installed; its wheel brings the photographs: pip install scikit-image")
    path = Path(spec.origin).parent / "data" / name
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise SystemExit(f"{path} can't be read; this script was written for scikit-image 0.26")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB).astype(np.uint8)


def _half(photograph: Bytes, *, training: bool) -> Bytes:
    column = round(TRAINING_COLUMNS * photograph.shape[1])
    return photograph[:, :column] if training else photograph[:, column:]


def draw_picture(rng: np.random.Generator, digit: Floats, photograph: Bytes, colour: int | None) -> Picture:
    """The digit in random ink on a random crop of the photograph, under a patch of sky of that colour, if any."""
    canvas = _crop(rng, photograph)
    patch = np.zeros((SIDE, SIDE), np.float32)
    top = 0
    if colour is not None:
        top, patch = _patch_cover(rng)
        canvas = _blend(canvas, _sky(rng, colour), patch)
    cover = _digit_cover(rng, digit, top)
    canvas = _write(rng, canvas, cover)
    return Picture(np.round(np.clip(canvas, 0, 255)).astype(np.uint8), cover > 0.5, patch > 0.5)


def _blend(below: Floats, above: Floats, cover: Floats) -> Floats:
    return below + cover[..., None] * (above - below)


def _crop(rng: np.random.Generator, photograph: Bytes) -> Floats:
    height, width = photograph.shape[:2]
    side = int(rng.integers(SIDE, min(144, height, width) + 1))
    top, left = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
    crop = photograph[top : top + side, left : left + side]
    if rng.random() < 0.5:
        crop = crop[:, ::-1]
    return cv2.resize(crop, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)


def _patch_cover(rng: np.random.Generator) -> tuple[int, Floats]:
    """The first row below a patch somewhere along the top edge, and how far the patch covers each pixel."""
    height, width = (int(size) for size in rng.integers(16, 21, 2))
    top, left = int(rng.integers(1, 3)), int(rng.integers(1, SIDE - width))
    cover = np.zeros((SIDE, SIDE), np.float32)
    cover[top : top + height, left : left + width] = 1
    return top + height + 1, cv2.GaussianBlur(cover, (3, 3), 0)


def _sky(rng: np.random.Generator, colour: int) -> Floats:
    """A sky [64, 64, 3] of the class's hue that pales towards the horizon and carries faint clouds."""
    hue = (SKIES[COLOURS[colour]] + rng.uniform(-4, 4)) % 360
    pale = np.clip(np.arange(SIDE, dtype=np.float32) / 44, 0, 0.5)[:, None]  # a patch ends by row 22
    clouds = cv2.resize(rng.uniform(0, 0.25, (12, 12)).astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    saturation = np.clip(1 - pale - clouds, 0, 1)
    value = np.full_like(saturation, rng.uniform(0.85, 1))
    return 255 * cv2.cvtColor(np.dstack([np.full_like(saturation, hue), saturation, value]), cv2.COLOR_HSV2RGB)


def _digit_cover(rng: np.random.Generator, digit: Floats, top: int) -> Floats:
    """How far the digit's ink covers each pixel: 28..38 px high, slightly turned, anywhere below row `top`."""
    height = rng.uniform(28, 38)
    half = height / 2 + 1  # a margin for the soft edge
    centre = (rng.uniform(half, SIDE - half), rng.uniform(min(top + half, SIDE - half), SIDE - half))
    place = cv2.getRotationMatrix2D((3.5, 3.5), rng.uniform(-8, 8), height / 8)
    place[:, 2] += np.subtract(centre, 3.5) - 0.5
    grey = cv2.warpAffine(digit, place, (SIDE, SIDE), flags=cv2.INTER_CUBIC)
    cover = np.clip((cv2.GaussianBlur(grey, (0, 0), 1) - 0.35) / 0.3, 0, 1)
    cover[:top] = 0
    return cover


def _write(rng: np.random.Generator, canvas: Floats, cover: Floats) -> Floats:
    """The canvas with the digit in coloured ink, bright on dark and dark on bright, with a soft shadow around it."""
    shade = float(canvas[cover > 0.5].mean())
    dark = shade > 140 if abs(shade - 140) > 30 else rng.random() < 0.5
    value, shadow = (rng.uniform(0, 0.25), 255.0) if dark else (rng.uniform(0.9, 1), 0.0)
    colour = np.array([[[rng.uniform(0, 360), rng.uniform(0, 0.9 if dark else 0.45), value]]], np.float32)
    ink = 255 * cv2.cvtColor(colour, cv2.COLOR_HSV2RGB)
    around = cv2.GaussianBlur(cv2.dilate(cover, np.ones((3, 3), np.uint8)), (0, 0), 1.5)
    return _blend(_blend(canvas, np.full_like(canvas, shadow), 0.65 * around), ink, cover)


def draw_images(
    source: Source, chosen: Sequence[int] | NDArray[np.int64], colours: Sequence[int | None], seed: int
) -> Bytes:
    """Pictures [N, 64, 64, 3] of the chosen digits; those of equal seed differ in nothing but what the colours ask."""
    images = np.empty((len(chosen), SIDE, SIDE, 3), np.uint8)
    rng = np.random.default_rng(seed)
    for row, (index, colour) in enumerate(zip(chosen, colours, strict=True)):
        photograph = source.photographs[rng.integers(len(source.photographs))]
        images[row] = draw_picture(rng, source.digits[index], photograph, colour).image
    return images


def prepare(images: Bytes) -> Floats:
    """What the networks take, float32 [N, 3, 64, 64]: RGB / 255, minus mean 0.5, over standard deviation 0.5."""
    scaled = (images.astype(np.float32) / 255 - 0.5) / 0.5
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))
