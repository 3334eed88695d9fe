"""The usual loop: attribution = finish(Σ total, Σ norm) over the method's step table."""

from typing import Any

from numpy.typing import NDArray

from onnxplain.loops.registry import loop
from onnxplain.work import Work


@loop("sum")
def summed(work: Work) -> NDArray[Any]:
    """The finished sum [N, T, …] over the plan's steps."""
    return work.sum()
