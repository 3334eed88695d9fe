"""Pools and convolutions of joined channels: the gradient of each part by itself is a part of that of the whole."""

from collections import Counter
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from onnx.reference import ReferenceEvaluator

from derived_graphs import derive
from reference_kernels import KERNELS

Array = np.ndarray[Any, np.dtype[Any]]

JOINED = """
    <ir_version: 10, opset_import: ["" : 20]>
    g (double[N, 16, 9, 9] x) => (double[N, C, h, w] y) {
        n = Neg(x)
        a = Relu(x)
        b = Relu(n)
        j = Concat<axis = 1>(a, b)
        BODY
    }"""


def joined(body: str) -> tuple[ir.Model, Array, Array]:
    """The gradient's graph, and x, u with many ties."""
    model = ir.from_onnx_text(JOINED.replace("BODY", body))
    y = model.graph.outputs[0]
    y.shape = None
    derive(model, model.graph.inputs[0])
    rng = np.random.default_rng(5)
    numbers = rng.integers(-2, 3, (2, 16, 9, 9)).astype(np.float64)
    return model, numbers, rng.standard_normal((2, *(int(str(axis)) for axis in (y.shape or ())[1:])))


def in_torch_joined(x: Array, u: Array, body: Any) -> Array:
    leaf = torch.tensor(x, requires_grad=True)
    y = body(torch.cat([torch.relu(leaf), torch.relu(-leaf)], 1))
    return torch.autograd.grad(y, leaf, torch.tensor(u))[0].numpy()


POOL = "MaxPool<kernel_shape = [3, 3], strides = [2, 2]>"
BODIES: dict[str, tuple[str, Any]] = {
    "one pool": (f"y = {POOL}(j)", lambda j: F.max_pool2d(j, 3, 2)),
    "two pools": (
        f"p = {POOL}(j) q = MaxPool<kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 0, 0]>(j) y = Sub(p, q)",
        lambda j: F.max_pool2d(j, 3, 2) - F.max_pool2d(F.pad(j, (1, 0, 1, 0)), 3, 2),
    ),
    "a part that is no ReLU": (
        f"t = Neg(b) k = Concat<axis = 1>(a, t) y = {POOL}(k)",
        lambda j: F.max_pool2d(torch.cat([j[:, :16], -j[:, 16:]], 1), 3, 2),
    ),
    "another reader": (
        f"p = {POOL}(j) m = GlobalAveragePool(j) y = Mul(p, m)",
        lambda j: F.max_pool2d(j, 3, 2) * j.mean((2, 3), keepdim=True),
    ),
    "a reader of a part": (
        f"p = {POOL}(j) s = Concat<axis = 1>(a, a) m = GlobalAveragePool(s) y = Mul(p, m)",
        lambda j: F.max_pool2d(j, 3, 2) * torch.cat([j[:, :16]] * 2, 1).mean((2, 3), keepdim=True),
    ),
    "other pieces": (
        "k = Constant<value_ints = [20, 12]>() c, d = Split<axis = 1>(j, k) "
        "e = MaxPool<kernel_shape = [3, 3], strides = [2, 2]>(c) f = GlobalAveragePool(d) "
        "h = ReduceMean<keepdims = 1>(f) y = Mul(e, h)",
        lambda j: F.max_pool2d(j[:, :20], 3, 2) * j[:, 20:].mean((2, 3), keepdim=True).mean(),
    ),
}


@pytest.mark.parametrize(("body", "function"), BODIES.values(), ids=BODIES.keys())
def test_pools_of_joined_channels(body: str, function: Any) -> None:
    model, x, u = joined(body)
    (found,) = ReferenceEvaluator(ir.to_proto(model), new_ops=KERNELS).run(None, {"x": x, "u": u})
    np.testing.assert_allclose(found, in_torch_joined(x, u, function), atol=1e-12)


def test_the_gradient_is_parted_behind_the_pool_and_so_are_the_masks() -> None:
    model = joined(BODIES["one pool"][0])[0]
    (split,) = [node for node in model.graph if node.op_type == "Split"]
    assert split.inputs[0] is model.graph.inputs[1]
    reads = {value.name for node in model.graph if node.op_type == "HardSigmoid" for value in node.inputs if value}
    assert not reads & {"a", "b"}


@pytest.mark.parametrize(("at", "pooled"), [("j", "j"), ("a", "j"), ("a", "a")])
def test_gradients_at_what_pools_read_are_whole(at: str, pooled: str) -> None:
    """The masks of ReLUs may be left to pools only where nobody looks in between."""
    model = ir.from_onnx_text(JOINED.replace("BODY", f"y = {POOL}({pooled})"))
    model.graph.outputs[0].shape = None
    derive(model, next(value for node in model.graph for value in node.outputs if value.name == at))
    rng = np.random.default_rng(9)
    x = rng.integers(-2, 1, (2, 16, 9, 9)).astype(np.float64)  # many windows without anything above 0
    values = {"a": torch.relu(torch.tensor(x)).requires_grad_()}
    values["j"] = torch.cat([values["a"], torch.relu(-torch.tensor(x))], 1)
    pools = F.max_pool2d(values[pooled], 3, 2)
    cotangent = rng.standard_normal(tuple(pools.shape))
    (expected,) = torch.autograd.grad(pools, values[at], torch.tensor(cotangent))
    (got,) = ReferenceEvaluator(ir.to_proto(model), new_ops=KERNELS).run(None, {"x": x, "u": cotangent})
    np.testing.assert_allclose(got, expected.numpy(), atol=1e-12)


CONVOLVED = JOINED.replace(
    "double[N, 16, 9, 9] x",
    "double[N, 16, 9, 9] x, double[N, 16, 9, 9] z, double[6, 32, 3, 3] w, double[6, 16, 3, 3] v",
)
ALONE, SPLIT = 0, 1
"""How often the whole gradient is split: where each part is found alone, not at all."""
CONVOLUTIONS: dict[str, tuple[str, Any, int]] = {
    "valid": ("y = Conv(j, w)", lambda a, b, z, w, v: F.conv2d(torch.cat([a, b], 1), w), ALONE),
    "padded and dilated": (
        "y = Conv<pads = [2, 1, 2, 1], dilations = [2, 1]>(j, w)",
        lambda a, b, z, w, v: F.conv2d(torch.cat([a, b], 1), w, padding=(2, 1), dilation=(2, 1)),
        ALONE,
    ),
    "three parts": (
        "k = Concat<axis = 1>(b, z, a) t = Concat<axis = 1>(v, w) c = Conv(k, t) y = Mul(c, c)",
        lambda a, b, z, w, v: F.conv2d(torch.cat([b, z, a], 1), torch.cat([v, w], 1)) ** 2,
        ALONE,
    ),
    "one part twice": (
        "k = Concat<axis = 1>(a, a) y = Conv(k, w)",
        lambda a, b, z, w, v: F.conv2d(torch.cat([a, a], 1), w),
        ALONE,
    ),
    "a part from elsewhere": (
        "k = Concat<axis = 1>(a, z) y = Conv(k, w)",
        lambda a, b, z, w, v: F.conv2d(torch.cat([a, z], 1), w),
        ALONE,
    ),
    "a part that others read": (
        "c = Conv(j, w) d = Conv(a, v) y = Mul(c, d)",
        lambda a, b, z, w, v: F.conv2d(torch.cat([a, b], 1), w) * F.conv2d(a, v),
        ALONE,
    ),
    "two convolutions": (
        "c = Conv(j, w) d = Conv<pads = [1, 1, 1, 1]>(j, w) m = GlobalAveragePool(d) y = Mul(c, m)",
        lambda a, b, z, w, v: (
            F.conv2d(torch.cat([a, b], 1), w) * F.conv2d(torch.cat([a, b], 1), w, padding=1).mean((2, 3), keepdim=True)
        ),
        SPLIT,
    ),
    "strides of 2": (
        "y = Conv<strides = [2, 2]>(j, w)",
        lambda a, b, z, w, v: F.conv2d(torch.cat([a, b], 1), w, stride=2),
        SPLIT,
    ),
    "two groups": (
        "y = Conv<group = 2>(j, v)",
        lambda a, b, z, w, v: F.conv2d(torch.cat([a, b], 1), v, groups=2),
        SPLIT,
    ),
}


@pytest.mark.parametrize(("body", "function", "splits"), CONVOLUTIONS.values(), ids=CONVOLUTIONS.keys())
def test_convolutions_of_joined_channels(body: str, function: Any, splits: int) -> None:
    model = ir.from_onnx_text(CONVOLVED.replace("BODY", body))
    y = model.graph.outputs[0]
    y.shape = None
    derive(model, model.graph.inputs[0])
    rng = np.random.default_rng(6)
    x, z = rng.integers(-2, 3, (2, 2, 16, 9, 9)).astype(np.float64)
    w, v = rng.standard_normal((6, 32, 3, 3)), rng.standard_normal((6, 16, 3, 3))
    leaf = torch.tensor(x, requires_grad=True)
    expected = function(torch.relu(leaf), torch.relu(-leaf), *map(torch.tensor, (z, w, v)))
    u = rng.standard_normal(tuple(expected.shape))
    feeds = {"x": x, "z": z, "w": w, "v": v, "u": u}
    (found,) = ReferenceEvaluator(ir.to_proto(model), new_ops=KERNELS).run(None, feeds)
    np.testing.assert_allclose(found, torch.autograd.grad(expected, leaf, torch.tensor(u))[0].numpy(), atol=1e-10)
    assert Counter(node.op_type for node in model.graph)["Split"] == splits


def test_the_gradient_at_joined_channels_is_whole() -> None:
    model = ir.from_onnx_text(CONVOLVED.replace("BODY", "y = Conv(j, w)"))
    model.graph.outputs[0].shape = None
    derive(model, next(value for node in model.graph for value in node.outputs if value.name == "j"))
    assert [node.op_type for node in model.graph if node.op_type in ("Conv", "Concat", "Split")].count("Conv") == 1
