"""What `refresh` is given: new weights under the names by which a bundle knows its source's tensors."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from onnxplain.errors import DivergedError, ModelError, unknown
from onnxplain_export.evaluate import NUMPY_TYPES, run, session_of
from onnxplain_export.normalize import Options, converted
from onnxplain_export.normalize.opset import runnable
from onnxplain_export.origins import digest, source_tensors
from onnxplain_export.recipe import Recipe
from onnxplain_export.sources import Source, read_source
from onnxplain_export.sources.recognition import frameworks
from onnxplain_export.sources.source import is_mask
from onnxplain_export.structure import matched_weights, structure_of

Array = NDArray[Any]
Outputs = Callable[[Sequence[Array]], list[Array]]
"""The source's outputs for a batch of each of its inputs."""
OTHER_FLOATS = ("float16", "float64", "bfloat16")


@dataclass(frozen=True)
class NewWeights:
    """The tensors by the source's names, what the network with them answers (None: unknown), and what it is called."""

    tensors: Mapping[str, Array]
    outputs: Outputs | None
    file: str
    sha256: str
    precision: str | None = None


def new_weights(given: Any, recipe: Recipe, example: Any = None) -> NewWeights:
    """The weights of a file, a proto, a module, a Keras model or a mapping of arrays.

    Raises ModelError, naming the first difference, where they aren't those of a network built alike.
    """
    if isinstance(given, Mapping):
        return _checked(NewWeights(_arrays(given), None, "(weights)", ""), recipe)
    if recipe.learned is not None and "torch" in frameworks(given) and not _is_exported(given):
        return _checked(_of_module(given), recipe)
    return _checked(_of_graph(read_source(given, example), recipe), recipe)


def _is_exported(given: Any) -> bool:
    """Whether torch has already made a graph of it."""
    return type(given).__name__ in ("ExportedProgram", "ONNXProgram")


def _of_module(given: Any) -> NewWeights:
    from onnxplain_export.sources.torch_parameters import parameters_of
    from onnxplain_export.sources.torch_running import outputs_of  # torch is optional

    return NewWeights(parameters_of(given), lambda inputs: outputs_of(given, inputs), f"({type(given).__name__})", "")


def _of_graph(source: Source, recipe: Recipe) -> NewWeights:
    """The weights of another graph of the same structure, whatever it calls them."""
    model, _ = converted(source, Options(quantized=recipe.quantized))
    names = matched_weights(recipe.structure, structure_of(model))
    held = {name: value.const_value.numpy() for name, value in source_tensors(model) if value.const_value is not None}
    tensors = {old: held[new] for old, new in names.items() if new in held}
    return NewWeights(tensors, lambda inputs: _outputs(source, inputs), source.file, source.sha256, source.precision)


def _outputs(source: Source, inputs: Sequence[Array]) -> list[Array]:
    session = session_of(runnable(source.model.clone()))
    rows = len(inputs[0])
    each = [run(session, _row(session, inputs, row)) for row in range(rows)]
    return [np.concatenate([np.atleast_1d(one[index])[:1] for one in each]) for index in range(len(each[0]))]


def _row(session: onnxruntime.InferenceSession, inputs: Sequence[Array], row: int) -> dict[str, Array]:
    """One image's inputs as the source takes them, repeated where it fixes the batch."""
    feeds: dict[str, Array] = {}
    for entry, batch in zip(session.get_inputs(), inputs, strict=True):
        one = batch[row : row + 1]
        repeats = entry.shape[0] if entry.shape and isinstance(entry.shape[0], int) else 1
        feeds[entry.name] = np.repeat(one, repeats, axis=0).astype(NUMPY_TYPES.get(entry.type, np.float32))
    return feeds


def _arrays(given: Mapping[Any, Any]) -> dict[str, Array]:
    """The arrays of a mapping, such as a module's state_dict."""
    found: dict[str, Array] = {}
    for name, tensor in given.items():
        tensor = tensor.detach().to("cpu") if hasattr(tensor, "detach") else tensor  # torch's, without importing it
        is_bfloat16 = str(getattr(tensor, "dtype", "")) == "torch.bfloat16"
        found[str(name)] = np.asarray(tensor.float() if is_bfloat16 else tensor)
    return found


def _checked(new: NewWeights, recipe: Recipe) -> NewWeights:
    """The weights in the precision that the bundle computes in; ModelError names the first that doesn't fit."""
    tensors: dict[str, Array] = {}
    for name, (dtype, shape) in recipe.needed.items():
        if name not in new.tensors:
            raise ModelError(f"{new.file} lacks a weight of the bundle's network: {unknown('name', name, new.tensors)}")
        tensors[name] = _as_read(new.tensors[name])
        if list(tensors[name].shape) != list(shape):
            raise ModelError(f"the weight {name!r} has shape {list(tensors[name].shape)}, not {list(shape)}")
        if tensors[name].dtype.kind == "f" and not np.isfinite(tensors[name]).all() and not is_mask(tensors[name]):
            raise DivergedError(f"the weight {name!r} holds NaN or infinite values; has the training diverged?")
        if tensors[name].dtype.name != dtype:
            raise ModelError(f"the weight {name!r} holds {tensors[name].dtype.name}, not {dtype}")
    for name, expected in recipe.pinned.items():
        if name in new.tensors and digest(_as_read(new.tensors[name])) != expected:
            raise ModelError(f"{name!r} has changed, by which the bundle's graphs were built; export the network again")
    sha256 = new.sha256 or _sha256(tensors)
    return NewWeights(tensors, new.outputs, new.file, sha256, new.precision)


def _as_read(tensor: Array) -> Array:
    return tensor.astype(np.float32) if tensor.dtype.name in OTHER_FLOATS else tensor


def _sha256(tensors: Mapping[str, Array]) -> str:
    """A hash of all names and contents."""
    found = hashlib.sha256()
    for name in sorted(tensors):
        found.update(f"{name} {digest(tensors[name])}\n".encode())
    return found.hexdigest()
