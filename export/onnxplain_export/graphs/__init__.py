"""The graphs of a bundle, one file each; every method is a table of steps run through one of them."""

from collections.abc import Callable, Mapping

import onnx_ir as ir

from onnxplain_export.graphs.forward import forward
from onnxplain_export.graphs.gradient import gradient
from onnxplain_export.graphs.masked import masked
from onnxplain_export.graphs.noise import noise
from onnxplain_export.graphs.path import path
from onnxplain_export.normalize import Normalized

GRAPHS: Mapping[str, Callable[[Normalized], ir.Model]] = {
    "forward": forward,
    "gradient": gradient,
    "path": path,
    "noise": noise,
    "masked": masked,
}

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "path": ("alpha", "weight"),
    "noise": ("draw", "alpha", "weight", "multiply"),
    "masked": ("top", "left", "bottom", "right"),
}
"""The columns of each graph's step table."""

DIFFERENTIATED = frozenset({"gradient", "path", "noise"})
"""The graphs that hold a backward pass to the explained value: no gradient, no graph."""

PROVING = frozenset({"forward", "gradient"})
"""The graphs that all others are proved against."""
