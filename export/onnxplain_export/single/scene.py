"""What a recipe works with: the file's inputs, the method's parameters, and the bundle's graphs to put them into."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxplain.bundle import Bundle, Method
from onnxplain.errors import ParameterError
from onnxplain.fills import fill_values
from onnxplain.images import SPATIAL
from onnxplain_export.emitter import Emitter
from onnxplain_export.single.assembly import Assembly

FILLS = ("baseline", "fill", "low", "high")


@dataclass
class Scene:
    """One method of a bundle on its way into a file.

    `image` [N, …] is what the network takes, `others` its further inputs, `target` int64 [N, T] with -1 for the top
    class, `free` the parameters that stay inputs. `rows` is how many rows, images × steps × targets, a turn of the loop
    takes; with `unrolled` there is no loop. Tables end after `most_steps`, if given.
    """

    assembly: Assembly
    method: Method
    parameters: Mapping[str, Any]
    image: ir.Value
    others: Mapping[str, ir.Value]
    target: ir.Value
    free: Mapping[str, ir.Value]
    rows: int
    unrolled: bool
    most_steps: int | None = None
    _answers: dict[str, ir.Value] = field(default_factory=dict)

    @property
    def bundle(self) -> Bundle:
        """Where the graphs are."""
        return self.assembly.bundle

    @property
    def op(self) -> Emitter:
        """Emits into the file's graph."""
        return self.assembly.op

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the network's input, (0, 0) where it takes no pictures."""
        layout, shape = self.bundle.image.layout, self.bundle.image.shape
        if layout is None:
            return (0, 0)
        height, width = (int(shape[axis]) for axis in SPATIAL[layout])
        return height, width

    @property
    def map_axes(self) -> int:
        """The axis [N, T, …] at which a map of one number a pixel gets its channel."""
        return 2 if self.bundle.image.layout == "NCHW" else -1

    @property
    def scores(self) -> ir.Value:
        """The network's scores [N, classes]."""
        return self._forward()["scores"]

    @property
    def value(self) -> ir.Value:
        """What gradients are taken at, [N, …]."""
        return self.image if self.bundle.inside is None else self._forward()["explained"]

    @property
    def settled(self) -> ir.Value:
        """The targets [N, T], the image's top class, of equal scores the first, in the place of -1."""
        if "settled" not in self._answers:
            self._answers["settled"] = self.settled_by(self.op, self.scores)
        return self._answers["settled"]

    def settled_by(self, op: Emitter, scores: ir.Value) -> ir.Value:
        """The targets, settled by scores that are known elsewhere."""
        top = op.ArgMax(scores, axis=1, keepdims=1)
        return op.Where(op.Less(self.target, op.constant(0, np.int64)), top, self.target)

    def tell(self, scores: ir.Value) -> None:
        """Takes the scores that the method's own graph gives, so that no other pass is needed for them."""
        self._answers.setdefault("scores", scores)

    def _forward(self) -> dict[str, ir.Value]:
        if "scores" not in self._answers or (self.bundle.inside is not None and "explained" not in self._answers):
            feeds = {"image": self.image, **self.others}
            self._answers = {**self.assembly.embed("forward", feeds), **self._answers}
        return self._answers

    def feeds(self, graph: str, **given: ir.Value) -> dict[str, ir.Value]:
        """What the inputs of a bundle's graph are fed, by role; `given` takes the place of what would be."""
        described = self.bundle.graphs[graph]
        feeds = {"image": self.image, **self.others, **given}
        for entry in described.inputs:
            if entry.key not in feeds:
                feeds[entry.key] = self._feed(entry.key, described.tells_scores)
        return feeds

    def _feed(self, role: str, tells: bool) -> ir.Value:
        if role == "target":
            return self.target if tells and "settled" not in self._answers else self.settled
        if role in self.free and role != "noise":
            return self.free[role]
        if role in FILLS:
            return self._filled(role, self.parameters.get(role, 0.0))
        made = {"sigma": self._sigma, "seed": self._seed, "reference": self._reference, "activated": self._activated}
        return made[role]() if role in made else self.op.floats([float(self.parameters[role])])

    def _seed(self) -> ir.Value:
        return self.op.constant([int(self.parameters.get("seed", 0))], np.int64)

    def _activated(self) -> ir.Value:
        return self.op.floats([1.0 if self.method.explains == "probabilities" else 0.0])

    def _reference(self) -> ir.Value:
        return self.explained(self.op, self.scores, self.settled)

    def explained(self, op: Emitter, scores: ir.Value, targets: ir.Value) -> ir.Value:
        """What is explained of the images as they are, [N, T]: logits or probabilities."""
        if self.method.explains == "probabilities":
            scores = self._probabilities(op, scores)
        return op.GatherElements(scores, targets, axis=1)

    def _probabilities(self, op: Emitter, scores: ir.Value) -> ir.Value:
        activation, axis = self.bundle.scores.activation, self.bundle.scores.class_axis
        if activation == "softmax":
            return op.Softmax(scores, axis=1 if axis is None else axis)
        return op.Sigmoid(scores) if activation == "sigmoid" else scores

    def _sigma(self) -> ir.Value:
        """The noise's standard deviation [N], as feeds.deviations_of has it."""
        op, share_of = self.op, self.parameters.get("noise_of", "image")
        noise = self.free.get("noise") or op.floats([float(self.parameters["noise"])])
        if share_of == "absolute":
            return op.Expand(noise, op.Shape(self.target, start=0, end=1))
        axes = None if share_of == "batch" else list(range(1, len(self.bundle.value.shape)))
        highest = op.ReduceMax(self.value, axes, keepdims=0)
        lowest = op.ReduceMin(self.value, axes, keepdims=0)
        spread = op.Mul(noise, op.Sub(highest, lowest))
        return op.Expand(spread, op.Shape(self.target, start=0, end=1)) if share_of == "batch" else spread

    def _filled(self, name: str, value: Any) -> ir.Value:
        """A number, a named picture or an array as [1, …] values, each image's own mean colour as [N, …]."""
        if isinstance(value, str) and value == "mean" and (name == "fill" or self.bundle.inside is None):
            return self.op.ReduceMean(self.image, list(SPATIAL[str(self.bundle.image.layout)]), keepdims=1)
        if isinstance(value, str) and value not in ("black", "white"):
            raise ParameterError(
                f"{name}={value!r} isn't made inside a single file; give a number, black, white, mean or an array, or "
                f"keep it an input with --free {name}"
            )
        return self.op.floats(self.constant_fill(name, value))

    def constant_fill(self, name: str, value: Any) -> NDArray[np.float32]:
        """What doesn't depend on the image, [1, …]."""
        entry = self.bundle.image if name == "fill" else self.bundle.value
        like = np.zeros([1, *(size if isinstance(size, int) else 1 for size in entry.shape[1:])], np.float32)
        return np.asarray(fill_values(name, value, like, self.bundle), np.float32)
