"""Shapes inside branches and loop bodies, which onnx_ir's inference leaves unknown."""

from collections.abc import Sequence

import onnx_ir as ir
import onnx_ir.passes.common as passes

from onnxplain_export.emitter import IR_VERSION, attribute, captured, copied, subgraphs
from onnxplain_export.origins import known

LARGEST = 1 << 12
"""Bytes of a constant that inference may have to read (axes, shapes); of others the type is enough."""


def infer_bodies(graph: ir.Graph, opsets: dict[str, int]) -> None:
    """Fills in types and shapes inside what the graph's nodes hold, from what they read."""
    for node in graph:
        for body in subgraphs(node):
            if node.op_type == "Scan":
                _describe_entries(node, body)
            _infer(body, captured(node), opsets)
            infer_bodies(body, opsets)


def _describe_entries(node: ir.Node, body: ir.Graph) -> None:
    """A Scan's states keep their shape, and each step reads its sequences without the axis that they run along."""
    count = len(node.inputs) - int(attribute(node, "num_scan_inputs"))
    axes: Sequence[int] = attribute(node, "scan_input_axes") or []
    for k, (outer, entry) in enumerate(zip(node.inputs, body.inputs, strict=True)):
        if outer is None or outer.type is None:
            continue
        entry.type = outer.type
        if outer.shape is not None:
            sizes = list(outer.shape)
            if k >= count:
                sizes.pop(axes[k - count] if k - count < len(axes) else 0)
            entry.shape = ir.Shape(sizes)


def _infer(body: ir.Graph, taken: Sequence[ir.Value], opsets: dict[str, int]) -> None:
    """Infers a copy of the body as a model of its own, and takes over what that finds."""
    if any(output in taken for output in body.outputs):
        return  # a value belongs to one graph's outputs only; normalisation puts Identities there before it matters
    copy = copied(body, "inference")
    copy.opset_imports.update(opsets)
    held = set(copy.all_nodes())
    for node in held:
        for value in node.outputs:
            value.shape = None  # it may be of another batch size
    for value in taken:
        content = known(value)
        stand_in = ir.val(f"outside/{value.name}", type=value.type, shape=value.shape)
        if content is not None and content.content.nbytes <= LARGEST:
            stand_in.const_value = ir.tensor(content.content, name=stand_in.name)
            copy.register_initializer(stand_in)
        else:
            copy.inputs.append(stand_in)
        for use in [use for use in value.uses() if use.node in held]:
            use.node.replace_input_with(use.idx, stand_in)
    passes.ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(
        ir.Model(copy, ir_version=IR_VERSION)
    )
    for node, twin in zip(body, copy, strict=True):
        for value, found in zip(node.outputs, twin.outputs, strict=True):
            value.type, value.shape = found.type or value.type, found.shape
    _release(copy)


def _release(graph: ir.Graph) -> None:
    """Lets go of what the copy's nodes read outside it."""
    for node in graph.all_nodes():
        for index in range(len(node.inputs)):
            node.replace_input_with(index, None)
