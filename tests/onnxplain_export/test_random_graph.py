"""The noise inside a graph is that of `onnxplain.random`, on every runtime, whatever its optimiser does."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx.reference import ReferenceEvaluator

from onnxplain import random as twin
from onnxplain_export.emitter import IR_VERSION, OPSET, Emitter
from onnxplain_export.graphs import random

SHAPES = [(5,), (7, 11), (3, 17, 19), (2, 3, 4, 5)]
DRAWS = np.array([[0, 1, 2, 719, 504019, twin.LIMIT - 1]], np.float32)
SEEDS = (0, 31337, twin.LIMIT - 1)


def model(kind, shape, draws_shape, float_type=ir.DataType.FLOAT):
    """A model with inputs `seed` and `draws` whose one output is the noise."""
    seed = ir.val("seed", ir.DataType.INT64, [1])
    draws = ir.val("draws", ir.DataType.FLOAT, draws_shape)
    graph = ir.Graph([seed, draws], [], nodes=[], opset_imports={"": OPSET}, name="noise")
    output = getattr(random, kind)(Emitter(graph, "noise", float_type), seed, draws, shape)
    output.name, output.dtype, output.shape = "noise", float_type, ir.Shape([*draws_shape, *shape])
    graph.outputs.append(output)
    proto = ir.to_proto(ir.Model(graph, ir_version=IR_VERSION))
    onnx.checker.check_model(proto, full_check=True)
    return proto


def run_reference(proto, feeds):
    return ReferenceEvaluator(proto).run(None, feeds)[0]


def run_onnxruntime(proto, feeds, level=onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)[0]


def run_unoptimised(proto, feeds):
    return run_onnxruntime(proto, feeds, onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL)


@pytest.mark.parametrize("run", [run_reference, run_onnxruntime, run_unoptimised])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_graph_equals_numpy(run, shape):
    uniform, normal = (model(kind, shape, [1, "K"]) for kind in ("uniform", "normal"))
    for seed in SEEDS:
        feeds = {"seed": np.array([seed]), "draws": DRAWS}
        np.testing.assert_array_equal(run(uniform, feeds)[0], twin.uniform(seed, DRAWS, shape))
        np.testing.assert_allclose(run(normal, feeds)[0], twin.normal(seed, DRAWS, shape), atol=2e-6, rtol=0)


def test_graph_equals_numpy_on_a_whole_picture():
    feeds = {"seed": np.array([77]), "draws": np.array([[3, 12345]], np.float32)}
    shape = (3, 224, 224)
    expected = twin.uniform(77, [3, 12345], shape)
    np.testing.assert_array_equal(run_onnxruntime(model("uniform", shape, [1, "K"]), feeds)[0], expected)
    found = run_onnxruntime(model("normal", shape, [1, "K"]), feeds)[0]
    np.testing.assert_allclose(found, twin.normal(77, [3, 12345], shape), atol=2e-6, rtol=0)


@pytest.mark.parametrize("draws_shape", [(4,), (2, 2), (2, 1, 2)], ids=str)
def test_leading_axes_are_those_of_the_draws(draws_shape):
    draws = np.array([9, 0, 4, 9], np.float32)
    feeds = {"seed": np.array([5]), "draws": draws.reshape(draws_shape)}
    found = run_onnxruntime(model("uniform", (3, 5, 6), draws_shape), feeds)
    np.testing.assert_array_equal(found, twin.uniform(5, draws, (3, 5, 6)).reshape(*draws_shape, 3, 5, 6))


def test_float64_graph_makes_the_same_noise():
    """The proof harness differentiates in float64: it must see the noise that the float32 graph sees."""
    feeds = {"seed": np.array([31337]), "draws": DRAWS}
    found = run_reference(model("normal", (3, 9, 9), [1, "K"], ir.DataType.DOUBLE), feeds)[0]
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, twin.normal(31337, DRAWS, (3, 9, 9)), atol=2e-6, rtol=0)


@pytest.mark.parametrize("prime", twin.PRIMES)
def test_remainder_is_exact_below_two_to_the_21(prime):
    whole = np.arange(2**21)
    x = ir.val("x", ir.DataType.FLOAT, ["M"])
    graph = ir.Graph([x], [], nodes=[], opset_imports={"": OPSET}, name="remainder")
    output = random._remainder(Emitter(graph, "remainder"), x, prime)
    output.dtype, output.shape = ir.DataType.FLOAT, ir.Shape(["M"])
    graph.outputs.append(output)
    found = run_onnxruntime(ir.to_proto(ir.Model(graph, ir_version=IR_VERSION)), {"x": whole.astype(np.float32)})
    np.testing.assert_array_equal(found, whole % prime)


@pytest.mark.parametrize("prime", twin.PRIMES)
def test_remainder_forgives_a_product_that_is_one_unit_off(prime):
    """A device may multiply less carefully than IEEE 754 asks."""
    whole = np.arange(2**21)
    product = whole.astype(np.float32) * np.float32((1 + 2**-22) / prime)
    for careless in (np.nextafter(product, np.float32(0)), np.nextafter(product, np.float32(1e9))):
        np.testing.assert_array_equal(np.floor(careless), whole // prime)


def test_primes_fit_the_bound():
    """Every value that is reduced stays below 2^21, and cubing permutes the residues."""
    first, second, third = twin.PRIMES
    assert all(prime % 3 == 2 for prime in twin.PRIMES)
    assert max((2 * prime - 2) ** 2 for prime in twin.PRIMES) < 2**21
    assert 2 * second**2 + 2 * third**2 < 2**21
    assert 2 * first**2 + second < 2**21
    assert all(offset < prime for prime, pair in zip(twin.PRIMES, twin.ELEMENT_OFFSETS, strict=True) for offset in pair)


@pytest.mark.parametrize(("kind", "most", "rare"), [("uniform", 35, set()), ("normal", 52, {"Log", "Div"})])
def test_cost_and_operators(kind, most, rare):
    """What a draw costs is the number of operators on tensors of its full size."""
    proto = model(kind, (3, 8, 9), [1, 4])
    assert {node.op_type for node in proto.graph.node} <= {
        "Add",
        "Sub",
        "Mul",
        "Floor",
        "Gather",
        "Cast",
        "Unsqueeze",
    } | rare
    inferred = onnx.shape_inference.infer_shapes(proto, strict_mode=True).graph
    values = [*inferred.value_info, *inferred.output]
    shapes = [[axis.dim_value for axis in value.type.tensor_type.shape.dim] for value in values]
    assert shapes.count([1, 4, 3, 8, 9]) <= most
