"""What every proof of a bundle works with: its open sessions, images to try it on, and how two results are compared."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from onnxplain.preprocessing import prepare
from onnxplain_export.evaluate import run
from onnxplain_export.normalize import Normalized

Array = NDArray[Any]

IMAGES = 3


@dataclass(frozen=True)
class Proof:
    """The open sessions of a bundle being verified, and the images [IMAGES, …] that it is verified on.

    `scores` [IMAGES, classes] are the forward graph's, `targets` [IMAGES] the classes whose gradients are examined, and
    `gradients` [IMAGES, …] those gradients in float64 (empty where the bundle has no gradient graph).
    """

    normalized: Normalized
    sessions: Mapping[str, onnxruntime.InferenceSession]
    images: Array
    scores: Array
    targets: Array
    gradients: Array

    def run(self, graph: str, outputs: list[str] | None = None, **feeds: Any) -> list[Array]:
        """The outputs of one of the bundle's graphs; images are fed as `image`."""
        return run_graph(self.normalized, self.sessions[graph], outputs, **feeds)

    def scores_at(self, rows: Array) -> Array:
        """The forward graph's scores of `rows`, float64."""
        return self.run("forward", ["scores"], image=rows.astype(np.float32))[0].astype(np.float64)

    def gradient_at(self, rows: Array, targets: Array) -> Array:
        """The gradient graph's answer at `rows` for `targets` [rows, T]: [rows, T, …]."""
        return self.run("gradient", ["total"], image=rows.astype(np.float32), target=targets)[0]


def run_graph(
    normalized: Normalized, session: onnxruntime.InferenceSession, outputs: list[str] | None = None, **feeds: Any
) -> list[Array]:
    """The outputs of one of the bundle's graphs; images are fed as `image`."""
    named = {normalized.image if name == "image" else name: value for name, value in feeds.items()}
    return run(session, named, outputs)


def sample_images(normalized: Normalized, steps: list[dict[str, Any]]) -> Array:
    """Random images of the kind that the network expects: blotches with noise, preprocessed; else standard normal."""
    generator = np.random.default_rng(20170612)
    if normalized.layout is None or not steps:
        images = generator.standard_normal((IMAGES, *normalized.image_shape)).astype(np.float32)
        return (images * 50 + 60).round().clip(0, 127) if normalized.integers else images
    height, width = normalized.size
    values = [step for step in steps if step["step"] not in ("resize", "crop", "exif")]
    rows = []
    for _ in range(IMAGES):
        blotches = generator.integers(0, 256, (8, 8, 3)).repeat(-(-height // 8), 0).repeat(-(-width // 8), 1)
        noisy = blotches[:height, :width] + generator.normal(0, 25, (height, width, 3))
        rows.append(prepare(np.clip(noisy, 0, 255).astype(np.uint8), values).rows)
    images = np.stack(rows)
    return images.round().clip(0, 255) if normalized.integers else images


def relative(a: Array, b: Array) -> float:
    """The relative L2 difference of two arrays, 0 for two zero arrays, infinite for arrays of different sizes."""
    a, b = np.asarray(a, np.float64).ravel(), np.asarray(b, np.float64).ravel()
    if a.size != b.size:
        return float("inf")
    scale, difference = float(np.linalg.norm(b)), float(np.linalg.norm(a - b))
    return difference / scale if scale else difference


def worst(errors: Iterable[float]) -> float:
    """The largest error; NaN if one is (Python's max would lose it)."""
    return float(np.max([0.0, *errors]))
