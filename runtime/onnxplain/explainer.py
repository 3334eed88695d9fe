"""The engine's front door: an Explainer opens a bundle and explains images with the methods in it."""

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.answers import Answers, check_finite
from onnxplain.bundle import Bundle, Graph, Method, Shape
from onnxplain.bundle_files import read_bundle
from onnxplain.cotangents import class_cotangents, given_cotangents
from onnxplain.errors import ParameterError, PictureError
from onnxplain.feeds import Feeds, model_feeds, top_class_feeds
from onnxplain.images import SPATIAL, Image, is_one, listed, read_images
from onnxplain.in_groups import in_groups
from onnxplain.planner import chunks
from onnxplain.plans import find_plan
from onnxplain.progress import Progress, progress_bar
from onnxplain.providers import Provider, choose, name_of
from onnxplain.ready_graphs import ReadyGraphs, allowed_bytes
from onnxplain.requests import Prepared, Request, request_of, takes_score
from onnxplain.result import Result, how_made
from onnxplain.run_sizes import RunSizes
from onnxplain.sessions import Sessions
from onnxplain.summing import run_chunk
from onnxplain.system import cores
from onnxplain.targets import Chosen, asked, resolve
from onnxplain.tolerance import run_to
from onnxplain.work import Work

Array = NDArray[np.float32]
OnError = Callable[[str, PictureError], None]


RAW_GRADIENT = Method("gradient", "gradient", "single", "mean", "logits", "sensitivity", {})
"""What Explainer.gradient runs, whichever methods the bundle has."""


class Explainer:
    """Explains images with the methods of one bundle; may be shared between threads, and pickled (it reopens).

    `device` is "auto" (CUDA where it truly works), "cpu" or "cuda"; `providers` names onnxruntime's providers
    instead, with options that are added to ours (TF32 is off unless asked for). `threads` bounds the threads of one
    run (one for each core that this process may use, in a container too), and `rows` is how many images times steps it
    takes where memory allows; unless given, what suits the network and the machine, measured where much is to be done
    and kept in the user's cache folder. Maps depend on it by rounding alone. Raises BundleError for a bundle that is
    missing, altered (unless `verify` is False) or newer than this version, DeviceError where the device isn't there.

    `cache=True`, or ONNXPLAIN_CACHE=1, keeps graphs in that folder, too, as onnxruntime has made them ready: later
    processes open them sooner and in less memory, and their maps are the same. Each takes up to twice the network's
    weights in float32, all together 4 GB unless a size is given in place of True ("10GB"); other bundles' that weren't
    used for longest go, and what finds no room beside the same bundle's isn't kept. It holds on Linux, for the CPU, in
    a folder that is this user's alone, for verified bundles, whose altered weights are an error of the first run then.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        device: str = "auto",
        providers: Sequence[Provider] | None = None,
        threads: int | None = None,
        verify: bool = True,
        rows: int | None = None,
        cache: bool | str | None = None,
    ) -> None:
        for name, value in (("threads", threads), ("rows", rows)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise ParameterError(f"{name}={value!r} must be a whole number of at least 1")
        self._reopen = (os.path.abspath(path), device, providers, threads, verify, rows, cache)
        most = allowed_bytes(cache) if verify else 0
        self.bundle: Bundle = read_bundle(path, verify, weights=not most)
        self.providers = choose(device, providers, half=self.bundle.precision == "float16")
        ready = ReadyGraphs(self.bundle, most) if most else None
        self._sessions = Sessions(self.bundle, self.providers, threads, ready)
        self._runs = RunSizes(self.bundle, self.providers[0], threads or cores(), rows)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._reopen

    def __repr__(self) -> str:
        methods = ", ".join(self.bundle.methods)
        return f"<Explainer of {self.bundle.name!r} on {name_of(self.providers[0])}: {methods}>"

    def explain(
        self,
        images: Any,
        method: str | None = None,
        targets: Any = None,
        *,
        memory: float | str | None = None,
        progress: bool = False,
        score: str | None = None,
        top: int | None = None,
        cotangent: Any = None,
        preset: str | None = None,
        tolerance: float | None = None,
        **parameters: Any,
    ) -> Result:
        """The maps of `images`: paths, uint8 pictures [H, W, 3] or arrays in the network's shape; one or many.

        `method` is "gradient" unless named, or that of a single file.

        A network with several inputs takes a mapping of their names to arrays.

        `targets`: None for each image's top class, a class number or name, a list with one per image, or a list of
        lists for several per image; `top=3` each image's three best classes. Of a segmentation, a class is explained
        where it is the best one. `cotangent` says instead which weighted sum of an output without classes is explained:
        [*output] for all images or [N, *output]. `memory` ("2GB", "500MB", bytes) bounds what the call adds to
        the process beside the loaded network, its images as the network takes them, and the result, whatever the
        numbers of steps, targets and images; on a GPU, of its memory and this machine's together. ParameterError says
        how much the method needs where it is too little.
        `score` chooses "logits" or "probabilities" for perturbation methods. `preset` ("captum", "fastestimator",
        "mindspore", "pair") sets what that system sets; the method "smoothgrad.captum" means the same. The method's own
        parameters follow by name.

        With `tolerance` (0.02 for 2 %) each image goes on until its map's estimated error, in L2 relative to the map,
        is no more than that; `steps`, `samples` or `masks` is then the most it may take. See Result.steps and .errors.
        Raises ParameterError and PictureError for unusable input, ModelError where the network answers with NaN.
        """
        options = {"score": score, "top": top, "cotangent": cotangent, "preset": preset, "tolerance": tolerance}
        request = self._request(method, parameters, memory=memory, **options)
        batch = read_images(images, self.bundle)
        with progress_bar(progress, request.method.name, len(batch)) as bar:
            return self._explain(batch, targets, request, bar)

    def stream(
        self,
        images: Iterable[Any],
        method: str | None = None,
        targets: Any = None,
        *,
        memory: float | str | None = None,
        progress: bool = False,
        score: str | None = None,
        top: int | None = None,
        cotangent: Any = None,
        preset: str | None = None,
        tolerance: float | None = None,
        on_error: OnError | None = None,
        **parameters: Any,
    ) -> Iterator[Result]:
        """One Result for each image, in order, in memory that doesn't grow with their number.

        Takes what explain takes, but one target (or list of them), or one cotangent, holds for all images. A picture
        that can't be read is handed to `on_error` with its name and skipped; without `on_error` it raises PictureError.
        """
        options = {"score": score, "top": top, "cotangent": cotangent, "preset": preset, "tolerance": tolerance}
        request = self._request(method, parameters, memory=memory, **options)
        size = len(images) if isinstance(images, Sequence | np.ndarray) and not is_one(images) else None
        entries = listed(images, self.bundle) if is_one(images) else images
        groups = _groups(entries, self._images_per_run(request))
        return self._stream(groups, targets, request, on_error, progress_bar(progress, request.method.name, size))

    def _stream(
        self,
        groups: Iterable[list[Any]],
        targets: Any,
        request: Request,
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

    def until(self, ended: threading.Event | None) -> None:
        """Lets runs of the network that would begin once `ended` is set raise EndedError, from whichever thread."""
        self._sessions.ended = ended

    def prepared(
        self, methods: Mapping[str, Mapping[str, Any]], *, memory: float | str | None = None, score: str | None = None
    ) -> "Prepared":
        """Several methods with their parameters, checked, for images that are read already: what batch jobs run.

        `memory` is as for explain, and `score` holds for the methods that take one.
        """
        requests = []
        for method, given in methods.items():
            taken = score if score is not None and self.takes_score(method) else None
            requests.append(self._request(method, given, memory=memory, score=taken))
        return Prepared(requests, [self._images_per_run(request) for request in requests], self._explain_by)

    def _explain_by(self, requests: Sequence[Request], batch: Sequence[Image], targets: Any) -> list[Result]:
        """The results of several methods for the same images, whose scores are found once."""
        results, bar = [], Progress()
        answers: Answers | None = None
        for request in requests:
            work = self._work(batch, targets, request, bar, answers)
            results.append(self._result(batch, work, self._maps(work, "map", request), request))
            answers = work.answers
        return results

    def scores(self, rows: Any) -> Array:
        """The network's scores (logits, where it has them) [N, classes], or [N, …] of other outputs."""
        batch = read_images(rows, self.bundle)
        scores = self.scores_of(batch)
        check_finite(scores, _names(batch), "scores")
        return scores

    def scores_of(self, batch: Sequence[Image]) -> Array:
        """The scores of images that have been read, NaN among them where the network says so."""
        return self._forward(model_feeds(batch, self.bundle), len(batch), None)[0]

    def values(self, rows: Any) -> Array:
        """What gradients are taken at, [N, …]: the preprocessed rows, or a feature layer or embedding of theirs."""
        batch = read_images(rows, self.bundle)
        return self._forward(model_feeds(batch, self.bundle), len(batch), None)[1]

    def gradient(self, rows: Any, targets: Any = None, cotangent: Any = None) -> Array:
        """The raw gradient of what is explained, [N, …], at rows in the network's own shape; all as for explain."""
        if "gradient" not in self.bundle.graphs:
            raise ParameterError(
                f"the bundle {self.bundle.path} has no gradient graph; export it with the method gradient"
            )
        images = read_images(rows, self.bundle)
        request = Request(RAW_GRADIENT, {}, "logits", cotangent=cotangent)
        work = self._work(images, targets, request, Progress())
        maps = self._maps(work, "gradient", request)
        return maps if work.asked.several else maps[:, 0]

    def _request(self, method: str | None, given: Mapping[str, Any], **options: Any) -> Request:
        """Everything about a call that can be checked before a picture is read."""
        request = request_of(self.bundle, method, given, **options)
        if request.memory is not None:
            self._runs.rows(self.bundle.graphs[request.method.graph], request.memory)
        return request

    def takes_score(self, method: str) -> bool:
        """Whether a method can explain the logit as well as the probability: it takes scores, not gradients."""
        return takes_score(self.bundle, method)

    def _images_per_run(self, request: Request) -> int:
        """How many images fill one run of a method, so that a stream reads no more than it needs at once."""
        height, width = (size if isinstance(size, int) else 0 for size in _declared_size(self.bundle))
        plan = find_plan(request.method.plan)
        graph = self.bundle.graphs[request.method.graph]
        if request.tolerance is not None:  # how many steps each will take isn't known
            return self._runs.rows(graph, request.memory)
        steps = 1 if not plan.columns else len(plan.rule(request.parameters, max(height, 1), max(width, 1)))
        return max(1, self._runs.rows(graph, request.memory) // steps)

    def _explain(self, batch: Sequence[Image], targets: Any, request: Request, bar: Progress) -> Result:
        work = self._work(batch, targets, request, bar)
        return self._result(batch, work, self._maps(work, "map", request), request)

    def _work(
        self,
        batch: Sequence[Image],
        targets: Any,
        request: Request,
        bar: Progress,
        known: Answers | None = None,
    ) -> Work:
        """What a loop works with; nothing has run yet, unless the targets can't be known before.

        `known` is what an earlier work found out about the same images.
        """
        feeds, names = model_feeds(batch, self.bundle), _names(batch)
        answers = known or Answers(lambda: self._forward(feeds, len(batch), request.memory), names)

        def fitting(graph: Graph, targets: int, *, allowed: bool = False) -> int:
            return self._runs.rows(graph, request.memory, targets, allowed=allowed)

        return Work(
            bundle=self.bundle,
            method=request.method,
            parameters=request.parameters,
            explains=request.explains,
            asked=self._asked(targets, request.cotangent, answers, len(batch), request.top),
            feeds=feeds,
            answers=answers,
            names=names,
            sessions=self._sessions,
            rows_per_run=fitting,
            progress=bar,
            calibration=self._runs.calibration if request.memory is None else None,
        )

    def _maps(self, work: Work, what: str, request: Request) -> Array:
        """The maps [N, T, …] of the method's loop; ModelError, which calls them `what`, unless they are finite."""
        if work.count:
            self._sessions.begin(self.bundle.graphs[work.method.graph], work.count, request.memory)
            if request.tolerance is None:
                maps = in_groups(work, request.memory, self._runs.rows)
            else:
                maps = run_to(work, request.tolerance, request.memory, self._runs.rows)
            work.scores  # noqa: B018 (where they overflow, it is them that an error should name)
        else:
            maps = np.empty((*work.asked.targets.shape, *_sizes(self.bundle.value.shape)), np.float32)
        check_finite(maps, work.names, what)
        return maps

    def _result(self, batch: Sequence[Image], work: Work, maps: Array, request: Request) -> Result:
        keep = slice(None) if work.chosen.several else 0
        inside = self.bundle.inside
        steps, errors = work.effort.steps_of(len(batch)), work.effort.errors
        errors = None if errors is None else errors[:, keep]
        of_value = maps.shape[2:] == (work.rows.shape[1:] if inside is None else _sizes(inside.shape))
        return Result(
            attribution=maps[:, keep],
            scores=work.scores,
            probabilities=work.probabilities,
            targets=work.chosen.targets[:, keep],
            labels=work.chosen.names(self.bundle.scores.labels),
            method=request.method.name,
            parameters=dict(request.parameters),
            made=how_made(
                self.bundle,
                request.method.name,
                request.parameters,
                explains=request.explains,
                provider=name_of(self.providers[0]),
                cotangent=request.cotangent,
                tolerance=request.tolerance,
            ),
            layout=self.bundle.value.layout if of_value else self.bundle.image.layout,
            images=tuple(batch),
            measures=request.method.measures,
            steps=steps,
            errors=errors,
            tolerance=request.tolerance,
        )

    def _asked(self, targets: Any, cotangent: Any, answers: Answers, count: int, best: int | None) -> Chosen:
        """What is explained: classes, or cotangents of networks whose scores aren't class scores.

        The scores are asked for only where that can't be left to the method's graph.
        """
        output = self.bundle.scores
        if cotangent is None:
            if self.bundle.free:
                return class_cotangents(targets, answers.scores, output, best)
            if best is None:
                return asked(targets, count, int(output.classes or output.shape[1]), output.labels)
            return Chosen(*resolve(targets, answers.scores, output.labels, best))
        if targets is not None or best is not None:
            raise ParameterError("cotangent= and targets= (or top=) both say what is explained; give one of them")
        if not self.bundle.free:
            raise ParameterError(
                "this bundle explains classes; one that takes a cotangent is exported with --cotangent"
            )
        return given_cotangents(cotangent, answers.scores.shape, output)

    def _forward(self, feeds: Feeds, count: int, memory: float | str | None) -> tuple[Array, Array]:
        """The scores [N, …] and the explained values [N, …] of `count` images."""
        graph = self.bundle.graphs[self.bundle.scoring]
        inside = self.bundle.inside is not None and self.bundle.single is None
        names = ["scores", "explained"] if inside else ["scores"]
        if self.bundle.single is not None:
            feeds = feeds | top_class_feeds(graph, count, self.bundle)
        parts = []
        for chunk in chunks(count, 1, self._runs.rows(graph, memory)):
            parts.append(run_chunk(self._sessions, graph, names, feeds, chunk))
        if not parts:
            sizes = ((0, *_sizes(entry.shape)) for entry in (self.bundle.scores, self.bundle.value))
            scores, values = (np.zeros(size, np.float32) for size in sizes)
            return scores, values
        joined = [np.concatenate(each) for each in zip(*parts, strict=True)]
        return joined[0].astype(np.float32), joined[1] if inside else feeds["image"].values


def _sizes(shape: Shape) -> tuple[int, ...]:
    """The axes behind the batch, 1 where one is free."""
    return tuple(size if isinstance(size, int) else 1 for size in shape[1:])


def _declared_size(bundle: Bundle) -> tuple[int | str, int | str]:
    axes = SPATIAL.get(bundle.image.layout or "")
    return (bundle.image.shape[axes[0]], bundle.image.shape[axes[1]]) if axes else (0, 0)


def _names(batch: Sequence[Image]) -> list[str]:
    return [image.name for image in batch]


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
