"""Puts graphs of a bundle together into one: nodes side by side or in the body of a loop, every weight once."""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from onnxplain.bundle import Bundle, Graph
from onnxplain_export.emitter import IR_VERSION, OPSET, Emitter, copied, dims
from onnxplain_export.normalize import BATCH

Dims = Sequence[int | str]
SAME = (BATCH, "T")
"""The axes that mean the same in every graph."""


class Assembly:
    """A graph under construction, out of the graphs of `bundle`; `op` emits into it."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self.graph = ir.Graph([], [], nodes=[], opset_imports={"": OPSET}, name="single")
        self.model = ir.Model(self.graph, ir_version=IR_VERSION, producer_name="onnxplain")
        self.op = Emitter(self.graph, "single")
        self._weights: dict[tuple[object, ...], ir.Value] = {}
        self._named: set[str] = set()
        self._embedded = 0

    def input(self, name: str, shape: Dims, dtype: ir.DataType = ir.DataType.FLOAT) -> ir.Value:
        """A new required input."""
        value = ir.val(name, dtype, list(shape))
        self.graph.inputs.append(value)
        return value

    def output(self, name: str, value: ir.Value, shape: Dims, dtype: ir.DataType = ir.DataType.FLOAT) -> None:
        """Makes `value` an output under `name`."""
        result = self.op.Identity(value)
        result.name, result.shape, result.type = name, ir.Shape(list(shape)), ir.TensorType(dtype)
        self.graph.outputs.append(result)

    def embed(
        self,
        name: str,
        feeds: Mapping[str, ir.Value],
        into: ir.Graph | None = None,
        weights_in: ir.Graph | None = None,
    ) -> dict[str, ir.Value]:
        """The outputs of a copy of the bundle's graph `name`, fed by role; its nodes go `into` a body, if given.

        Weights and constants are held once by the outer graph, or by the body `weights_in`.
        """
        described = self.bundle.graphs[name]
        read = ir.load(self.bundle.path / described.file).graph
        self._embedded += 1
        home = self.graph if weights_in is None else weights_in  # an empty graph is false
        copy = copied(read, f"{name}/{self._embedded}")
        for old, new in zip(read.initializers.values(), list(copy.initializers.values()), strict=True):
            ir.convenience.replace_all_uses_with(new, self._weight(old, home))
        copy.initializers.clear()
        for value, role in zip(copy.inputs, _keys(described, read), strict=True):
            ir.convenience.replace_all_uses_with(value, feeds[role])
        found = {str(old.name): new for old, new in zip(read.outputs, list(copy.outputs), strict=True)}
        _tell_axes_apart(copy, self._embedded)
        nodes = list(copy)
        copy.outputs.clear()
        copy.remove(nodes)
        (self.graph if into is None else into).extend(nodes)
        return found

    def shape_of(self, graph: str, output: str) -> list[int | str]:
        """The shape of a bundle graph's output, with 1 for an axis of the step table."""
        read = ir.load(self.bundle.path / self.bundle.graphs[graph].file).graph
        value = next(value for value in read.outputs if value.name == output)
        return [1 if axis == "S" else axis or 1 for axis in dims(value) or ()]

    def _weight(self, value: ir.Value, home: ir.Graph) -> ir.Value:
        """The initializer of `home` that holds what `value` holds; the first of its content gives it its name."""
        tensor = value.const_value
        if tensor is None:
            raise RuntimeError(f"{value.name} has no content")
        if isinstance(tensor, ir.ExternalTensor):
            key: tuple[object, ...] = (
                home.name,
                tensor.offset,
                tensor.length,
                tensor.dtype,
                tuple(tensor.shape.numpy()),
            )
        else:
            key = (home.name, tensor.tobytes(), tensor.dtype, tuple(tensor.shape.numpy()))
        if key not in self._weights:
            name = str(value.name) if value.name not in self._named else f"{value.name}/{len(self._weights)}"
            self._named.add(name)
            content = ir.Tensor(np.array(tensor.numpy()), dtype=tensor.dtype, name=name)
            self._weights[key] = ir.val(name, const_value=content)
            home.register_initializer(self._weights[key])
        return self._weights[key]


def _keys(described: Graph, read: ir.Graph) -> list[str]:
    """What the engine would feed to each input, in the file's own order."""
    keys = {entry.name: entry.key for entry in described.inputs}
    return [keys[str(value.name)] for value in read.inputs]


def _tell_axes_apart(graph: ir.Graph, number: int) -> None:
    """Gives free axes, but those of images and targets, names of their own: onnxruntime trusts that equal names mean
    equal sizes, and another copy may take more steps."""
    for node in graph.all_nodes():
        for value in node.outputs:
            axes = dims(value)
            if axes is not None and any(isinstance(axis, str) and axis not in SAME for axis in axes):
                value.shape = ir.Shape([f"{a}/{number}" if isinstance(a, str) and a not in SAME else a for a in axes])
