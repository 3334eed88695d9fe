"""Proves a bundle against its source before it is called done; what was measured goes into explainer.json."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxplain.errors import VerificationError
from onnxplain.preprocessing import prepare
from onnxplain_export.evaluate import run, session_of
from onnxplain_export.normalize import Normalized

Array = NDArray[Any]

IMAGES = 3
FORWARD_TOLERANCE = 1e-5
HALF_TOLERANCE = 2e-2
"""Against a source in half precision, whose own rounding is of this size."""
GRADIENT_TOLERANCE = 1e-2
"""On directional derivatives by finite differences of float32 scores."""
SAME_TOLERANCE = 1e-4
"""Between graphs of the bundle that must agree."""
DIRECTIONS = 3
STEP_SIZES = (1e-3, 1e-4, 1e-5)
"""Of the central differences, as shares of the image's own norm; the best one counts."""
MISSING_TOLERANCE = 0.15
MISSING_STEP_SIZES = (1e-2, 1e-3, 1e-4)
"""Of the unstructured directions, which move the score far less."""


@dataclass(frozen=True)
class Proof:
    """The open sessions of a bundle being verified, and the images that it is verified on."""

    normalized: Normalized
    sessions: Mapping[str, onnxruntime.InferenceSession]
    images: Array

    def run(self, graph: str, outputs: list[str] | None = None, **feeds: Any) -> list[Array]:
        """The outputs of one of the bundle's graphs; images are fed as `image`."""
        named = {self.normalized.image if name == "image" else name: value for name, value in feeds.items()}
        return run(self.sessions[graph], named, outputs)


def verify(normalized: Normalized, folder: Path, graphs: Iterable[str], steps: list[dict[str, Any]]) -> dict[str, Any]:
    """The measured errors of every graph; VerificationError names the first that is out of tolerance.

    The forward pass is compared with the source (image by image, and in a batch), the gradient with finite
    differences of the forward pass, and every other graph with those two.
    """
    sessions = {name: session_of(folder / f"{name}.onnx") for name in graphs}
    proof = Proof(normalized, sessions, sample_images(normalized, steps))
    record: dict[str, Any] = {"forward": _forward(proof)}
    scores, top = proof.run("forward", ["scores", "top"], image=proof.images)
    record["batch"] = _batch(proof, scores)
    if "gradient" in sessions:
        record["gradient"] = _gradient(proof, scores, top)
        record["missing"] = _missing(proof, scores, top)
    for name, check in _AGREEMENTS.items():
        if name in sessions and "gradient" in sessions:
            record[name] = {"error": check(proof, scores, top), "tolerance": SAME_TOLERANCE, "images": IMAGES}
    for name, entry in record.items():
        if not entry["error"] <= entry["tolerance"]:
            raise VerificationError(_EXPLANATIONS.get(name, _DISAGREES).format(name=name, **entry))
    return record


_DISAGREES = "the graph {name!r} disagrees with the gradient by {error:.1e} (tolerance {tolerance:.0e}); please report this model"
_EXPLANATIONS = {
    "forward": "the exported scores differ from the source model's by {error:.1e} (tolerance {tolerance:.0e})",
    "batch": "the batch axis isn't free: images in a batch get other scores than alone, by {error:.1e} "
    "(tolerance {tolerance:.0e}); export the model with a dynamic batch axis",
    "missing": "random directions see a part of the gradient that the graph lacks: {error:.0%} (tolerance {tolerance:.0%}); "
    "please report this model",
    "gradient": "the gradient differs from finite differences by {error:.1e} (tolerance {tolerance:.0e}); "
    "please report this model",
}


def sample_images(normalized: Normalized, steps: list[dict[str, Any]]) -> Array:
    """Random images of the kind that the network expects: blotches with noise, preprocessed; else standard normal."""
    generator = np.random.default_rng(20170612)
    if normalized.layout is None or not steps:
        return generator.standard_normal((IMAGES, *normalized.image_shape)).astype(np.float32)
    height, width = normalized.size
    rows = []
    for _ in range(IMAGES):
        blotches = generator.integers(0, 256, (8, 8, 3)).repeat(-(-height // 8), 0).repeat(-(-width // 8), 1)
        noisy = blotches[:height, :width] + generator.normal(0, 25, (height, width, 3))
        values = [step for step in steps if step["step"] not in ("resize", "crop", "exif")]
        rows.append(prepare(np.clip(noisy, 0, 255).astype(np.uint8), values).rows)
    return np.stack(rows)


def relative(a: Array, b: Array) -> float:
    """The relative L2 difference of two arrays, 0 for two zero arrays."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    scale = float(np.linalg.norm(b))
    difference = float(np.linalg.norm(a.ravel() - b.ravel()))
    return difference / scale if scale else difference


def _forward(proof: Proof) -> dict[str, Any]:
    """The largest difference of any output to the source's, which runs in its own precision and batch."""
    source = session_of(proof.normalized.source.reference)
    entry = source.get_inputs()[0]
    dtype = _NUMPY_TYPES.get(entry.type, np.float32)
    names = [output.name for output in source.get_outputs()]
    renamed = proof.normalized.renamed
    kept = [name for name in names if renamed.get(name, name) in _outputs(proof, "forward")]
    images = _representable(proof.images, dtype)
    ours = proof.run("forward", [renamed.get(name, name) for name in kept], image=images)
    batch = proof.normalized.baked or 1
    worst = 0.0
    for index in range(IMAGES):
        feed = np.repeat(images[index : index + 1].astype(dtype), batch, axis=0)
        theirs = run(source, {entry.name: feed}, kept)
        for a, b in zip(ours, theirs, strict=True):
            worst = max(worst, relative(a[index : index + 1], np.asarray(b)[:1]))
    exact = proof.normalized.source.precision == "float32"
    return {"error": worst, "tolerance": FORWARD_TOLERANCE if exact else HALF_TOLERANCE, "images": IMAGES}


def _batch(proof: Proof, scores: Array) -> dict[str, Any]:
    """f([a; b]) against [f(a); f(b)]."""
    alone = [proof.run("forward", ["scores"], image=proof.images[i : i + 1])[0] for i in range(IMAGES)]
    return {"error": relative(scores, np.concatenate(alone)), "tolerance": FORWARD_TOLERANCE, "images": IMAGES}


def _gradient(proof: Proof, scores: Array, top: Array) -> dict[str, Any]:
    """Directional derivatives against central differences: along the gradient, and along random reweightings of it."""
    generator = np.random.default_rng(1)
    worst = 0.0
    for index, gradient in enumerate(_gradients(proof, top)):
        own = [gradient, *(gradient * generator.uniform(0, 2, gradient.shape) for _ in range(DIRECTIONS))]
        directions = [direction / max(float(np.linalg.norm(direction)), 1e-300) for direction in own]
        predicted = np.array([np.vdot(gradient, direction) for direction in directions])
        tries = [_differences(proof, index, int(top[index]), directions, size) for size in STEP_SIZES]
        errors = np.min([np.abs(measured - predicted) for measured in tries], axis=0) / predicted.clip(1e-300)
        worst = max(worst, float(errors.max()))
    return {"error": worst, "tolerance": GRADIENT_TOLERANCE, "images": IMAGES, "directions": DIRECTIONS + 1}


def _missing(proof: Proof, scores: Array, top: Array) -> dict[str, Any]:
    """Central differences along unstructured random directions, which also see what the gradient lacks altogether.

    Each moves the score by no more than a share 1/√size of what the gradient's own direction does, so float32 rounding
    of the scores limits what can be seen: its measured size is allowed for.
    """
    generator = np.random.default_rng(2)
    worst = 0.0
    for index, gradient in enumerate(_gradients(proof, top)):
        random = [generator.standard_normal(gradient.shape) for _ in range(DIRECTIONS)]
        directions = [direction / np.linalg.norm(direction) for direction in random]
        predicted = np.array([np.vdot(gradient, direction) for direction in directions])
        scale = float(np.linalg.norm(gradient)) / np.sqrt(gradient.size)
        rounding = _rounding(proof, index, int(top[index]), directions)
        errors = []
        for size in MISSING_STEP_SIZES:
            measured = _differences(proof, index, int(top[index]), directions, size)
            seen = float(np.sqrt(np.mean((measured - predicted) ** 2)))
            errors.append(max(seen - 3 * rounding / (2 * _step_length(proof, index, size)), 0.0) / scale)
        worst = max(worst, min(errors))
    return {"error": worst, "tolerance": MISSING_TOLERANCE, "images": IMAGES, "directions": DIRECTIONS}


def _gradients(proof: Proof, top: Array) -> Array:
    """The plain gradient of each image's top score, float64."""
    gradient = proof.run("gradient", ["total"], image=proof.images, target=top[:, None])[0][:, 0].astype(np.float64)
    if not np.isfinite(gradient).all():
        raise VerificationError("the gradient holds NaN or infinite values")
    if not gradient.any():
        raise VerificationError("the gradient is zero on random images: the network doesn't react to its input there")
    return gradient


def _differences(proof: Proof, index: int, target: int, directions: list[Array], size: float) -> Array:
    """Central differences of the target's score along each direction."""
    step = _step_length(proof, index, size)
    scores = _moved_scores(proof, index, target, [sign * step * v for v in directions for sign in (1, -1)])
    return (scores[0::2] - scores[1::2]) / (2 * step)


def _rounding(proof: Proof, index: int, target: int, directions: list[Array]) -> float:
    """How much the target's score jitters under moves too small to matter."""
    step = _step_length(proof, index, 1e-7)
    return float(np.std(_moved_scores(proof, index, target, [sign * step * v for v in directions for sign in (1, -1)])))


def _moved_scores(proof: Proof, index: int, target: int, moves: list[Array]) -> Array:
    image = proof.images[index].astype(np.float64)
    rows = np.stack([image + move for move in moves]).astype(np.float32)
    return proof.run("forward", ["scores"], image=rows)[0][:, target].astype(np.float64)


def _step_length(proof: Proof, index: int, size: float) -> float:
    return size * max(float(np.linalg.norm(proof.images[index])), 1e-6)


def _path(proof: Proof, scores: Array, top: Array) -> float:
    """One step at the image itself is the image times its gradient."""
    feeds = {"image": proof.images, "target": top[:, None]}
    plain = proof.run("gradient", ["total"], **feeds)[0]
    total = proof.run("path", ["total"], **feeds, steps=_step(1, 1), baseline=_zero(proof))[0]
    return relative(total, plain * proof.images[:, None])


def _noise(proof: Proof, scores: Array, top: Array) -> float:
    """Without noise, one draw is the plain gradient."""
    feeds = {"image": proof.images, "target": top[:, None]}
    plain = proof.run("gradient", ["total"], **feeds)[0]
    sigma, seed = np.zeros(IMAGES, np.float32), np.zeros(1, np.int64)
    still = proof.run(
        "noise", ["total"], **feeds, steps=_step(0, 1, 1, 0), baseline=_zero(proof), sigma=sigma, seed=seed
    )
    return relative(still[0], plain)


def _masked(proof: Proof, scores: Array, top: Array) -> float:
    """An empty window leaves the scores as they are; a window over everything makes all images the same."""
    height, width = proof.normalized.size
    steps = np.concatenate([_step(0, 0, 0, 0), _step(0, 0, height, width)], axis=1)
    masked = proof.run(
        "masked",
        ["scores"],
        image=proof.images,
        target=top[:, None],
        steps=steps,
        fill=_zero(proof),
        reference=np.zeros((IMAGES, 1), np.float32),
        activated=np.zeros(1, np.float32),
    )[0]
    empty = proof.run("forward", ["scores"], image=np.zeros_like(proof.images[:1]))[0][0]
    untouched = np.take_along_axis(scores, top[:, None], axis=1)
    return max(relative(masked[:, 0], untouched), relative(masked[:, 1, 0], empty[top]))


_AGREEMENTS = {"path": _path, "noise": _noise, "masked": _masked}

_NUMPY_TYPES: dict[str, type] = {
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
    "tensor(int8)": np.int8,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
}


def _representable(images: Array, dtype: type) -> Array:
    """The images rounded to what the source's input type can hold, still float32."""
    if np.issubdtype(dtype, np.integer):
        limits = np.iinfo(dtype)
        images = np.clip(np.round(images), max(limits.min, -128), min(limits.max, 255))
    return images.astype(dtype).astype(np.float32)


def _outputs(proof: Proof, graph: str) -> list[str]:
    return [output.name for output in proof.sessions[graph].get_outputs()]


def _step(*columns: float) -> Array:
    return np.array([[columns]], np.float32)


def _zero(proof: Proof) -> Array:
    return np.zeros([1] * proof.images.ndim, np.float32)
