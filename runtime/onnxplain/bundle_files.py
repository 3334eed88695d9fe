"""Reads and checks a bundle: the folder that export writes, or a single file that carries its own description."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from onnxplain.bundle import (
    ACTIVATIONS,
    EXPLAINS,
    KINDS,
    MEASURES,
    Bundle,
    Graph,
    GraphInput,
    Input,
    Layer,
    Method,
    Output,
    Parameter,
    Shape,
    Single,
    Value,
)
from onnxplain.errors import BundleError, ParameterError
from onnxplain.model_file import metadata_of
from onnxplain.preprocessing import check_steps

FORMAT = 1
DESCRIPTION = "explainer.json"
ATTEMPTS = 5
METADATA = "onnxplain"
"""The key of the description among a single file's metadata."""
REFRESHED = "weights refreshed"
"""How the note begins that new weights leave among the changes of a bundle's source."""
T = TypeVar("T")


def read_bundle(path: str | os.PathLike[str], verify: bool = True, weights: bool = True) -> Bundle:
    """The bundle in a folder, or in a single file; BundleError says what is missing, altered or newer than this.

    Without `weights` the largest file is left to check_weights, which may run in a thread.
    """
    place = Path(path)
    if place.is_file():
        return _described(place, place, _described_inside(place))
    for attempt in range(ATTEMPTS):
        text = _description_in(place)
        bundle = _described(place, place / DESCRIPTION, text)
        try:
            _check_files(bundle, verify)
            if verify and weights:
                check_weights(bundle)
        except BundleError:
            # Refreshed while it was being read: its description and its files are of two bundles.
            if attempt + 1 < ATTEMPTS and _description_in(place) != text:
                continue
            raise
        break
    return bundle


def check_weights(bundle: Bundle) -> None:
    """BundleError unless a bundle's weights are those that were exported."""
    if bundle.weights is not None:
        _refuse_altered(bundle.path / bundle.weights[0], bundle.weights[1])


def refuse_replaced(bundle: Bundle) -> None:
    """BundleError where another bundle has taken the place of one that is open, whose graphs wouldn't fit together."""
    if bundle.single is None and hashlib.sha256(_description_in(bundle.path)).hexdigest() != bundle.sha256:
        raise BundleError(f"{bundle.path} was replaced since it was opened; open it again (make a new Explainer)")


def description_of(path: Path) -> dict[str, Any]:
    """What a bundle or a single file says of itself, as it is written there."""
    return dict(json.loads(_described_inside(path) if path.is_file() else _description_in(path)))


def _description_in(folder: Path) -> bytes:
    """The text of a folder's explainer.json."""
    try:
        return (folder / DESCRIPTION).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        lacks = "has no explainer.json, so it is no bundle"
        missing = "does not exist; make a bundle with: onnxplain export MODEL.onnx -o NAME.explain"
        raise BundleError(f"{folder} {lacks if folder.is_dir() else missing}") from None
    except OSError as error:
        raise BundleError(f"{folder / DESCRIPTION} can't be read: {error.strerror}") from None


def _described_inside(file: Path) -> bytes:
    """The description that a single file carries."""
    try:
        text = metadata_of(file).get(METADATA)
    except (ValueError, UnicodeDecodeError):
        text = None
    except OSError as error:
        raise BundleError(f"{file} can't be read: {error.strerror}") from None
    if text is None:
        raise BundleError(
            f"{file} is a file, not a bundle; a bundle is the folder that onnxplain export writes, or the file that it "
            "writes with --single METHOD"
        )
    return text.encode("utf-8")


def _described(place: Path, described: Path, text: bytes) -> Bundle:
    """The bundle at `place`, described by `text` in the file `described`."""
    try:
        data = json.loads(text)
    except ValueError as error:
        raise BundleError(f"{described} is not JSON ({error}); export the bundle again") from None
    number = data.get("format") if isinstance(data, dict) else None
    if not isinstance(number, int):
        raise BundleError(f"{described} names no format, so it is no description of a bundle")
    if number > FORMAT:
        raise BundleError(
            f"{place} has format {number}, made by onnxplain {data.get('onnxplain', '?')}; this version reads up to "
            f"{FORMAT}: pip install --upgrade onnxplain"
        )
    try:
        return _bundle(place, hashlib.sha256(text).hexdigest(), data)
    except (KeyError, TypeError, ValueError, AttributeError, ParameterError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise BundleError(f"{described} is incomplete: {reason}; export the bundle again") from None


def _bundle(path: Path, sha256: str, data: dict[str, Any]) -> Bundle:
    preprocessing = data.get("preprocessing") or {}
    weights = data.get("weights")
    bundle = Bundle(
        path=path,
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
        single=_single(data["single"]) if data.get("single") else None,
        lineage=(data.get("refresh") or {}).get("sha256") or sha256,
        precision=(data.get("arithmetic") or {}).get("precision", "float32"),
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


def _single(data: dict[str, Any]) -> Single:
    pictures = bool(data["picture_input"]), bool(data["picture_output"])
    return Single(data["method"], data["parameters"], tuple(data["free"]), *pictures)


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
    if bundle.scoring not in bundle.graphs:
        raise ValueError(f"there is no graph {bundle.scoring!r}")


def _check_files(bundle: Bundle, verify: bool) -> None:
    """BundleError unless all files are there and, with `verify`, the graphs are those that were exported."""
    files = [(graph.file, graph.sha256) for graph in bundle.graphs.values()]
    for name, expected in [*files, *([bundle.weights] if bundle.weights else [])]:
        if Path(name).name != name:
            raise BundleError(f"{bundle.path / DESCRIPTION} names a file outside the bundle: {name}")
        file = bundle.path / name
        if not file.is_file():
            raise BundleError(f"{file} is missing; export the bundle again")
        if verify and (name, expected) != bundle.weights:
            _refuse_altered(file, expected)


def _refuse_altered(file: Path, expected: str) -> None:
    if expected and sha256_of(file) != expected:
        raise BundleError(f"{file} was altered after export (its SHA-256 differs); export the bundle again")


def sha256_of(file: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise BundleError(f"{file} can't be read: {error.strerror}") from None
