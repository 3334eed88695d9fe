"""Runs a graph on onnxruntime's CPU during export, for proofs."""

import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from onnxplain.errors import ModelError

Feeds = Mapping[str, np.ndarray]


def session_of(model: ir.Model | onnx.ModelProto | Path) -> onnxruntime.InferenceSession:
    """A quiet CPU session; what onnxruntime itself refuses becomes a ModelError."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        if isinstance(model, Path):
            return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        return _session_in_memory(model, options)
    except Exception as error:  # onnxruntime's error classes share no base but Exception
        raise ModelError(f"onnxruntime can't load the model: {str(error).splitlines()[0]}") from error


def run(session: onnxruntime.InferenceSession, feeds: Feeds, outputs: list[str] | None = None) -> list[np.ndarray]:
    """The outputs for `feeds`; a failing run becomes a ModelError."""
    try:
        return [np.asarray(result) for result in session.run(outputs, dict(feeds))]
    except Exception as error:  # as above
        raise ModelError(f"onnxruntime can't run the model: {str(error).splitlines()[0]}") from error


def _session_in_memory(
    model: ir.Model | onnx.ModelProto, options: onnxruntime.SessionOptions
) -> onnxruntime.InferenceSession:
    providers = ["CPUExecutionProvider"]
    size = (
        sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value)
        if isinstance(model, ir.Model)
        else 0
    )
    if size < 1 << 30:
        proto = ir.to_proto(_loaded(model)) if isinstance(model, ir.Model) else model
        return onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=providers)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        ir.save(
            _loaded(model) if isinstance(model, ir.Model) else ir.from_proto(model), path, external_data="model.data"
        )
        return onnxruntime.InferenceSession(str(path), options, providers=providers)


def _loaded(model: ir.Model) -> ir.Model:
    """A copy whose external tensors are in memory; the original stays lazy."""
    copy = model.clone()
    ir.external_data.load_to_model(copy)
    return copy
