"""Replaces composite operators by the function bodies that the ONNX standard defines them by."""

from collections.abc import Callable

import onnx
import onnx_ir as ir
import onnx_ir.passes.common as passes

from onnxplain.errors import ModelError
from onnxplain_export.normalize.shapes import infer_shapes

DOMAIN = "onnxplain.expanded"
"""Of the functions that live between writing a body down and inlining it."""

DEEPEST = 10
"""Composites of composites; the standard's are at most four deep."""


def expand(model: ir.Model, chosen: Callable[[ir.Node], bool]) -> None:
    """Inlines the bodies of the `chosen` nodes, and of those inside them, until none is left.

    onnx's own inliner takes neither a composite with an optional input left out between two that are there nor one
    whose types only follow from another's expansion, which is why there is one here.
    """
    for _ in range(DEEPEST):
        nodes = [node for node in model.graph.all_nodes() if node.domain == "" and chosen(node)]
        if not nodes:
            return
        infer_shapes(model)
        for number, node in enumerate(nodes):
            _call_body(model, node, number)
        model.opset_imports[DOMAIN] = 1
        passes.InlinePass()(model)
        model.opset_imports.pop(DOMAIN)
    raise ModelError(f"{nodes[0].op_type} (node {nodes[0].name!r}) is expanded without an end")


def has_body(schema: onnx.defs.OpSchema) -> bool:
    """Whether the standard defines the operator by others."""
    return bool(schema.has_function or schema.has_context_dependent_function)  # type: ignore[attr-defined]  # absent from onnx's stubs


def _call_body(model: ir.Model, node: ir.Node, number: int) -> None:
    """Makes the node a call of a function of its own that holds its body."""
    version = model.opset_imports[""]
    schema = onnx.defs.get_schema(node.op_type, version, "")
    for name, declared in schema.attributes.items():
        if name not in node.attributes and declared.default_value.type:
            node.attributes[name] = ir.serde.deserialize_attribute(declared.default_value)
    body = _body(node, schema)
    body.domain, body.name = DOMAIN, f"{node.op_type}_{number}"
    body.attribute[:] = sorted({a.ref_attr_name for held in body.node for a in held.attribute if a.ref_attr_name})
    del body.output[len(node.outputs) :]
    made = {*body.input, *(name for held in body.node for name in held.output)}
    for name in set(body.output) - made:  # an optional result that nobody asks for
        body.node.append(onnx.helper.make_node("Constant", [], [name], value_float=0.0))
    for entry in body.opset_import:
        entry.version = version if entry.domain == "" else entry.version
    function = ir.serde.deserialize_function(body)
    model.functions[function.identifier()] = function
    node.domain, node.op_type, node.version = body.domain, body.name, None


def _body(node: ir.Node, schema: onnx.defs.OpSchema) -> onnx.FunctionProto:
    if schema.has_function:  # type: ignore[attr-defined]
        body = onnx.FunctionProto()
        body.CopyFrom(schema.function_body)
        return body
    types = [onnx.TypeProto() if value is None else _type(node, value) for value in node.inputs]
    version = schema.context_dependent_function_opset_versions[-1]  # type: ignore[attr-defined]
    content = schema.get_context_dependent_function_with_opset_version(  # type: ignore[attr-defined]
        version, ir.to_proto(node).SerializeToString(), [kind.SerializeToString() for kind in types]
    )
    if not content:
        raise ModelError(f"{node.op_type} (node {node.name!r}): the standard gives no expansion for this use of it")
    body = onnx.FunctionProto()
    body.ParseFromString(content)
    return body


def _type(node: ir.Node, value: ir.Value) -> onnx.TypeProto:
    if value.type is None:
        raise ModelError(f"{node.op_type} (node {node.name!r}): the type of its input {value.name!r} isn't known")
    return ir.to_proto(value).type
