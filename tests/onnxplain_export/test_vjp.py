"""Every derivative rule against its oracles, what holds at kinks and ties, and whether the harness would notice."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812

import onnxplain_export.vjp
from onnxplain.errors import NoGradientError
from onnxplain_export.vjp import NO_GRADIENT, STANDARD, Rule, registry
from rule_cases import CASES
from rule_harness import FREE, STATIC, UNKNOWN, Case, check_rule, gradient_model, gradients, gradients_float32


@pytest.mark.parametrize("case", CASES, ids=str)
def test_rule(case):
    check_rule(case)


def test_every_rule_has_cases():
    assert set(STANDARD) <= {case.op_type for case in CASES}


def test_every_family_is_imported():
    folder = Path(onnxplain_export.vjp.__file__).parent
    for file in folder.glob("*.py"):
        assert file.stem == "__init__" or hasattr(onnxplain_export.vjp, file.stem), file


def test_an_operator_has_a_rule_or_no_gradient_never_both():
    assert not NO_GRADIENT & set(STANDARD)
    with pytest.raises(ValueError, match="registered twice"):
        registry.no_gradient("Relu")
    with pytest.raises(ValueError, match="registered twice"):
        registry.vjp("Floor")(lambda op, node, g: (g,))


# Does the harness notice a wrong rule?


def broken(op_type: str, change):
    """The rules with one answer of one rule changed."""
    good = STANDARD[op_type]

    def function(op, node, g):
        return [None if answer is None else change(op, answer) for answer in good.function(op, node, g)]

    return {**STANDARD, op_type: replace(good, function=function)}


def softmax_over_the_wrong_axis(op, node, g):
    y = node.outputs[0]
    return (op.Mul(y, op.Sub(g, op.ReduceSum(op.Mul(g, y), [0], keepdims=1))),)


def transpose_the_same_way(op, node, g):
    return (op.Transpose(g, perm=node.attributes["perm"].value),)


def mul_without_its_second_operand(op, node, g):
    return op.Mul(g, node.inputs[1]), op.zeros_like(g)


WRONG = {
    "a factor of 1.001": (Case("Tanh", [(3, 4)]), broken("Tanh", lambda op, dx: op.Mul(dx, 1.001))),
    "a wrong sign": (Case("Sigmoid", [(3, 4)]), broken("Sigmoid", lambda op, dx: op.Neg(dx))),
    "another axis": (
        Case("Softmax", [(4, 4)], {"axis": 1}),
        {**STANDARD, "Softmax": Rule(softmax_over_the_wrong_axis)},
    ),
    "another permutation": (
        Case("Transpose", [(3, 3, 3)], {"perm": [1, 2, 0]}),
        {**STANDARD, "Transpose": Rule(transpose_the_same_way)},
    ),
    "no sum over a broadcast axis": (
        Case("Add", [(3, 4), (1, 4)], wrt=(0, 1)),
        {**STANDARD, "Add": replace(STANDARD["Add"], broadcasts=False)},
    ),
    "a missing term": (
        Case("Mul", [(3, 4), (3, 4)], wrt=(0, 1)),
        {**STANDARD, "Mul": Rule(mul_without_its_second_operand, broadcasts=True)},
    ),
    "a small offset": (Case("Relu", [(3, 4)]), broken("Relu", lambda op, dx: op.Add(dx, 1e-4))),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_the_harness_catches(wrong):
    case, rules = WRONG[wrong]
    check_rule(case)
    with pytest.raises(AssertionError, match=case.op_type):
        check_rule(case, rules)


def test_the_harness_catches_a_wrong_rule_through_torch():
    with pytest.raises(AssertionError, match="against torch"):
        check_rule(Case("Tanh", [(3, 4)], torch=torch.sigmoid))


def test_the_harness_refuses_a_case_that_tests_nothing():
    with pytest.raises(AssertionError, match="tests nothing"):
        check_rule(Case("Relu", [(3, 4)], low=-2.0, high=-1.0))


def test_the_harness_checks_the_shapes_at_run_time():
    static = [node.op_type for node in gradient_model(Case("ReduceMean", [(3, 4)]), form=STATIC).graph.node]
    unknown = [node.op_type for node in gradient_model(Case("ReduceMean", [(3, 4)]), form=UNKNOWN).graph.node]
    assert "Shape" not in static
    assert "Shape" in unknown


# Kinks, ties and far values: the convention is in the expected numbers.

NEAR_ONE = np.nextafter(np.float32(1), [0, 2], dtype=np.float32).astype(float)
GAMMA_ALPHA = 1.05070102214813232421875 * 1.67326319217681884765625
FAR = [-1e4, -200.0, 200.0, 1e4]


def number(value: float) -> np.ndarray:
    return np.array(value)


POINTS = [
    # operator, other inputs, attributes, points, slopes there, torch
    ("Relu", [], {}, [-1, 0, 1e-6, 2], [0, 0, 1, 1], torch.relu),
    ("LeakyRelu", [], {"alpha": 0.25}, [-1, 0, 2], [0.25, 0.25, 1], lambda x: F.leaky_relu(x, 0.25)),
    ("PRelu", [number([0.25])], {}, [-1, 0, 2], [0.25, 0.25, 1], F.prelu),
    ("Elu", [], {}, [0, 2], [1, 1], F.elu),
    ("Elu", [], {"alpha": 2.0}, [0, 2], [2, 1], lambda x: F.elu(x, 2.0)),
    ("Celu", [], {"alpha": 2.0}, [0, 2], [1, 1], lambda x: F.celu(x, 2.0)),
    ("Selu", [], {}, [0, 2], [GAMMA_ALPHA, 1.05070102214813232421875], torch.selu),
    ("HardSigmoid", [], {"alpha": 0.5, "beta": 0.5}, [-1, 0, 1], [0, 0.5, 0], None),
    ("HardSwish", [], {}, [-3, 0, 3, 4], [0, 0.5, 1, 1], F.hardswish),
    ("Clip", [number(-0.5), number(1.0)], {}, [-0.6, -0.5, 0, *NEAR_ONE], [0, 1, 1, 1, 0], torch.clamp),
    ("Clip", [number(-0.5), number(1.0)], {}, [-0.5, 1.0], [1, 1], torch.clamp),
    ("Clip", [number(0.0), number(1.0)], {}, [-1e-6, 0, 1, 2], [0, 1, 1, 0], torch.clamp),
    ("Clip", [number(0.0), number(6.0)], {}, [-1, 0, 1e-6, 6, 7], [0, 0, 1, 0, 0], lambda x, *_: F.relu6(x)),
    ("Clip", [number(2.0), number(1.0)], {}, [0, 1, 1.5, 2, 3], [0, 0, 0, 0, 0], None),
    ("Abs", [], {}, [-1, 0, 2], [-1, 0, 1], torch.abs),
    ("Sqrt", [], {}, [0, 4], [0, 0.25], None),
    ("Pow", [number(0.5)], {}, [0, 4], [0, 0.25], None),
    ("Pow", [number(2.0)], {}, [-3, 0, 3], [-6, 0, 6], torch.pow),
    ("Pow", [number(1.0)], {}, [-3, 0, 3], [1, 1, 1], torch.pow),
    ("Pow", [number(0.0)], {}, [-3, 0, 3], [0, 0, 0], torch.pow),
    ("Pow", [number(3.0)], {}, [-2, 0], [12, 0], torch.pow),
    ("Max", [number(1.0)], {}, [0, 1, 2], [0, 0.5, 1], torch.maximum),
    ("Min", [number(1.0)], {}, [0, 1, 2], [1, 0.5, 0], torch.minimum),
    ("Max", [number(1.0), number(1.0)], {}, [0, 1, 2], [0, 1 / 3, 1], None),
    ("Softplus", [], {}, [-200, 0, 200], [0, 0.5, 1], F.softplus),
    ("Elu", [], {}, FAR, [0, 0, 1, 1], F.elu),
    ("Selu", [], {}, FAR, [0, 0, 1.05070102214813232421875, 1.05070102214813232421875], torch.selu),
    ("Celu", [], {}, FAR, [0, 0, 1, 1], F.celu),
    ("Sigmoid", [], {}, FAR, [0, 0, 0, 0], torch.sigmoid),
    ("Tanh", [], {}, FAR, [0, 0, 0, 0], torch.tanh),
    ("Gelu", [], {}, FAR, [0, 0, 1, 1], F.gelu),
    ("Gelu", [], {"approximate": "tanh"}, FAR, [0, 0, 1, 1], lambda x: F.gelu(x, approximate="tanh")),
    ("Mish", [], {}, [-1e4, -600, 600, 1e4], [0, 0, 1, 1], F.mish),
    ("HardSwish", [], {}, FAR, [0, 0, 1, 1], F.hardswish),
]


@pytest.mark.parametrize("point", POINTS, ids=lambda point: f"{point[0]} {point[2]} {point[3]}")
def test_slope_at(point):
    op_type, others, attributes, x, slopes, function = point
    case = Case(op_type, [number(x).astype(float), *others], attributes, torch=function)
    u = np.arange(1.0, len(x) + 1)
    expected = u * slopes
    np.testing.assert_allclose(gradients(case, cotangent=u)[0], expected, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(gradients_float32(case, cotangent=u)[0], expected, rtol=1e-5, atol=1e-9)
    if function is not None:
        leaf = torch.tensor(case.inputs[0], requires_grad=True)
        function(leaf, *map(torch.tensor, others)).backward(torch.tensor(u))
        np.testing.assert_allclose(leaf.grad, expected, rtol=1e-6, atol=1e-9)


ROWS = [
    # operator, attributes, rows, what each entry's slope is under the cotangent (1, 2)
    ("ReduceMax", [[1, 3, 3], [2, 2, 2]], [[0, 0.5, 0.5], [2 / 3, 2 / 3, 2 / 3]]),
    ("ReduceMin", [[1, 3, 1], [2, 5, 4]], [[0.5, 0, 0.5], [2, 0, 0]]),
    ("ReduceL1", [[0, -3, 1], [0, 0, 0]], [[0, -1, 1], [0, 0, 0]]),
    ("ReduceL2", [[0, 3, 4], [0, 0, 0]], [[0, 0.6, 0.8], [0, 0, 0]]),
    ("ReduceLogSumExp", [[200, -200, 200], [-1e4, -1e4, -3e4]], [[0.5, 0, 0.5], [1, 1, 0]]),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
@pytest.mark.parametrize("keepdims", [0, 1])
def test_slopes_along_an_axis(row, keepdims):
    op_type, x, slopes = row
    case = Case(op_type, [number(x).astype(float), np.array([1])], {"keepdims": keepdims})
    u = np.array([[1.0], [2.0]]) if keepdims else np.array([1.0, 2.0])
    np.testing.assert_allclose(gradients(case, cotangent=u)[0], slopes, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(gradients_float32(case, cotangent=u)[0], slopes, rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("p", [1, 2])
def test_lp_normalization_of_zeros_passes_nothing(p):
    case = Case("LpNormalization", [np.array([[0.0, 0.0], [3.0, 4.0]])], {"p": p})
    u = np.array([[1.0, 2.0], [3.0, -1.0]])
    for found in (gradients(case, cotangent=u)[0], gradients_float32(case, cotangent=u)[0]):
        assert np.isfinite(found).all()
        assert not found[0].any()
        assert found[1].any()


def test_where_keeps_an_infinite_cotangent_in_its_branch():
    case = Case("Where", [np.array([True, False]), (2,), (2,)], wrt=(1, 2))
    u = np.array([np.inf, 3.0])
    for first, second in (gradients(case, cotangent=u), gradients_float32(case, cotangent=u)):
        np.testing.assert_array_equal(first, [np.inf, 0])
        np.testing.assert_array_equal(second, [0, 3])


def test_all_tied_operands_share():
    same = np.array([1.0, 2.0])
    case = Case("Max", [same, same, same], wrt=(0, 1, 2))
    for share in gradients(case, cotangent=np.array([3.0, 6.0])):
        np.testing.assert_allclose(share, [1, 2])


def test_cast_gives_the_input_type_back():
    (found,) = gradients_float32(Case("Cast", [(3, 4)], {"to": 11}))
    assert found.dtype == np.float32


def test_slice_backwards_from_before_the_first_entry_reads_the_first_one():
    """As ONNX says and onnxruntime does; the reference evaluator follows Python and reads nothing."""
    case = Case("Slice", [(2, 3), *map(np.array, ([-9], [-20], [1], [-1]))])
    (found,) = gradients_float32(case, cotangent=np.array([[1.0], [2.0]]))
    np.testing.assert_array_equal(found, [[1, 0, 0], [2, 0, 0]])


# What the emitted graphs must not hold.


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_gradient_of_known_shapes_uses_portable_operators(case):
    """No operator that a runtime lacks or gets wrong, and the axes of sums as initializers (TensorRT)."""
    graph = gradient_model(case, form=FREE).graph
    initializers = {value.name for value in graph.initializer}
    for node in graph.node:
        if not node.name.startswith("gradient/"):
            continue
        assert node.op_type not in ("ScatterND", "MaxUnpool", "Col2Im"), node.op_type
        if node.op_type.startswith("Reduce") and len(node.input) > 1 and node.input[1]:
            at_run_time = node.input[1] not in initializers
            assert not at_run_time or "run time" in case.note, f"{case}: computed axes of {node.op_type}"


def test_relu6_is_masked_from_its_output():
    """A mask that reads the input would keep onnxruntime from fusing Conv and Clip."""
    graph = gradient_model(Case("Clip", [(3, 4), number(0.0), number(6.0)])).graph
    assert [node.op_type for node in graph.node if "input_0" in node.input] == ["Clip"]


@pytest.mark.parametrize(
    ("case", "message"),
    [
        (Case("ReduceL2", [(3, 4)], {"noop_with_empty_axes": 1}), "no axes"),
    ],
    ids=str,
)
def test_what_is_decided_at_run_time_is_refused_by_node(case, message):
    with pytest.raises(NoGradientError, match=message):
        gradient_model(case)


def test_batch_normalization_in_training_mode_is_refused():
    channels = [np.ones(3)] * 4
    case = Case("BatchNormalization", [(2, 3, 4), *channels], {"training_mode": 1}, outputs=3)
    with pytest.raises(NoGradientError, match="training mode"):
        gradient_model(case)
