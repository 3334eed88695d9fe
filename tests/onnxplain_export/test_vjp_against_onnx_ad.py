"""Our rules against onnx-ad, an independent engine: its gradients of every case, and the operators that it covers."""

from collections import defaultdict
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnx_ad.control
import onnx_ad.lower
import onnx_ad.recurrent
import onnx_ad.rules
import onnx_ir as ir
import pytest
import torch
import torch.nn.functional as F  # noqa: N812

import normalizing
import onnx_ad_oracle
import rule_cases
from onnxplain.errors import ModelError
from onnxplain_export.autodiff import blocking_nodes, differentiate
from onnxplain_export.vjp import NO_GRADIENT, STANDARD
from onnxplain_export.vjp.registry import REFUSED
from rule_harness import Case, case_cotangent, gradients

AGREES, REFUSES, WRONG = "agrees", "refuses", "wrong"
TOLERANCE = 1e-7

BY_OPERATOR: dict[str, list[Case]] = defaultdict(list)
for one in rule_cases.CASES:
    if "::" not in one.op_type:  # it knows the default domain only
        BY_OPERATOR[one.op_type].append(one)


@cache
def outcome(case: Case) -> str:
    u = case_cotangent(case)
    try:
        with np.errstate(all="ignore"):
            theirs = onnx_ad_oracle.onnx_ad_gradients(case, u)
    except onnx_ad.UnsupportedOperator as error:
        if onnx_ad_oracle.refused_as_expected(case, error):
            return REFUSES
        raise AssertionError(f"{case}: a refusal that isn't listed: {error}") from error
    except ValueError as error:  # shapes that don't fit
        if onnx_ad_oracle.known_wrong(case):
            return WRONG
        raise AssertionError(f"{case}: onnx-ad's graph doesn't run: {error}") from error
    apart = max(onnx_ad_oracle.distance(a, b) for a, b in zip(gradients(case, cotangent=u), theirs, strict=True))
    if onnx_ad_oracle.known_wrong(case):
        assert apart > 1e-3, f"{case}: onnx-ad is right here, though it is listed as wrong"
        return WRONG
    assert apart <= max(TOLERANCE, case.tolerance), f"{case}: {apart} from onnx-ad's gradient"
    return AGREES


@pytest.mark.parametrize("op_type", sorted(BY_OPERATOR))
def test_gradients_are_those_of_onnx_ad(op_type):
    for case in BY_OPERATOR[op_type]:
        outcome(case)


def test_the_oracle_runs_nearly_everything():
    outcomes = {op_type: [outcome(case) for case in cases] for op_type, cases in BY_OPERATOR.items()}
    agreeing = sum(found.count(AGREES) for found in outcomes.values())
    without = {op_type for op_type, found in outcomes.items() if AGREES not in found}
    assert agreeing >= 950
    assert without == {"Det", "OneHot"}, "it has no gradient for these"


def test_every_listed_exception_is_met():
    found = {op_type: {outcome(case) for case in cases} for op_type, cases in BY_OPERATOR.items()}
    assert set(onnx_ad_oracle.EXPECTED_REFUSALS) == {op_type for op_type, words in found.items() if REFUSES in words}
    assert set(onnx_ad_oracle.KNOWN_WRONG) == {op_type for op_type, words in found.items() if WRONG in words}


def test_a_wrong_gradient_is_noticed(monkeypatch):
    case = Case("Tanh", [(3, 4)])
    assert outcome(case) == AGREES
    monkeypatch.setitem(STANDARD, "Tanh", STANDARD["Sigmoid"])
    with pytest.raises(AssertionError, match="from onnx-ad's gradient"):
        outcome(Case("Tanh", [(3, 4)]))


UNEVEN: list[tuple[list[int], list[int]]] = [
    # pads, strides
    ([0, 0, 1, 1], [2, 2]),
    ([2, 2, 0, 0], [1, 1]),
    ([0, 1, 2, 0], [2, 3]),
]


@pytest.mark.parametrize(("pads", "strides"), UNEVEN)
def test_where_onnx_ad_is_wrong_about_uneven_pads_we_agree_with_torch(pads, strides):
    attributes = {"pads": pads, "strides": strides}
    case = Case("Conv", [(2, 3, 8, 9), (4, 3, 3, 2)], attributes)
    u = case_cotangent(case)
    x, weight = (torch.tensor(array) for array in case.arrays())
    y = F.conv2d(F.pad(x.requires_grad_(), (pads[1], pads[3], pads[0], pads[2])), weight, stride=strides)
    (expected,) = torch.autograd.grad(y, x, torch.tensor(u))
    np.testing.assert_allclose(gradients(case, cotangent=u)[0], expected, rtol=0, atol=1e-12)
    assert onnx_ad_oracle.known_wrong(case)
    assert outcome(case) == WRONG


# Which operators it covers

BY_BODY = {"AffineGrid", "Attention", "CausalConvWithState", "CenterCropPad", "GroupNormalization", "LinearAttention"}
BY_BODY |= {"MeanVarianceNormalization", "NegativeLogLikelihoodLoss", "RMSNormalization", "ReduceLogSum"}
BY_BODY |= {"RotaryEmbedding", "SoftmaxCrossEntropyLoss", "Swish"}
"""What its documentation says that it expands by the standard's own definition."""

COVERED = {*onnx_ad.rules.REVERSE, *onnx_ad.lower.LOWERINGS, *onnx_ad.recurrent.RECURRENT, *BY_BODY}
UNDEFINED = {"IsFinite"}
"""It has rules for these, of which onnx knows nothing."""

X = (1, 3, 4, 4)
LABELS = np.random.default_rng(1).integers(0, 3, (1, 4, 4))
LOOP = onnx.parser.parse_graph(
    "body (int64 i, bool c, float[1, 3, 4, 4] s) => (bool d, float[1, 3, 4, 4] t) { d = Identity(c) t = Tanh(s) }"
)

LINEAR = {"q_num_heads": 2, "kv_num_heads": 2, "update_rule": "linear"}
STATEFUL = ("CausalConvWithState", "LinearAttention")

NORMALISED: dict[str, tuple[int, list[str], dict[str, Any], dict[str, Any]]] = {
    # opset, what the node reads, its attributes, constants
    "Attention": (23, ["x", "x", "x"], {}, {}),
    "CastLike": (20, ["x", "like"], {}, {"like": np.float32(1)}),
    "CausalConvWithState": (27, ["row", "w"], {}, {"w": np.ones((12, 1, 3), np.float32)}),
    "CenterCropPad": (18, ["x", "shape"], {"axes": [2, 3]}, {"shape": np.array([2, 6])}),
    "CumProd": (26, ["x", "axis"], {}, {"axis": np.array(2)}),
    "LinearAttention": (27, ["sequence"] * 3, LINEAR, {}),
    "Loop": (20, ["trips", "", "x"], {"body": LOOP}, {"trips": np.array(2)}),
    "NegativeLogLikelihoodLoss": (20, ["x", "labels"], {"reduction": "none"}, {"labels": LABELS}),
    "RMSNormalization": (23, ["x", "scale"], {}, {"scale": np.ones(4, np.float32)}),
    "RotaryEmbedding": (23, ["x", "waves", "waves"], {}, {"waves": np.full((1, 4, 2), 0.5, np.float32)}),
    "Scatter": (
        10,
        ["x", "places", "updates"],
        {"axis": 1},
        {"places": LABELS[None], "updates": np.zeros((1, 1, 4, 4), np.float32)},
    ),
    "SoftmaxCrossEntropyLoss": (20, ["x", "labels"], {"reduction": "none"}, {"labels": LABELS}),
    "Swish": (24, ["x"], {}, {}),
    "TensorScatter": (
        24,
        ["x", "updates", "start"],
        {"axis": 2},
        {"updates": np.zeros((1, 3, 2, 4), np.float32), "start": np.array([1])},
    ),
    "Upsample": (9, ["x", "scales"], {}, {"scales": np.array([1, 1, 2, 2], np.float32)}),
}


def of_one_node(op_type: str) -> onnx.ModelProto:
    """x [1, 3, 4, 4] → the node → five scores."""
    opset, reads, attributes, constants = NORMALISED[op_type]
    # With both outputs: onnx 1.23 infers no shapes where the second is left out.
    outputs = ["z", "state"] if op_type in STATEFUL else ["z"]
    node = onnx.helper.make_node(op_type, reads, outputs, **attributes)
    constants = {**constants, "three": np.array([1, 12, 4]), "last": np.array([1, 4, 12]), "all": np.array([1, -1])}
    before = [
        onnx.helper.make_node("Reshape", ["x", "three"], ["row"]),
        onnx.helper.make_node("Reshape", ["x", "last"], ["sequence"]),
    ]
    after = [
        onnx.helper.make_node("Reshape", ["z", "all"], ["flat"]),
        onnx.helper.make_node("ReduceMean", ["flat"], ["mean"], keepdims=1),
        onnx.helper.make_node("MatMul", ["mean", "mix"], ["y"]),
    ]
    constants["mix"] = np.ones((1, 5), np.float32)
    inputs = [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, X)]
    scores = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 5])
    tensors = [onnx.numpy_helper.from_array(np.asarray(content), name) for name, content in constants.items()]
    graph = onnx.helper.make_graph([*before, node, *after], "g", inputs, [scores], tensors)
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=10)


@pytest.mark.parametrize("op_type", NORMALISED)
def test_what_has_no_rule_is_made_of_what_has(op_type):
    found = normalizing.normalized(of_one_node(op_type))
    graph = found.model.graph
    assert op_type not in {node.op_type for node in graph}
    (image,), scores = graph.inputs, graph.outputs[0]
    assert blocking_nodes(graph, scores, [image]) == []
    assert differentiate(graph, scores, [image], ir.val("u", scores.dtype, scores.shape))


def test_what_has_no_gradient_is_refused_by_normalisation():
    """BitCast reads the bits of numbers; onnx-ad's gradient of it is zero."""
    node = onnx.helper.make_node("BitCast", ["x"], ["z"], to=onnx.TensorProto.INT32)
    x = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 5])
    z = onnx.helper.make_tensor_value_info("z", onnx.TensorProto.INT32, [1, 5])
    graph = onnx.helper.make_graph([node], "g", [x], [z])
    with pytest.raises(ModelError, match="BitCast"):
        normalizing.normalized(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 26)]))


def test_every_operator_that_onnx_ad_covers_is_covered_here():
    ours = {*STANDARD, *NO_GRADIENT, *REFUSED, *NORMALISED, "BitCast"}
    assert COVERED - ours == UNDEFINED
    assert not {schema.name for schema in onnx.defs.get_all_schemas()} & UNDEFINED
    assert not NORMALISED.keys() & STANDARD.keys()
