"""Masks of what a map should show, brought to the network's size as the pictures are."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.bundle import Bundle
from onnxplain.errors import ParameterError, PictureError
from onnxplain.images import Image, image_size, spatial_axes
from onnxplain.pictures import read_picture
from onnxplain.preprocessing import prepare

Mask = NDArray[np.bool_]
NAME = "{name}"


def mask_files(place: str | os.PathLike[str], pictures: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """The mask's file of each picture: NAME.png in a folder, or a pattern such as "masks/{name}.digit.png".

    Raises PictureError for a picture without a mask, and says what is there instead.
    """
    text = os.fspath(place)
    pattern = text if NAME in text else os.path.join(text, NAME + ".png")
    found = []
    for picture in pictures:
        stem = Path(picture).stem
        file = Path(pattern.replace(NAME, stem))
        if not file.is_file():
            raise PictureError(f"{file}: no such mask for {os.fspath(picture)}{_hint(file, stem)}")
        found.append(file)
    return found


def _hint(file: Path, stem: str) -> str:
    if not file.parent.is_dir():
        return f"; {file.parent} is no folder"
    near = sorted(
        other.name for other in file.parent.iterdir() if other.name.startswith(stem) and other.suffix == ".png"
    )
    if not near:
        return f"; masks are PNG files of the picture's name, such as {stem}.png"
    pattern = file.parent / near[0].replace(stem, NAME)
    return f"; there is {' and '.join(near[:3])}: name them as {pattern}"


def masks_for(given: Sequence[Any], images: Sequence[Image], bundle: Bundle) -> Mask:
    """The masks of images as the network sees them, bool [N, H, W].

    Each is a file (any pixel that isn't black is inside) or an array [H, W] (any that isn't 0), of the size of the
    picture as it was handed in, which is resized (to the nearest pixel) and cropped as the picture is, or of the
    network's own size. Raises ParameterError for another size, and for an empty mask, with the sizes that fit.
    """
    if len(given) != len(images):
        raise ParameterError(f"{len(given)} masks for {len(images)} pictures")
    masks = [_mask_for(mask, image, bundle) for mask, image in zip(given, images, strict=True)]
    return np.stack(masks) if masks else np.zeros((0, 0, 0), bool)


def _mask_for(given: Any, image: Image, bundle: Bundle) -> Mask:
    mask = _read(given) if isinstance(given, str | os.PathLike) else np.asarray(given) != 0
    spatial_axes(bundle.image.layout, image.row)  # ParameterError for a network whose input is no picture
    target = image_size(bundle.image.layout, image.row)
    original = _original_size(image)
    name = os.fspath(given) if isinstance(given, str | os.PathLike) else f"the mask of {image.name}"
    if mask.ndim != 2 or mask.shape not in (original, target):
        raise ParameterError(f"{name} is of {_size(mask.shape)}; {_right(image, original, target)}")
    if not mask.any():
        raise ParameterError(f"{name} is empty; mark what the map should show, or leave the picture out")
    if mask.shape == original:
        mask = _as_seen(mask, bundle.steps)
        if not mask.any():
            raise ParameterError(
                f"{name} marks nothing that the network sees: it lies outside the crop, or is too thin"
            )
    return mask


def _right(image: Image, original: tuple[int, ...] | None, target: tuple[int, int]) -> str:
    if original is None or original == target:
        return f"{image.name} needs a mask of {_size(target)}"
    return f"{image.name} needs one of {_size(original)}, its own size, or of {_size(target)}, the network's"


def _size(shape: Sequence[int]) -> str:
    """Height by width, in words that can't be mistaken."""
    return f"{shape[0]} rows x {shape[1]} columns" if len(shape) == 2 else f"shape {list(shape)}"


def _read(path: str | os.PathLike[str]) -> Mask:
    import cv2  # heavy, and needed only where pictures are read or drawn

    read_picture(os.fspath(path))  # says what is wrong with a file that is no picture
    data = np.fromfile(path, np.uint8)
    # All bits of each pixel: labels of 16 bits may be small numbers, which read_picture rounds to black.
    pixels = cv2.imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    return np.asarray(np.asarray(pixels).any(axis=2))


def _original_size(image: Image) -> tuple[int, ...] | None:
    """Height and width of the picture as it was handed in, None where that was an array in the network's shape."""
    if image.path is not None:
        return read_picture(image.path, image.upright).shape[:2]
    return None if image.original is None else image.original.shape[:2]


def _as_seen(mask: Mask, steps: Sequence[Mapping[str, Any]]) -> Mask:
    """The mask resized and cropped as the picture is, nothing blended; what a crop pads is outside."""
    geometry = [
        {**step, "kernel": "nearest", "antialias": False} if step["step"] == "resize" else step
        for step in steps
        if step["step"] in ("resize", "crop")
    ]
    pixels = np.repeat(mask[:, :, None], 3, axis=2).astype(np.uint8) * 255
    return prepare(pixels, geometry).seen[:, :, 0] > 127
