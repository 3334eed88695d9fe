"""How each opset writes an operator: functions from the opset to nodes from x [N, 3, 6, 6] to z, N first."""

# ruff: noqa: ARG001 (each takes the opset, whether it needs it or not)

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from onnx import NodeProto, helper

Array = np.ndarray
node = helper.make_node


class Form(NamedTuple):
    """Nodes from x to z and their weights."""

    nodes: Sequence[NodeProto]
    weights: Mapping[str, Any] = {}


Maker = Callable[[int], Form]


def numbers(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def one(op_type: str, *others: str, **attributes: Any) -> Form:
    return Form([node(op_type, ["x", *others], ["z"], **attributes)])


def plain(op_type: str, **attributes: Any) -> Maker:
    """An operator of x alone that is the same at every opset."""
    return lambda opset: one(op_type, **attributes)


def of_unit(op_type: str, shift: float = 0.0) -> Maker:
    """An operator of numbers between `shift` and 1 + `shift`."""
    nodes = [node("Sigmoid", ["x"], ["s"]), node("Add", ["s", "shift"], ["t"]), node(op_type, ["t"], ["z"])]
    return lambda opset: Form(nodes, {"shift": np.float32(shift)})


def with_constants(op_type: str, **weights: Any) -> Maker:
    """An operator of x and constants, in their order."""
    return lambda opset: Form([node(op_type, ["x", *weights], ["z"])], weights)


def with_attributes(op_type: str, weights: Mapping[str, Any], **attributes: Any) -> Maker:
    return lambda opset: Form([node(op_type, ["x", *weights], ["z"], **attributes)], weights)


def reduction(op_type: str, since: int) -> Maker:
    """Axes are an attribute before opset `since`, then an input."""

    def maker(opset: int) -> Form:
        source = [node("Sigmoid", ["x"], ["s"])]
        if opset < since:
            return Form([*source, node(op_type, ["s"], ["z"], axes=[1, 3], keepdims=0)])
        return Form([*source, node(op_type, ["s", "axes"], ["z"], keepdims=0)], {"axes": np.array([1, 3])})

    return maker


def squeezed(opset: int) -> Form:
    if opset < 13:
        return Form([node("Unsqueeze", ["x"], ["u"], axes=[1]), node("Squeeze", ["u"], ["z"], axes=[1])])
    nodes = [node("Unsqueeze", ["x", "axes"], ["u"]), node("Squeeze", ["u", "axes"], ["z"])]
    return Form(nodes, {"axes": np.array([1])})


def split(opset: int) -> Form:
    outputs = ["a", "z"]
    if opset < 13:
        return Form([node("Split", ["x"], outputs, axis=3, split=[2, 4])])
    return Form([node("Split", ["x", "sizes"], outputs, axis=3)], {"sizes": np.array([2, 4])})


def sliced(opset: int) -> Form:
    if opset < 10:
        return one("Slice", axes=[2, 3], starts=[1, -4], ends=[5, 2**31 - 1])
    arguments = {"starts": [1, -1], "ends": [5, -6], "axes": [2, 3], "steps": [2, -2]}
    return Form([node("Slice", ["x", *arguments], ["z"])], {k: np.array(v) for k, v in arguments.items()})


def padded(opset: int) -> Form:
    pads = [0, 0, 1, 2, 0, 0, 0, 1]
    if opset < 11:
        return one("Pad", pads=pads, value=0.5, mode="constant")
    weights = {"pads": np.array(pads), "value": np.float32(0.5)}
    if opset < 18:
        return Form([node("Pad", ["x", *weights], ["z"])], weights)
    weights = {"pads": np.array([1, 2, 0, 1]), "value": np.float32(0.5), "axes": np.array([2, 3])}
    return Form([node("Pad", ["x", *weights], ["z"])], weights)


def clipped(opset: int) -> Form:
    if opset < 11:
        return one("Clip", min=-0.5, max=0.75)
    return with_constants("Clip", low=np.float32(-0.5), high=np.float32(0.75))(opset)


def top_k(opset: int) -> Form:
    if opset < 10:
        return Form([node("TopK", ["x"], ["z", "i"], k=2, axis=3)])
    return Form([node("TopK", ["x", "k"], ["z", "i"], axis=3)], {"k": np.array([2])})


def upsampled(opset: int) -> Form:
    if opset < 9:
        return one("Upsample", scales=[1.0, 1.0, 2.0, 3.0], mode="linear")
    return with_attributes("Upsample", {"scales": np.array([1, 1, 2, 3], np.float32)}, mode="nearest")(opset)


def resized(opset: int) -> Form:
    scales = {"scales": np.array([1, 1, 1.5, 2], np.float32)}
    if opset < 11:
        return Form([node("Resize", ["x", "scales"], ["z"], mode="linear")], scales)
    if opset < 18:
        roi = {"roi": np.zeros(0, np.float32)}
        return Form(
            [node("Resize", ["x", "roi", "scales"], ["z"], mode="linear", coordinate_transformation_mode="half_pixel")],
            {**scales, **roi},
        )
    attributes: dict[str, Any] = {"mode": "cubic", "antialias": 1, "axes": [2, 3]}
    return Form([node("Resize", ["x", "", "", "sizes"], ["z"], **attributes)], {"sizes": np.array([4, 9])})


def dropped(opset: int) -> Form:
    if opset < 12:
        return one("Dropout", ratio=0.4)
    return with_constants("Dropout", ratio=np.float32(0.4))(opset)


def batch_norm(opset: int) -> Form:
    weights = {name: np.abs(numbers(3, seed=k)) + 0.5 for k, name in enumerate("abcd")}
    return Form([node("BatchNormalization", ["x", *weights], ["z"], epsilon=1e-3)], weights)


def scattered(opset: int) -> Form:
    """Scatter until opset 10, ScatterElements from 11."""
    kind = "Scatter" if opset < 11 else "ScatterElements"
    return Form(
        [
            node("Reshape", ["x", "shape"], ["flat"]),
            node("Slice", ["flat", "0", "4", "1"], ["part"])
            if opset > 9
            else node("Slice", ["flat"], ["part"], starts=[0], ends=[4], axes=[1]),
            node("Mul", ["part", "two"], ["update"]),
            node(kind, ["flat", "places", "update"], ["z"], axis=1),
        ],
        {"shape": np.array([1, 108]), "two": np.float32(2), "places": np.array([[3, 50, 7, 100]])}
        | {"0": np.array([0]), "4": np.array([4]), "1": np.array([1])},
    )


def softmax(op_type: str) -> Maker:
    return lambda opset: one(op_type, axis=1)


def pool(op_type: str, **attributes: Any) -> Maker:
    """With what each opset has learnt: pads first, ceil_mode from 10, dilations later."""

    def maker(opset: int) -> Form:
        more: dict[str, Any] = {}
        if op_type != "LpPool" and opset >= 10:
            more["ceil_mode"] = 1
        if op_type == "LpPool" and opset >= 18:
            more.update(ceil_mode=1, dilations=[1, 2])
        if (op_type == "AveragePool" and opset >= 19) or (op_type == "MaxPool" and opset >= 10):
            more["dilations"] = [1, 2]
        return one(op_type, kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 1, 1], **attributes, **more)

    return maker


def recurrent(op_type: str, gates: int) -> Maker:
    """Over the rows of the picture, whose columns and channels are the features."""

    def maker(opset: int) -> Form:
        weights = {"w": 0.3 * numbers(1, 4 * gates, 18), "r": 0.3 * numbers(1, 4 * gates, 4, seed=1)}
        weights["b"] = 0.3 * numbers(1, 8 * gates, seed=2)
        nodes = [
            node("Transpose", ["x"], ["rows"], perm=[2, 0, 1, 3]),
            node("Reshape", ["rows", "steps"], ["sequence"]),
            node(op_type, ["sequence", *weights], ["all", "last"], hidden_size=4),
            node("Transpose", ["last"], ["z"], perm=[1, 0, 2]),
        ]
        return Form(nodes, {**weights, "steps": np.array([6, -1, 18])})

    return maker


def unpooled(opset: int) -> Form:
    nodes = [
        node("MaxPool", ["x"], ["p", "places"], kernel_shape=[2, 2], strides=[2, 2]),
        node("MaxUnpool", ["p", "places"], ["z"], kernel_shape=[2, 2], strides=[2, 2]),
    ]
    return Form(nodes)


def roi_aligned(opset: int) -> Form:
    weights = {"regions": np.array([[0, 0.5, 4, 5]], np.float32), "batch": np.array([0])}
    return Form([node("RoiAlign", ["x", *weights], ["z"], output_height=3, output_width=2, sampling_ratio=2)], weights)


def gathered_nd(opset: int) -> Form:
    nodes = [node("Transpose", ["x"], ["t"], perm=[1, 2, 0, 3]), node("GatherND", ["t", "places"], ["g"])]
    return Form([*nodes, node("Transpose", ["g"], ["z"], perm=[1, 0, 2])], {"places": np.array([[0, 1], [2, 5]])})


def scattered_nd(opset: int) -> Form:
    nodes = [
        node("Reshape", ["x", "flat"], ["f"]),
        node("Gather", ["f", "few"], ["g"], axis=0),
        node("ScatterND", ["f", "places", "g"], ["s"]),
        node("Reshape", ["s", "back"], ["z"]),
    ]
    weights = {"flat": np.array([108]), "few": np.array([3, 9]), "places": np.array([[5], [7]])}
    return Form(nodes, {**weights, "back": np.array([1, 108])})


def one_hot(opset: int) -> Form:
    nodes = [node("OneHot", ["which", "depth", "values"], ["hot"], axis=-1), node("Mul", ["x", "hot"], ["z"])]
    return Form(nodes, {"which": np.array([0, 1, 2, 3, 4, 5]), "depth": np.array(6), "values": np.float32([0.5, 2])})


def unique(opset: int) -> Form:
    nodes = [node("Flatten", ["x"], ["f"]), node("MatMul", ["f", "few"], ["m"]), node("Reshape", ["m", "flat"], ["r"])]
    nodes += [node("Unique", ["r"], ["u"]), node("Reshape", ["u", "back"], ["z"])]
    return Form(nodes, {"few": numbers(108, 6), "flat": np.array([-1]), "back": np.array([1, 6])})


def ranged(opset: int) -> Form:
    nodes = [node("Range", ["0", "6", "1"], ["r"]), node("Mul", ["x", "r"], ["z"])]
    return Form(nodes, {name: np.float32(name) for name in "061"})


def grid(opset: int) -> Form:
    places = {"grid": np.random.default_rng(0).uniform(-1, 1, (1, 4, 5, 2)).astype(np.float32)}
    mode = "bilinear" if opset < 20 else "linear"
    return Form([node("GridSample", ["x", "grid"], ["z"], mode=mode, padding_mode="border")], places)


def affine(opset: int) -> Form:
    nodes = [
        node("ReduceMean", ["x", "axes"], ["m"], keepdims=0),
        node("Reshape", ["m", "3"], ["few"]),
        node("Gemm", ["few", "w", "b"], ["six"]),
        node("Reshape", ["six", "23"], ["theta"]),
        node("AffineGrid", ["theta", "size"], ["z"]),
    ]
    weights = {"axes": np.array([2, 3]), "3": np.array([-1, 3]), "23": np.array([-1, 2, 3])}
    return Form(nodes, {**weights, "w": numbers(3, 6), "b": numbers(6), "size": np.array([1, 1, 3, 4])})


def fourier(opset: int) -> Form:
    nodes = [node("Reshape", ["x", "shape"], ["r"])]
    weights = {"shape": np.array([1, 6, 18, 1]), "axis": np.array(1), "length": np.array(8)}
    if opset < 20:
        return Form([*nodes, node("DFT", ["r"], ["z"], axis=1, onesided=1)], weights)
    return Form([*nodes, node("DFT", ["r", "length", "axis"], ["z"], onesided=1)], weights)


def short_fourier(opset: int) -> Form:
    nodes = [node("Reshape", ["x", "flat"], ["f"]), node("STFT", ["f", "step", "window"], ["z"])]
    weights = {"flat": np.array([1, 108, 1]), "step": np.array(20), "window": np.hanning(32).astype(np.float32)}
    return Form(nodes, weights)


def columns(opset: int) -> Form:
    nodes = [node("Reshape", ["x", "shape"], ["c"]), node("Col2Im", ["c", "image", "block"], ["z"])]
    return Form(nodes, {"shape": np.array([1, 12, 9]), "image": np.array([4, 4]), "block": np.array([2, 2])})


def deformed(opset: int) -> Form:
    weights = {"w": numbers(2, 3, 2, 2), "offset": 0.3 * numbers(1, 8, 5, 5)}
    return Form([node("DeformConv", ["x", *weights], ["z"], kernel_shape=[2, 2])], weights)


def determinant(opset: int) -> Form:
    return Form([node("Det", ["x"], ["z"])])


def reversed_sequence(opset: int) -> Form:
    nodes = [
        node("Reshape", ["x", "rows"], ["r"]),
        node("ReverseSequence", ["r", "lengths"], ["s"], batch_axis=1, time_axis=0),
        node("Reshape", ["s", "back"], ["z"]),
    ]
    return Form(
        nodes, {"rows": np.array([18, 6]), "lengths": np.array([1, 9, 18, 3, 4, 5]), "back": np.array([1, 108])}
    )


def extreme(op_type: str) -> Maker:
    nodes = [node("Mul", ["x", "share"], ["n"]), node(op_type, ["x", "n", "row"], ["z"])]
    return lambda opset: Form(
        nodes, {"row": numbers(6) if opset >= 8 else numbers(1, 3, 6, 6), "share": np.float32(-0.3)}
    )


def chosen(opset: int) -> Form:
    nodes = [
        node("Greater", ["x", "0"], ["mask"]),
        node("Mul", ["x", "x"], ["s"]),
        node("Where", ["mask", "s", "x"], ["z"]),
    ]
    return Form(nodes, {"0": np.float32(0)})


def modulo(opset: int) -> Form:
    return Form([node("Mod", ["x", "b"], ["z"], fmod=1)], {"b": np.float32(2.5)})


def raised(opset: int) -> Form:
    nodes = [node("Sigmoid", ["x"], ["s"]), node("Pow", ["s", "p"], ["z"])]
    return Form(nodes, {"p": np.float32(1.7)})


def transposed_conv(opset: int) -> Form:
    attributes = {"strides": [2, 1], "output_padding": [1, 0], "pads": [1, 0, 0, 1]}
    return with_attributes("ConvTranspose", {"w": numbers(3, 2, 3, 3), "b": numbers(2)}, **attributes)(opset)


def multiplied(opset: int) -> Form:
    nodes = [node("Flatten", ["x"], ["f"]), node("Gemm", ["f", "w", "c"], ["z"], transB=1, alpha=0.5, beta=2.0)]
    return Form(nodes, {"w": 0.1 * numbers(4, 108), "c": numbers(1, 4)})


def summed_by_letters(opset: int) -> Form:
    return Form([node("Einsum", ["x", "w"], ["z"], equation="nchw,wk->nkh")], {"w": numbers(6, 2)})


def group_norm(opset: int) -> Form:
    count = 1 if opset < 21 else 3  # of groups, then of channels
    weights = {"scale": numbers(count), "bias": numbers(count, seed=1)}
    return Form([node("GroupNormalization", ["x", *weights], ["z"], num_groups=1)], weights)


def compressed(opset: int) -> Form:
    keep = {"keep": np.array([True, False, True])}
    return Form([node("Compress", ["x", "keep"], ["z"], axis=1)], keep)


def tensor_scattered(opset: int) -> Form:
    nodes = [node("Tanh", ["x"], ["t"]), node("Slice", ["t", "0", "2", "axis"], ["u"])]
    nodes.append(node("TensorScatter", ["x", "u", "starts"], ["z"], mode="circular"))
    weights = {"0": np.array([0]), "2": np.array([2]), "axis": np.array([2]), "starts": np.array([5])}
    return Form(nodes, weights)


def trilu(opset: int) -> Form:
    return with_attributes("Trilu", {"k": np.array(1)}, upper=0)(opset)
