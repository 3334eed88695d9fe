"""Finds the feature layer that the CAM family explains at, and checks one that is named.

A layer's name is the source model's. What every graph of a layer shares is `Layer`; see graphs/layer.py and
graphs/tail.py.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxplain.errors import ModelError, ParameterError, unknown
from onnxplain_export.emitter import dims
from onnxplain_export.evaluate import run, session_of
from onnxplain_export.graphs.gradient import gradient
from onnxplain_export.grids import MOST_PREFIX, Grid, Grids, Layer, sizes, ways
from onnxplain_export.normalize import BATCH, Normalized, named_value
from onnxplain_export.normalize.onward import onward

MOVING = frozenset({"Cast", "Concat", "Flatten", "Gather", "Identity", "Pad", "Reshape", "Slice", "Split"})
RESHAPING = frozenset({"Expand", "Squeeze", "Transpose", "Unsqueeze"})
POOLING = frozenset(
    {"AveragePool", "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool", "LpPool", "MaxPool", "ReduceL2"}
)
REDUCING = frozenset({"ReduceMax", "ReduceMean", "ReduceSum"})
PASSING = (MOVING - {"Concat"}) | RESHAPING | POOLING | REDUCING
"""What may come between the last features and the head: the layer is before these, as in the papers (VGG's last
activation, not the pool behind it). A Concat makes features (the branches of Inception and SqueezeNet)."""
WEIGHING = frozenset({"Conv", "ConvTranspose", "Einsum", "Gemm", "MatMul", "QLinearConv", "QLinearMatMul"})
SHOWN = 8


@dataclass(frozen=True)
class _Network:
    """What is known of a network's values, computed once."""

    normalized: Normalized
    grids: Grids
    nodes: Sequence[ir.Node]
    active: set[ir.Value]
    passed: Sequence[ir.Value]


def find_layer(normalized: Normalized) -> Layer:
    """The layer that is explained at unless one is named: the last features that still lie on a grid.

    Of a CNN the last value with rows and columns that every way from the image to the scores passes: before the final
    pooling, and before a convolution that makes scores of features. Of a transformer the last tokens that all matter:
    where a class token is read at the end, what the last block's first LayerNormalization makes. (Not what it takes:
    at a LayerNormalization's input the gradient is orthogonal to the features, and gradient times features is 0.)
    ModelError where no value has a grid.
    """
    network = _network(normalized)
    fallback = None
    for value, grid in _candidates(network):
        if not _is_weighed(network, value, behind=True):
            fallback = fallback or (value, grid)  # class maps, but of a network that may have nothing else
            continue
        if not grid.prefix:
            return _layer(network, value, grid)
        for tried in (*_normalised(value), value):
            there = network.grids.grid_of(tried)
            if there is not None and _places_matter(normalized, _layer(network, tried, there)):
                return _layer(network, tried, there)
    if fallback is not None:
        return _layer(network, *fallback)
    raise ModelError(
        "no value between the image and the scores has rows and columns or tokens on a grid: there is no layer for "
        "CAM methods; use a method at the input, such as gradient"
    )


def named_layer(normalized: Normalized, name: str) -> Layer:
    """The value of that name in the source as a layer; "" is the image itself.

    ParameterError says what is wrong with a name that is unknown, lies off the way from image to scores or has no grid,
    and which values would do.
    """
    network = _network(normalized)
    values = {str(value.name): value for value in [*normalized.model.graph.inputs, *_made(normalized.model.graph)]}
    wanted = name or normalized.image
    tried = (wanted, normalized.renamed.get(wanted, wanted), f"model/{wanted}")
    found = next((values[one] for one in tried if one in values), None)
    if found is None:
        gone = "; values that normalisation folds or drops, such as what a BatchNormalization takes, have no name here"
        raise ParameterError(f"{unknown('layer', wanted, values)}{gone}. {_advice(network)}")
    if found not in network.active:
        raise ParameterError(f"{wanted!r} isn't on the way from the image to the scores. {_advice(network)}")
    grid = network.grids.grid_of(found)
    if grid is None:
        raise ParameterError(
            f"{wanted!r} has shape {list(dims(found) or ())} and no place in the picture; a layer is "
            f"[{BATCH}, C, h, w] or [{BATCH}, h, w, C] with more than one place, or tokens [{BATCH}, L, C] with "
            f"L = h·w behind at most {MOST_PREFIX} others. {_advice(network)}"
        )
    return _layer(network, found, grid)


def chosen_layers(normalized: Normalized, names: Sequence[str] = ()) -> list[Layer]:
    """The layers of a bundle, the default one first: the first named, or the one that is found."""
    return [named_layer(normalized, name) for name in dict.fromkeys(names)] or [find_layer(normalized)]


def layer_entry(layer: Layer, number: int, tail: bool) -> dict[str, Any]:
    """What explainer.json says of the layer of this number; the first one is the default."""
    return {
        "name": layer.name.removeprefix("model/"),
        "shape": [BATCH, *layer.shape],
        "layout": layer.kind,
        "grid": list(layer.grid),
        "prefix": layer.prefix,
        "graph": graph_name("layer", number),
        "tail": graph_name("tail", number) if tail else None,
        "default": number == 0,
    }


def graph_name(graph: str, number: int) -> str:
    """What the graph of the layer of this number is called: layer, layer.1, layer.2."""
    return f"{graph}.{number}" if number else graph


def _network(normalized: Normalized) -> _Network:
    nodes, active, passed = ways(normalized)
    return _Network(normalized, Grids(normalized), nodes, active, passed)


def _made(graph: ir.Graph) -> Iterator[ir.Value]:
    for node in graph:
        yield from node.outputs


def _layer(network: _Network, value: ir.Value, grid: Grid) -> Layer:
    """The value as a layer, entered at the last value before it that every way passes."""
    order = {one: number for number, node in enumerate(network.nodes, 1) for one in node.outputs}
    entry = max(
        (one for one in network.passed if order.get(one, 0) <= order.get(value, 0)), key=lambda v: order.get(v, 0)
    )
    shape, entry_shape = sizes(value), sizes(entry)
    if entry_shape is None or entry.dtype != ir.DataType.FLOAT:
        entry = named_value(network.normalized.model.graph, network.normalized.image)
        entry_shape = network.normalized.image_shape
    return Layer(
        name=str(value.name),
        shape=shape or (),
        kind=grid.kind,
        grid=grid.size,
        prefix=grid.prefix,
        channels=grid.channels,
        entry=str(entry.name),
        entry_shape=entry_shape,
    )


def _candidates(network: _Network) -> Iterator[tuple[ir.Value, Grid]]:
    """The features on a grid that every way passes, the last first; the image and what only scales it are none."""
    for value in reversed(network.passed[1:]):
        node, grid = _maker(value), network.grids.grid_of(value)
        made = node is not None and node.op_type not in PASSING
        if made and grid is not None and _is_weighed(network, value, behind=False):
            yield value, grid


def _maker(value: ir.Value) -> ir.Node | None:
    """The node that makes the value, but for its quantisation."""
    node = value.producer()
    while node is not None and node.op_type in ("QuantizeLinear", "DequantizeLinear") and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    return node


def _is_weighed(network: _Network, value: ir.Value, behind: bool) -> bool:
    """Whether weights are multiplied behind a value that every way passes, or before it."""
    producer = value.producer()
    end = -1 if producer is None else network.nodes.index(producer)
    nodes = network.nodes[end + 1 :] if behind else network.nodes[: end + 1]
    return any(
        node.op_type in WEIGHING and any(one is not None and one not in network.active for one in node.inputs)
        for node in nodes
    )


def _normalised(value: ir.Value) -> list[ir.Value]:
    """What a LayerNormalization makes of the value, whole or written out as its mean, deviation and scale."""
    for user in (use.node for use in value.uses()):
        if user.op_type == "LayerNormalization" and user.inputs[0] is value:
            return [user.outputs[0]]
        if user.op_type == "Sub" and user.inputs[0] is value:
            divided = next((use.node for use in user.outputs[0].uses() if use.node.op_type == "Div"), None)
            if divided is not None:
                return [_scaled(divided.outputs[0])]
    return []


def _scaled(value: ir.Value) -> ir.Value:
    """The value after multiplications and additions of constants."""
    users = [use.node for use in value.uses()]
    scaled = len(users) == 1 and users[0].op_type in ("Mul", "Add")
    if scaled and any(one is not None and one.is_initializer() for one in users[0].inputs):
        return _scaled(users[0].outputs[0])
    return value


def _places_matter(normalized: Normalized, layer: Layer) -> bool:
    """Whether the scores have a gradient at the tokens of places, not at a class token alone; tried on noise."""
    behind = onward(replace(normalized, value=layer.name, value_shape=layer.shape))
    session = session_of(gradient(behind))
    generator = np.random.default_rng(0)
    feeds = {}
    for entry in session.get_inputs():
        shape = [axis if isinstance(axis, int) else 1 for axis in entry.shape]
        noise = generator.standard_normal(shape).astype(np.float32)
        feeds[entry.name] = noise if entry.type == "tensor(float)" else np.zeros(shape, _DTYPES[entry.type])
    places = run(session, feeds, ["total"])[0][0, 0, layer.prefix :]
    return bool(np.abs(places).max() > 0)


_DTYPES = {"tensor(int64)": np.int64, "tensor(int32)": np.int32, "tensor(bool)": np.bool_}


def _advice(network: _Network) -> str:
    """The names that would do."""
    found = [str(value.name).removeprefix("model/") for value, _ in _candidates(network)][:SHOWN]
    return (
        f"The last layers that every way passes: {', '.join(found)}" if found else "No value of this model has a grid"
    )
