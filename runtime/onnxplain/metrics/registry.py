"""The metrics by name, their settings and their forms under a preset."""

import inspect
import math
import numbers
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.errors import ParameterError, unknown

BETTER = ("higher", "lower")
NEEDS = {
    "places": "a map with a number for each place of the input",
    "picture": "a network whose input is a picture",
    "masks": "masks of what the maps should show",
    "again": "a method that can explain changed images",
    "channels": "maps of contributions, or of sensitivities with all channels of the input",
    "contribution": "maps of contributions to the score",
    "input": "maps at the network's input",
    "weights": "a bundle whose weights can be re-drawn",
}
Limits = Mapping[str, tuple[float | None, float | None]]


@dataclass(frozen=True, slots=True)
class Measurement:
    """A metric's values [N], and where it has them its curves [N, K] over `at` [K] (a share of 0..1)."""

    values: NDArray[np.float64]
    at: NDArray[np.float64] | None = None
    curves: NDArray[np.float64] | None = None


Measure = Callable[..., Measurement]


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric: what computes it, which direction is better, what it needs, and its settings with their ranges.

    `explains` is "" or the kind of map it is meant for; `variants` are its forms under a preset.
    """

    name: str
    measure: Measure
    better: str
    needs: frozenset[str]
    defaults: Mapping[str, Any]
    limits: Limits
    choices: Mapping[str, tuple[str, ...]]
    variants: dict[str, "Metric"] = field(default_factory=dict)

    @property
    def summary(self) -> str:
        """The first sentence of its documentation."""
        return inspect.getdoc(self.measure).split("\n")[0]  # type: ignore[union-attr]  # every metric has one


METRICS: dict[str, Metric] = {}


def metric(
    name: str,
    *,
    better: str,
    needs: tuple[str, ...] = (),
    limits: Limits | None = None,
    choices: Mapping[str, tuple[str, ...]] | None = None,
    preset: str | None = None,
) -> Callable[[Measure], Measure]:
    """Registers a function `(subject, *, settings…) -> Measurement`; with `preset`, that system's form of a metric."""

    def register(measure: Measure) -> Measure:
        taken = METRICS if preset is None else METRICS[name].variants
        if (name if preset is None else preset) in taken:
            raise ValueError(f"metric {name!r} is registered twice")
        if better not in BETTER or not set(needs) <= NEEDS.keys() or not inspect.getdoc(measure):
            raise ValueError(f"metric {name!r} needs a direction, known needs and a docstring")
        keywords = [
            entry for entry in inspect.signature(measure).parameters.values() if entry.kind == entry.KEYWORD_ONLY
        ]
        defaults = {entry.name: entry.default for entry in keywords}
        taken[name if preset is None else preset] = Metric(
            name, measure, better, frozenset(needs), defaults, limits or {}, choices or {}
        )
        return measure

    return register


def find_metric(name: str, preset: str | None = None) -> Metric:
    """The metric of this name, in a preset's form if one is given; ParameterError for unknown names."""
    if name not in METRICS:
        raise ParameterError(unknown("metric", str(name), METRICS))
    if preset is None:
        return METRICS[name]
    presets = {known for entry in METRICS.values() for known in entry.variants}
    if preset not in presets:
        raise ParameterError(unknown("preset of metrics", str(preset), presets))
    if preset not in METRICS[name].variants:
        those = ", ".join(entry.name for entry in METRICS.values() if preset in entry.variants)
        raise ParameterError(f"{name} has no {preset} form; {preset} has {those}")
    return METRICS[name].variants[preset]


def check_settings(entry: Metric, given: Mapping[str, Any]) -> dict[str, Any]:
    """All settings of a metric, the given ones checked; ParameterError names an unknown, misplaced or wrong one."""
    for name in given:
        if name not in entry.defaults:
            if not entry.defaults:
                raise ParameterError(f"{entry.name} has no settings here, not {name!r}")
            raise ParameterError(unknown(f"setting of {entry.name}", name, entry.defaults))
    return {name: _checked(entry, name, given.get(name, default)) for name, default in entry.defaults.items()}


def _checked(entry: Metric, name: str, value: Any) -> Any:
    default = entry.defaults[name]
    if name in entry.choices:
        if value not in entry.choices[name]:
            raise ParameterError(unknown(name, str(value), entry.choices[name]))
        return value
    if isinstance(default, bool):
        if not isinstance(value, bool | np.bool_):
            raise ParameterError(f"{entry.name}: {name}={value!r} must be True or False")
        return bool(value)
    return _number(entry, name, value) if name in entry.limits else value


def _number(entry: Metric, name: str, value: Any) -> float | int:
    low, high = entry.limits[name]
    whole = isinstance(entry.defaults[name], int)
    if not isinstance(value, numbers.Real) or isinstance(value, bool) or not math.isfinite(value):
        raise ParameterError(f"{entry.name}: {name}={value!r} is no number")
    number = float(value)
    if whole and not number.is_integer():
        raise ParameterError(f"{entry.name}: {name}={value!r} must be a whole number")
    if (low is not None and number < low) or (high is not None and number > high):
        span = f"at least {low:g}" if high is None else f"{low:g} to {high:g}"
        raise ParameterError(f"{entry.name}: {name}={value!r} is out of range: {span}")
    return int(number) if whole else number


def setting_from_text(entry: Metric, name: str, text: str) -> Any:
    """The value that a command line's text stands for, unchecked: a number where it is one, true or false, or text."""
    if name in entry.defaults and isinstance(entry.defaults[name], bool):
        words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
        return words.get(text.casefold(), text)
    try:
        number = float(text)
    except ValueError:
        return text
    return int(number) if number.is_integer() else number
