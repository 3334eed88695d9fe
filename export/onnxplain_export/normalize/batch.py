"""Frees a batch axis that was baked in as a number, by rewriting what repeats the number; the proof is in `verify`."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from onnxplain_export.emitter import Emitter, attribute, constant_of, dims, static_dims
from onnxplain_export.normalize.initializers import add_constant
from onnxplain_export.normalize.shapes import BATCH, infer_shapes
from onnxplain_export.origins import known

PROBES = (5, 7)
"""Sizes of the batch that are tried; few axes of a network have them."""


class Place(NamedTuple):
    """Where a value carries the batch: in `axis`, whose size is outer · batch · inner.

    `outer` is above 1 where a Reshape merged the batch with an axis before it.
    """

    axis: int
    outer: int = 1


def baked_batch(image: ir.Value) -> int | None:
    """The fixed batch size of the explained input, None where it is free."""
    first = image.shape[0] if image.shape is not None and len(image.shape) else None
    return first if isinstance(first, int) else None


def free_batch(graph: ir.Graph, inputs: Sequence[ir.Value], batch: int) -> None:
    """Rewrites constant shapes that contain the baked `batch` of the `inputs`, the explained one first.

    Shapes must have been inferred while it was baked.
    """
    places = _places(graph, inputs, batch)
    for node in list(graph):
        place = next((places[value] for value in node.inputs if value in places), None)
        if place is None:
            continue
        if node.op_type == "Reshape" and node.outputs[0] in places:
            _free_reshape(graph, node, place, places[node.outputs[0]])
        elif node.op_type == "Resize":
            _free_resize(graph, node, place)
        elif node.op_type == "Expand":
            _free_expand(graph, node, places.get(node.outputs[0]), batch)
        elif node.op_type == "Concat":
            _repeat_constants(graph, node, place, inputs[0], batch)
    for node in graph:
        for value in node.outputs:
            value.shape = None


def _places(graph: ir.Graph, inputs: Sequence[ir.Value], batch: int) -> dict[ir.Value, Place]:
    """Where each value that depends on the inputs carries the batch; values of unknown place are left out."""
    places = dict.fromkeys(inputs, Place(0))
    for node in graph:
        source = next((value for value in node.inputs if value in places), None)
        if source is None or node.op_type == "Shape":
            continue
        for output in node.outputs:
            place = _place_after(node, source, output, places[source], batch)
            if place is not None:
                places[output] = place
    return places


def _place_after(node: ir.Node, source: ir.Value, output: ir.Value, place: Place, batch: int) -> Place | None:
    """Where `output` carries the batch that `source` carries in `place`."""
    before, after = static_dims(source), static_dims(output)
    if before is None or after is None:
        return None
    if node.op_type == "Reshape":
        return _place_after_reshape(before, place, after, batch)
    if node.op_type == "Gather" and source is node.inputs[1]:
        return Place(attribute(node, "axis", 0) % (len(after) - len(before) + 1) + place.axis, place.outer)
    axis = _axis_after(node, place.axis, len(before), len(after))
    return None if axis is None or axis >= len(after) else Place(axis, place.outer)


def _axis_after(node: ir.Node, axis: int, before: int, after: int) -> int | None:
    """Which of the `after` axes of the result is axis `axis` of the `before` axes that the node reads."""
    match node.op_type:
        case "Flatten":
            return 0 if axis == 0 else None
        case "Transpose":
            return int(attribute(node, "perm", list(reversed(range(before)))).index(axis))
        case "Gemm":
            return 1 - axis if attribute(node, "transA", 0) else axis
        case "Unsqueeze":
            added = _axes(node, after)
            return [i for i in range(after) if i not in added][axis]
    if after >= before:
        return axis + after - before  # aligned at the right, as broadcasting does
    removed = _axes(node, before)
    return None if axis in removed else axis - sum(gone < axis for gone in removed)


def _place_after_reshape(before: Sequence[int], place: Place, after: Sequence[int], batch: int) -> Place | None:
    """The axis of `after` that holds the batch: as many elements lie outside it in row-major order as before.

    An axis of the batch's own size is preferred to one that is merged with it. Between two axes it is merged with the
    second where what follows is split into more axes ([L, N, D] to [L, N·heads, D/heads]), else with the first
    ([L, N, D] or [L, N, heads, D/heads] to [L·N, D]).
    """
    outside = int(np.prod(before[: place.axis])) * place.outer
    found: list[Place] = []
    reached = 1
    for axis, size in enumerate(after):
        if reached == outside and size == batch:
            return Place(axis)
        outer, rest = divmod(outside, reached)
        if rest == 0 and outer and size % (outer * batch) == 0:
            found.append(Place(axis, outer))
        reached *= size
    if len(found) > 1 and len(after) - found[-1].axis <= len(before) - place.axis - 1:
        return found[-2]
    return found[-1] if found else None


def _axes(node: ir.Node, rank: int) -> list[int]:
    """The axes that a Squeeze, Unsqueeze, Gather or reduction adds or removes, none where they aren't known."""
    if node.op_type == "Gather":
        return [attribute(node, "axis", 0) % rank]
    given = constant_of(node.inputs[1]) if len(node.inputs) > 1 else None
    listed = attribute(node, "axes") or ([] if given is None else given.ravel().tolist())
    single = attribute(node, "axis")
    return [int(axis) % rank for axis in (listed if single is None else [single])]


def _free_reshape(graph: ir.Graph, node: ir.Node, before: Place, after: Place) -> None:
    """Every size is known but the batch's; 0 copies it, which shape inference follows better than −1."""
    shape, source = list(static_dims(node.outputs[0]) or ()), static_dims(node.inputs[0]) if node.inputs[0] else None
    copied = before.axis == after.axis and source is not None and source[after.axis] == shape[after.axis]
    shape[after.axis] = 0 if copied and not attribute(node, "allowzero", 0) else -1
    node.replace_input_with(1, add_constant(graph, f"{node.outputs[0].name}/target", np.array(shape, np.int64)))


def find_batch_axes(model: ir.Model) -> None:
    """Finds the batch axis where inference lost it: the axis that follows two numbers tried in the batch's place.

    One that holds several entries of each image, such as a transformer's windows, is named by their number: 64*N.
    """
    unsure = [value for node in model.graph for value in node.outputs if _is_unsure(value)]
    if not unsure:
        return
    first, second = (_shapes_at(model, batch) for batch in PROBES)
    for value in unsure:
        one, other = first.get(value.name), second.get(value.name)
        if one is not None and other is not None and len(one) == len(other):
            axes = zip(one, other, strict=True)
            value.shape = ir.Shape([a if a == b else _followed(a, b) for a, b in axes])


def _followed(one: int, other: int) -> str | None:
    """What an axis of these sizes for the two probes is called."""
    times, rest = divmod(one, PROBES[0])
    if rest or other != times * PROBES[1]:
        return None
    return BATCH if times == 1 else f"{times}*{BATCH}"


def _is_unsure(value: ir.Value) -> bool:
    axes = [axis for axis in dims(value) or (None,) if not isinstance(axis, int)]
    return any(str(axis).rpartition("*")[2] != BATCH for axis in axes)


def _shapes_at(model: ir.Model, batch: int) -> dict[str | None, tuple[int, ...] | None]:
    """The shapes of all values for one size of the batch."""
    copy = model.clone()
    for value in copy.graph.inputs:
        axes = dims(value) or ()
        if axes[:1] == (BATCH,):
            value.shape = ir.Shape([batch, *axes[1:]])
    for node in copy.graph:
        for value in node.outputs:
            value.shape = None
    infer_shapes(copy)
    return {value.name: static_dims(value) for node in copy.graph for value in node.outputs}


def fix_resized_axes(graph: ir.Graph) -> int:
    """Names the axes that a Resize changes where its sizes are computed around a free batch axis, which stays.

    Returns how many there were.
    """
    found = 0
    for node in graph:
        sizes = node.inputs[3] if node.op_type == "Resize" and len(node.inputs) > 3 else None
        before, after = (dims(value) if value is not None else None for value in (node.inputs[0], node.outputs[0]))
        if sizes is None or constant_of(sizes) is not None or "axes" in node.attributes or not before or not after:
            continue
        known = [axis for axis in after[1:] if isinstance(axis, int)]
        if before[0] == BATCH and len(known) == len(after) - 1:
            node.attributes["axes"] = ir.AttrInt64s("axes", list(range(1, len(after))))
            node.replace_input_with(3, add_constant(graph, f"{node.outputs[0].name}/sizes", np.array(known, np.int64)))
            node.outputs[0].shape = ir.Shape([BATCH, *known])
            found += 1
    return found


def copy_batch_axes(graph: ir.Graph) -> int:
    """Lets a Reshape copy a free first axis by 0 where it computes it by −1, which shape inference loses; how many."""
    found = 0
    for node in graph:
        if node.op_type != "Reshape":
            continue
        source, target = node.inputs
        before, shape = None if source is None else dims(source), constant_of(target)
        if not before or shape is None or shape[:1].tolist() != [-1]:
            continue
        made = shape[1:]
        kept = [axis for axis in before[1:] if isinstance(axis, int)]
        if isinstance(before[0], int) or len(kept) < len(before) - 1 or (made <= 0).any():
            continue
        if np.prod(kept) == np.prod(made):
            content = np.concatenate([[0], made]).astype(np.int64)
            node.replace_input_with(1, add_constant(graph, f"{node.outputs[0].name}/target", content))
            node.attributes.pop("allowzero", None)
            found += 1
    return found


def _free_resize(graph: ir.Graph, node: ir.Node, place: Place) -> None:
    """Names the axes that are resized, so that the sizes no longer mention the batch."""
    sizes = constant_of(node.inputs[3]) if len(node.inputs) > 3 else None
    shape = static_dims(node.inputs[0]) if node.inputs[0] is not None else None
    if sizes is None or shape is None or "axes" in node.attributes or place != Place(0) or sizes[0] != shape[0]:
        return
    axes = list(range(1, len(shape)))
    node.attributes["axes"] = ir.AttrInt64s("axes", axes)
    node.replace_input_with(3, add_constant(graph, f"{node.outputs[0].name}/sizes", sizes[1:]))


def _free_expand(graph: ir.Graph, node: ir.Node, place: Place | None, batch: int) -> None:
    """A target of 1 leaves the batch as it is."""
    target = constant_of(node.inputs[1])
    if place is None or target is None or batch == 1:
        return
    axis = place.axis - len(static_dims(node.outputs[0]) or ()) + target.size
    if axis >= 0 and target[axis] == batch:
        free = np.where(np.arange(target.size) == axis, 1, target)
        node.replace_input_with(1, add_constant(graph, f"{node.outputs[0].name}/target", free))


def _repeat_constants(graph: ir.Graph, node: ir.Node, place: Place, image: ir.Value, batch: int) -> None:
    """A constant joined to batch data along another axis (a class token) is repeated for every image."""
    if place.outer != 1 or attribute(node, "axis") % len(static_dims(node.outputs[0]) or (1,)) == place.axis:
        return
    for index, value in enumerate(node.inputs):
        found = known(value)
        content = None if found is None else found.content
        if value is None or content is None or content.ndim <= place.axis or content.shape[place.axis] != batch:
            continue
        one = np.take(content, [0], axis=place.axis)
        if batch > 1 and not np.all(constant_of(value) == one):
            continue
        before = list(graph)
        op = Emitter(graph, f"{node.outputs[0].name}/repeat_{index}")
        sizes: list[ir.Value | list[int]] = [list(content.shape[: place.axis]), op.Shape(image, start=0, end=1)]
        shape = op.Concat(*(part for part in [*sizes, list(content.shape[place.axis + 1 :])] if part), axis=0)
        node.replace_input_with(index, op.Expand(value if batch == 1 else one, shape))
        added = list(graph)[len(before) :]
        graph.remove(added)
        graph.insert_before(node, added)
