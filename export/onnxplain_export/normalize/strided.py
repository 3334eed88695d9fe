"""Reads of a flattened value at computed places, where these are all its entries in their own order.

torch's exporter writes the view that an adaptive pooling to one place returns (`as_strided`) so.
"""

from collections.abc import Iterator

import numpy as np
import onnx
import onnx.reference
import onnx_ir as ir
from numpy.typing import NDArray

from onnxplain_export.emitter import OPSET, attribute, constant_of, dims
from onnxplain_export.normalize.initializers import add_constant

BATCHES = (1, 2, 5)
"""Tried in the batch's place: places that count every entry for these count them for any."""
LARGEST = 1 << 20
"""Entries of one image; places of more are left alone, for trying them takes as much memory."""


def read_views_in_order(graph: ir.Graph) -> int:
    """Makes Reshapes of such reads; how many there were. Shapes must have been inferred."""
    return sum(_made_reshape(graph, node) for node in list(graph))


def _made_reshape(graph: ir.Graph, node: ir.Node) -> bool:
    source, places = _flattened(node), node.inputs[1] if node.op_type == "Gather" else None
    axes = () if source is None else dims(source) or ()
    if source is None or places is None or len(axes) < 2 or not all(isinstance(axis, int) for axis in axes[1:]):
        return False
    entries = int(np.prod([int(str(axis)) for axis in axes[1:]]))
    steps = _computed_from_shapes(places) if isinstance(axes[0], str) and entries <= LARGEST else None
    tried = [None if steps is None else _at(steps, places, str(axes[0]), batch) for batch in BATCHES]
    for batch, found in zip(BATCHES, tried, strict=True):
        if found is None or found.shape[:1] != (batch,) or found.size != batch * entries:
            return False
        if not np.array_equal(found.ravel(), np.arange(found.size)):
            return False
    rest = [] if tried[0] is None else list(tried[0].shape[1:])
    node.op_type = "Reshape"
    node.attributes.clear()
    node.replace_input_with(0, source)
    node.replace_input_with(1, add_constant(graph, f"{node.name}/shape", np.array([-1, *rest], np.int64)))
    node.outputs[0].shape = None
    return True


def _flattened(node: ir.Node) -> ir.Value | None:
    """What a Gather reads the flattened entries of."""
    if node.op_type != "Gather" or attribute(node, "axis", 0) != 0 or node.outputs[0].is_graph_output():
        return None
    flat = None if node.inputs[0] is None else node.inputs[0].producer()
    if flat is None or flat.op_type != "Reshape":
        return None
    shape = constant_of(flat.inputs[1])
    return flat.inputs[0] if shape is not None and list(shape) == [-1] else None


def _computed_from_shapes(places: ir.Value) -> list[ir.Node] | None:
    """The nodes, in order, that compute a value from shapes and constants; None where it rests on anything else."""
    found: dict[ir.Node, None] = {}

    def visit(value: ir.Value | None) -> bool:
        node = None if value is None else value.producer()
        if value is None or constant_of(value) is not None or node in found:
            return True
        if node is None or (node.op_type != "Shape" and not all(map(visit, node.inputs))):
            return False
        found[node] = None
        return True

    return list(found) if visit(places) else None


def _at(steps: list[ir.Node], places: ir.Value, symbol: str, batch: int) -> NDArray[np.int64] | None:
    """The places for a batch of so many images."""
    feeds: dict[str, NDArray[np.generic]] = {}
    nodes: list[onnx.NodeProto] = []
    for node in steps:
        if node.op_type == "Shape":
            source = node.inputs[0]
            axes = [batch if axis == symbol else axis for axis in (None if source is None else dims(source)) or ()]
            part = axes[attribute(node, "start", 0) : attribute(node, "end", len(axes))]
            if not axes or not all(isinstance(axis, int) for axis in part):
                return None
            feeds[str(node.outputs[0].name)] = np.array(part, np.int64)
        else:
            nodes.append(ir.to_proto(node))
            feeds.update((str(value.name), content) for value, content in _constants(node))
    # As in folding: the evaluator needs no types.
    inputs = [onnx.helper.make_value_info(name, onnx.TypeProto()) for name in feeds]
    output = onnx.helper.make_value_info(str(places.name), onnx.TypeProto())
    graph = onnx.helper.make_graph(nodes, "places", inputs, [output])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", OPSET)])
    return np.asarray(next(iter(onnx.reference.ReferenceEvaluator(model).run(None, feeds))))


def _constants(node: ir.Node) -> Iterator[tuple[ir.Value, NDArray[np.generic]]]:
    for value in node.inputs:
        content = None if value is None else constant_of(value)
        if value is not None and content is not None:
            yield value, content
