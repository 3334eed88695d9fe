"""Quantised networks: refused by default, differentiated straight through where that is asked for."""

from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantFormat, QuantType

import small_models
from expanded_models import expanded
from normalizing import assert_same_scores, operators
from onnxplain.errors import ModelError, NoGradientError
from onnxplain_export.autodiff import blocking_nodes, differentiate
from onnxplain_export.normalize.quantized import pass_straight_through
from onnxplain_export.verify.unrounded import unrounded
from onnxplain_export.vjp.quantized import holds_quantized
from onnxplain_export.vjp.registry import SUBSTITUTES
from quantized_models import in_torch, quantized
from small_models import conv, head, model, node

IMAGES = 1.2 * small_models.images(3, 16, 16, seed=9)
"""Beyond the range of the calibration: some entries saturate."""


def straight(proto: onnx.ModelProto) -> ir.Model:
    found = expanded(proto)
    assert pass_straight_through(found) > 0
    return found


def gradient(found: ir.Model, u: np.ndarray, images: np.ndarray = IMAGES) -> np.ndarray:
    """Of ⟨u, y⟩ at the images, by onnxruntime."""
    model = found.clone()
    graph = model.graph
    cotangent = ir.val("cotangent", dtype=ir.DataType.FLOAT, shape=ir.Shape(u.shape))
    graph.inputs.append(cotangent)
    (total,) = differentiate(graph, graph.outputs[0], [graph.inputs[0]], cotangent)
    graph.outputs.append(total)
    return small_models.run(ir.to_proto(model), {"x": images, "cotangent": u}, str(total.name))


KINDS: dict[str, tuple[int, dict[str, Any]]] = {
    "uint8": (20, {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}),
    "int8 by channels": (13, {"activation_type": QuantType.QInt8, "weight_type": QuantType.QInt8, "per_channel": True}),
    "uint16": (21, {"activation_type": QuantType.QUInt16, "weight_type": QuantType.QInt8}),
    "int16": (21, {"activation_type": QuantType.QInt16, "weight_type": QuantType.QInt16}),
    "weights of 4 bits": (21, {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt4}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_is_that_of_fake_quantisation_in_torch(kind: str) -> None:
    opset, options = KINDS[kind]
    proto = quantized(opset, **options)
    found = straight(proto)
    x = torch.tensor(IMAGES, requires_grad=True)
    y = in_torch(proto, x)
    u = np.random.default_rng(3).standard_normal(y.shape).astype(np.float32)
    (expected,) = torch.autograd.grad(y, x, torch.tensor(u))
    source = small_models.run(proto, {"x": IMAGES})
    np.testing.assert_allclose(y.detach(), source, rtol=0, atol=1e-5 * np.abs(source).max())
    np.testing.assert_array_equal(small_models.run(ir.to_proto(found), {"x": IMAGES}), source)
    assert (expected == 0).any()
    np.testing.assert_allclose(gradient(found, u), expected, rtol=0, atol=1e-5 * expected.abs().max())


@pytest.mark.parametrize("kind", ["uint8", "int8 by channels", "uint16"])
def test_with_its_roundings_held_still_the_network_has_this_gradient(kind: str) -> None:
    opset, options = KINDS[kind]
    found = straight(quantized(opset, **options))
    smooth = ir.to_proto(unrounded(found, "x"))
    y = small_models.run(smooth, {"x": IMAGES, "x/at": IMAGES})
    np.testing.assert_allclose(y, small_models.run(ir.to_proto(found), {"x": IMAGES}), rtol=0, atol=1e-5)
    u = np.random.default_rng(3).standard_normal(y.shape).astype(np.float32)
    total = gradient(found, u)
    step = 1e-3 * np.linalg.norm(IMAGES) / np.linalg.norm(total) * total
    up, down = (small_models.run(smooth, {"x": IMAGES + sign * step, "x/at": IMAGES}) for sign in (1, -1))
    rise = float(((up - down).astype(np.float64) * u).sum())
    # Quantised numbers that are equal tie in the pool, where a difference is a mean of slopes: hence the tolerance.
    assert rise == pytest.approx(2 * float((total * step).sum()), rel=2e-2)


def test_by_default_the_node_is_named() -> None:
    found = expanded(quantized(**KINDS["uint8"][1]))
    with pytest.raises(NoGradientError, match=r"DequantizeLinear \(node 'y_Deq.*--quantized straight-through"):
        gradient(found, np.ones((3, 5), np.float32))
    graph = found.graph
    assert {one.op_type for one in blocking_nodes(graph, graph.outputs[0], [graph.inputs[0]])} == {
        "QuantizeLinear",
        "DequantizeLinear",
    }
    assert not blocking_nodes(
        (marked := straight(quantized())).graph, marked.graph.outputs[0], [marked.graph.inputs[0]]
    )


def test_a_way_through_integers_is_never_lost() -> None:
    """Beside a way of floats, the other would silently count as zero."""
    weights = {"scale": np.float32(0.05), "zero": np.uint8(128)}
    nodes = [
        conv(),
        node("QuantizeLinear", ["c", "scale", "zero"], ["q"]),
        node("DequantizeLinear", ["q", "scale", "zero"], ["d"]),
        node("Add", ["c", "d"], ["s"]),
        *head("s"),
    ]
    proto = model(nodes, weights)
    with pytest.raises(NoGradientError, match="DequantizeLinear"):
        gradient(expanded(proto), np.ones((3, 5), np.float32))
    assert np.abs(gradient(straight(proto), np.ones((3, 5), np.float32))).max() > 0


def test_quantised_numbers_that_come_from_elsewhere_carry_no_gradient() -> None:
    turned = ir.node("Transpose", [ir.val("q", ir.DataType.UINT8, [2, 3])])
    turned.outputs[0].dtype = ir.DataType.UINT8
    assert holds_quantized(turned, turned.inputs) == list(turned.outputs)
    assert holds_quantized(turned, []) == []


def integers(*nodes: onnx.NodeProto) -> onnx.ModelProto:
    """Between a QuantizeLinear and a DequantizeLinear, something else."""
    weights = {"scale": np.float32(0.05), "zero": np.uint8(128)}
    around = [
        node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        *nodes,
        node("DequantizeLinear", ["r", "scale", "zero"], ["d"]),
        node("GlobalAveragePool", ["d"], ["p"]),
        node("Flatten", ["p"], ["f"]),
        node("Gemm", ["f", "three", "fb"], ["y"]),
    ]
    return model(around, {**weights, "three": np.ones((3, 5), np.float32)})


def test_integers_may_be_moved() -> None:
    pair = [node("Transpose", ["q"], ["t"], perm=[0, 1, 3, 2]), node("Slice", ["t", "1", "9", "2"], ["r"])]
    proto = integers(*pair)
    proto.graph.initializer.extend(numpy_helper.from_array(np.array([int(name)]), name) for name in "192")
    total = gradient(straight(proto), np.ones((3, 5), np.float32))
    inside = np.abs(IMAGES) < 6
    inside[:, :, :, :1] = inside[:, :, :, 9:] = False
    np.testing.assert_allclose(total, 5 / 128 * inside, rtol=1e-5, atol=1e-7)


def test_computing_with_integers_is_refused_by_node() -> None:
    pool = node("MaxPool", ["q"], ["r"], kernel_shape=[2, 2], name="of integers")
    with pytest.raises(NoGradientError, match=r"MaxPool \(node 'of integers'.*quantised numbers; .*QDQ format"):
        gradient(straight(integers(pool)), np.ones((3, 5), np.float32))


def test_the_operator_format_is_refused_with_advice() -> None:
    nodes = [
        node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        node("QLinearConv", ["q", "scale", "zero", "w8", "scale", "zero", "scale", "zero"], ["r"], name="integer conv"),
        node("DequantizeLinear", ["r", "scale", "zero"], ["d"]),
        *head("d"),
    ]
    weights = {"scale": np.float32(0.05), "zero": np.uint8(128)}
    weights["w8"] = np.random.default_rng(0).integers(0, 255, (8, 3, 3, 3), np.uint8)
    proto = model(nodes, weights)
    with pytest.raises(NoGradientError, match=r"QLinearConv \(node 'integer conv'.*QDQ format"):
        gradient(straight(proto), np.ones((3, 5), np.float32))
    whole = quantized(form=QuantFormat.QOperator, **KINDS["uint8"][1])
    assert {one.op_type for one in whole.graph.node} >= {"QLinearConv"}


def test_dynamic_quantisation_is_refused_by_node() -> None:
    nodes = [
        node("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"], name="dynamic"),
        node("DequantizeLinear", ["q", "scale", "zero"], ["d"]),
        conv("d"),
        *head("c"),
    ]
    with pytest.raises(NoGradientError, match=r"DequantizeLinear|DynamicQuantizeLinear \(node 'dynamic'"):
        gradient(expanded(model(nodes)), np.ones((3, 5), np.float32))


# One quantisation by itself


def one_pair(kind: int, scale: Any, zero: Any, opset: int, **attributes: Any) -> onnx.ModelProto:
    """y = the numbers nearest to x [3, 4] that the type can hold."""
    tensors = [numpy_helper.from_array(np.asarray(scale, np.float32), "s")]
    parts = ["s"] if zero is None else ["s", "z"]
    if zero is not None:
        tensors.append(helper.make_tensor("z", kind, np.shape(zero), np.asarray(zero).reshape(-1).tolist()))
    nodes = [node("QuantizeLinear", ["x", *parts], ["q"], **attributes)]
    nodes.append(node("DequantizeLinear", ["q", *parts], ["y"], **attributes))
    entry, result = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [3, 4]) for name in "xy")
    graph = helper.make_graph(nodes, "pair", [entry], [result], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


FLOAT8 = float(ml_dtypes.finfo(ml_dtypes.float8_e4m3fn).max)
PAIRS: Sequence[tuple[str, onnx.ModelProto, Any, Any]] = [
    # name, model, the lowest and highest x that aren't saturated
    ("uint8", one_pair(TensorProto.UINT8, 0.5, 10, 20), -5.25, 122.75),
    ("int8", one_pair(TensorProto.INT8, 0.25, -3, 13), -31.375, 32.625),
    ("no zero point", one_pair(TensorProto.UINT8, 0.5, None, 20), -0.25, 127.75),
    ("int8 by columns", one_pair(TensorProto.INT8, [0.25, 0.5, 1, 2], [0, 1, -1, 3], 20, axis=1),
     np.array([0.25, 0.5, 1, 2]) * (-128.5 - np.array([0, 1, -1, 3])),
     np.array([0.25, 0.5, 1, 2]) * (127.5 - np.array([0, 1, -1, 3]))),
    ("int8 by rows", one_pair(TensorProto.INT8, [0.25, 0.5, 1], [0, 1, -1], 20, axis=-2),
     (np.array([0.25, 0.5, 1]) * (-128.5 - np.array([0, 1, -1])))[:, None],
     (np.array([0.25, 0.5, 1]) * (127.5 - np.array([0, 1, -1])))[:, None]),
    ("int16", one_pair(TensorProto.INT16, 0.002, 0, 21), -65.537, 65.535),
    ("uint16 by columns", one_pair(TensorProto.UINT16, [0.001, 0.002, 0.001, 0.002], [0, 9, 0, 9], 23, axis=1),
     np.array([-0.0005, -0.019, -0.0005, -0.019]), np.array([65.5355, 131.053, 65.5355, 131.053])),
    ("int4", one_pair(TensorProto.INT4, 2.0, 1, 21), -19.0, 13.0),
    ("uint4", one_pair(TensorProto.UINT4, 2.0, 1, 21), -3.0, 29.0),
    ("float8", one_pair(TensorProto.FLOAT8E4M3FN, 0.05, 0, 20), -0.05 * FLOAT8, 0.05 * FLOAT8),
]  # fmt: skip


@pytest.mark.parametrize("name", [pair[0] for pair in PAIRS])
def test_the_gradient_passes_inside_the_range(name: str) -> None:
    _, proto, lowest, highest = next(pair for pair in PAIRS if pair[0] == name)
    found = straight(proto)
    rng = np.random.default_rng(1)
    margin = 1e-6 * (highest - lowest)
    edges = [edge + sign * margin for edge in (lowest, highest) for sign in (1, -1)]
    for place in (*edges, *(spread * rng.standard_normal((3, 4)) for spread in (3.0, 60.0, 400.0))):
        x = np.broadcast_to(place, (3, 4)).astype(np.float32)
        y = small_models.run(ir.to_proto(found), {"x": x})
        np.testing.assert_array_equal(y, small_models.run(proto, {"x": x}))
        u = rng.standard_normal((3, 4)).astype(np.float32)
        inside = (x >= lowest) & (x < highest)
        np.testing.assert_allclose(gradient(found, u, x), u * inside, rtol=1e-6, atol=1e-9)


def test_weights_in_blocks_are_read_at_export() -> None:
    steps, zeros = np.float32([[0.5, 0.25], [1, 2], [0.125, 1], [1, 1]]), np.zeros((4, 2), np.int8)
    weights = {"w8": np.random.default_rng(0).integers(-9, 9, (4, 6), np.int8), "steps": steps, "zeros": zeros}
    entry, result = (helper.make_tensor_value_info(name, 1, shape) for name, shape in (("x", [2, 6]), ("y", [2, 4])))
    nodes = [
        node("DequantizeLinear", list(weights), ["w"], axis=1, block_size=3),
        node("Gemm", ["x", "w"], ["y"], transB=1),
    ]
    tensors = [numpy_helper.from_array(content, key) for key, content in weights.items()]
    graph = helper.make_graph(nodes, "blocks", [entry], [result], tensors)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    x = np.random.default_rng(0).standard_normal((2, 6)).astype(np.float32)
    found = expanded(proto)
    np.testing.assert_allclose(
        small_models.run(ir.to_proto(found), {"x": x}), small_models.run(proto, {"x": x}), rtol=1e-5
    )
    np.testing.assert_allclose(
        gradient(found, np.ones((2, 4), np.float32), x),
        np.tile((weights["w8"] * steps.repeat(3, 1)).sum(0), (2, 1)), rtol=1e-6,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("proto", "message"),
    [
        (one_pair(TensorProto.INT8, np.ones((3, 2)), np.zeros((3, 2), int), 21, axis=1, block_size=2), "by blocks"),
        (one_pair(TensorProto.FLOAT4E2M1, 0.5, 0, 23), "float4e2m1 has no form"),
    ],
)
def test_what_has_no_form_is_refused_by_node(proto: onnx.ModelProto, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        expanded(proto)


def test_a_picture_of_integers_is_dequantised_in_floats() -> None:
    weights = {"scale": np.float32(0.02), "zero": np.uint8(120)}
    nodes = [node("DequantizeLinear", ["x", "scale", "zero"], ["d"]), conv("d"), *head("c")]
    proto = model(nodes, weights, inputs=[("x", TensorProto.UINT8, ["N", 3, 16, 16])])
    found = assert_same_scores(proto, dtype=np.uint8)
    assert found.integers
    assert "DequantizeLinear" not in operators(found)


def test_every_substitute_is_tested_here() -> None:
    assert set(SUBSTITUTES) == {"QuantizeLinear", "DequantizeLinear", "Round"}
