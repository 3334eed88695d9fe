"""What a network's builder leaves for the comparison: its ONNX file, inputs, and its framework's own answers."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
# From float64 inputs to outputs, cotangent, and gradient; from float32 inputs and cotangent to float32 gradients.
Reference = Callable[[Array], tuple[Array, Array, Array]]
Own = Callable[[Array, Array], Sequence[Array]]

MODEL, INPUTS, REFERENCE, DESCRIPTION = "model.onnx", "inputs.npz", "reference.npz", "meta.json"
ROWS, CANDIDATES = 3, 8
MOVED, MOVES = 5e-6, 3  # by some float32 rounding errors of an input of size 1, in so many directions
SEED = 0


@dataclass(frozen=True, slots=True)
class Case:
    """One network's inputs, with the output and gradient that its framework computes for them.

    `gradients32` are the framework's float32 gradients, one for each way in which it may compute them; their distance
    from `gradient` (float64, or as near to it as the framework comes) is its own error. What is differentiated is the
    sum of `cotangent` times `outputs`; `targets` are the classes that it picks, None where it is free. `answers` are
    what the ONNX file puts out where that is something else than `outputs`, such as their probabilities.
    """

    inputs: Mapping[str, Array]
    outputs: Array
    gradient: Array
    gradients32: Sequence[Array]
    cotangent: Array
    targets: Array | None
    exporter: str
    packages: Sequence[str]
    precision: str = "float64"
    options: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()
    answers: Array | None = None

    def write(self, folder: Path) -> None:
        """Writes everything but the ONNX file, which the exporter has written there."""
        if not (np.isfinite(self.outputs).all() and np.isfinite(self.gradient).all()):
            raise ValueError("with its random weights the network overflows")
        np.savez(folder / INPUTS, **self.inputs)
        answers = {"outputs": self.outputs, "gradient": self.gradient, "cotangent": self.cotangent}
        answers |= {f"gradient32_{number}": gradient for number, gradient in enumerate(self.gradients32)}
        if self.targets is not None:
            answers["targets"] = self.targets
        if self.answers is not None:
            answers["answers"] = self.answers
        np.savez(folder / REFERENCE, **answers)
        description = {
            "exporter": self.exporter,
            "versions": {name: version(name) for name in self.packages},
            "precision": self.precision,
            "options": dict(self.options),
            "notes": list(self.notes),
        }
        (folder / DESCRIPTION).write_text(json.dumps(description, indent=1) + "\n", "utf-8")


def images(shape: Sequence[int], rows: int = CANDIDATES) -> Array:
    """Inputs [rows, *shape] drawn from the standard normal distribution."""
    return np.random.default_rng(SEED).standard_normal((rows, *shape)).astype(np.float32)


def steadiest(candidates: Array, reference: Reference, own: Own) -> Array:
    """The candidates whose gradient is surest: moving them a little, or computing it in float32, changes it least.

    Where a unit lies so near the kink of its ReLU that float32 can't tell the side, gradients computed in different
    orders differ by whole paths through the network. Differences of 1e-3 are common then, and would hide any error
    smaller than that. Only the framework's own numbers decide.
    """
    wide = candidates.astype(np.float64)
    _, cotangent, truth = reference(wide)
    directions = np.random.default_rng(SEED + 2).standard_normal((MOVES, *wide.shape))
    moved = [reference(wide + MOVED * direction)[2] for direction in directions]
    doubt = np.max([_row_errors(answer, truth) for answer in (*moved, *own(candidates, cotangent))], axis=0)
    return candidates[np.sort(np.argsort(doubt)[:ROWS])]


def _row_errors(answer: Array, truth: Array) -> Array:
    axes = tuple(range(1, truth.ndim))
    return np.sqrt(((answer - truth) ** 2).sum(axes) / (truth**2).sum(axes))


def own_gradients(gradient: Callable[[Array, Array], Array], rows: Array, cotangent: Array) -> list[Array]:
    """A framework's float32 gradients: of all rows together, and one by one."""
    narrow = cotangent.astype(np.float32)
    alone = [gradient(rows[i : i + 1], narrow[i : i + 1]) for i in range(len(rows))]
    return [gradient(rows, narrow), np.concatenate(alone)]


def tokens(length: int, vocabulary: int, rows: int = ROWS) -> Array:
    """Token numbers [rows, length]; 0 to 4 are left out, which are special in many vocabularies."""
    return np.random.default_rng(SEED).integers(5, vocabulary, (rows, length))


def top_classes(outputs: Array) -> tuple[Array, Array]:
    """The top class of each row of `outputs` [N, classes], and the cotangent that picks it."""
    targets = outputs.argmax(1)
    return targets, np.eye(outputs.shape[1])[targets]


def free_cotangent(outputs: Array) -> Array:
    """A random cotangent of the outputs' shape."""
    return np.random.default_rng(SEED + 1).standard_normal(outputs.shape).astype(np.float32).astype(np.float64)
