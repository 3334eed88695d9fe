"""The explainers that a bundle can carry, by family: each is a graph, a plan, a loop, a finish rule and parameters."""

from collections.abc import Mapping, Sequence
from typing import Any

from onnxplain.errors import ParameterError, unknown
from onnxplain_export.methods.activation import ACTIVATION
from onnxplain_export.methods.gradient import GRADIENT
from onnxplain_export.methods.perturbation import PERTURBATION
from onnxplain_export.methods.tables import TABLES

Methods = Mapping[str, Mapping[str, Any]]

METHODS: Methods = {**GRADIENT, **TABLES, **ACTIVATION, **PERTURBATION}

CORE = frozenset({"gradient", "path", "noise", "layer", "masked", "masked.random"})
"""The graphs of a bundle whose methods nobody named."""

ALL = "all"


def chosen_methods(names: Sequence[str] | str | None, pictures: bool) -> dict[str, Mapping[str, Any]]:
    """The entries of `names`; "all" is every method that the input allows, None those on the core graphs."""
    if not were_named(names):
        allowed = {name: entry for name, entry in METHODS.items() if pictures or not entry["pictures"]}
        return allowed if names is not None else {n: entry for n, entry in allowed.items() if graphs_of(entry) <= CORE}
    names = [names] if isinstance(names, str) else list(names or ())
    if not names:
        raise ParameterError(f"no method was named; known: {', '.join(METHODS)}")
    for name in names:
        if name == "rise_plus":
            raise ParameterError("rise_plus is added after export, by: onnxplain detector BUNDLE --data PICTURES")
        if name not in METHODS:
            raise ParameterError(unknown("method", name, METHODS))
    return {name: METHODS[name] for name in names}


def graphs_of(entry: Mapping[str, Any]) -> frozenset[str]:
    """The graphs that a method runs, `forward` aside."""
    return frozenset({entry["graph"], *entry["beside"]})


def were_named(names: Sequence[str] | str | None) -> bool:
    """Whether particular methods were asked for, rather than the core or all."""
    return names is not None and names != ALL and list(names) != [ALL]
