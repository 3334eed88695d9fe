"""What a metric measures: one method's maps, and ways to ask the network and the method again."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.activations import activate
from onnxplain.bundle import Bundle
from onnxplain.errors import ParameterError, unknown
from onnxplain.explainer import Explainer
from onnxplain.fills import fill_values
from onnxplain.images import Image, stack
from onnxplain.metrics.places import places_of, replaced, to_places
from onnxplain.metrics.registry import NEEDS, Metric
from onnxplain.parameters import NAMED_FILLS
from onnxplain.result import Result

Rows = NDArray[Any]
Numbers = NDArray[np.int64]
Array = NDArray[np.float64]
Network = Callable[[Rows, Numbers], NDArray[np.float32]]
"""(rows [M, …], the images [M] that they are made of) -> raw scores [M, classes]."""
Again = Callable[[Rows, Numbers, Numbers], NDArray[np.float32]]
"""(rows [M, …], the images [M] that they are made of, targets [M]) -> raw maps [M, …]."""

# Changed images that are held at once, in bytes: a metric's memory doesn't grow with its steps.
MOST_BYTES = 2**26
SCORES = ("probabilities", "logits")


@dataclass(frozen=True, slots=True)
class Subject:
    """One method's raw maps [N, …] of N images' rows [N, …], with a target [N] for each.

    `network` gives raw scores of changed rows and `again` their maps; `reopened` gives `again` for another bundle's
    folder. `reduction` says how a map's channels become one number ("sum", "absolute" or "mean"), `explains` which
    score the maps explain, `measures` what their numbers are. `masks` are [N, H, W], True inside.
    """

    names: tuple[str, ...]
    rows: Rows
    layout: str | None
    targets: Numbers
    maps: NDArray[np.float32]
    map_layout: str | None
    network: Network
    activation: str = "softmax"
    measures: str = "sensitivity"
    explains: str = "logits"
    reduction: str = "absolute"
    masks: NDArray[np.bool_] | None = None
    again: Again | None = None
    reopened: Callable[[Path], Again] | None = None
    bundle: Bundle | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def places(self) -> tuple[int, ...]:
        """The shape of an image's places: (H, W) of a picture."""
        return places_of(self.rows, self.layout)

    def pixels(self) -> Array:
        """One number for each place of the map, float64 [N, *places]."""
        return self.pixels_of(self.maps)

    def pixels_of(self, maps: Rows) -> Array:
        """One number for each place of other maps [M, …] of the same kind, float64 [M, *places]."""
        return to_places(maps, self.map_layout, self.reduction)

    def all_scores(self, rows: Rows, images: Numbers, score: str = "probabilities") -> Array:
        """The scores [M, classes] of changed rows [M, …] of images [M]."""
        raw = self.network(rows, images)
        return (activate(raw, self.activation) if score == "probabilities" else raw).astype(np.float64)

    def scores(self, rows: Rows, images: Numbers, score: str = "probabilities") -> Array:
        """The scores [M] of the images' targets for changed rows [M, …]."""
        found = self.all_scores(rows, images, score)
        return np.take_along_axis(found, self.targets[images, None], axis=1)[:, 0]

    def own_scores(self, score: str = "probabilities", rows: Rows | None = None) -> Array:
        """The scores [N] of the images' targets: of the images as they are, or of other rows [N, …] in their places."""
        everyone, given = np.arange(len(self)), self.rows if rows is None else rows
        parts = [self.scores(given[each], everyone[each], score) for each in self.blocks(len(self))]
        return np.concatenate([np.zeros(0), *parts])

    def maps_of(self, rows: Rows, images: Numbers | None = None, targets: Numbers | None = None) -> NDArray[np.float32]:
        """The method's maps of changed rows [M, …], by default one for each image and for its own target."""
        if self.again is None:
            raise ParameterError("this metric explains changed images; give explain=, or a Result of a method")
        images = np.arange(len(self)) if images is None else images
        return self.again(rows, images, self.targets[images] if targets is None else targets)

    def fill(self, value: Any, name: str = "fill") -> Rows:
        """What stands for nothing: a number, an array, or "black", "white", "mean", "blur"; first axis 1 or N."""
        if isinstance(value, str) and value not in NAMED_FILLS:
            raise ParameterError(unknown(name, value, NAMED_FILLS) + " (or a number, or an array)")
        if self.bundle is not None:
            return fill_values(name, value, self.rows, self.bundle)
        return np.broadcast_to(np.asarray(value, np.float32), (1, *self.rows.shape[1:]))

    def blocks(self, count: int) -> Iterator[slice]:
        """Slices of `count` changed rows, as many at a time as memory is meant to hold."""
        size = max(1, self.rows[:1].nbytes)
        step = max(1, MOST_BYTES // size)
        for start in range(0, count, step):
            yield slice(start, min(start + step, count))

    def scores_without(self, inside: Callable[[Numbers, Numbers], NDArray[np.bool_]], count: int, **how: Any) -> Array:
        """The targets' scores [N, count] of images with places replaced.

        `inside(images [M], numbers [M])` says which places [M, P] are replaced in the number-th change of an image;
        `how` is fill= (an array from `fill`) and score=.
        """
        fill, score = how["fill"], how["score"]
        found = np.empty(len(self) * count)
        for block in self.blocks(len(found)):
            images, numbers = np.divmod(np.arange(block.start, block.stop), count)
            chosen = inside(images, numbers).reshape(-1, *self.places)
            given = fill[images] if len(fill) > 1 else fill
            found[block] = self.scores(replaced(self.rows[images], given, chosen, self.layout), images, score)
        return found.reshape(len(self), count)


def check_needs(entry: Metric, subject: Subject) -> None:
    """ParameterError where a metric can't be computed for this subject, saying what it needs."""
    reason = missing(entry, subject)
    if reason:
        raise ParameterError(f"{entry.name} needs {reason}")
    if "masks" in entry.needs and subject.masks is not None:
        for name, mask in zip(subject.names, subject.masks, strict=True):
            if mask.shape != subject.places:
                size, right = "x".join(map(str, mask.shape)), "x".join(map(str, subject.places))
                raise ParameterError(f"the mask of {name} has {size} pixels; the network's pictures have {right}")
            if not mask.any():
                raise ParameterError(f"the mask of {name} is empty; mark what the map should show, or leave it out")


def missing(entry: Metric, subject: Subject) -> str:
    """What the subject lacks for a metric, in words; "" where it lacks nothing."""
    places = to_places(subject.maps[:1], subject.map_layout, "sum").shape[1:]
    lacks = {
        "places": places != subject.places,
        "picture": len(subject.places) != 2,
        "masks": subject.masks is None,
        "again": subject.again is None,
        "channels": subject.measures == "sensitivity" and subject.maps.shape != subject.rows.shape,
        "input": subject.bundle is not None and subject.bundle.inside is not None,
        "contribution": subject.measures != "contribution",
        "weights": subject.reopened is None or subject.bundle is None or subject.bundle.weights is None,
    }
    return next((text for need, text in NEEDS.items() if need in entry.needs and lacks[need]), "")


def subjects_of(
    explainer: Explainer,
    result: Result,
    *,
    masks: Any = None,
    explain: Callable[[Rows, Any], Any] | None = None,
    reduction: str | None = None,
    memory: float | str | None = None,
) -> list[Subject]:
    """A subject for each target of a result's images, T of them.

    `masks` is bool [N, H, W] in the network's size; `explain(rows [M, …], targets [M])` gives maps of other rows, by
    default the result's method with its parameters. `reduction` is by default "sum" for contributions and "absolute"
    for sensitivities. Raises ParameterError for a network whose scores aren't those of classes.
    """
    bundle = explainer.bundle
    if result.scores.ndim != 2 or bundle.free or bundle.scores.class_axis != 1:
        raise ParameterError(f"metrics are about scores of classes [N, classes]; {bundle.scores.name} has none")
    many = result.targets.ndim == 2
    targets = result.targets if many else result.targets[:, None]
    explains = result.made["explains"]
    first = Subject(
        names=tuple(image.name for image in result.images),
        rows=stack(result.images, bundle.image),
        layout=bundle.image.layout,
        targets=targets[:, 0],
        maps=result.attribution[:, 0] if many else result.attribution,
        map_layout=result.layout,
        network=_network(explainer, result.images),
        activation=bundle.scores.activation,
        measures=result.measures,
        explains=explains,
        reduction=reduction or ("absolute" if result.measures == "sensitivity" else "sum"),
        masks=None if masks is None else np.asarray(masks, bool),
        again=_own(explain) if explain else _again(explainer, result, memory),
        reopened=None if explain else lambda folder: _again(_reopened(explainer, folder), result, memory),
        bundle=bundle,
        parameters=result.parameters,
    )
    rest = [replace(first, targets=targets[:, t], maps=result.attribution[:, t]) for t in range(1, targets.shape[1])]
    return [first, *rest]


def _network(explainer: Explainer, images: Sequence[Image]) -> Network:
    def network(rows: Rows, numbers: Numbers) -> NDArray[np.float32]:
        return explainer.scores(_with_others(explainer.bundle, images, rows, numbers))

    return network


def _own(explain: Callable[[Rows, Any], Any]) -> Again:
    def again(rows: Rows, _: Numbers, targets: Numbers) -> NDArray[np.float32]:
        found = explain(rows, targets)
        return np.asarray(found.attribution if isinstance(found, Result) else found, np.float32)

    return again


def _again(explainer: Explainer, result: Result, memory: float | str | None) -> Again:
    """The method of a result, with its parameters, for other rows of the same images."""
    score = result.made["explains"] if explainer.takes_score(result.method) else None

    def again(rows: Rows, numbers: Numbers, targets: Numbers) -> NDArray[np.float32]:
        given = _with_others(explainer.bundle, result.images, rows, numbers)
        classes = [int(target) for target in targets]
        found = explainer.explain(given, result.method, classes, memory=memory, score=score, **result.parameters)
        return found.attribution

    return again


def _reopened(explainer: Explainer, folder: Path) -> Explainer:
    """The bundle in another folder, opened as this explainer is: on its device, with its threads."""
    kind, (_, device, providers, threads, _, rows, _) = explainer.__reduce__()
    # Written a moment ago: no need to hash it again, nor, so, to keep copies of its graphs.
    opened: Explainer = kind(os.fspath(folder), device, providers, threads, False, rows)
    return opened


def _with_others(bundle: Bundle, images: Sequence[Image], rows: Rows, numbers: Numbers) -> Any:
    """Rows, with what their images give to the network's other inputs."""
    if not bundle.others:
        return rows
    given = {bundle.image.name: rows}
    for entry in bundle.others:
        values = [images[number].others[entry.name] for number in numbers]
        given[entry.name] = np.concatenate(values) if entry.batched else values[0]
    return given
