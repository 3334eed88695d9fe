"""What holds for recurrent layers beyond the general harness: kernels, layouts, lengths, torch's own exports."""

import warnings
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnx_ir.passes.common as passes
import onnxruntime
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from torch import nn

from onnxplain.errors import NoGradientError
from onnxplain_export.autodiff import differentiate
from onnxplain_export.normalize.opset import to_opset_20
from onnxplain_export.normalize.shapes import infer_shapes
from reference_kernels_recurrent import KERNELS
from rule_cases_recurrent import CASES, HIDDEN, LENGTHS, SAMPLES, SIZE, STATES, layer
from rule_harness import FREE, STATIC, Case, case_cotangent, forward_model, gradient_model, gradients, gradients_float32

LAYERS = ("RNN", "GRU", "LSTM")


def session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def relative(one: np.ndarray, other: np.ndarray) -> float:
    assert one.shape == other.shape
    return float(np.linalg.norm(one - other) / np.linalg.norm(other))


def operators(case: Case, form: str = STATIC) -> Counter[str]:
    return Counter(node.op_type for node in gradient_model(case, form=form).graph.node)


# The reference kernels


@pytest.mark.parametrize("case", CASES, ids=str)
def test_reference_kernels_agree_with_onnxruntime(case: Case) -> None:
    feeds = {f"input_{i}": case.arrays()[i] for i in (*case.wrt, *case.fed)}
    (expected,) = ReferenceEvaluator(forward_model(case), new_ops=KERNELS).run(None, feeds)
    floats = {name: x.astype(np.float32) if x.dtype == np.float64 else x for name, x in feeds.items()}
    (found,) = session(forward_model(case, FREE, np.float32)).run(None, floats)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", [case for case in CASES if case.torch is not None], ids=str)
def test_reference_kernels_agree_with_torch(case: Case) -> None:
    (found,) = ReferenceEvaluator(forward_model(case), new_ops=KERNELS).run(
        None, {f"input_{i}": case.arrays()[i] for i in case.wrt}
    )
    expected = case.torch(*(None if x is None else torch.tensor(x) for x in case.arrays()))
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-12)


def test_reference_kernel_clips_the_gates_of_an_lstm_as_onnxruntime_does() -> None:
    case = layer("LSTM", "clip", clip=0.4)
    feeds = {f"input_{i}": case.arrays()[i] for i in case.wrt}
    (expected,) = ReferenceEvaluator(forward_model(case), new_ops=KERNELS).run(None, feeds)
    floats = {name: x.astype(np.float32) for name, x in feeds.items()}
    (found,) = session(forward_model(case, STATIC, np.float32)).run(None, floats)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


# Layouts, omitted outputs, short and long sequences


def turned(case: Case) -> Case:
    """The same layer on operands whose first axis is the batch."""
    inputs = list(case.arrays())
    for i in (0, *STATES[case.op_type]):
        inputs[i] = None if inputs[i] is None else inputs[i].swapaxes(0, 1)
    return replace(case, inputs=inputs, attributes={**case.attributes, "layout": 1})


@pytest.mark.parametrize("direction", ["reverse", "bidirectional"])
@pytest.mark.parametrize("op_type", LAYERS)
def test_the_batch_may_come_first(op_type: str, direction: str) -> None:
    """onnxruntime has no such layers: float64 on the reference kernels, shape by shape."""
    for used, order in ((0, (2, 0, 1, 3)), (1, (1, 0, 2))):
        case = layer(op_type, "", direction=direction, used=(used,), lengths=LENGTHS, wrt=(0, 1, 5))
        shape = forward_shape(case, used)
        u = np.random.default_rng(3).standard_normal(shape)
        expected = gradients(case, cotangent=u.ravel())
        u = u.transpose(order)
        for form in (STATIC, FREE):
            found = gradients(turned(case), form=form, cotangent=u.ravel())
            np.testing.assert_allclose(found[0], expected[0].swapaxes(0, 1), atol=1e-12)
            np.testing.assert_allclose(found[1], expected[1], atol=1e-12)
            np.testing.assert_allclose(found[2], expected[2].swapaxes(0, 1), atol=1e-12)


def forward_shape(case: Case, output: int) -> tuple[int, ...]:
    directions = 2 if case.attributes.get("direction") == "bidirectional" else 1
    steps = np.shape(case.arrays()[0])[0]
    return (steps, directions, SAMPLES, HIDDEN) if output == 0 else (directions, SAMPLES, HIDDEN)


@pytest.mark.parametrize("case", [case for case in CASES if len(case.note) < 15], ids=str)
def test_unrolled_in_onnxruntime(case: Case) -> None:
    """The harness runs a free number of steps there."""
    u = case_cotangent(case)
    for found, expected in zip(
        gradients_float32(case, form=STATIC, cotangent=u), gradients(case, cotangent=u), strict=True
    ):
        assert relative(found, expected) < 2e-5


@pytest.mark.parametrize("op_type", LAYERS)
def test_short_sequences_are_unrolled_and_long_ones_scanned(op_type: str) -> None:
    short, long = (layer(op_type, "", time=time, direction="bidirectional", torch=True) for time in (64, 65))
    assert "Scan" not in operators(short)
    assert operators(long)["Scan"] == (4 if op_type == "LSTM" else 2)  # of LSTM also the cell, forwards
    assert "Scan" in operators(short, FREE)
    u = case_cotangent(long)
    leaves = [None if x is None else torch.tensor(x).requires_grad_() for x in long.arrays()]
    chosen = [leaves[i] for i in long.wrt]
    expected = torch.autograd.grad(long.torch(*leaves), chosen, torch.tensor(u))
    for found, other in zip(gradients(long, cotangent=u), expected, strict=True):
        assert relative(found, other.numpy()) < 1e-12
    for found, other in zip(gradients_float32(long, form=STATIC, cotangent=u), expected, strict=True):
        assert relative(found.astype(float), other.numpy()) < 2e-5


@pytest.mark.parametrize("op_type", LAYERS)
def test_a_layer_whose_sequence_of_outputs_is_left_out(op_type: str) -> None:
    """The gradient needs it all the same."""
    case = layer(op_type, "", used=(1,))
    model = forward_model(case)
    model.graph.node[0].output[0] = ""
    del model.graph.value_info[:]
    loaded = ir.from_proto(model)
    u = ir.val("cotangent", dtype=ir.DataType.DOUBLE)
    values = {value.name: value for value in loaded.graph.inputs}
    (found,) = differentiate(loaded.graph, loaded.graph.outputs[0], [values["input_0"]], u)
    loaded.graph.inputs.append(u)
    loaded.graph.outputs.append(found)
    feeds = {f"input_{i}": case.arrays()[i] for i in case.wrt}
    given = case_cotangent(case)
    results = ReferenceEvaluator(ir.to_proto(loaded), new_ops=KERNELS).run(None, {**feeds, "cotangent": given})
    np.testing.assert_allclose(results[1], gradients(case, cotangent=given)[0], atol=1e-12)


@pytest.mark.parametrize("op_type", LAYERS)
def test_no_gradient_leaves_the_steps_beyond_a_length(op_type: str) -> None:
    case = layer(op_type, "", lengths=LENGTHS, direction="bidirectional")
    gradient = gradients(case)[0]
    for sample, length in enumerate(LENGTHS):
        assert gradient[:length, sample].all()
        assert not gradient[length:, sample].any()


# What is refused


@pytest.mark.parametrize(
    ("case", "message"),
    [
        (layer("LSTM", "", clip=0.5), "LSTM .*the_node.* clips"),
        (layer("RNN", "", activations=["Swish"]), "RNN .*the_node.* activation 'Swish'"),
        (layer("RNN", "", activations=["Affine"]), "RNN .*the_node.* activation_alpha .* Affine"),
        (layer("RNN", "", activations=["ScaledTanh"], activation_alpha=[1.0]), "RNN .*the_node.* activation_beta"),
        (layer("LSTM", "", activations=["Sigmoid", "Tanh"]), "LSTM .*the_node.* names 2 activations; 3"),
        (layer("GRU", "", activations=["Elu", "LeakyRelu"], activation_alpha=[1.0]), "1 numbers for Elu, LeakyRelu"),
    ],
    ids=str,
)
def test_what_runtimes_disagree_about_is_refused_by_node(case: Case, message: str) -> None:
    with pytest.raises(NoGradientError, match=message):
        gradient_model(case)


# torch's own exports


class Classifier(nn.Module):
    """A class from the last states of a recurrent layer and the mean of its outputs."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.layer = getattr(nn, kind)(SIZE, HIDDEN, num_layers=2, bidirectional=True, batch_first=True)
        self.head = nn.Linear(4 * HIDDEN, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, final = self.layer(x)
        final = final[0] if isinstance(final, tuple) else final
        return self.head(torch.cat([final[-2], final[-1], y.mean(1)], 1))


def exported_gradient(network: nn.Module, x: torch.Tensor, classes: int) -> onnxruntime.InferenceSession:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(network, (x,), dynamo=True, verbose=False, dynamic_shapes=({0: "N"},))
    model = to_opset_20(ir.from_proto(program.model_proto))
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    passes.RemoveUnusedNodesPass()(model)
    infer_shapes(model)
    graph = model.graph
    graph.inputs[0].name = "x"
    u = ir.val("u", dtype=ir.DataType.FLOAT, shape=ir.Shape(["N", classes]))
    graph.inputs.append(u)
    graph.outputs.extend(differentiate(graph, graph.outputs[0], [graph.inputs[0]], u))
    return session(ir.to_proto(model))


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_a_torch_network_exported_with_a_free_batch(kind: str) -> None:
    torch.manual_seed(0)
    network = Classifier(kind).eval()
    gradient = exported_gradient(network, torch.randn(3, 7, SIZE), 4)
    x, u = torch.randn(5, 7, SIZE), torch.randn(5, 4)
    found: Any = gradient.run(None, {"x": x.numpy(), "u": u.numpy()})[-1]
    leaf = x.double().requires_grad_()
    (expected,) = torch.autograd.grad(network.double()(leaf), leaf, u.double())
    assert relative(found, expected.numpy()) < 1e-6
