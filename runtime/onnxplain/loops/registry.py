"""The table of loops, by the name that explainer.json gives a method's."""

from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

from onnxplain.errors import BundleError, unknown
from onnxplain.work import Work

Loop = Callable[[Work], NDArray[Any]]

LOOPS: dict[str, Loop] = {}


def loop(name: str) -> Callable[[Loop], Loop]:
    """Registers a loop `(work) -> float32 [N, T, …]`; a name can be taken once."""

    def register(function: Loop) -> Loop:
        if name in LOOPS:
            raise ValueError(f"the loop {name!r} is registered twice")
        LOOPS[name] = function
        return function

    return register


def find_loop(name: str) -> Loop:
    """The registered loop; BundleError for one that this version doesn't know."""
    if name not in LOOPS:
        raise BundleError(unknown("loop", name, LOOPS) + "; pip install --upgrade onnxplain")
    return LOOPS[name]
