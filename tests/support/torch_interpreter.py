"""Runs an ONNX graph of common operators in torch, in any precision: an oracle that shares no code with the package."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor
from torch.nn import functional

Attributes = dict[str, Any]


def _both_sides(x: Tensor, pads: list[int], value: float = 0.0) -> Tensor:
    """ONNX pads [begins…, ends…] as torch wants them: last axis first."""
    half = len(pads) // 2
    pairs = [side for axis in reversed(range(half)) for side in (pads[axis], pads[half + axis])]
    return functional.pad(x, pairs, value=value)


def _conv(a: Attributes, x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    padded = _both_sides(x, a.get("pads", [0, 0, 0, 0]))
    return functional.conv2d(padded, w, b, a.get("strides", 1), 0, a.get("dilations", 1), a.get("group", 1))


def _max_pool(a: Attributes, x: Tensor) -> Tensor:
    padded = _both_sides(x, a.get("pads", [0, 0, 0, 0]), -float("inf"))
    overhang = bool(a.get("ceil_mode", 0))
    return functional.max_pool2d(padded, a["kernel_shape"], a.get("strides", [1, 1]), ceil_mode=overhang)


def _batch_normalization(a: Attributes, x: Tensor, *p: Tensor) -> Tensor:
    scale, shift, mean, variance = p
    return functional.batch_norm(x, mean, variance, scale, shift, eps=a.get("epsilon", 1e-5))


def _gemm(a: Attributes, x: Tensor, w: Tensor, c: Tensor) -> Tensor:
    return x @ (w.T if a.get("transB", 0) else w) + c


def _reduce_mean(a: Attributes, x: Tensor, axes: Tensor | None = None) -> Tensor:
    over = axes.tolist() if axes is not None else a["axes"]
    return x.mean(dim=over, keepdim=bool(a.get("keepdims", 1)))


OPERATORS: dict[str, Callable[..., Tensor]] = {
    "Conv": _conv,
    "MaxPool": _max_pool,
    "BatchNormalization": _batch_normalization,
    "Gemm": _gemm,
    "ReduceMean": _reduce_mean,
    "Reshape": lambda a, x, shape: x.reshape([x.shape[i] if n == 0 else n for i, n in enumerate(shape.tolist())]),
    "Relu": lambda a, x: functional.relu(x),
    "Add": lambda a, x, y: x + y,
    "Mul": lambda a, x, y: x * y,
    "Concat": lambda a, *parts: torch.cat(parts, dim=a["axis"]),
    "GlobalAveragePool": lambda a, x: x.mean((2, 3), keepdim=True),
    "Flatten": lambda a, x: x.flatten(a.get("axis", 1)),
    "Dropout": lambda a, x: x,
    "Identity": lambda a, x: x,
}


def scores(path: Path, images: Tensor, stop_at: tuple[str, ...] = ("Softmax",)) -> Tensor:
    """The model's output [N, classes] in the precision of `images`, before the first operator of `stop_at`."""
    graph = onnx.load(path).graph
    values = {tensor.name: _tensor(numpy_helper.to_array(tensor), images.dtype) for tensor in graph.initializer}
    values[next(entry.name for entry in graph.input if entry.name not in values)] = images
    last = images
    for node in graph.node:
        if node.op_type in stop_at:
            break
        attributes = {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}
        if node.op_type == "Constant":
            last = _tensor(numpy_helper.to_array(attributes["value"]), images.dtype)
        else:
            last = OPERATORS[node.op_type](attributes, *(values[name] for name in node.input if name))
        values[node.output[0]] = last
    return last.flatten(1)


def _tensor(array: np.ndarray[Any, Any], dtype: torch.dtype) -> Tensor:
    tensor = torch.from_numpy(np.array(array))
    return tensor.to(dtype) if tensor.is_floating_point() else tensor
