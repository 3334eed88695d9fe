"""What holds where indices repeat, entries are equal or zero, and positions leave the image; what has no rule."""

import numpy as np
import onnx
import onnxruntime
import pytest

import rule_cases_functions
import rule_cases_machine_learning
import rule_cases_parameters
import rule_cases_sampling
import rule_cases_scatter
import rule_cases_spectral
import rule_harness
from onnxplain.errors import NoGradientError
from onnxplain_export.emitter import OPSET
from onnxplain_export.vjp import NO_GRADIENT, STANDARD
from rule_harness import Case, gradient_model, gradients, gradients_float32

CASES = [
    *rule_cases_functions.CASES,
    *rule_cases_scatter.CASES,
    *rule_cases_parameters.CASES,
    *rule_cases_sampling.CASES,
    *rule_cases_spectral.CASES,
    *rule_cases_machine_learning.CASES,
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_oracle_computes_what_onnxruntime_does(case):
    """A derivative of something else than what onnxruntime computes would be worth nothing."""
    feeds = {
        name: x.astype(np.float32) if x.dtype == np.float64 else x for name, x in rule_harness._feeds(case).items()
    }
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    model = rule_harness.forward_model(case, dtype=np.float32).SerializeToString()
    (found,) = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"]).run(None, feeds)
    with np.errstate(all="ignore"):
        (expected,) = rule_harness._evaluate(rule_harness.forward_model(case), rule_harness._feeds(case))
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
    ("ThresholdedRelu", [row(0, 1, 2)], {}, (0,), row(1, 1, 1), [row(0, 0, 1)]),
    ("Shrink", [row(-1, -0.5, 0, 0.5, 1)], {}, (0,), row(1, 1, 1, 1, 1), [row(1, 0, 0, 0, 1)]),
    ("MeanVarianceNormalization", [row(3, 3, 3)], {"axes": [1]}, (0,), row(1, 2, 4), [row(0, 0, 0)]),
    ("Clip", [row(1, 2, 3, 4), np.array(2.0), np.array(3.0)], {}, (0, 1, 2), row(1, 2, 4, 8), [row(0, 2, 4, 0), 1, 8]),
    ("Clip", [row(1, 2, 3), np.array(2.5), np.array(1.5)], {}, (0, 1, 2), row(1, 2, 4), [row(0, 0, 0), 0, 7]),
    ("GridSample", [row(1, 2)[None, None], np.full((1, 1, 1, 2), 0.3)], {"mode": "nearest"}, (0, 1),
     np.full((1, 1, 1, 1), 2.0), [[[[[0, 2]]]], [[[[0, 0]]]]]),
    ("GridSample", [row(1, 2)[None, None], np.full((1, 1, 1, 2), 1e12)], {"padding_mode": "border"}, (0, 1),
     np.full((1, 1, 1, 1), 2.0), [[[[[0, 2]]]], [[[[0, 0]]]]]),
    ("ai.onnx.ml::Imputer", [row(1, 7, 2)], {"imputed_value_floats": [3.0], "replaced_value_float": 7.0}, (0,),
     row(1, 2, 4), [row(1, 0, 4)]),
    ("ai.onnx.ml::Normalizer", [row(0, 0)], {"norm": "L2"}, (0,), row(1, 2), [row(0, 0)]),
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


SOME = {"n_supports": 1, "coefficients": [1.0], "support_vectors": [1.0, 2.0], "rho": [0.0]}
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
    (Case("ai.onnx.ml::Normalizer", [(2, 3)], {"norm": "MAX"}), "norm 'MAX'"),
    (Case("ai.onnx.ml::SVMRegressor", [(2, 2)], {**SOME, "one_class": 1}), "one class"),
    (Case("ai.onnx.ml::SVMRegressor", [(2, 2)], {**SOME, "post_transform": "PROBIT"}), "post_transform 'PROBIT'"),
    (
        Case("ai.onnx.ml::SVMRegressor", [(2, 2)], {**SOME, "kernel_type": "POLY", "kernel_params": [0.5, 0.25, 2.5]}),
        "fractional degree",
    ),
    (
        Case("ai.onnx.ml::LinearRegressor", [(2, 1)], {"coefficients": [1.0], "post_transform": "LOGISTIC"}),
        "post_transform 'LOGISTIC'",
    ),
    (Case("ai.onnx.ml::FeatureVectorizer", [(2, 3)], {"inputdimensions": [2]}), "cuts or pads"),
    (
        Case(
            "ai.onnx.ml::LinearClassifier",
            [(2, 2)],
            {"coefficients": [1.0, 2.0], "intercepts": [0.5], "classlabels_ints": [0, 1]},
            outputs=2,
            used=(1,),
        ),
        "one row of weights",
    ),
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
