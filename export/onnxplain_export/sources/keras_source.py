"""A Keras 3 model becomes an ONNX graph through torch's exporter on that backend, through Keras' own on others."""

import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxplain.errors import ModelError
from onnxplain_export.sources.causes import root_cause

NEEDED = {"tensorflow": "tf2onnx", "jax": "jax2onnx", "torch": "onnxscript"}
"""By Keras backend: the package through which it exports."""


def model_from_keras(model: Any, example: Any = None) -> tuple[ir.Model, list[str]]:
    """The model's inference pass as a graph with a free batch axis, and what was changed.

    `example` is a batch of its input (several: a list or dict of arrays), needed where the model doesn't say its shape.
    """
    import keras  # optional, and takes seconds to import; the caller's model has done so already

    backend = str(keras.backend.backend())
    example = _example(model, example)
    if backend == "torch":  # where torch's newer exporter knows more layers than the one that Keras uses
        try:
            return _through_torch(model, example)
        except ModelError:
            pass  # Keras' own way says what is wrong, if anything is
    training = _training_flags(model)
    try:
        # The exporters that Keras uses warn of their own age.
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(action="ignore"):
            file = Path(folder) / "model.onnx"
            model(example, training=False)  # Keras exports nothing that was never called
            model.export(str(file), format="onnx", verbose=False, input_signature=[_signature(model, example)])
            graph = ir.load(file)
            ir.external_data.load_to_model(graph)
    except ImportError as error:
        package = NEEDED.get(backend, str(error.name))
        raise ModelError(
            f"exporting a Keras model on the {backend} backend needs {package}: pip install {package}"
        ) from error
    except Exception as error:  # each backend's exporter raises many kinds
        raise ModelError(f"Keras can't export {type(model).__name__} to ONNX: {root_cause(error)}") from error
    finally:
        for part, flag in training:
            part.training = flag
    _name(graph.graph, graph.graph.outputs, getattr(model, "output_names", ["output"]))
    return graph, []


def _through_torch(model: Any, example: Any) -> tuple[ir.Model, list[str]]:
    from onnxplain_export.sources.torch_source import model_from_torch  # torch is optional

    model(example, training=False)  # makes the weights of a model that was never called
    found, changes = model_from_torch(model, (example,))
    graph = found.graph
    inputs = [tensor.name for tensor in getattr(model, "inputs", None) or []]
    _name(graph, graph.inputs, inputs or ["input"])
    _name(graph, graph.outputs, getattr(model, "output_names", ["output"]))
    return found, changes


def _training_flags(model: Any) -> list[tuple[Any, bool]]:
    """Which parts of a model on the torch backend are in training mode: the exporter switches it off for good."""
    return [(part, part.training) for part in model.modules()] if hasattr(model, "modules") else []


def _example(model: Any, example: Any) -> Any:
    """The given batch as arrays, or one of zeros in the shapes that the model states."""
    from keras import tree  # as above

    if example is not None:
        return tree.map_structure(np.asarray, example)
    if not getattr(model, "inputs", None):
        raise ModelError(f"{type(model).__name__} doesn't say the shape of its input; give example=, one input batch")
    if None in [axis for tensor in model.inputs for axis in tensor.shape[1:]]:
        raise ModelError(f"{type(model).__name__} leaves axes of its input free; give example=, one input batch")
    structure = getattr(model, "input", model.inputs[0])  # a Sequential has one
    return tree.map_structure(lambda tensor: np.zeros((1, *tensor.shape[1:]), tensor.dtype), structure)


def _signature(model: Any, example: Any) -> Any:
    """The example's shapes with a free batch, under the inputs' own names, as Keras' exporter takes them."""
    from keras import InputSpec, tree  # as above

    tensors, arrays = getattr(model, "inputs", None) or [], tree.flatten(example)
    names = [tensor.name for tensor in tensors] if len(tensors) == len(arrays) else [None] * len(arrays)
    specs = [
        InputSpec(dtype=str(array.dtype), shape=(None, *array.shape[1:]), name=name)
        for array, name in zip(arrays, names, strict=True)
    ]
    return tree.pack_sequence_as(example, specs)


def _name(graph: ir.Graph, values: Sequence[ir.Value], names: Sequence[str]) -> None:
    """Gives inputs or outputs the names that the model's layers have; torch's exporters number them."""
    made = [value for node in graph.all_nodes() for value in node.outputs]
    taken = {value.name for value in [*made, *graph.inputs, *graph.initializers.values()]}
    if len(names) == len(values) == len(set(values)):
        for value, name in zip(values, names, strict=True):
            if name not in taken and not (value.is_graph_input() and value.is_graph_output()):
                value.name = name
