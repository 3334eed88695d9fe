"""What stands for "nothing there": the values of `baseline` and `fill` in the network's own input.

A number is taken as it is. "black" and "white" are such pictures after preprocessing; "mean" is each image's own mean
colour; "blur" is the image blurred until its details are gone; "random" is drawn evenly between each image's own
minimum and maximum.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.bundle import Bundle
from onnxplain.errors import ParameterError
from onnxplain.images import spatial_axes
from onnxplain.preprocessing import prepare
from onnxplain.random import LIMIT, uniform

Array = NDArray[np.float32]

# A blur's deviation as a share of the shorter side: 11 pixels at 224, about Fong & Vedaldi's 10 (2017,
# arXiv:1704.03296).
BLUR = 0.05
RANDOM_DRAWS = LIMIT // 2
"""The draw number of the first random baseline: far from those of the noise, so that one seed serves both."""


def fill_values(name: str, value: Any, rows: Array, bundle: Bundle, seed: int = 0) -> Array:
    """Values of the images' rank that broadcast to `rows` [N, …]: first axis 1, or N where each image has its own."""
    if isinstance(value, str):
        if value == "random":
            return random_fill(rows, seed, 0)
        # A single file that takes pictures calls the image, which it makes inside, its explained value.
        if bundle.inside and bundle.inside.name != bundle.image.name and name == "baseline":
            raise ParameterError(
                f"{name}={value!r} is a picture, but {bundle.inside.name!r} lies inside the network; give a number or "
                "an array, such as explainer.values(...) of a neutral input"
            )
        return _NAMED[value](rows, bundle)
    array = np.asarray(value, np.float32)
    try:
        np.broadcast_to(array, rows.shape)
    except ValueError:
        raise ParameterError(
            f"{name} of shape {list(array.shape)} does not broadcast to the images' {list(rows.shape)}"
        ) from None
    return array.reshape((1,) * (rows.ndim - array.ndim) + array.shape)


def random_fill(rows: Array, seed: int, draw: int, together: bool = False) -> Array:
    """Values [N, …] drawn evenly between the minimum and the maximum of each image, or of all of them `together`.

    The draw depends on (seed, draw, element) alone, so every image has the same pattern between its own bounds.
    """
    axes = None if together else tuple(range(1, rows.ndim))
    low, high = rows.min(axis=axes, keepdims=True), rows.max(axis=axes, keepdims=True)
    pattern = uniform(seed, [RANDOM_DRAWS + draw], rows.shape[1:])
    return np.broadcast_to(low + pattern * (high - low), rows.shape)


def number_of_baselines(value: Any, rows: Array, draws: int) -> int:
    """How many baselines `baselines` gives: `draws` of "random", those of an array of several, or 1."""
    if isinstance(value, str):
        return draws if value == "random" else 1
    return len(_several(np.asarray(value, np.float32), rows))


def baselines(value: Any, rows: Array, bundle: Bundle, draws: int = 1, seed: int = 0) -> Iterator[Array]:
    """The baselines of images `rows` [N, …] one after the other, each [1 or N, …] as from fill_values.

    "random" is drawn `draws` times. An array is one baseline for all images [*image], one for each [N, *image], several
    for all [B, *image] (B other than N) or [1, B, *image], or several for each [N, B, *image].
    """
    if isinstance(value, str) and value == "random":
        yield from (random_fill(rows, seed, draw) for draw in range(draws))
    elif isinstance(value, str):
        yield fill_values("baseline", value, rows, bundle)
    else:
        for one in _several(np.asarray(value, np.float32), rows):
            yield fill_values("baseline", one, rows, bundle)


def _several(array: Array, rows: Array) -> list[Array]:
    """An array of baselines as a list, each of which broadcasts to the images."""
    image = rows.shape[1:]
    if array.ndim == rows.ndim + 1 and len(array) in (1, len(rows)) and array.shape[1] and array.shape[2:] == image:
        return [array[:, number] for number in range(array.shape[1])]
    if array.ndim == rows.ndim and len(array) not in (0, 1, len(rows)) and array.shape[1:] == image:
        return list(array)
    try:
        np.broadcast_to(array, rows.shape)
    except ValueError:
        axes = ", ".join(map(str, image))
        raise ParameterError(
            f"baseline of shape {list(array.shape)} fits no image here; give [{axes}] for all, [{len(rows)}, {axes}] "
            f"for each, [1, B, {axes}] for several for all, or [{len(rows)}, B, {axes}] for several for each"
        ) from None
    return [array]


def _uniform_picture(level: int, rows: Array, bundle: Bundle) -> Array:
    if not bundle.steps:
        raise ParameterError('"black" and "white" need a bundle with preprocessing; give the number instead')
    height, width = spatial_axes(bundle.image.layout, rows)
    picture = np.full((rows.shape[height], rows.shape[width], 3), level, np.uint8)
    return prepare(picture, bundle.steps).rows[None]


def _black(rows: Array, bundle: Bundle) -> Array:
    return _uniform_picture(0, rows, bundle)


def _white(rows: Array, bundle: Bundle) -> Array:
    return _uniform_picture(255, rows, bundle)


def _mean(rows: Array, bundle: Bundle) -> Array:
    return rows.mean(axis=spatial_axes(bundle.image.layout, rows), keepdims=True, dtype=np.float64).astype(np.float32)


def _blur(rows: Array, bundle: Bundle) -> Array:
    import cv2  # only where a picture is blurred: importing the engine loads numpy and onnxruntime alone

    height, width = spatial_axes(bundle.image.layout, rows)
    sigma = BLUR * min(rows.shape[height], rows.shape[width])
    planes = np.moveaxis(rows, (height, width), (-2, -1))
    blurred = np.empty_like(planes)
    for index in np.ndindex(planes.shape[:-2]):
        plane = np.ascontiguousarray(planes[index])
        blurred[index] = cv2.GaussianBlur(plane, (0, 0), sigma, borderType=cv2.BORDER_REFLECT)
    return np.moveaxis(blurred, (-2, -1), (height, width))


NAMES = ("black", "white", "mean", "blur", "random")
_NAMED = {"black": _black, "white": _white, "mean": _mean, "blur": _blur}
