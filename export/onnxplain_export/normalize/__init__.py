"""Any ONNX classifier → one form that rules and graphs can rely on.

Exactly opset 20 and IR 10; float32; functions inlined; constants folded; BatchNormalization folded where it can be;
explicit pads; every axis known but the batch axis, which is free; the explained scores found.
"""

from dataclasses import dataclass

import onnx_ir as ir
import onnx_ir.passes.common as passes

from onnxplain.errors import ModelError, NoGradientError, ParameterError, unknown
from onnxplain_export.emitter import constant_of
from onnxplain_export.normalize.batch import baked_batch, free_batch
from onnxplain_export.normalize.batchnorm import fold_batch_normalization
from onnxplain_export.normalize.constants import fold_constants
from onnxplain_export.normalize.control_flow import unroll
from onnxplain_export.normalize.opset import to_opset_20
from onnxplain_export.normalize.precision import explain_at_float, forget_types, to_float32
from onnxplain_export.normalize.recurrent import free_states
from onnxplain_export.normalize.scores import Scores, explained_scores
from onnxplain_export.normalize.shapes import BATCH, fix_input, image_layout, infer_shapes, make_padding_explicit
from onnxplain_export.source import Source

__all__ = ["BATCH", "Normalized", "Scores", "normalize"]

RESERVED = frozenset(
    {"target", "steps", "total", "norm", "baseline", "sigma", "seed", "fill", "reference", "activated", "scores", "top"}
)
FOLDINGS = 20
"""At most; each inlined composite needs a few."""
PREFIXES = ("gradient/", "explainer/", "scores/", "model/")


@dataclass(frozen=True)
class Normalized:
    """The model in the one form, with the value that is explained and the scores that explain it."""

    model: ir.Model
    source: Source
    image: str
    image_shape: tuple[int, ...]
    layout: str | None
    scores: Scores
    others: tuple[str, ...]
    baked: int | None
    integers: bool
    renamed: dict[str, str]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the image."""
        return self.image_shape[-2:] if self.layout == "NCHW" else self.image_shape[:2]  # type: ignore[return-value]


def normalize(
    source: Source,
    *,
    image_input: str | None = None,
    output: str | None = None,
    score: str = "logits",
    activation: str | None = None,
    size: tuple[int, int] | None = None,
) -> Normalized:
    """`source` in the one form; what was changed is noted in `source.changes`."""
    model = to_opset_20(_copy(source.model))
    graph, changes = model.graph, source.changes
    precision = to_float32(model)
    if precision:
        source.precision = precision
        changes.append(f"{precision} computed in float32")
    image = _explained_input(graph, image_input)
    integers = explain_at_float(model, image)
    if integers:
        changes.append("integer input explained as float32")
    renamed = _rename_collisions(graph)
    changes.extend(_drop_foreign_outputs(graph, renamed.get(output or "", output)))
    passes.RemoveUnusedNodesPass()(model)
    passes.RemoveUnusedOpsetsPass()(model)
    _refuse_foreign_operators(graph)
    baked = baked_batch(image)
    _simplify(model, image, size, baked)
    if baked is not None:
        _free(model, image, baked)
        changes.append(f"batch axis freed from {baked}")
    make_padding_explicit(graph)
    folded = fold_batch_normalization(graph)
    if folded:
        changes.append(f"{folded} BatchNormalization folded")
    scores = explained_scores(graph, renamed.get(output or "", output), score, activation)
    others = tuple(str(value.name) for value in graph.outputs)
    graph.outputs.append(scores.value)
    _tidy(model)
    shape = tuple(int(str(axis)) for axis in list(image.shape or ())[1:])
    layout = image_layout([BATCH, *shape])
    return Normalized(model, source, str(image.name), shape, layout, scores, others, baked, integers, renamed)


def _copy(model: ir.Model) -> ir.Model:
    """A copy with tensors of its own: those of a clone are shared, and a renamed initializer renames its tensor."""
    copy = model.clone()
    for value in copy.graph.initializers.values():
        tensor = value.const_value
        if tensor is not None and tensor.dtype != ir.DataType.STRING:
            value.const_value = ir.Tensor(tensor.numpy(), dtype=tensor.dtype, name=value.name)
    return copy


def _explained_input(graph: ir.Graph, name: str | None) -> ir.Value:
    inputs = {str(value.name): value for value in graph.inputs}
    if name is not None and name not in inputs:
        raise ParameterError(unknown("input", name, inputs))
    if len(inputs) != 1:
        raise ModelError(
            f"the model has {len(inputs)} inputs ({', '.join(inputs)}); networks with one input are explained so far"
        )
    return next(iter(inputs.values()))


def _simplify(model: ir.Model, image: ir.Value, size: tuple[int, int] | None, baked: int | None) -> None:
    """Removes what inference doesn't need and folds constants, under the batch size that the model was written with."""
    fix_input(image, size)
    if baked is not None:
        image.shape = ir.Shape([baked, *list(image.shape or ())[1:]])
    for output in model.graph.outputs:
        output.shape = None
    forget_types(model)
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    _remove_dropout(model.graph)
    passes.IdentityEliminationPass()(model)
    _tidy(model)
    _fold_all(model)


def _free(model: ir.Model, image: ir.Value, baked: int) -> None:
    """Frees the baked batch axis; shapes that the model computes are folded again, now around a free axis."""
    free_batch(model.graph, image, baked)
    image.shape = ir.Shape([BATCH, *list(image.shape or ())[1:]])
    _tidy(model)
    _fold_all(model)


def _fold_all(model: ir.Model) -> None:
    """Folds constants, takes branches whose condition is known, and unrolls loops over a known number of steps."""
    _fold(model)
    free_states(model.graph)
    while unroll(model.graph):
        _tidy(model)
        _fold(model)


def _fold(model: ir.Model) -> None:
    """Folds constants until nothing changes: every folded shape lets inference see further."""
    for _ in range(FOLDINGS):
        if not fold_constants(model.graph):
            return
        _tidy(model)


def _drop_foreign_outputs(graph: ir.Graph, explained: str | None) -> list[str]:
    """Drops outputs that aren't tensors or need operators of other domains (labels, ZipMap), if others remain."""
    foreign: set[ir.Value] = set()
    for node in graph:
        if node.domain != "" or any(value in foreign for value in node.inputs):
            foreign.update(node.outputs)
    plain = [v for v in graph.outputs if v not in foreign and (v.type is None or isinstance(v.type, ir.TensorType))]
    kept = [value for value in graph.outputs if value in plain or value.name == explained]
    if not plain or len(kept) == len(graph.outputs):
        return []
    dropped = [str(value.name) for value in graph.outputs if value not in kept]
    graph.outputs.clear()
    graph.outputs.extend(kept)
    return [f"output {name!r} dropped: it isn't a tensor of standard operators" for name in dropped]


def _refuse_foreign_operators(graph: ir.Graph) -> None:
    """Refuses operators outside ONNX, whose results have no known shape; trees and the like are ONNX's own."""
    for node in graph.all_nodes():
        if node.domain not in ("", "ai.onnx.ml"):
            raise NoGradientError(
                f"{node.domain}::{node.op_type} (node {node.name!r}) is no standard ONNX operator; export the model "
                "without it (a runtime's own optimiser may have put it there)"
            )


def _tidy(model: ir.Model) -> None:
    passes.RemoveUnusedNodesPass()(model)
    passes.NameFixPass()(model)
    infer_shapes(model)


def _remove_dropout(graph: ir.Graph) -> None:
    for node in list(graph):
        if node.op_type != "Dropout" or node.inputs[0] is None:
            continue
        training = constant_of(node.inputs[2]) if len(node.inputs) > 2 else None
        if (training is not None and training.any()) or (len(node.outputs) > 1 and node.outputs[1].uses()):
            raise ModelError(f"Dropout (node {node.name!r}) is in training mode; export the model in evaluation mode")
        if len(node.outputs) > 1 and node.outputs[1].is_graph_output():
            graph.outputs.remove(node.outputs[1])
        ir.convenience.replace_all_uses_with(node.outputs[0], node.inputs[0], replace_graph_outputs=True)
        graph.remove(node, safe=True)


def _rename_collisions(graph: ir.Graph) -> dict[str, str]:
    """Moves the model's own names out of the way of ours; returns {old: new} for inputs and outputs."""
    values = [*graph.inputs, *graph.initializers.values(), *(output for node in graph for output in node.outputs)]
    # The longest first: model/target makes room before target becomes it.
    values = sorted(set(values), key=lambda value: -len(value.name or ""))
    visible = {*graph.inputs, *graph.outputs}
    renamed = {}
    for value in values:
        name = value.name or ""
        if name in RESERVED or name.startswith(PREFIXES):
            value.name = f"model/{name}"
            if value in visible:
                renamed[name] = value.name
    return renamed
