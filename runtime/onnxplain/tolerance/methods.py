"""Which methods take a tolerance, and what runs them then."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.bundle import Bundle, Graph, Method
from onnxplain.errors import ParameterError
from onnxplain.holding import NOTHING
from onnxplain.in_groups import RowsPerRun
from onnxplain.planner import parse_memory
from onnxplain.presets import apply_preset, split_method
from onnxplain.tolerance.paths import integrated_gradients
from onnxplain.tolerance.room import SHARE
from onnxplain.tolerance.samples import rise, smoothgrad, smoothgrad_squared, vargrad
from onnxplain.tolerance.schedule import Outcome
from onnxplain.work import Work

Array = NDArray[np.float32]

LEAST, MOST = 1e-4, 0.5
"""What a tolerance can be: below, float32's own rounding counts; above, a map says nothing."""


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How a method is run to a tolerance: by `run`; the parameter `limit` bounds its steps, at `most` unless given."""

    run: Callable[[Work, float, int | None], list[Outcome]]
    limit: str
    most: int


# By loop and plan rule, so that a preset's form of a method isn't taken for the method itself.
TOLERANT = {
    ("integrated_gradients", "points"): Tolerance(integrated_gradients, "steps", 500),
    ("sum", "draws"): Tolerance(smoothgrad, "samples", 4096),
    ("smoothgrad_squared", "draws"): Tolerance(smoothgrad_squared, "samples", 4096),
    ("vargrad", "draws"): Tolerance(vargrad, "samples", 4096),
    ("sum", "random_masks"): Tolerance(rise, "masks", 32768),
}


def find_tolerance(method: Method, methods: Iterable[Method], tolerance: Any) -> Tolerance:
    """How the method is run to this tolerance; ParameterError where it can't be, or the tolerance is no share."""
    if isinstance(tolerance, bool) or not isinstance(tolerance, int | float) or not LEAST <= tolerance <= MOST:
        raise ParameterError(f"tolerance={tolerance!r} must be a number from {LEAST:g} to {MOST:g}, as 0.02 for 2 %")
    found = TOLERANT.get(_key(method))
    if found is None:
        others = ", ".join(each.name for each in methods if _key(each) in TOLERANT)
        raise ParameterError(f"tolerance= is not for {method.name}; {_those(others)}")
    return found


def takes_tolerance(bundle: Bundle, method: str, preset: str | None = None) -> bool:
    """Whether a method of the bundle can be run to a tolerance; of "smoothgrad.captum", in that system's form."""
    name, system = split_method(method, preset)
    return _key(apply_preset(bundle.methods[name], system)) in TOLERANT


def refuse_intolerant(bundle: Bundle, methods: Iterable[str], preset: str | None = None) -> None:
    """ParameterError unless at least one of the methods takes a tolerance."""
    named = list(methods)
    if not any(takes_tolerance(bundle, method, preset) for method in named):
        others = ", ".join(name for name in bundle.methods if takes_tolerance(bundle, name))
        raise ParameterError(f"tolerance= is not for {', '.join(named)}; {_those(others)}")


def _those(names: str) -> str:
    return f"it is for {names}" if names else "no method of this bundle takes one"


def _key(method: Method) -> tuple[str, str]:
    return method.loop, method.plan


def run_to(work: Work, tolerance: float, memory: float | str | None, rows_per_run: RowsPerRun) -> Array:
    """The maps [N, T, …] to a tolerance; what it took and the errors are noted in the work's effort."""
    bound = None if memory is None else parse_memory(memory)
    held = NOTHING if bound is None else replace(NOTHING, call=int(bound * SHARE))

    def fitting(graph: Graph, targets: int, *, allowed: bool = False) -> int:
        return rows_per_run(graph, memory, targets, held, 1, allowed)

    found = TOLERANT[_key(work.method)].run(replace(work, rows_per_run=fitting), tolerance, bound)
    work.effort.steps = np.array([each.steps for each in found], np.int64)
    work.effort.errors = np.stack([each.error for each in found])
    return np.stack([each.map for each in found])
