"""Any opset from 7 to 28 becomes exactly opset 20, IR 10, with all functions inlined."""

from collections.abc import Callable

import onnx
import onnx_ir as ir
import onnx_ir.passes.common as passes
from onnx import version_converter

from onnxplain.errors import ModelError
from onnxplain_export.emitter import IR_VERSION, OPSET
from onnxplain_export.normalize.composites import expand, has_body
from onnxplain_export.normalize.newer import rewrite_newer
from onnxplain_export.normalize.quantized import spell_out_newer_types
from onnxplain_export.vjp import NO_GRADIENT, STANDARD

OLDEST, NEWEST = 7, 28
NEWEST_RUN = 26
"""The newest opset that onnxruntime 1.31 accepts."""
LARGE = 1 << 16
"""Initializers above this many bytes are set aside while protos are rewritten, so that no model is too big for one."""

RESIZE_CHANGED = 11
"""The opset from which Resize has a coordinate_transformation_mode."""
REFUSED = frozenset({"DynamicQuantizeLinear", "SequenceMap"})
"""Kept, to be refused by name: the body of the first would let a gradient through by way of the scale alone, which is
no gradient of the model; that of the second is a loop over sequences."""

DEFAULTS = {
    "MeanVarianceNormalization": ir.AttrInt64s("axes", [0, 2, 3]),
    "STFT": ir.AttrInt64("onesided", 1),
}
"""Attributes whose absence misleads onnx 1.23's shape inference."""

OF_HALF_PRECISION = frozenset({("Range", "stash_type")})
"""Attributes of operators that say how half precision is computed, which is float32 here."""

CHANGED_MEANING = frozenset({"GroupNormalization"})
"""Operators whose newer version computes something else than version 20's: inlined, never relabelled."""


def to_opset_20(model: ir.Model) -> ir.Model:
    """The same function in opset 20; newer composites are inlined, what can't be expressed is refused by node."""
    version = model.opset_imports.get("", model.opset_imports.get("ai.onnx", OPSET))
    if not OLDEST <= version <= NEWEST:
        raise ModelError(f"the model uses opset {version}; opsets {OLDEST} to {NEWEST} are read")
    model.opset_imports.pop("ai.onnx", None)
    model.opset_imports[""] = version
    passes.InlinePass()(model)
    passes.RemoveUnusedOpsetsPass()(model)
    passes.RemoveInitializersFromInputsPass()(model)
    _check_operators(model, version)
    _spell_out_defaults(model)
    model.ir_version = IR_VERSION  # IR 3 would have initializers among the inputs again
    if version > OPSET:
        expand(model, _is_newer_composite)
        rewrite_newer(model, version)
        spell_out_newer_types(model)
        _relabel(model, version)
    elif version < OPSET:
        model = _rewritten(model, lambda proto: version_converter.convert_version(proto, OPSET))
        if version < RESIZE_CHANGED:
            _keep_resizing(model)
    expand(model, _is_composite_without_rule)
    model.ir_version = IR_VERSION
    return model


def runnable(model: ir.Model) -> ir.Model:
    """The model itself, or the same in opset 20 where onnxruntime can't run its opset yet."""
    return to_opset_20(model) if model.opset_imports.get("", OPSET) > NEWEST_RUN else model


def _check_operators(model: ir.Model, version: int) -> None:
    """Refuses, by node, operators that the model's own opset doesn't have."""
    for node in model.graph.all_nodes():
        if node.domain == "" and not onnx.defs.has(node.op_type, max_inclusive_version=version):
            raise ModelError(f"{node.op_type} (node {node.name!r}) is no operator of opset {version}")


def _keep_resizing(model: ir.Model) -> None:
    """Spells out how Upsample and the first Resize map coordinates; the converter leaves later, other defaults."""
    for node in model.graph.all_nodes():
        if node.op_type == "Resize" and node.domain == "" and "coordinate_transformation_mode" not in node.attributes:
            node.attributes["coordinate_transformation_mode"] = ir.AttrString(
                "coordinate_transformation_mode", "asymmetric"
            )
            node.attributes["nearest_mode"] = ir.AttrString("nearest_mode", "floor")


def _is_newer_composite(node: ir.Node) -> bool:
    """Whether opset 20 lacks the operator, or means something else by it, and its schema carries a function body."""
    schema = onnx.defs.get_schema(node.op_type, NEWEST, "")
    newer = schema.since_version > OPSET
    missing = newer and not onnx.defs.has(node.op_type, max_inclusive_version=OPSET)
    return (missing or (newer and node.op_type in CHANGED_MEANING)) and has_body(schema)


def _is_composite_without_rule(node: ir.Node) -> bool:
    """Whether no derivative rule knows the operator but its schema has a function body of simpler operators."""
    if node.op_type in STANDARD or node.op_type in NO_GRADIENT or node.op_type in REFUSED:
        return False
    return has_body(onnx.defs.get_schema(node.op_type, OPSET, ""))


def _relabel(model: ir.Model, version: int) -> None:
    """Declares opset 20 after checking that every node means the same there (newer versions mostly add types)."""
    for node in model.graph.all_nodes():
        if node.domain != "":
            continue
        if not onnx.defs.has(node.op_type, max_inclusive_version=OPSET):
            raise ModelError(f"{node.op_type} (node {node.name!r}) is newer than opset {OPSET} and has no expansion")
        newer = onnx.defs.get_schema(node.op_type, version, "")
        schema = onnx.defs.get_schema(node.op_type, OPSET, "")
        if newer.since_version > OPSET:
            _drop_new_defaults(node, newer, schema)
        if len(node.inputs) > schema.max_input:
            raise ModelError(f"{node.op_type} (node {node.name!r}) has inputs that opset {OPSET} doesn't know")
        node.version = None
    model.opset_imports[""] = OPSET


def _drop_new_defaults(node: ir.Node, newer: onnx.defs.OpSchema, schema: onnx.defs.OpSchema) -> None:
    """Removes attributes that opset 20 lacks where they hold their default; any other value is refused."""
    for name in set(node.attributes) - set(schema.attributes):
        default = onnx.helper.get_attribute_value(newer.attributes[name].default_value)
        if (node.op_type, name) in OF_HALF_PRECISION:
            default = node.attributes[name].value
        given = node.attributes[name].value
        if given not in (default, default.decode() if isinstance(default, bytes) else default):
            raise ModelError(
                f"{node.op_type} (node {node.name!r}): {name}={given!r} can't be expressed in opset {OPSET}"
            )
        node.attributes.pop(name)


def _spell_out_defaults(model: ir.Model) -> None:
    for node in model.graph.all_nodes():
        default = DEFAULTS.get(node.op_type)
        if default is not None and default.name not in node.attributes:
            node.attributes[default.name] = ir.Attr(default.name, default.type, default.value)


def _rewritten(model: ir.Model, rewrite: Callable[[onnx.ModelProto], onnx.ModelProto]) -> ir.Model:
    """`rewrite` applied to the model as a proto, with its large weights set aside meanwhile as graph inputs."""
    graph = model.graph
    aside = [v for v in graph.initializers.values() if v.const_value is not None and v.const_value.nbytes > LARGE]
    tensors = {value.name: value.const_value for value in aside if value.const_value is not None}
    for value, tensor in zip(aside, tensors.values(), strict=True):
        value.shape, value.type = ir.Shape(tensor.shape.numpy()), ir.TensorType(tensor.dtype)
        graph.initializers.pop(value.name or "")
        value.const_value = None
        graph.inputs.append(value)
    try:
        result = ir.from_proto(rewrite(ir.to_proto(model)))
    except Exception as error:  # the C++ converters raise RuntimeError, ConvertError and others without a common base
        raise ModelError(f"the model can't be converted to opset {OPSET}: {str(error).splitlines()[0]}") from error
    for value in [value for value in result.graph.inputs if value.name in tensors]:
        result.graph.inputs.remove(value)
        value.const_value = tensors[value.name]
        result.graph.register_initializer(value)
    return result
