"""A training that was interrupted goes on: the trackers' states in a folder, written whole after each epoch."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onnxplain.errors import OutputError, ParameterError
from onnxplain.tracking import state
from onnxplain.tracking.instances import InstanceTracker
from onnxplain.tracking.labels import LabelTracker
from onnxplain.tracking.saliency import SaliencyTracker

Tracker = SaliencyTracker | LabelTracker | InstanceTracker
KIND = "Watch"


class StateFolder:
    """NAME.npz for each tracker, which its restore() reads too, and watch.npz with the epochs that are done.

    Raises ParameterError and OutputError for what can't be a folder.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"state={str(path)!r} can't be made a folder: {error.strerror or error}") from None
        if not os.access(self.path, os.W_OK | os.X_OK):
            raise OutputError(f"state={str(path)!r}: the folder is write-protected")

    def write(self, trackers: Mapping[str, Tracker], epochs: Mapping[str, int], modes: set[str], data: str) -> None:
        """Writes every state; the epochs last, so that nothing is counted that isn't stored. `data` says what of."""
        for name, tracker in trackers.items():
            tracker.save(self.path / f"{name}.npz")
        state.write(self._watch, state.pack(KIND, {"epochs": dict(epochs), "modes": sorted(modes), "data": data}, {}))

    def read(self, trackers: Mapping[str, Tracker]) -> tuple[dict[str, int], set[str], str]:
        """Gives the trackers their stored states; returns the epochs done by mode, the modes that were fed, the data.

        What an interrupted epoch has left in them is dropped: it will be run again. ParameterError where a state is
        damaged, or of a tracker with other settings.
        """
        if not self._watch.exists():
            return {}, set(), ""
        told, _ = state.unpack(KIND, state.read(self._watch), str(self._watch))
        modes = {str(mode) for mode in told["modes"]}
        for name, tracker in trackers.items():
            if (self.path / f"{name}.npz").exists():
                _adopt(tracker, self.path / f"{name}.npz")
            for mode in modes:
                tracker.epoch_begin(mode)
        return {str(mode): int(epoch) for mode, epoch in told["epochs"].items()}, modes, str(told["data"])

    @property
    def _watch(self) -> Path:
        return self.path / "watch.npz"


def _adopt(tracker: Tracker, path: Path) -> None:
    """Makes the caller's own tracker what was stored."""
    stored = type(tracker).restore(path)
    ours, theirs = _settings(tracker), _settings(stored)
    for name, value in ours.items():
        if repr(value) != repr(theirs.get(name)):
            raise ParameterError(
                f"{path} is of a {type(tracker).__name__} with {name}={theirs.get(name)!r}, not {value!r}: give the "
                "same, or another folder as state="
            )
    sinks = {"sinks": tracker.sinks} if isinstance(tracker, SaliencyTracker) else {}
    vars(tracker).update(vars(stored) | sinks)


def _settings(tracker: Tracker) -> dict[str, Any]:
    """What a tracker was made with."""
    found = {name: value for name, value in vars(tracker).items() if not name.startswith("_")}
    return {name: value for name, value in found.items() if name not in ("history", "sinks")}
