"""A metric of many samples over training, in arrays: 4 or 8 bytes for each value, however many samples there are."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from onnxplain.tracking.batches import Key


class Column(NamedTuple):
    """The values of one step: of the rows [N], ascending, or of the first N rows where `rows` is None."""

    rows: NDArray[np.int32] | None
    values: NDArray[np.floating]

    def row_numbers(self) -> NDArray[np.integer]:
        return np.arange(len(self.values)) if self.rows is None else self.rows

    def at(self, row: int) -> float | None:
        """The value of a row, or None where this step has none."""
        place = row if self.rows is None else int(np.searchsorted(self.rows, row))
        if place >= len(self.values) or (self.rows is not None and self.rows[place] != row):
            return None
        return float(self.values[place])


class Recorded(Mapping[Key, dict[int, float]]):
    """One mode's history, {index: {step: value}}, made on demand: a row for each index, a column for each step.

    Rows are in the order in which indices were first recorded, which is the order of ties (as in FastEstimator).
    """

    def __init__(self, indices: NDArray[Any] | None = None, columns: Mapping[int, Column] | None = None) -> None:
        self.indices = np.zeros(0, np.int64) if indices is None else indices
        self.columns = dict(columns or {})
        self._sort()

    def record(self, step: int, indices: NDArray[Any], values: NDArray[np.float64]) -> None:
        """Put a step's values in the place of what was there; the last value of a repeated index counts."""
        order = np.argsort(indices, kind="stable")
        ordered = indices[order]
        starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
        last = order[np.append(starts[1:], len(order)) - 1]
        rows = self._rows(ordered[starts], first_seen=order[starts])
        by_row = np.argsort(rows, kind="stable")
        rows, found = rows[by_row], _compact(values[last[by_row]])
        whole = int(rows[-1]) == len(rows) - 1
        self.columns[step] = Column(None if whole else rows.astype(np.int32), found)

    def latest(self) -> tuple[NDArray[Any], NDArray[np.float64]]:
        """Every index that has a value, in the order of rows, and its value at the last step that has one."""
        values = np.zeros(len(self.indices))
        filled = np.zeros(len(self.indices), bool)
        for step in sorted(self.columns, reverse=True):
            rows = self.columns[step].row_numbers()
            new = ~filled[rows]
            values[rows[new]] = self.columns[step].values[new]
            filled[rows] = True
            if filled.all():
                break
        return self.indices[filled], values[filled]

    def __getitem__(self, index: Key) -> dict[int, float]:
        row = self._row(index)
        found = {step: self.columns[step].at(row) for step in sorted(self.columns)} if row is not None else {}
        curve = {step: value for step, value in found.items() if value is not None}
        if not curve:
            raise KeyError(index)
        return curve

    def __iter__(self) -> Iterator[Key]:
        return iter(self.latest()[0].tolist())

    def __len__(self) -> int:
        return len(self.latest()[0])

    def _row(self, index: Key) -> int | None:
        if isinstance(index, str) != (self.indices.dtype.kind == "U") or not len(self.indices):
            return None
        place = int(np.searchsorted(self._sorted, index))
        return int(self._sorted_rows[place]) if place < len(self._sorted) and self._sorted[place] == index else None

    def _rows(self, distinct: NDArray[Any], first_seen: NDArray[np.integer]) -> NDArray[np.integer]:
        """The rows of sorted, distinct indices; new ones get the next rows, in the order in which they were seen."""
        places = np.minimum(np.searchsorted(self._sorted, distinct), max(len(self._sorted) - 1, 0))
        new = self._sorted[places] != distinct if len(self._sorted) else np.ones(len(distinct), bool)
        rows = np.empty(len(distinct), np.int64)
        rows[~new] = self._sorted_rows[places[~new]]
        if new.any():
            order = np.argsort(first_seen[new])
            added = distinct[new][order]
            rows[np.flatnonzero(new)[order]] = len(self.indices) + np.arange(len(added))
            self.indices = np.concatenate([self.indices, added]) if len(self.indices) else added
            self._sort()
        return rows

    def _sort(self) -> None:
        self._sorted_rows = np.argsort(self.indices, kind="stable").astype(np.int32)
        self._sorted = self.indices[self._sorted_rows]


def _compact(values: NDArray[np.float64]) -> NDArray[np.floating]:
    """The values as float32 where that loses no bit, as of a network's own losses."""
    with np.errstate(over="ignore", invalid="ignore"):
        short = values.astype(np.float32)
        same = np.array_equal(short.astype(np.float64).view(np.int64), values.view(np.int64))
    return short if same else values
