"""Any ONNX model → one form that rules and graphs can rely on.

Exactly opset 20 and IR 10; float32; functions inlined; constants folded; BatchNormalization folded where it can be;
explicit pads; every axis known but the batch axis, which is free; the explained value and scores found.
"""

from collections.abc import Sequence, Set
from typing import Any

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as passes

from onnxplain.errors import ModelError, NoGradientError
from onnxplain_export.emitter import constant_of, dims
from onnxplain_export.normalize.activations import name_activations
from onnxplain_export.normalize.batch import (
    baked_batch,
    copy_batch_axes,
    find_batch_axes,
    fix_resized_axes,
    free_batch,
)
from onnxplain_export.normalize.batchnorm import fold_batch_normalization
from onnxplain_export.normalize.constants import fold_constants
from onnxplain_export.normalize.control_flow import unroll
from onnxplain_export.normalize.inputs import (
    batched_inputs,
    check_batched,
    chosen_input,
    explained_value,
    fix_inputs,
    looked_up,
)
from onnxplain_export.normalize.machine_learning import lower_machine_learning
from onnxplain_export.normalize.normalized import Normalized, Options, named_value
from onnxplain_export.normalize.opset import to_opset_20
from onnxplain_export.normalize.precision import explain_at_float, forget_types, to_float32
from onnxplain_export.normalize.quantized import pass_straight_through
from onnxplain_export.normalize.recurrent import free_states
from onnxplain_export.normalize.scores import Scores, explained_scores
from onnxplain_export.normalize.shapes import BATCH, image_layout, infer_shapes, make_padding_explicit
from onnxplain_export.normalize.strided import read_views_in_order
from onnxplain_export.normalize.views import simplify_views
from onnxplain_export.origins import mark_sources
from onnxplain_export.sources import Source
from onnxplain_export.structure import structure_of

__all__ = ["BATCH", "Normalized", "Options", "Scores", "named_value", "normalize"]

RESERVED = frozenset(
    {
        "activated",
        "alpha",
        "baseline",
        "cotangent",
        "epsilon",
        "explained",
        "layer_features",
        "fill",
        "gamma",
        "high",
        "kept",
        "layer",
        "low",
        "norm",
        "reference",
        "scores",
        "seed",
        "segments",
        "sigma",
        "squares",
        "steps",
        "target",
        "top",
        "total",
    }
)
FOLDINGS = 20
"""At most; each inlined composite needs a few."""
PREFIXES = ("gradient/", "explainer/", "scores/", "model/")


def normalize(source: Source, **options: Any) -> Normalized:
    """`source` in the one form; `options` are those of `Options`. What was changed is noted in `source.changes`."""
    wanted = Options(**options)
    model, quantisations = converted(source, wanted)
    structure, tensors = structure_of(model), mark_sources(model)
    graph, changes = model.graph, source.changes
    image = chosen_input(graph, wanted.image_input)
    check_batched(image)
    integers = not _is_index(graph, image) and explain_at_float(model, image)
    if integers:
        changes.append("integer input explained as float32")
    value = explained_value(graph, image, wanted.wrt)
    if value is not image and wanted.wrt is None:
        changes.append(f"explained at the embedding {value.name!r} of {image.name!r}")
    renamed = _rename_collisions(graph)
    output = renamed.get(wanted.output or "", wanted.output)
    changes.extend(_settle_outputs(graph, output, None if value is image else value))
    passes.RemoveUnusedNodesPass()(model)
    passes.RemoveUnusedOpsetsPass()(model)
    _refuse_foreign_operators(graph)
    baked = baked_batch(image)
    _settle_shapes(model, wanted, baked, changes)
    value = image if value is image else graph.outputs.pop()
    scores = _scores(model, image, output, wanted, source.activation)
    others = tuple(str(value.name) for value in graph.outputs)
    graph.outputs.append(scores.value)
    _tidy(model)
    return Normalized(
        model=model,
        source=source,
        image=str(image.name),
        image_shape=_sizes(image),
        layout=_layout(image),
        value=str(value.name),
        value_shape=_value_shape(value),
        scores=scores,
        others=others,
        baked=baked,
        integers=integers,
        renamed=renamed,
        straight_through=quantisations > 0,
        structure=structure,
        tensors=tensors,
    )


def converted(source: Source, wanted: Options) -> tuple[ir.Model, int]:
    """The source in opset 20 and float32, constants as initializers; how many quantisations let gradients through.

    Nothing is folded yet: every tensor is the source's own, under its name there.
    """
    model, changes = to_opset_20(_copy(source.model)), source.changes
    quantisations = pass_straight_through(model) if wanted.quantized else 0
    if quantisations:
        changes.append(f"{quantisations} quantisations differentiated straight through")
    lower_machine_learning(model)
    precision = to_float32(model)
    if precision:
        source.precision = precision
        changes.append(f"{precision} computed in float32")
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    return model, quantisations


def _settle_outputs(graph: ir.Graph, output: str | None, value: ir.Value | None) -> list[str]:
    """Leaves the outputs that are explained or may stay beside those; a `value` inside comes last, so that it is kept.

    Returns what was changed.
    """
    _make_output(graph, output)
    if value is not None:
        graph.outputs.append(value)
    return _drop_foreign_outputs(graph, {None if value is None else value.name, output})


def _settle_shapes(model: ir.Model, wanted: Options, baked: int | None, changes: list[str]) -> None:
    """Every axis but the batch's known and that free, constants and normalisations folded, pads explicit."""
    graph = model.graph
    fix_inputs(graph, wanted.size, wanted.axes)
    _simplify(model)
    if baked is not None:
        _free(model, batched_inputs(graph, baked), baked)
        changes.append(f"batch axis freed from {baked}")
    _follow_batch(model)
    make_padding_explicit(graph)
    if simplify_views(graph) + read_views_in_order(graph):
        _tidy(model)
        find_batch_axes(model)
    folded = fold_batch_normalization(graph)
    if folded:
        changes.append(f"{folded} BatchNormalization folded")


def _scores(model: ir.Model, image: ir.Value, output: str | None, wanted: Options, assumed: str | None) -> Scores:
    name_activations(model)
    return explained_scores(
        model.graph,
        output,
        wanted.score,
        wanted.activation,
        assumed=assumed,
        layout=_layout(image),
        free=wanted.cotangent,
    )


def _layout(image: ir.Value) -> str | None:
    return image_layout([BATCH, *_sizes(image)])


def _make_output(graph: ir.Graph, name: str | None) -> None:
    """Makes a value inside the network, such as boxes before their selection, an output where that is explained."""
    if name is not None and name not in {value.name for value in graph.outputs}:
        graph.outputs.extend(value for node in graph for value in node.outputs if value.name == name)


def _is_index(graph: ir.Graph, image: ir.Value) -> bool:
    return next(looked_up(graph, image), None) is not None


def _sizes(image: ir.Value) -> tuple[int, ...]:
    return tuple(int(str(axis)) for axis in (dims(image) or ())[1:])


def _value_shape(value: ir.Value) -> tuple[int, ...]:
    """The sizes of the explained value's axes behind the batch."""
    if value.dtype is not None and value.dtype != ir.DataType.FLOAT:
        raise ModelError(f"{value.name!r} holds {value.dtype.name.lower()}, at which there is no gradient")
    axes = dims(value)
    if axes is None or axes[:1] != (BATCH,) or not all(isinstance(axis, int) for axis in axes[1:]):
        raise ModelError(
            f"{value.name!r} has shape {value.shape}; only values [{BATCH}, …] with a row for every image are explained"
        )
    return _sizes(value)


def _copy(model: ir.Model) -> ir.Model:
    """A copy with tensors of its own: those of a clone are shared, and a renamed initializer renames its tensor.

    What lies in a file of its own is read, since nobody can close that while an array points into it.
    """
    copy = model.clone()
    for value in copy.graph.initializers.values():
        tensor = value.const_value
        if tensor is not None and tensor.dtype != ir.DataType.STRING:
            content = np.array(tensor.numpy()) if isinstance(tensor, ir.ExternalTensor) else tensor.numpy()
            value.const_value = ir.Tensor(content, dtype=tensor.dtype, name=value.name)
    return copy


def _simplify(model: ir.Model) -> None:
    """Removes what inference doesn't need and folds constants, under the batch size that the model was written with."""
    for output in model.graph.outputs:
        output.shape = None
    forget_types(model)
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    _remove_dropout(model.graph)
    passes.IdentityEliminationPass()(model)
    _tidy(model)
    _fold_all(model)


def _free(model: ir.Model, inputs: Sequence[ir.Value], baked: int) -> None:
    """Frees the baked batch axis; shapes that the model computes are folded again, now around a free axis."""
    free_batch(model.graph, inputs, baked)
    for value in inputs:
        value.shape = ir.Shape([BATCH, *list(value.shape or ())[1:]])
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


def _follow_batch(model: ir.Model) -> None:
    """Makes plain to shape inference, here and in every graph made from this one, where the batch axis stays."""
    if copy_batch_axes(model.graph):
        forget_types(model)
        _tidy(model)
    find_batch_axes(model)
    if fix_resized_axes(model.graph):
        _tidy(model)
    _fold_all(model)


def _drop_foreign_outputs(graph: ir.Graph, needed: Set[str | None]) -> list[str]:
    """Drops outputs that aren't tensors or need operators of other domains (labels, ZipMap), if others remain."""
    foreign: set[ir.Value] = set()
    for node in graph:
        if node.domain != "" or any(value in foreign for value in node.inputs):
            foreign.update(node.outputs)
    plain = [v for v in graph.outputs if v not in foreign and (v.type is None or isinstance(v.type, ir.TensorType))]
    kept = [value for value in graph.outputs if value in plain or value.name in needed]
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
