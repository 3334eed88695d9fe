"""`export()`: from a model to a verified bundle."""

import re
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxplain.errors import ParameterError
from onnxplain.preprocessing import check_steps, preset_steps
from onnxplain.version import __version__
from onnxplain_export.bundle import WEIGHTS, new_folder, refuse_target, sha256_of, write_description, write_graphs
from onnxplain_export.check.checking import refuse_undifferentiable
from onnxplain_export.graphs import COLUMNS, GRAPHS
from onnxplain_export.memory import ROWS, bytes_per_row
from onnxplain_export.methods import chosen_methods
from onnxplain_export.normalize import BATCH, Normalized, normalize
from onnxplain_export.sources import read_source
from onnxplain_export.verify import verify
from onnxplain_export.verify.proof import NUMPY_TYPES

FORMAT = 1


def export(
    model: Any,
    output: str | PathLike[str],
    *,
    methods: Sequence[str] | str | None = None,
    preprocessing: str | Sequence[Mapping[str, Any]] | None = None,
    labels: Sequence[str] | str | PathLike[str] | None = None,
    example: Any = None,
    name: str | None = None,
    size: tuple[int, int] | None = None,
    axes: Mapping[str, int] | None = None,
    score: str = "logits",
    activation: str | None = None,
    image_input: str | None = None,
    score_output: str | None = None,
    wrt: str | None = None,
    cotangent: bool = False,
    quantized: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Writes the explainer bundle of `model` to the folder `output`, proves it against the model, and returns its path.

    `model` is a path, an onnx.ModelProto, an onnx_ir.Model, or a torch.nn.Module with one `example` batch. `methods`
    are all that the model allows unless named. `preprocessing` is a preset's name or a list of steps; without one,
    pictures are assumed to be prepared as torchvision does. `labels` are the classes' names or a text file with one a
    line. `score` "logits" explains what a trailing softmax or sigmoid takes, "probabilities" the output as it is.
    `size` (height, width) fixes a picture size that the model leaves free, `axes` other axes by name.

    Gradients are taken at the input `image_input` (of several, a picture's unless named), or at the value `wrt` inside
    the network, by the name that the model gives it; token numbers are explained at their embedding. What is explained
    is a class of the output `score_output` (the first of shape [N, classes] unless named); an output of another shape,
    and with `cotangent` any, is explained by a cotangent of its own shape. Quantised models have no gradient unless
    `quantized="straight-through"` lets it pass their roundings (Bengio et al. 2013, arXiv:1308.3432).

    Raises ModelError (unreadable, unsupported), NoGradientError (names the node), VerificationError (the proof failed),
    ParameterError and OutputError; nothing is left behind then.
    """
    target = Path(output)
    refuse_target(target, overwrite)
    normalized = normalize(
        read_source(model, example, name),
        image_input=image_input,
        output=score_output,
        wrt=wrt,
        score=score,
        activation=activation,
        size=size or _size_of(preprocessing),
        axes=axes or {},
        cotangent=cotangent,
        quantized=quantized,
    )
    chosen = chosen_methods([methods] if isinstance(methods, str) else methods, normalized.layout is not None)
    if any(entry["graph"] != "masked" for entry in chosen.values()):
        refuse_undifferentiable(normalized)
    prepared = _preprocessing(normalized, preprocessing)
    names = _labels(_own_labels(normalized) if labels is None else labels, normalized.scores.classes)
    with new_folder(target) as folder:
        _write(folder, normalized, chosen, prepared, names)
    return target


def _write(
    folder: Path,
    normalized: Normalized,
    methods: Mapping[str, Mapping[str, Any]],
    preprocessing: Mapping[str, Any],
    labels: Sequence[str] | None,
) -> None:
    """The graphs that the methods need, proved, and explainer.json."""
    needed = {"forward", *(str(entry["graph"]) for entry in methods.values())}
    if needed & {"path", "noise"}:
        needed.add("gradient")  # these two are proved against it
    models = {graph: make(normalized) for graph, make in GRAPHS.items() if graph in needed}
    write_graphs(folder, models)
    record = verify(normalized, folder, models, preprocessing["steps"])
    description = _description(normalized, methods, preprocessing, labels, record)
    memory = bytes_per_row(folder, {graph: _one_run(made) for graph, made in models.items()})
    description["graphs"] = {
        graph: _graph_entry(folder, graph, made, normalized, memory[graph]) for graph, made in models.items()
    }
    weights = folder / WEIGHTS
    description["weights"] = {"file": WEIGHTS, "sha256": sha256_of(weights)} if weights.exists() else None
    write_description(folder, description)


def _own_labels(normalized: Normalized) -> Sequence[str] | None:
    """The classes' names that came with the source, where they are those of the explained scores."""
    own = normalized.source.labels
    return own if own is not None and len(own) == normalized.scores.classes else None


def _description(
    normalized: Normalized,
    methods: Mapping[str, Mapping[str, Any]],
    preprocessing: Mapping[str, Any],
    labels: Sequence[str] | None,
    record: Mapping[str, Any],
) -> dict[str, Any]:
    source, scores = normalized.source, normalized.scores
    return {
        "format": FORMAT,
        "onnxplain": __version__,
        "name": source.name,
        "source": {
            "file": source.file,
            "sha256": source.sha256,
            "producer": source.producer,
            "opset": source.opset,
            "precision": source.precision,
            "changes": source.changes,
        },
        "inputs": [_input_entry(value, normalized) for value in normalized.model.graph.inputs],
        "value": _value_entry(normalized),
        "outputs": [
            {
                "name": scores.output,
                "shape": [BATCH, *scores.shape],
                "explained": True,
                "classes": scores.classes,
                "class_axis": scores.class_axis,
                "activation": scores.activation,
                "labels": list(labels) if labels else None,
            }
        ],
        "preprocessing": preprocessing,
        "weights": None,
        "graphs": {},
        "methods": _methods_as_exported(methods, scores.activation),
        "layers": [],
        "renamed": normalized.renamed,
        "verification": record,
    }


def _input_entry(value: ir.Value, normalized: Normalized) -> dict[str, Any]:
    explained = value.name == normalized.image
    return {
        "name": value.name,
        "dtype": _dtype(value),
        "shape": _axes(value),
        "layout": normalized.layout if explained else None,
        "explained": explained,
    }


def _value_entry(normalized: Normalized) -> dict[str, Any] | None:
    """The value inside the network at which gradients are taken, None where that is the input itself."""
    if not normalized.inside:
        return None
    features = normalized.layout is not None and len(normalized.value_shape) == 3  # ONNX convolutions know one layout
    shape = [BATCH, *normalized.value_shape]
    return {"name": normalized.value, "shape": shape, "layout": "NCHW" if features else None}


def _methods_as_exported(methods: Mapping[str, Mapping[str, Any]], activation: str) -> dict[str, Any]:
    """The methods' entries; where scores have no activation, all of them explain the same number."""
    return {
        name: {**entry, "explains": "logits"} if activation == "none" else dict(entry)
        for name, entry in methods.items()
    }


def _graph_entry(folder: Path, name: str, model: ir.Model, normalized: Normalized, memory: int) -> dict[str, Any]:
    file = folder / f"{name}.onnx"
    inputs = [
        {
            "name": value.name,
            "role": _role(value, normalized),
            "dtype": _dtype(value),
            "shape": _axes(value),
        }
        for value in model.graph.inputs
    ]
    return {
        "file": file.name,
        "sha256": sha256_of(file),
        "inputs": inputs,
        "outputs": [{"name": v.name, "dtype": _dtype(v), "shape": _axes(v)} for v in model.graph.outputs],
        "columns": list(COLUMNS[name]) if name in COLUMNS else None,
        "bytes_per_row": memory,
    }


def _role(value: ir.Value, normalized: Normalized) -> str:
    """What the engine feeds: the image, another input of the model, or a parameter by its name."""
    if value.name == normalized.image:
        return "image"
    return "input" if value.name in {entry.name for entry in normalized.model.graph.inputs} else str(value.name)


def _one_run(model: ir.Model) -> list[dict[str, Any]]:
    """The inputs that put ROWS rows through a graph: one step of as many images."""
    entries = []
    for value in model.graph.inputs:
        axes = _axes(value)
        shape = [axis if isinstance(axis, int) else 1 for axis in axes]
        entries.append(
            {"name": value.name, "dtype": _dtype(value), "shape": [ROWS, *shape[1:]] if axes[0] == BATCH else shape}
        )
    return entries


def _dtype(value: ir.Value) -> str:
    return np.dtype(NUMPY_TYPES.get(ir.DataType(value.dtype or ir.DataType.FLOAT), np.float32)).name


def _axes(value: ir.Value) -> list[int | str]:
    return [axis if isinstance(axis, int) else str(axis.value) for axis in value.shape or ()]


def _preprocessing(normalized: Normalized, given: str | Sequence[Mapping[str, Any]] | None) -> dict[str, Any]:
    """What explainer.json says about preprocessing; where the user says nothing, something is assumed for pictures."""
    if given is not None and not isinstance(given, str):
        return {"preset": None, "assumed": False, "steps": check_steps(given)}
    channels = normalized.image_shape[0 if normalized.layout == "NCHW" else -1]
    if normalized.layout is None or (given is None and channels not in (1, 3)):
        if given is not None and normalized.layout is None:
            raise ParameterError(
                f"preprocessing {given!r} is for pictures; the input has shape {normalized.image_shape}"
            )
        return {"preset": None, "assumed": False, "steps": []}
    preset = given or assumed_preset(channels, normalized.integers)
    steps = preset_steps(preset, *normalized.size, channels=channels, layout=normalized.layout)
    return {"preset": preset, "assumed": given is None, "steps": steps}


def assumed_preset(channels: int, integers: bool) -> str:
    """What is assumed of a network about which nothing was said: one that takes integers takes the picture's own."""
    if integers:
        return "raw"
    return "torchvision" if channels == 3 else "unit"


def _size_of(preprocessing: str | Sequence[Mapping[str, Any]] | None) -> tuple[int, int] | None:
    """The picture size that a list of steps ends with, for a network that leaves its own free."""
    if preprocessing is None or isinstance(preprocessing, str):
        return None
    for step in reversed(preprocessing):
        if step.get("step") in ("crop", "resize") and isinstance(step.get("size"), list | tuple):
            height, width = step["size"]
            return int(height), int(width)
    return None


def _labels(given: Sequence[str] | str | PathLike[str] | None, classes: int | None) -> list[str] | None:
    if given is None:
        return None
    if isinstance(given, str | PathLike):
        try:
            given = Path(given).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ParameterError(f"labels {given}: can't be read ({error})") from None
    names = [name.strip() for name in given]
    while names and not names[-1]:
        names.pop()
    if len(names) != classes:
        pair = "; the two classes of a single logit are its negative and its positive" if len(names) == 1 else ""
        raise ParameterError(f"{len(names)} labels for {classes or 'an output without'} classes{pair}")
    return _without_numbers(names)


def _without_numbers(names: list[str]) -> list[str]:
    """The names without the class numbers that some label files carry: "0,tench", "1: goldfish", "2 shark"."""
    found = [re.fullmatch(r"(\d+)\s*[,:;\t ]\s*(\S.*)", name) for name in names]
    numbered = [match for match in found if match is not None]
    if len(numbered) == len(names) and [int(match[1]) for match in numbered] == list(range(len(names))):
        return [match[2] for match in numbered]
    return names
