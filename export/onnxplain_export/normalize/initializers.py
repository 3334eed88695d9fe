"""New constants in a graph, under names that are free."""

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxplain_export.origins import Known, attach


def add_constant(graph: ir.Graph, name: str, content: NDArray[np.generic] | Known) -> ir.Value:
    """An initializer holding `content`, called `name` or, where that is taken, the same with underscores."""
    while name in graph.initializers:
        name += "_"
    found = content if isinstance(content, Known) else Known(content)
    array = np.ascontiguousarray(found.content).reshape(found.content.shape)
    value = attach(ir.val(name, const_value=ir.tensor(array, name=name)), found.origin)
    graph.register_initializer(value)
    return value
