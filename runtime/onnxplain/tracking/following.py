"""Runs a network over a data set, its forward graph alone, and tells trackers how hard each sample is."""

import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from onnxplain.activations import activate
from onnxplain.bundle import Bundle
from onnxplain.errors import ParameterError, PictureError
from onnxplain.explainer import Explainer
from onnxplain.images import Image, listed, read_image
from onnxplain.progress import Progress, progress_bar
from onnxplain.targets import class_of
from onnxplain.tracking.scoring import find_sample_metric, score_samples

MOST_BYTES = 64_000_000
MOST_TOGETHER = 256
"""What is read before the network runs on it: so many bytes of its input, and so many images."""
TOGETHER_UNSIZED = 16
"""The images that are read together where the network leaves their size free."""

OnError = Callable[[int, PictureError], None]


class Tracker(Protocol):
    """What LabelTracker and InstanceTracker have in common."""

    def update(self, keys: Any, values: Any, /, *, mode: str = ...) -> None:
        """One batch."""

    def epoch_begin(self, mode: str = ...) -> None:
        """Drops what an interrupted epoch has left."""

    def epoch_end(self, step: int, /, mode: str = ...) -> None:
        """Records the epoch."""


@dataclass(frozen=True, eq=False, slots=True)
class Followed:
    """What a network says of M samples at one step of its training.

    `indices` [M] are their numbers and `labels` [M] their true classes; `values` float64 [M] is the metric.
    `predicted` [M] is the class of the highest score (-1 where scores are NaN) and `confidence` its probability;
    `probability` is that of the true class. Where the network's scores have no activation, these two are scores.
    """

    step: int
    metric: str
    mode: str
    indices: NDArray[np.int64]
    labels: NDArray[np.int64]
    values: NDArray[np.float64]
    predicted: NDArray[np.int64]
    confidence: NDArray[np.float32]
    probability: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether each sample is given its true class."""
        return self.predicted == self.labels


def follow(
    explainer: Explainer | str | os.PathLike[str],
    images: Any,
    labels: Any = None,
    *,
    step: int,
    metric: str = "cross_entropy",
    label_tracker: Tracker | None = None,
    instance_tracker: Tracker | None = None,
    indices: Sequence[int] | NDArray[np.integer[Any]] | None = None,
    mode: str = "eval",
    batch: int | None = None,
    on_error: OnError | None = None,
    progress: bool = False,
) -> Followed:
    """Measures each sample by `metric`, gives the values to the trackers as the epoch `step`, and returns them.

    `images` are paths, pictures or arrays as Explainer.explain takes them, with their true classes (numbers or names)
    in `labels`; or, without `labels`, an iterable of (images, labels) batches. `indices` are the samples' numbers for
    the instance tracker: their places unless given. `batch` images are read at a time, as many as suit their size
    unless given; what is held doesn't grow with the data but by some bytes a sample.

    A picture that can't be read is handed to `on_error` with its number and skipped; without `on_error` it raises
    PictureError. Scores that are NaN make the metric NaN. After any error the trackers have nothing of this epoch.
    Raises ParameterError for a network without scores of classes, and for labels that don't fit.
    """
    find_sample_metric(metric)
    explainer = explainer if isinstance(explainer, Explainer) else Explainer(explainer)
    bundle = explainer.bundle
    _check_classes(bundle)
    together = _together(bundle) if batch is None else _checked(batch)
    trackers = [tracker for tracker in (label_tracker, instance_tracker) if tracker is not None]
    for tracker in trackers:
        tracker.epoch_begin(mode)
    entries, size = _entries(images, labels, indices, bundle)
    parts = []
    with progress_bar(progress, f"step {step}", size) as bar:
        for group in _groups(entries, together):
            part = _measured(explainer, group, metric, on_error, bar)
            parts.append(part)
            if label_tracker is not None and len(part[0]):
                label_tracker.update(part[1], part[2], mode=mode)
            if instance_tracker is not None and len(part[0]):
                instance_tracker.update(part[0], part[2], mode=mode)
    if not parts:
        raise PictureError("there are no images to follow")
    followed = Followed(step, metric, mode, *(np.concatenate(each) for each in zip(*parts, strict=True)))
    if not len(followed):
        raise PictureError("none of the pictures could be read")
    for tracker in trackers:
        tracker.epoch_end(step, mode)
    return followed


Entry = tuple[int, Any, int]
"""A sample's number, the image, and its true class."""


def _measured(
    explainer: Explainer, group: Sequence[Entry], metric: str, on_error: OnError | None, bar: Progress
) -> tuple[NDArray[Any], ...]:
    """The columns of Followed, for some samples."""
    read = _read(group, explainer.bundle, on_error)
    numbers = np.array([number for number, _, _ in read], np.int64)
    labels = np.array([label for _, _, label in read], np.int64)
    output = explainer.bundle.scores
    batch = [image for _, image, _ in read]
    # Explainer.scores refuses NaN, but a network that has diverged is to be seen, not to end the run.
    scores = explainer.scores_of(batch) if batch else None
    scores = np.zeros((0, int(output.classes or 1)), np.float32) if scores is None else scores
    values = score_samples(metric, scores, labels, output.activation)
    with np.errstate(all="ignore"):
        probabilities = activate(scores, output.activation)
    predicted = scores.argmax(axis=1)
    confidence, probability = (
        np.take_along_axis(probabilities, which[:, None], axis=1)[:, 0] for which in (predicted, labels)
    )
    bar.add(len(group))
    return numbers, labels, values, np.where(np.isnan(scores).any(axis=1), -1, predicted), confidence, probability


def _read(group: Sequence[Entry], bundle: Bundle, on_error: OnError | None) -> list[tuple[int, Image, int]]:
    found = []
    for number, image, label in group:
        try:
            found.append((number, read_image(image, number, bundle), label))
        except PictureError as error:
            if on_error is None:
                raise
            on_error(number, error)
    return found


def _check_classes(bundle: Bundle) -> None:
    output = bundle.scores
    if output.classes is None or output.class_axis != 1 or len(output.shape) != 2:
        raise ParameterError(
            f"metrics of single samples need scores of classes [N, C]; {bundle.name} gives {list(output.shape)}"
        )


def _together(bundle: Bundle) -> int:
    """How many images are read at a time."""
    sizes = bundle.image.shape[1:]
    if not all(isinstance(size, int) for size in sizes):
        return TOGETHER_UNSIZED
    row = math.prod(int(size) for size in sizes) * np.dtype(bundle.image.dtype).itemsize
    return max(1, min(MOST_TOGETHER, MOST_BYTES // max(1, row)))


def _checked(batch: int) -> int:
    if isinstance(batch, bool) or not isinstance(batch, int) or batch < 1:
        raise ParameterError(f"batch={batch!r} must be a whole number of at least 1")
    return batch


def _entries(images: Any, labels: Any, indices: Any, bundle: Bundle) -> tuple[Iterator[Entry], int | None]:
    """The samples one by one, and how many there are where that is known."""
    if labels is None:
        if indices is not None:
            raise ParameterError("indices= number the images that labels= go with; batches are numbered in their order")
        return _of_batches(images, bundle), None
    entries, classes = listed(_on_the_host(images), bundle), _classes(labels, bundle)
    if len(entries) != len(classes):
        raise ParameterError(f"{len(classes)} labels for {len(entries)} images; each image needs one")
    numbers = np.arange(len(entries)) if indices is None else np.asarray(_on_the_host(indices))
    if numbers.shape != (len(entries),) or (len(numbers) and numbers.dtype.kind not in "iu"):
        raise ParameterError(
            f"indices are whole numbers, one for each of the {len(entries)} images, not {numbers.dtype} "
            f"{list(numbers.shape)}"
        )
    return zip(map(int, numbers), entries, map(int, classes), strict=True), len(entries)


def _of_batches(batches: Any, bundle: Bundle) -> Iterator[Entry]:
    if isinstance(batches, str | os.PathLike | np.ndarray) or not isinstance(batches, Iterable):
        raise ParameterError("images need labels=, or are an iterable of (images, labels) batches")
    number = count()
    for batch in batches:
        if not isinstance(batch, tuple | list) or len(batch) != 2:
            raise ParameterError(f"a batch is a pair (images, labels), not {type(batch).__name__}")
        images, classes = listed(_on_the_host(batch[0]), bundle), _classes(batch[1], bundle)
        if len(images) != len(classes):
            raise ParameterError(f"{len(classes)} labels for {len(images)} images; each image needs one")
        for image, label in zip(images, classes, strict=True):
            yield next(number), image, int(label)


def _classes(labels: Any, bundle: Bundle) -> NDArray[np.int64]:
    """The numbers [N] of the true classes, from numbers or names."""
    given = np.asarray(_on_the_host(labels))
    if given.ndim != 1:
        raise ParameterError(f"labels are one class for each image, [N], not {list(given.shape)}")
    classes, names = int(bundle.scores.classes or 0), bundle.scores.labels
    known = {each: class_of(each, classes, names) for each in dict.fromkeys(given.tolist())}
    return np.array([known[each] for each in given.tolist()], np.int64)


def _on_the_host(values: Any) -> Any:
    """A tensor of torch as an array; anything else as it is."""
    return np.asarray(values.detach().cpu()) if hasattr(values, "detach") else values


def _groups(entries: Iterator[Entry], size: int) -> Iterator[list[Entry]]:
    group: list[Entry] = []
    for entry in entries:
        group.append(entry)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group
