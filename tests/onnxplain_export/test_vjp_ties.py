"""What holds where indices repeat, entries are equal or zero, and positions leave the image; what has no rule."""

from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

import rule_cases_functions
import rule_cases_parameters
import rule_cases_sampling
import rule_cases_scatter
import rule_cases_spectral
import rule_harness
from control_models import SCALES, agrees_with_torch, load
from onnxplain.errors import NoGradientError
from onnxplain_export.emitter import OPSET
from onnxplain_export.vjp import NO_GRADIENT, STANDARD
from rule_cases_recurrent import layer
from rule_harness import Case, gradient_model, gradients, gradients_float32

CASES = [
    *rule_cases_functions.CASES,
    *rule_cases_scatter.CASES,
    *rule_cases_parameters.CASES,
    *rule_cases_sampling.CASES,
    *rule_cases_spectral.CASES,
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_oracle_computes_what_onnxruntime_does(case):
    """A derivative of something else than what onnxruntime computes would be worth nothing."""
    feeds = {
        name: x.astype(np.float32) if x.dtype == np.float64 else x for name, x in rule_harness.feeds_of(case).items()
    }
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    model = rule_harness.forward_model(case, dtype=np.float32).SerializeToString()
    (found,) = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"]).run(None, feeds)
    with np.errstate(all="ignore"):
        (expected,) = rule_harness._evaluate(rule_harness.forward_model(case), rule_harness.feeds_of(case))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def row(*numbers: float) -> np.ndarray:
    return np.array([numbers])


SLOPES = [
    # operator, inputs, attributes, differentiated, cotangent, slopes
    ("ScatterElements", [row(1, 5), row(0, 0, 1), row(1, 1, 4)], {"axis": 1, "reduction": "max"}, (0, 2), row(3, 2),
     [row(1, 2), row(1, 1, 0)]),
    ("ScatterElements", [row(1, 5), row(0, 0, 1), row(1, 1, 4)], {"axis": 1, "reduction": "min"}, (0, 2), row(3, 2),
     [row(1, 0), row(1, 1, 2)]),
    ("ScatterElements", [row(0, 5), row(0, 0, 1), row(0, 3, 0)], {"axis": 1, "reduction": "mul"}, (0, 2), row(3, 2),
     [row(0, 0), row(0, 0, 10)]),
    ("ScatterElements", [row(0, 5), row(0, 1, 1), row(4, 2, 3)], {"axis": 1, "reduction": "mul"}, (0, 2), row(3, 2),
     [row(12, 12), row(0, 30, 20)]),
    ("ScatterND", [np.array([7.0, 7.0]), np.array([[1]]), np.array([7.0])], {"reduction": "max"}, (0, 2),
     np.array([1.0, 4.0]), [[1, 2], [2]]),
    ("TopK", [row(3, 1, 3, 3), np.array([2])], {}, (0,), np.array([1.0, 2.0]), [row(1, 0, 2, 0)]),
    ("Unique", [np.array([2.0, 1.0, 2.0, 2.0])], {}, (0,), np.array([5.0, 6.0]), [[2, 5, 2, 2]]),
    ("Unique", [np.array([[1.0, 2.0], [1.0, 2.0], [0.0, 3.0]])], {"axis": 0}, (0,), np.array([[1.0, 2.0], [3.0, 4.0]]),
     [[[1.5, 2], [1.5, 2], [1, 2]]]),
    ("ReduceProd", [np.array([[2, 0, 3], [0, 0, 5], [2, 3, 4]]), np.array([1])], {"keepdims": 0}, (0,),
     np.array([1.0, 1.0, 2.0]), [[[0, 6, 0], [0, 0, 0], [24, 16, 12]]]),
    ("Asin", [row(-1, 0, 1)], {}, (0,), row(1, 2, 3), [row(0, 2, 0)]),
    ("Acos", [row(-1, 0, 1)], {}, (0,), row(1, 2, 3), [row(0, -2, 0)]),
    ("Atanh", [row(-1, 0, 1)], {}, (0,), row(1, 2, 3), [row(0, 2, 0)]),
    ("Acosh", [row(1, 1.25)], {}, (0,), row(1, 3), [row(0, 4)]),
    ("ThresholdedRelu", [row(0, 1, 1.0001, 2)], {}, (0,), row(1, 1, 2, 1), [row(0, 0, 2, 1)]),
    ("LeakyRelu", [row(-1e-6, 1e-6)], {}, (0,), row(1, 2), [row(0.01, 2)]),
    ("PRelu", [row(-1e-6, 0, 1e-6), row(4.0, 4.0, 4.0)], {}, (0, 1), row(1, 2, 3), [row(4, 8, 3), row(-1e-6, 0, 0)]),
    ("Elu", [row(-1e-6, 1e-6)], {"alpha": 2.0}, (0,), row(1, 2), [row(2 - 2e-6, 2)]),
    ("Selu", [row(-1e-6, 1e-6)], {"alpha": 4.0, "gamma": 0.5}, (0,), row(1, 2), [row(2 - 2e-6, 1)]),
    ("Abs", [row(-1e-6, 1e-6)], {}, (0,), row(1, 2), [row(-1, 2)]),
    ("Shrink", [row(-0.5001, -0.5, 0, 0.5, 0.5001)], {}, (0,), row(1, 1, 1, 1, 2), [row(1, 0, 0, 0, 2)]),
    ("MeanVarianceNormalization", [row(3, 3, 3)], {"axes": [1]}, (0,), row(1, 2, 4), [row(0, 0, 0)]),
    ("Clip", [row(1, 2, 3, 4), np.array(2.0), np.array(3.0)], {}, (0, 1, 2), row(1, 2, 4, 8), [row(0, 2, 4, 0), 1, 8]),
    ("Clip", [row(1, 2, 3), np.array(2.0), np.array(2.0)], {}, (0, 1, 2), row(1, 2, 4), [row(0, 2, 0), 1, 4]),
    ("Clip", [row(1, 2, 3), np.array(2.5), np.array(1.5)], {}, (0, 1, 2), row(1, 2, 4), [row(0, 0, 0), 0, 7]),
    ("GridSample", [row(1, 2)[None, None], np.full((1, 1, 1, 2), 0.3)], {"mode": "nearest"}, (0, 1),
     np.full((1, 1, 1, 1), 2.0), [[[[[0, 2]]]], [[[[0, 0]]]]]),
    ("GridSample", [row(1, 2)[None, None], np.full((1, 1, 1, 2), 1e12)], {"padding_mode": "border"}, (0, 1),
     np.full((1, 1, 1, 1), 2.0), [[[[[0, 2]]]], [[[[0, 0]]]]]),
]  # fmt: skip


@pytest.mark.parametrize("given", SLOPES, ids=lambda given: given[0])
def test_slopes(given):
    op_type, inputs, attributes, wrt, u, slopes = given
    inputs = [inputs[0].astype(float), *inputs[1:]]
    if op_type == "ScatterElements":
        inputs[1:] = [inputs[1].astype(np.int64), inputs[2].astype(float)]
    case = Case(op_type, inputs, attributes, wrt, batched=(), outputs=2 if op_type == "TopK" else 1)
    u = u.astype(float)
    for found, tolerance in ((gradients(case, cotangent=u), 1e-9), (gradients_float32(case, cotangent=u), 1e-5)):
        for one, expected in zip(found, slopes, strict=True):
            np.testing.assert_allclose(one, expected, rtol=tolerance, atol=1e-12)


@pytest.mark.parametrize("reduction", ["none", "add", "mul", "min", "max"])
def test_scattering_many_updates_is_right_with_threads(reduction):
    """ScatterND(add) isn't in onnxruntime 1.31: its sums lose updates."""
    rng = np.random.default_rng(2)
    places = rng.permutation(400_000)[:300_000, None] if reduction == "none" else rng.integers(0, 64, (300_000, 1))
    data, updates = rng.uniform(0.9, 1.1, 400_000 if reduction == "none" else 64), rng.uniform(0.9, 1.1, 300_000)
    data[::2] = {"min": 0.5, "max": 2.0}.get(reduction, 1.0)
    if reduction == "mul":
        updates = np.where(rng.uniform(size=300_000) < 0.5, 1.0, -1.0)
    case = Case("ScatterND", [data, places, updates], {"reduction": reduction}, (0, 2), fed=(1,), batched=())
    model = gradient_model(case, dtype=np.float32)
    u = rng.standard_normal(data.shape).astype(np.float32)
    feeds = {
        "input_0": data.astype(np.float32),
        "input_1": places,
        "input_2": updates.astype(np.float32),
        "cotangent": u,
    }
    results = []
    for threads in (1, 4):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        results.append(session.run(None, feeds))
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.any()


ALL_FREE = [
    Case("GatherND", [(3, 4, 2), np.array([[[1], [3]], [[0], [0]], [[2], [1]]])], {"batch_dims": 1}),
    Case("GatherND", [(3, 4, 2), np.array([[1, 2], [0, 3]])]),
    Case("ScatterND", [(3, 4, 2), np.array([[1, 2], [0, 3]]), (2, 2)], wrt=(0, 2)),
    Case("Gather", [(3, 4, 2), np.array([[1, 3], [0, 0]])], {"axis": 1}),
    Case("Gather", [(3, 4, 2), np.array([1, 3])], {"axis": 1}),
    Case("ReduceMean", [(3, 4, 2), np.array([1])]),
    Case("Mul", [(3, 4, 2), (4, 2)], wrt=(0, 1)),
    Case("Softmax", [(3, 4, 2)], {"axis": 1}),
    Case("Concat", [(3, 4, 2), (3, 2, 2)], {"axis": 1}, wrt=(0, 1)),
]


@pytest.mark.parametrize("case", ALL_FREE, ids=str)
def test_every_axis_may_be_free(case, monkeypatch):
    expected = gradients(case)
    free = [[f"axis_{i}_{k}" for k in range(np.ndim(x))] for i, x in enumerate(case.arrays())]
    monkeypatch.setattr(rule_harness, "_shape", lambda _case, index, _form: free[index])
    for one, other, rounded in zip(gradients(case), expected, gradients_float32(case), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-12)
        np.testing.assert_allclose(rounded, other, rtol=1e-5, atol=1e-6)


def test_positions_that_are_known_are_undone_by_a_pad():
    for case in (Case("Slice", [(3, 4), *map(np.array, ([1], [3], [1]))]), Case("Gather", [(4, 3), np.array([1, 2])])):
        assert {node.op_type for node in gradient_model(case).graph.node} == {"Pad", "Identity"}


def test_a_scan_reads_and_writes_each_sequence_along_its_own_axis_and_in_its_own_order():
    model = load(
        """
        x3 = Unsqueeze(x, first) seven = Constant<value = int64[3] {2, 1, 1}>() pair = Expand(x3, seven)
        h, second_out, first_out = Scan<num_scan_inputs = 2, scan_input_axes = [0, 1], scan_input_directions = [1, 0],
            scan_output_axes = [1, 0], scan_output_directions = [1, 0],
            body = b (float[3] h, float[3] v, float[2, 3] w) => (float[3] n, float[2, 3] p, float[3] o) {
                m = Mul(h, v) n = Tanh(m) o = Mul(n, s) e = Sin(w) p = Mul(e, n) }>(s, x, pair)
        zero = Constant<value = int64[1] {0}>() inner = ReduceSum<keepdims = 0>(second_out, zero)
        both = Mul(inner, first_out) y = Add(both, h)
        """
    )

    def function(x: torch.Tensor) -> torch.Tensor:
        h, first, second = SCALES, [], []
        for v, w in zip(x.flip(0), x, strict=True):
            h = torch.tanh(h * v)
            first.append(h * SCALES)
            second.insert(0, 2 * torch.sin(w) * h)
        return torch.stack(second) * torch.stack(first) + h

    agrees_with_torch(model, function, np.random.default_rng(2).uniform(-1, 1, (5, 3)).astype(np.float32))


@pytest.mark.parametrize("bound", [0.3, -0.7, 1.9, -100.1, 1e-3, 12345.6])
def test_the_bounds_of_a_clip_are_exact_to_the_neighbouring_number(bound):
    bound = np.float32(bound)
    x = np.array([np.nextafter(bound, np.float32(-np.inf)), bound, np.nextafter(bound, np.float32(np.inf))], float)
    number, u = np.array(bound, float), np.array([1.0, 2.0, 4.0])
    for inputs, expected in (([x, number], [0, 2, 4]), ([x, None, number], [1, 2, 0])):
        case = Case("Clip", inputs)
        for found in (gradients(case, cotangent=u)[0], gradients_float32(case, cotangent=u)[0]):
            np.testing.assert_array_equal(found, expected)


def test_the_limit_of_a_range_only_counts():
    case = Case("Range", [np.array(x) for x in (0.5, 2.7, 1.0)], wrt=(0, 1, 2), batched=())
    assert gradients(case, cotangent=np.array([1.0, 2.0, 4.0])) == [7, 0, 10]


def test_a_recurrent_layer_keeps_the_names_of_its_outputs():
    (node,) = (node for node in gradient_model(layer("GRU", "")).graph.node if node.op_type == "GRU")
    assert node.output[0] == "output_0"


def test_a_recurrent_layer_needn_t_say_how_many_hidden_units_it_has():
    case = layer("GRU", "")
    bare = replace(case, attributes={k: v for k, v in case.attributes.items() if k != "hidden_size"})
    for one, other in zip(gradients(bare), gradients(case), strict=True):
        np.testing.assert_array_equal(one, other)


ROIS = [(1, 1, 4, 4), np.ones((1, 4)), np.zeros(1, np.int64)]

REFUSED = [
    (Case("DFT", [(2, 6, 2), np.array(6)], {"inverse": 1, "onesided": 1}), "differently by each runtime"),
    (Case("DFT", [(2, 6, 1), np.array(4)], fed=(1,)), "must be constants"),
    (Case("STFT", [(2, 16, 1), np.array(4), None, np.array(8)], fed=(1,), batched=(0,)), "must be constants"),
    (Case("Dropout", [(3, 4), np.array(0.5), np.array(True)]), "training mode"),
    (Case("Det", [(17, 17)], batched=()), "up to 16"),
    (Case("RoiAlign", ROIS, {"mode": "max"}), "max"),
    (Case("RoiAlign", ROIS, wrt=(1,)), "input 1"),
    (Case("MaxUnpool", [(1, 1, 2, 2), np.arange(4).reshape(1, 1, 2, 2)], {"kernel_shape": [2, 2]}), "overlap"),
    (
        Case(
            "MaxUnpool",
            [(1, 1, 2, 2), np.arange(4).reshape(1, 1, 2, 2), np.array([1, 1, 5, 5])],
            {"kernel_shape": [2, 2], "strides": [2, 2]},
        ),
        "output_shape",
    ),
    (Case("GroupNormalization", [(2, 4, 3), np.ones(4), np.ones(4)], {"num_groups": 2}), "one number a group"),
    (Case("Col2Im", [(2, 12, 6), np.array([3, 4]), np.array([2, 2])], fed=(1,), batched=(0,)), "must be constants"),
    (Case("MaxRoiPool", [(1, 1, 4, 4), np.ones((1, 5))], {"pooled_shape": [2, 2]}), "no derivative rule"),
]


@pytest.mark.parametrize(("case", "reason"), REFUSED, ids=str)
def test_what_has_no_rule_is_refused_by_name(case, reason):
    with pytest.raises(NoGradientError, match=rf"'the_node'.*{reason}|{reason}.*'the_node'"):
        gradient_model(case)


WITHOUT_RULE = {
    # deprecated: rewritten when a model comes to opset 20
    *("Scatter", "Upsample"),
    # sequences and optional values
    *("ConcatFromSequence", "SequenceAt", "SequenceConstruct", "SequenceErase", "SequenceInsert", "SplitToSequence"),
    *("Optional", "OptionalGetElement"),
    # quantised: the true gradient is zero
    *("ConvInteger", "DequantizeLinear", "MatMulInteger", "QLinearConv", "QLinearMatMul", "QuantizeLinear"),
    "MaxRoiPool",
}
RECURRENT = {"GRU", "LSTM", "RNN", "If", "Loop", "Scan"}


def test_every_operator_is_accounted_for():
    """Each has a rule, no gradient, a body that is inlined, or stands in the list of those that are refused."""
    names = {schema.name for schema in onnx.defs.get_all_schemas() if schema.domain == ""}
    names = {name for name in names if onnx.defs.has(name, max_inclusive_version=OPSET)}
    schemas = [onnx.defs.get_schema(name, OPSET) for name in names]
    bodies = {schema.name for schema in schemas if schema.has_function or schema.has_context_dependent_function}
    assert names - set(STANDARD) - NO_GRADIENT - bodies - RECURRENT == WITHOUT_RULE
    assert not WITHOUT_RULE & (set(STANDARD) | NO_GRADIENT)
