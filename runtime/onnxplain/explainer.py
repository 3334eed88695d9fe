"""The engine's front door: an Explainer opens a bundle and explains images with the methods in it."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.activations import activate
from onnxplain.bundle import EXPLAINS, Bundle, Graph, Method, read_bundle
from onnxplain.errors import BundleError, ModelError, ParameterError, PictureError, unknown
from onnxplain.fills import fill_values
from onnxplain.images import SPATIAL, Image, image_size, listed, read_images, stack
from onnxplain.parameters import check_parameters
from onnxplain.planner import MOST_ROWS, MOST_ROWS_ACCELERATED, Chunk, chunks, rows_per_run
from onnxplain.plans import Steps, find_plan
from onnxplain.progress import Progress, progress_bar
from onnxplain.providers import CPU, Provider, choose, name_of
from onnxplain.result import Result, provenance
from onnxplain.sessions import Sessions, cast
from onnxplain.summing import Feed, attribute, find_finish
from onnxplain.targets import name_of as class_name
from onnxplain.targets import resolve

Array = NDArray[np.float32]
OnError = Callable[[str, PictureError], None]


@dataclass(frozen=True, slots=True)
class _Request:
    """A checked call of explain: what to run, with which parameters."""

    method: Method
    parameters: Mapping[str, Any]
    explains: str
    memory: float | str | None
    top: int | None


class Explainer:
    """Explains images with the methods of one bundle; may be shared between threads, and pickled (it reopens).

    `device` is "auto" (CUDA where it truly works), "cpu" or "cuda"; `providers` names onnxruntime's providers
    instead. `threads` bounds the threads of one run. Raises BundleError for a bundle that is missing, altered (unless
    `verify` is False) or newer than this version, DeviceError where the device isn't there.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        device: str = "auto",
        providers: Sequence[Provider] | None = None,
        threads: int | None = None,
        verify: bool = True,
    ) -> None:
        if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int) or threads < 1):
            raise ParameterError(f"threads={threads!r} must be a whole number of at least 1")
        self._reopen = (os.path.abspath(path), device, providers, threads, verify)
        self.bundle: Bundle = read_bundle(path, verify)
        self.providers = choose(device, providers)
        self._sessions = Sessions(self.bundle, self.providers, threads)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._reopen

    def __repr__(self) -> str:
        methods = ", ".join(self.bundle.methods)
        return f"<Explainer of {self.bundle.name!r} on {name_of(self.providers[0])}: {methods}>"

    def explain(
        self,
        images: Any,
        method: str = "gradient",
        targets: Any = None,
        *,
        memory: float | str | None = None,
        progress: bool = False,
        score: str | None = None,
        top: int | None = None,
        **parameters: Any,
    ) -> Result:
        """The maps of `images`: paths, uint8 pictures [H, W, 3] or float arrays in the network's shape; one or many.

        `targets`: None for each image's top class, a class number or name, a list with one per image, or a list of
        lists for several per image; `top=3` each image's three best classes. `memory` ("2GB", "500MB", bytes) bounds
        what one run adds to the loaded network.
        `score` chooses "logits" or "probabilities" for perturbation methods. The method's own parameters follow by
        name. Raises ParameterError and PictureError for input that can't be used, ModelError where the network
        answers with NaN.
        """
        request = self._request(method, memory, score, parameters, top)
        batch = read_images(images, self.bundle)
        with progress_bar(progress, method, len(batch)) as bar:
            return self._explain(batch, targets, request, bar)

    def stream(
        self,
        images: Iterable[Any],
        method: str = "gradient",
        targets: Any = None,
        *,
        memory: float | str | None = None,
        progress: bool = False,
        score: str | None = None,
        top: int | None = None,
        on_error: OnError | None = None,
        **parameters: Any,
    ) -> Iterator[Result]:
        """One Result for each image, in order, in memory that doesn't grow with their number.

        Takes what explain takes, but one target (or list of them) holds for all images. A picture that can't be read
        is handed to `on_error` with its name and skipped; without `on_error` it raises PictureError.
        """
        request = self._request(method, memory, score, parameters, top)
        size = len(images) if isinstance(images, Sequence | np.ndarray) and not _is_one(images) else None
        entries = listed(images, self.bundle.image) if _is_one(images) else images
        groups = _groups(entries, self._images_per_run(request))
        return self._stream(groups, targets, request, on_error, progress_bar(progress, method, size))

    def _stream(
        self,
        groups: Iterable[list[Any]],
        targets: Any,
        request: _Request,
        on_error: OnError | None,
        bar: AbstractContextManager[Progress],
    ) -> Iterator[Result]:
        first = 0
        with bar as progress:
            for group in groups:
                batch = read_images(group, self.bundle, on_error, first)
                first += len(group)
                if batch:
                    result = self._explain(batch, _for_all(targets, len(batch)), request, progress)
                    yield from (result[i] for i in range(len(result)))

    def scores(self, rows: Any) -> Array:
        """The network's scores [N, classes] (logits, where it has them) for rows in its own shape."""
        batch = read_images(rows, self.bundle)
        scores = self._scores(stack(batch, self.bundle.image), None)
        _check_finite(scores, batch, "scores")
        return scores

    def gradient(self, rows: Any, targets: Any = None) -> Array:
        """The raw gradient of the target's score at rows in the network's own shape; targets as for explain."""
        if "gradient" not in self.bundle.graphs:
            raise ParameterError(
                f"the bundle {self.bundle.path} has no gradient graph; export it with the method gradient"
            )
        images = read_images(rows, self.bundle)
        batch = stack(images, self.bundle.image)
        resolved, several = resolve(targets, self._scores(batch, None), self.bundle.scores.labels)
        graph = self.bundle.graphs["gradient"]
        feeds = {"image": Feed(batch, per_image=True), "target": Feed(resolved, per_image=True)}
        plan = list(chunks(len(batch), 1, self._rows_per_run(graph, None, resolved.shape[1])))
        maps = np.empty((*resolved.shape, *batch.shape[1:]), np.float32)
        for chunk, part in attribute(self._sessions, graph, feeds, plan, find_finish("mean")):
            maps[chunk.images] = part
        _check_finite(maps, images, "gradient")
        return maps if several else maps[:, 0]

    def _request(
        self, method: str, memory: float | str | None, score: str | None, given: Mapping[str, Any], top: int | None
    ) -> _Request:
        """Everything about a call that can be checked before a picture is read."""
        if not isinstance(method, str) or method not in self.bundle.methods:
            raise ParameterError(unknown("method", str(method), self.bundle.methods))
        chosen = self.bundle.methods[method]
        graph = self.bundle.graphs[chosen.graph]
        if score is not None and score not in EXPLAINS:
            raise ParameterError(unknown("score", str(score), EXPLAINS))
        if score is not None and not graph.takes("activated"):
            raise ParameterError(f"score= is for perturbation methods; {method} explains the {chosen.explains}")
        if memory is not None:
            self._rows_per_run(graph, memory)
        return _Request(chosen, check_parameters(chosen, given), score or chosen.explains, memory, top)

    def _rows_per_run(self, graph: Graph, memory: float | str | None, targets: int = 1) -> int:
        most = MOST_ROWS if name_of(self.providers[0]) == CPU else MOST_ROWS_ACCELERATED
        return rows_per_run(graph.bytes_per_row, memory, targets, most)

    def _images_per_run(self, request: _Request) -> int:
        """How many images fill one run of a method, so that a stream reads no more than it needs at once."""
        height, width = (size if isinstance(size, int) else 0 for size in _declared_size(self.bundle))
        plan = find_plan(request.method.plan)
        graph = self.bundle.graphs[request.method.graph]
        steps = 1 if not plan.columns else len(plan.rule(request.parameters, max(height, 1), max(width, 1)))
        return max(1, self._rows_per_run(graph, request.memory) // steps)

    def _explain(self, batch: Sequence[Image], targets: Any, request: _Request, bar: Progress) -> Result:
        rows = stack(batch, self.bundle.image)
        graph = self.bundle.graphs[request.method.graph]
        scores = self._scores(rows, request.memory, release=self._sessions.changes_to(graph, len(rows)))
        probabilities = activate(scores, self.bundle.scores.activation)
        _check_finite(scores, batch, "scores")
        resolved, several = resolve(targets, scores, self.bundle.scores.labels, request.top)
        explained = probabilities if request.explains == "probabilities" else scores
        maps = self._maps(rows, resolved, explained, request, bar)
        _check_finite(maps, batch, "map")
        keep = slice(None) if several else 0
        return Result(
            attribution=maps[:, keep],
            scores=scores,
            probabilities=probabilities,
            targets=resolved[:, keep],
            labels=_labels(resolved, several, self.bundle.scores.labels),
            method=request.method.name,
            parameters=dict(request.parameters),
            provenance=provenance(
                self.bundle,
                batch,
                request.method.name,
                request.parameters,
                explains=request.explains,
                provider=name_of(self.providers[0]),
            ),
            layout=self.bundle.image.layout,
            images=tuple(batch),
        )

    def _scores(self, rows: Array, memory: float | str | None, release: bool = False) -> Array:
        graph = self.bundle.graphs["forward"]
        name, dtype = next((entry.name, entry.dtype) for entry in graph.inputs if entry.role == "image")
        if len(graph.inputs) > 1:
            others = ", ".join(entry.name for entry in graph.inputs if entry.role != "image")
            raise BundleError(f"{graph.file} needs further inputs, which this version can't feed: {others}")
        most = self._rows_per_run(graph, memory)
        parts = [
            self._sessions.run(graph, ["scores"], {name: cast(rows[chunk.images], dtype)}, release)[0]
            for chunk in chunks(len(rows), 1, most)
        ]
        classes = self.bundle.scores.classes or 0
        return np.concatenate(parts).astype(np.float32) if parts else np.zeros((0, classes), np.float32)

    def _maps(
        self, rows: Array, resolved: NDArray[np.int64], explained: Array, request: _Request, bar: Progress
    ) -> Array:
        """The finished maps [N, T, …] of a batch."""
        graph = self.bundle.graphs[request.method.graph]
        steps = self._steps(request, graph, rows)
        feeds = self._feeds(rows, resolved, explained, steps, request)
        per_run = self._rows_per_run(graph, request.memory, resolved.shape[1])
        plan = list(chunks(len(rows), len(steps), per_run))
        finish = find_finish(request.method.finish)
        maps: Array | None = None
        for chunk, part in attribute(self._sessions, graph, feeds, plan, finish):
            if part is not None:
                maps = np.empty((len(rows), *part.shape[1:]), np.float32) if maps is None else maps
                maps[chunk.images] = part
            bar.add(_share(chunk, len(steps)))
        return maps if maps is not None else np.empty((*resolved.shape, *rows.shape[1:]), np.float32)

    def _steps(self, request: _Request, graph: Graph, rows: Array) -> Steps:
        plan = find_plan(request.method.plan)
        if plan.columns != (graph.columns or ()):
            raise BundleError(
                f"{graph.file} takes steps of {graph.columns}, but the plan rule {plan.name!r} makes {plan.columns}"
            )
        return plan.rule(request.parameters, *image_size(self.bundle.image.layout, rows))

    def _feeds(
        self, rows: Array, resolved: NDArray[np.int64], explained: Array, steps: Steps, request: _Request
    ) -> dict[str, Feed]:
        feeds = {
            "image": Feed(rows, per_image=True),
            "target": Feed(resolved, per_image=True),
            "steps": Feed(steps[None], per_step=True),
            "reference": Feed(np.take_along_axis(explained, resolved, axis=1), per_image=True),
            "activated": Feed(np.array([request.explains == "probabilities"], np.float32)),
        }
        given = request.parameters
        if "noise" in given:
            axes = tuple(range(1, rows.ndim))
            # Each image's own range, never the batch's: a map must not depend on the neighbours.
            feeds["sigma"] = Feed(given["noise"] * (rows.max(axis=axes) - rows.min(axis=axes)), per_image=True)
        if "seed" in given:
            feeds["seed"] = Feed(np.array([given["seed"]], np.int64))
        for name in filter(self.bundle.graphs[request.method.graph].takes, ("baseline", "fill")):
            # A graph that serves several methods has the input even where this one has no such parameter.
            values = fill_values(name, given.get(name, 0.0), rows, self.bundle)
            feeds[name] = Feed(values, per_image=len(values) == len(rows))
        return feeds


def _declared_size(bundle: Bundle) -> tuple[int | str, int | str]:
    axes = SPATIAL.get(bundle.image.layout or "")
    return (bundle.image.shape[axes[0]], bundle.image.shape[axes[1]]) if axes else (0, 0)


def _share(chunk: Chunk, steps: int) -> float:
    """The images that a chunk amounts to."""
    return (chunk.images.stop - chunk.images.start) * (chunk.steps.stop - chunk.steps.start) / steps


def _labels(resolved: NDArray[np.int64], several: bool, labels: Sequence[str] | None) -> tuple[Any, ...]:
    names = [tuple(class_name(int(target), labels) for target in row) for row in resolved]
    return tuple(names) if several else tuple(row[0] for row in names)


def _check_finite(values: Array, batch: Sequence[Image], what: str) -> None:
    for image, value in zip(batch, values, strict=True):
        if not np.isfinite(value).all():
            raise ModelError(
                f"the network's {what} for {image.name} contains NaN or infinity: its numbers overflow there"
            )


def _is_one(images: Any) -> bool:
    return isinstance(images, str | os.PathLike | np.ndarray)


def _groups(images: Iterable[Any], size: int) -> Iterator[list[Any]]:
    group: list[Any] = []
    for image in images:
        group.append(image)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def _for_all(targets: Any, count: int) -> Any:
    """The stream's targets, the same for every image of a group."""
    return [list(targets)] * count if isinstance(targets, list | tuple) else targets
