"""A model in the one form, and what of a model is to be explained."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from onnxplain.errors import ParameterError, unknown
from onnxplain_export.normalize.scores import Scores
from onnxplain_export.origins import Known
from onnxplain_export.sources import Source
from onnxplain_export.structure import Line
from onnxplain_export.vjp.registry import STRAIGHT_THROUGH


@dataclass(frozen=True)
class Options:
    """What of a model is explained, and how it is read; `onnxplain_export.export` says more of each."""

    image_input: str | None = None
    output: str | None = None
    wrt: str | None = None
    score: str = "logits"
    activation: str | None = None
    size: tuple[int, int] | None = None
    axes: Mapping[str, int] = field(default_factory=dict)
    cotangent: bool = False
    quantized: str | None = None

    def __post_init__(self) -> None:
        if self.quantized not in (None, STRAIGHT_THROUGH):
            raise ParameterError(unknown("way to treat quantised models", str(self.quantized), [STRAIGHT_THROUGH]))


@dataclass(frozen=True)
class Half:
    """What a network in half precision has beside itself: the same in float32, and what its cotangents are times."""

    full: "Normalized"
    scale: float = 1.0


@dataclass(frozen=True)
class Normalized:
    """The model in the one form, with the value that is explained and the scores that explain it.

    `image` is the first of the model's inputs, [N, *image_shape]; `value` [N, *value_shape] is where gradients are
    taken: the same, or a feature layer or an embedding inside. `straight_through` says that the gradient passes
    quantisations as if they didn't round. `structure` is how the source was built, `tensors` what it held by name.
    `half` says that the network computes in half precision; its inputs are float32 all the same.
    """

    model: ir.Model
    source: Source
    image: str
    image_shape: tuple[int, ...]
    layout: str | None
    value: str
    value_shape: tuple[int, ...]
    scores: Scores
    others: tuple[str, ...]
    baked: int | None
    integers: bool
    renamed: dict[str, str]
    straight_through: bool = False
    structure: Sequence[Line] = ()
    tensors: Mapping[str, Known] = field(default_factory=dict)
    half: Half | None = None

    @property
    def full(self) -> "Normalized":
        """The network in float32."""
        return self if self.half is None else self.half.full

    @property
    def inside(self) -> bool:
        """Whether the explained value lies inside the network."""
        return self.value != self.image

    @property
    def explained(self) -> ir.Value:
        """The explained value in `model`."""
        return named_value(self.model.graph, self.value)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the image."""
        return self.image_shape[-2:] if self.layout == "NCHW" else self.image_shape[:2]  # type: ignore[return-value]


def named_value(graph: ir.Graph, name: str) -> ir.Value:
    """The input or the node's result of that name."""
    for value in [*graph.inputs, *(output for node in graph for output in node.outputs)]:
        if value.name == name:
            return value
    raise RuntimeError(f"no value named {name!r}")
