"""What holds for spatial rules beyond the general harness: ties, pads, layouts of weights, threads, runtime quirks."""

from collections import Counter
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from onnxplain.errors import NoGradientError
from onnxplain_export.autodiff import differentiate
from onnxplain_export.vjp import STANDARD
from reference_kernels import KERNELS
from rule_cases_spatial import CASES, PHASES, WINDOWS, resize
from rule_harness import FREE, STATIC, Case, forward_model, gradient_model, gradients, gradients_float32

RNG = np.random.default_rng(3)


def session(model: onnx.ModelProto, threads: int = 1) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def float32(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float32) if x.dtype == np.float64 else x


def in_torch(function: Any, x: np.ndarray, u: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """A random cotangent of function(x) unless one is given, and the float64 gradient for it."""
    leaf = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    y = function(leaf)
    u = RNG.standard_normal(tuple(y.shape)) if u is None else u
    return u, torch.autograd.grad(y, leaf, torch.tensor(u))[0].numpy()


def relative(one: np.ndarray, other: np.ndarray) -> float:
    assert one.shape == other.shape
    return float(np.linalg.norm(one - other) / np.linalg.norm(other))


def operators(case: Case) -> Counter[str]:
    """The operators of the gradient's model, without the explained one where its result isn't read."""
    return Counter(node.op_type for node in gradient_model(case).graph.node)


# The reference kernels


@pytest.mark.parametrize("case", [case for case in CASES if case.op_type in {k.__name__ for k in KERNELS}], ids=str)
def test_reference_kernels_agree_with_onnxruntime(case: Case) -> None:
    feeds = {f"input_{i}": case.arrays()[i] for i in (*case.wrt, *case.fed)}
    (expected,) = ReferenceEvaluator(forward_model(case), new_ops=KERNELS).run(None, feeds)
    model = forward_model(case, FREE, np.float32)
    (found,) = session(model).run(None, {name: float32(x) for name, x in feeds.items()})
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("group", [1, 2, 4])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_reference_conv_transpose_agrees_with_torch(rank: int, group: int) -> None:
    x, weight = RNG.standard_normal((2, 4, *[5, 4, 3][:rank])), RNG.standard_normal((4, 3, *[3, 2, 2][:rank]))
    attributes = {"strides": [2] * rank, "pads": [1] * (2 * rank), "output_padding": [1] * rank, "group": group}
    function = [F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d][rank - 1]
    expected = function(torch.tensor(x), torch.tensor(weight), None, 2, 1, 1, group)
    model = forward_model(Case("ConvTranspose", [x, weight], attributes, wrt=(0,)))
    (found,) = ReferenceEvaluator(model, new_ops=KERNELS).run(None, {"input_0": x})
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-12)


# Convolutions


def test_a_convolution_of_stride_1_is_differentiated_by_a_convolution_on_the_same_initializer() -> None:
    case = Case("Conv", [(2, 4, 6, 6), RNG.standard_normal((8, 2, 3, 3))], {"group": 2, "pads": [1] * 4})
    model = gradient_model(case)
    assert {node.op_type for node in model.graph.node} == {"Reshape", "Transpose", "Slice", "Conv", "Identity"}
    assert [t.name for t in model.graph.initializer if numpy_helper.to_array(t).dtype == np.float64] == ["input_1"]


def test_the_flipped_weight_is_folded_when_onnxruntime_loads_the_model(tmp_path: Any) -> None:
    case = Case("Conv", [(2, 4, 6, 6), RNG.standard_normal((8, 2, 3, 3))], {"group": 2, "pads": [1] * 4})
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(tmp_path / "loaded.onnx")
    model = gradient_model(case, STANDARD, FREE, np.float32)
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    assert {node.op_type for node in onnx.load(tmp_path / "loaded.onnx").graph.node} == {"Conv"}


def test_the_taps_of_phases_are_folded_when_onnxruntime_loads_the_model(tmp_path: Any) -> None:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(tmp_path / "loaded.onnx")
    model = gradient_model(PHASES[0], STANDARD, FREE, np.float32)
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    loaded = Counter(node.op_type for node in onnx.load(tmp_path / "loaded.onnx").graph.node)
    assert (loaded["Conv"], loaded["Slice"], loaded["Transpose"]) == (4, 0, 3)  # none of a weight


# Pools

TORCH_POOLS = [
    ((7, 8), {"kernel_size": 2, "stride": 2}),
    ((9, 8), {"kernel_size": 3, "stride": 2, "padding": 1}),
    ((9, 8), {"kernel_size": (3, 2), "stride": 1, "padding": 1}),
    ((8, 10), {"kernel_size": 3, "stride": 2, "ceil_mode": True}),
    ((8, 11), {"kernel_size": (3, 4), "stride": (2, 3), "padding": (1, 2), "ceil_mode": True}),
    ((9,), {"kernel_size": 3, "stride": 2, "padding": 1}),
    ((5, 6, 7), {"kernel_size": 3, "stride": 2, "padding": 1}),
    ((5, 6, 7), {"kernel_size": (2, 3, 2), "stride": (2, 1, 3), "ceil_mode": True}),
]


def as_onnx(rank: int, options: dict[str, Any]) -> dict[str, Any]:
    """torch's options of a pool as ONNX attributes."""

    def wide(name: str, default: int) -> list[int]:
        value = options.get(name, default)
        return [value] * rank if isinstance(value, int) else list(value)

    attributes = {"kernel_shape": wide("kernel_size", 1), "strides": wide("stride", 1), "pads": wide("padding", 0) * 2}
    if "dilation" in options:
        attributes["dilations"] = wide("dilation", 1)
    return attributes | ({"ceil_mode": 1} if options.get("ceil_mode") else {})


@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize(("sizes", "options"), TORCH_POOLS, ids=str)
def test_the_first_of_equal_maxima_takes_the_gradient_as_in_torch(sizes: Any, options: Any, dilation: int) -> None:
    options = options | {"dilation": dilation}
    function = [F.max_pool1d, F.max_pool2d, F.max_pool3d][len(sizes) - 1]
    for values in (2, 4, 1):  # ties in most windows, in some, and nothing but ties
        x = RNG.integers(0, values, (2, 3, *sizes)).astype(np.float64)
        u, expected = in_torch(lambda leaf: function(leaf, **options), x)
        case = Case("MaxPool", [x], as_onnx(len(sizes), options))
        np.testing.assert_allclose(gradients(case, cotangent=u)[0], expected, atol=1e-12)
        assert relative(gradients_float32(case, cotangent=u)[0], expected) < 1e-6


@pytest.mark.parametrize("note", ["overlapping", "ceil padded", "dilated", "gaps and phases", "wide"])
def test_the_first_maximum_is_the_one_that_onnxruntime_names(note: str) -> None:
    x = RNG.integers(0, 3, (2, 3, 8, 9)).astype(np.float32)
    node = onnx.helper.make_node("MaxPool", ["x"], ["y", "indices"], **WINDOWS[note])
    infos = [onnx.helper.make_tensor_value_info(name, 1 if name != "indices" else 7, None) for name in ("y", "indices")]
    shaped = onnx.helper.make_tensor_value_info("x", 1, x.shape)
    graph = onnx.helper.make_graph([node], "g", [shaped], infos)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    y, indices = session(model).run(None, {"x": x})
    u = RNG.standard_normal(y.shape)
    expected = np.zeros(x.size)
    np.add.at(expected, indices.ravel(), u.ravel())
    found = gradients(Case("MaxPool", [x.astype(np.float64)], WINDOWS[note]), cotangent=u)[0]
    np.testing.assert_allclose(found, expected.reshape(x.shape), atol=1e-12)


def test_padding_never_takes_the_gradient_of_a_window_of_infinities() -> None:
    x = np.full((1, 1, 4, 4), -np.inf)
    case = Case("MaxPool", [x], {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4})
    u = np.array([[[[1.0, 2.0], [3.0, 4.0]]]])
    (found,) = gradients(case, cotangent=u)
    assert found.sum() == u.sum()


@pytest.mark.parametrize("count", [False, True])
@pytest.mark.parametrize(("sizes", "options"), TORCH_POOLS, ids=str)
def test_average_pools_count_as_torch_and_onnxruntime_do(sizes: Any, options: Any, count: bool) -> None:
    function = [F.avg_pool1d, F.avg_pool2d, F.avg_pool3d][len(sizes) - 1]
    x = RNG.standard_normal((2, 3, *sizes))
    u, expected = in_torch(lambda leaf: function(leaf, **options, count_include_pad=count), x)
    case = Case("AveragePool", [x], as_onnx(len(sizes), options) | {"count_include_pad": int(count)})
    np.testing.assert_allclose(gradients(case, cotangent=u)[0], expected, atol=1e-12)
    assert relative(gradients_float32(case, cotangent=u)[0], expected) < 1e-6
    (y,) = session(forward_model(case, FREE, np.float32)).run(None, {"input_0": float32(x)})
    np.testing.assert_allclose(y, function(torch.tensor(x), **options, count_include_pad=count), atol=1e-5)


@pytest.mark.parametrize("op_type", ["MaxPool", "AveragePool"])
def test_windows_that_onnx_and_onnxruntime_count_differently_are_refused(op_type: str) -> None:
    attributes = {"kernel_shape": [2, 2], "strides": [2, 2], "pads": [1, 1, 1, 1], "ceil_mode": 1}
    with pytest.raises(NoGradientError, match=r"'the_node'.*ceil_mode"):
        gradient_model(Case(op_type, [(2, 3, 7, 7)], attributes))


def test_equal_global_maxima_share_the_gradient() -> None:
    x = RNG.integers(0, 2, (2, 3, 4, 4)).astype(np.float64)
    u, expected = in_torch(lambda leaf: leaf.amax((2, 3), keepdim=True), x)
    np.testing.assert_allclose(gradients(Case("GlobalMaxPool", [x]), cotangent=u)[0], expected, atol=1e-12)


@pytest.mark.parametrize("p", [1, 2, 3])
def test_the_norm_of_nothing_has_no_gradient(p: int) -> None:
    x = np.zeros((1, 2, 4, 4))
    for case in (Case("LpPool", [x], {"kernel_shape": [2, 2], "p": p}), Case("GlobalLpPool", [x], {"p": p})):
        assert not gradients(case)[0].any()


# Resize and Pad


def every_resize() -> list[Case]:
    """Every combination that onnxruntime takes, at scales where rounding is delicate."""
    coordinates = ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel", "half_pixel_symmetric")
    modes: list[dict[str, Any]] = [{"mode": "linear"}, {"mode": "linear", "antialias": 1}]
    modes += [{"mode": "cubic", "antialias": a, "exclude_outside": e} for a in (0, 1) for e in (0, 1)]
    modes += [{"nearest_mode": r} for r in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")]
    scales = ([1, 1, 1.7, 0.6], [1, 1, 0.5, 3], [1, 1, 1 / 3, 2.5])
    return [
        resize(f"{mode} {where} {by}", by, shape=(2, 2, 6, 7), coordinate_transformation_mode=where, **mode)
        for mode in modes
        for where in coordinates
        for by in scales
    ]


@pytest.mark.parametrize("case", every_resize(), ids=str)
def test_resize_is_the_adjoint_of_what_onnxruntime_computes(case: Case) -> None:
    x = RNG.standard_normal((2, 2, 6, 7))
    (y,) = session(forward_model(case, STATIC, np.float32)).run(None, {"input_0": float32(x)})
    u = RNG.standard_normal(y.shape)
    (found,) = gradients(case, cotangent=u)
    assert abs(np.sum(u * y) - np.sum(found * x)) < 1e-5 * np.linalg.norm(u) * np.linalg.norm(y)


def test_repetition_is_undone_by_a_pool_and_interpolation_by_products() -> None:
    nearest = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    assert set(operators(resize("twice", [1, 1, 2, 2], **nearest))) == {"AveragePool", "Mul", "Identity"}
    assert set(operators(resize("linear", [1, 1, 2, 2], mode="linear"))) == {"MatMul", "Identity"}


# Threads, batches, refusals

LARGE = [
    Case("Conv", [(2, 32, 56, 56), RNG.standard_normal((32, 1, 3, 3))], {"group": 32, "pads": [1] * 4}),
    Case("Conv", [(2, 16, 57, 56), RNG.standard_normal((32, 16, 3, 3))], {"strides": [2, 2], "pads": [1] * 4}),
    Case("MaxPool", [(2, 32, 112, 112)], {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4}),
    Case("AveragePool", [(2, 32, 112, 112)], {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4}),
    resize("large", [1, 1, 2, 2], shape=(2, 16, 56, 56), mode="linear"),
]
IN_TORCH = [
    lambda x: F.conv2d(x, torch.tensor(LARGE[0].inputs[1]), padding=1, groups=32),
    lambda x: F.conv2d(x, torch.tensor(LARGE[1].inputs[1]), padding=1, stride=2),
    lambda x: F.max_pool2d(x, 3, 2, 1),
    lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
    lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"),
]


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("case", [0, 1, 2, 3, 4], ids=lambda i: LARGE[i].op_type)
def test_large_tensors_and_any_batch_agree_with_torch(case: int, threads: int) -> None:
    loaded = session(gradient_model(LARGE[case], STANDARD, FREE, np.float32), threads)
    shape = LARGE[case].inputs[0][1:]
    for batch in (1, 3):
        x = np.maximum(RNG.standard_normal((batch, *shape)), 0).astype(np.float32)  # ties at 0, as after a ReLU
        u, expected = in_torch(IN_TORCH[case], x.astype(np.float64))
        found = loaded.run(None, {"input_0": x, "cotangent": float32(u)})[0]
        assert relative(found, expected) < 1e-5


REFUSED = [
    (Case("Conv", [(2, 3, 6, 6), (4, 3, 3, 3)], {"auto_pad": "SAME_UPPER"}, fed=(1,), batched=(0,)), "auto_pad"),
    (Case("ConvTranspose", [(2, 3, 6, 6), np.ones((3, 4, 3, 3))], {"output_shape": [9, 9]}), "output_shape"),
    (resize("crop", [1, 1, 2, 2], coordinate_transformation_mode="tf_crop_and_resize"), "tf_crop_and_resize"),
    (resize("ratio", None, [9, 9], axes=[2, 3], keep_aspect_ratio_policy="not_larger"), "keep_aspect_ratio_policy"),
    (Case("Resize", [(2, 3, 4), None, np.ones(3, np.float32)], fed=(2,), typed=(2,), batched=(0,)), "constants"),
    (Case("Pad", [(2, 3), np.array([0, 1, 0, 2])], fed=(1,)), "constants"),
    (Case("Pad", [(2, 3, 5), np.array([0, 0, -1, 0, 0, 2])], {"mode": "edge"}), "negative"),
]


@pytest.mark.parametrize(("case", "reason"), REFUSED, ids=lambda v: v if isinstance(v, str) else v.op_type)
def test_what_has_no_rule_is_refused_by_name(case: Case, reason: str) -> None:
    with pytest.raises(NoGradientError, match=f"'the_node'.*{reason}"):
        gradient_model(case)


def test_a_free_image_size_is_refused_by_name() -> None:
    x, u = (ir.val(name, ir.DataType.FLOAT, ["N", 3, "H", "W"]) for name in ("x", "u"))
    node = ir.node("MaxPool", [x], {"kernel_shape": [2, 2]}, name="the_node")
    y = node.outputs[0]
    y.dtype, y.shape = ir.DataType.FLOAT, ir.Shape(["N", 3, "h", "w"])
    graph = ir.Graph([x, u], [y], nodes=[node], opset_imports={"": 20}, name="graph")
    with pytest.raises(NoGradientError, match=r"'the_node'.*fixed image size"):
        differentiate(graph, y, [x], u)


# Forms chosen for speed


@pytest.mark.parametrize("case", PHASES, ids=str)
def test_strides_of_two_need_no_transposed_convolution(case: Case) -> None:
    assert "ConvTranspose" not in operators(case)


@pytest.mark.parametrize("pool", ["MaxPool", "AveragePool"])
def test_the_mask_of_a_relu_moves_behind_max_pools_alone(pool: str) -> None:
    """[relu(x) > 0] is put on the fewer numbers of the pool; the sum over an average's window must keep it apart."""
    x = np.round(RNG.standard_normal((2, 16, 9, 9)), 1)  # with ties, also at 0
    text = f"""
        <ir_version: 10, opset_import: ["" : 20]>
        g (double[N, 16, 9, 9] x, double[N, 16, 4, 4] u) => (double[N, 16, 4, 4] y) {{
            r = Relu(x)
            y = {pool}<kernel_shape = [3, 3], strides = [2, 2]>(r)
        }}"""
    model = ir.from_onnx_text(text)
    ir.passes.common.ShapeInferencePass()(model)
    graph = model.graph
    (found,) = differentiate(graph, graph.outputs[0], [graph.inputs[0]], graph.inputs[1])
    graph.outputs[:] = [found]
    masked = {node.inputs[0].name for node in graph if node.op_type == "HardSigmoid"}
    assert masked & {"r", "y"} == {"y" if pool == "MaxPool" else "r"}
    pooled = F.max_pool2d if pool == "MaxPool" else F.avg_pool2d
    u, expected = in_torch(lambda leaf: pooled(torch.relu(leaf), 3, 2), x)
    (computed,) = ReferenceEvaluator(ir.to_proto(model), new_ops=KERNELS).run(None, {"x": x, "u": u})
    np.testing.assert_allclose(computed, expected, atol=1e-12)
