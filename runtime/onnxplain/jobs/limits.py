"""What one picture may cost a job."""

import math
from dataclasses import asdict, dataclass
from typing import Any

from onnxplain.errors import ParameterError
from onnxplain.pictures import MOST_BYTES, MOST_PIXELS


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one picture: the `bytes` of its file, its `pixels`, the `seconds` and the worker's `memory` to decode it."""

    bytes: int = MOST_BYTES
    pixels: int = MOST_PIXELS
    seconds: float = 30.0
    memory: int = 512_000_000

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            known, kind = (int | float, "number") if name == "seconds" else (int, "whole number")
            if isinstance(value, bool) or not isinstance(value, known) or not 0 < value < math.inf:
                raise ParameterError(f"the limit {name}={value!r} must be a {kind} above 0")

    def plain(self) -> dict[str, Any]:
        """As JSON holds them."""
        return asdict(self)
