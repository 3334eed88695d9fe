"""Maps over epochs: the same pictures, explained again and again while their network learns (FastEstimator's Saliency).

What FastEstimator's trace shows is said in its version 1.7 (Apache-2.0), fastestimator/trace/xai/saliency.py.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from onnxplain.errors import ParameterError, unknown
from onnxplain.explainer import Explainer
from onnxplain.images import Image, read_images
from onnxplain.predictions import predictions
from onnxplain.tracking import state
from onnxplain.tracking.batches import whole_number
from onnxplain.tracking.film import Film, write_film
from onnxplain.tracking.maps import COLUMNS, TrackedMaps, shown_pictures
from onnxplain.tracking.samples import Samples, checked_mode
from onnxplain.tracking.sinks import as_sinks

METHODS = ("gradient", "smoothgrad", "integrated_gradients", "smoothgrad_integrated")
Parameters = Mapping[str, Mapping[str, Any]]
# By preset. FastEstimator's are those of its trace, not of its functions: 25 draws, (100, 6) integrating.
DEFAULTS: dict[str | None, Parameters] = {
    None: {
        "smoothgrad": {"samples": 25},
        "integrated_gradients": {"steps": 50},
        "smoothgrad_integrated": {"samples": 10, "steps": 25},
    },
    "fastestimator": {
        "smoothgrad": {"samples": 25},
        "integrated_gradients": {"steps": 100},
        "smoothgrad_integrated": {"samples": 6, "steps": 100},
    },
}


class SaliencyTracker:
    """Shows the maps of the same pictures at every epoch: one figure each, and a film over them.

    `samples` are the pictures: None keeps the first batch that is collected, a number k the first k pictures; or the
    pictures themselves, an array `[N, …]`, a list of arrays or paths, or (pictures, labels); or any of these for each
    mode, {mode: …}. Pictures are what Explainer.explain takes. All later epochs show the same ones.

    `methods` are any of the bundle's; the last one's map is the highlight. `parameters` are theirs, by method. Unless
    given, they take 1 + 25 + 50 + 10 × 25 = 326 gradients (each a forward and a backward pass) of every picture; with
    preset="fastestimator", which draws as that system does, 1 + 25 + 100 + (1 + 5 × 100) = 627: see `rows`.

    `every` is how often: at epoch 1 and at its multiples. `columns` are those to be drawn, of COLUMNS. `label_mapping`
    is {shown name: class}, for labels and predictions; without it the bundle's names are shown. `targets` (one for each
    picture, or for all) and `memory` are as for Explainer.explain; None is each picture's top class of the epoch.
    `sinks` are what as_sinks takes. Without `keep_film` figures are drawn only where somebody asks.
    Raises ParameterError for what can't be.
    """

    def __init__(
        self,
        samples: Any = None,
        *,
        methods: Sequence[str] = METHODS,
        every: int = 5,
        label_mapping: Mapping[str, Any] | None = None,
        parameters: Parameters | None = None,
        columns: Sequence[str] = COLUMNS,
        preset: str | None = None,
        targets: Any = None,
        memory: float | str | None = None,
        sinks: Any = (),
        keep_film: bool = True,
    ) -> None:
        if preset not in DEFAULTS:
            raise ParameterError(f"preset={preset!r}: a tracker draws as 'fastestimator' does, or None")
        self.methods = _methods(methods)
        self.columns = _columns(columns)
        self.preset = preset
        self.parameters = _parameters(self.methods, parameters or {}, DEFAULTS[preset])
        self.every = whole_number("every", every, 1)
        self.label_mapping = _mapping(label_mapping)
        self.targets, self.memory, self.sinks, self.keep_film = _targets(targets), memory, as_sinks(sinks), keep_film
        self._samples = Samples(samples)
        self._films: dict[str, Film] = {}
        self._shown: dict[str, set[int]] = {}
        self._check_labels()

    def collect(self, images: Any, labels: Any = None, *, mode: str = "eval") -> None:
        """Take a batch of the running epoch: pictures `[N, …]` and labels `[N]`, arrays or tensors, of which copies are
        kept; nothing is done once there are enough. Raises ParameterError.
        """
        if self._samples.collect(images, labels, mode):
            self._check_labels()

    def wants(self, mode: str = "eval") -> bool:
        """Whether the mode's pictures aren't complete yet, so that collect() would keep more."""
        return self._samples.wants(checked_mode(mode))

    def epoch_begin(self, mode: str = "eval") -> None:
        """Drop what an interrupted epoch has left of pictures that aren't complete yet."""
        self._samples.begin(mode)

    def forget_after(self, epoch: int, mode: str = "eval") -> None:
        """Drop what was shown after later epochs: by a run that has been begun again from an earlier one."""
        for later in [each for each in self._shown.get(mode, ()) if each > epoch]:
            self._shown[mode].discard(later)
            if mode in self._films:
                self._films[mode].frames.pop(later, None)

    def due(self, epoch: int) -> bool:
        """Whether maps are to be shown after this epoch, the first of which is 1."""
        epoch = whole_number("epoch", epoch, 1)
        return epoch == 1 or epoch % self.every == 0

    def show(self, explainer: Explainer | str | os.PathLike[str], epoch: int, *, mode: str = "eval") -> TrackedMaps:
        """Return the maps of the mode's pictures by a bundle, whose network is as it is after `epoch`.

        The figure becomes a frame of the film, in the place of the epoch's former one, and goes to the sinks as
        "saliency/MODE". Where fewer pictures were collected than were asked for, they are all from now on. Raises
        ParameterError where there are none, for a method that the bundle lacks and for a class that isn't in the label
        mapping, and what Explainer.explain raises.
        """
        epoch = whole_number("epoch", epoch, 1)
        kept = self._samples.settled(checked_mode(mode))
        if not isinstance(explainer, Explainer):
            explainer = Explainer(explainer)
        images = read_images(kept.images, explainer.bundle)
        maps = self._tracked(explainer, images, kept.labels, epoch, mode)
        self._show(maps)
        return maps

    def _show(self, maps: TrackedMaps) -> None:
        drawn = [maps.pixels()] if self.sinks or self.keep_film else []
        self._shown.setdefault(maps.mode, set()).add(maps.epoch)
        for pixels in drawn:
            if self.keep_film:
                self._films.setdefault(maps.mode, Film()).add(maps.epoch, pixels)
            for sink in self.sinks:
                sink.figure(f"saliency/{maps.mode}", pixels, maps.epoch)

    def _tracked(
        self, explainer: Explainer, images: list[Image], labels: list[Any] | None, epoch: int, mode: str
    ) -> TrackedMaps:
        bundle = explainer.bundle
        pictures = shown_pictures(images, bundle, self.preset)
        asked = {_with_preset(name, self.preset): self.parameters[name] for name in self.methods}
        found = explainer.prepared(asked, memory=self.memory)(images, self.targets)
        first = found[0]
        best = [
            predictions(scores, shares, bundle.scores, 1)
            for scores, shares in zip(first.scores, first.probabilities, strict=True)
        ]
        said = [each[0] for each in best if each]
        names = bundle.scores.labels
        certain = bundle.scores.activation != "none" and self.preset is None
        return TrackedMaps(
            epoch,
            mode,
            tuple(images),
            None if labels is None else tuple(self._name(label, names) for label in labels),
            tuple(self._name(each.target, names) for each in said) if said else None,
            tuple(each.probability for each in said) if said and certain else None,
            dict(zip(self.methods, found, strict=True)),
            pictures,
            self.columns,
            self.preset,
        )

    @property
    def rows(self) -> int:
        """How many gradients of every picture an epoch's maps take, each a forward and a backward pass: see `cost`."""
        return sum(self.cost().values())

    def cost(self) -> dict[str, int]:
        """The gradients of every picture that each method takes with its parameters.

        ParameterError where that is up to the network: TrackedMaps.rows tells it afterwards.
        """
        return {method: _cost(method, self.parameters[method], self.preset) for method in self.methods}

    @property
    def shown(self) -> dict[str, list[int]]:
        """The epochs that were shown so far, by mode."""
        return {mode: sorted(epochs) for mode, epochs in self._shown.items()}

    def film(self, path: str | Path, *, mode: str = "eval", milliseconds: int = 800, most: int | None = None) -> None:
        """Write a film over the epochs shown so far, a .gif, .webp or .png: see onnxplain.tracking.film.write_film.

        Each epoch is shown for `milliseconds`; `most` bounds the frames' pixels on the longer side.
        """
        if mode not in self._films:
            reason = f"shown so far: {', '.join(self._films) or 'nothing'}" if self.keep_film else "keep_film is False"
            raise ParameterError(f"there is no film of the mode {mode!r}: {reason}")
        write_film(path, self._films[mode].pictures(), milliseconds=milliseconds, most=most)

    def to_bytes(self) -> bytes:
        """The whole state, but for the sinks: settings, kept pictures, shown epochs and the film's frames."""
        arrays: dict[str, NDArray[Any]] = {}
        settings = {
            "methods": self.methods,
            "every": self.every,
            "label_mapping": None if self.label_mapping is None else [[n, v] for v, n in self.label_mapping.items()],
            "parameters": self.parameters,
            "columns": self.columns,
            "preset": self.preset,
            "targets": self.targets,
            "memory": self.memory,
            "keep_film": self.keep_film,
        }
        frames = {mode: list(film.frames.items()) for mode, film in self._films.items()}
        whole = {"given": settings, "samples": self._samples.state(), "shown": self.shown, "frames": frames}
        return state.pack("SaliencyTracker", _flat(whole, arrays), arrays)

    @classmethod
    def from_bytes(cls, data: bytes, where: str = "the state", *, sinks: Any = ()) -> Self:
        """The tracker whose state `to_bytes` gave; ParameterError where it is damaged, newer or another's."""
        settings, arrays = state.unpack("SaliencyTracker", data, where)
        try:
            found = _full(settings, arrays)
            given = found["given"]
            mapping = given.pop("label_mapping")
            tracker = cls(**given, label_mapping=None if mapping is None else dict(mapping), sinks=sinks)
            tracker._samples = Samples.restored(found["samples"])
            tracker._shown = {mode: set(epochs) for mode, epochs in found["shown"].items()}
            tracker._films = {mode: Film(dict(frames)) for mode, frames in found["frames"].items()}
        except (*state.MALFORMED, AttributeError) as error:
            raise state.damaged(where, error) from None
        return tracker

    def save(self, path: str | Path) -> None:
        """Write the whole state, but for the sinks, to a .npz file; raises OutputError."""
        state.write(path, self.to_bytes())

    @classmethod
    def restore(cls, path: str | Path, *, sinks: Any = ()) -> Self:
        """The tracker that was saved to `path`; ParameterError where that is damaged, newer or another tracker's."""
        return cls.from_bytes(state.read(path), str(path), sinks=sinks)

    def _check_labels(self) -> None:
        for label in self._samples.labels() if self.label_mapping is not None else ():
            self._name(label, None)

    def _name(self, value: Any, names: Sequence[str] | None) -> str:
        """A class as it is shown: by the mapping, else by the bundle's names, else as it is."""
        if self.label_mapping is not None:
            if value not in self.label_mapping:
                known = ", ".join(f"{name}={each!r}" for each, name in list(self.label_mapping.items())[:20])
                raise ParameterError(f"the class {value!r} isn't in label_mapping, which has {known}")
            return self.label_mapping[value]
        number = int(value) if isinstance(value, int | float) and value == value // 1 else -1
        return names[number] if names is not None and 0 <= number < len(names) else str(value)


def _with_preset(method: str, preset: str | None) -> str:
    return method if preset is None else f"{method}.{preset}"


def _methods(methods: Sequence[str]) -> tuple[str, ...]:
    found = (methods,) if isinstance(methods, str) else tuple(methods)
    if not found or not all(isinstance(each, str) for each in found):
        raise ParameterError(f"methods={methods!r} must be names of methods, at least one, such as {METHODS}")
    if len(set(found)) != len(found):
        raise ParameterError(f"methods={list(found)} names a method twice")
    return found


def _columns(columns: Sequence[str]) -> tuple[str, ...]:
    found = (columns,) if isinstance(columns, str) else tuple(columns)
    for each in found:
        if each not in COLUMNS:
            raise ParameterError(unknown("column", str(each), COLUMNS))
    if not set(found) & {"picture", "highlight", "maps"}:
        raise ParameterError("columns has neither 'picture', 'highlight' nor 'maps': nothing would be seen")
    return tuple(each for each in COLUMNS if each in found)


def _parameters(methods: Iterable[str], given: Parameters, defaults: Parameters) -> dict[str, dict[str, Any]]:
    for method, entries in given.items():
        if method not in methods:
            raise ParameterError(f"parameters for a method that isn't shown: {unknown('method', str(method), methods)}")
        if not isinstance(entries, Mapping):
            raise ParameterError(f"parameters[{method!r}] must be a mapping of names to values, not {entries!r}")
    return {
        method: {**defaults.get(method, {}), **{name: _item(value) for name, value in given.get(method, {}).items()}}
        for method in methods
    }


def _mapping(label_mapping: Mapping[str, Any] | None) -> dict[Any, str] | None:
    """The names by class, which callers give the other way round."""
    if label_mapping is None:
        return None
    if not isinstance(label_mapping, Mapping) or not label_mapping:
        raise ParameterError(f"label_mapping must be {{shown name: class}}, not {label_mapping!r}")
    found: dict[Any, str] = {}
    for name, value in label_mapping.items():
        plain = _item(value)
        if not isinstance(plain, str | int | float):
            raise ParameterError(f"label_mapping[{name!r}] must be a class, a number or a word, not {value!r}")
        if plain in found:
            raise ParameterError(f"label_mapping has two names for the class {plain!r}: {found[plain]!r} and {name!r}")
        found[plain] = str(name)
    return found


def _targets(targets: Any) -> Any:
    """One class for all pictures, or a list of them; ParameterError for several of a picture."""
    if targets is None or isinstance(targets, str | int):
        return targets
    found = targets.tolist() if hasattr(targets, "tolist") else [_item(each) for each in targets]
    if isinstance(found, list) and any(isinstance(each, list | tuple) for each in found):
        raise ParameterError("a tracker shows one target of each picture; give a list with one class for each")
    return found


def _item(value: Any) -> Any:
    """A number of numpy's, or a tensor with a single one, as a plain number."""
    return value.item() if getattr(value, "ndim", None) == 0 and hasattr(value, "item") else value


def _cost(method: str, parameters: Mapping[str, Any], preset: str | None) -> int:
    baseline = parameters.get("baseline", 0.0)
    if method not in METHODS or np.ndim(baseline) > 3:  # several baselines, or one for each picture
        raise ParameterError(
            f"what {method} costs is up to the network: TrackedMaps.rows tells it once it has been run"
        )
    samples, steps = parameters.get("samples", 1), parameters.get("steps", 1)
    if preset == "fastestimator" and method == "smoothgrad_integrated":
        return 1 + (int(samples) - 1) * int(steps)
    times = int(parameters.get("baselines", 1)) if isinstance(baseline, str) and baseline == "random" else 1
    return int(samples) * int(steps) * times


def _flat(value: Any, arrays: dict[str, NDArray[Any]]) -> Any:
    """What JSON can hold of a value: arrays and bytes go to `arrays`, mappings become pairs."""
    if isinstance(value, np.ndarray | bytes):
        name = f"array{len(arrays)}"
        arrays[name] = np.frombuffer(value, np.uint8) if isinstance(value, bytes) else value
        return {"bytes" if isinstance(value, bytes) else "array": name}
    if isinstance(value, Mapping):
        return {"pairs": [[key, _flat(each, arrays)] for key, each in value.items()]}
    if isinstance(value, list | tuple):
        return [_flat(each, arrays) for each in value]
    return value


def _full(value: Any, arrays: Mapping[str, NDArray[Any]]) -> Any:
    """The value that `_flat` was given, tuples as lists."""
    if isinstance(value, list):
        return [_full(each, arrays) for each in value]
    if not isinstance(value, dict):
        return value
    if "pairs" in value:
        return {key: _full(each, arrays) for key, each in value["pairs"]}
    return arrays[value["array"]] if "array" in value else arrays[value["bytes"]].tobytes()
