"""Keeps runs full of rows of different images, each of which goes on until it has what it needs."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from onnxplain.work import Work

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Ask:
    """What an image wants of the network next: the sum over `steps` [K, columns], with `feeds` [1, …] by role."""

    steps: Array
    feeds: Mapping[str, Array] = field(default_factory=dict)


class Task(Protocol):
    """One image's way to its map. All decisions rest on its own numbers, so that its neighbours don't matter."""

    def asks(self) -> list[Ask]:
        """What it wants next, once it has all that it wanted before; nothing when it is done."""

    def take(self, ask: Ask, outputs: Sequence[Array]) -> None:
        """Takes the graph's outputs [T, …] for one ask."""

    def finish(self) -> "Outcome":
        """What has come of it."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """An image's map [T, …], its estimated relative error [T], and how many rows the network was run on for it."""

    map: Array
    error: NDArray[np.float64]
    steps: int


@dataclass(slots=True)
class _Flying:
    """An image that is being worked on, and how many of its asks haven't been answered."""

    number: int
    task: Task
    open: int = 0


def run_tasks(
    work: Work, graph: str, outputs: Sequence[str], start: Callable[[int], Task], most: int, roles: Mapping[str, Array]
) -> list[Outcome]:
    """The outcomes of all images, at most `most` of them in flight; `start` gives an image's task by its number.

    `roles` are feeds that hold for the whole call. Images that are done leave, the next take their place. A run takes
    asks of the same number of steps, oldest first.
    """
    run, rows = work.runner(graph, outputs, **roles), work.row_limit(graph)
    outcomes: dict[int, Outcome] = {}
    waiting = deque(range(work.count))
    queue: deque[tuple[_Flying, Ask]] = deque()
    flying = 0
    while waiting or queue:
        while waiting and flying < most and sum(len(ask.steps) for _, ask in queue) < rows:
            image = waiting.popleft()
            flying += 1
            _enqueue(queue, _Flying(image, start(image)))
        batch = _take_alike(queue, rows)
        answers = run(np.array([image.number for image, _ in batch]), _steps_of(batch), _feeds_of(batch))
        for row, (one, ask) in enumerate(batch):
            one.task.take(ask, [answer[row if len(answer) > 1 else 0] for answer in answers])
            one.open -= 1
            if not one.open and not _enqueue(queue, one):
                outcomes[one.number] = one.task.finish()
                flying -= 1
                work.advance(1)
    return [outcomes[image] for image in range(work.count)]


def _enqueue(queue: deque[tuple[_Flying, Ask]], image: _Flying) -> bool:
    """Puts what an image asks for into the queue; whether there was anything."""
    asks = image.task.asks()
    image.open = len(asks)
    queue.extend((image, ask) for ask in asks)
    return bool(asks)


def _take_alike(queue: deque[tuple[_Flying, Ask]], rows: int) -> list[tuple[_Flying, Ask]]:
    """The oldest asks that make up a run: as many steps each as the first, no more rows than that together."""
    size = len(queue[0][1].steps)
    taken: list[tuple[_Flying, Ask]] = []
    left: list[tuple[_Flying, Ask]] = []
    while queue and len(taken) < max(1, rows // size):
        entry = queue.popleft()
        (taken if len(entry[1].steps) == size else left).append(entry)
    queue.extendleft(reversed(left))
    return taken


def _steps_of(batch: Sequence[tuple[_Flying, Ask]]) -> Array:
    return np.stack([ask.steps for _, ask in batch]).astype(np.float32)


def _feeds_of(batch: Sequence[tuple[_Flying, Ask]]) -> dict[str, Array]:
    """The asks' own feeds, one below the other; one that all share isn't repeated."""
    return {role: _joined([ask.feeds[role] for _, ask in batch]) for role in batch[0][1].feeds}


def _joined(parts: Sequence[Array]) -> Array:
    return parts[0] if all(part is parts[0] for part in parts) else np.concatenate(parts)
