"""New constants in a graph, under names that are free."""

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray


def add_constant(graph: ir.Graph, name: str, content: NDArray[np.generic]) -> ir.Value:
    """An initializer holding `content`, called `name` or, where that is taken, the same with underscores."""
    while name in graph.initializers:
        name += "_"
    array = np.ascontiguousarray(content).reshape(np.shape(content))
    value = ir.val(name, const_value=ir.tensor(array, name=name))
    graph.register_initializer(value)
    return value
