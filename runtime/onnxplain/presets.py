"""Presets: what another system's parameters, or its own form of a method, would be.

`preset="captum"` sets ordinary parameters to that system's. Where its mathematics differs, the entry swaps the graph,
the plan, the finish rule or the loop: a method of its own, named so (`smoothgrad.fastestimator`), over the same graphs.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from onnxplain.bundle import Method
from onnxplain.errors import ParameterError, unknown


@dataclass(frozen=True, slots=True)
class Preset:
    """How a system's form of a method differs from ours; what is None or missing stays as the bundle has it.

    `parameters` are new defaults.
    """

    parameters: Mapping[str, Any] = field(default_factory=dict)
    graph: str | None = None
    plan: str | None = None
    finish: str | None = None
    loop: str | None = None
    explains: str | None = None


_MINDSPORE_MASKS = {"masks": 6000, "cells": 10, "probability": 0.5}
_CAPTUM_NOISE = {"samples": 5, "noise": 1.0, "noise_of": "absolute"}

PRESETS: dict[str, dict[str, Preset]] = {
    "captum": {
        "occlusion": Preset({"stride": 1}, plan="windows.captum", explains="logits"),
        "gradient": Preset(loop="saliency"),
        "input_x_gradient": Preset(),
        "smoothgrad": Preset(_CAPTUM_NOISE),
        "smoothgrad_squared": Preset(_CAPTUM_NOISE),
        "vargrad": Preset(_CAPTUM_NOISE),
        "integrated_gradients": Preset(),
        "smoothgrad_integrated": Preset({**_CAPTUM_NOISE, "steps": 50}),
        "expected_gradients": Preset({"samples": 5, "noise_of": "absolute"}),
        "gradcam": Preset({"relu": False, "upsample": "none"}),
        "guided_backprop": Preset(),
        "deconvolution": Preset(),
        "lrp_epsilon": Preset({"epsilon": 1e-9}),
        "deeplift": Preset(graph="deeplift.captum"),
    },
    "fastestimator": {
        "gradient": Preset(),
        "smoothgrad": Preset({"noise_of": "batch"}, loop="smoothgrad.fastestimator"),
        "integrated_gradients": Preset({"steps": 25}, loop="integrated_gradients.fastestimator"),
        "smoothgrad_integrated": Preset({"samples": 6, "steps": 100}, loop="smoothgrad_integrated.fastestimator"),
    },
    "mindspore": {
        "occlusion": Preset(plan="windows.mindspore", finish="covered_once_more"),
        "rise": Preset(_MINDSPORE_MASKS, plan="random_masks.mindspore", loop="per_mask"),
        "rise_plus": Preset(_MINDSPORE_MASKS, plan="random_masks.mindspore", loop="detected.per_mask"),
        "gradcam": Preset({"upsample": "bytes"}),
        "gradient": Preset(),
        "guided_backprop": Preset(),
        "deconvolution": Preset(),
    },
    "pair": {
        "gradient": Preset(),
        "smoothgrad": Preset(loop="smoothgrad_squared"),
        "integrated_gradients": Preset({"steps": 25, "rule": "inclusive"}),
        "blur_integrated_gradients": Preset({"rule": "riemann_left"}),
        "guided_integrated_gradients": Preset(),
        "xrai": Preset({"steps": 100, "rule": "inclusive", "baseline": "range", "reduction": "max"}),
    },
}
"""The systems, and their forms of the methods that they have. How each draws a map is in heatmap.HEATMAP_PRESETS."""


def split_method(name: str, preset: str | None) -> tuple[str, str | None]:
    """The method and the preset of a name such as "smoothgrad.captum"."""
    method, dot, suffix = name.rpartition(".")
    if not dot:
        return name, preset
    if preset is not None and preset != suffix:
        raise ParameterError(f"method {name!r} and preset={preset!r} name two systems; give one")
    return method, suffix


def apply_preset(method: Method, preset: str | None) -> Method:
    """The method as the preset's system has it; ParameterError where it has no such method."""
    if preset is None:
        return method
    if preset not in PRESETS:
        raise ParameterError(unknown("preset", preset, PRESETS))
    if method.name not in PRESETS[preset]:
        known = ", ".join(sorted(PRESETS[preset]))
        raise ParameterError(f"the preset {preset!r} has no {method.name}; it has: {known}")
    entry = PRESETS[preset][method.name]
    changed = {
        name: replace(parameter, default=entry.parameters.get(name, parameter.default))
        for name, parameter in method.parameters.items()
    }
    return replace(
        method,
        name=f"{method.name}.{preset}",
        graph=entry.graph or method.graph,
        plan=entry.plan or method.plan,
        finish=entry.finish or method.finish,
        loop=entry.loop or method.loop,
        explains=entry.explains or method.explains,
        parameters=changed,
    )
