"""Evaluates methods by metrics over pictures: values for each, means for each class and over all."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.errors import ParameterError, unknown
from onnxplain.explainer import Explainer
from onnxplain.images import listed
from onnxplain.metrics.masks import mask_files, masks_for
from onnxplain.metrics.registry import Measurement, Metric, check_settings, find_metric
from onnxplain.metrics.statistics import Summary, summarise
from onnxplain.metrics.subject import check_needs, missing, subjects_of
from onnxplain.metrics.tables import table, write
from onnxplain.parameters import check_parameters
from onnxplain.presets import apply_preset, split_method
from onnxplain.progress import progress_bar
from onnxplain.regions import refuse_lacking
from onnxplain.requests import no_method
from onnxplain.result import Result

Array = NDArray[np.float64]
Key = tuple[str, str]
"""(method, metric)."""

# Pictures that are explained and measured together: the memory of an evaluation doesn't grow with their number.
TOGETHER = 16


@dataclass(frozen=True, slots=True)
class Curve:
    """Scores or correlations [N, K] of N pictures over `at` [K], a share of 0..1."""

    at: Array
    values: Array


@dataclass(frozen=True, eq=False, slots=True, repr=False)
class Evaluation:
    """What came of an evaluation of N pictures.

    `values` are float64 [N] for each (method, metric), NaN where a metric has no value; `curves` of metrics that have
    them. `targets` [N] are the classes that were explained and `labels` their names. `notes` say what was left out.
    """

    pictures: tuple[str, ...]
    targets: NDArray[np.int64]
    labels: tuple[str, ...]
    methods: tuple[str, ...]
    metrics: tuple[Metric, ...]
    values: Mapping[Key, Array]
    curves: Mapping[Key, Curve]
    notes: tuple[str, ...]
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.pictures)

    def __repr__(self) -> str:
        names = ", ".join(entry.name for entry in self.metrics)
        return f"<Evaluation of {', '.join(self.methods)} by {names} over {len(self)} pictures>"

    def summary(self, method: str, metric: str) -> Summary:
        """The mean of a method over all pictures, with its interval and count."""
        return summarise(self.values[method, metric])

    def classes(self, method: str, metric: str) -> dict[str, Summary]:
        """The same for the pictures of each class that was explained, by its name."""
        names = np.array(self.labels)
        values = self.values[method, metric]
        return {str(name): summarise(values[names == name]) for name in dict.fromkeys(self.labels)}

    def table(self, classes: bool = False) -> str:
        """The means as text: a line for each metric (with `classes`, for each class too), a column for each method."""
        return table(self, classes)

    def write(self, folder: Any) -> dict[str, str]:
        """Writes evaluation.csv, evaluation.json and, with matplotlib, plot.png and curves.png; returns their names."""
        return write(self, folder)


@dataclass(slots=True)
class _Collected:
    """The parts of an evaluation so far."""

    pictures: list[str] = field(default_factory=list)
    targets: list[int] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    parts: dict[Key, list[Measurement]] = field(default_factory=dict)
    notes: dict[str, None] = field(default_factory=dict)
    made: dict[str, Any] = field(default_factory=dict)


def measure(
    explainer: Explainer,
    result: Result,
    metric: str,
    *,
    masks: Any = None,
    explain: Callable[[Any, Any], Any] | None = None,
    preset: str | None = None,
    reduction: str | None = None,
    **settings: Any,
) -> Array:
    """A metric's value for each map of a result, float64 [N], or [N, T] of T targets for each image.

    `masks` are files or arrays, one for each image; `explain(rows, targets)` explains changed rows where the result's
    method isn't to do so; `preset` takes that system's form of the metric. `reduction` ("sum", "absolute" or "mean")
    says how channels become one number: by default "sum" for maps of contributions, else "absolute". The metric's own
    settings follow by name. Raises ParameterError for what doesn't fit.
    """
    entry = find_metric(metric, preset)
    chosen = check_settings(entry, settings)
    fitted = None if masks is None else masks_for(masks, result.images, explainer.bundle)
    values = []
    for subject in subjects_of(explainer, result, masks=fitted, explain=explain, reduction=reduction):
        check_needs(entry, subject)
        values.append(entry.measure(subject, **chosen).values)
    return np.stack(values, axis=1) if result.targets.ndim == 2 else values[0]


def evaluate(
    explainer: Explainer,
    pictures: Any,
    methods: str | Sequence[str],
    metrics: str | Sequence[str],
    targets: Any = None,
    masks: Sequence[Any] | str | os.PathLike[str] | None = None,
    *,
    preset: str | None = None,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    parameters: Mapping[str, Mapping[str, Any]] | None = None,
    reduction: str | None = None,
    memory: float | str | None = None,
    progress: bool = False,
) -> Evaluation:
    """Methods of a bundle, measured by metrics over pictures.

    `pictures` as for `Explainer.explain`; `targets` None for each picture's top class, a class for all, or a list with
    one for each; `masks` a list of files or arrays, one for each picture, or the folder or pattern of their files.
    `settings` are those of metrics and `parameters` those of methods, by their names. `preset` takes that system's
    forms of the metrics. A metric that can't be computed for a method is left out, with a note; one that can't for any
    is a ParameterError, as is all that is unknown or doesn't fit.
    """
    names, entries = _several(methods), [find_metric(name, preset) for name in _several(metrics)]
    chosen = _chosen_settings(entries, settings or {})
    given = _chosen_parameters(explainer, names, parameters or {})
    if masks is None and any("masks" in entry.needs for entry in entries):
        those = ", ".join(entry.name for entry in entries if "masks" in entry.needs)
        raise ParameterError(f"{those} needs masks of what the maps should show; give masks=, one for each picture")
    entered = listed(pictures, explainer.bundle)
    if not entered:
        raise ParameterError("an evaluation needs at least one picture")
    groups = list(_groups(entered, targets, _listed_masks(masks, entered)))
    collected = _Collected()
    with progress_bar(progress, "evaluate", sum(len(images) for images, _, _ in groups) * len(names)) as bar:
        for images, classes, group_masks in groups:
            wanted, fitted, done = classes, None, len(collected.pictures)
            for number, method in enumerate(names):
                found = explainer.explain(images, method, wanted, memory=memory, **given[method])
                result = _numbered(found, done)
                if number == 0:
                    wanted = _note_pictures(collected, result)
                    if group_masks is not None:
                        fitted = masks_for(group_masks, result.images, explainer.bundle)
                collected.made[method] = _made(result)
                _measure_all(
                    collected, explainer, result, entries, chosen, masks=fitted, reduction=reduction, memory=memory
                )
                bar.add(len(result))
    return _evaluation(collected, names, entries, chosen, explainer, preset)


def _listed_masks(masks: Sequence[Any] | str | os.PathLike[str] | None, pictures: Sequence[Any]) -> Any:
    """The masks, one for each picture; those of a folder or pattern are found by the names of the pictures' files."""
    if not isinstance(masks, str | os.PathLike):
        return masks
    if not all(isinstance(picture, str | os.PathLike) for picture in pictures):
        raise ParameterError("masks in a folder go by the names of picture files; give masks= as a list with arrays")
    return mask_files(masks, pictures)


def _measure_all(
    collected: _Collected,
    explainer: Explainer,
    result: Result,
    entries: Sequence[Metric],
    settings: Mapping[str, Mapping[str, Any]],
    **how: Any,
) -> None:
    """Adds the metrics of one method's maps of a group of pictures."""
    (subject,) = subjects_of(explainer, result, **how)
    for entry in entries:
        reason = missing(entry, subject)
        if reason:
            collected.notes[f"{entry.name} of {result.method} is left out: it needs {reason}"] = None
            found = Measurement(np.full(len(subject), np.nan))
        else:
            check_needs(entry, subject)
            found = entry.measure(subject, **settings[entry.name])
        collected.parts.setdefault((result.method, entry.name), []).append(found)


def _evaluation(
    collected: _Collected,
    names: Sequence[str],
    entries: Sequence[Metric],
    settings: Mapping[str, Mapping[str, Any]],
    explainer: Explainer,
    preset: str | None,
) -> Evaluation:
    values = {key: np.concatenate([part.values for part in parts]) for key, parts in collected.parts.items()}
    if collected.notes and not any(np.isfinite(each).any() for each in values.values()):
        raise ParameterError("; ".join(collected.notes))
    bundle = explainer.bundle
    provenance = {
        "bundle": {"name": bundle.name, "sha256": bundle.sha256},
        "preset": preset,
        "methods": collected.made,
        "metrics": {name: {key: _plain(value) for key, value in each.items()} for name, each in settings.items()},
    }
    return Evaluation(
        pictures=tuple(collected.pictures),
        targets=np.array(collected.targets, np.int64),
        labels=tuple(collected.labels),
        methods=tuple(names),
        metrics=tuple(entries),
        values=values,
        curves={key: curve for key, parts in collected.parts.items() if (curve := _joined(parts)) is not None},
        notes=tuple(collected.notes),
        provenance=provenance,
    )


def _joined(parts: Sequence[Measurement]) -> Curve | None:
    """The curves of all groups; None where there are none, or where pictures of different sizes don't share steps."""
    first = parts[0].at
    if first is None or any(part.at is None or part.at.shape != first.shape for part in parts):
        return None
    return Curve(first, np.concatenate([part.curves for part in parts if part.curves is not None]))


def _numbered(result: Result, first: int) -> Result:
    """The result with arrays named by their number among all pictures, not in their group."""
    images = (
        replace(image, name=f"image {first + at}") if image.name == f"image {at}" else image
        for at, image in enumerate(result.images)
    )
    return replace(result, images=tuple(images))


def _note_pictures(collected: _Collected, result: Result) -> list[int]:
    """Notes a group's pictures; returns their classes, which all methods are to explain."""
    if result.targets.ndim != 1:
        raise ParameterError("an evaluation explains one class of each picture; give one target for each")
    collected.pictures += [image.name for image in result.images]
    collected.targets += [int(target) for target in result.targets]
    collected.labels += [str(label) for label in result.labels]
    return [int(target) for target in result.targets]


def _groups(entries: Sequence[Any], targets: Any, masks: Sequence[Any] | None) -> Iterator[tuple[list[Any], Any, Any]]:
    """Pictures with their targets and masks, as many as are measured together."""
    several = isinstance(targets, list | tuple | np.ndarray)
    for kind, given in (("targets", targets if several else None), ("masks", masks)):
        if given is not None and len(given) != len(entries):
            raise ParameterError(f"{len(given)} {kind} for {len(entries)} pictures")
    for start in range(0, len(entries), TOGETHER):
        part = slice(start, start + TOGETHER)
        yield list(entries[part]), list(targets[part]) if several else targets, None if masks is None else masks[part]


def _several(names: str | Sequence[str]) -> list[str]:
    found = list(dict.fromkeys([names] if isinstance(names, str) else names))
    if not found:
        raise ParameterError("an evaluation needs at least one method and one metric")
    return found


def _chosen_settings(entries: Sequence[Metric], given: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    known = [entry.name for entry in entries]
    for name in given:
        if name not in known:
            raise ParameterError(f"settings for {name!r}: " + unknown("metric of this evaluation", name, known))
    return {entry.name: check_settings(entry, given.get(entry.name, {})) for entry in entries}


def _chosen_parameters(
    explainer: Explainer, methods: Sequence[str], given: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Each method's given parameters, checked before anything runs."""
    for name in given:
        if name not in methods:
            raise ParameterError(f"parameters for {name!r}: " + unknown("method of this evaluation", name, methods))
    for name in methods:
        method, preset = split_method(name, None)
        if method not in explainer.bundle.methods:
            raise ParameterError(no_method(explainer.bundle, method))
        chosen = apply_preset(explainer.bundle.methods[method], preset)
        refuse_lacking(chosen, check_parameters(chosen, given.get(name, {})))
    return {name: dict(given.get(name, {})) for name in methods}


def _made(result: Result) -> dict[str, Any]:
    return {key: result.made[key] for key in ("parameters", "explains", "provider", "versions")}


def _plain(value: Any) -> Any:
    return f"array {list(value.shape)}" if isinstance(value, np.ndarray) else value
