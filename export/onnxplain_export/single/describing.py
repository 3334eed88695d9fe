"""The description that a single file carries in its metadata: explainer.json, with the one graph and what is free."""

from collections.abc import Mapping
from typing import Any

import onnx_ir as ir

from onnxplain.bundle import Bundle
from onnxplain.result import plain_parameters
from onnxplain_export.normalize import BATCH
from onnxplain_export.single.asked import Asked

SIDE = 256
"""Height and width of the pictures whose memory is measured."""


def single_description(
    told: Mapping[str, Any], bundle: Bundle, wanted: Asked, graph: Mapping[str, Any]
) -> dict[str, Any]:
    """The bundle's description for the file: its graph "single", its method with the parameters that are left free."""
    entry = told["methods"][wanted.method.name]
    kept = {name: entry["parameters"][name] for name in wanted.free}
    # What a free parameter was set to is its default in the file.
    plain = plain_parameters(wanted.parameters)
    for name in wanted.free:
        if isinstance(plain[name], int | float | str):
            kept[name] = {**kept[name], "default": plain[name]}
    described = {**told, "weights": None, "graphs": {"single": dict(graph)}, "left_out": {}, "layers": []}
    described["methods"] = {
        wanted.method.name: {
            **entry,
            "graph": "single",
            "beside": [],
            "plan": "single",
            "loop": "single",
            "finish": "mean",
            "parameters": kept,
        }
    }
    if wanted.picture_input:
        value = bundle.value
        described["value"] = {"name": value.name, "shape": list(value.shape), "layout": value.layout}
    described["single"] = {
        "method": wanted.method.name,
        "parameters": plain,
        "free": list(wanted.free),
        "rows": wanted.rows,
        "picture_input": wanted.picture_input,
        "picture_output": wanted.picture_output,
    }
    return described


def graph_entry(model: ir.Model, bundle: Bundle, name: str) -> dict[str, Any]:
    """The entry of the graph, all but its memory."""
    return {
        "file": name,
        "sha256": "",
        "inputs": [
            {"name": value.name, "role": _role(str(value.name), bundle), "dtype": _dtype(value), "shape": _axes(value)}
            for value in model.graph.inputs
        ],
        "outputs": [{"name": v.name, "dtype": _dtype(v), "shape": _axes(v)} for v in model.graph.outputs],
        "columns": None,
        "tells_scores": True,
    }


def memory_runs(model: ir.Model) -> list[dict[str, Any]]:
    """The inputs of a run whose memory is measured, with None for the images."""
    sides = {"H": SIDE, "W": SIDE}
    entries = []
    for value in model.graph.inputs:
        shape = [axis if isinstance(axis, int) else sides.get(axis, 1) for axis in _axes(value)]
        per_image = _axes(value)[0] == BATCH
        entries.append(
            {"name": value.name, "dtype": _dtype(value), "shape": [None, *shape[1:]] if per_image else shape}
        )
    return entries


def _role(name: str, bundle: Bundle) -> str:
    if name == bundle.image.name:
        return "image"
    return "input" if name in {entry.name for entry in bundle.others} else name


def _dtype(value: ir.Value) -> str:
    return ir.DataType(value.dtype or ir.DataType.FLOAT).numpy().name


def _axes(value: ir.Value) -> list[int | str]:
    return [axis if isinstance(axis, int) else str(axis.value) for axis in value.shape or ()]
