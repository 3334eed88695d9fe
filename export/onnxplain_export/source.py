"""Reads what people have in hand into one form: a path, a ModelProto, an onnx_ir Model or a torch module."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError
from onnxplain.errors import ModelError


@dataclass
class Source:
    """The model as it was given, and where it came from.

    `reference` is what onnxruntime runs as the truth; `changes` lists what normalisation did to the model.
    """

    model: ir.Model
    name: str
    file: str
    sha256: str
    opset: int
    reference: Path | onnx.ModelProto
    precision: str = "float32"
    changes: list[str] = field(default_factory=list)

    @property
    def producer(self) -> str:
        """The tool that wrote the model, with its version where it said so."""
        return " ".join(filter(None, (self.model.producer_name, self.model.producer_version))) or "unknown"


def read_source(given: Any, example: Any = None, name: str | None = None) -> Source:
    """The model behind `given`: a path, an onnx.ModelProto, an onnx_ir.Model, or a torch.nn.Module with an `example`."""
    if isinstance(given, str | Path):
        return _from_path(Path(given), name)
    if isinstance(given, onnx.ModelProto):
        return _described(ir.from_proto(given), name or given.graph.name or "model", "(ModelProto)")
    if isinstance(given, ir.Model):
        return _described(given.clone(), name or given.graph.name or "model", "(onnx_ir.Model)")
    if any(base.__module__.startswith("torch.") for base in type(given).__mro__):
        from onnxplain_export.torch_source import model_from_torch  # torch is optional and takes seconds to import

        return _described(model_from_torch(given, example), name or type(given).__name__, "(torch module)")
    raise ModelError(
        f"can't export a {type(given).__name__}; give a path, a ModelProto, an onnx_ir.Model or a torch module"
    )


def _from_path(path: Path, name: str | None) -> Source:
    if not path.is_file():
        raise ModelError(f"{path}: no such file" if not path.exists() else f"{path}: is not a file")
    content = path.read_bytes()
    try:
        proto = onnx.load_model_from_string(content)
    except DecodeError as error:
        raise ModelError(f"{path}: not an ONNX model, or truncated ({error})") from None
    if not proto.graph.node or not proto.opset_import:
        raise ModelError(f"{path}: not an ONNX model (no graph, or no operator set)")
    _check_external_data(proto, path)
    try:
        model = ir.load(path)
    except (ValueError, TypeError, KeyError) as error:
        raise ModelError(f"{path}: can't be read as an ONNX graph: {error}") from error
    source = _described(model, name or path.stem, path.name, hashlib.sha256(content).hexdigest())
    source.reference = path
    return source


def _described(model: ir.Model, name: str, file: str, sha256: str | None = None) -> Source:
    opset = model.opset_imports.get("", model.opset_imports.get("ai.onnx"))
    if opset is None:
        raise ModelError(f"{file}: the model uses no standard (ai.onnx) operators")
    _check_weights(model, file)
    reference = ir.to_proto(model) if sha256 is None else onnx.ModelProto()
    digest = sha256 or hashlib.sha256(reference.SerializeToString(deterministic=True)).hexdigest()
    return Source(model, name, file, digest, opset, reference)


def _check_external_data(proto: onnx.ModelProto, path: Path) -> None:
    """Refuses weights outside the model's folder, missing ones, and ones that reach past the end of their file."""
    folder = path.parent.resolve()
    for tensor in proto.graph.initializer:
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        file = (folder / location).resolve()
        if not location or Path(location).is_absolute() or not file.is_relative_to(folder):
            raise ModelError(f"{path}: tensor {tensor.name!r} keeps its data outside the model's folder ({location!r})")
        if not file.is_file():
            raise ModelError(f"{path}: tensor {tensor.name!r} keeps its data in {location!r}, which is missing")
        needed = int(entries.get("offset", 0)) + int(entries.get("length", 0))
        if needed > file.stat().st_size:
            raise ModelError(f"{path}: {location!r} is truncated: tensor {tensor.name!r} ends at byte {needed}")


def _check_weights(model: ir.Model, file: str) -> None:
    """Refuses NaN and infinities: a model with them gives plausible nonsense."""
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if tensor is None or not tensor.dtype.is_floating_point():
            continue
        try:
            array = tensor.numpy()
        except (ValueError, OSError) as error:
            raise ModelError(f"{file}: tensor {value.name!r} can't be read: {error}") from error
        if not np.isfinite(array.astype(np.float32, copy=False)).all() and not _is_mask(array):
            raise ModelError(f"{file}: tensor {value.name!r} holds NaN or infinite values")


def _is_mask(array: np.ndarray) -> bool:
    """Whether the only non-finite value is −inf beside finite ones: an attention mask, not a broken weight."""
    values = array.astype(np.float32, copy=False)
    return (
        not np.isnan(values).any() and not np.isposinf(values).any() and bool((values[np.isfinite(values)] == 0).all())
    )
