"""A metric by label over training: which class is learned late, or never (FastEstimator's LabelTracker)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from onnxplain.errors import ParameterError
from onnxplain.tracking import state
from onnxplain.tracking.batches import Key, batch_of, whole_number
from onnxplain.tracking.curves import Curve, Panel, draw
from onnxplain.tracking.summary import Band, Summary

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Bounds = str | None
# FastEstimator's names of the curves, in the order in which they are recorded.
SUFFIXES: dict[Bounds, str] = {"std": r" ($\mu \pm \sigma$)", "range": r" ($min, \mu, max$)", None: ""}
SHOWN: dict[Bounds, str] = {"std": "mean ± standard deviation", "range": "mean, minimum to maximum", None: "mean"}


@dataclass(slots=True)
class _Running:
    """What an epoch has given so far: labels by their numbers, values, and how many samples, dropped ones counted."""

    codes: list[NDArray[np.int64]] = field(default_factory=list)
    values: list[NDArray[np.float64]] = field(default_factory=list)
    received: int = 0

    def joined(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        return np.concatenate([np.zeros(0, np.int64), *self.codes]), np.concatenate([np.zeros(0), *self.values])


class LabelTracker:
    """Follows the mean of a metric for each label, and how far its samples lie apart.

    `bounds` are "std" (mean ± sample standard deviation, 0 for one sample), "range" (minimum and maximum), None, or
    several of them. `label_mapping` is {shown name: label}; labels that it lacks are left out, as FastEstimator does.
    A mean over NaN is NaN.

    `history[mode][name][bounds][step]` is the mean, or a Band where there are bounds; the name is a label's shown name,
    or the label itself. A step is what the caller counts by, such as the epoch.
    """

    def __init__(
        self,
        metric: str,
        bounds: str | Iterable[Bounds] | None = "std",
        label_mapping: Mapping[str, Any] | None = None,
    ) -> None:
        self.metric = metric
        self.bounds = _bounds(bounds)
        self.label_mapping = _mapping(label_mapping)
        self.history: dict[str, dict[Key, dict[Bounds, dict[int, float | Band]]]] = {}
        # Labels are kept as numbers: their place among those seen, or in the mapping.
        self._codes: dict[Key, int] = {label: at for at, label in enumerate((self.label_mapping or {}).values())}
        self._running: dict[str, _Running] = {}

    def update(self, labels: Any, values: Any, *, mode: str = "eval") -> None:
        """Take one batch: labels [N] (numbers or text) and the metric's values [N]; raises ParameterError."""
        found, numbers = batch_of("label", labels, self.metric, values)
        distinct, places = np.unique(found, return_inverse=True)
        codes = np.array([self._code(label) for label in distinct.tolist()], np.int64)[places]
        running = self._running.setdefault(mode, _Running())
        running.codes.append(codes[codes >= 0])
        running.values.append(numbers[codes >= 0])
        running.received += len(numbers)

    def epoch_begin(self, mode: str = "eval") -> None:
        """Drop what an interrupted epoch has left, so that running it again doubles nothing."""
        self._running.pop(mode, None)

    def epoch_end(self, step: int, mode: str = "eval") -> None:
        """Record the running epoch under `step`, in the place of what was there; without any samples, do nothing."""
        step = whole_number("step", step)
        codes, values = self._running.pop(mode, _Running()).joined()
        if not len(codes):
            return
        self._forget(step, mode)
        names = self._names()
        for code, low, mean, deviation, high in _grouped(codes, values):
            curves = self.history.setdefault(mode, {}).setdefault(names[code], {})
            found: dict[Bounds, float | Band] = {
                "std": Band(mean - deviation, mean, mean + deviation),
                "range": Band(low, mean, high),
                None: mean,
            }
            for bounds in self.bounds:
                curves.setdefault(bounds, {})[step] = found[bounds]

    def received(self, mode: str = "eval") -> int:
        """How many samples the running epoch has given so far: where an interrupted one goes on."""
        return self._running.get(mode, _Running()).received

    def steps(self, mode: str = "eval") -> list[int]:
        """The steps recorded so far, in ascending order."""
        labels = self.history.get(mode, {}).values()
        return sorted({step for curves in labels for curve in curves.values() for step in curve})

    def summaries(self) -> list[Summary]:
        """One Summary for each label, with FastEstimator's names of the curves."""
        found: dict[Key, Summary] = {}
        for mode, labels in self.history.items():
            for name, curves in labels.items():
                summary = found.setdefault(name, Summary(name, {}))
                summary.history[mode] = {self.metric + SUFFIXES[each]: dict(curve) for each, curve in curves.items()}
        return list(found.values())

    def figure(self, path: str | Path | None = None, *, title: str = "", mode: str | None = None) -> "Figure":
        """A matplotlib figure, written to `path` as PNG if given: for each mode and kind of bounds a panel of curves.

        Past 20 labels only those with the highest and the lowest last means have colours, bands and names. Steps whose
        mean is NaN or infinite are marked at the lower edge. Raises ParameterError where nothing has been recorded,
        OnnxplainError where matplotlib is missing, and OutputError.
        """
        panels = [
            Panel(f"{each}: {SHOWN[bounds]}", self._curves(each, bounds))
            for each in (self.history if mode is None else [mode])
            for bounds in self.bounds
        ]
        return draw(panels, self.metric, "label", path, title)

    def to_bytes(self) -> bytes:
        """The whole state, the running epoch included: for a checkpoint that holds it beside the network's weights."""
        codes = {name: code for code, name in enumerate(self._names())}
        arrays: dict[str, NDArray[Any]] = {}
        modes = list(dict.fromkeys([*self.history, *self._running]))
        for number, mode in enumerate(modes):
            running = self._running.get(mode, _Running())
            arrays[f"{number}.labels"], arrays[f"{number}.values"] = running.joined()
            for at, bounds in enumerate(self.bounds):
                for name, array in _table(self.history.get(mode, {}), codes, bounds).items():
                    arrays[f"{number}.{at}.{name}"] = array
        settings = {
            "metric": self.metric,
            "bounds": list(self.bounds),
            "label_mapping": self.label_mapping and list(self.label_mapping.items()),
            "labels": list(self._codes),
            "modes": [[mode, self.received(mode)] for mode in modes],
        }
        return state.pack("LabelTracker", settings, arrays)

    @classmethod
    def from_bytes(cls, data: bytes, where: str = "the state") -> Self:
        """The tracker whose state `to_bytes` gave; ParameterError where it is damaged, newer or another's."""
        settings, arrays = state.unpack("LabelTracker", data, where)
        try:
            return cls._restored(settings, arrays)
        except state.MALFORMED as error:
            raise state.damaged(where, error) from None

    def save(self, path: str | Path) -> None:
        """Write the whole state, the running epoch included, to a .npz file; raises OutputError."""
        state.write(path, self.to_bytes())

    @classmethod
    def restore(cls, path: str | Path) -> Self:
        """The tracker that was saved to `path`; ParameterError where that is damaged, newer or another tracker's."""
        return cls.from_bytes(state.read(path), str(path))

    @classmethod
    def _restored(cls, settings: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Self:
        mapping = settings["label_mapping"]
        tracker = cls(settings["metric"], settings["bounds"], mapping and dict(mapping))
        tracker._codes = {label: code for code, label in enumerate(settings["labels"])}
        names = tracker._names()
        for number, (mode, received) in enumerate(settings["modes"]):
            if received:
                pending = arrays[f"{number}.labels"], arrays[f"{number}.values"]
                tracker._running[mode] = _Running([pending[0]], [pending[1]], received)
            for at, bounds in enumerate(tracker.bounds):
                part = [arrays[f"{number}.{at}.{name}"] for name in ("labels", "steps", "curves")]
                for code, step, row in zip(*(array.tolist() for array in part), strict=True):
                    curves = tracker.history.setdefault(mode, {}).setdefault(names[code], {})
                    curves.setdefault(bounds, {})[step] = row[0] if bounds is None else Band(*row)
        return tracker

    def _code(self, label: Key) -> int:
        """A label's number; -1 for one that the mapping lacks. ParameterError where no label can be in it."""
        if self.label_mapping is None:
            return self._codes.setdefault(label, len(self._codes))
        code = self._codes.get(label, -1)
        if code < 0 and all(isinstance(label, str) != isinstance(each, str) for each in self._codes):
            other = next(iter(self._codes))
            raise ParameterError(f"label_mapping holds labels such as {other!r}, but the batch has {label!r}")
        return code

    def _names(self) -> list[Key]:
        return list(self._codes) if self.label_mapping is None else list(self.label_mapping)

    def forget_after(self, step: int, mode: str = "eval") -> None:
        """Drop what was recorded of later steps: by a run that has been begun again from an earlier one."""
        for later in [each for each in self.steps(mode) if each > step]:
            self._forget(later, mode)

    def _forget(self, step: int, mode: str) -> None:
        for name, curves in list(self.history.get(mode, {}).items()):
            for curve in curves.values():
                curve.pop(step, None)
            if not any(curves.values()):
                del self.history[mode][name]

    def _curves(self, mode: str, bounds: Bounds) -> list[Curve]:
        if mode not in self.history:
            recorded = ", ".join(self.history) or "nothing"
            raise ParameterError(f"no epoch of mode {mode!r} has been recorded; recorded: {recorded}")
        order = {name: code for code, name in enumerate(self._names())}
        labels = self.history[mode]
        # By the mapping's order, else by value; numbers before text.
        names = sorted(
            labels, key=order.__getitem__ if self.label_mapping else lambda name: (isinstance(name, str), name)
        )
        return [_curve(str(name), labels[name][bounds]) for name in names]


def _bounds(bounds: str | Iterable[Bounds] | None) -> tuple[Bounds, ...]:
    chosen = {bounds} if bounds is None or isinstance(bounds, str) else set(bounds) or {None}
    for each in chosen:
        if each not in SUFFIXES:
            raise ParameterError(f"unknown bounds {each!r}; known: 'std', 'range', None, or several of them in a list")
    return tuple(each for each in SUFFIXES if each in chosen)


def _mapping(mapping: Mapping[str, Any] | None) -> dict[str, Key] | None:
    """A mapping with plain values; ParameterError where two names are given to a label."""
    names: dict[Key, str] = {}
    for name, label in (mapping or {}).items():
        value = label.item() if hasattr(label, "item") else label
        if not isinstance(value, int | float | str):
            raise ParameterError(f"label_mapping: {name!r} must stand for a number or text, not {value!r}")
        if value in names:
            raise ParameterError(f"label_mapping: label {value!r} has two names, {names[value]!r} and {name!r}")
        names[value] = str(name)
    return {name: label for label, name in names.items()} or None


def _grouped(codes: NDArray[np.int64], values: NDArray[np.float64]) -> list[tuple[int, float, float, float, float]]:
    """For each code: itself, and the minimum, mean, sample standard deviation and maximum of its values."""
    order = np.argsort(codes, kind="stable")
    found, starts, counts = np.unique(codes[order], return_index=True, return_counts=True)
    values = values[order]
    # Infinite values have a mean, but nothing that could be subtracted from it.
    with np.errstate(invalid="ignore", over="ignore"):
        mean = np.add.reduceat(values, starts) / counts
        rest = np.add.reduceat(values - np.repeat(mean, counts), starts) / counts
        mean = np.where(np.isfinite(rest), mean + rest, mean)
        squares = np.add.reduceat((values - np.repeat(mean, counts)) ** 2, starts)
        deviation = np.where(counts > 1, np.sqrt(squares / np.maximum(counts - 1, 1)), 0.0)
    low, high = np.minimum.reduceat(values, starts), np.maximum.reduceat(values, starts)
    return list(zip(*(array.tolist() for array in (found, low, mean, deviation, high)), strict=True))


def _table(
    labels: Mapping[Key, Mapping[Bounds, Mapping[int, float | Band]]], codes: Mapping[Key, int], bounds: Bounds
) -> dict[str, NDArray[Any]]:
    """One kind of curves as columns: labels, steps, and the curves' values [rows, 1 or 3]."""
    rows = [(codes[name], step, value) for name, curves in labels.items() for step, value in curves[bounds].items()]
    return {
        "labels": np.array([row[0] for row in rows], np.int64),
        "steps": np.array([row[1] for row in rows], np.int64),
        "curves": np.array([row[2] for row in rows], np.float64).reshape(len(rows), 1 if bounds is None else 3),
    }


def _curve(name: str, recorded: Mapping[int, float | Band]) -> Curve:
    steps = sorted(recorded)
    rows = np.array([recorded[step] for step in steps], np.float64)
    if rows.ndim == 1:
        return Curve(name, np.array(steps), rows)
    return Curve(name, np.array(steps), rows[:, 1], rows[:, 0], rows[:, 2])
