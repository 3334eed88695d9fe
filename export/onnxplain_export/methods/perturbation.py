"""Methods of the perturbation family: what hiding parts of the picture does to the scores."""

from typing import Any

from onnxplain_export.methods.method import method
from onnxplain_export.methods.parameters import FILL, SEED, array, choice, count, number, size

_MASKING: dict[str, Any] = {"explains": "probabilities", "measures": "importance", "pictures": True}
_RANDOM: dict[str, Any] = {
    **_MASKING,
    "masks": count(4000, "random masks, each a pass of the network"),
    "cells": count(7, "cells a side of the grid that masks are made from", 32, 2),
    "probability": number(0.5, "share of the cells that are kept", 0.01, 0.99),
    "design": choice(
        "orthogonal", "masks in balanced blocks (at probability 0.5), or each by itself", "orthogonal", "independent"
    ),
    "fill": FILL,
    "seed": SEED,
}
_SEGMENTS: dict[str, Any] = {
    "segments": array("grid", "grid, slic (superpixels), or the number of each pixel's segment", "grid", "slic"),
    "cells": count(7, "segments a side of the grid; about its square in superpixels", 100),
    "fill": FILL,
    "seed": SEED,
}


def _solved(about: str, solver: str, measures: str = "importance", **parameters: Any) -> dict[str, Any]:
    """A method on segments, whose values a solver finds."""
    kinds = {**_MASKING, "measures": measures}
    return method(about, "masked.segments", loop="solve", finish=solver, **kinds, **parameters, **_SEGMENTS)


RISE_PLUS = method(
    "rise, with less heed to masks that look like nothing learned",
    "masked.detected",
    "random_masks",
    loop="detected",
    **_RANDOM,
)
"""Written by `onnxplain detector`: it needs a detector of the network."""

PERTURBATION = {
    "occlusion": method(
        "what hiding a window costs the score (Zeiler & Fergus 2013)",
        "masked",
        "windows",
        **_MASKING,
        window=size(0, "side in pixels, or rows and columns; 0: an eighth of the image"),
        stride=size(0, "in pixels, or rows and columns; 0: half a window"),
        fill=FILL,
    ),
    "rise": method(
        "the mean score of random masks that keep a pixel (Petsiuk 2018)", "masked.random", "random_masks", **_RANDOM
    ),
    "kernel_shap": _solved(
        "Shapley values of segments (Lundberg & Lee 2017)",
        "shapley",
        samples=count(2048, "coalitions of segments, each a pass of the network", least=2),
    ),
    "lime": _solved(
        "a linear model of segments kept or hidden, near the picture (Ribeiro 2016)",
        "ridge",
        samples=count(1000, "random choices of segments, each a pass of the network", least=2),
        distance=choice("cosine", "how far a choice is from the picture itself", "cosine", "euclidean"),
        width=number(0.25, "distance at which a choice counts 1/e", 1e-3, 1e3),
        ridge=number(1.0, "penalty on the squared values", 0.0, 1e6),
    ),
    "sobol": _solved(
        "how much of the score's variance a segment has part in (Fel 2021)",
        "total_indices",
        designs=count(32, "points; each is a pass, and one more for every segment", 100_000, 2),
    ),
    "hsic": _solved(
        "how strongly the score depends on a segment (Novello 2022)",
        "dependence",
        samples=count(1500, "random halves of the segments, each a pass of the network", 20_000, 4),
    ),
}
