"""What the tests of `refresh()` share: networks before and after some training, and quick bundles of them."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper
from torch import nn

import onnxplain_export.exporting
from onnxplain_export import export
from small_models import model, node, random_weight

FLOAT = TensorProto.FLOAT
IMAGE = torch.zeros(1, 3, 12, 12)


def later(module: nn.Module, seed: int = 1) -> nn.Module:
    """The module after some training: every float of it has changed."""
    generator = torch.Generator().manual_seed(seed)
    trained = copy.deepcopy(module)
    with torch.no_grad():
        for tensor in [*trained.parameters(), *trained.buffers()]:
            if tensor.is_floating_point():
                tensor.mul_(1 + 0.2 * torch.rand(tensor.shape, generator=generator).to(tensor.dtype))
                tensor.add_(0.02 * torch.rand(tensor.shape, generator=generator).to(tensor.dtype))
    return trained


def quick(given: Any, folder: Path, **options: Any) -> Path:
    """An export without its proofs and measurements, which say nothing about the files."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnxplain_export.exporting, "verify", lambda *_: {})
        patch.setattr("onnxplain_export.description.measured_memory", lambda _, runs: dict.fromkeys(runs, (1, 1)))
        return export(given, folder, **options)


def assert_same_files(one: Path, other: Path) -> None:
    names = sorted(path.name for path in one.iterdir())
    assert names == sorted(path.name for path in other.iterdir())
    for name in names:
        if name != "explainer.json":
            assert (one / name).read_bytes() == (other / name).read_bytes(), name
    first, second = (json.loads((folder / "explainer.json").read_text()) for folder in (one, other))
    for part in ("graphs", "methods", "inputs", "outputs", "layers", "weights"):
        assert first[part] == second[part], part


def sequential(*layers: nn.Module) -> Callable[[], nn.Module]:
    def made() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(*copy.deepcopy(layers)).eval()

    return made


FLAT = (nn.AdaptiveAvgPool2d(2), nn.Flatten())


def proto(
    seed: int = 0, *, opset: int = 20, prefix: str = "", activation: str = "Tanh", size: int = 9, **attributes: Any
) -> onnx.ModelProto:
    """A network as a file may hold it: one weight in a Constant, one read twice, a normalisation, a shape."""
    weights = {
        "kernel": random_weight(4, 3, 3, 3, seed=seed),
        "scale": 1 + random_weight(4, seed=seed + 1),
        "mean": random_weight(4, seed=seed + 2),
        "variance": 1 + random_weight(4, seed=seed + 3) ** 2,
        "shared": random_weight(6, 6, seed=seed + 4),
    }
    shape = {"size": np.array([0, -1], np.int64)}
    constant = numpy_helper.from_array(random_weight(4, 6, seed=seed + 5))
    names = {name: prefix + name for name in weights}
    kernel, scale, mean, variance, shared = names.values()
    nodes = [
        node("Conv", ["x", kernel], ["c"], name="first", **{"pads": [1] * 4, **attributes}),
        node("BatchNormalization", ["c", scale, mean, mean, variance], ["normed"], name="norm"),
        node("GlobalAveragePool", ["normed"], ["p"], name="pool"),
        node("Reshape", ["p", "size"], ["f"], name="flat"),
        node("Constant", [], ["projection"], value=constant),
        node("MatMul", ["f", "projection"], ["h"], name="project"),
        node(activation, ["h"], ["t"], name="squash"),
        node("MatMul", ["t", shared], ["u"], name="mix"),
        node("Transpose", [shared], ["turned"], name="turn"),
        node("MatMul", ["u", "turned"], ["y"], name="head"),
    ]
    tensors = {**{names[name]: content for name, content in weights.items()}, **shape}
    entries = {"inputs": [("x", FLOAT, ["N", 3, size, size])], "outputs": [("y", FLOAT, ["N", 6])]}
    return model(nodes, weights=tensors, opset=opset, **entries)


def assert_same_files_but_memory(one: Path, other: Path) -> None:
    for path in one.iterdir():
        assert path.name == "explainer.json" or path.read_bytes() == (other / path.name).read_bytes(), path.name


def wide(classes: int = 4) -> nn.Module:
    return sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), *FLAT, nn.Linear(16, classes))()
