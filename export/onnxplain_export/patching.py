"""Writes a copy of a bundle's graphs and weights with other numbers in the places that a recipe names."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxplain.errors import BundleError, DivergedError
from onnxplain_export.recipe import Stored
from onnxplain_export.sources.source import is_mask

Results = Mapping[str, NDArray[Any]]


def write_patched(source: Path, target: Path, files: Mapping[str, str], weights: str | None, patch: "Patch") -> None:
    """Writes the graphs (`files` by name) and the weights file of the bundle `source` into the folder `target`."""
    for name, file in files.items():
        own = patch.of_graph(name)
        if own:
            (target / file).write_bytes(patched_graph((source / file).read_bytes(), own))
        else:
            shutil.copyfile(source / file, target / file)
    if weights is not None:
        shutil.copyfile(source / weights, target / weights)
        _patch_weights(target / weights, patch)


def is_already(folder: Path, files: Mapping[str, str], weights: str | None, patch: "Patch") -> bool:
    """Whether a bundle holds exactly what would be written there."""
    for name, file in files.items():
        own, content = patch.of_graph(name), (folder / file).read_bytes()
        if own and patched_graph(content, own) != onnx.load_model_from_string(content).SerializeToString():
            return False
    if weights is None:
        return True
    stored = np.memmap(folder / weights, np.uint8, "r")
    return all(stored[offset : offset + len(content)].tobytes() == content for offset, content in patch.of_weights())


class Patch:
    """What is to stand in each place, checked to be of its type and shape and finite."""

    def __init__(self, stored: Sequence[Stored], results: Results) -> None:
        self._stored, self._results = stored, results
        for one in stored:
            found = results[one.value]
            if list(found.shape) != one.shape or found.dtype.name != one.dtype:
                kind = f"{found.dtype.name} {list(found.shape)}"
                raise BundleError(f"{one.value} would be {kind}, not {one.dtype} {one.shape}; export the bundle again")
            if not np.isfinite(found).all() and not is_mask(found):
                raise DivergedError(f"{one.value!r} holds NaN or infinite values; has the training diverged?")

    def of_graph(self, graph: str) -> dict[str, NDArray[Any]]:
        """The new contents of a graph's own initializers by name."""
        return {one.name: self._results[one.value] for one in self._stored if one.graph == graph}

    def of_weights(self) -> Iterator[tuple[int, bytes]]:
        """Where something begins in the weights file, and its bytes."""
        for one in self._stored:
            if not one.graph:
                yield one.offset, np.ascontiguousarray(self._results[one.value]).tobytes()


def patched_graph(content: bytes, own: Mapping[str, NDArray[Any]]) -> bytes:
    """A graph's file with other contents in the initializers of these names, those of bodies and branches too."""
    model = onnx.load_model_from_string(content)
    left = set(own)
    for tensor in _initializers(model.graph):
        if tensor.name in own:
            array = own[tensor.name]  # a scalar's own shape is lost by ascontiguousarray
            whole = np.ascontiguousarray(array).reshape(array.shape)
            tensor.CopyFrom(onnx.numpy_helper.from_array(whole, tensor.name))
            left.discard(tensor.name)
    if left:
        raise BundleError(f"there is no {min(left)!r} in a graph that should hold it; export the bundle again")
    return model.SerializeToString()


def _initializers(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs):
                yield from _initializers(body)


def _patch_weights(file: Path, patch: Patch) -> None:
    with file.open("r+b") as stream:
        for offset, content in patch.of_weights():
            stream.seek(offset)
            stream.write(content)
