"""What a job explains: one item for each picture, from whichever source."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Part:
    """A picture's bytes within a larger file."""

    path: Path
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Item:
    """One picture: its name, where it is or what it holds, and its true class (a number or name) where that is known.

    `content` is a file, a part of one, an encoded picture's bytes, or an array: uint8 [H, W, 3] or the network's row;
    or the text of why there is none.
    """

    name: str
    content: Path | Part | bytes | NDArray[Any] | str
    label: int | str | None = None


class Source(Protocol):
    """Where pictures come from, always in the same order."""

    @property
    def count(self) -> int | None:
        """The number of pictures, None where it isn't known before the end."""

    def describe(self) -> Mapping[str, Any]:
        """What the source is, as plain data; an equal description means the same pictures in the same order.

        Of what Python makes, that can be known only in part: see sources.iterables.InMemory.
        """

    def items(self, first: int = 0) -> Iterator[Item]:
        """The pictures, from that number on; an error rather than others than those that were there before."""


def as_array(value: Any) -> NDArray[Any]:
    """An array of a picture in memory: what Pillow and others hold converts itself; mode and palette become RGB."""
    convert = getattr(value, "convert", None)
    return np.asarray(convert("RGB") if callable(convert) and hasattr(value, "mode") else value)
