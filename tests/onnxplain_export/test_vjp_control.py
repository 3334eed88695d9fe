"""What the walk sees of branches and scans that stay, beyond the general harness."""

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from onnx.reference import ReferenceEvaluator

from control_models import SCALES, agrees_with_torch, gradient, held, load, sample, tidied, unrolled
from onnxplain.errors import NoGradientError
from onnxplain_export.autodiff import active_values, blocking_nodes, differentiate
from onnxplain_export.emitter import captured
from onnxplain_export.normalize.control_flow import unroll
from onnxplain_export.vjp import STANDARD
from rule_cases_control import CASES
from rule_harness import gradient_model

BRANCHES = """
    r = If (condition) <
        then_branch = a () => (float[N, 3] ya) { p = Mul(h, s) ya = Mul(p, x) },
        else_branch = b () => (float[N, 3] yb) { yb = Sin(h) }>
"""


def test_the_body_of_a_scan_may_hold_a_branch() -> None:
    model = load(
        """
        swapped = Transpose<perm = [1, 0, 2]>(x) start = ReduceMax<keepdims = 0>(swapped, first)
        zero = Constant<value = float {0.0}>()
        y = Scan<num_scan_inputs = 1, body = b (float[N, 3] h, float[N, 3] v) => (float[N, 3] n) {
            sum = ReduceSum<keepdims = 0>(v) up = Greater(sum, zero)
            n = If (up) <
                then_branch = e () => (float[N, 3] ne) { te = Mul(h, s) ne = Add(te, v) },
                else_branch = f () => (float[N, 3] nf) { tf = Sin(h) nf = Mul(tf, v) }>
        }>(start, swapped)
        """,
        "float[N, T, 3] x",
    )
    assert held(unrolled(model)) == {"Scan", "If"}

    def function(x: torch.Tensor) -> torch.Tensor:
        h = x.amax(1)
        for v in x.unbind(1):
            h = h * SCALES + v if v.sum() > 0 else torch.sin(h) * v
        return h

    x = np.random.default_rng(1).uniform(-1, 1, (2, 6, 3)).astype(np.float32)
    assert len({bool(v > 0) for v in x.sum((0, 2))}) == 2
    agrees_with_torch(model, function, x)


def test_a_branch_that_puts_one_value_out_twice_gets_both_cotangents() -> None:
    model = load(
        """
        sum = ReduceSum<keepdims = 0>(x) condition = Greater(sum, sum)
        a, b = If (condition) <
            then_branch = f () => (float[N, 3] p, float[N, 3] q) { p = Exp(x) q = Cos(x) },
            else_branch = g () => (float[N, 3] t, float[N, 3] t) { t = Sin(x) }>
        y = Mul(a, b)
        """
    )
    graph, x = model.graph, sample(model)
    (result,) = differentiate(graph, graph.outputs[0], [graph.inputs[0]], graph.outputs[0])
    result.dtype = ir.DataType.FLOAT
    graph.outputs.append(result)
    # onnxruntime's If leaves the second output out, which is why unrolling makes them distinct.
    _, found = ReferenceEvaluator(ir.to_proto(model)).run(None, {"x": x})
    np.testing.assert_allclose(found, 2 * np.sin(x) ** 3 * np.cos(x), rtol=1e-5)


def test_what_a_branch_captures_counts_as_its_input() -> None:
    model = load(
        f"h = Tanh(x) z = Cos(h) sum = ReduceSum<keepdims = 0>(z) condition = Greater(sum, sum){BRANCHES} y = Mul(r, s)"
    )
    node = next(node for node in model.graph if node.op_type == "If")
    assert {value.name for value in captured(node)} == {"h", "s", "x"}
    active = active_values(list(model.graph), model.graph.outputs[0], [model.graph.inputs[0]])
    assert {value.name for value in active} == {"x", "h", "r", "y"}


def test_an_operator_without_a_rule_is_found_inside_a_branch() -> None:
    model = load(
        """
        sum = ReduceSum<keepdims = 0>(x) condition = Greater(sum, sum)
        y = If (condition) <
            then_branch = a () => (float[N, 3] ya) { p, q = Unique<sorted = 1, axis = 0>(x) ya = Mul(p, s) },
            else_branch = b () => (float[N, 3] yb) { yb = Sin(x) }>
        """
    )
    rules = {name: rule for name, rule in STANDARD.items() if name != "Unique"}
    blocking = blocking_nodes(model.graph, model.graph.outputs[0], [model.graph.inputs[0]], rules)
    assert [node.op_type for node in blocking] == ["Unique"]


IF_ROUNDED = """
    sum = ReduceSum<keepdims = 0>(x) condition = Greater(sum, sum)
    y = If (condition) <
        then_branch = a () => (float[N, 3] ya) { p = Round(x) ya = Mul(p, s) },
        else_branch = b () => (float[N, 3] yb) { q = Floor(x) yb = Sin(q) }>
"""
SCAN_ROUNDED = """
    f = Floor(x) l, os = Scan<num_scan_inputs = 1, body = b (float[3] h, float[3] v) => (float[3] n, float[3] o) {
        r = Round(v) n = Add(h, r) o = Mul(h, s) }>(s, x) y = Add(os, f)
"""


@pytest.mark.parametrize("nodes", [IF_ROUNDED, SCAN_ROUNDED])
def test_a_gradient_that_is_zero_in_every_branch_is_refused(nodes: str) -> None:
    """Zeros would be a map without an error."""
    model = load(nodes)
    with pytest.raises(NoGradientError, match="zero everywhere"):
        gradient(model, sample(model), sample(model))


def test_a_gradient_that_goes_round_by_the_states_is_found() -> None:
    """From the sequence to the first state, in the next step to the second, in the one after to what is put out."""
    model = load(
        """
        h, g, y = Scan<num_scan_inputs = 1,
            body = b (float[3] h, float[3] g, float[3] v) => (float[3] m, float[3] n, float[3] o) {
                m = Sin(v) n = Mul(h, s) o = Exp(g) }>(s, s, x)
        """
    )

    def function(x: torch.Tensor) -> torch.Tensor:
        g = [SCALES, SCALES * SCALES, *(torch.sin(v) * SCALES for v in x[:-2])]
        return torch.exp(torch.stack(g))

    x = np.random.default_rng(2).uniform(-1, 1, (5, 3)).astype(np.float32)
    agrees_with_torch(model, function, x)
    agrees_with_torch(unrolled_at(model, 5), function, x)


def unrolled_at(model: ir.Model, rows: int) -> ir.Model:
    """The model for a number of rows, unrolled."""
    copy = model.clone()
    copy.graph.inputs[0].shape = ir.Shape([rows, 3])
    assert unroll(tidied(copy).graph) == 1
    return tidied(copy)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_names_are_new_in_the_gradient(case: Any) -> None:
    """Each value of a graph and those that it holds has its own name, as the standard asks."""
    names: list[str] = []
    for node in ir.from_proto(gradient_model(case)).graph.all_nodes():
        names += [output.name for output in node.outputs if output.name]
    assert len(names) == len(set(names))
