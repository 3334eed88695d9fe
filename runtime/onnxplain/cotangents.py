"""What is explained of an output that is no list of classes: a cotangent of its shape, given or made from a class.

The cotangent u says what is explained: ⟨u, output⟩, the weighted sum of the output's numbers.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.bundle import Output
from onnxplain.errors import ParameterError
from onnxplain.targets import FREE, Chosen, name_of, resolve


def given_cotangents(cotangent: Any, of: tuple[int, ...], output: Output) -> Chosen:
    """The caller's `cotangent` for scores of the shape `of`, [N, …].

    It has an image's output shape, the same for all images, or a batch axis before that, or the axes [N, T].
    """
    array = np.asarray(cotangent, np.float32)
    shape = of[1:]
    leading = array.ndim - len(shape)
    if not 0 <= leading <= 2 or array.shape[leading:] != shape or (leading and array.shape[0] not in (1, of[0])):
        raise ParameterError(
            f"a cotangent of shape {list(array.shape)} does not fit the output {output.name!r} {list(of)}"
        )
    if not np.isfinite(array).all():
        raise ParameterError("the cotangent contains NaN or infinity")
    images = array.shape[0] if leading else 1
    targets = array.shape[1] if leading == 2 else 1
    wide = np.broadcast_to(array.reshape(images, targets, *shape), (of[0], targets, *shape))
    return Chosen(np.full(wide.shape[:2], FREE, np.int64), leading == 2, np.ascontiguousarray(wide))


def class_cotangents(targets: Any, scores: NDArray[np.float32], output: Output, best: int | None = None) -> Chosen:
    """Cotangents that add up a class's scores wherever it is the best one: a segmentation's usual explanation.

    The class that wins at most places is an image's top class. ParameterError where the output has no classes, or a
    class wins nowhere.
    """
    axis = output.class_axis
    if axis is None:
        raise ParameterError(
            f"the output {output.name!r} {list(output.shape)} holds no classes; say what is explained by cotangent=, "
            "an array of that shape without the batch axis"
        )
    winners = scores.argmax(axis=axis)
    places = win_counts(winners, scores.shape[axis])
    table, several = resolve(targets, places, output.labels, best)
    found = np.zeros((*table.shape, *scores.shape[1:]), np.float32)
    for (image, index), target in np.ndenumerate(table):
        if not places[image, target]:
            name = name_of(int(target), output.labels)
            raise ParameterError(f"class {name} is nowhere the best one in image {image}; name another, or a cotangent")
        np.moveaxis(found[image, index], axis - 1, 0)[target] = winners[image] == target
    return Chosen(table, several, found)


def win_counts(winners: NDArray[np.int64], classes: int) -> NDArray[np.float64]:
    """At how many places each class has the highest score, [N, classes]; `winners` [N, …] says which has it where."""
    rows = winners.reshape(len(winners), -1)
    return np.array([np.bincount(row, minlength=classes) for row in rows], np.float64).reshape(-1, classes)
