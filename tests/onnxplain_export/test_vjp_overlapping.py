"""Max pools of 3 by 3 at strides of 2: the form in the blocked layout says what the general one says."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from onnx.reference import ReferenceEvaluator

from derived_graphs import derive
from onnxplain_export.autodiff import differentiate
from onnxplain_export.graphs.blocked import keep_blocked
from onnxplain_export.vjp import STANDARD
from reference_kernels import KERNELS

Array = np.ndarray[Any, np.dtype[Any]]

SIZES = [(3, 3), (7, 7), (8, 9), (9, 8), (5, 12)]
PADS = [(0, 0, 0, 0), (1, 1, 1, 1), (0, 1, 0, 1), (0, 0, 1, 1), (1, 1, 0, 0)]
GENERAL = {"Equal", "Slice", "Pad", "Sub", "Where"}
"""Operators that leave onnxruntime's blocked layout; the general form has some of them."""


def gradient_of(
    size: tuple[int, int],
    window: str = "pads = [0, 0, 0, 0]",
    channels: int = 16,
    relu: bool = True,
    kind: str = "double",
    **rules: Any,
) -> ir.Model:
    """Pictures x and the cotangent u of their max pool, behind a ReLU or not → dx."""
    text = f"""
        <ir_version: 10, opset_import: ["" : 20]>
        g ({kind}[N, {channels}, {size[0]}, {size[1]}] x) => ({kind}[N, C, h, w] y) {{
            r = {"Relu" if relu else "Identity"}(x)
            y = MaxPool<{window if "kernel_shape" in window else f"kernel_shape = [3, 3], {window}"}>(r)
        }}"""
    if "strides" not in text:
        text = text.replace("kernel_shape", "strides = [2, 2], kernel_shape")
    model = ir.from_onnx_text(text)
    model.graph.outputs[0].shape = None
    derive(model, model.graph.inputs[0], STANDARD | rules)
    return model


def operators(model: ir.Model) -> Counter[str]:
    return Counter(node.op_type for node in model.graph)


def in_torch(x: Array, pads: tuple[int, ...], ceil: bool = False, seed: int = 0) -> tuple[Array, Array]:
    """A random cotangent, and the gradient for it."""
    leaf = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    top, left, bottom, right = pads
    # Above 0 nothing tells zeros from padding that is never taken.
    padded = F.pad(torch.relu(leaf), (left, right, top, bottom), value=-1.0)
    y = F.max_pool2d(padded, 3, 2, ceil_mode=ceil)
    u = np.random.default_rng(seed).standard_normal(tuple(y.shape))
    return u, torch.autograd.grad(y, leaf, torch.tensor(u))[0].numpy()


def run(model: ir.Model, x: Array, u: Array) -> Array:
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": x.astype(np.float32), "u": u.astype(np.float32)})
    return np.asarray(found)


@pytest.mark.parametrize("pads", PADS, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_first_maximum_takes_the_gradient(size: tuple[int, int], pads: tuple[int, ...]) -> None:
    rng = np.random.default_rng(1)
    window = f"pads = {list(pads)}"
    for x in (rng.standard_normal((2, 16, *size)), rng.integers(-1, 3, (2, 16, *size)).astype(np.float64)):
        u, expected = in_torch(x, pads)
        exact, single = gradient_of(size, window), gradient_of(size, window, kind="float")
        assert not GENERAL & set(operators(exact))
        (found,) = ReferenceEvaluator(ir.to_proto(exact), new_ops=KERNELS).run(None, {"x": x, "u": u})
        np.testing.assert_allclose(found, expected, atol=1e-12)
        np.testing.assert_allclose(run(single, x, u), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [(8, 8), (12, 7), (6, 16)], ids=str)
def test_windows_may_overhang(size: tuple[int, int]) -> None:
    x = np.random.default_rng(2).integers(-1, 3, (2, 16, *size)).astype(np.float64)
    model = gradient_of(size, "ceil_mode = 1")
    u, expected = in_torch(x, (0, 0, 0, 0), ceil=True)
    assert not GENERAL & set(operators(model))
    (found,) = ReferenceEvaluator(ir.to_proto(model), new_ops=KERNELS).run(None, {"x": x, "u": u})
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("size", [(7, 7), (8, 9)], ids=str)
@pytest.mark.parametrize("unit", [1e-20, 1e-12, 1.0, 1e12, 1e30])
def test_neighbouring_numbers_are_told_apart_at_any_magnitude(size: tuple[int, int], unit: float) -> None:
    steps = np.random.default_rng(3).integers(0, 3, (1, 16, *size)).astype(np.float32)
    base = np.float32(unit)
    x = -(base + steps * np.spacing(base))  # negative, so that no ReLU decides
    assert len(np.unique(x)) == 3
    model = gradient_of(size, relu=False, kind="float")
    assert not GENERAL & set(operators(model))
    leaf = torch.tensor(x, requires_grad=True)
    y = F.max_pool2d(leaf, 3, 2)
    u = np.random.default_rng(4).standard_normal(tuple(y.shape)).astype(np.float32)
    expected = torch.autograd.grad(y, leaf, torch.tensor(u))[0].numpy()
    np.testing.assert_allclose(run(model, x, u), expected, rtol=1e-5, atol=1e-6)


OTHERS: dict[str, dict[str, Any]] = {
    "padding that may be a maximum": {"window": "pads = [1, 1, 1, 1]", "relu": False},
    "a last window that overhangs": {"window": "ceil_mode = 1", "relu": False, "size": (8, 8)},
    "few channels": {"channels": 8},
    "windows of two": {"window": "kernel_shape = [2, 2]"},
    "windows of three by two": {"window": "kernel_shape = [3, 2]"},
    "strides of one": {"window": "strides = [1, 1]"},
    "dilated": {"window": "dilations = [2, 2]"},
    "wide pads": {"window": "pads = [2, 2, 2, 2]"},
}


@pytest.mark.parametrize("case", OTHERS.values(), ids=OTHERS.keys())
def test_other_windows_keep_the_general_form(case: dict[str, Any]) -> None:
    assert "Equal" in operators(gradient_of(**{"size": (9, 9), **case}))


def test_a_relu_with_another_rule_keeps_the_general_form_of_padded_pools() -> None:
    """Its cotangent may be other than 0 where the maximum is 0."""
    other = gradient_of((9, 9), "pads = [1, 1, 1, 1]", Relu=STANDARD["Sigmoid"])
    assert "Equal" in operators(other)


@pytest.mark.parametrize("layout", ["p = Pad(x, w, v)", "t = Pad(x, w, v) p = Transpose<perm = [0, 1, 3, 2]>(t)"])
def test_padding_with_minus_infinity_before_the_pool(layout: str) -> None:
    model = ir.from_onnx_text(
        f"""
        <ir_version: 10, opset_import: ["" : 20]>
        g (float[N, 16, 7, 7] x) => (float[N, 16, 4, 4] y)
        <int64[8] w = {{0, 0, 1, 1, 0, 0, 1, 1}}, float v = {{-inf}}> {{
            {layout}
            y = MaxPool<kernel_shape = [3, 3], strides = [2, 2]>(p)
        }}""".replace("{-inf}", "{-1}")
    )
    model.graph.initializers["v"].const_value = ir.tensor(np.float32(-np.inf), name="v")
    derive(model, model.graph.inputs[0])
    numbers = -np.random.default_rng(6).integers(1, 4, (2, 16, 7, 7)).astype(np.float32)
    leaf = torch.tensor(numbers, requires_grad=True)
    moved = leaf.transpose(2, 3) if "Transpose" in layout else leaf
    pooled = F.max_pool2d(moved, 3, 2, 1)
    cotangent = np.random.default_rng(7).standard_normal(tuple(pooled.shape)).astype(np.float32)
    expected = torch.autograd.grad(pooled, leaf, torch.tensor(cotangent))[0].numpy()
    np.testing.assert_allclose(run(model, numbers, cotangent), expected, rtol=1e-5, atol=1e-6)


def test_numbers_hidden_by_minus_infinity_before_the_pool() -> None:
    model = ir.from_onnx_text(
        """
        <ir_version: 10, opset_import: ["" : 20]>
        g (float[N, 16, 9, 9] x, bool[N, 16, 9, 9] m) => (float[N, 16, 4, 4] y)
        <float v = {-1}> {
            h = Where(m, x, v)
            k = Mul(h, h)
            y = MaxPool<kernel_shape = [3, 3], strides = [2, 2]>(h)
        }"""
    )
    graph = model.graph
    graph.initializers["v"].const_value = ir.tensor(np.float32(-np.inf), name="v")
    ir.passes.common.ShapeInferencePass()(model)
    u = ir.val("u", dtype=ir.DataType.FLOAT, shape=graph.outputs[0].shape)
    differentiate(graph, graph.outputs[0], [graph.inputs[0]], u)
    assert "Equal" in operators(model)


@pytest.mark.parametrize("pads", PADS, ids=str)
def test_convolutions_may_round(pads: tuple[int, ...]) -> None:
    """As on a GPU with TF32: what they read has ten bits then; the order of the numbers here needs no more."""
    rng = np.random.default_rng(8)
    levels = np.stack([rng.permutation(9 * 12) for _ in range(32)]).reshape(2, 16, 9, 12)
    x = 1 + 0.008 * levels + rng.uniform(0, 0.003, levels.shape)
    u, expected = in_torch(x, pads)
    model = gradient_of((9, 12), f"pads = {list(pads)}", kind="float")
    for node in [node for node in model.graph if node.op_type == "Conv"]:
        half = ir.node("Cast", [node.inputs[0]], {"to": int(ir.DataType.FLOAT16)})
        wide = ir.node("Cast", half.outputs, {"to": int(ir.DataType.FLOAT)})
        model.graph.insert_before(node, [half, wide])
        node.replace_input_with(0, wide.outputs[0])
    np.testing.assert_allclose(run(model, x, u), expected, rtol=1e-2, atol=1e-2)


def test_half_precision_keeps_the_general_form() -> None:
    assert "Equal" in operators(gradient_of((9, 9), kind="float16"))


def test_nothing_leaves_the_layout_before_the_phases_interleave(tmp_path: Path) -> None:
    model = gradient_of((15, 15), kind="float")
    ir.passes.common.ShapeInferencePass()(model)
    keep_blocked(model)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "loaded.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"])
    loaded = Counter(node.op_type for node in onnx.load(tmp_path / "loaded.onnx").graph.node)
    if not loaded["ReorderOutput"]:
        pytest.skip("this processor's onnxruntime has no blocked layout")
    assert loaded["Sub"] + loaded["Add"] + loaded["Slice"] == 0
    assert loaded["ReorderOutput"] <= 3  # the two rows of phases, and the result


def test_a_relu_keeps_its_mask_where_max_pools_have_another_rule() -> None:
    other = gradient_of((9, 9), kind="float", MaxPool=STANDARD["AveragePool"])
    assert operators(other)["HardSigmoid"] == 1
