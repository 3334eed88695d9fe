"""Runs a graph on onnxruntime's CPU during export, for proofs."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
from numpy.typing import NDArray

from onnxplain.errors import ModelError
from onnxplain.sessions import WHOLE_PRODUCTS
from onnxplain.system import threads_of_a_run

Feeds = Mapping[str, NDArray[Any]]
LARGEST_PROTO = 1 << 30
"""Bytes of weights; a model with more goes through a file."""

NUMPY_TYPES: dict[str, type] = {
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
    "tensor(int8)": np.int8,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(bool)": np.bool_,
}
"""By onnxruntime's name of an input's type; float32 is the rest."""


def session_of(model: ir.Model | Path) -> onnxruntime.InferenceSession:
    """A quiet CPU session; what onnxruntime itself refuses becomes a ModelError."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads_of_a_run(None)
    options.add_session_config_entry("session.force_spinning_stop", "1")  # proofs go from one session to the next
    options.add_session_config_entry(*WHOLE_PRODUCTS)
    try:
        if isinstance(model, Path):
            return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        return _session_in_memory(model, options)
    except Exception as error:  # onnxruntime's error classes share no base but Exception
        raise ModelError(f"onnxruntime can't load the model: {first_line(error)}") from error


def run(session: onnxruntime.InferenceSession, feeds: Feeds, outputs: list[str] | None = None) -> list[NDArray[Any]]:
    """The outputs for `feeds`; a failing run becomes a ModelError."""
    try:
        return [np.asarray(result) for result in session.run(outputs, dict(feeds))]
    except Exception as error:  # as above
        raise ModelError(f"onnxruntime can't run the model: {first_line(error)}") from error


def first_line(error: BaseException) -> str:
    """What an error says, without the listing below it."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def _session_in_memory(model: ir.Model, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
    providers = ["CPUExecutionProvider"]
    loaded = model.clone()  # the original's external tensors stay lazy
    ir.external_data.load_to_model(loaded)
    if (
        sum(value.const_value.nbytes for value in loaded.graph.initializers.values() if value.const_value)
        < LARGEST_PROTO
    ):
        return onnxruntime.InferenceSession(ir.to_proto(loaded).SerializeToString(), options, providers=providers)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        ir.save(loaded, path, external_data="model.data")
        return onnxruntime.InferenceSession(str(path), options, providers=providers)
