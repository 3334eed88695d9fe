"""Reads what people have in hand into one form; each framework's own way to ONNX has a module of its own."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnx_ir.passes.common as passes
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # onnx brings it, without types
from numpy.typing import NDArray

from onnxplain.errors import DivergedError, ModelError
from onnxplain_export.sources.causes import root_cause
from onnxplain_export.sources.recognition import frameworks, refusal, refuse_other_file


@dataclass
class Source:
    """The model as it was given, and where it came from.

    `changes` lists what was done to it on the way. `labels` are the classes' names where the model knows them.
    `activation` is what makes probabilities of scores that don't end in a softmax or sigmoid, where that is known.
    `examples` [rows, …] are inputs like those that the model is made for, where it knows some: proofs are made on them.
    Where the weights were `rounded`, what is exported differs from the model by that. `learned` are the initializers
    that are a framework's own tensors, under its names, where a framework's model was given.
    """

    model: ir.Model
    name: str
    file: str
    sha256: str
    opset: int
    precision: str = "float32"
    changes: list[str] = field(default_factory=list)
    labels: tuple[str, ...] | None = None
    activation: str | None = None
    examples: NDArray[np.float32] | None = None
    rounded: bool = False
    learned: frozenset[str] | None = None

    @property
    def producer(self) -> str:
        """The tool that wrote the model, with its version where it said so."""
        return " ".join(filter(None, (self.model.producer_name, self.model.producer_version))) or "unknown"


def read_source(given: Any, example: Any = None, name: str | None = None) -> Source:
    """The model behind `given`.

    That is a path, an onnx.ModelProto, an onnx_ir.Model, a torch module, ExportedProgram or ONNXProgram, a Keras model,
    or a scikit-learn estimator or pipeline. A torch module needs an `example` batch: one array, or several as a tuple
    or by name.
    """
    if isinstance(given, str | Path):
        return _from_path(Path(given), name)
    if isinstance(given, onnx.ModelProto):
        return _from_proto(given, name or given.graph.name or "model", "(ModelProto)")
    if isinstance(given, ir.Model):
        return _from_model(given, name or given.graph.name or "model", "(onnx_ir.Model)")
    made_with = frameworks(given)
    name = name or type(given).__name__
    # Each of these packages is optional and takes seconds to import; whoever holds such a model has imported it.
    if (
        "keras" in made_with and "tf_keras" not in made_with
    ):  # before torch: on that backend, a Keras model is a torch module too
        from onnxplain_export.sources.keras_source import model_from_keras

        return _learning(given, _from_framework(*model_from_keras(given, example), name, "(Keras model)"))
    if "torch" in made_with:
        from onnxplain_export.sources.torch_source import model_from_torch

        return _learning(given, _from_framework(*model_from_torch(given, example), name, "(torch module)"))
    if "sklearn" in made_with:
        from onnxplain_export.sources.sklearn_source import converted_from_sklearn

        converted = converted_from_sklearn(given, example)
        source = _from_proto(converted.proto, name, "(scikit-learn estimator)")
        # What scikit-learn answers is never turned into probabilities a second time.
        source.labels, source.examples, source.activation = converted.labels, converted.rows, "none"
        return source
    raise ModelError(refusal(given))


def _learning(given: Any, source: Source) -> Source:
    """The source, knowing which of its tensors are those that a torch module (also a Keras model's) trains."""
    if "torch" in frameworks(given):
        from onnxplain_export.sources.torch_parameters import learned_names

        source.learned = learned_names(given, source.model.graph)
    return source


def _from_path(path: Path, name: str | None) -> Source:
    refuse_other_file(path)
    try:
        content = path.read_bytes()
        proto = onnx.load_model_from_string(content)
    except OSError as error:
        raise ModelError(f"{path}: can't be read ({error.strerror})") from None
    except DecodeError as error:
        raise ModelError(f"{path}: not an ONNX model, or truncated ({error})") from None
    model = _deserialized(proto, str(path))
    ir.external_data.set_base_dir(model.graph, path.parent)
    for _, tensor in _tensors(model):
        if isinstance(tensor, ir.ExternalTensor):
            _check_external(tensor, path)
    return _described(model, name or path.stem, path.name, hashlib.sha256(content).hexdigest())


def _from_proto(proto: onnx.ModelProto, name: str, file: str) -> Source:
    copy = onnx.ModelProto()  # tensors of the model read from a proto write through to it
    copy.CopyFrom(proto)
    model = _deserialized(copy, file)
    if any(isinstance(tensor, ir.ExternalTensor) for _, tensor in _tensors(model)):
        raise ModelError(f"{file}: its weights are in another file; give the model's path instead")
    return _described(model, name, file, hashlib.sha256(proto.SerializeToString(deterministic=True)).hexdigest())


def _from_model(given: ir.Model, name: str, file: str) -> Source:
    model = given.clone()
    try:
        ir.external_data.load_to_model(model)
    except (OSError, ValueError) as error:
        raise ModelError(f"{file}: its weights can't be read: {error}") from None
    return _described(
        model, name, file, hashlib.sha256(ir.to_proto(model).SerializeToString(deterministic=True)).hexdigest()
    )


def _from_framework(model: ir.Model, changes: list[str], name: str, file: str) -> Source:
    source = _from_model(model, name, file)
    source.changes.extend(changes)
    return source


def _deserialized(proto: onnx.ModelProto, file: str) -> ir.Model:
    if not proto.graph.node or not proto.opset_import:
        raise ModelError(f"{file}: not an ONNX model (no graph, or no operator set)")
    _drop_maps(proto, file)
    _check_names(proto.graph, file)
    try:
        model = ir.from_proto(proto)
        passes.TopologicalSortPass()(model)
        return model
    except Exception as error:  # the reader raises many kinds on malformed content, SerdeError and TypeError among them
        raise ModelError(f"{file}: can't be read as an ONNX graph: {root_cause(error)}") from error


def _check_names(graph: onnx.GraphProto, file: str) -> None:
    """Refuses a graph whose nodes read what nothing makes: a damaged file. (Some exporters don't sort their nodes.)"""
    known = {"", *(value.name for value in graph.input), *(tensor.name for tensor in graph.initializer)}
    known.update(tensor.values.name for tensor in graph.sparse_initializer)
    known.update(name for node in graph.node for name in node.output)
    for node in graph.node:
        unknown_names = [name for name in node.input if name not in known]
        if unknown_names or not all(isinstance(name, str) for name in (*node.input, *node.output, node.op_type)):
            raise ModelError(
                f"{file}: damaged: {node.op_type} (node {node.name!r}) reads {unknown_names}, which nothing makes"
            )
    for value in graph.output:
        if value.name not in known:
            raise ModelError(f"{file}: damaged: nothing makes its output {value.name!r}")


def _drop_maps(proto: onnx.ModelProto, file: str) -> None:
    """Takes away outputs that are no tensors (scikit-learn's ZipMap), which neither onnx_ir nor an explainer knows."""
    for values in (proto.graph.output, proto.graph.value_info):
        kept = [value for value in values if value.type.WhichOneof("value") in (None, "tensor_type")]
        if not kept and len(values) and values is proto.graph.output:
            raise ModelError(f"{file}: none of its outputs is a tensor; export it without ZipMap")
        if len(kept) < len(values):
            del values[:]
            values.extend(kept)


def _described(model: ir.Model, name: str, file: str, sha256: str) -> Source:
    opset = model.opset_imports.get("", model.opset_imports.get("ai.onnx"))
    if opset is None:
        raise ModelError(f"{file}: the model uses no standard (ai.onnx) operators")
    for where, tensor in _tensors(model):
        _check_finite(tensor, where, file)
    return Source(model, name, file, sha256, opset)


def _tensors(model: ir.Model) -> Iterator[tuple[str, ir.TensorProtocol]]:
    """Every tensor in the file with what to call it: initializers and the values of nodes, subgraphs included."""
    for graph in model.graphs():
        for value in graph.initializers.values():
            if value.const_value is not None:
                yield f"tensor {value.name!r}", value.const_value
    for node in model.graph.all_nodes():
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.TENSOR:
                yield f"{node.op_type} (output {node.outputs[0].name!r})", attribute.as_tensor()


def _check_external(tensor: ir.ExternalTensor, path: Path) -> None:
    """Refuses weights outside the model's folder, missing ones, and ones that reach past the end of their file."""
    folder, location = path.parent.resolve(), str(tensor.location)
    file = (folder / location).resolve()
    if not location or Path(location).is_absolute() or not file.is_relative_to(folder):
        raise ModelError(f"{path}: tensor {tensor.name!r} keeps its data outside the model's folder ({location!r})")
    if not file.is_file():
        raise ModelError(f"{path}: tensor {tensor.name!r} keeps its data in {location!r}, which is missing")
    start = tensor.offset or 0
    end = start + max(tensor.length or 0, tensor.nbytes)
    if start < 0 or end > file.stat().st_size:
        raise ModelError(f"{path}: {location!r} is truncated: tensor {tensor.name!r} ends at byte {end}")


def _check_finite(tensor: ir.TensorProtocol, where: str, file: str) -> None:
    """Refuses NaN and infinities: a model with them gives plausible nonsense."""
    if not tensor.dtype.is_floating_point():
        return
    try:
        array = np.asarray(tensor.numpy())
    except (ValueError, TypeError, OSError) as error:
        raise ModelError(f"{file}: {where} can't be read: {error}") from error
    with np.errstate(over="ignore"):  # a double beyond float32 becomes infinite, and is reported
        values = array.astype(np.float32, copy=False)
    if not np.isfinite(values).all() and not is_mask(values):
        raise DivergedError(f"{file}: {where} holds NaN or infinite values")


def is_mask(values: NDArray[np.float32]) -> bool:
    """Whether the values are 0 and −inf, or −inf alone: an attention mask or a pad value, not a broken weight."""
    finite = values[np.isfinite(values)]
    return not np.isnan(values).any() and not np.isposinf(values).any() and not finite.any()
