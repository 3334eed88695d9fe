"""The explainers that a bundle can carry: each is a graph, a plan rule, a finish rule and parameters with defaults."""

from collections.abc import Mapping, Sequence
from typing import Any

from onnxplain.errors import ParameterError, unknown

_NOISE = {
    "kind": "float",
    "default": 0.15,
    "minimum": 0.0,
    "maximum": 10.0,
    "help": "σ as a share of each image's range",
}
_SEED = {"kind": "int", "default": 0, "minimum": 0, "maximum": (1 << 20) - 1, "help": "number of the noise sequence"}
_BASELINE = {
    "kind": "image",
    "default": 0.0,
    "help": "where the path starts: a number in the model's own input, or black, white, mean, blur",
}


def _count(default: int, meaning: str, most: int = 1_000_000) -> dict[str, Any]:
    return {"kind": "int", "default": default, "minimum": 1, "maximum": most, "help": meaning}


METHODS: Mapping[str, Mapping[str, Any]] = {
    "gradient": {
        "graph": "gradient",
        "plan": "single",
        "finish": "mean",
        "explains": "logits",
        "measures": "sensitivity",
        "parameters": {},
    },
    "smoothgrad": {
        "graph": "noise",
        "plan": "draws",
        "finish": "mean",
        "explains": "logits",
        "measures": "sensitivity",
        "parameters": {"samples": _count(25, "noisy copies of each image"), "noise": _NOISE, "seed": _SEED},
    },
    "integrated_gradients": {
        "graph": "path",
        "plan": "points",
        "finish": "mean",
        "explains": "logits",
        "measures": "contribution",
        "parameters": {"steps": _count(50, "Gauss–Legendre points on the path", 2000), "baseline": _BASELINE},
    },
    "smoothgrad_integrated": {
        "graph": "noise",
        "plan": "draws_points",
        "finish": "mean",
        "explains": "logits",
        "measures": "contribution",
        "parameters": {
            "samples": _count(10, "noisy copies of each image"),
            "noise": _NOISE,
            "steps": _count(25, "Gauss–Legendre points on each path", 2000),
            "baseline": _BASELINE,
            "seed": _SEED,
        },
    },
    "occlusion": {
        "graph": "masked",
        "plan": "windows",
        "finish": "mean",
        "explains": "probabilities",
        "measures": "contribution",
        "parameters": {
            "window": {
                "kind": "int",
                "default": 0,
                "minimum": 0,
                "maximum": 100_000,
                "help": "side in pixels; 0: an eighth of the image",
            },
            "stride": {
                "kind": "int",
                "default": 0,
                "minimum": 0,
                "maximum": 100_000,
                "help": "in pixels; 0: half a window",
            },
            "fill": {
                **_BASELINE,
                "help": "what the window becomes: a number in the model's own input, or black, white, mean, blur",
            },
        },
    },
}


def chosen_methods(names: Sequence[str] | None, pictures: bool) -> dict[str, Mapping[str, Any]]:
    """The entries of `names`, or of all methods that the input allows."""
    if names is None:
        return {name: entry for name, entry in METHODS.items() if pictures or entry["graph"] != "masked"}
    if not names:
        raise ParameterError(f"no method was named; known: {', '.join(METHODS)}")
    for name in names:
        if name not in METHODS:
            raise ParameterError(unknown("method", name, METHODS))
    return {name: METHODS[name] for name in names}
