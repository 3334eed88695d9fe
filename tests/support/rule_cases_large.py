"""Large uses of the operators: those that mix rows, those that add up many entries in one place, and wide layers."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812

from rule_harness import Case

RNG = np.random.default_rng(9)
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}


def normal(*shape: int) -> np.ndarray:
    """Weights whose products keep the size."""
    return RNG.standard_normal(shape) / np.sqrt(shape[-1])


def places(size: int, *shape: int) -> np.ndarray:
    """Indices into an axis, each of them many times and some from the end."""
    return RNG.integers(-size, size, shape)


def layer(op_type: str) -> Case:
    """Sixteen steps of 48 samples through 64 cells, both ways."""
    rows = GATES[op_type] * 64
    inputs = [(16, 48, 32), normal(2, rows, 32), normal(2, rows, 64), normal(2, 2 * rows)]
    attributes = {"direction": "bidirectional", "hidden_size": 64}
    return Case(op_type, inputs, attributes, outputs=1, batched=())


def corners(count: int) -> np.ndarray:
    """Regions inside an image of 40 by 40."""
    return np.concatenate([RNG.uniform(1, 15, (count, 2)), RNG.uniform(20, 38, (count, 2))], axis=1)


def scatters(reduction: str) -> list[Case]:
    """20,000 rows written into 500 where they add up; the product of each place is of few factors."""
    crowded = reduction == "add"
    rows, size = (20_000, 500) if crowded else (9_000, 12_000)
    indices = places(size, rows, 1)
    if reduction == "none":
        indices = RNG.permutation(size)[:rows, None]
    attributes: dict[str, Any] = {"reduction": reduction}
    along = np.repeat(indices, 4, axis=1)
    values = RNG.permutation((rows + size) * 4) / ((rows + size) * 4) + 0.5
    data, updates = values[: size * 4].reshape(size, 4), values[size * 4 :].reshape(rows, 4)
    return [
        Case("ScatterND", [data, indices, updates], attributes, (0, 2), reduction, fed=(1,), batched=()),
        Case("ScatterElements", [data, along, updates], attributes, (0, 2), reduction, fed=(1,), batched=()),
    ]


MIXED_ROWS = [
    *[layer(op_type) for op_type in GATES],
    Case("AffineGrid", [(2, 2, 3), np.array([2, 1, 300, 200])], batched=()),
    Case("OneHot", [places(4, 40_000), np.array(4), (2,)], {}, (2,), fed=(0,), batched=()),
    Case("Range", [np.array(0.5), np.array(130_000.0), np.array(1.0)], wrt=(0, 2), fed=(1,), batched=()),
    Case("ReverseSequence", [(60, 50, 50), RNG.integers(1, 60, 50)], batched=()),
    Case(
        "RoiAlign",
        [(2, 16, 40, 40), corners(40), places(2, 40) % 2],
        {"output_height": 14, "output_width": 14, "sampling_ratio": 2},
        fed=(1, 2),
        batched=(0,),
    ),
    Case("Unique", [places(300, 120_000).astype(np.float64)], batched=()),
    *[case for reduction in ("none", "add", "mul", "min", "max") for case in scatters(reduction)],
]

SHARED_PLACES = [
    Case("Gather", [(64, 1), places(64, 3_000_000)], fed=(1,), batched=(), note="table"),
    Case("Gather", [(32, 100, 8), places(100, 600)], {"axis": 1}, fed=(1,), batched=(0,), note="middle axis"),
    Case("GatherElements", [(50, 40), places(50, 4000, 40)], {"axis": 0}, fed=(1,), batched=(), note="rows"),
    Case("GatherND", [(64, 1), places(64, 500_000, 1)], fed=(1,), batched=(), note="table"),
    Case("Expand", [(1, 40), np.array([4000, 40])], batched=(), note="one row"),
    Case("Add", [(4000, 40), (40,)], wrt=(0, 1), note="bias"),
    Case("ReduceSum", [(4000, 40), np.array([0])], batched=(), note="rows"),
    Case("ReduceMax", [(4000, 40), np.array([0])], batched=(), note="rows"),
]

WIDE = [
    Case("MatMul", [(300, 400), normal(300, 400).T], note="square", torch=torch.matmul),
    Case("MatMul", [(24, 96, 64), (24, 64, 96)], wrt=(0, 1), note="heads", torch=torch.matmul),
    Case("Gemm", [(300, 400), normal(350, 400), (350,)], {"transB": 1}, (0, 2), torch=lambda x, w, b: x @ w.T + b),
    Case("Softmax", [(400, 300)], torch=lambda x: x.softmax(-1), note="wide"),
    Case("LayerNormalization", [(400, 300), (300,), (300,)], {}, (0, 1, 2), note="wide"),
    Case(
        "Conv",
        [(2, 24, 56, 56), normal(32, 24, 3, 3)],
        {"pads": [1] * 4},
        note="wide",
        torch=lambda x, w: F.conv2d(x, w, padding=1),
    ),
    Case(
        "Conv",
        [(2, 24, 57, 56), normal(32, 24, 3, 3), (32,)],
        {"pads": [1] * 4, "strides": [2, 2]},
        (0, 1, 2),
        note="wide stride 2",
        batched=(0,),
        torch=lambda *t: F.conv2d(*t, padding=1, stride=2),
    ),
    Case(
        "ConvTranspose",
        [(2, 24, 28, 28), normal(24, 16, 3, 3)],
        {"strides": [2, 2]},
        note="wide",
        torch=lambda x, w: F.conv_transpose2d(x, w, stride=2),
    ),
    Case(
        "MaxPool",
        [(2, 16, 64, 64)],
        {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4},
        note="wide",
        torch=lambda x: F.max_pool2d(x, 3, 2, 1),
    ),
]

LARGE: list[Case] = [*MIXED_ROWS, *SHARED_PLACES, *WIDE]
