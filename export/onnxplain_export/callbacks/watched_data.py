"""The data that are measured after each epoch: arrays, or batches that can be gone through again and again."""

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from onnxplain.errors import ParameterError
from onnxplain.explainer import Explainer
from onnxplain.tracking.following import Followed, follow
from onnxplain.tracking.saliency import SaliencyTracker
from onnxplain.tracking.samples import as_array, count_of

TAKEN = "(images, labels), or an iterable of such batches that can be gone through again, such as a DataLoader"
LABELS = ("labels", "label")
DEALT = 16
"""Pictures of arrays that are a batch, where the first batch is kept."""
SHUFFLING = ("RandomSampler", "SubsetRandomSampler", "WeightedRandomSampler")


class WatchedData:
    """`given` is (images, labels), or an iterable of (images, labels) batches or of mappings with "labels" among them.

    Raises ParameterError for anything else; where samples are `numbered`, for a DataLoader that shuffles them.
    """

    def __init__(self, given: Any, numbered: bool = False) -> None:
        self._arrays = given if _is_pair(given) else None
        self._given = given
        if self._arrays is not None:
            _check_arrays(*self._arrays)
        elif (
            isinstance(given, str | os.PathLike | Mapping) or hasattr(given, "shape") or not isinstance(given, Iterable)
        ):
            is_set = hasattr(given, "__getitem__") and not hasattr(given, "__iter__")
            wrap = ": DataLoader(…) makes batches of it" if is_set else ""
            raise ParameterError(f"data= is {TAKEN}, not {_told(given)}{wrap}")
        elif isinstance(given, Iterator):
            raise ParameterError(f"data= is gone through after every epoch, and an iterator ends: give {TAKEN}")
        for batch in given if isinstance(given, list | tuple) and self._arrays is None else ():
            _pair(batch)
        if numbered and _shuffles(given):
            raise ParameterError(
                "data= is a DataLoader that shuffles, so that a sample has another number after each epoch, and "
                "instances= couldn't follow it: give one with shuffle=False"
            )

    def batches(self) -> Iterator[tuple[Any, Any]]:
        """All (images, labels) batches, anew."""
        if self._arrays is None:
            yield from (_pair(batch) for batch in self._given)
            return
        images, labels = self._arrays
        for start in range(0, count_of(images), DEALT):
            part = slice(start, start + DEALT)
            yield rows_of(images, part), labels[part]

    def collect(self, saliency: SaliencyTracker, mode: str) -> None:
        """Hands the tracker the batches that it still wants."""
        if saliency.wants(mode):
            for images, labels in self.batches():
                saliency.collect(images, labels, mode=mode)
                if not saliency.wants(mode):
                    return

    def follow(self, explainer: Explainer, **options: Any) -> Followed:
        """What onnxplain.tracking.follow makes of all samples."""
        images, labels = (self.batches(), None) if self._arrays is None else self._arrays
        return follow(explainer, images, labels, **options)

    def generators(self) -> list[Any]:
        """The random generators that a DataLoader and its samplers draw from, beside torch's own."""
        batches = getattr(self._given, "batch_sampler", None)
        parts = [self._given, getattr(self._given, "sampler", None), batches, getattr(batches, "sampler", None)]
        found = [getattr(part, "generator", None) for part in parts]
        return [generator for generator in found if hasattr(generator, "set_state")]


def example_of(images: Any) -> Any:
    """The first image of a batch as a network's input, floats in single precision; None where it is no input itself."""
    if isinstance(images, Mapping):
        return {name: example_of(values) for name, values in images.items()}
    if not hasattr(images, "shape") or len(images.shape) < 2:
        return None
    first = as_array(images[:1])
    if first.dtype == np.uint8 and first.ndim == 4 and first.shape[-1] == 3:
        return None  # pictures that preprocessing turns into what the network takes
    return first.astype(np.float32) if first.dtype == np.float64 else first


def rows_of(images: Any, part: slice) -> Any:
    """Some images of a batch, of each input where there are several."""
    return {name: values[part] for name, values in images.items()} if isinstance(images, Mapping) else images[part]


def _is_pair(given: Any) -> bool:
    """Whether it is images and labels, rather than batches of both."""
    return isinstance(given, tuple) and len(given) == 2 and not isinstance(given[0], tuple)


def _check_arrays(images: Any, labels: Any) -> None:
    if isinstance(images, str | os.PathLike) or not hasattr(labels, "__len__") or isinstance(labels, str):
        raise ParameterError(f"data= is {TAKEN}, not ({_told(images)}, {_told(labels)})")
    count = count_of(images)
    if len(getattr(labels, "shape", [count])) != 1:
        raise ParameterError(f"data= needs the class of each image as its label, [{count}], not {list(labels.shape)}")
    if as_array(labels[:1]).dtype.kind == "f":
        raise ParameterError("data= has labels of floating point; a label is the number of a class, or its name")
    if len(labels) != count:
        raise ParameterError(f"data= has {count} images and {len(labels)} labels; each image needs one")


def _pair(batch: Any) -> tuple[Any, Any]:
    if isinstance(batch, Mapping):
        name = next((each for each in LABELS if each in batch), None)
        inputs = {key: value for key, value in batch.items() if key != name}
        if name is None or not inputs:
            raise ParameterError(f'a batch of data= needs "labels" beside its inputs; it has {list(batch)}')
        return next(iter(inputs.values())) if len(inputs) == 1 else inputs, batch[name]
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        raise ParameterError(f"a batch of data= is a pair (images, labels), not {_told(batch)}")
    return batch[0], batch[1]


def _shuffles(given: Any) -> bool:
    sampler = getattr(given, "sampler", None)
    return type(sampler).__name__ in SHUFFLING or getattr(sampler, "shuffle", False) is True


def _told(value: Any) -> str:
    return f"{len(value)} of something" if isinstance(value, tuple | list) else type(value).__name__
