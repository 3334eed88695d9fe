"""Which classes are explained: numbers and names become an int64 table [N, T]."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.errors import ParameterError, unknown


@dataclass(frozen=True, slots=True)
class Chosen:
    """What is explained: `targets` int64 [N, T], and what graphs are fed for them.

    `cotangents` is float32 [N, T, …], None where the network's scores are class scores and graphs take the targets.
    `several` is True where more than one per image was asked for: maps keep a target axis then. A target TOP is the
    image's top class, until scores settle which one that is.
    """

    targets: NDArray[np.int64]
    several: bool
    cotangents: NDArray[np.float32] | None = None

    @property
    def count(self) -> int:
        """The number of targets of each image."""
        return self.targets.shape[1]

    def of(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """What is explained of scores [N, …]: [N, T]."""
        if self.cotangents is None:
            return np.take_along_axis(scores, self.targets, axis=1)
        weights = self.cotangents.reshape(*self.targets.shape, -1).astype(np.float64)
        return np.einsum("nto,no->nt", weights, scores.reshape(len(scores), -1)).astype(np.float32)

    @property
    def settled(self) -> bool:
        """Whether every target is known."""
        return self.cotangents is not None or not (self.targets == TOP).any()

    def by(self, scores: NDArray[np.floating[Any]]) -> "Chosen":
        """The same with each image's top class, of equal scores the first, in the place of TOP."""
        if self.settled:
            return self
        return Chosen(np.where(self.targets == TOP, scores.argmax(axis=1)[:, None], self.targets), self.several)

    def at(self, images: NDArray[Any]) -> "Chosen":
        """What is explained of the images of these numbers [M]."""
        cotangents = None if self.cotangents is None else self.cotangents[images]
        return Chosen(self.targets[images], self.several, cotangents)

    def names(self, labels: Sequence[str] | None) -> tuple[Any, ...]:
        """The targets' labels, for each image one or a tuple."""
        names = [tuple("cotangent" if t == FREE else name_of(int(t), labels) for t in row) for row in self.targets]
        return tuple(names) if self.several else tuple(row[0] for row in names)


FREE = -1
"""The target of a map that a cotangent of the caller's explains."""
TOP = -1
"""The target that stands for an image's top class, as graphs that tell the scores take it."""


def resolve(
    targets: Any, scores: NDArray[np.floating[Any]], labels: Sequence[str] | None, best: int | None = None
) -> tuple[NDArray[np.int64], bool]:
    """Classes [N, T] for scores [N, classes], and whether several per image were asked for (maps keep a target axis).

    None is each image's top class; one number or name holds for all images; a list has an entry for each image; a
    list of lists has several for each. With `best`, that many classes of the highest scores of each image.
    ParameterError for a name or number that the network doesn't have.
    """
    count, classes = scores.shape
    if best is not None:
        _check_best(best, targets, classes)
        return np.argsort(-scores, axis=1, kind="stable")[:, :best].astype(np.int64), True
    chosen = asked(targets, count, classes, labels).by(scores)
    return chosen.targets, chosen.several


def asked(targets: Any, count: int, classes: int, labels: Sequence[str] | None) -> Chosen:
    """What `resolve` takes, of `count` images whose scores aren't known yet: TOP stands for the top class."""
    if targets is None or isinstance(targets, str | int | np.integer):
        per_image: list[Any] = [targets] * count
    elif not isinstance(targets, Iterable):
        raise ParameterError(f"target {targets!r} is no class number or name")
    else:
        per_image = list(targets)
        if len(per_image) != count:
            hint = "; several targets per picture are a list of lists, as [[3, 5]]" if count == 1 else ""
            raise ParameterError(f"{len(per_image)} targets for {count} pictures{hint}")
    several = bool(per_image) and all(isinstance(entry, list | tuple | np.ndarray) for entry in per_image)
    rows = [list(entry) for entry in per_image] if several else [[entry] for entry in per_image]
    if len({len(row) for row in rows}) > 1 or (rows and not rows[0]):
        raise ParameterError("every picture needs the same number of targets, and at least one")
    table = [[TOP if entry is None else class_of(entry, classes, labels) for entry in row] for row in rows]
    return Chosen(np.array(table, np.int64).reshape(count, -1 if count else 1), several)


def _check_best(best: int, targets: Any, classes: int) -> None:
    """ParameterError unless so many best classes can be explained."""
    if targets is not None:
        raise ParameterError("top= and targets= both say what is explained; give one of them")
    if isinstance(best, bool) or not isinstance(best, int | np.integer) or not 1 <= best <= classes:
        raise ParameterError(f"top={best!r} must be a whole number from 1 to {classes}, the number of classes")


def class_of(target: Any, classes: int, labels: Sequence[str] | None) -> int:
    """The number of the class with this number or name."""
    if isinstance(target, str):
        return _named(target, labels)
    if isinstance(target, bool) or not isinstance(target, int | np.integer):
        raise ParameterError(f"target {target!r} is no class number or name")
    if not 0 <= target < classes:
        raise ParameterError(f"target {target} is out of range: the network has classes 0 to {classes - 1}")
    return int(target)


def _named(name: str, labels: Sequence[str] | None) -> int:
    if labels is None:
        raise ParameterError(f"target {name!r} is a name, but the bundle has no labels; give the class number")
    wanted = name.strip().casefold()
    found = [i for i, label in enumerate(labels) if label.strip().casefold() == wanted]
    # ImageNet's labels are lists of synonyms: "tench, Tinca tinca".
    found = found or [i for i, label in enumerate(labels) if wanted in map(str.strip, label.casefold().split(","))]
    if not found:
        raise ParameterError(unknown("target", name, {word.strip() for label in labels for word in label.split(",")}))
    if len(found) > 1:
        numbers = ", ".join(map(str, found))
        raise ParameterError(f"target {name!r} is the name of several classes: {numbers}; give the number")
    return found[0]


def name_of(target: int, labels: Sequence[str] | None) -> str:
    """A class's label, or its number where the bundle has no labels."""
    return labels[target] if labels is not None and target < len(labels) else str(target)
