"""What a loop works with: one checked call of explain, and the passes that its method may run."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.activations import activate
from onnxplain.bundle import Bundle, Graph, Method
from onnxplain.errors import BundleError, ParameterError
from onnxplain.feeds import Feeds, method_feeds
from onnxplain.images import image_size
from onnxplain.planner import Chunk, chunks
from onnxplain.plans import Steps, find_plan
from onnxplain.progress import Progress
from onnxplain.sessions import Sessions
from onnxplain.summing import Feed, accumulate, find_finish, inputs_of
from onnxplain.targets import Chosen

Array = NDArray[Any]


@dataclass(frozen=True)
class Work:
    """One call of explain: N images, T targets each, a method with all its parameters, and the passes it may run.

    `feeds` are the model's own inputs and the targets; `scores` and `probabilities` [N, …] what the network says,
    `explained` [N, T] the numbers that are explained, `values` [N, …] what gradients are taken at; `names` are the
    images', for messages.
    """

    bundle: Bundle
    method: Method
    parameters: Mapping[str, Any]
    explains: str
    chosen: Chosen
    feeds: Feeds
    scores: Array
    probabilities: Array
    values: Array
    names: Sequence[str]
    sessions: Sessions
    rows_per_run: Callable[[Graph, int], int]
    progress: Progress

    @property
    def rows(self) -> Array:
        """The images as the network takes them, [N, …]."""
        return self.feeds["image"].values

    @property
    def count(self) -> int:
        """The number of images."""
        return len(self.rows)

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
        total, norm = self.sums(("total", "norm"), steps, graph, share, **feeds)
        return find_finish(finish or self.method.finish)(total, norm).astype(np.float32)

    def sums(
        self,
        outputs: Sequence[str],
        steps: Steps | None = None,
        graph: str | None = None,
        share: float = 1.0,
        **feeds: Array,
    ) -> list[NDArray[np.float64]]:
        """The sums over steps of a graph's outputs, each [N, …] in float64."""
        chosen, table, all_feeds = self._prepared(graph, steps, feeds)
        found: list[list[NDArray[np.float64]]] = [[] for _ in outputs]
        plan = self._chunks(chosen, len(table))
        for chunk, parts in accumulate(self.sessions, chosen, outputs, all_feeds, plan):
            if parts is not None:
                images = chunk.images.stop - chunk.images.start
                for kept, part in zip(found, parts, strict=True):
                    kept.append(np.broadcast_to(part, (images, *part.shape[1:])))
            self.advance(share * _part(chunk, len(table)))
        return [np.concatenate(kept) for kept in found]

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
        found: list[list[Array]] = [[] for _ in outputs]
        group: list[list[Array]] = []
        for chunk in self._chunks(chosen, len(table)):
            group.append(self.sessions.run(chosen, outputs, inputs_of(chosen, all_feeds, chunk)))
            if chunk.last:
                for kept, parts in zip(found, zip(*group, strict=True), strict=True):
                    kept.append(np.concatenate(parts, axis=1) if len(parts) > 1 else parts[0])
                group = []
            self.advance(share * _part(chunk, len(table)))
        return [np.concatenate(kept) for kept in found]

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
            total, norm = self.sessions.run(graph, ("total", "norm"), inputs_of(graph, feeds, chunk))
            parts.append(total / norm)
        return np.concatenate(parts).astype(np.float32, copy=False)

    def scores_at(self, rows: Array, images: Array) -> Array:
        """The network's scores [M, …] at rows [M, …], what else it takes being that of the images of these numbers."""
        graph, feeds = self.bundle.graphs["forward"], self._feeds_at(rows, images)
        plan = self._chunks(graph, 1, len(rows))
        parts = [self.sessions.run(graph, ["scores"], inputs_of(graph, feeds, chunk))[0] for chunk in plan]
        return np.concatenate(parts).astype(np.float32, copy=False)

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
        feeds = {**self.feeds, **method_feeds(chosen, self.parameters, table, self.values, self.rows, self.bundle)}
        feeds["reference"] = Feed(self.explained, per_image=True)
        feeds["activated"] = Feed(np.array([self.explains == "probabilities"], np.float32))
        for role, values in given.items():
            feeds[role] = Feed(np.asarray(values), per_image=np.ndim(values) > 0 and len(values) == self.count)
        return chosen, table, feeds

    def _graph(self, name: str) -> Graph:
        """The graph, or its variant in which several targets share a forward pass."""
        shared = self.bundle.graphs.get(f"{name}.targets") if self.chosen.count > 1 else None
        return shared or self.bundle.graphs[name]

    def _feeds_at(self, rows: Array, images: Array) -> Feeds:
        """The model's inputs and targets for rows of one's own, those of the images of these numbers."""
        picked = {
            name: Feed(feed.values[images], per_image=True) if feed.per_image else feed
            for name, feed in self.feeds.items()
        }
        return {**picked, "image": Feed(np.asarray(rows, np.float32), per_image=True)}

    def _chunks(self, graph: Graph, steps: int, images: int | None = None) -> list[Chunk]:
        return list(
            chunks(self.count if images is None else images, steps, self.rows_per_run(graph, self.chosen.count))
        )


def probabilities_of(scores: Array, bundle: Bundle) -> Array:
    """What the network's activation makes of its scores [N, …]."""
    output = bundle.scores
    return activate(scores, output.activation, 1 if output.class_axis is None else output.class_axis)


def _part(chunk: Chunk, steps: int) -> float:
    """The images that a chunk amounts to."""
    return (chunk.images.stop - chunk.images.start) * (chunk.steps.stop - chunk.steps.start) / steps
