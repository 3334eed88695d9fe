"""A call of explain with other parameters or other targets, for loops that run another method's passes."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.errors import ParameterError
from onnxplain.targets import Chosen
from onnxplain.work import Work


def with_parameters(work: Work, **parameters: Any) -> Work:
    """The same call with some parameters replaced."""
    return replace(work, parameters={**work.parameters, **parameters})


def each_target(work: Work) -> Iterator[Work]:
    """The call as one call for each of the T targets, for methods whose path depends on the target."""
    for number in range(work.chosen.count):
        part = slice(number, number + 1)
        cotangents = work.chosen.cotangents
        one = Chosen(
            work.chosen.targets[:, part], work.chosen.several, None if cotangents is None else cotangents[:, part]
        )
        yield replace(work, asked=one)


def towards_top_class(work: Work) -> Work:
    """The call with each image's top class in place of every target; ParameterError for cotangents."""
    if work.chosen.cotangents is not None:
        raise ParameterError(f"{work.method.name} explains classes, but this bundle takes cotangents")
    top: NDArray[np.int64] = work.scores.argmax(axis=1).astype(np.int64)
    chosen = Chosen(np.repeat(top[:, None], work.chosen.count, axis=1), work.chosen.several)
    return replace(work, asked=chosen)
