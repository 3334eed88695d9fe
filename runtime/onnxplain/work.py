"""What a loop works with: one checked call of explain, and the passes that its method may run."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from onnxplain.activations import activate
from onnxplain.answers import Answers
from onnxplain.bundle import Bundle, Graph, Method
from onnxplain.calibration import Calibration
from onnxplain.effort import Effort
from onnxplain.errors import BundleError, ParameterError
from onnxplain.feeds import Feeds, chosen_feeds, method_feeds
from onnxplain.images import image_size
from onnxplain.planner import Chunk, chunks
from onnxplain.plans import Steps, find_plan
from onnxplain.progress import Progress
from onnxplain.resident import accumulate, running
from onnxplain.sessions import Sessions
from onnxplain.summing import Feed, find_finish, run_chunk, side_by_side
from onnxplain.targets import Chosen

Array = NDArray[Any]


class RowsPerRun(Protocol):
    """How many images times steps a run of a graph takes; with `allowed`, how many it might."""

    def __call__(self, graph: Graph, targets: int, *, allowed: bool = False) -> int: ...


@dataclass(frozen=True)
class Work:
    """One call of explain: N images, T targets each, a method with all its parameters, and the passes it may run.

    `feeds` are the model's own inputs, `asked` the targets, which may be each image's top class whatever that is;
    `answers` is what the network says of the images. Its `scores`, and what rests on them, are computed when a loop
    first asks for them: a method that doesn't is one run of its graph, where that tells the scores.
    """

    bundle: Bundle
    method: Method
    parameters: Mapping[str, Any]
    explains: str
    asked: Chosen
    feeds: Feeds
    answers: Answers
    names: Sequence[str]
    sessions: Sessions
    rows_per_run: RowsPerRun
    progress: Progress
    calibration: Calibration | None
    effort: Effort = field(default_factory=Effort)

    @property
    def rows(self) -> Array:
        """The images as the network takes them, [N, …]."""
        return self.feeds["image"].values

    @property
    def count(self) -> int:
        """The number of images."""
        return len(self.rows)

    @property
    def scores(self) -> Array:
        """The network's scores of the images, [N, …]."""
        return self.answers.scores

    @property
    def probabilities(self) -> Array:
        """What the network's activation makes of its scores, [N, …]."""
        return probabilities_of(self.scores, self.bundle)

    @property
    def values(self) -> Array:
        """What gradients are taken at, [N, …]: the images, or a value inside the network."""
        return self.rows if self.bundle.inside is None else self.answers.values

    @property
    def chosen(self) -> Chosen:
        """What is explained, the classes known."""
        return self.asked if self.asked.settled else self.asked.by(self.scores)

    @property
    def explained(self) -> Array:
        """What is explained of the images as they are: [N, T] logits or probabilities."""
        return self.chosen.of(self.probabilities if self.explains == "probabilities" else self.scores)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images, (0, 0) where they are no pictures."""
        return image_size(self.bundle.image.layout, self.rows)

    @property
    def map_shape(self) -> tuple[int, ...]:
        """The axes of a picture's map with one channel: [1, H, W] or [H, W, 1]. ParameterError without pictures."""
        height, width = self.size
        if not height:
            raise ParameterError(f"{self.method.name} needs pictures; this network's input has no height and width")
        return (1, height, width) if self.bundle.image.layout == "NCHW" else (height, width, 1)

    def steps(self) -> Steps:
        """The step table of the method's plan."""
        return find_plan(self.method.plan).rule(self.parameters, *self.size)

    def advance(self, images: float) -> None:
        """Moves the progress on by a number of images, or a part of one."""
        self.progress.add(images)

    def part(self, images: slice) -> "Work":
        """The same work for some of its images, which mustn't depend on the others."""
        kinds = {name: entry.kind for name, entry in self.method.parameters.items()}
        rank, numbers = len(self.bundle.value.shape), np.arange(self.count)[images]
        return replace(
            self,
            feeds={
                role: replace(feed, values=feed.values[images]) if feed.per_image else feed
                for role, feed in self.feeds.items()
            },
            asked=self.asked.at(numbers),
            answers=self.answers.of(images),
            names=self.names[images],
            parameters={
                name: _cut(value, numbers, self.count, rank if kinds.get(name) == "image" else None)
                for name, value in self.parameters.items()
            },
        )

    def sum(
        self,
        steps: Steps | None = None,
        graph: str | None = None,
        finish: str | None = None,
        share: float = 1.0,
        **feeds: Array,
    ) -> Array:
        """The maps [N, T, …] that the finish rule makes of the sums over `steps` (the plan's unless given).

        `feeds` take the place of what the parameters would give, by role: baseline=, fill=, sigma=, seed=. An array
        whose first axis is N is cut to a run's images. `share` of the whole work is what the progress moves on by.
        """
        rule, maps = find_finish(finish or self.method.finish), _Joined(self.count)
        for images, (total, norm) in self._groups(("total", "norm"), steps, graph, share, feeds):
            maps.put(images, rule(total, norm), np.float32)
        return maps.values

    def sums(
        self,
        outputs: Sequence[str],
        steps: Steps | None = None,
        graph: str | None = None,
        share: float = 1.0,
        **feeds: Array,
    ) -> list[NDArray[np.float64]]:
        """The sums over steps of a graph's outputs, each [N, …] in float64."""
        found = [_Joined(self.count) for _ in outputs]
        for images, parts in self._groups(outputs, steps, graph, share, feeds):
            for kept, part in zip(found, parts, strict=True):
                kept.put(images, part, np.float64)
        return [kept.values for kept in found]

    def _groups(
        self,
        outputs: Sequence[str],
        steps: Steps | None,
        graph: str | None,
        share: float,
        feeds: Mapping[str, Array],
    ) -> Iterator[tuple[slice, list[Array]]]:
        """The sums over steps of a graph's outputs, for the images of some runs at a time."""
        chosen, table, all_feeds = self._prepared(graph, steps, feeds)
        learns, scores = self._learns_from(chosen), _Joined(self.count)
        wanted = [*outputs, "scores"] if learns else list(outputs)
        self._calibrate(chosen, wanted, all_feeds, len(table))
        for chunk, parts in accumulate(self.sessions, chosen, wanted, all_feeds, self._chunks(chosen, len(table))):
            if parts is not None:
                if learns:
                    scores.put(chunk.images, parts[-1], np.float32)
                yield chunk.images, parts[: len(outputs)]
            self.effort.add(chunk.rows)
            self.advance(share * _part(chunk, len(table)))
        if learns:
            self.answers.tell(scores.values)

    def collect(
        self,
        outputs: Sequence[str],
        steps: Steps | None = None,
        graph: str | None = None,
        share: float = 1.0,
        **feeds: Array,
    ) -> list[Array]:
        """A graph's outputs for all images and steps: [N, …], or [N, K, …] of a graph that takes steps."""
        chosen, table, all_feeds = self._prepared(graph, steps, feeds)
        wanted = [*outputs, "scores"] if self._learns_from(chosen) else list(outputs)
        found = [_Joined(self.count) for _ in wanted]
        group: list[Array] = []
        for chunk in self._chunks(chosen, len(table)):
            parts = run_chunk(self.sessions, chosen, wanted, all_feeds, chunk, side_by_side)
            group = parts if chunk.first else side_by_side(group, parts)
            if chunk.last:
                for kept, part in zip(found, group, strict=True):
                    kept.put(chunk.images, part, part.dtype)
            self.effort.add(chunk.rows)
            self.advance(share * _part(chunk, len(table)))
        return self._told([kept.values for kept in found], outputs)

    def _calibrate(self, graph: Graph, outputs: Sequence[str], feeds: Feeds, steps: int) -> None:
        """Measures how many rows a run should have, where so much is to be done that it pays."""
        if self.calibration is None or not self.calibration.worth(self.count * steps):
            return
        if self.asked.count > 1:
            return  # what is best for one target counts
        run = running(self.sessions, graph, outputs, feeds)
        self.calibration.measure(graph, run, self.count, steps, self.rows_per_run(graph, 1, allowed=True))

    def _learns_from(self, graph: Graph) -> bool:
        """Whether a run of the graph is to tell the scores, and to find the top classes, as nobody knows them yet."""
        return graph.tells_scores and not self.answers.known

    def _told(self, found: list[Array], outputs: Sequence[str]) -> list[Array]:
        """What was found for `outputs`; scores that came with it are kept."""
        if len(found) > len(outputs):
            self.answers.tell(found.pop().astype(np.float32))
        return found

    def gradients_at(self, rows: Array, images: Array) -> Array:
        """The gradients [M, T, …] of what is explained of the images of these numbers, at any rows [M, …]."""
        if self.bundle.inside is not None:
            raise ParameterError(
                f"{self.method.name} takes gradients at pictures of its own, but this bundle takes them at "
                f"{self.bundle.inside.name!r} inside the network; use integrated_gradients"
            )
        graph, feeds = self._graph("gradient"), self._feeds_at(rows, images)
        parts = []
        for chunk in self._chunks(graph, 1, len(rows)):
            total, norm = run_chunk(self.sessions, graph, ("total", "norm"), feeds, chunk)
            parts.append(total / norm)
            self.effort.add(chunk.rows)
        return np.concatenate(parts).astype(np.float32, copy=False)

    def scores_at(self, rows: Array, images: Array) -> Array:
        """The network's scores [M, …] at rows [M, …], what else it takes being that of the images of these numbers."""
        graph, feeds = self.bundle.graphs["forward"], self._feeds_at(rows, images)
        plan = self._chunks(graph, 1, len(rows))
        parts = [run_chunk(self.sessions, graph, ["scores"], feeds, chunk)[0] for chunk in plan]
        self.effort.add(len(rows))
        return np.concatenate(parts).astype(np.float32, copy=False)

    def row_limit(self, graph: str) -> int:
        """How many rows, images times steps, a run of the graph takes."""
        return self.rows_per_run(self._graph(graph), self.asked.count)

    def runner(self, graph: str, outputs: Sequence[str], **feeds: Array) -> Callable[..., list[Array]]:
        """A function of images [M], their steps [M, K, columns] and further feeds that runs the graph once.

        Each of the M has steps of its own. Feeds are [M, …], or [1, …] for all of them. It returns the outputs.
        """
        known = self.chosen  # finds the classes first, so that each run can be told them
        prepared, _, every = self._prepared(graph, np.zeros((1, 0), np.float32), feeds)
        every |= chosen_feeds(known)

        def run(images: NDArray[np.int64], steps: Array, own: Mapping[str, Array]) -> list[Array]:
            part = {
                role: replace(feed, values=feed.values[images]) if feed.per_image else feed
                for role, feed in every.items()
            }
            part["steps"] = Feed(steps, per_image=True, per_step=True)
            part |= {role: Feed(values, per_image=len(values) == len(images)) for role, values in own.items()}
            chunk = Chunk(slice(0, len(images)), slice(0, steps.shape[1]), first=True, last=True)
            return run_chunk(self.sessions, prepared, outputs, part, chunk)

        return run

    def explained_at(self, rows: Array, images: Array) -> Array:
        """What is explained of the images of these numbers, at any rows: [M, T] logits or probabilities."""
        return self.explained_of(self.scores_at(rows, images), images)

    def explained_of(self, scores: Array, images: Array) -> Array:
        """What is explained of scores [M, …] that belong to the images of these numbers: [M, T]."""
        of_rows = probabilities_of(scores, self.bundle) if self.explains == "probabilities" else scores
        return self.chosen.at(images).of(of_rows)

    def _prepared(
        self, graph: str | None, steps: Steps | None, given: Mapping[str, Array]
    ) -> tuple[Graph, Steps, Feeds]:
        """The graph, its steps, and all that it is fed."""
        chosen = self._graph(graph or self.method.graph)
        table = self.steps() if steps is None else np.asarray(steps, np.float32)
        if steps is None and (find_plan(self.method.plan).columns or ()) != (chosen.columns or ()):
            raise BundleError(
                f"{chosen.file} takes steps of {chosen.columns}, but the plan rule {self.method.plan!r} makes "
                f"{find_plan(self.method.plan).columns}"
            )
        feeds = {**self.feeds, **chosen_feeds(self.asked if self._learns_from(chosen) else self.chosen)}
        feeds |= method_feeds(chosen, self.parameters, table, lambda: self.values, self.rows, self.bundle)
        if chosen.takes("reference"):
            feeds["reference"] = Feed(self.explained, per_image=True)
        feeds["activated"] = Feed(np.array([self.explains == "probabilities"], np.float32))
        for role, values in given.items():
            feeds[role] = Feed(np.asarray(values), per_image=np.ndim(values) > 0 and len(values) == self.count)
        return chosen, table, feeds

    def _graph(self, name: str) -> Graph:
        """The graph, or its variant in which several targets share a forward pass."""
        shared = self.bundle.graphs.get(f"{name}.targets") if self.asked.count > 1 else None
        return shared or self.bundle.graphs[name]

    def _feeds_at(self, rows: Array, images: Array) -> Feeds:
        """The model's inputs and targets for rows of one's own, those of the images of these numbers."""
        picked = {
            name: Feed(feed.values[images], per_image=True) if feed.per_image else feed
            for name, feed in {**self.feeds, **chosen_feeds(self.chosen)}.items()
        }
        return {**picked, "image": Feed(np.asarray(rows, np.float32), per_image=True)}

    def _chunks(self, graph: Graph, steps: int, images: int | None = None) -> list[Chunk]:
        rows, count = self.rows_per_run(graph, self.asked.count), self.count if images is None else images
        # On CUDA onnxruntime plans every convolution anew when the number of rows is another than in the run before.
        return list(chunks(count, steps, rows, alike=self.sessions.place is not None, shared=graph.draws))


def _cut(value: Any, images: Array, count: int, rank: int | None) -> Any:
    """An array given for each of `count` images, for some of them; baselines of the images' `rank`, as such."""
    if not isinstance(value, np.ndarray | list | tuple):
        return value
    array = np.asarray(value)
    per_image = array.ndim > 0 and len(array) == count > 1
    if rank is None:  # segments: [H, W] is for all, masks of True and False have an axis more
        return array[images] if per_image and array.ndim - (array.dtype == np.bool_) == 3 else value
    if array.ndim < rank:
        return value
    if per_image:
        return array[images]
    # Several for all: named so, or as many as there are images in the part would be taken for one for each.
    return array[None] if array.ndim == rank and len(array) > 1 else value


class _Joined:
    """An array [N, …] that is filled for some images at a time; one part that is all of it isn't copied."""

    def __init__(self, count: int) -> None:
        self._count = count
        self.values: Array = np.zeros((0,))

    def put(self, images: slice, part: Array, dtype: DTypeLike) -> None:
        """Takes the values of some images, [n, …], or [1, …] where they are the same for all of them."""
        count = images.stop - images.start
        if count == self._count == len(part):
            self.values = part.astype(dtype, copy=False)
            return
        if images.start == 0:
            self.values = np.empty((self._count, *part.shape[1:]), dtype)
        self.values[images] = part


def probabilities_of(scores: Array, bundle: Bundle) -> Array:
    """What the network's activation makes of its scores [N, …]."""
    output = bundle.scores
    return activate(scores, output.activation, 1 if output.class_axis is None else output.class_axis)


def _part(chunk: Chunk, steps: int) -> float:
    """The images that a chunk amounts to."""
    return (chunk.images.stop - chunk.images.start) * (chunk.steps.stop - chunk.steps.start) / steps
