"""What explainer.json says of a bundle."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxplain.version import __version__
from onnxplain_export.building import Built
from onnxplain_export.bundle import WEIGHTS, sha256_of
from onnxplain_export.graphs import COLUMNS, TELLING
from onnxplain_export.layers import layer_entry
from onnxplain_export.memory import measured_memory
from onnxplain_export.normalize import BATCH, Normalized
from onnxplain_export.verify.proof import NUMPY_TYPES

FORMAT = 1

STEPS = "steps"
"""The name of the input that tables of steps come in by."""


def description(
    normalized: Normalized,
    built: Built,
    preprocessing: Mapping[str, Any],
    labels: Sequence[str] | None,
    record: Mapping[str, Any],
) -> dict[str, Any]:
    """All but the graphs and the weights, which `describe_files` adds."""
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
        **_arithmetic(normalized),
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
        "methods": _methods_as_exported(built.methods, scores.activation),
        "left_out": built.left_out,
        "layers": [layer_entry(at, number, "tail" in built.models) for number, at in enumerate(built.layers)],
        "renamed": normalized.renamed,
        "verification": record,
    }


def _arithmetic(normalized: Normalized) -> dict[str, Any]:
    """The type of float that networks compute in where it isn't float32, and what cotangents are multiplied by."""
    if normalized.half is None:
        return {}
    return {"arithmetic": {"precision": "float16", "scale": normalized.half.scale}}


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
    kept = {name: {key: part for key, part in entry.items() if key != "pictures"} for name, entry in methods.items()}
    return {name: {**entry, "explains": "logits"} if activation == "none" else entry for name, entry in kept.items()}


def _graph_entry(
    folder: Path, name: str, model: ir.Model, normalized: Normalized, memory: tuple[int, int]
) -> dict[str, Any]:
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
        "bytes_per_row": memory[0],
        "bytes_per_run": memory[1],
        "tells_scores": name.split(".")[0] in TELLING,
    }


def _role(value: ir.Value, normalized: Normalized) -> str:
    """What the engine feeds: the image, another input of the model, or a parameter by its name."""
    if value.name == normalized.image:
        return "image"
    return "input" if value.name in {entry.name for entry in normalized.model.graph.inputs} else str(value.name)


def _runs(model: ir.Model) -> list[list[dict[str, Any]]]:
    """The inputs of the runs whose memory is measured, with None for what grows: the images, or the steps."""
    by_images, by_steps = [], []
    for value in model.graph.inputs:
        axes = _axes(value)
        shape: list[int | None] = [axis if isinstance(axis, int) else 1 for axis in axes]
        entry = {"name": value.name, "dtype": _dtype(value)}
        by_images.append({**entry, "shape": [None, *shape[1:]] if axes[0] == BATCH else shape})
        by_steps.append({**entry, "shape": [1, None, *shape[2:]] if value.name == STEPS else shape})
    return [by_images, by_steps] if any(value.name == STEPS for value in model.graph.inputs) else [by_images]


def _dtype(value: ir.Value) -> str:
    return np.dtype(NUMPY_TYPES.get(ir.DataType(value.dtype or ir.DataType.FLOAT), np.float32)).name


def _axes(value: ir.Value) -> list[int | str]:
    return [axis if isinstance(axis, int) else str(axis.value) for axis in value.shape or ()]


def describe_files(
    told: dict[str, Any],
    folder: Path,
    models: Mapping[str, ir.Model],
    normalized: Normalized,
    tensors: Sequence[Mapping[str, Any]],
) -> None:
    """Adds the graphs, with the memory that a row of each takes, and the weights to a description."""
    memory = measured_memory(folder, {graph: _runs(made) for graph, made in models.items()})
    told["graphs"] = {
        graph: _graph_entry(folder, graph, made, normalized, memory[graph]) for graph, made in models.items()
    }
    weights = folder / WEIGHTS
    if weights.exists():
        told["weights"] = {"file": WEIGHTS, "sha256": sha256_of(weights), "tensors": list(tensors)}
