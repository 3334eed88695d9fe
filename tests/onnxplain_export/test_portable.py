"""The forms that runtimes compute wrongly are written in others, at no difference of the numbers."""

from collections.abc import Sequence

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import NodeProto, helper, numpy_helper

from onnxplain_export.graphs.portable import BESIDE_SIXTH, make_portable

RANDOM = np.random.default_rng(0)


def graph_of(nodes: Sequence[NodeProto], outputs: Sequence[str], axes: Sequence[int], **weights: object) -> ir.Model:
    made = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, axes)],
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(content), name) for name, content in weights.items()],
    )
    return ir.from_proto(helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10))


def run(model: ir.Model, x: np.ndarray) -> list[np.ndarray]:
    content = ir.to_proto(model).SerializeToString()
    return list(onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"]).run(None, {"x": x}))


def square(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(np.float32)


TURNED = {
    "MatMul": (
        [
            helper.make_node("MatMul", ["x", "w"], ["a"]),
            helper.make_node("Transpose", ["w"], ["t"], perm=[1, 0]),
            helper.make_node("MatMul", ["x", "t"], ["b"]),
        ],
        [2, 6],
        square(6, 6),
    ),
    "Gemm": (
        [
            helper.make_node("Gemm", ["x", "w"], ["a"], transB=1),
            helper.make_node("Gemm", ["x", "w"], ["b"]),
        ],
        [2, 6],
        square(6, 6),
    ),
    "ConvTranspose": (
        [
            helper.make_node("Conv", ["x", "w"], ["a"], kernel_shape=[3, 3]),
            helper.make_node("ConvTranspose", ["x", "w"], ["b"], kernel_shape=[3, 3]),
        ],
        [2, 4, 5, 5],
        square(4, 4, 3, 3),
    ),
}


@pytest.mark.parametrize("kind", TURNED)
def test_a_weight_that_is_also_read_transposed_has_numbers_of_its_own_there(kind):
    nodes, axes, weight = TURNED[kind]
    model = graph_of(nodes, ["a", "b"], axes, w=weight)
    x = square(*axes)
    before = run(model, x)
    make_portable(model)
    assert [node.op_type for node in model.graph].count("Neg") == 2
    readers = {use.node.op_type for use in model.graph.initializers["w"].uses()}
    assert "Neg" in readers
    assert len(readers) == 2  # the other use reads the weight itself
    ir.passes.common.TopologicalSortPass()(model)
    assert all(np.array_equal(a, b) for a, b in zip(before, run(model, x), strict=True))


def test_a_weight_read_in_one_way_and_one_that_is_not_square_stay():
    nodes = [helper.make_node("Gemm", ["x", "w"], ["a"]), helper.make_node("Gemm", ["a", "w"], ["b"])]
    once = graph_of(nodes, ["b"], [2, 6], w=square(6, 6))
    nodes = [helper.make_node("Gemm", ["x", "w"], ["a"]), helper.make_node("Gemm", ["a", "w"], ["b"], transB=1)]
    oblong = graph_of(nodes, ["b"], [2, 6], w=square(6, 4))
    for model in (once, oblong):
        make_portable(model)
        assert [node.op_type for node in model.graph] == ["Gemm", "Gemm"]


def test_a_gate_is_told_from_a_hard_swish():
    sixth = float(np.float32(1 / 6))

    def gate(factor: str) -> ir.Model:
        sigmoid = helper.make_node("HardSigmoid", ["x"], ["s"], alpha=sixth, beta=0.5)
        other = helper.make_node("Abs", ["x"], ["o"])
        return graph_of([sigmoid, other, helper.make_node("Mul", [factor, "s"], ["y"])], ["y"], [2, 6])

    gated, swish = gate("o"), gate("x")
    x = square(2, 6)
    before = run(gated, x)[0]
    for model in (gated, swish):
        make_portable(model)
    alphas = [float(np.float32(model.graph[0].attributes["alpha"].as_float())) for model in (gated, swish)]
    assert alphas == [BESIDE_SIXTH, sixth]
    assert np.abs(run(gated, x)[0] - before).max() <= 2e-7
