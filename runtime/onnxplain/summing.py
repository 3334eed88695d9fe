"""The engine's one loop: run a graph over chunks of images and steps, add up, finish."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from onnxplain.bundle import Graph, GraphInput
from onnxplain.errors import BundleError, ModelError, unknown
from onnxplain.planner import Chunk
from onnxplain.sessions import MemoryRanOutError, Sessions, cast

Array = NDArray[Any]
Parts = TypeVar("Parts")
"""A run's outputs, wherever they are."""
Finish = Callable[[Array, Array], Array]
Join = Callable[[Sequence[Array], Sequence[Array]], list[Array]]


@dataclass(frozen=True, slots=True)
class Feed:
    """A graph input's values; `per_image` ones are cut to a chunk's images, `per_step` ones to its steps (axis 1)."""

    values: Array
    per_image: bool = False
    per_step: bool = False

    def cut(self, chunk: Chunk) -> Array:
        """The part that a chunk needs."""
        part = self.values[chunk.images] if self.per_image else self.values
        return part[:, chunk.steps] if self.per_step else part


def mean(total: Array, norm: Array) -> Array:
    """total / norm, and 0 where norm is 0: a pixel that no step touched."""
    covered = norm != 0
    if covered.all():
        return total if (norm == 1).all() else total / norm
    return np.divide(total, norm, out=np.zeros_like(total), where=np.broadcast_to(covered, total.shape))


def covered_once_more(total: Array, norm: Array) -> Array:
    """|total| / (1 + norm): MindSpore's occlusion, which counts one window more than there are."""
    return np.abs(total) / (1 + norm)


FINISH: dict[str, Finish] = {"mean": mean, "covered_once_more": covered_once_more}


def find_finish(name: str) -> Finish:
    """The finish rule; BundleError for one that this version doesn't know."""
    if name not in FINISH:
        raise BundleError(unknown("finish rule", name, FINISH) + "; pip install --upgrade onnxplain")
    return FINISH[name]


def accumulate(
    sessions: Sessions, graph: Graph, outputs: Sequence[str], feeds: Mapping[str, Feed], chunks: Iterable[Chunk]
) -> Iterator[tuple[Chunk, list[Array] | None]]:
    """Runs every chunk; yields it, with the sums of the outputs over its images' steps once the last is added.

    Chunks of the same images follow each other, so only one group's sums are held: in float64, or as the graph gave
    them where one run is all there is to add.
    """
    sums: list[Array] = []
    for chunk in chunks:
        parts = run_chunk(sessions, graph, outputs, feeds, chunk)
        sums = parts if chunk.first else added(sums, parts)
        yield chunk, sums if chunk.last else None


def added(sums: Sequence[Array], parts: Sequence[Array]) -> list[Array]:
    """The sums with further terms, in float64; sums that are in float64 already are changed in place."""
    return [_add(total, part) for total, part in zip(sums, parts, strict=True)]


def _add(total: Array, part: Array) -> NDArray[np.float64]:
    if total.dtype == np.float64 and np.broadcast_shapes(total.shape, part.shape) == total.shape:
        return np.add(total, part, out=total)
    return np.add(total, part, dtype=np.float64)


def side_by_side(before: Sequence[Array], after: Sequence[Array]) -> list[Array]:
    """Outputs [N, K, …] of some steps followed by those of others; of outputs without steps, the first."""
    return [np.concatenate(pair, axis=1) if pair[0].ndim > 1 else pair[0] for pair in zip(before, after, strict=True)]


def run_chunk(
    sessions: Sessions,
    graph: Graph,
    outputs: Sequence[str],
    feeds: Mapping[str, Feed],
    chunk: Chunk,
    join: Join = added,
) -> list[Array]:
    """The outputs of a run of one chunk; where memory doesn't suffice for it, of two runs of half as many rows each.

    `join` puts together what two parts of the steps gave. ModelError where there is no memory for a single row.
    """

    def run(part: Chunk) -> list[Array]:
        return sessions.run(graph, outputs, inputs_of(graph, feeds, part))

    return in_halves(sessions, graph, chunk, run, join, one_below_the_other)


def in_halves(
    sessions: Sessions,
    graph: Graph,
    chunk: Chunk,
    run: Callable[[Chunk], Parts],
    join: Callable[[Parts, Parts], Parts],
    stack: Callable[[Parts, Parts, Chunk, Chunk], Parts],
) -> Parts:
    """What `run` gives for a chunk; where memory doesn't suffice, that of its halves, put together.

    By `join` where they are parts of the steps, by `stack`, told which, where they are parts of the images.
    """
    most = sessions.most_rows(graph)
    if most is None or chunk.rows <= most or chunk.rows == 1:
        try:
            found = run(chunk)
        except MemoryRanOutError as error:
            if chunk.rows == 1:
                need = (graph.bytes_per_row + graph.bytes_per_run) / 1e6
                message = f"memory ran out in a run of a single row of {graph.file}, which takes about {need:.3g} MB"
                raise ModelError(message) from error
            sessions.too_many(graph, chunk.rows)
        else:
            sessions.enough(graph, chunk.rows)
            return found
    halves = chunk.halves()
    before, after = (in_halves(sessions, graph, half, run, join, stack) for half in halves)
    return join(before, after) if halves[0].images == chunk.images else stack(before, after, *halves)


def one_below_the_other(before: Sequence[Array], after: Sequence[Array], first: Chunk, second: Chunk) -> list[Array]:
    """Outputs [N, …] of some images followed by those of others; what doesn't depend on the image is there for each."""
    pairs = zip(before, after, strict=True)
    return [np.concatenate([_for_each(one, first), _for_each(other, second)]) for one, other in pairs]


def _for_each(part: Array, chunk: Chunk) -> Array:
    return np.broadcast_to(part, (chunk.images.stop - chunk.images.start, *part.shape[1:]))


def inputs_of(graph: Graph, feeds: Mapping[str, Feed], chunk: Chunk) -> dict[str, Array]:
    """What a run of one chunk is fed, by the names of the graph's inputs."""
    return {entry.name: cast(feed_of(graph, entry, feeds).cut(chunk), entry.dtype) for entry in graph.inputs}


def feed_of(graph: Graph, entry: GraphInput, feeds: Mapping[str, Feed]) -> Feed:
    """What an input of a graph is fed; BundleError for an input that this version doesn't know."""
    if entry.key not in feeds:
        raise BundleError(
            f"{graph.file} has an input of role {entry.role!r}, unknown here; pip install --upgrade onnxplain"
        )
    return feeds[entry.key]
