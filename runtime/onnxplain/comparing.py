"""Two bundles on the same pictures: how far do their maps agree? Float and quantised, before and after retraining."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.errors import ParameterError
from onnxplain.explainer import Explainer
from onnxplain.heatmap import at_size, reduced
from onnxplain.images import SPATIAL, listed
from onnxplain.metrics.correlation import spearman
from onnxplain.result import Result

# The share of an image's pixels whose overlap is counted.
TOP = 0.05


@dataclass(frozen=True, slots=True)
class Comparison:
    """One image's maps by two bundles, for the same class, and how far they agree.

    `rank_correlation` is Spearman's of the maps' pixels (of their signed sums over channels, or for sensitivities the
    absolute ones), `distance` the L2 norm of the difference of the two maps scaled to norm 1 (0 where they are the
    same, √2 where they have nothing in common, 2 where opposite), `overlap` the share of the 5 % highest pixels that
    both have. `difference` is second − first, so scaled, [H, W] or of the map's shape.
    """

    first: Result
    second: Result
    rank_correlation: float
    distance: float
    overlap: float
    difference: NDArray[np.float64]


def compare(
    first: Explainer,
    second: Explainer,
    images: Any,
    method: str = "gradient",
    targets: Any = None,
    **options: Any,
) -> list[Comparison]:
    """How the maps of two bundles differ, for each image.

    Takes what Explainer.explain takes. Without `targets` the top class of the first bundle is explained in both. Maps
    of another size are brought to the first one's. Raises ParameterError where the two have no class in common or maps
    that can't be compared.
    """
    return list(compare_stream(first, second, listed(images, first.bundle), method, targets, **options))


def compare_stream(
    first: Explainer,
    second: Explainer,
    images: Iterable[Any],
    method: str = "gradient",
    targets: Any = None,
    **options: Any,
) -> Iterator[Comparison]:
    """The comparisons one by one, in memory that doesn't grow with the number of images; all as for `compare`."""
    for image in images:
        entry = image if isinstance(image, Mapping) else [image]
        one = first.explain(entry, method, targets, **options)
        if one.targets.ndim > 1:
            raise ParameterError("two bundles are compared for one class of a picture at a time")
        yield _compared(one, second.explain(entry, method, _target(one, first, second), **options))


def _target(result: Result, first: Explainer, second: Explainer) -> list[Any]:
    """The explained class in the second network: by its name where it has that, else by its number."""
    target, label = int(result.targets[0]), result.labels[0]
    ours, theirs = first.bundle.scores, second.bundle.scores
    if theirs.labels is not None and label in theirs.labels:
        return [theirs.labels.index(label)]
    if ours.classes != theirs.classes:
        raise ParameterError(
            f"{second.bundle.name} has no class {label!r}, and {theirs.classes} classes where {first.bundle.name} has "
            f"{ours.classes}; compare networks of the same classes"
        )
    return [target]


def _compared(first: Result, second: Result) -> Comparison:
    absolute = first.measures == "sensitivity"
    one, two = _pixels(first, absolute), _pixels(second, absolute)
    if one.shape != two.shape:
        if one.ndim != 2 or two.ndim != 2:
            raise ParameterError(f"maps of {list(one.shape)} and {list(two.shape)} can't be compared")
        two = at_size(two, *one.shape).astype(np.float64)
    a, b = _unit(one), _unit(two)
    return Comparison(
        first=first,
        second=second,
        rank_correlation=float(spearman(a.reshape(1, -1), b.reshape(1, -1))[0]),
        distance=float(np.linalg.norm(b - a)),
        overlap=_overlap(a.ravel(), b.ravel()),
        difference=b - a,
    )


def _pixels(result: Result, absolute: bool) -> NDArray[np.float64]:
    """One number a pixel [H, W]; of what is no picture, the map as it is."""
    maps = result.attribution[0]
    if result.layout not in SPATIAL or maps.ndim != 3:
        return np.abs(maps, dtype=np.float64) if absolute else maps.astype(np.float64)
    return reduced(maps, str(result.layout), "absolute_sum" if absolute else "signed_sum")


def _unit(values: NDArray[np.float64]) -> NDArray[np.float64]:
    norm = float(np.linalg.norm(values))
    return values / norm if norm > 0 else values


def _overlap(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    count = max(1, round(TOP * first.size))
    best = [set(np.argsort(-values, kind="stable")[:count].tolist()) for values in (first, second)]
    return len(best[0] & best[1]) / count
