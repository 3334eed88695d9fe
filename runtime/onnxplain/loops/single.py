"""A single file's own map: its one graph has the step table, the sum and the finish inside."""

from typing import Any

from numpy.typing import NDArray

from onnxplain.loops.registry import loop
from onnxplain.work import Work


@loop("single")
def single(work: Work) -> NDArray[Any]:
    """The attribution [N, T, …] as the file gives it."""
    (attribution,) = work.collect(("attribution",), graph="single")
    return attribution
