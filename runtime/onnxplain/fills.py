"""What stands for "nothing there": the values of `baseline` and `fill` in the network's own input.

A number is taken as it is. "black" and "white" are such pictures after preprocessing; "mean" is each image's own mean
colour; "blur" is the image blurred until its details are gone.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.bundle import Bundle
from onnxplain.errors import ParameterError
from onnxplain.images import spatial_axes
from onnxplain.preprocessing import prepare

Array = NDArray[np.float32]

# A blur's deviation as a share of the shorter side: 11 pixels at 224, about Fong & Vedaldi's 10 (2017,
# arXiv:1704.03296).
BLUR = 0.05


def fill_values(name: str, value: Any, rows: Array, bundle: Bundle) -> Array:
    """Values of the images' rank that broadcast to `rows` [N, …]: first axis 1, or N where each image has its own."""
    if isinstance(value, str):
        if bundle.inside and name == "baseline":
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


_NAMED = {"black": _black, "white": _white, "mean": _mean, "blur": _blur}
