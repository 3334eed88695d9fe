"""A metric by sample over training: which pictures stay hard (FastEstimator's InstanceTracker)."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from onnxplain.errors import ParameterError
from onnxplain.tracking import state
from onnxplain.tracking.batches import Key, batch_of, whole_keys, whole_number
from onnxplain.tracking.curves import Curve, Panel, draw
from onnxplain.tracking.recorded import Column, Recorded
from onnxplain.tracking.summary import Summary

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(slots=True)
class _Running:
    """What an epoch has given so far, and of how many samples, those counted that aren't recorded."""

    indices: list[NDArray[Any]] = field(default_factory=list)
    values: list[NDArray[np.float64]] = field(default_factory=list)
    received: int = 0

    def joined(self) -> tuple[NDArray[Any], NDArray[np.float64]]:
        indices = np.concatenate(self.indices) if self.indices else np.zeros(0, np.int64)
        return indices, np.concatenate([np.zeros(0), *self.values])


class InstanceTracker:
    """Follows a metric for each sample by its index, a whole number or text such as a file's name.

    Kept at the end are the `n_max_to_keep` samples with the highest last values, the `n_min_to_keep` with the lowest,
    and those of `list_to_keep`. With that list and both numbers 0, nothing else is recorded; else everything is, at 4
    bytes for each value that float32 holds, 8 for others. Only epochs that `epoch_frequency` divides are recorded. NaN
    is kept, and counts as higher than any number.

    `history[mode][index][step]` is a value; it is made on demand, so that a million samples cost no million of dicts.
    """

    def __init__(
        self,
        metric: str,
        n_max_to_keep: int = 5,
        n_min_to_keep: int = 5,
        list_to_keep: Iterable[Any] | None = None,
        epoch_frequency: int = 1,
    ) -> None:
        self.metric = metric
        self.n_max_to_keep = whole_number("n_max_to_keep", n_max_to_keep, least=0)
        self.n_min_to_keep = whole_number("n_min_to_keep", n_min_to_keep, least=0)
        self.epoch_frequency = whole_number("epoch_frequency", epoch_frequency, least=1)
        self.list_to_keep = _listed(list_to_keep)
        self.history: dict[str, Recorded] = {}
        self._running: dict[str, _Running] = {}

    def update(self, indices: Any, values: Any, *, mode: str = "eval", epoch: int | None = None) -> None:
        """Take one batch: indices [N] and the metric's values [N]; raises ParameterError.

        Of a repeated index the last value in an epoch counts. `epoch` spares the memory where it won't be recorded.
        """
        found, numbers = batch_of("index", indices, self.metric, values)
        found = whole_keys("index", found)
        self._check_kind(mode, found)
        running = self._running.setdefault(mode, _Running())
        running.received += len(numbers)
        if not len(numbers) or (epoch is not None and not self._due(epoch)):
            return
        if self.list_to_keep and not self.n_max_to_keep and not self.n_min_to_keep:
            listed = np.isin(found, np.array(self.list_to_keep))
            found, numbers = found[listed], numbers[listed]
        running.indices.append(found)
        running.values.append(numbers)

    def epoch_begin(self, mode: str = "eval") -> None:
        """Drop what an interrupted epoch has left, so that running it again doubles nothing."""
        self._running.pop(mode, None)

    def epoch_end(self, step: int, mode: str = "eval", epoch: int | None = None) -> None:
        """Record the running epoch under `step`, in the place of what was there; without any samples, do nothing.

        `epoch` is `step` unless given; where `epoch_frequency` doesn't divide it, the epoch's values are dropped.
        """
        step = whole_number("step", step)
        due = self._due(step if epoch is None else epoch)
        indices, values = self._running.pop(mode, _Running()).joined()
        if due and len(indices):
            self.history.setdefault(mode, Recorded()).record(step, indices, values)

    def received(self, mode: str = "eval") -> int:
        """How many samples the running epoch has given so far: where an interrupted one goes on."""
        return self._running.get(mode, _Running()).received

    def steps(self, mode: str = "eval") -> list[int]:
        """The steps recorded so far, in ascending order."""
        return sorted(self.history[mode].columns) if mode in self.history else []

    def forget_after(self, step: int, mode: str = "eval") -> None:
        """Drop what was recorded of later steps: by a run that has been begun again from an earlier one."""
        for later in [each for each in self.steps(mode) if each > step]:
            del self.history[mode].columns[later]

    def latest(self, mode: str = "eval") -> tuple[NDArray[Any], NDArray[np.float64]]:
        """Every recorded index, in the order first seen, and its last value; ParameterError for an unknown mode."""
        if mode not in self.history:
            recorded = ", ".join(self.history) or "nothing"
            raise ParameterError(f"no epoch of mode {mode!r} has been recorded; recorded: {recorded}")
        return self.history[mode].latest()

    def kept(self, mode: str = "eval") -> list[Key]:
        """The indices to keep, by their last value, ascending: the highest, the lowest and the listed ones.

        Ties keep the order in which the indices were first seen, NaN comes last; listed ones never seen are left out.
        """
        indices, values = self.latest(mode)
        order = np.argsort(values, kind="stable")
        chosen = (
            np.isin(indices[order], np.array(self.list_to_keep)) if self.list_to_keep else np.zeros(len(order), bool)
        )
        chosen[: self.n_min_to_keep] = True
        chosen[max(len(order) - self.n_max_to_keep, 0) :] = True
        return indices[order][chosen].tolist()

    def hardest(self, count: int, mode: str = "eval", *, harder: str = "high") -> list[Key]:
        """The indices of the `count` highest last values, the highest first, NaN before all numbers.

        `harder="low"` is for metrics that fall where a sample is hard: the lowest first, NaN still before them.
        """
        if harder not in ("high", "low"):
            raise ParameterError(f'harder must be "high" or "low", not {harder!r}')
        return self._ranked(count, mode, harder, hardest=True)

    def easiest(self, count: int, mode: str = "eval", *, harder: str = "high") -> list[Key]:
        """The indices of the `count` lowest last values, the lowest first, NaN after all numbers; see `hardest`."""
        if harder not in ("high", "low"):
            raise ParameterError(f'harder must be "high" or "low", not {harder!r}')
        return self._ranked(count, mode, harder, hardest=False)

    def summaries(self) -> list[Summary]:
        """One Summary for each kept index: its values at every step, under the metric's name."""
        found: dict[Key, Summary] = {}
        for mode, recorded in self.history.items():
            for index in self.kept(mode):
                found.setdefault(index, Summary(index, {})).history[mode] = {self.metric: dict(recorded[index])}
        return list(found.values())

    def figure(self, path: str | Path | None = None, *, title: str = "", mode: str | None = None) -> "Figure":
        """A matplotlib figure of the kept samples' curves, a panel for each mode; written to `path` as PNG if given.

        Values that are NaN or infinite are marked at the lower edge. Raises ParameterError where nothing has been
        recorded or kept, OnnxplainError where matplotlib is missing, and OutputError.
        """
        modes = list(self.history) if mode is None else [mode]
        return draw([Panel(each, self._curves(each)) for each in modes], self.metric, "sample", path, title)

    def to_bytes(self) -> bytes:
        """The whole state, the running epoch included: for a checkpoint that holds it beside the network's weights."""
        arrays: dict[str, NDArray[Any]] = {}
        modes = list(dict.fromkeys([*self.history, *self._running]))
        for number, mode in enumerate(modes):
            running = self._running.get(mode, _Running())
            arrays[f"{number}.pending"], arrays[f"{number}.values"] = running.joined()
            recorded = self.history.get(mode, Recorded())
            arrays[f"{number}.indices"] = recorded.indices
            for at, step in enumerate(self.steps(mode)):
                column = recorded.columns[step]
                arrays[f"{number}.{at}.values"] = column.values
                if column.rows is not None:
                    arrays[f"{number}.{at}.rows"] = column.rows
        settings = {
            "metric": self.metric,
            "n_max_to_keep": self.n_max_to_keep,
            "n_min_to_keep": self.n_min_to_keep,
            "list_to_keep": self.list_to_keep,
            "epoch_frequency": self.epoch_frequency,
            "modes": [[mode, self.received(mode), self.steps(mode)] for mode in modes],
        }
        return state.pack("InstanceTracker", settings, arrays)

    @classmethod
    def from_bytes(cls, data: bytes, where: str = "the state") -> Self:
        """The tracker whose state `to_bytes` gave; ParameterError where it is damaged, newer or another's."""
        settings, arrays = state.unpack("InstanceTracker", data, where)
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
        modes = settings.pop("modes")
        tracker = cls(**settings)
        for number, (mode, received, steps) in enumerate(modes):
            if received:
                pending = arrays[f"{number}.pending"], arrays[f"{number}.values"]
                held = ([pending[0]], [pending[1]]) if len(pending[0]) else ([], [])
                tracker._running[mode] = _Running(*held, received)
            columns = {
                step: Column(arrays.get(f"{number}.{at}.rows"), arrays[f"{number}.{at}.values"])
                for at, step in enumerate(steps)
            }
            if columns:
                tracker.history[mode] = Recorded(arrays[f"{number}.indices"], columns)
        return tracker

    def _due(self, epoch: int) -> bool:
        return whole_number("epoch", epoch) % self.epoch_frequency == 0

    def _check_kind(self, mode: str, indices: NDArray[Any]) -> None:
        """ParameterError where numbers come after text, or text after numbers."""
        earlier = self._running[mode].indices[-1:] if mode in self._running else []
        recorded = [self.history[mode].indices] if mode in self.history else []
        for known in [*earlier, *recorded, *([np.array(self.list_to_keep)] if self.list_to_keep else [])]:
            if len(indices) and len(known) and (known.dtype.kind == "U") != (indices.dtype.kind == "U"):
                words = (
                    f"such as {indices[0].item()!r}, but those listed or seen before are such as {known[0].item()!r}"
                )
                raise ParameterError(f"indices {words}: all numbers or all text")

    def _ranked(self, count: int, mode: str, harder: str, hardest: bool) -> list[Key]:
        count = whole_number("count", count, least=0)
        indices, values = self.latest(mode)
        values = values if harder == "high" else -values
        order = np.argsort(values, kind="stable")
        return indices[order[::-1] if hardest else order][:count].tolist()

    def _curves(self, mode: str) -> list[Curve]:
        kept = self.kept(mode)
        if not kept:
            raise ParameterError(
                "no sample is kept: n_max_to_keep and n_min_to_keep are 0, and none of the list was seen"
            )
        lowest = self.n_min_to_keep
        highest = len(kept) - self.n_max_to_keep
        groups = ["highest" if at >= highest else "lowest" if at < lowest else "listed" for at in range(len(kept))]
        return [_curve(index, self.history[mode][index], group) for index, group in zip(kept, groups, strict=True)]


def _listed(indices: Iterable[Any] | None) -> list[Key]:
    """The listed indices as plain values."""
    listed = [each.item() if hasattr(each, "item") else each for each in ([] if indices is None else indices)]
    if isinstance(indices, str) or not all(isinstance(each, int | str) for each in listed):
        raise ParameterError(f"list_to_keep must be a list of whole numbers or of text, not {indices!r}")
    if len({isinstance(each, str) for each in listed}) > 1:
        raise ParameterError("list_to_keep must hold all numbers or all text, not some of each")
    return listed


def _curve(index: Key, recorded: dict[int, float], group: str) -> Curve:
    return Curve(str(index), np.array(list(recorded)), np.array(list(recorded.values())), group=group)
