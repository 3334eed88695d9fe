"""Scores that are means of a convolution's channels: a class is one of them, and its gradient depends on no other.

The reverse pass then begins behind that convolution, with the class's row of the weight at each place that its channel
counts at, and not with a convolution of all channels, of which one alone isn't zero. The products are the same.
"""

from dataclasses import dataclass
from math import prod

import onnx_ir as ir

from onnxplain_export.emitter import Emitter, attribute, constant_of, dims, is_constant
from onnxplain_export.vjp.window import window_of

MOVING = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity"})


@dataclass(frozen=True)
class ClassLayer:
    """A convolution of one tap whose channels are classes.

    `features` [rows, F, H, W] is what it reads, `weight` is [C, F, 1, 1], and the scores are the means over the places
    of `maps` [rows, C, H, W], which are its output, or behind a ReLU where they are `rectified`.
    """

    features: ir.Value
    weight: ir.Value
    maps: ir.Value
    rectified: bool

    def cotangent(self, op: Emitter, of_scores: ir.Value, targets: ir.Value | None) -> ir.Value:
        """The cotangent of `features` that one of the scores, [rows, C] with at most one number a row not 0, causes.

        Where an image's `targets` ([1], their number) share its features, it has as many rows for each of theirs.
        """
        channels, *sizes = _sizes(self.maps)
        index = op.ArgMax(op.Abs(of_scores), axis=1, keepdims=0)
        share = op.Mul(op.Reshape(op.ReduceSum(of_scores, [1]), [-1, 1, 1, 1]), 1.0 / prod(sizes))
        if self.rectified:
            each = [-1, 1, 1] if targets is None else op.Concat([-1], targets, [1], axis=0)
            places = op.Expand(op.Reshape(index, each), [1, 1, prod(sizes)])
            channel = op.GatherElements(op.Reshape(self.maps, [-1, channels, prod(sizes)]), places, axis=1)
            passes = op.Greater(op.Reshape(channel, [-1, 1, *sizes]), 0.0)
            share = op.Mul(share, op.Cast(passes, to=int(op.float_type)))
        else:
            share = op.Expand(share, [1, 1, *sizes])
        return op.Mul(op.Gather(self.weight, index, axis=0), share)


def class_layer(scores: ir.Value, rows: ir.Value) -> ClassLayer | None:
    """The convolution whose channels `scores` [rows, C] are means of, None where there is none behind `rows`."""
    pooled = _unmoved(scores, rows)
    maps = _averaged(pooled) or pooled
    relu = maps.producer()
    rectified = relu is not None and relu.op_type == "Relu"
    output = relu.inputs[0] if relu is not None and rectified else maps
    node = output.producer() if output is not None else None
    if node is None or node.op_type != "Conv" or rows in (pooled, maps, output):
        return None
    features, weight = node.inputs[:2]
    window = window_of(node)
    single = window.kernel == window.strides == (1, 1) and not any(window.pads) and attribute(node, "group", 1) == 1
    if features is None or weight is None or not is_constant(weight) or not single or prod(_sizes(maps)) == 0:
        return None
    return ClassLayer(features, weight, maps, rectified) if pooled is not maps or _sizes(maps)[1:] == (1, 1) else None


def _averaged(value: ir.Value) -> ir.Value | None:
    """The maps [rows, C, H, W] whose means over all places `value` holds."""
    node = value.producer()
    x = node.inputs[0] if node is not None and node.inputs else None
    if node is None or x is None or len(dims(x) or ()) != 4:
        return None
    if node.op_type == "ReduceMean":
        axes = constant_of(node.inputs[1]) if len(node.inputs) > 1 else None
        whole = axes is not None and sorted(int(axis) % 4 for axis in axes) == [2, 3]
    elif node.op_type == "AveragePool":
        window = window_of(node)
        whole = window.kernel == _sizes(x)[1:] and not any(window.pads)
    else:
        whole = node.op_type == "GlobalAveragePool"
    return x if whole else None


def _unmoved(value: ir.Value, rows: ir.Value) -> ir.Value:
    """What `value` [rows, C] is another form of, as far as `rows`: as many numbers in a row, in the same order."""
    while value is not rows and (node := value.producer()) is not None and node.op_type in MOVING:
        x = node.inputs[0]
        if x is None or prod(_sizes(x)) != prod(_sizes(value)):
            break
        value = x
    return value


def _sizes(value: ir.Value) -> tuple[int, ...]:
    """The axes of one row; (0,) where one isn't known."""
    axes = (dims(value) or (None, None))[1:]
    return tuple(axis for axis in axes if isinstance(axis, int)) if all(isinstance(n, int) for n in axes) else (0,)
