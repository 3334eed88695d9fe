"""Forms of several operators whose derivative is written in fewer: the numbers are those of finite differences."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import parser
from onnx.reference import ReferenceEvaluator
from onnx_ir.passes.common import RemoveUnusedNodesPass

from onnxplain_export.autodiff import differentiate

RNG = np.random.default_rng(3)
CONV = "c = Conv <kernel_shape = [1, 1]> (x, w)"
IDENTITY = np.eye(4).reshape(4, 4, 1, 1)


def model(body: str, shape: str, out: str, constants: dict[str, np.ndarray]) -> onnx.ModelProto:
    text = f'<ir_version: 10, opset_import: ["" : 20]> g (double{shape} x) => (double{out} y) {{ {body} }}'
    parsed = parser.parse_model(text)
    parsed.graph.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in constants.items())
    return onnx.shape_inference.infer_shapes(parsed, data_prop=True)


def reverse(source: onnx.ModelProto) -> onnx.ModelProto:
    """x and u → gradient, without what nothing reads."""
    copy = ir.from_proto(source)
    graph = copy.graph
    y, x = graph.outputs[0], graph.inputs[0]
    u = ir.val("u", dtype=y.dtype, shape=y.shape)
    graph.inputs.append(u)
    (found,) = differentiate(graph, y, [x], u)
    node = ir.node("Identity", [found])
    node.outputs[0].name, node.outputs[0].dtype, node.outputs[0].shape = "gradient", x.dtype, x.shape
    graph.append(node)
    graph.outputs.clear()
    graph.outputs.append(node.outputs[0])
    RemoveUnusedNodesPass()(copy)
    return ir.to_proto(copy)


def emitted(source: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in reverse(source).graph.node if node.name.startswith("gradient/")]


def slopes(source: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):  # the evaluator's sigmoid computes ∞/∞ beside what it returns
        y = ReferenceEvaluator(source).run(None, {"x": x})[0]
        return ReferenceEvaluator(reverse(source)).run(None, {"x": x, "u": np.ones_like(y)})[0]


def assert_right(source: onnx.ModelProto, *shape: int) -> None:
    x, v = RNG.standard_normal(shape), RNG.standard_normal(shape)
    run = ReferenceEvaluator(source)
    u = RNG.standard_normal(run.run(None, {"x": x})[0].shape)
    gradient = ReferenceEvaluator(reverse(source)).run(None, {"x": x, "u": u})[0]
    ahead, behind = (run.run(None, {"x": x + sign * 1e-5 * v})[0] for sign in (1, -1))
    np.testing.assert_allclose(np.sum(gradient * v), np.sum(u * (ahead - behind)) / 2e-5, rtol=1e-7)


IMAGES = "[N, 4, 3, 3]"


@pytest.mark.parametrize("start", [CONV, "c = Mul(x, w)"])
@pytest.mark.parametrize(
    "body",
    [
        "s = Sigmoid(c) y = Mul(c, s)",
        "s = Sigmoid(c) y = Mul(s, c)",
        "s = Sigmoid(c) m = Mul(c, s) y = Add(m, s)",  # the gate has another reader
        "s = Sigmoid(c) e = Exp(c) y = Mul(e, s)",  # no SiLU
        "y = HardSwish(c)",
    ],
)
def test_gates_behind_a_convolution_and_elsewhere(start, body):
    weight = RNG.standard_normal((4, 4, 1, 1)) if start == CONV else RNG.standard_normal((4, 1, 1))
    assert_right(model(f"{start} {body}", IMAGES, IMAGES, {"w": weight}), 2, 4, 3, 3)


def test_kinks_and_far_values_behind_a_convolution():
    points = np.array([-1e4, -50.0, -3.0, 0.0, 3.0, 4.0, 50.0, 1e4])
    x = np.zeros((2, 4, 1, 1))
    x.flat[:] = points
    shape = "[N, 4, 1, 1]"
    hard = model(f"{CONV} y = HardSwish(c)", shape, shape, {"w": IDENTITY})
    np.testing.assert_allclose(slopes(hard, x).ravel(), [0, 0, 0, 0.5, 1, 1, 1, 1], atol=1e-12)
    silu = model(f"{CONV} s = Sigmoid(c) y = Mul(c, s)", shape, shape, {"w": IDENTITY})
    s = 1 / (1 + np.exp(-np.clip(points, -700, 700)))
    np.testing.assert_allclose(slopes(silu, x).ravel(), s * (1 + points * (1 - s)), atol=1e-9)


ATTENTION = """
    q = MatMul(x, wq) k = MatMul(x, wk) v = MatMul(x, wv)
    kt = Transpose <perm = [0, 2, 1]> (k)
    a = MatMul(q, kt) p = Softmax <axis = -1> (a)
"""
HEADS = {name: RNG.standard_normal((3, 3)) for name in ("wq", "wk", "wv")}


def test_the_weights_of_attention_are_summed_over_a_head():
    source = model(f"{ATTENTION} y = MatMul(p, v)", "[N, 7, 3]", "[N, 7, 3]", HEADS)
    assert_right(source, 2, 7, 3)
    graph = onnx.shape_inference.infer_shapes(reverse(source)).graph
    shapes = {value.name: [axis.dim_value for axis in value.type.tensor_type.shape.dim] for value in graph.value_info}
    assert [shapes[node.input[0]][1:] for node in graph.node if node.op_type == "ReduceSum"] == [[7, 3]]


@pytest.mark.parametrize(
    "rest",
    [
        "y = MatMul(v, p)",  # the weights are the second operand
        "o = MatMul(p, v) e = MatMul(p, k) y = Add(o, e)",  # they are read twice
        "t = Mul(p, p) y = MatMul(t, v)",
    ],
)
def test_attention_in_other_forms(rest):
    out = "[N, 3, 3]" if rest.startswith("y") else "[N, 7, 3]"
    body = ATTENTION if out == "[N, 7, 3]" else ATTENTION.replace("a = MatMul(q, kt)", "a = MatMul(kt, q)")
    assert_right(model(f"{body} {rest}", "[N, 7, 3]", "[N, 7, 3]", HEADS), 2, 7, 3)


def test_a_transposed_operand_gets_its_cotangent_without_a_transposition_more():
    source = model(f"{ATTENTION} y = MatMul(p, v)", "[N, 7, 3]", "[N, 7, 3]", HEADS)
    # of wq, wk, wv, of the scores' cotangent for k and of the weights for v
    assert emitted(source).count("Transpose") <= 6


def test_a_repeated_cotangent_is_repeated_by_the_addition():
    body = "m = ReduceMean <keepdims = 1> (x, axes) s = Sigmoid(m) y = Mul(x, s)"
    source = model(body, IMAGES, IMAGES, {"axes": np.array([2, 3])})
    assert_right(source, 2, 4, 3, 3)
    assert "Expand" not in emitted(source)
