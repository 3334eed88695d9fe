"""Frees a batch axis that was baked in as 1, by rewriting what repeats the 1; the proof is in `verify`."""

import numpy as np
import onnx_ir as ir
from onnxplain_export.emitter import Emitter, constant_of, static_dims


def baked_batch(image: ir.Value) -> int | None:
    """The fixed batch size of the explained input, None where it is free."""
    first = image.shape[0] if image.shape is not None and len(image.shape) else None
    return first if isinstance(first, int) else None


def free_batch(graph: ir.Graph, image: ir.Value, batch: int) -> None:
    """Rewrites constant shapes that contain the baked `batch`; shapes must have been inferred while it was baked."""
    carriers = _carriers(graph, image, batch)
    for node in list(graph):
        if node.op_type == "Reshape" and node.inputs[0] in carriers:
            _free_reshape(graph, node, batch)
        elif node.op_type == "Concat":
            _repeat_constants(graph, node, carriers, image, batch)
    for output in graph.outputs:
        if output in carriers:
            output.shape = None
    for node in graph:
        for value in node.outputs:
            value.shape = None


def _carriers(graph: ir.Graph, image: ir.Value, batch: int) -> set[ir.Value]:
    """The values that depend on the image (their first axis holds the batch, alone or merged with another axis)."""
    reached = {image}
    for node in graph:
        if any(value in reached for value in node.inputs):
            reached.update(node.outputs)
    return reached


def _free_reshape(graph: ir.Graph, node: ir.Node, batch: int) -> None:
    target = constant_of(node.inputs[1])
    before = static_dims(node.inputs[0]) if node.inputs[0] is not None else None
    after = static_dims(node.outputs[0])
    if target is None or before is None or after is None or not after or target[0] in (0, -1) and -1 not in target[1:]:
        return
    if before and before[0] == batch and after[0] == batch:
        lead = 0
    elif after[0] % batch == 0 and (target[0] == after[0] or target[0] == -1):
        lead = -1
    else:
        return
    name = f"{node.outputs[0].name}/target"
    value = ir.val(name, const_value=ir.tensor(np.array([lead, *after[1:]], np.int64), name=name))
    graph.register_initializer(value)
    node.replace_input_with(1, value)


def _repeat_constants(graph: ir.Graph, node: ir.Node, carriers: set[ir.Value], image: ir.Value, batch: int) -> None:
    """A constant joined to batch data along another axis (a class token) is repeated for every image."""
    constants = [index for index, value in enumerate(node.inputs) if constant_of(value) is not None]
    if node.attributes["axis"].value == 0 or not constants or not any(value in carriers for value in node.inputs):
        return
    for index in constants:
        value = node.inputs[index]
        content = constant_of(value)
        if value is None or content is None or content.ndim == 0 or content.shape[0] != batch:
            continue
        before = list(graph)
        op = Emitter(graph, f"{node.outputs[0].name}/repeat_{index}")
        shape = op.Concat(op.Shape(image, start=0, end=1), list(content.shape[1:]), axis=0)
        node.replace_input_with(index, op.Expand(value if batch == 1 else content[:1], shape))
        added = list(graph)[len(before) :]
        graph.remove(added)
        graph.insert_before(node, added)
