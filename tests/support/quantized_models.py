"""Really quantised small networks, and the same in torch with a straight-through gradient of its own."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
import torch.nn.functional as F  # noqa: N812
from onnx import helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

import small_models
from small_models import conv, model, node, random_weight

WEIGHTS = {"w2": random_weight(8, 8, 3, 3), "b2": random_weight(8, seed=3), "wide": random_weight(128, 5)}


class Pictures(CalibrationDataReader):
    """Twelve random pictures, from which the ranges are taken."""

    def __init__(self) -> None:
        self.feeds: Iterator[dict[str, Any]] = iter(
            [{"x": small_models.images(3, 16, 16, count=4, seed=k)} for k in range(3)]
        )

    def get_next(self) -> dict[str, Any] | None:
        return next(self.feeds, None)


def network(opset: int) -> onnx.ModelProto:
    """Two convolutions, a skip connection and both pools."""
    nodes = [
        conv(),
        node("Relu", ["c"], ["r"]),
        node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", ["p", "w2", "b2"], ["c2"], pads=[1, 1, 1, 1]),
        node("Add", ["c2", "p"], ["a"]),
        node("Relu", ["a"], ["r2"]),
        node("AveragePool", ["r2"], ["ap"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Flatten", ["ap"], ["f"]),
        node("Gemm", ["f", "wide", "fb"], ["y"]),
    ]
    return model(nodes, WEIGHTS, opset=opset)


def quantized(opset: int = 20, form: QuantFormat = QuantFormat.QDQ, **options: Any) -> onnx.ModelProto:
    """The network as onnxruntime's static quantisation makes it."""
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder) / "before.onnx", Path(folder) / "after.onnx"
        onnx.save(network(opset), before)
        quantize_static(before, after, Pictures(), quant_format=form, **options)
        return onnx.load(after)


class StraightThrough(torch.autograd.Function):
    """Rounds and saturates forwards; backwards the identity where nothing was saturated."""

    @staticmethod
    def forward(context, x, scale, zero, lowest, highest):
        whole = torch.round(x / scale) + zero
        context.save_for_backward((whole >= lowest) & (whole <= highest))
        return (whole.clamp(lowest, highest) - zero) * scale

    @staticmethod
    def backward(context, g):
        return g * context.saved_tensors[0], None, None, None, None


def in_torch(proto: onnx.ModelProto, x: torch.Tensor) -> torch.Tensor:
    """The quantised network node by node, in float32: other sums would round to other integers."""
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    values: dict[str, Any] = {name: torch.tensor(a.astype(np.float32)) for name, a in arrays.items()}
    values["x"] = x
    for one in proto.graph.node:
        attributes = {a.name: helper.get_attribute_value(a) for a in one.attribute}
        operands = [values.get(name) for name in one.input]
        values[one.output[0]] = _apply(one, operands, attributes, arrays)
    return values["y"]


def _apply(one: onnx.NodeProto, operands: list[Any], attributes: dict[str, Any], arrays: dict[str, Any]) -> Any:
    x, *others = operands
    if one.op_type == "QuantizeLinear":  # (q − z) s at once
        limits = np.iinfo(arrays[one.input[2]].dtype)
        scale, zero = (t.reshape(()) for t in others)
        return StraightThrough.apply(x, scale, zero, float(limits.min), float(limits.max))
    if one.op_type == "DequantizeLinear":
        shape = [-1 if axis == attributes.get("axis", 1) else 1 for axis in range(x.dim())]
        scale, zero = (t.reshape(shape if t.numel() > 1 else ()) for t in (*others, torch.zeros(()))[:2])
        return (x - zero) * scale if one.input[0] in arrays else x
    functions = {
        "Add": torch.add,
        "AveragePool": lambda x: F.avg_pool2d(x, 2),
        "Conv": lambda x, *weights: F.conv2d(x, *weights, padding=attributes["pads"][0]),
        "Flatten": lambda x: x.flatten(1),
        "Gemm": lambda x, w, b: F.linear(x, w if attributes.get("transB") else w.T, b),
        "MaxPool": lambda x: F.max_pool2d(x, 2),
    }
    return functions[one.op_type](x, *others)
