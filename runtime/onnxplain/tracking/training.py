"""A training looked at afterwards: what its checkpoints say of the same pictures, and which are hard."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.tracking.following import Followed
from onnxplain.tracking.scoring import SampleMetric

NOTHING = -1
"""The class of a sample of which a network says nothing: its scores are NaN, or it couldn't be read."""

Bands = Mapping[int, tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]]
"""Of each class, low, mean and high at every step, [S] each."""


@dataclass(frozen=True, eq=False)
class Training:
    """What S checkpoints say of N pictures, in the order of their steps.

    `classes` are the names of the network's classes by number, `pictures` [N] the names of the pictures, and `labels`
    [N] their true classes. `checkpoints` [S] are the checkpoints' names.
    """

    metric: SampleMetric
    classes: Mapping[int, str]
    pictures: Sequence[str]
    labels: NDArray[np.int64]
    checkpoints: Sequence[str]
    followed: Sequence[Followed]
    softens: bool = True
    bad: Mapping[int, str] = field(default_factory=dict)

    @property
    def steps(self) -> list[int]:
        """The steps [S], ascending."""
        return [each.step for each in self.followed]

    @cached_property
    def values(self) -> NDArray[np.float64]:
        """The metric of each picture at each step, [S, N]; NaN where there is none."""
        return self._table("values", np.nan)

    @cached_property
    def predicted(self) -> NDArray[np.int64]:
        """The class that each picture is given at each step, [S, N]."""
        return self._table("predicted", NOTHING)

    @cached_property
    def confidence(self) -> NDArray[np.float64]:
        """The probability of that class, [S, N]."""
        return self._table("confidence", np.nan)

    @cached_property
    def probability(self) -> NDArray[np.float64]:
        """The probability of the true class, [S, N]."""
        return self._table("probability", np.nan)

    @cached_property
    def measured(self) -> NDArray[np.bool_]:
        """Which pictures the last checkpoint was run on, [N]."""
        found = np.zeros(len(self.pictures), np.bool_)
        found[self.followed[-1].indices] = True
        return found

    def hardest(self, count: int) -> list[int]:
        """The numbers of the `count` pictures that are hardest for the last checkpoint, hardest first."""
        last = self.followed[-1]
        return last.indices[self.metric.hardest(last.values, count, last.probability)].tolist()

    def of_class(self, label: int) -> NDArray[np.int64]:
        """The numbers of a class's pictures, of those that could be read."""
        return self._by_class.get(label, np.zeros(0, np.int64))

    @cached_property
    def present(self) -> list[int]:
        """The classes that have pictures, the one that is hardest for the last checkpoint first."""
        found = list(self._by_class)
        means = np.array([self.values[-1][pictures].mean() for pictures in self._by_class.values()])
        return [found[place] for place in self.metric.hardest(means, len(means)).tolist()]

    def taken_for(self, label: int) -> tuple[int, int] | None:
        """What the last checkpoint most often takes a class's pictures for, and how often; None if for nothing else."""
        given = self.predicted[-1][self.of_class(label)]
        wrong, times = np.unique(given[(given != label) & (given != NOTHING)], return_counts=True)
        return (int(wrong[times.argmax()]), int(times.max())) if len(wrong) else None

    def runs_of(self, picture: int) -> list[tuple[int, int, int]]:
        """What a picture was taken for, as runs (first step's place, last step's place, class)."""
        given = self.predicted[:, picture].tolist()
        starts = [place for place in range(len(given)) if not place or given[place] != given[place - 1]]
        ends = [*starts[1:], len(given)]
        return [(start, end - 1, given[start]) for start, end in zip(starts, ends, strict=True)]

    def as_csv(self) -> str:
        """A line for each picture: its number, name and class, then for each step the metric and the class given."""
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        columns = [f"{what}_{step}" for step in self.steps for what in (self.metric.name, "said")]
        writer.writerow(["index", "picture", "label", *columns])
        for number in np.flatnonzero(self.measured).tolist():
            told: list[Any] = [number, self.pictures[number], self.name(self.labels[number])]
            for place in range(len(self.steps)):
                told += [repr(float(self.values[place, number])), self.name(self.predicted[place, number])]
            writer.writerow(told)
        return buffer.getvalue()

    def name(self, label: int | np.integer[Any]) -> str:
        """What a class is called; "nothing" where a network's scores are NaN."""
        return "nothing" if label == NOTHING else self.classes.get(int(label), str(label))

    @cached_property
    def _by_class(self) -> dict[int, NDArray[np.int64]]:
        """The numbers of each class's pictures."""
        numbers = np.flatnonzero(self.measured)
        order = numbers[np.argsort(self.labels[numbers], kind="stable")]
        classes, starts = np.unique(self.labels[order], return_index=True)
        return dict(zip(classes.tolist(), np.split(order, starts[1:]), strict=True))

    def _table(self, column: str, missing: Any) -> Any:
        found = np.full((len(self.followed), len(self.pictures)), missing, getattr(self.followed[0], column).dtype)
        for place, each in enumerate(self.followed):
            found[place, each.indices] = getattr(each, column)
        return found


def bands_of(
    history: Mapping[Any, Mapping[str | None, Mapping[int, Any]]], bounds: str | None, training: Training
) -> Bands:
    """The curves of each class that has pictures, from the history of a LabelTracker by the classes' names."""
    found = {}
    for label in training.present:
        curve = history[training.name(label)][bounds]
        rows = [np.asarray(curve.get(step, np.nan), np.float64) for step in training.steps]
        table = np.stack([row if row.ndim else np.repeat(row, 3) for row in rows])
        found[label] = (table[:, 0], table[:, 1], table[:, 2])
    return found
