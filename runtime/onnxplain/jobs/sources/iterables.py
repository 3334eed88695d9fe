"""Pictures that Python holds or makes: arrays, Pillow pictures, encoded bytes, paths, or mappings with one of these."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from itertools import count, islice
from pathlib import Path
from typing import Any

from onnxplain.errors import ParameterError
from onnxplain.jobs.items import Item, as_array

NAMES = ("name", "id", "path", "__key__")


class InMemory:
    """Any iterable of pictures, gone through in its own order; one with numbers (a list, a data set) from anywhere.

    A generator can be gone through once: it starts a job, and continues one only if it gives the same again.
    """

    def __init__(self, given: Iterable[Any], columns: Mapping[str, str], class_of: Callable[[int | str], int]) -> None:
        self._given, self._columns, self._class_of = given, columns, class_of

    @property
    def count(self) -> int | None:
        """The number of pictures, where the iterable tells it."""
        return len(self._given) if isinstance(self._given, Sized) else None

    def describe(self) -> dict[str, Any]:
        """Its kind and length; of a Hugging Face data set its own fingerprint. What is in a list isn't looked at."""
        own = getattr(self._given, "_fingerprint", None)
        kind = "mapping" if isinstance(self._given, Mapping) else type(self._given).__name__
        return {"kind": kind, "pictures": self.count, "fingerprint": own if isinstance(own, str) else None}

    def items(self, first: int = 0) -> Iterator[Item]:
        """The pictures from that number on."""
        numbered = hasattr(self._given, "__getitem__") and isinstance(self._given, Sized)
        if numbered and not isinstance(self._given, Mapping):
            entries = (self._given[number] for number in range(first, len(self._given)))  # type: ignore[index]
        else:
            entries = islice(iter(self._given), first, None)
        for number, entry in zip(count(first), entries, strict=False):
            yield self._item(number, entry)

    def _item(self, number: int, entry: Any) -> Item:
        label, name, picture = None, None, entry
        if isinstance(entry, Mapping):
            image = self._columns.get("image", "image")
            if image not in entry:
                raise ParameterError(f"picture {number} is a mapping without {image!r}; it has {', '.join(map(str, entry))}")
            picture, label = entry[image], entry.get(self._columns.get("label", "label"))
            names = [self._columns["name"]] if "name" in self._columns else NAMES
            name = next((str(entry[key]) for key in names if entry.get(key) is not None), None)
        content, own_name = _content(picture)
        name = name or own_name or f"picture {number}"
        return Item(name, content, None if label is None else self._class_of(_plain(label)))


def _content(picture: Any) -> tuple[Any, str | None]:
    """What an item holds of a picture, and the name that it has."""
    if isinstance(picture, str | os.PathLike):
        return Path(picture), os.fspath(picture)
    if isinstance(picture, bytes | bytearray):
        return bytes(picture), None
    if isinstance(picture, Mapping):  # of a data set that doesn't decode: {"bytes": …, "path": …}
        data, path = picture.get("bytes"), picture.get("path")
        return (bytes(data), path) if data else (Path(path), path) if path else ("there is no picture", None)
    if picture is None:
        return "there is no picture", None
    try:
        return as_array(picture), getattr(picture, "filename", None) or None
    except Exception as error:  # Pillow opens files only now; that one can't be read is this picture's matter
        return f"{type(error).__name__}: {error}", None


def _plain(label: Any) -> int | str:
    item = getattr(label, "item", None)
    return item() if callable(item) else label
