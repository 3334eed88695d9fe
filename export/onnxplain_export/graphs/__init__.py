"""The graphs of a bundle, one file each; every method is a table of steps run through one of them."""

from collections.abc import Callable
from functools import partial

import onnx_ir as ir

from onnxplain.plans import RANDOM_MASKS
from onnxplain_export.graphs.deeplift import deeplift
from onnxplain_export.graphs.forward import forward
from onnxplain_export.graphs.gradient import gradient
from onnxplain_export.graphs.layer import layer
from onnxplain_export.graphs.masked import masked, masked_random, masked_segments
from onnxplain_export.graphs.noise import noise
from onnxplain_export.graphs.path import path
from onnxplain_export.graphs.relevance import relevance
from onnxplain_export.graphs.tail import tail
from onnxplain_export.tables import COMPOSITES, DECONVOLUTION, GUIDED

GRAPHS: dict[str, Callable[..., ir.Model]] = {
    "forward": forward,
    "gradient": gradient,
    "gradient.guided": partial(gradient, rules=GUIDED),
    "gradient.deconvolution": partial(gradient, rules=DECONVOLUTION),
    **{f"relevance.{name}": partial(relevance, composite=composite) for name, composite in COMPOSITES.items()},
    "deeplift": deeplift,
    "deeplift.captum": partial(deeplift, captum=True),
    "path": path,
    "noise": noise,
    "masked": masked,
    "masked.random": masked_random,
    "masked.segments": masked_segments,
}

AT_LAYERS: dict[str, Callable[..., ir.Model]] = {"layer": layer, "tail": tail}
"""The graphs that each feature layer has of its own."""

COLUMNS: dict[str, tuple[str, ...]] = {
    "path": ("alpha", "weight"),
    "noise": ("draw", "alpha", "weight", "multiply"),
    "masked": ("top", "left", "bottom", "right"),
    "masked.random": RANDOM_MASKS,
    "masked.detected": RANDOM_MASKS,
}
"""The columns of each graph's step table."""

SCORING = frozenset({"forward", "masked", "masked.random", "masked.segments", "tail"})
DIFFERENTIATED = frozenset({*GRAPHS, *AT_LAYERS}) - SCORING
"""The graphs that need no gradient, and those that hold a backward pass: no gradient, no graph."""

SHARING = {
    f"{name}.targets": name for name in ("gradient", "gradient.guided", "gradient.deconvolution", "path", "noise")
}
"""The graphs in which several targets of an image share its forward pass, and those that they stand in for."""

GRAPHS.update({name: partial(GRAPHS[plain], shares=True) for name, plain in SHARING.items()})
COLUMNS.update({name: COLUMNS[plain] for name, plain in SHARING.items() if plain in COLUMNS})

TELLING = frozenset({"gradient", "layer", "relevance", "deeplift"})
"""The kinds of graphs that run the images as they are, so that they give the scores too and can find the top class."""

PROVING = frozenset({"forward", "gradient"})
"""The graphs that all others are proved against."""
