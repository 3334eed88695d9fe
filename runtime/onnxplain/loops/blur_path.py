"""Integrated gradients on the path from a blurred image to the image, through scale space.

Xu, Venugopalan, Sundararajan: Attribution in Scale and Space (2020, arXiv:2004.03383).
"""

import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.images import spatial_axes
from onnxplain.loops.registry import loop
from onnxplain.planner import chunks
from onnxplain.work import Work

Array = NDArray[np.float64]

TRUNCATE = 4.0
"""A Gaussian's kernel ends after this many deviations, as scipy's does; beyond the picture's edge is 0."""
DIFFERENCE = 0.01
"""The step in σ, in pixels, by which the reference implementation takes the path's derivative."""


@loop("blur_integrated_gradients")
def blur_integrated_gradients(work: Work) -> NDArray[np.float32]:
    """Σ g(L)·(change of L) [N, T, …] over the scales from `sigma` pixels down to 0, L being the image blurred.

    `rule` "midpoint" takes the gradient between two scales, times the difference of the images at them, so that the map
    adds up to F(x) − F(blurred x) as the steps get more. "riemann_left" is the reference implementation: the gradient
    at the finer scale, times the derivative there by a difference.
    """
    sigma, steps = work.parameters["sigma"], work.parameters["steps"]
    axes = spatial_axes(work.bundle.image.layout, work.values)
    graph = work.bundle.graphs["gradient"]
    maps = np.zeros((*work.chosen.targets.shape, *work.values.shape[1:]), np.float64)
    for chunk in chunks(work.count, steps, work.rows_per_run(graph, work.chosen.count)):
        images = np.arange(work.count)[chunk.images]
        scales = np.arange(steps + 1)[chunk.steps.start : chunk.steps.stop + 1] * (sigma / steps)
        points, changes = _along(work.values[images], scales, axes, work.parameters["rule"])
        rows = points.reshape(-1, *work.values.shape[1:]).astype(np.float32)
        gradients = work.gradients_at(rows, np.repeat(images, points.shape[1]))
        gradients = gradients.reshape(*points.shape[:2], *gradients.shape[1:])
        maps[images] += (gradients * changes[:, :, None]).sum(axis=1)
        work.advance(len(images) * points.shape[1] / steps)
    return maps.astype(np.float32)


def _along(images: NDArray[Any], scales: Array, axes: tuple[int, int], rule: str) -> tuple[Array, Array]:
    """Where the gradient is taken and what it is multiplied by, for every interval of scales: both [N, K, …]."""
    widths = np.diff(scales)
    if rule == "midpoint":
        edges = [blurred(images, scale, axes) for scale in scales]
        points = [blurred(images, scale, axes) for scale in scales[:-1] + widths / 2]
        changes = [fine - coarse for fine, coarse in itertools.pairwise(edges)]
    else:
        points = [blurred(images, scale, axes) for scale in scales[:-1]]
        beside = [blurred(images, scale + DIFFERENCE, axes) for scale in scales[:-1]]
        slopes = [(point - other) / DIFFERENCE for point, other in zip(points, beside, strict=True)]
        changes = [width * slope for width, slope in zip(widths, slopes, strict=True)]
    return np.stack(points, axis=1), np.stack(changes, axis=1)


def blurred(images: NDArray[Any], sigma: float, axes: tuple[int, int]) -> Array:
    """Images [N, …] in float64, blurred along two axes by a Gaussian of `sigma` pixels; 0 beyond the edges."""
    planes = np.moveaxis(images.astype(np.float64), axes, (-2, -1))
    rows, columns = (gaussian_matrix(size, sigma) for size in planes.shape[-2:])
    return np.moveaxis(rows @ planes @ columns.T, (-2, -1), axes)


def gaussian_matrix(size: int, sigma: float) -> Array:
    """The blur of a line of `size` pixels as a matrix [size, size]; a picture's is a product of two."""
    radius = int(TRUNCATE * sigma + 0.5)
    if radius == 0:
        return np.eye(size)
    offsets = np.arange(-radius, radius + 1)
    kernel = np.exp(-0.5 * (offsets / sigma) ** 2)
    apart = np.arange(size)[:, None] - np.arange(size)
    near = np.abs(apart) <= radius
    return np.where(near, (kernel / kernel.sum())[np.clip(apart + radius, 0, 2 * radius)], 0.0)
