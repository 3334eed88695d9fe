"""The model's inputs: which is explained and at which value, and a number for every axis but the batch's."""

from collections.abc import Iterator, Mapping, Sequence

import onnx_ir as ir

from onnxplain.errors import ModelError, ParameterError, unknown
from onnxplain_export.emitter import attribute, dims
from onnxplain_export.normalize.precision import MOVING
from onnxplain_export.normalize.shapes import BATCH, image_layout

VALUE = "the explained value"


def chosen_input(graph: ir.Graph, name: str | None) -> ir.Value:
    """The explained input, moved to the front: the named one, else a picture, else features, else token numbers."""
    inputs = {str(value.name): value for value in graph.inputs}
    if not inputs:
        raise ModelError("the model has no input")
    if name is not None and name not in inputs:
        raise ParameterError(unknown("input", name, inputs))
    chosen = inputs[name] if name is not None else max(graph.inputs, key=lambda value: _likelihood(graph, value))
    graph.inputs.remove(chosen)
    graph.inputs.insert(0, chosen)
    return chosen


def _likelihood(graph: ir.Graph, value: ir.Value) -> tuple[int, int]:
    """How much an input looks like what a person wants explained; the first of equals is taken."""
    axes = dims(value) or ()
    if value.dtype is not None and value.dtype.is_floating_point() and len(axes) >= 2:
        return (3 if image_layout(axes) else 2), 0
    return (1 if len(axes) >= 2 else 0), table_rows(graph, value) or 0


def looked_up(graph: ir.Graph, tokens: ir.Value) -> Iterator[tuple[ir.Node, ir.Value]]:
    """The Gathers that look `tokens`, moved or cast between integers, up in a table, and those tables."""
    computed = _depending(graph, graph.inputs)
    moved = {tokens}
    for node in graph:
        if node.inputs and node.inputs[0] in moved and (node.op_type in MOVING or node.op_type == "Cast"):
            moved.update(node.outputs)
        if node.op_type == "Gather" and node.inputs[1] in moved:
            table = node.inputs[0]
            if table is not None and table not in computed and len(dims(table) or (0, 0)) >= 2:
                yield node, table


def table_rows(graph: ir.Graph, tokens: ir.Value) -> int | None:
    """How many different numbers an integer input may hold, where it is looked up in tables; else None."""
    found = [(dims(table) or (None,))[attribute(node, "axis", 0)] for node, table in looked_up(graph, tokens)]
    rows = [size for size in found if isinstance(size, int)]
    return min(rows) if rows else None


def explained_value(graph: ir.Graph, image: ir.Value, name: str | None) -> ir.Value:
    """The value that gradients are taken at: the named one, the embedding of token numbers, else the input itself."""
    if name is not None:
        values = {str(value.name): value for value in _values(graph)}
        if name not in values:
            raise ParameterError(unknown("value", name, values))
        return _input_behind_cast(values[name], image)
    if image.dtype is None or image.dtype.is_floating_point():
        return image
    found = sorted(looked_up(graph, image), key=lambda pair: -(_first_axis(pair[1])))
    return found[0][0].outputs[0] if found else image


def _first_axis(table: ir.Value) -> int:
    size = (dims(table) or (0,))[0]
    return size if isinstance(size, int) else 0


def _input_behind_cast(value: ir.Value, image: ir.Value) -> ir.Value:
    """Where `value` only casts the input, the input: that is explained as a float itself."""
    node = value.producer()
    return image if node is not None and node.op_type == "Cast" and node.inputs[0] is image else value


def _values(graph: ir.Graph) -> Iterator[ir.Value]:
    yield from graph.inputs
    for node in graph:
        yield from node.outputs


def _depending(graph: ir.Graph, start: Sequence[ir.Value]) -> set[ir.Value]:
    reached = set(start)
    for node in graph:
        if any(value in reached for value in node.inputs):
            reached.update(node.outputs)
    return reached


def fix_inputs(graph: ir.Graph, size: tuple[int, int] | None, axes: Mapping[str, int]) -> None:
    """Names the batch axis of every input and gives all other axes numbers: `size` a picture's, `axes` those by name.

    A first axis is the batch where it is free, or where it holds the same number as that of the first input, which is
    the explained one. Other inputs of a fixed first axis are the same for all images.
    """
    free = {str(axis) for value in graph.inputs for axis in (dims(value) or ())[1:] if not isinstance(axis, int)}
    for name in axes:
        if name not in free:
            raise ParameterError(unknown("free axis", name, free))
    for value in graph.inputs:
        _fix_input(value, size if value is graph.inputs[0] else None, axes)


def _fix_input(value: ir.Value, size: tuple[int, int] | None, given: Mapping[str, int]) -> None:
    known = dims(value)
    if known is None:
        raise ModelError(f"input {value.name!r} declares no shape; export the model with one")
    axes = [axis if isinstance(axis, int) else given.get(str(axis), axis) for axis in known]
    if axes and not isinstance(axes[0], int):
        axes[0] = BATCH
    layout = _possible_layout([BATCH, *axes[1:]])
    if size is not None and layout is not None:
        first = 2 if layout == "NCHW" else 1
        for axis, pixels in zip((first, first + 1), size, strict=True):
            if isinstance(axes[axis], int) and axes[axis] != pixels:
                raise ModelError(
                    f"input {value.name!r} is fixed at {axes}; it can't be exported for {size[0]}x{size[1]}"
                )
            axes[axis] = pixels
    _refuse_free_axes(value, axes, layout)
    value.shape = ir.Shape(axes)


def _possible_layout(axes: Sequence[object]) -> str | None:
    """The layout of a batch of images whose channels may be any number."""
    layout = image_layout(axes)
    if layout is None and len(axes) == 4:
        return "NCHW" if isinstance(axes[1], int) or not isinstance(axes[3], int) else "NHWC"
    return layout


def _refuse_free_axes(value: ir.Value, axes: Sequence[object], layout: str | None) -> None:
    free = [(number, axis) for number, axis in enumerate(axes) if number and not isinstance(axis, int)]
    if not free:
        return
    if layout is not None:
        numbers = [number for number, _ in free]
        raise ModelError(
            f"input {value.name!r} leaves axes {numbers} free; name the picture's size: --size HEIGHT WIDTH"
        )
    names = " ".join(f"--axis {axis}=SIZE" for _, axis in free if axis is not None)
    raise ModelError(
        f"input {value.name!r} leaves axes {[str(axis) for _, axis in free]} free; name their sizes: "
        f"{names or 'export the model with names for them'}"
    )


def check_batched(image: ir.Value) -> None:
    """Refuses an explained input without a batch axis."""
    if len(dims(image) or ()) < 2:
        raise ModelError(f"input {image.name!r} has no batch axis (its shape is {image.shape})")


def batched_inputs(graph: ir.Graph, baked: int | None) -> list[ir.Value]:
    """The inputs that have a row for every image; the explained one is the first of them."""
    image, *others = graph.inputs
    if baked is None:
        return [image, *(value for value in others if (dims(value) or (0,))[0] == BATCH)]
    return [image, *(value for value in others if (axes := dims(value) or ())[:1] == (baked,) and len(axes) > 1)]
