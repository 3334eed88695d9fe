"""The activation functions that recurrent layers name in their attributes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from onnxplain.errors import NoGradientError
from onnxplain_export.emitter import Emitter, attribute
from onnxplain_export.vjp.registry import STANDARD

DEFAULTS = {"RNN": ("Tanh",), "GRU": ("Sigmoid", "Tanh"), "LSTM": ("Sigmoid", "Tanh", "Tanh")}

NUMBERS: dict[str, dict[str, float | None]] = {
    "Relu": {},
    "Tanh": {},
    "Sigmoid": {},
    "Softsign": {},
    "Softplus": {},
    "LeakyRelu": {"alpha": 0.01},
    "Elu": {"alpha": 1.0},
    "HardSigmoid": {"alpha": 0.2, "beta": 0.5},
    "ThresholdedRelu": {"alpha": None},
    "Affine": {"alpha": None, "beta": None},
    "ScaledTanh": {"alpha": None, "beta": None},
}
"""The functions' numbers and their defaults; None where the standard and onnxruntime disagree about it."""


@dataclass(frozen=True)
class Activation:
    """One function with its numbers, after a clip of its input where the layer asks for one."""

    name: str
    numbers: dict[str, float]
    clip: float | None

    def value(self, op: Emitter, x: ir.Value) -> ir.Value:
        """The function of x."""
        x = x if self.clip is None else op.Clip(x, -self.clip, self.clip)
        if self.name == "Affine":
            return op.Add(op.Mul(x, self.numbers["alpha"]), self.numbers["beta"])
        if self.name == "ScaledTanh":
            return op.Mul(op.Tanh(op.Mul(x, self.numbers["beta"])), self.numbers["alpha"])
        return getattr(op, self.name)(x, **self.numbers)

    def with_slope(self, op: Emitter, x: ir.Value) -> tuple[ir.Value, ir.Value]:
        """The function of x and its derivative there: the product of its operators' rules."""
        y = self.value(op, x)
        at: ir.Value | None = y
        slope: Any = op.expand_like(op.floats(1.0), x) if self.name == "Affine" else op.floats(1.0)
        while at is not x:
            node = None if at is None else at.producer()
            if node is None:
                raise ValueError(f"{self.name} isn't a chain of operators")
            slope, at = STANDARD[node.op_type].function(op, node, slope)[0], node.inputs[0]
        return y, slope


def activations(node: ir.Node, directions: int) -> list[Sequence[Activation]]:
    """Each direction's functions. Only a function that has a number takes one from the lists, in order."""
    defaults = DEFAULTS[node.op_type]
    given = attribute(node, "activations") or list(defaults) * directions
    names = [_known(node, name) for name in given]
    if len(names) != directions * len(defaults):
        raise NoGradientError(
            f"{node.op_type} (node {node.name!r}) names {len(names)} activations; {directions * len(defaults)} are due"
        )
    numbers: list[dict[str, float]] = [{} for _ in names]
    for kind in ("alpha", "beta"):
        takers = [index for index, name in enumerate(names) if kind in NUMBERS[name]]
        for index, number in zip(takers, _numbers(node, kind, [names[index] for index in takers]), strict=True):
            numbers[index][kind] = number
    clip = attribute(node, "clip") or None
    functions = [Activation(name, given, clip) for name, given in zip(names, numbers, strict=True)]
    return [functions[d * len(defaults) : (d + 1) * len(defaults)] for d in range(directions)]


def _known(node: ir.Node, name: str) -> str:
    """The function's name as the standard spells it."""
    found = next((known for known in NUMBERS if known.lower() == name.lower()), None)
    if found is None or not (found in STANDARD or found in ("Affine", "ScaledTanh")):
        raise NoGradientError(f"{node.op_type} (node {node.name!r}): activation {name!r} has no derivative rule")
    return found


def _numbers(node: ir.Node, kind: str, takers: Sequence[str]) -> list[float]:
    given = attribute(node, f"activation_{kind}") or []
    numbers = given or [NUMBERS[name][kind] for name in takers]
    known = [float(number) for number in numbers if number is not None]
    if takers and len(known) != len(takers):
        raise NoGradientError(
            f"{node.op_type} (node {node.name!r}): activation_{kind} gives {len(known)} numbers for {', '.join(takers)}"
        )
    return known[: len(takers)]
