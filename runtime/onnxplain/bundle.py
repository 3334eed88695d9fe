"""Reads and checks `explainer.json`, the description of a bundle that export writes and every engine reads."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from onnxplain.errors import BundleError, ParameterError
from onnxplain.preprocessing import check_steps

FORMAT = 1
DESCRIPTION = "explainer.json"
# "size": one whole number or a pair (rows, columns); "image": a number, a name such as "black", or an array that
# broadcasts to the images; "array": one of the choices, an array, or None; "layer": one of the bundle's layers.
KINDS = ("int", "float", "bool", "size", "choice", "image", "array", "layer")
ACTIVATIONS = ("softmax", "sigmoid", "none")
EXPLAINS = ("logits", "probabilities")
MEASURES = ("sensitivity", "contribution", "importance")

Shape = tuple[int | str, ...]
T = TypeVar("T")


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
class Bundle:
    """A bundle's description; `sha256` is that of explainer.json, which holds the hashes of all other files.

    `left_out` says of methods that were wanted why the network doesn't allow them, `detector` on which network the
    detector of unusual pictures was trained, where there is one.
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


def read_bundle(path: str | os.PathLike[str], verify: bool = True) -> Bundle:
    """The bundle in a folder; BundleError names the file that is missing, altered or newer than this reader."""
    folder = Path(path)
    description = folder / DESCRIPTION
    try:
        text = description.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        what = "has no explainer.json, so it is no bundle" if folder.is_dir() else _not_a_folder(folder)
        raise BundleError(f"{folder} {what}") from None
    except OSError as error:
        raise BundleError(f"{description} can't be read: {error.strerror}") from None
    try:
        data = json.loads(text)
    except ValueError as error:
        raise BundleError(f"{description} is not JSON ({error}); export the bundle again") from None
    bundle = _described(folder, hashlib.sha256(text).hexdigest(), data)
    _check_files(bundle, verify)
    return bundle


def _not_a_folder(path: Path) -> str:
    if not path.exists():
        return "does not exist; make a bundle with: onnxplain export MODEL.onnx -o NAME.explain"
    return "is a file, not a bundle; a bundle is the folder that onnxplain export writes"


def _described(folder: Path, sha256: str, data: Any) -> Bundle:
    number = data.get("format") if isinstance(data, dict) else None
    if not isinstance(number, int):
        raise BundleError(f"{folder / DESCRIPTION} names no format, so it is no description of a bundle")
    if number > FORMAT:
        raise BundleError(
            f"{folder} has format {number}, made by onnxplain {data.get('onnxplain', '?')}; this version reads up to "
            f"{FORMAT}: pip install --upgrade onnxplain"
        )
    try:
        return _bundle(folder, sha256, data)
    except (KeyError, TypeError, ValueError, AttributeError, ParameterError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise BundleError(f"{folder / DESCRIPTION} is incomplete: {reason}; export the bundle again") from None


def _bundle(folder: Path, sha256: str, data: dict[str, Any]) -> Bundle:
    preprocessing = data.get("preprocessing") or {}
    weights = data.get("weights")
    bundle = Bundle(
        path=folder,
        sha256=sha256,
        version=data["onnxplain"],
        name=data["name"],
        source=data["source"],
        inputs=tuple(map(_input, data["inputs"])),
        inside=_value(data["value"]) if data.get("value") else None,
        outputs=tuple(map(_output, data["outputs"])),
        preset=preprocessing.get("preset"),
        assumed=bool(preprocessing.get("assumed", False)),
        steps=tuple(check_steps(preprocessing["steps"])) if preprocessing.get("steps") else (),
        weights=(weights["file"], weights["sha256"]) if weights else None,
        graphs=_table(data["graphs"], _graph),
        methods=_table(data["methods"], _method),
        left_out=data.get("left_out") or {},
        layers=tuple(map(_layer, data.get("layers") or ())),
        verification=data.get("verification") or {},
        detector=data.get("detector"),
    )
    _check_links(bundle)
    return bundle


def _table(data: dict[str, Any], read: Callable[[str, Any], T]) -> dict[str, T]:
    return {name: read(name, entry) for name, entry in data.items()}


def _shape(data: list[Any]) -> Shape:
    return tuple(axis if isinstance(axis, int) else str(axis) for axis in data)


def _input(data: dict[str, Any]) -> Input:
    explained = bool(data["explained"])
    return Input(data["name"], data["dtype"], _shape(data["shape"]), data.get("layout"), explained)


def _value(data: dict[str, Any]) -> Value:
    return Value(data["name"], _shape(data["shape"]), data.get("layout"))


def _output(data: dict[str, Any]) -> Output:
    labels = data.get("labels")
    return Output(
        name=data["name"],
        shape=_shape(data["shape"]),
        explained=bool(data["explained"]),
        classes=data.get("classes"),
        class_axis=data.get("class_axis", 1),
        activation=_one_of(data.get("activation", "none"), ACTIVATIONS),
        labels=tuple(map(str, labels)) if labels else None,
    )


def _graph(name: str, data: dict[str, Any]) -> Graph:
    columns = data.get("columns")
    return Graph(
        name=name,
        file=data["file"],
        sha256=data["sha256"],
        inputs=tuple(GraphInput(i["name"], i["role"], i["dtype"], _shape(i["shape"])) for i in data["inputs"]),
        outputs=tuple(output["name"] for output in data["outputs"]),
        columns=tuple(columns) if columns else None,
        bytes_per_row=int(data["bytes_per_row"]),
        bytes_per_run=int(data.get("bytes_per_run", 0)),
        tells_scores=bool(data.get("tells_scores", False)),
    )


def _method(name: str, data: dict[str, Any]) -> Method:
    return Method(
        name=name,
        graph=data["graph"],
        plan=data["plan"],
        finish=data["finish"],
        explains=_one_of(data["explains"], EXPLAINS),
        measures=_one_of(data.get("measures", "sensitivity"), MEASURES),
        parameters=_table(data["parameters"], _parameter),
        loop=data.get("loop", "sum"),
        beside=tuple(data.get("beside", ())),
        about=data.get("about", ""),
    )


def _layer(data: dict[str, Any]) -> Layer:
    rows, columns = data["grid"]
    return Layer(
        name=data["name"],
        shape=_shape(data["shape"]),
        layout=data["layout"],
        grid=(int(rows), int(columns)),
        prefix=int(data.get("prefix", 0)),
        graph=data["graph"],
        tail=data.get("tail"),
        default=bool(data.get("default", False)),
    )


def _parameter(name: str, data: dict[str, Any]) -> Parameter:
    kind = _one_of(data["kind"], KINDS)
    low, high, choices = data.get("minimum"), data.get("maximum"), tuple(data.get("choices", ()))
    return Parameter(name, kind, data["default"], low, high, data.get("help", ""), choices)


def _one_of(value: str, known: tuple[str, ...]) -> str:
    if value not in known:
        raise ValueError(f"{value!r} is none of {', '.join(known)}")
    return value


def _check_links(bundle: Bundle) -> None:
    """ValueError unless one input and one output are explained and every method has its graph."""
    for kind, entries in (("input", bundle.inputs), ("output", bundle.outputs)):
        if sum(entry.explained for entry in entries) != 1:
            raise ValueError(f"not exactly one {kind} is explained")
    for method in bundle.methods.values():
        for graph in (method.graph, *method.beside):
            if graph not in bundle.graphs:
                raise ValueError(f"method {method.name} needs the graph {graph!r}")
    if "forward" not in bundle.graphs:
        raise ValueError("there is no graph 'forward'")


def _check_files(bundle: Bundle, verify: bool) -> None:
    files = [(graph.file, graph.sha256) for graph in bundle.graphs.values()]
    for name, expected in [*files, *([bundle.weights] if bundle.weights else [])]:
        if Path(name).name != name:
            raise BundleError(f"{bundle.path / DESCRIPTION} names a file outside the bundle: {name}")
        file = bundle.path / name
        if not file.is_file():
            raise BundleError(f"{file} is missing; export the bundle again")
        if verify and sha256_of(file) != expected:
            raise BundleError(f"{file} was altered after export (its SHA-256 differs); export the bundle again")


def sha256_of(file: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise BundleError(f"{file} can't be read: {error.strerror}") from None
