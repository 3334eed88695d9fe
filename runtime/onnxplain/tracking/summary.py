"""What trackers hand out: a curve for each name, as FastEstimator's summaries hold them."""

from dataclasses import dataclass
from typing import NamedTuple


class Band(NamedTuple):
    """A mean between its bounds."""

    low: float
    mean: float
    high: float


@dataclass(frozen=True, slots=True)
class Summary:
    """One label or sample: `history[mode][key][step]` is a number, or a Band where the key names bounds."""

    name: int | float | str
    history: dict[str, dict[str, dict[int, float | Band]]]
