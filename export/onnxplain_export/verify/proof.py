"""What every proof of a bundle works with: its open sessions, images to try it on, and how two results are compared."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
from numpy.typing import NDArray

from onnxplain.preprocessing import prepare
from onnxplain_export.emitter import dims
from onnxplain_export.evaluate import run
from onnxplain_export.normalize import BATCH, Normalized
from onnxplain_export.normalize.inputs import table_rows
from onnxplain_export.verify.unrounded import AT

Array = NDArray[Any]
Sessions = Mapping[str, onnxruntime.InferenceSession]

IMAGES = 3
NUMPY_TYPES = {ir.DataType.INT64: np.int64, ir.DataType.INT32: np.int32, ir.DataType.BOOL: np.bool_}
"""Of inputs that aren't float32."""


@dataclass(frozen=True)
class Proof:
    """The open sessions of a bundle being verified, and the images that it is verified on.

    `feeds` holds IMAGES rows of every input of the model (and what all images share), `values` [IMAGES, …] their
    explained values: the images themselves, or what lies inside. `onward` has the forward and the gradient graph of the
    network that goes on from there, by way of its input `entry`, with roundings held where they are. `scores`
    [IMAGES, …] are the forward graph's, `chosen` [IMAGES, 2, …] two targets or cotangents for each image, and
    `gradients` [IMAGES, …] those of the first, in float64 (empty where the bundle has no gradient graph). `spread` […]
    is how much each number of a value varies over the source's own examples, 1 where it has none.
    """

    normalized: Normalized
    sessions: Sessions
    onward: Sessions
    entry: str
    feeds: Mapping[str, Array]
    values: Array
    scores: Array
    chosen: Array
    gradients: Array
    spread: Array

    def run(self, graph: str, outputs: list[str], images: Array, **feeds: Array) -> list[Array]:
        """The outputs of one of the bundle's graphs for the images of these numbers."""
        return run(self.sessions[graph], {**rows_of(self.normalized, self.feeds, images), **feeds}, outputs)

    def scores_at(self, values: Array, images: Array) -> Array:
        """The scores [rows, …], float64, of the images of these numbers with other explained values [rows, …]."""
        return self._onward("forward", "scores", values, images).astype(np.float64)

    def gradient_at(self, values: Array, images: Array, chosen: Array) -> Array:
        """The gradient [rows, T, …] for `chosen` [rows, T, …] at such values."""
        return self._onward("gradient", "total", values, images, **{self.chosen_name: chosen})

    def _onward(self, graph: str, output: str, values: Array, images: Array, **feeds: Array) -> Array:
        session = self.onward[graph]
        given = {**rows_of(self.normalized, self.feeds, images), **feeds, self.entry: values.astype(np.float32)}
        given[AT.format(self.entry)] = self.values[images]  # where the roundings of a quantised network are held
        return run(session, {entry.name: given[entry.name] for entry in session.get_inputs()}, [output])[0]

    @property
    def chosen_name(self) -> str:
        """What graphs call the input that says what is explained."""
        return "cotangent" if self.normalized.scores.free else "target"

    def explained(self, scores: Array, chosen: Array) -> Array:
        """What `chosen` [rows, T, …] selects of `scores` [rows, …]: [rows, T]."""
        if not self.normalized.scores.free:
            return np.take_along_axis(scores, chosen, axis=1)
        rows, targets = chosen.shape[:2]
        weights = chosen.reshape(rows, targets, -1).astype(np.float64)
        return np.einsum("rto,ro->rt", weights, scores.reshape(rows, -1))


def rows_of(normalized: Normalized, feeds: Mapping[str, Array], images: Array) -> dict[str, Array]:
    """The feeds of the images of these numbers; what all images share as it is."""
    shared = {str(value.name) for value in normalized.model.graph.inputs if (dims(value) or (0,))[0] != BATCH}
    return {name: value if name in shared else value[images] for name, value in feeds.items()}


def sample_feeds(normalized: Normalized, steps: list[dict[str, Any]]) -> dict[str, Array]:
    """IMAGES rows for every input of the model: images, token numbers that its tables know, ones for masks."""
    generator = np.random.default_rng(20170612)
    image, *others = normalized.model.graph.inputs
    feeds = {normalized.image: _sample_images(normalized, steps, generator)} if image.dtype == ir.DataType.FLOAT else {}
    for value in others if feeds else (image, *others):
        feeds[str(value.name)] = _sample(normalized.model.graph, value, generator)
    return feeds


def _sample(graph: ir.Graph, value: ir.Value, generator: np.random.Generator) -> Array:
    axes = dims(value) or ()
    shape = [axis if isinstance(axis, int) else IMAGES for axis in axes]
    dtype = NUMPY_TYPES.get(ir.DataType(value.dtype or ir.DataType.FLOAT))
    if dtype is None:
        return np.asarray(generator.standard_normal(shape), np.float32)
    rows = table_rows(graph, value)
    return np.ones(shape, dtype) if rows is None else generator.integers(0, rows, shape).astype(dtype)


def _sample_images(normalized: Normalized, steps: list[dict[str, Any]], generator: np.random.Generator) -> Array:
    """The source's own examples, or random images of the kind that the network expects."""
    examples = normalized.source.examples
    if examples is not None and examples.shape[1:] == normalized.image_shape:
        return np.resize(examples, (IMAGES, *normalized.image_shape)).astype(np.float32)
    return random_images(normalized.image_shape, normalized.layout, steps, normalized.integers, generator)


def random_images(
    shape: Sequence[int],
    layout: str | None,
    steps: list[dict[str, Any]],
    integers: bool,
    generator: np.random.Generator,
) -> Array:
    """IMAGES random images [IMAGES, *shape] of the kind that a network expects: prepared blotches and noise.

    Standard normal where the steps that prepare pictures aren't known.
    """
    if layout is None or not steps:
        images = generator.standard_normal((IMAGES, *shape)).astype(np.float32)
        return (images * 50 + 60).round().clip(0, 127) if integers else images
    height, width = shape[-2:] if layout == "NCHW" else shape[:2]
    values = [step for step in steps if step["step"] not in ("resize", "crop", "exif")]
    rows = []
    for _ in range(IMAGES):
        blotches = generator.integers(0, 256, (8, 8, 3)).repeat(-(-height // 8), 0).repeat(-(-width // 8), 1)
        noisy = blotches[:height, :width] + generator.normal(0, 25, (height, width, 3))
        rows.append(prepare(np.clip(noisy, 0, 255).astype(np.uint8), values).rows)
    images = np.stack(rows)
    return images.round().clip(0, 255) if integers else images


def spread_of(normalized: Normalized) -> Array:
    """The standard deviation of each of the explained numbers over the source's examples, 1 where that isn't known."""
    examples = normalized.source.examples
    if examples is None or normalized.inside or examples.shape[1:] != normalized.image_shape or len(examples) < 2:
        return np.ones(normalized.value_shape)
    spread = examples.std(axis=0, dtype=np.float64)
    return np.where(spread > 0, spread, 1.0)


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
