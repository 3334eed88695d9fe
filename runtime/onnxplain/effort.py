"""What a call has cost, and how good its maps are."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(slots=True)
class Effort:
    """Counts the rows that the network is run on, and keeps what a loop says of each image.

    `steps` [N] are each image's rows, where images differ; `errors` [N, T] the estimated relative errors of the maps,
    where they were estimated.
    """

    rows: int = 0
    steps: NDArray[np.int64] | None = None
    errors: NDArray[np.float64] | None = None

    def add(self, rows: int) -> None:
        """Counts the rows of a run."""
        self.rows += rows

    def steps_of(self, count: int) -> NDArray[np.int64]:
        """The rows of each of the call's images, [count]."""
        if self.steps is not None:
            return self.steps
        return np.full(count, round(self.rows / max(1, count)), np.int64)
