"""The engine's one loop: run a graph over chunks of images and steps, add up, finish."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.bundle import Graph
from onnxplain.errors import BundleError, unknown
from onnxplain.planner import Chunk
from onnxplain.sessions import Sessions, cast

Array = NDArray[Any]
Finish = Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]


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


def mean(total: NDArray[np.float64], norm: NDArray[np.float64]) -> NDArray[np.float64]:
    """total / norm, and 0 where norm is 0: a pixel that no step touched."""
    return np.divide(total, norm, out=np.zeros_like(total), where=np.broadcast_to(norm, total.shape) != 0)


def covered_once_more(total: NDArray[np.float64], norm: NDArray[np.float64]) -> NDArray[np.float64]:
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
) -> Iterator[tuple[Chunk, list[NDArray[np.float64]] | None]]:
    """Runs every chunk; yields it, with the sums of the outputs over its images' steps once the last is added.

    Chunks of the same images follow each other, so only one group's sums are held, in float64.
    """
    sums: list[NDArray[np.float64]] = []
    for chunk in chunks:
        parts = sessions.run(graph, outputs, inputs_of(graph, feeds, chunk))
        terms = [np.asarray(part, np.float64) for part in parts]
        sums = terms if chunk.first else [total + term for total, term in zip(sums, terms, strict=True)]
        yield chunk, sums if chunk.last else None


def inputs_of(graph: Graph, feeds: Mapping[str, Feed], chunk: Chunk) -> dict[str, Array]:
    """What a run of one chunk is fed, by the names of the graph's inputs."""
    inputs = {}
    for entry in graph.inputs:
        if entry.key not in feeds:
            raise BundleError(
                f"{graph.file} has an input of role {entry.role!r}, unknown here; pip install --upgrade onnxplain"
            )
        inputs[entry.name] = cast(feeds[entry.key].cut(chunk), entry.dtype)
    return inputs
