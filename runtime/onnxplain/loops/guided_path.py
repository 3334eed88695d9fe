"""Integrated gradients on a path that changes the least sensitive pixels first.

Kapishnikov et al.: Guided Integrated Gradients: an Adaptive Path Method for Removing Noise (2021, arXiv:2106.09788).
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.errors import ParameterError
from onnxplain.fills import baselines, number_of_baselines
from onnxplain.loops.changed import each_target, with_parameters
from onnxplain.loops.registry import loop
from onnxplain.work import Work

Array = NDArray[np.float64]
Gradient = Callable[[Array], NDArray[Any]]

CLOSE = 1e-9
"""Distances that differ by less than this share are equal."""


@loop("guided_integrated_gradients")
def guided_integrated_gradients(work: Work) -> NDArray[np.float32]:
    """The gradient along the guided path from baseline to image [N, T, …]; each target has a path of its own."""
    value, draws, seed = (work.parameters[name] for name in ("baseline", "baselines", "seed"))
    if number_of_baselines(value, work.values, draws) > 1:
        raise ParameterError(f"{work.method.name} takes one baseline for each image; average several calls instead")
    (start,) = baselines(value, work.values, work.bundle, draws, seed)
    quiet = with_parameters(work, baseline=0.0)
    share = 1 / work.chosen.count
    return np.stack([_one_target(one, start, share) for one in each_target(quiet)], axis=1)


def _one_target(work: Work, start: NDArray[Any], share: float) -> NDArray[np.float32]:
    """The maps [N, …] of one target, as many images at a time as one run takes."""
    steps, fraction, most = (work.parameters[name] for name in ("steps", "fraction", "max_dist"))
    together = work.rows_per_run(work.bundle.graphs["gradient"], 1)
    starts = np.broadcast_to(start, work.values.shape)
    maps = np.empty(work.values.shape, np.float32)
    for first in range(0, work.count, together):
        part = slice(first, first + together)

        def gradient(rows: Array, first: int = first) -> NDArray[Any]:
            return work.gradients_at(rows.astype(np.float32), np.arange(first, first + len(rows)))[:, 0]

        maps[part] = guided_path(gradient, work.values[part], starts[part], steps, fraction, most)
        work.advance(share * len(maps[part]))
    return maps


def guided_path(
    gradient: Gradient, images: NDArray[Any], starts: NDArray[Any], steps: int, fraction: float, max_dist: float
) -> Array:
    """Attributions [N, …] of images, given `gradient(rows [N, …]) -> [N, …]`.

    Every step brings the path the same share of the L1 distance nearer to the image. It moves the `fraction` of the
    elements with the smallest gradients, and as many more as it needs; none leaves the straight path's own position by
    more than `max_dist` of the way (0 is integrated gradients).
    """
    end = images.reshape(len(images), -1).astype(np.float64)
    start = starts.reshape(len(images), -1).astype(np.float64)
    distance = np.abs(end - start).sum(axis=1)
    here, attribution = start, np.zeros_like(end)
    for step in range(steps):
        slope = gradient(here.reshape(images.shape)).reshape(end.shape).astype(np.float64)
        share = (step + 1) / steps
        low, high = max(share - max_dist, 0.0), min(share + max_dist, 1.0)
        moved = _step(here, start, end, slope, distance * (1 - share), (low, high), fraction)
        attribution += (moved - here) * slope
        here = moved
    return attribution.reshape(images.shape)


def _step(
    here: Array, start: Array, end: Array, slope: Array, wanted: Array, bounds: tuple[float, float], fraction: float
) -> Array:
    """The next points [N, elements]: each at the `wanted` L1 distance [N] from its image."""
    low, high = (start + (end - start) * bound for bound in bounds)
    here, cost = here.copy(), np.abs(slope)
    total, place = end - start, int(np.floor(fraction * (here.shape[1] - 1)))
    behind = _share_of_way(here, start, total, bounds[1]) < bounds[0]
    here[behind] = low[behind]
    active = np.arange(len(here))
    while len(active):
        left = np.abs(here[active] - end[active]).sum(axis=1)
        going = ~np.isclose(left, wanted[active], rtol=CLOSE, atol=CLOSE)
        active, left = active[going], left[going]
        if not len(active):
            break
        x, goal = here[active], high[active]
        costs = np.where(x == goal, np.inf, cost[active])  # what has arrived is not moved
        threshold = np.partition(costs, place, axis=1)[:, place, None]
        chosen = (costs <= threshold) & np.isfinite(costs)
        reach = (np.abs(x - goal) * chosen).sum(axis=1)
        gamma = np.divide(left - wanted[active], reach, out=np.full_like(left, np.inf), where=reach > 0)
        share = np.minimum(gamma, 1.0)[:, None]
        here[active] = np.where(chosen, np.where(share < 1, x + (goal - x) * share, goal), x)
        active = active[(gamma > 1.0) & (reach > 0)]
    return here


def _share_of_way(here: Array, start: Array, total: Array, still: float) -> Array:
    """How far each element is on its way from 0 to 1; `still` for those that don't move."""
    return np.divide(here - start, total, out=np.full_like(here, still), where=total != 0)
