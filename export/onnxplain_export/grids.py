"""Which values of a network lie on a grid of places in the picture: feature maps in either layout, and tokens."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isqrt, log

import onnx_ir as ir

from onnxplain_export.autodiff import active_values, reads
from onnxplain_export.emitter import attribute, dims
from onnxplain_export.normalize import BATCH, Normalized, named_value
from onnxplain_export.normalize.scores import EXPLAINED

CHANNELS_FIRST = frozenset(
    {
        "AveragePool",
        "BatchNormalization",
        "Conv",
        "ConvTranspose",
        "DepthToSpace",
        "GlobalAveragePool",
        "GlobalMaxPool",
        "GroupNormalization",
        "InstanceNormalization",
        "LRN",
        "LpPool",
        "MaxPool",
        "QLinearConv",
        "SpaceToDepth",
    }
)
"""Operators whose results have their channels at axis 1, by definition."""
MOST_PREFIX = 8
"""Class, distillation and register tokens before those of the picture."""


@dataclass(frozen=True)
class Grid:
    """How a value [N, …] covers the picture: `kind` "NCHW", "NHWC" or "tokens", `size` its rows and columns.

    `prefix` tokens before the others stand for no place; `channels` is the number of features at each place.
    """

    kind: str
    size: tuple[int, int]
    channels: int
    prefix: int = 0


@dataclass(frozen=True)
class Layer:
    """The value `name` [N, *shape] inside the network, on a `grid` of (rows, columns) over the picture.

    `kind`, `prefix` and `channels` are as in Grid. `entry` [N, *entry_shape] is the last value before it, or itself,
    that every way from the image to the scores passes: what leads there is computed once for each image, however many
    targets are explained.
    """

    name: str
    shape: tuple[int, ...]
    kind: str
    grid: tuple[int, int]
    prefix: int
    channels: int
    entry: str
    entry_shape: tuple[int, ...]


class Grids:
    """The grids of a network's values, by what its operators say of their layouts and by the picture's shape."""

    def __init__(self, normalized: Normalized) -> None:
        graph = normalized.model.graph
        self._picture = normalized.size if normalized.layout else (0, 0)
        image = named_value(graph, normalized.image)
        self.channel_axes = _channel_axes(graph, image, normalized.layout)
        self._known = _grids_of_maps(graph, self.channel_axes)

    def grid_of(self, value: ir.Value) -> Grid | None:
        """The grid of a value, None for one that has none or whose layout is in doubt."""
        shape = sizes(value)
        if shape is None or value.dtype != ir.DataType.FLOAT:
            return None
        axis = self.channel_axes.get(value)
        if len(shape) == 3:
            return self._map(shape, axis)
        return self._tokens(*shape) if len(shape) == 2 and axis != 1 else None

    def _map(self, shape: Sequence[int], axis: int | None) -> Grid | None:
        first = fits(shape[1:], self._picture) if axis is None else axis == 1
        last = fits(shape[:2], self._picture) if axis is None else axis == 3
        if first == last:
            return None
        found = Grid("NCHW", (shape[1], shape[2]), shape[0]) if first else Grid("NHWC", (shape[0], shape[1]), shape[2])
        return found if found.size != (1, 1) else None

    def _tokens(self, length: int, channels: int) -> Grid | None:
        """Tokens on a grid that a feature map before them has, else on the one that is most like the picture."""
        for prefix in range(MOST_PREFIX + 1):
            for rows, columns in self._known:
                if rows * columns == length - prefix > 1:
                    return Grid("tokens", (rows, columns), channels, prefix)
        found = [
            (_mismatch(size, self._picture), prefix, size)
            for prefix in range(MOST_PREFIX + 1)
            for size in _divided(length - prefix)
            if fits(size, self._picture)
        ]
        if not found:
            return None
        _, prefix, size = min(found)
        return Grid("tokens", size, channels, prefix)


def sizes(value: ir.Value) -> tuple[int, ...] | None:
    """The axes behind the batch of a value [N, …], None where one isn't known or the first isn't the batch."""
    axes = dims(value)
    if axes is None or axes[:1] != (BATCH,) or not all(isinstance(axis, int) for axis in axes[1:]):
        return None
    return tuple(int(str(axis)) for axis in axes[1:])


def fits(size: Sequence[int], picture: tuple[int, int]) -> bool:
    """Whether some stride takes the picture's height and width to this grid's, a place more or less for the borders."""
    if min(picture) < 1 or size[0] * size[1] < 2 or min(size) < 1:
        return False
    ranges = [(side / (count + 1), side / max(count - 1, 0.5)) for side, count in zip(picture, size, strict=True)]
    return max(low for low, _ in ranges) < min(high for _, high in ranges)


def ways(normalized: Normalized) -> tuple[list[ir.Node], set[ir.Value], list[ir.Value]]:
    """The nodes on the way from the image to the scores, the values there, and those that every way passes, in order.

    A value is passed by every way where, once it is computed, nothing before it is needed any more.
    """
    graph = normalized.model.graph
    image, scores = named_value(graph, normalized.image), named_value(graph, EXPLAINED)
    active = active_values(list(graph), scores, [image])
    taken = {node: active.intersection(reads(node)) for node in graph}
    nodes = [node for node in graph if taken[node] and active.intersection(node.outputs)]
    left = Counter(value for node in nodes for value in taken[node])
    waiting, passed = {image}, [image]
    for node in nodes:
        left.subtract(taken[node])
        waiting -= {value for value in taken[node] if not left[value]}
        waiting |= active.intersection(node.outputs)
        if len(waiting) == 1 and passed[-1] not in waiting:
            passed.extend(waiting)
    return nodes, active, passed


def _channel_axes(graph: ir.Graph, image: ir.Value, layout: str | None) -> dict[ir.Value, int]:
    """The axis of the channels, wherever operators tell it."""
    found = {image: {"NCHW": 1, "NHWC": 3}[layout]} if layout else {}
    for node in graph:
        output = node.outputs[0] if node.outputs else None
        if output is None or output.shape is None:
            continue
        axis = _channel_axis(node, len(output.shape), found)
        if axis is not None:
            found.update(dict.fromkeys((one for one in node.outputs if one.shape is not None), axis))
    return found


def _channel_axis(node: ir.Node, rank: int, known: Mapping[ir.Value, int]) -> int | None:
    """The axis of the channels in a node's result of `rank` axes."""
    if node.op_type in CHANNELS_FIRST and rank > 2:
        return 1
    if node.op_type == "LayerNormalization":
        return rank - 1 if attribute(node, "axis", -1) in (-1, rank - 1) else None
    if node.op_type in ("MatMul", "Gemm"):
        weight = node.inputs[1]
        plain = weight is not None and weight not in known and weight.shape is not None and len(weight.shape) == 2
        return rank - 1 if plain else None
    source = next((value for value in node.inputs if value in known), None)
    return None if source is None or source.shape is None else _kept_axis(node, rank, source, known[source])


def _kept_axis(node: ir.Node, rank: int, source: ir.Value, axis: int) -> int | None:
    """Where a node that makes no channels leaves those of what it takes."""
    if node.op_type == "Transpose":
        order = attribute(node, "perm", list(range(rank))[::-1])
        return order.index(axis)
    if node.op_type == "Reshape":
        return _reshaped(source, node.outputs[0], axis)
    return axis if len(dims(source) or ()) == rank else None


def _reshaped(source: ir.Value, result: ir.Value, axis: int) -> int | None:
    """Where a Reshape leaves channels that are first or last among an image's axes."""
    before, after = dims(source) or (), dims(result) or ()
    if axis == 1 and len(after) > 2 and before[1] == after[1]:
        return 1
    if axis == len(before) - 1 and len(after) > 2 and before[-1] == after[-1]:
        return len(after) - 1
    return None


def _grids_of_maps(graph: ir.Graph, axes: Mapping[ir.Value, int]) -> list[tuple[int, int]]:
    """The different grids of what convolutions and pools make, the last first."""
    found: dict[tuple[int, int], None] = {}
    for node in graph:
        shape = sizes(node.outputs[0]) if node.op_type in CHANNELS_FIRST else None
        if shape is not None and len(shape) == 3 and axes.get(node.outputs[0]) == 1:
            found.pop((shape[1], shape[2]), None)
            found[shape[1], shape[2]] = None
    return list(found)[::-1]


def _divided(count: int) -> list[tuple[int, int]]:
    """The grids of so many places, in both orientations."""
    small = [side for side in range(1, isqrt(max(count, 0)) + 1) if count % side == 0]
    return [pair for side in small for pair in ((side, count // side), (count // side, side))]


def _mismatch(size: tuple[int, int], picture: tuple[int, int]) -> float:
    return abs(log(picture[0] / size[0]) - log(picture[1] / size[1]))
