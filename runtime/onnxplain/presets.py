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

    `parameters` are new defaults; `pixels` is how the system makes one number a pixel of a map (see heatmap.py).
    """

    parameters: Mapping[str, Any] = field(default_factory=dict)
    graph: str | None = None
    plan: str | None = None
    finish: str | None = None
    loop: str | None = None
    explains: str | None = None
    pixels: str | None = None


PRESETS: dict[str, dict[str, Preset]] = {
    "captum": {
        "guided_backprop": Preset(),
        "deconvolution": Preset(),
        "lrp_epsilon": Preset({"epsilon": 1e-9}),
        "deeplift": Preset(graph="deeplift.captum"),
    },
    "fastestimator": {},
    "mindspore": {
        "gradient": Preset(),
        "guided_backprop": Preset(),
        "deconvolution": Preset(),
    },
    "pair": {},
}
"""The systems, and their forms of the methods that they have."""


def split_method(name: str, preset: str | None) -> tuple[str, str | None]:
    """The method and the preset of a name such as "smoothgrad.captum"."""
    method, dot, suffix = name.rpartition(".")
    if not dot:
        return name, preset
    if preset is not None and preset != suffix:
        raise ParameterError(f"method {name!r} and preset={preset!r} name two systems; give one")
    return method, suffix


def apply_preset(method: Method, preset: str | None) -> tuple[Method, Preset]:
    """The method as the preset's system has it, and the entry itself; ParameterError where it has no such method."""
    if preset is None:
        return method, Preset()
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
    form = replace(
        method,
        name=f"{method.name}.{preset}",
        graph=entry.graph or method.graph,
        plan=entry.plan or method.plan,
        finish=entry.finish or method.finish,
        loop=entry.loop or method.loop,
        explains=entry.explains or method.explains,
        parameters=changed,
    )
    return form, entry
