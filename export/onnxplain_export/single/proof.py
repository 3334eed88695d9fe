"""Proves a single file against the engine: the same maps of the same images and targets."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from onnxplain.bundle import Bundle
from onnxplain.errors import ModelError, VerificationError
from onnxplain.explainer import Explainer
from onnxplain.fills import fill_values
from onnxplain.preprocessing import prepare
from onnxplain.sessions import session_options
from onnxplain_export.single.asked import Asked

TOLERANCE, AT_KINKS = 1e-4, 1e-2
"""In L2, relative to the map: of half of the images, and of all of them.

Kernels differ in their rounding, and where an image lies at a kink of a ReLU that changes the gradient of a few pixels.
"""
MANY_STEPS = 200
"""Of a table with more, one image is run in place of three."""
Array = NDArray[Any]


def prove(file: Path, bundle: Bundle, wanted: Asked) -> float:
    """The median relative difference of the file's maps; VerificationError where one is too large."""
    images, fed = _images(bundle, 1 if _steps(wanted) > MANY_STEPS else 3, wanted.picture_input)
    last = int(bundle.scores.classes or 1) - 1
    others = {entry.name: _other(entry.shape, entry.dtype, len(images)) for entry in bundle.others}
    feeds: dict[str, Any] = {
        "picture" if wanted.picture_input else bundle.image.name: fed,
        "target": np.array([[-1], [0], [last]])[: len(images)],
        **others,
        **{name: _free(name, wanted, bundle, images) for name in wanted.free},
    }
    found, scores = _run(file, feeds)
    rows = {bundle.image.name: images, **others} if others else images
    result = Explainer(bundle.path, device="cpu", verify=False).explain(
        rows, wanted.method.name, [None, 0, last][: len(images)], **wanted.parameters
    )
    errors = _differences(found[:, 0], result.attribution)
    median = float(np.median(errors))
    if not (median <= TOLERANCE and max(errors) <= AT_KINKS and max(_differences(scores, result.scores)) <= TOLERANCE):
        raise VerificationError(
            f"the single file's maps by {wanted.method.name} differ from the engine's by {max(errors):.1e}"
        )
    return median


def _run(file: Path, feeds: dict[str, Any]) -> list[Array]:
    """The attribution and the scores."""
    try:
        session = onnxruntime.InferenceSession(str(file), session_options(), providers=["CPUExecutionProvider"])
        return list(session.run(["attribution", "scores"], feeds))
    except Exception as error:  # onnxruntime's exceptions have no common base
        raise ModelError(f"the single file can't be run: {str(error).splitlines()[0]}") from error


def _steps(wanted: Asked) -> int:
    """About how many passes a map takes."""
    counts = ("samples", "steps", "masks")
    return int(np.prod([wanted.parameters[name] for name in counts if name in wanted.parameters]))


def _differences(found: Array, expected: Array) -> list[float]:
    """Of each image, in L2 relative to what is expected; absolute where that is 0."""
    pairs = zip(found.astype(np.float64), expected.astype(np.float64), strict=True)
    return [float(np.linalg.norm(a - b) / (np.linalg.norm(b) or 1.0)) for a, b in pairs]


def _images(bundle: Bundle, count: int, as_pictures: bool) -> tuple[Array, Array]:
    """Images as the network takes them, and what the file is fed for them."""
    random = np.random.default_rng(0)
    shape = [int(size) for size in bundle.image.shape[1:]]
    if as_pictures:
        size = (97, 131)
        if not any(step["step"] in ("resize", "crop") for step in bundle.steps):
            size = (shape[1], shape[2]) if bundle.image.layout == "NCHW" else (shape[0], shape[1])
        pictures = random.integers(0, 256, (count, *size, 3), dtype=np.uint8)
        images = np.stack([prepare(picture, bundle.steps).rows for picture in pictures])
        return images.astype(bundle.image.dtype), pictures
    if bundle.image.dtype != "float32":
        images = random.integers(0, 2, (count, *shape)).astype(bundle.image.dtype)
    else:
        images = random.normal(size=(count, *shape)).astype(np.float32)
    return images, images


def _other(shape: Any, dtype: str, count: int) -> Array:
    return np.ones([axis if isinstance(axis, int) else count for axis in shape], dtype)


def _free(name: str, wanted: Asked, bundle: Bundle, images: Array) -> Array:
    """What the file is fed for a free parameter: the value that the engine takes."""
    value = wanted.parameters[name]
    if name == "noise":
        return np.full(len(images), value, np.float32)
    if name == "seed":
        return np.array([value], np.int64)
    if name in ("epsilon", "gamma", "alpha"):
        return np.array([value], np.float32)
    return np.asarray(fill_values(name, value, images, bundle), np.float32)
