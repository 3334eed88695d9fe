"""Constant first states and lengths of a baked batch: the layer computes the same for its size, and for any other."""

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest

from control_models import run
from onnxplain_export.normalize.recurrent import free_states
from onnxplain_export.normalize.shapes import infer_shapes
from rule_cases_recurrent import HIDDEN, SAMPLES, SIZE, STATES, TIME, layer
from rule_harness import STATIC, Case, forward_model

RNG = np.random.default_rng(6)


def constant(case: Case, index: int, content: np.ndarray) -> ir.Model:
    """The layer with one input as an initializer, in float32."""
    inputs = [content if i == index else x for i, x in enumerate(case.arrays())]
    fixed = Case(case.op_type, inputs, case.attributes, (0,), outputs=case.outputs, used=case.used)
    return ir.from_proto(forward_model(fixed, STATIC, np.float32))


def freed(model: ir.Model) -> ir.Model:
    copy = model.clone()
    assert free_states(copy.graph) == 1
    copy.graph.inputs[0].shape = ir.Shape([TIME, "N", SIZE])
    for node in copy.graph:
        for output in node.outputs:
            output.shape = output.shape if output.is_graph_output() else None
    infer_shapes(copy)
    return copy


def agree(model: ir.Model, other: ir.Model) -> None:
    """The same for the batch that was baked, and the same again for each of its samples."""
    x = RNG.standard_normal((TIME, SAMPLES, SIZE)).astype(np.float32)
    (expected,), (found,) = run(model, x=x), run(other, x=x)
    np.testing.assert_array_equal(found, expected)
    shape = (TIME, -1, SAMPLES, HIDDEN)
    for n in range(SAMPLES):
        (alone,) = run(other, x=x[:, n : n + 1])
        np.testing.assert_allclose(alone.reshape(TIME, -1, HIDDEN), expected.reshape(shape)[:, :, n], atol=1e-6)


def named(model: ir.Model) -> ir.Model:
    model.graph.inputs[0].name, model.graph.outputs[0].shape = "x", ir.Shape(["entries"])
    return model


@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
@pytest.mark.parametrize("op_type", ["RNN", "GRU", "LSTM"])
@pytest.mark.parametrize("zero", [True, False])
def test_a_constant_state_is_that_of_every_sample(op_type: str, direction: str, zero: bool) -> None:
    directions = 2 if direction == "bidirectional" else 1
    one = RNG.standard_normal((directions, 1, HIDDEN)) * (not zero)
    for index in STATES[op_type]:
        case = layer(op_type, "", direction=direction, used=(0,))
        case = replace(case, inputs=[None if i in STATES[op_type] else x for i, x in enumerate(case.arrays())])
        model = named(constant(case, index, np.repeat(one, SAMPLES, axis=1)))
        other = freed(model)
        assert (other.graph.node("the_node").inputs[index] is None) == zero
        agree(model, other)


@pytest.mark.parametrize("length", [TIME, 2])
def test_a_constant_length_is_that_of_every_sample(length: int) -> None:
    case = layer("GRU", "", states=False, direction="reverse", used=(0,))
    model = named(constant(case, 4, np.full(SAMPLES, length, np.int32)))
    other = freed(model)
    assert (other.graph.node("the_node").inputs[4] is None) == (length == TIME)
    agree(model, other)


def test_states_that_differ_between_the_samples_stay() -> None:
    model = constant(layer("RNN", "", states=False, used=(0,)), 5, RNG.standard_normal((1, SAMPLES, HIDDEN)))
    assert free_states(model.graph) == 0
