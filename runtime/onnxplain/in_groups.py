"""Runs a method's loop on so many images at a time that the loop's own arrays fit in the memory with its runs."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.bundle import Graph
from onnxplain.effort import Effort
from onnxplain.holding import Held, held_by, one_by_one
from onnxplain.loops import find_loop
from onnxplain.planner import images_at_once, room
from onnxplain.work import Work

RowsPerRun = Callable[[Graph, float | str | None, int, Held, int, bool], int]


def in_groups(work: Work, memory: float | str | None, rows_per_run: RowsPerRun) -> NDArray[np.float32]:
    """The maps [N, T, …]; `rows_per_run` says how many rows a graph's run takes beside what is held for some images."""
    method, groups = work.method, [slice(0, work.count)]
    run, held = find_loop(method.loop), _held(work)
    if one_by_one(method, work.parameters):
        graphs = [work.bundle.graphs[name] for name in (work.bundle.scoring, method.graph, *method.beside)]
        a_row = max(graph.bytes_per_run + graph.bytes_per_row * work.asked.count for graph in graphs)
        groups = images_at_once(work.count, room(memory), held.image, held.call + held.row + a_row)

    def maps_of(part: Work) -> NDArray[Any]:
        def fitting(graph: Graph, targets: int, *, allowed: bool = False) -> int:
            return rows_per_run(graph, memory, targets, held, part.count, allowed)

        return run(replace(part, rows_per_run=fitting)).astype(np.float32, copy=False)

    if len(groups) == 1:
        return maps_of(work)
    parts = [replace(work.part(images), effort=Effort()) for images in groups]
    first = maps_of(parts[0])
    maps = np.empty((work.count, *first.shape[1:]), np.float32)
    maps[groups[0]] = first
    for images, part in zip(groups[1:], parts[1:], strict=True):
        maps[images] = maps_of(part)
    if not work.answers.known:
        work.answers.tell(np.concatenate([part.scores for part in parts]))
    _add_up(work.effort, [part.effort for part in parts])
    return maps


def _add_up(whole: Effort, parts: Sequence[Effort]) -> None:
    """What the groups cost, as that of their call."""
    whole.add(sum(part.rows for part in parts))
    steps = [part.steps for part in parts if part.steps is not None]
    errors = [part.errors for part in parts if part.errors is not None]
    whole.steps = np.concatenate(steps) if len(steps) == len(parts) else None
    whole.errors = np.concatenate(errors) if len(errors) == len(parts) else None


def _held(work: Work) -> Held:
    inside = work.bundle.inside
    shape = work.rows.shape[1:] if inside is None else [axis for axis in inside.shape[1:] if isinstance(axis, int)]
    return held_by(work.bundle, work.method, work.parameters, work.asked.count, 4 * math.prod(shape))
