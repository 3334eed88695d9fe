"""Watch: after each epoch a bundle gets the weights that a network has learned, and trackers look at what it says."""

import inspect
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from onnxplain.errors import OnnxplainError, ParameterError, unknown
from onnxplain.explainer import Explainer
from onnxplain.providers import choose
from onnxplain.tracking.batches import whole_number
from onnxplain.tracking.following import Followed
from onnxplain.tracking.instances import InstanceTracker
from onnxplain.tracking.labels import LabelTracker
from onnxplain.tracking.maps import TrackedMaps
from onnxplain.tracking.saliency import SaliencyTracker
from onnxplain.tracking.samples import checked_mode
from onnxplain.tracking.scoring import SAMPLE_METRICS, find_sample_metric
from onnxplain.tracking.sinks import as_sinks, publish
from onnxplain_export.bundle import refuse_target
from onnxplain_export.callbacks.resuming import StateFolder, Tracker
from onnxplain_export.callbacks.surroundings import is_first_process, undisturbed
from onnxplain_export.callbacks.watched_data import WatchedData, example_of
from onnxplain_export.exporting import export
from onnxplain_export.methods import METHODS
from onnxplain_export.origins import digest
from onnxplain_export.refreshing import refresh
from onnxplain_export.sources.recognition import frameworks

EVAL = "eval"
KINDS = {"saliency": SaliencyTracker, "labels": LabelTracker, "instances": InstanceTracker}
OWN = ("model", "output", "example", "overwrite", "labels")
"""Parameters of export() that aren't passed on under their names."""


class Watch:
    """Shows trackers a network while it trains, and leaves the training as it is, bit for bit.

        watch = Watch(model, "net.explain", data=(x_test, y_test), labels=LabelTracker("cross_entropy"))
        ...
            watch.epoch_end()  # after each epoch, before the training's own checkpoint is saved
        watch.train_end()

    `model` is a torch module or a Keras model (None: set `watch.model` before the first epoch ends). The folder
    `bundle` is written at the first need, in place of one that is there, and refreshed afterwards; `export_options` are
    those of onnxplain_export.export, `methods` the saliency tracker's unless given, and `class_names` its labels.
    `example` is one input batch, for a module whose data don't tell it.

    `data`, (images, labels) or an iterable of such batches, are what the network is measured on after epochs of the
    mode "eval": each sample by `metric`, for the trackers `labels` and `instances`, at epoch 1 and the multiples of
    `every`. Without them, batch() takes values that the training has computed. Pictures for `saliency` come from
    `data` or batch(), unless it was given its own.

    `sinks` get the trackers' figures and numbers. In the folder `state` all is stored after each epoch: a new Watch
    with the same folder goes on where that one was interrupted. An epoch that was interrupted is run again, and counts
    once. A training that goes on from a checkpoint of its own should tell epoch_end its number.

    What goes wrong while watching is a warning that names the epoch, once until it goes well again; training goes on.
    In a distributed training the first process alone watches. Raises ParameterError, DeviceError and OutputError.
    """

    def __init__(
        self,
        model: Any,
        bundle: str | os.PathLike[str],
        *,
        example: Any = None,
        data: Any = None,
        metric: str = "cross_entropy",
        saliency: SaliencyTracker | None = None,
        labels: LabelTracker | None = None,
        instances: InstanceTracker | None = None,
        class_names: Sequence[str] | None = None,
        sinks: Any = (),
        state: str | os.PathLike[str] | None = None,
        every: int = 1,
        device: str = "cpu",
        **export_options: Any,
    ) -> None:
        self.saliency, self.labels, self.instances = saliency, labels, instances
        self._trackers = _checked_trackers({"saliency": saliency, "labels": labels, "instances": instances})
        self.model, self.bundle, self.example = model, Path(bundle), example
        self.metric = find_sample_metric(metric).name
        self.every = whole_number("every", every, 1)
        self.data = None if data is None else WatchedData(data, numbered=instances is not None)
        self._check_metrics()
        self.sinks = as_sinks(sinks)
        if saliency is not None:
            saliency.sinks = (*saliency.sinks, *(sink for sink in self.sinks if sink not in saliency.sinks))
        self.device = device
        choose(device)
        self.export_options = {**_checked_options(export_options, saliency), "labels": class_names}
        refuse_target(self.bundle, overwrite=True)
        self.epochs: dict[str, int] = {}
        self.followed: Followed | None = None
        self.maps: dict[str, TrackedMaps] = {}
        self._modes = {EVAL}
        self._pictured = {EVAL}
        self._failing: set[str] = set()
        self._exported = False
        self._measured = ""
        self._state = None if state is None else StateFolder(state)
        if self._state is not None:
            self.epochs, modes, self._measured = self._state.read(self._trackers)
            self._modes |= modes

    @property
    def model(self) -> Any:
        """The network, or None where it isn't known yet."""
        return self._model

    @model.setter
    def model(self, model: Any) -> None:
        if model is not None and (isinstance(model, type) or not frameworks(model) & {"torch", "keras"}):
            kind = f"the class {model.__name__}" if isinstance(model, type) else f"a {type(model).__name__}"
            raise ParameterError(f"Watch takes a torch module or a Keras model, not {kind}")
        self._model = model

    def epoch_begin(self, mode: str = EVAL) -> None:
        """Drop what an epoch of this mode that was broken off has been fed, where it is run again in one process."""
        for tracker in self._trackers.values():
            tracker.epoch_begin(checked_mode(mode))

    def batch(
        self, images: Any = None, labels: Any = None, values: Any = None, indices: Any = None, *, mode: str = EVAL
    ) -> None:
        """Hand a batch to the trackers: pictures, and `values` of the metric [N] with `labels` and `indices` [N].

        Arrays, or tensors of any device; copies are kept of what is kept. Raises ParameterError.
        """
        mode = checked_mode(mode)
        if values is not None and self.data is not None and mode == EVAL:
            raise ParameterError("values of mode 'eval' are measured on data=; feed others under another mode")
        if values is not None and labels is None and indices is None:
            raise ParameterError("values need labels= or indices= that say whose they are")
        if not is_first_process():
            return
        self._modes.add(mode)
        if images is not None:
            self.example = example_of(images) if self.example is None else self.example
            self._pictured.add(mode)
            if self.saliency is not None:
                self.saliency.collect(images, labels, mode=mode)
        if values is not None and labels is not None and self.labels is not None:
            self.labels.update(labels, values, mode=mode)
        if values is not None and indices is not None and self.instances is not None:
            self.instances.update(indices, values, mode=mode)

    def epoch_end(self, epoch: int | None = None, *, mode: str = EVAL) -> None:
        """Record an epoch of this mode: the next one unless its number is given, the first of which is 1."""
        mode = checked_mode(mode)
        epoch = self.epochs.get(mode, 0) + 1 if epoch is None else whole_number("epoch", epoch, 1)
        if not is_first_process():
            return
        with self._undisturbed():
            self._go_back(epoch, mode)
            self._record(epoch, mode)
            measured, shown = self._measures(epoch, mode), self._shows(epoch, mode)
            if measured or shown:
                self._look(epoch, mode, measured, shown)
            self._publish(epoch, mode)
            self.epochs[mode] = epoch
            self._save(epoch)

    def train_end(self) -> None:
        """Show the maps of the last epoch; write the last figures and the films into the folder `state`, if given."""
        if not is_first_process():
            return
        epoch = self.epochs.get(EVAL, 0)
        with self._undisturbed():
            if self.saliency is not None and epoch and epoch not in self.saliency.shown.get(EVAL, ()):
                self._look(epoch, EVAL, measured=False, shown=True)
                self._save(epoch)
            if self._state is not None:
                self._draw(self._state.path, epoch)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.train_end()

    @contextmanager
    def training_goes_on(self, lacking: str, epoch: int) -> Iterator[None]:
        """Turns an error into a warning, the first of a row of them; it says what is `lacking`."""
        try:
            yield
        except Exception as error:  # whatever it is (a full disk, a data set's own fault), it must not end a training
            if lacking not in self._failing:
                self._failing.add(lacking)
                kind = "" if isinstance(error, OnnxplainError) else f"{type(error).__name__}: "
                warnings.warn(f"epoch {epoch}: {lacking}, but training goes on: {kind}{error}", stacklevel=1)
        else:
            self._failing.discard(lacking)

    def _go_back(self, epoch: int, mode: str) -> None:
        """A run that is begun again from an earlier epoch takes the place of what was recorded after it."""
        done = self.epochs.get(mode, 0)
        if epoch >= done:
            return
        for tracker in self._trackers.values():
            tracker.forget_after(epoch, mode)
        told = f"epoch {epoch} comes again: what was recorded after it, up to epoch {done}, is dropped"
        warnings.warn(told, stacklevel=3)

    def _record(self, epoch: int, mode: str) -> None:
        """What batch() was given becomes the epoch's."""
        self._warn_unfed(epoch, mode)
        for tracker in (self.labels, self.instances):
            if tracker is None:
                continue
            if self.data is not None and mode == EVAL:
                tracker.epoch_begin(mode)  # what a measurement that failed has left
            else:
                tracker.epoch_end(epoch, mode)

    def _warn_unfed(self, epoch: int, mode: str) -> None:
        fed = [tracker.received(mode) for tracker in (self.labels, self.instances) if tracker is not None]
        if self.data is None and fed and not any(fed) and "nothing fed" not in self._failing:
            self._failing.add("nothing fed")
            told = (
                f"epoch {epoch}: batch() was given no values of mode {mode!r}, so none are recorded; give data= or them"
            )
            warnings.warn(told, stacklevel=4)

    def _measures(self, epoch: int, mode: str) -> bool:
        if self.data is None or mode != EVAL or not (epoch == 1 or epoch % self.every == 0):
            return False
        return self.labels is not None or (self.instances is not None and epoch % self.instances.epoch_frequency == 0)

    def _shows(self, epoch: int, mode: str) -> bool:
        return self.saliency is not None and mode in self._pictured and self.saliency.due(epoch)

    def _look(self, epoch: int, mode: str, measured: bool, shown: bool) -> None:
        """The bundle gets the network's weights; samples are measured, maps are shown."""
        explainer = None
        with self.training_goes_on("no bundle", epoch):
            self._update()
            explainer = Explainer(self.bundle, self.device)
        if explainer is None:
            return
        if measured and self.data is not None:
            with self.training_goes_on("nothing measured", epoch):
                self.followed = self.data.follow(
                    explainer,
                    step=epoch,
                    metric=self.metric,
                    label_tracker=self.labels,
                    instance_tracker=self.instances,
                    mode=mode,
                )
            self._compare_data(epoch)
        if shown and self.saliency is not None:
            with self.training_goes_on("no maps", epoch):
                if self.data is not None and mode == EVAL:
                    self.data.collect(self.saliency, mode)
                self.maps[mode] = self.saliency.show(explainer, epoch, mode=mode)

    def _compare_data(self, epoch: int) -> None:
        """Warns where the samples aren't those of the epochs before: their numbers then mean others."""
        if self.followed is None:
            return
        before, now = self._measured, f"{len(self.followed)} samples {digest(np.sort(self.followed.labels))[:16]}"
        if before not in ("", now):
            told = (
                f"epoch {epoch}: data= are other samples than those of the epochs before; give another folder as state="
            )
            warnings.warn(told, stacklevel=4)
        self._measured = now

    def _update(self) -> None:
        """Refreshes the bundle; exports it where this Watch hasn't yet, since it may be of another network."""
        if self._model is None:
            raise ParameterError("there is no network: set watch.model before the first epoch ends")
        if self._exported:
            refresh(self.bundle, self._model)
            return
        export(self._model, self.bundle, example=self._example(), overwrite=True, **self.export_options)
        self._exported = True

    def _example(self) -> Any:
        if self.example is None and self.data is not None and not getattr(self._model, "inputs", None):
            self.example = example_of(next(iter(self.data.batches()))[0])
        return self.example

    def _publish(self, epoch: int, mode: str) -> None:
        if not self.sinks:
            return
        with self.training_goes_on("nothing published", epoch):
            for name, tracker in (("labels", self.labels), ("instances", self.instances)):
                if tracker is not None and epoch in tracker.steps(mode):
                    publish(tracker, self.sinks, epoch, name=f"{tracker.metric}/{name}")

    def _save(self, epoch: int) -> None:
        if self._state is not None:
            with self.training_goes_on("nothing stored", epoch):
                self._state.write(self._trackers, self.epochs, self._modes, self._measured)

    def _draw(self, folder: Path, epoch: int) -> None:
        for name, tracker in self._trackers.items():
            with self.training_goes_on("nothing drawn", epoch):
                if isinstance(tracker, SaliencyTracker):
                    for mode in tracker.shown if tracker.keep_film else ():
                        tracker.film(folder / f"{name}_{mode}.webp", mode=mode)
                elif tracker.history:
                    tracker.figure(folder / f"{name}.png")

    def _undisturbed(self) -> AbstractContextManager[None]:
        return undisturbed(() if self.data is None else self.data.generators())

    def _check_metrics(self) -> None:
        for name in ("labels", "instances") if self.data is not None else ():
            other = getattr(self._trackers.get(name), "metric", self.metric)
            if other != self.metric and other in SAMPLE_METRICS:
                raise ParameterError(f"{name}= follows {other!r}, but metric={self.metric!r} is what is measured")


def _checked_trackers(given: Mapping[str, Any]) -> dict[str, Tracker]:
    for name, tracker in given.items():
        if tracker is not None and not isinstance(tracker, KINDS[name]):
            raise ParameterError(f"{name}= takes a {KINDS[name].__name__}, not {tracker!r}")
    found = {name: tracker for name, tracker in given.items() if tracker is not None}
    if not found:
        raise ParameterError("there is nothing to watch with: give saliency=, labels= or instances=")
    return found


def _checked_options(options: Mapping[str, Any], saliency: SaliencyTracker | None) -> dict[str, Any]:
    """Options of export, the methods among them."""
    known = [name for name in inspect.signature(export).parameters if name not in OWN]
    for name in options:
        if name not in known:
            raise ParameterError(unknown("option", name, known))
    shown = saliency.methods if saliency is not None else ("gradient",)
    methods = options.get("methods") or shown
    named = (methods,) if isinstance(methods, str) else tuple(methods)
    for name in (*shown, *(name for name in named if named != ("all",))):
        if name not in METHODS:
            raise ParameterError(unknown("method", str(name), METHODS))
    lacking = [name for name in shown if name not in named]
    if saliency is not None and lacking and named != ("all",):
        raise ParameterError(f"methods= lacks {lacking[0]!r}, which the saliency tracker shows")
    return {**options, "methods": methods}
