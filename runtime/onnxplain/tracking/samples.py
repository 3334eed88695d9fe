"""Which pictures a tracker shows: kept once for each mode, and the same ones at every epoch."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.array_files import SUFFIXES
from onnxplain.errors import ParameterError
from onnxplain.pictures import find_pictures, read_picture

Picture = NDArray[Any] | dict[str, NDArray[Any]]
"""One picture as Explainer.explain takes it; for a network of several inputs, an array for each by name."""


@dataclass(slots=True)
class Kept:
    """The pictures of one mode, and their labels (None: they came without).

    `wanted` is how many are to be kept, None all of the first batch; nothing is added once they are `complete`.
    """

    wanted: int | None = None
    images: list[Picture] = field(default_factory=list)
    labels: list[Any] | None = None
    complete: bool = False

    def __len__(self) -> int:
        return len(self.images)

    def add(self, images: Any, labels: Any) -> None:
        """Takes what is still wanted of a batch, as copies; ParameterError unless it is one, with a label for each."""
        count = count_of(images)
        found = None if labels is None else label_list(labels, count)
        if self.images and (self.labels is None) != (found is None):
            raise ParameterError("some batches came with labels and some without; give them with all or with none")
        most = count if self.wanted is None else min(count, self.wanted - len(self.images))
        self.images += pictures_of(images, most)
        if found is not None:
            self.labels = [*(self.labels or ()), *found[:most]]
        self.complete = self.wanted is None or len(self.images) == self.wanted

    def drop(self) -> None:
        """Forgets an incomplete collection."""
        self.images, self.labels = [], None


class Samples:
    """What is kept in each mode, from what a caller asked for: see SaliencyTracker."""

    def __init__(self, asked: Any = None) -> None:
        self._modes: dict[str, Kept] = {}
        self._usual: Kept | None = None
        if isinstance(asked, Mapping):
            if not asked:
                raise ParameterError("samples={} names no mode; give None for the first batch of each")
            self._modes = {checked_mode(mode): _kept(each) for mode, each in asked.items()}
        else:
            self._usual = _kept(asked)

    def collect(self, images: Any, labels: Any, mode: str) -> bool:
        """Adds a batch where the mode's pictures aren't complete; whether it did."""
        kept = self._of(mode)
        if kept is None or kept.complete:
            return False
        kept.add(images, labels)
        return True

    def begin(self, mode: str) -> None:
        """Drops what an interrupted epoch has left of an incomplete collection."""
        kept = self._of(mode)
        if kept is not None and not kept.complete:
            kept.drop()

    def settled(self, mode: str) -> Kept:
        """The mode's pictures, to which none is added from now on; ParameterError where there are none."""
        kept = self._of(mode)
        if kept is None:
            raise ParameterError(f"no pictures are kept for the mode {mode!r}, only for {', '.join(self._modes)}")
        if not kept.images:
            raise ParameterError(
                f"no pictures were collected for the mode {mode!r}: hand batches to collect(images, labels, "
                f"mode={mode!r}) before the maps are shown, or give samples="
            )
        kept.complete = True
        return kept

    def labels(self) -> Iterable[Any]:
        """All labels that are kept."""
        for kept in (*self._modes.values(), *([] if self._usual is None else [self._usual])):
            yield from kept.labels or ()

    def wants(self, mode: str) -> bool:
        """Whether pictures of another batch would be kept."""
        kept = self._of(mode)
        return kept is not None and not kept.complete

    def _of(self, mode: str) -> Kept | None:
        if mode not in self._modes and self._usual is not None:
            if self._usual.complete:  # pictures that were given serve every mode
                return self._usual
            self._modes[checked_mode(mode)] = Kept(self._usual.wanted)
        return self._modes.get(mode)

    def state(self) -> dict[str, Any]:
        """What `restored` takes: plain values and arrays."""
        return {
            "usual": None if self._usual is None else _plain(self._usual),
            "modes": {mode: _plain(kept) for mode, kept in self._modes.items()},
        }

    @classmethod
    def restored(cls, state: Mapping[str, Any]) -> "Samples":
        """The samples of a `state`."""
        samples = cls()
        samples._usual = None if state["usual"] is None else Kept(**state["usual"])
        samples._modes = {mode: Kept(**kept) for mode, kept in state["modes"].items()}
        return samples


def _plain(kept: Kept) -> dict[str, Any]:
    return {"wanted": kept.wanted, "images": kept.images, "labels": kept.labels, "complete": kept.complete}


def _kept(asked: Any) -> Kept:
    if asked is None:
        return Kept()
    if isinstance(asked, bool | float) or (isinstance(asked, int | np.integer) and asked < 1):
        raise ParameterError(f"samples={asked!r} must be a whole number of at least 1, pictures, or None")
    if isinstance(asked, int | np.integer):
        return Kept(int(asked))
    images, labels = asked if isinstance(asked, tuple) and len(asked) == 2 else (asked, None)
    kept = Kept()
    kept.add(images, labels)
    return kept


def checked_mode(mode: Any) -> str:
    """The mode; ParameterError unless it is a word."""
    if not isinstance(mode, str) or not mode.strip():
        raise ParameterError(f"mode={mode!r} must be a word, such as 'eval'")
    return mode


def as_array(values: Any) -> NDArray[Any]:
    """A copy of an array or a tensor of any framework; none has to be imported for it."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        try:
            values = values.numpy()
        except TypeError:  # numpy has no bfloat16
            values = values.float().numpy()
    return np.array(values)


def count_of(images: Any) -> int:
    """How many pictures a batch holds; ParameterError unless it holds some."""
    if isinstance(images, Mapping):
        counts = {name: len(values) for name, values in images.items()}
        if len(set(counts.values())) != 1:
            raise ParameterError(f"the inputs of a batch have different numbers of rows: {counts}")
        count = next(iter(counts.values()))
    elif isinstance(images, str | os.PathLike):
        count = len(find_pictures(os.fspath(images)))
    elif _is_array(images):
        if len(images.shape) < 2:
            raise ParameterError(f"a batch of pictures has its number first, [N, …], not {list(images.shape)}")
        count = 1 if _is_picture(images) else int(images.shape[0])
    elif isinstance(images, Sequence):
        count = len(images)
    else:
        raise ParameterError(f"{type(images).__name__} is no batch of pictures: give an array [N, …], paths or a list")
    if not count:
        raise ParameterError("a batch without pictures was given")
    return count


def pictures_of(images: Any, most: int) -> list[Picture]:
    """The first pictures of a batch, as copies."""
    if isinstance(images, Mapping):
        dealt = {name: as_array(values[:most]) for name, values in images.items()}
        return [{name: values[row] for name, values in dealt.items()} for row in range(most)]
    if isinstance(images, str | os.PathLike):
        return [read_picture(path) for path in find_pictures(os.fspath(images))[:most]]
    if _is_array(images):
        return [as_array(images)] if _is_picture(images) else list(as_array(images[:most]))
    return [_picture(each) for each in islice(images, most)]


def _picture(image: Any) -> Picture:
    if isinstance(image, Mapping):
        return {name: as_array(values) for name, values in image.items()}
    if isinstance(image, str | os.PathLike):
        if os.fspath(image).lower().endswith(tuple(SUFFIXES)):
            raise ParameterError(f"{image}: give the arrays themselves, not their files")
        return read_picture(os.fspath(image))
    return as_array(image)


def _is_array(images: Any) -> bool:
    return hasattr(images, "shape") and hasattr(images, "__getitem__")


def _is_picture(images: Any) -> bool:
    """Whether an array is a single picture in bytes, [H, W, 3], which Explainer.explain takes for one as well."""
    return len(images.shape) == 3 and images.shape[2] == 3 and str(images.dtype).endswith("uint8")


def label_list(labels: Any, count: int) -> list[Any]:
    """The labels of a batch as plain numbers or words; ParameterError unless there is one for each picture."""
    if _is_array(labels):
        array = as_array(labels)
        if array.ndim != 1:
            raise ParameterError(f"labels are one for each picture, [{count}], not {list(array.shape)}")
        found = array.tolist()
    elif isinstance(labels, Sequence) and not isinstance(labels, str | bytes):
        found = [each.item() if hasattr(each, "item") else each for each in labels]
    else:
        raise ParameterError(f"labels are a list or array with one for each picture, not {labels!r}")
    for each in found:
        if not isinstance(each, str | int | float):
            raise ParameterError(f"a label is a number or a word, not {each!r}")
    if len(found) != count:
        raise ParameterError(f"{len(found)} labels were given for {count} pictures")
    return found
