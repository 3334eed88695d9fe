"""What a bundle is, as `explainer.json` describes it: inputs, outputs, graphs, layers, methods and their parameters.

bundle_files.py reads it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# "size": one whole number or a pair (rows, columns); "image": a number, a name such as "black", or an array that
# broadcasts to the images; "array": one of the choices, an array, or None; "layer": one of the bundle's layers.
KINDS = ("int", "float", "bool", "size", "choice", "image", "array", "layer")
ACTIVATIONS = ("softmax", "sigmoid", "none")
EXPLAINS = ("logits", "probabilities")
MEASURES = ("sensitivity", "contribution", "importance")

Shape = tuple[int | str, ...]


@dataclass(frozen=True, slots=True)
class Input:
    """An input of the source model."""

    name: str
    dtype: str
    shape: Shape
    layout: str | None
    explained: bool

    @property
    def batched(self) -> bool:
        """Whether it has a row for every image."""
        return bool(self.shape) and not isinstance(self.shape[0], int)


@dataclass(frozen=True, slots=True)
class Value:
    """What gradients are taken at: an input, or a value inside the network (a feature layer, an embedding)."""

    name: str
    shape: Shape
    layout: str | None


@dataclass(frozen=True, slots=True)
class Output:
    """An output of the source model; `activation` turns its scores into probabilities, along `class_axis` if any."""

    name: str
    shape: Shape
    explained: bool
    classes: int | None
    class_axis: int | None
    activation: str
    labels: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class GraphInput:
    """A required input of a graph; `role` says what the engine feeds: "input" another of the model's own inputs."""

    name: str
    role: str
    dtype: str
    shape: Shape

    @property
    def key(self) -> str:
        """What distinguishes it from the graph's other inputs, the same in all graphs."""
        return f"input {self.name}" if self.role == "input" else self.role


@dataclass(frozen=True, slots=True)
class Graph:
    """One ONNX file of the bundle; a run was measured to take `bytes_per_run`, and `bytes_per_row` for each row.

    One that `tells_scores` gives the scores of the images as they are beside what it is for, and takes the target -1
    for an image's top class, of equal scores the first.
    """

    name: str
    file: str
    sha256: str
    inputs: tuple[GraphInput, ...]
    outputs: tuple[str, ...]
    columns: tuple[str, ...] | None
    bytes_per_row: int
    bytes_per_run: int = 0
    tells_scores: bool = False

    def takes(self, role: str) -> bool:
        """Whether an input of this role has to be fed."""
        return any(entry.role == role for entry in self.inputs)

    @property
    def draws(self) -> bool:
        """Whether a run draws noise or masks for its steps, the same for all of its images."""
        return "draw" in (self.columns or ())


@dataclass(frozen=True, slots=True)
class Layer:
    """A feature layer that the CAM family explains at; `grid` is its rows and columns, `graph` and `tail` its graphs.

    `layout` is "NCHW", "NHWC", or "tokens" [N, prefix + rows·columns, K] with `prefix` tokens that are no place.
    """

    name: str
    shape: Shape
    layout: str
    grid: tuple[int, int]
    prefix: int
    graph: str
    tail: str | None
    default: bool


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a method, with its default and range (both ends included; None is open) or its choices."""

    name: str
    kind: str
    default: Any
    minimum: float | None
    maximum: float | None
    help: str
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Method:
    """An explanation method: a graph, the plan rule that makes its steps, and the rule that finishes the sum.

    `loop` is the engine's procedure around them: "sum" unless the method is no sum; `beside` names further graphs that
    it runs.

    `measures` says what a map's numbers are: the score's sensitivity to the input, contributions that add up to the
    score (Ancona et al.: Towards better understanding of gradient-based attribution methods, 2018,
    arXiv:1711.06104), or importance: an order of places, whose numbers mean nothing else.
    """

    name: str
    graph: str
    plan: str
    finish: str
    explains: str
    measures: str
    parameters: Mapping[str, Parameter]
    loop: str = "sum"
    beside: tuple[str, ...] = ()
    about: str = ""


@dataclass(frozen=True, slots=True)
class Single:
    """What is fixed in a single file: its method and the values of its parameters, those in `free` but as defaults."""

    method: str
    parameters: Mapping[str, Any]
    free: tuple[str, ...]
    picture_input: bool
    picture_output: bool


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle's description; `sha256` is that of explainer.json, which holds the hashes of all other files.

    `path` is the folder, or the single file. `left_out` says of methods that were wanted why the network doesn't allow
    them, `detector` on which network the detector of unusual pictures was trained, where there is one. `lineage` stays
    the same when a bundle is given new weights. `precision` is what the networks compute in.
    """

    path: Path
    sha256: str
    version: str
    name: str
    source: Mapping[str, Any]
    inputs: tuple[Input, ...]
    inside: Value | None
    outputs: tuple[Output, ...]
    preset: str | None
    assumed: bool
    steps: tuple[Mapping[str, Any], ...]
    weights: tuple[str, str] | None
    graphs: Mapping[str, Graph]
    methods: Mapping[str, Method]
    left_out: Mapping[str, str]
    layers: tuple[Layer, ...]
    verification: Mapping[str, Any]
    detector: Mapping[str, Any] | None = None
    single: Single | None = None
    lineage: str = ""
    precision: str = "float32"

    def file_of(self, graph: Graph) -> Path:
        """Where a graph's file is."""
        return self.path / graph.file if self.single is None else self.path

    @property
    def scoring(self) -> str:
        """The graph that says what the network's scores are: that of a single file is its only one."""
        return "forward" if self.single is None else "single"

    @property
    def usual_method(self) -> str:
        """What is run unless a method is named: the gradient, or what a single file is for."""
        return "gradient" if self.single is None else self.single.method

    @property
    def takes_pictures(self) -> bool:
        """Whether pictures go in as they are, and preprocessing is the graph's own."""
        return self.single is not None and self.single.picture_input

    @property
    def image(self) -> Input:
        """The input that is explained."""
        return next(entry for entry in self.inputs if entry.explained)

    @property
    def value(self) -> Value:
        """What gradients are taken at: the explained input, unless it lies inside the network."""
        return self.inside or Value(self.image.name, self.image.shape, self.image.layout)

    @property
    def others(self) -> tuple[Input, ...]:
        """The inputs beside the explained one."""
        return tuple(entry for entry in self.inputs if not entry.explained)

    @property
    def free(self) -> bool:
        """Whether a cotangent of the output's shape says what is explained, in place of a class."""
        return any(graph.takes("cotangent") for graph in self.graphs.values())

    @property
    def scores(self) -> Output:
        """The output that is explained."""
        return next(entry for entry in self.outputs if entry.explained)
