"""`refresh()` refuses whatever isn't the bundle's network with the first difference, and leaves the bundle alone."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from onnxplain.errors import BundleError, ModelError, OnnxplainError
from onnxplain_export import refresh
from refreshing import IMAGE, proto, quick, wide
from small_models import conv, head, model, node, random_weight

DIFFERENT: dict[str, tuple[Callable[[], Any], str]] = {
    "wider": (lambda: wide(5), r"the weight '4\.bias' has shape \[5\], not \[4\]"),
    "renamed": (
        lambda: nn.Sequential(nn.Sequential(*wide())),
        "lacks a weight of the bundle's network: unknown name '0",
    ),
    "another activation": (
        lambda: nn.Sequential(*[nn.GELU() if isinstance(part, nn.ReLU) else part for part in wide()]),
        "something that holds no weights isn't as it was at export",
    ),
    "diverged": (lambda: filled(wide(), float("nan")), "'0.weight' holds NaN or infinite values; has the training"),
    "a file": (lambda: proto(size=12), r"Conv \(node 'node_conv2d'\) reads 2 values, not 3"),
}


def filled(module: nn.Module, number: float) -> nn.Module:
    with torch.no_grad():
        module[0].weight[0, 0, 0, 0] = number
    return module


@pytest.mark.parametrize("name", DIFFERENT)
def test_another_module_is_refused_with_the_first_difference(name: str, tmp_path: Path) -> None:
    bundle = quick(wide(), tmp_path / "net.explain", example=IMAGE)
    before = {path.name: path.read_bytes() for path in bundle.iterdir()}
    make, message = DIFFERENT[name]
    with pytest.raises(OnnxplainError, match=message) as failure:
        refresh(bundle, make())
    assert "\n" not in str(failure.value)
    assert {path.name: path.read_bytes() for path in bundle.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["net.explain"]


def with_node(change: Callable[[onnx.ModelProto], None]) -> onnx.ModelProto:
    changed = proto(10)
    change(changed)
    return changed


FILES: dict[str, tuple[Callable[[], onnx.ModelProto], str]] = {
    "stride": (lambda: proto(10, strides=[2, 2]), r"Conv \(node 'first'\) has strides \[2, 2\], not given before"),
    "operator": (lambda: proto(10, activation="Relu"), r"Tanh \(node 'squash'\) has become Relu \(node 'squash'\)"),
    "untied": (lambda: with_node(untie), r"Transpose \(node 'turn'\) reads 'other'; when exported, it shared 'shared'"),
    "tied": (
        lambda: with_node(tie),
        r"BatchNormalization \(node 'norm'\) shares 'mean'; when exported, it had 'variance'",
    ),
    "shorter": (lambda: with_node(shorten), "the network has|the outputs|MatMul"),
    "shape": (lambda: with_node(reshape), "'size' has changed, by which the bundle's graphs were built"),
    "picture": (
        lambda: with_node(enlarge),
        r"^input 0 is float \[N, 3, 12, 12\], not float \[N, 3, 9, 9\]",
    ),
}


def untie(one: onnx.ModelProto) -> None:
    one.graph.initializer.append(numpy_helper.from_array(random_weight(6, 6), "other"))
    next(each for each in one.graph.node if each.name == "turn").input[0] = "other"


def tie(one: onnx.ModelProto) -> None:
    next(each for each in one.graph.node if each.name == "norm").input[4] = "mean"


def shorten(one: onnx.ModelProto) -> None:
    del one.graph.node[-1]
    one.graph.node[-2].output[0] = "y"


def reshape(one: onnx.ModelProto) -> None:
    next(each for each in one.graph.initializer if each.name == "size").CopyFrom(
        numpy_helper.from_array(np.array([-1, 4], np.int64), "size")
    )


def enlarge(one: onnx.ModelProto) -> None:
    for axis in (2, 3):
        one.graph.input[0].type.tensor_type.shape.dim[axis].dim_value = 12


@pytest.mark.parametrize("name", FILES)
def test_another_file_is_refused_with_the_first_difference(name: str, tmp_path: Path) -> None:
    bundle = quick(proto(0), tmp_path / "net.explain")
    make, message = FILES[name]
    with pytest.raises(ModelError, match=message) as failure:
        refresh(bundle, make())
    assert "\n" not in str(failure.value)


def test_what_a_rule_has_looked_at_may_not_change(tmp_path: Path) -> None:
    """The derivative of x^2 is written as 2x, so another exponent needs another graph."""

    def network(power: float) -> onnx.ModelProto:
        nodes = [node("Pow", ["x", "power"], ["c2"]), conv("c2"), *head("c")]
        return model(nodes, weights={"power": np.float32(power)})

    bundle = quick(network(2.0), tmp_path / "net.explain")
    with pytest.raises(ModelError, match="'power' has changed, by which the bundle's graphs were built"):
        refresh(bundle, network(3.0))


def test_bundles_that_cannot_be_refreshed_say_why(tmp_path: Path) -> None:
    bundle = quick(proto(0), tmp_path / "net.explain")
    told = json.loads((bundle / "explainer.json").read_text())
    (bundle / "refresh.onnx").write_bytes(b"broken")
    with pytest.raises(BundleError, match=r"refresh\.onnx is missing or was altered after export"):
        refresh(bundle, proto(10))
    del told["refresh"]
    (bundle / "explainer.json").write_text(json.dumps(told))
    with pytest.raises(BundleError, match="exported by an older version; export it again"):
        refresh(bundle, proto(10))
    with pytest.raises(BundleError, match="does not exist"):
        refresh(tmp_path / "nothing.explain", proto(10))
    (tmp_path / "file.onnx").write_bytes(proto(0).SerializeToString())
    with pytest.raises(BundleError, match="is a single file, with its weights inside"):
        refresh(tmp_path / "file.onnx", proto(10))
