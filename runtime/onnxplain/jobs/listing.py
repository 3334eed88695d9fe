"""The pictures of a job as its folder keeps them: what a folder holds may change while a job runs for a night."""

import hashlib
import json
from array import array
from collections.abc import Iterable, Iterator
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from onnxplain.errors import ParameterError, PictureError
from onnxplain.jobs import storage
from onnxplain.jobs.items import Item, Part

FILE = "source.jsonl"


class Listing:
    """A source whose pictures are files or parts of files, listed once, in `folder`/source.jsonl."""

    def __init__(self, folder: Path, pictures: Iterable[Item]) -> None:
        self._file, self._pictures = folder / FILE, pictures
        self.count, self._sha256 = 0, ""

    def take(self) -> None:
        """Goes through all pictures and lists them in a new file, which `keep` gives its name.

        PictureError for a source without pictures, ParameterError where two have one name.
        """
        digest, names = hashlib.sha256(), array("Q")
        temporary = self._temporary
        with storage.Growing(temporary) as file:
            at, lines = 0, bytearray()
            for item in self._pictures:
                line = _line(item)
                digest.update(line)
                names.append(_hash(item.name))
                lines += line
                if len(lines) > 1 << 20:
                    file.write(lines, at)
                    at, lines = at + len(lines), bytearray()
            file.write(lines, at)
            file.sync()
        if not names:
            raise PictureError("the source has no pictures")
        self.count, self._sha256 = len(names), digest.hexdigest()
        self._refuse_twice(names)

    def keep(self) -> None:
        """Gives the new list its name."""
        storage.rename(self._temporary, self._file)

    def drop(self) -> None:
        """Removes the new list; the one that was there stays."""
        storage.remove(self._temporary)

    def describe(self) -> dict[str, Any]:
        """The number of pictures, and the SHA-256 of the list."""
        return {"kind": "files", "pictures": self.count, "sha256": self._sha256}

    def items(self, first: int = 0) -> Iterator[Item]:
        """The pictures of the list, from that number on."""
        with open(self._file, "rb") as lines:
            for line in islice(lines, first, None):
                yield _item(json.loads(line))

    def first_difference(self) -> str:
        """Where the list that was there and the new one part."""
        if not self._file.exists():
            return f"{self._file} is gone"
        with open(self._file, "rb") as old, open(self._temporary, "rb") as new:
            for number, (there, now) in enumerate(zip_longest(old, new)):
                if there != now:
                    return f"picture {number} was {_shown(there)} and is {_shown(now)}"
        return "they are the same"

    @property
    def _temporary(self) -> Path:
        return self._file.with_name(f"{storage.TEMPORARY}{FILE}")

    def _refuse_twice(self, names: "array[int]") -> None:
        order = np.sort(np.frombuffer(names, np.uint64))
        twice = set(order[1:][order[1:] == order[:-1]].tolist())
        seen: dict[str, int] = {}
        with open(self._temporary, "rb") as lines:
            for number, line in enumerate(lines if twice else ()):
                name = json.loads(line)["name"]
                if _hash(name) in twice and seen.setdefault(name, number) != number:
                    self.drop()
                    raise ParameterError(f"{name} is named twice, as picture {seen[name]} and as picture {number}")


def _hash(name: str) -> int:
    """64 bits, so that the names needn't be kept."""
    data = hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(data, "big")


def _line(item: Item) -> bytes:
    entry: dict[str, Any] = {"name": item.name}
    if isinstance(item.content, Part):
        entry |= {"in": str(item.content.path), "offset": item.content.offset, "size": item.content.size}
    elif isinstance(item.content, Path):
        if str(item.content) != item.name:
            entry["path"] = str(item.content)
        entry["size"] = _size(item.content)
    elif isinstance(item.content, str):
        entry["error"] = item.content
    if item.label is not None:
        entry["label"] = item.label
    # Names that are no valid text keep their bytes as lone surrogates, escaped.
    return (json.dumps(entry) + "\n").encode()


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None  # that it can't be read is found, and said, when its turn comes


def _item(entry: dict[str, Any]) -> Item:
    if "error" in entry:
        return Item(entry["name"], entry["error"], entry.get("label"))
    if "in" in entry:
        return Item(entry["name"], Part(Path(entry["in"]), entry["offset"], entry["size"]), entry.get("label"))
    return Item(entry["name"], Path(entry.get("path", entry["name"])), entry.get("label"))


def _shown(line: bytes | None) -> str:
    if line is None:
        return "not there"
    entry = json.loads(line)
    size = "" if entry.get("size") is None else f" ({entry['size']} bytes)"
    label = "" if entry.get("label") is None else f" of class {entry['label']}"
    return f"{entry['name']}{size}{label}"
