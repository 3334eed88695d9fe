"""Attribution of regions: the picture's segments, ranked by integrated gradients.

Kapishnikov, Bolukbasi, Viégas, Terry: XRAI: Better Attributions Through Regions (2019, arXiv:1906.02825).
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.errors import ParameterError
from onnxplain.fills import baselines, fill_values, number_of_baselines
from onnxplain.images import spatial_axes
from onnxplain.integration import points_of
from onnxplain.loops.changed import with_parameters
from onnxplain.loops.registry import loop
from onnxplain.regions import given_masks, grown, picture_masks
from onnxplain.work import Work

Array = NDArray[Any]

BLACK_WHITE, RANGE = "black_white", "range"


@loop("xrai")
def xrai(work: Work) -> NDArray[np.float32]:
    """Maps [N, T, 1, H, W] ([N, T, H, W, 1] for NHWC): each region's mean attribution.

    The attribution is the mean of integrated gradients from all baselines ("black_white", each image's own "range" of
    values, or given ones), its channels added up, or the largest for `reduction` "max".
    """
    if work.bundle.inside is not None:
        raise ParameterError(f"xrai needs gradients at the picture; this bundle's are at {work.bundle.inside.name!r}")
    height, width = (axis - 4 for axis in spatial_axes(work.bundle.image.layout, work.values))
    reduced = np.moveaxis(_attributions(work), (height, width), (-2, -1))
    reduced = reduced.max(axis=2) if work.parameters["reduction"] == "max" else reduced.sum(axis=2)
    maps = np.empty((*work.chosen.targets.shape, *work.map_shape), np.float32)
    for number, masks in enumerate(_masks(work)):
        for target, attribution in enumerate(reduced[number]):
            maps[number, target] = grown(attribution, masks).reshape(work.map_shape)
    return maps


def _attributions(work: Work) -> NDArray[np.float64]:
    """Integrated gradients [N, T, …], the mean over the baselines."""
    table = points_of(work.parameters["rule"], work.parameters["steps"]).astype(np.float32)
    quiet, total = with_parameters(work, baseline=0.0), np.zeros(())
    count, starts = _baselines(work)
    for baseline in starts:
        total = total + quiet.sums(("total",), table, "path", 1 / count, baseline=baseline)[0]
    return total / count


def _baselines(work: Work) -> tuple[int, Iterator[Array]]:
    """How many baselines there are, and each, [1 or N, …]."""
    value, rows, bundle = work.parameters["baseline"], work.values, work.bundle
    if isinstance(value, str) and value == BLACK_WHITE and bundle.steps:
        return 2, (fill_values("baseline", name, rows, bundle) for name in ("black", "white"))
    if isinstance(value, str) and value in (BLACK_WHITE, RANGE):  # without preprocessing nobody knows what black is
        axes = tuple(range(1, rows.ndim))
        bounds = [bound(axis=axes, keepdims=True) for bound in (rows.min, rows.max)]
        return 2, iter(bounds)
    return number_of_baselines(value, rows, 1), baselines(value, rows, bundle)


def _masks(work: Work) -> Iterator[NDArray[np.bool_]]:
    """The segments of each image in turn, [S, H, W]."""
    segments, (height, width) = work.parameters["segments"], work.size
    if segments is not None:
        yield from given_masks(segments, work.count, height, width)
        return
    axes = spatial_axes(work.bundle.image.layout, work.values)
    for picture in np.moveaxis(work.values, axes, (1, 2)):
        yield picture_masks(picture)
