"""Turns what a caller hands in (paths, uint8 pictures, float arrays) into rows for the network."""

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.array_files import SUFFIXES, read_arrays
from onnxplain.bundle import Bundle, Input
from onnxplain.errors import ParameterError, PictureError, unknown
from onnxplain.pictures import read_picture
from onnxplain.preprocessing import Box, is_upright, prepare

SPATIAL = {"NCHW": (2, 3), "NHWC": (1, 2)}


@dataclass(frozen=True, eq=False)
class Image:
    """One image on its way through the engine: its row [1, …] and what is known of the picture behind it.

    `others` are its rows [1, …] for the network's other inputs, or what all images share. `box` is where the picture
    that the network sees lies in the original. `original` is the picture that was handed in; a file is read again, from
    `path`. What was made from the caller's own is given: the hash of it, and the `prepared` picture; of a row as the
    network takes it both are found when somebody asks, the picture by undoing the `steps` of the preprocessing.
    """

    name: str
    row: NDArray[Any]
    given_hash: str = ""
    prepared: NDArray[np.uint8] | None = None
    steps: Sequence[Mapping[str, Any]] = ()
    box: Box | None = None
    original: NDArray[np.uint8] | None = None
    path: Path | None = None
    upright: bool = True
    others: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    @cached_property
    def sha256(self) -> str:
        """The SHA-256 of what was handed in: the file, or the array's bytes."""
        return self.given_hash or _hash(self.row)

    @cached_property
    def seen(self) -> NDArray[np.uint8] | None:
        """The picture as the network sees it, uint8 [H, W, 3]; None where that isn't known."""
        return _undone(self.row[0], self.steps) if self.prepared is None else self.prepared


def spatial_axes(layout: str | None, rows: NDArray[Any]) -> tuple[int, int]:
    """The axes of height and width in a batch; ParameterError for a network whose input isn't a picture."""
    if layout not in SPATIAL or rows.ndim != 4:
        raise ParameterError("this network's input is no picture (no height and width); give an array or a number")
    return SPATIAL[layout]


def image_size(layout: str | None, rows: NDArray[Any]) -> tuple[int, int]:
    """Height and width of a batch, or (0, 0) where the input isn't a picture."""
    if layout not in SPATIAL or rows.ndim != 4:
        return 0, 0
    height, width = SPATIAL[layout]
    return rows.shape[height], rows.shape[width]


def is_one(images: Any) -> bool:
    """Whether `images` is one object that holds all images: a path, an array, or arrays by the inputs' names."""
    return isinstance(images, str | os.PathLike | np.ndarray | Mapping)


def listed(images: Any, bundle: Bundle) -> list[Any]:
    """One entry per image, from a single path or picture, a batch array, a list of any, or these by input names."""
    if isinstance(images, Mapping):
        return _dealt(images, bundle)
    if isinstance(images, str | os.PathLike):
        return [images]
    if isinstance(images, np.ndarray):
        # A picture in bytes is [H, W, 3] or [H, W], whatever the network's own layout.
        pictures = images.dtype == np.uint8 and bundle.steps
        single = images.ndim <= 3 if pictures else images.ndim == len(bundle.image.shape) - 1
        return [images] if single else list(images)
    if not isinstance(images, Iterable):
        raise PictureError(f"{type(images).__name__} is no picture, array or list of them")
    return list(images)


def _dealt(images: Mapping[str, Any], bundle: Bundle) -> list[Any]:
    """Arrays of all images by the inputs' names, dealt out to one mapping for each image."""
    known = [entry.name for entry in bundle.inputs]
    for name in images:
        if name not in known:
            raise ParameterError(unknown("input", name, known))
    if bundle.image.name not in images:
        raise ParameterError(f"the explained input {bundle.image.name!r} is missing; the network takes {known}")
    rows = listed(images[bundle.image.name], bundle)
    one = len(rows) == 1
    dealt: list[dict[str, Any]] = [{bundle.image.name: row} for row in rows]
    for entry in bundle.others:
        if entry.name not in images:
            raise ParameterError(f"input {entry.name!r} is missing; the network takes {known}")
        values = np.asarray(images[entry.name])
        if one and values.ndim == len(entry.shape) - 1:
            values = values[None]
        if entry.batched and len(values) != len(rows):
            raise ParameterError(f"input {entry.name!r} has {len(values)} rows for {len(rows)} images")
        for index, row in enumerate(dealt):
            row[entry.name] = values[index] if entry.batched else values
    return dealt


def read_images(
    images: Any, bundle: Bundle, on_error: Callable[[str, PictureError], None] | None = None, first: int = 0
) -> list[Image]:
    """The images, preprocessed; one that can't be read goes to `on_error` and is left out, or raises PictureError.

    `first` is the number of the first image, by which an array is named.
    """
    found, ours = [], _are_rows(images, bundle)
    # A batch is copied once; its images are parts of that, which a run takes as they are.
    for number, image in enumerate(listed(images.copy() if ours else images, bundle), first):
        try:
            found.append(read_image(image, number, bundle, ours))
        except PictureError as error:
            if on_error is None:
                raise
            on_error(_name(image, number), error)
    return found


def _are_rows(images: Any, bundle: Bundle) -> bool:
    """Whether the images are one array of rows as the network takes them."""
    if not isinstance(images, np.ndarray) or images.dtype != bundle.image.dtype:
        return False
    pictures = images.dtype == np.uint8 and bundle.steps
    return images.ndim == len(bundle.image.shape) and not pictures


def _name(image: Any, number: int) -> str:
    """What errors and provenance call an image; where it comes with other inputs, the path among them."""
    if isinstance(image, Mapping):
        image = next((value for value in image.values() if isinstance(value, str | os.PathLike)), None)
    return os.fspath(image) if isinstance(image, str | os.PathLike) else f"image {number}"


def read_image(image: Any, number: int, bundle: Bundle, ours: bool = False) -> Image:
    """One image from a path, a uint8 picture or an array in the network's shape; `number` names it in errors.

    Where the network has several inputs, from a mapping of their names to these. A path is a picture's, or that of a
    .npy or .npz file with one example. An array is copied unless it is `ours`: its owner may change it later.
    """
    if isinstance(image, str | os.PathLike) and Path(image).suffix.lower() in SUFFIXES:
        content = read_arrays(Path(image))
        if isinstance(content, dict) and not bundle.others and len(content) == 1:
            content = next(iter(content.values()))
        return replace(read_image(content, number, bundle), name=os.fspath(image))
    if isinstance(image, Mapping):
        (dealt,) = _dealt(image, bundle)
        others = {entry.name: _other(dealt[entry.name], entry) for entry in bundle.others}
        return replace(_read(dealt[bundle.image.name], number, bundle), others=others)
    if bundle.others:
        names = ", ".join(repr(entry.name) for entry in bundle.inputs)
        raise ParameterError(f"the network has several inputs; give a mapping with {names}")
    return _read(image, number, bundle, ours)


def _read(image: Any, number: int, bundle: Bundle, ours: bool = False) -> Image:
    name = _name(image, number)
    if isinstance(image, str | os.PathLike):
        path = Path(image)
        pixels = read_picture(path, is_upright(bundle.steps))
        return prepared_image(name, hashlib.sha256(path.read_bytes()).hexdigest(), pixels, bundle, path=path)
    return image_of_array(name, np.asarray(image), bundle, ours)


def image_of_array(name: str, array: NDArray[Any], bundle: Bundle, ours: bool = False) -> Image:
    """One image from a uint8 picture, or from an array in the network's shape; PictureError where it doesn't fit."""
    if array.dtype == np.uint8 and bundle.steps:
        return prepared_image(name, _hash(array), _three_channels(name, array), bundle)
    return _as_is(name, array, bundle, ours)


def _hash(array: NDArray[Any]) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data).hexdigest()


def _three_channels(name: str, array: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if array.ndim == 2:
        return np.repeat(array[:, :, None], 3, axis=2)
    if array.ndim != 3 or array.shape[2] not in (1, 3):
        raise PictureError(f"{name}: a uint8 picture is [H, W, 3] or [H, W], not {list(array.shape)}")
    return np.repeat(array, 3, axis=2) if array.shape[2] == 1 else array


def prepared_image(
    name: str, sha256: str, pixels: NDArray[np.uint8], bundle: Bundle, path: Path | None = None
) -> Image:
    """One image from a picture, RGB uint8 [H, W, 3], preprocessed; PictureError where it doesn't fit."""
    if not bundle.steps:
        raise PictureError(
            f"{name}: no preprocessing in the bundle; give float arrays, or export it with --preprocessing"
        )
    prepared = prepare(pixels, bundle.steps)
    row: NDArray[Any] = prepared.rows[None]
    _check_shape(name, row, bundle.image)
    if bundle.takes_pictures:
        row = pixels[None]
    original = None if path else pixels
    picture, upright = prepared.seen, is_upright(bundle.steps)
    return Image(name, row, sha256, picture, box=prepared.box, original=original, path=path, upright=upright)


def _as_is(name: str, array: NDArray[Any], bundle: Bundle, ours: bool) -> Image:
    if array.dtype.kind not in "fiub":
        raise PictureError(f"{name}: an array of {array.dtype} is no image")
    if bundle.takes_pictures:
        raise PictureError(f"{name}: this file takes pictures, uint8 [H, W, 3], not {array.dtype} {list(array.shape)}")
    if np.dtype(bundle.image.dtype).kind in "iu" and array.dtype.kind not in "iub":
        raise PictureError(f"{name}: the input {bundle.image.name!r} takes whole numbers, not {array.dtype}")
    row = array.astype(bundle.image.dtype, copy=not ours)
    has_batch_axis = array.ndim == len(bundle.image.shape) and array.shape[0] == 1
    row = row if has_batch_axis else row[None]
    _check_shape(name, row, bundle.image)
    if not np.isfinite(row).all():
        raise PictureError(f"{name} contains NaN or infinity")
    same = row.dtype == array.dtype  # a copy, which the caller can't change before it is hashed
    return Image(name, row, "" if same else _hash(array), steps=bundle.steps)


def _undone(row: NDArray[np.float32], steps: Sequence[Mapping[str, Any]]) -> NDArray[np.uint8] | None:
    """The picture [H, W, 3] that a preprocessed row [C, H, W] or [H, W, C] stands for; None without preprocessing."""
    if not steps or row.ndim != 3:
        return None
    by_name = {step["step"]: step for step in steps}
    values = row.astype(np.float64)
    values = values.transpose(1, 2, 0) if by_name["layout"]["order"] == "NCHW" else values
    values = values * by_name.get("std", {"values": 1})["values"] + by_name.get("mean", {"values": 0})["values"]
    values = values / by_name.get("scale", {"factor": 1})["factor"]
    pixels = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    if by_name.get("colour", {}).get("order") == "BGR":
        pixels = pixels[..., ::-1]
    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else np.ascontiguousarray(pixels)


def _other(value: Any, entry: Input) -> NDArray[Any]:
    """What one image gives to an input that isn't explained, with a batch axis where the input has one."""
    array = np.asarray(value)
    row = (array[None] if entry.batched else array).astype(entry.dtype)
    if list(row.shape[1:] if entry.batched else row.shape) != list(entry.shape[1:] if entry.batched else entry.shape):
        raise ParameterError(f"input {entry.name!r} takes {list(entry.shape)}, not {list(row.shape)}")
    return row


def _check_shape(name: str, row: NDArray[Any], entry: Input) -> None:
    expected, given = list(entry.shape[1:]), list(row.shape[1:])
    fits = len(expected) == len(given) and all(
        not isinstance(size, int) or size == got for size, got in zip(expected, given, strict=True)
    )
    if not fits:
        hint = "; hand in a picture as uint8 [H, W, 3]" if len(given) == 3 and given[2] == 3 else ""
        raise PictureError(
            f"{name} has shape {given}; the network's input {entry.name!r} takes {expected} an image{hint}"
        )


def stack(images: Sequence[Image], entry: Input) -> NDArray[Any]:
    """The images' rows as one batch [N, …]; PictureError where their sizes differ."""
    if not images:
        return np.zeros((0, *(size if isinstance(size, int) else 1 for size in entry.shape[1:])), entry.dtype)
    for image in images:
        if image.row.shape != images[0].row.shape:
            raise PictureError(
                f"{image.name} has shape {list(image.row.shape[1:])} and {images[0].name} "
                f"{list(images[0].row.shape[1:])}; images of one call need one size"
            )
    return images[0].row if len(images) == 1 else _joined([image.row for image in images])


def _joined(rows: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Rows [1, …] as one array [N, …]: that of which they are neighbouring parts, where they are."""
    whole = rows[0].base
    if isinstance(whole, np.ndarray) and whole.shape[1:] == rows[0].shape[1:] and whole.flags.c_contiguous:
        start, size = rows[0].ctypes.data, rows[0].nbytes
        inside = all(row.base is whole and row.ctypes.data == start + size * n for n, row in enumerate(rows))
        first = (start - whole.ctypes.data) // max(1, size)
        if inside and first + len(rows) <= len(whole):
            return whole[first : first + len(rows)]
    return np.concatenate(rows)


def stack_others(images: Sequence[Image], bundle: Bundle) -> dict[str, NDArray[Any]]:
    """What the images give to the inputs that aren't explained, as batches; ParameterError where shared ones differ."""
    found = {}
    for entry in bundle.others:
        rows = [image.others[entry.name] for image in images]
        if entry.batched:
            found[entry.name] = np.concatenate(rows) if rows else np.zeros((0, 1), entry.dtype)
        elif all(np.array_equal(row, rows[0]) for row in rows):
            found[entry.name] = rows[0]
        else:
            raise ParameterError(
                f"input {entry.name!r} has no batch axis: it must be the same for all images of a call"
            )
    return found
