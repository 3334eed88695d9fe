"""What the network says of a call's images as they are: a by-product of some runs, a run of its own for the others."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from onnxplain.errors import ModelError

Array = NDArray[np.float32]


class OverflowsError(ModelError):
    """An image's numbers aren't finite; those of others may be."""


class Answers:
    """The scores [N, …] and the explained values [N, …] of N images, each found when somebody first asks.

    A run that computes the scores anyway tells them, and the `forward` graph, which gives both, isn't run for them.
    Scores are finite: ModelError names the image (`names`) for which they aren't.
    """

    def __init__(self, forward: Callable[[], tuple[Array, Array]], names: Sequence[str]) -> None:
        self._forward, self._names = forward, names
        self._scores: Array | None = None
        self._values: Array | None = None

    @property
    def known(self) -> bool:
        """Whether the scores are there."""
        return self._scores is not None

    @property
    def scores(self) -> Array:
        """The network's scores [N, …]."""
        return self._asked()[0] if self._scores is None else self._scores

    @property
    def values(self) -> Array:
        """What gradients are taken at, [N, …]."""
        return self._asked()[1] if self._values is None else self._values

    def tell(self, scores: Array) -> None:
        """Takes the scores that a run gave."""
        check_finite(scores, self._names, "scores")
        self._scores = scores

    def of(self, images: slice) -> "Answers":
        """The answers for some of the images."""
        return Answers(lambda: (self.scores[images], self.values[images]), self._names[images])

    def _asked(self) -> tuple[Array, Array]:
        scores, self._values = self._forward()
        if self._scores is None:  # else those of the run that made the maps stay
            self.tell(scores)
        return self.scores, self._values


def check_finite(values: Array, names: Sequence[str], what: str) -> None:
    """OverflowsError unless the values [N, …] of every image are finite."""
    for name, value in zip(names, values, strict=True):
        if not np.isfinite(value).all():
            message = f"the network's {what} for {name} contains NaN or infinity: its numbers overflow there"
            raise OverflowsError(message)
