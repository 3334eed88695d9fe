"""The entries of an iterable: pictures, pairs of picture and class, mappings, and batches of these."""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sized
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from onnxplain.jobs.items import Item, as_array


def content_of(picture: Any) -> tuple[Any, str | None]:
    """What an item holds of a picture, or the text of why there is none; and the name that it has."""
    if isinstance(picture, str | os.PathLike):
        return Path(picture), os.fspath(picture)
    if isinstance(picture, bytes | bytearray | memoryview):
        return bytes(picture), None
    if isinstance(picture, Mapping):  # of a data set that doesn't decode: {"bytes": …, "path": …}
        data, path = picture.get("bytes"), picture.get("path")
        return (bytes(data), path) if data else (Path(path), path) if path else (Missing(), None)
    if picture is None:
        return Missing(), None
    try:
        return as_array(picture), getattr(picture, "filename", None) or None
    except Exception as error:  # Pillow opens files only now; that one can't be read is this picture's matter
        return Missing(f"{type(error).__name__}: {error}"), None


class Missing(str):
    """Why there is no picture."""

    def __new__(cls, text: str = "there is no picture") -> "Missing":
        """The text."""
        return super().__new__(cls, text)


def is_pair(entry: Any) -> bool:
    """Whether an entry is a picture and its class, as torchvision's data sets give them."""
    if not isinstance(entry, tuple | list) or len(entry) != 2:
        return False
    second = entry[1]
    return getattr(second, "ndim", 0) < 2 and not isinstance(second, bytes | Mapping) and not hasattr(second, "convert")


def singles(entry: Any, image: str) -> Iterator[Any] | None:
    """The entries of a batch, as loaders make them; None for an entry that is no batch.

    That is an array of four axes, several pictures in a list, a pair with one of these first, or a mapping with one
    of these under `image`: what is as long is dealt out, anything else holds for all.
    """
    if isinstance(entry, Mapping):
        count = _length(entry.get(image))
        if count is None:
            return None
        return ({key: _dealt(value, count, number) for key, value in entry.items()} for number in range(count))
    if is_pair(entry):
        count = _length(entry[0])
        return None if count is None else (tuple(_dealt(part, count, i) for part in entry) for i in range(count))
    return None if (count := _length(entry)) is None else (entry[number] for number in range(count))


def _length(pictures: Any) -> int | None:
    """The number of pictures in a batch of them, None for one picture."""
    if isinstance(pictures, list | tuple):
        return len(pictures)
    return len(pictures) if getattr(pictures, "ndim", None) == 4 else None


def _dealt(value: Any, count: int, number: int) -> Any:
    shared = isinstance(value, str | bytes | Mapping) or not isinstance(value, Sized)
    return value if shared or getattr(value, "ndim", 1) == 0 or len(value) != count else value[number]


def hash_of_item(item: Item) -> str | None:
    """The SHA-256 that the index has of a picture; None where there is nothing to be hashed."""
    if isinstance(item.content, Path):
        with suppress(OSError), open(item.content, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
        return None
    if isinstance(item.content, np.ndarray):
        return hashlib.sha256(_bytes(item.content)).hexdigest()
    return hashlib.sha256(item.content).hexdigest() if isinstance(item.content, bytes) else None


def hash_of_all(given: Any) -> str | None:
    """A hash of arrays, bytes, texts and paths, in lists and mappings; None where anything else is among them."""
    if not isinstance(given, list | tuple | np.ndarray):
        return None
    digest = hashlib.sha256()
    with suppress(_OpaqueError):
        _feed(digest, given)
        return digest.hexdigest()
    return None


class _OpaqueError(Exception):
    """Something without a content that can be read."""


def _feed(digest: Any, value: Any) -> None:
    """Feeds a value to a hash, with its kind and length, so that no other value feeds the same."""
    if isinstance(value, list | tuple):
        digest.update(f"list {len(value)};".encode())
        for entry in value:
            _feed(digest, entry)
    elif isinstance(value, Mapping):
        digest.update(f"mapping {len(value)};".encode())
        for key, entry in value.items():
            _feed(digest, key)
            _feed(digest, entry)
    elif isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        digest.update(f"{value.dtype.str} {value.shape};".encode())
        for part in value if value.ndim > 3 else [value]:  # one picture at a time: they may not fit in memory
            digest.update(_bytes(part))
    elif isinstance(value, bytes | bytearray):
        digest.update(f"bytes {len(value)};".encode())
        digest.update(value)
    elif value is None or isinstance(value, str | os.PathLike | int | float | np.number):
        text = repr(os.fspath(value) if isinstance(value, os.PathLike) else value)
        digest.update(f"{type(value).__name__} {len(text)} {text};".encode("utf-8", "backslashreplace"))
    else:
        raise _OpaqueError


def _bytes(array: Any) -> Any:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)
