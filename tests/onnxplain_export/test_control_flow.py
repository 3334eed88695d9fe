"""What is taken or unrolled before the walk, what becomes a Scan, and what is left as it is."""

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as passes
import pytest
import torch

from control_models import SCALES, agrees_with_torch, gradient, held, load, run, sample, unrolled
from onnxplain.errors import NoGradientError
from onnxplain_export.normalize import control_flow
from onnxplain_export.normalize.control_flow import unroll

# Branches

BRANCHES = """
    r = If (condition) <
        then_branch = a () => (float[N, 3] ya) { p = Mul(h, s) ya = Mul(p, x) },
        else_branch = b () => (float[N, 3] yb) { yb = Sin(h) }>
"""


@pytest.mark.parametrize("taken", [0, 1])
def test_a_branch_of_known_condition_is_taken(taken: int) -> None:
    model = load(f"h = Tanh(x) condition = Constant<value = bool {{{taken}}}>() {BRANCHES} y = Mul(r, x)")
    found = unrolled(model)
    assert not held(found)
    assert ("Sin" in {node.op_type for node in found.graph}) == (not taken)
    agrees_with_torch(
        found,
        lambda x: (torch.tanh(x) * SCALES * x if taken else torch.sin(torch.tanh(x))) * x,
        sample(model),
    )


@pytest.mark.parametrize("sign", [-1, 1])
def test_a_branch_that_depends_on_the_input(sign: int) -> None:
    model = load(
        f"h = Tanh(x) sum = ReduceSum<keepdims = 0>(x) zero = Sub(sum, sum) condition = Greater(sum, zero)"
        f"{BRANCHES} y = Mul(r, x)"
    )
    assert held(unrolled(model)) == {"If"}
    x = sign * np.abs(sample(model))
    agrees_with_torch(model, lambda x: (torch.tanh(x) * SCALES * x if sign > 0 else torch.sin(torch.tanh(x))) * x, x)


# Loops

BODY = """body = b (int64 i, bool c, float[N, 3] v) => (bool d, float[N, 3] w, float[N, 3] o) {
    d = Identity(c) k = Constant<value = float[3] {0.5, 1.5, 1.0}>() t = Mul(v, s) q = Mul(t, k) w = Tanh(q)
    f = Cast<to = 1>(i) o = Mul(w, f) }"""


def loop_in_torch(x: torch.Tensor, trips: int) -> torch.Tensor:
    put_out = []
    for i in range(trips):
        x = torch.tanh(x * SCALES * torch.tensor([0.5, 1.5, 1.0]))
        put_out.append(x * i)
    return x + torch.stack(put_out).sum(0)


def loop(trips: str, condition: str = "true") -> ir.Model:
    return load(
        f"{trips} l, os = Loop(m, {condition}, x) <{BODY}> r = ReduceSum<keepdims = 0>(os, first) y = Add(l, r)"
    )


@pytest.mark.parametrize("condition", ["true", ""])
def test_a_loop_of_known_length_is_unrolled(condition: str) -> None:
    model = loop("m = Constant<value = int64 {4}>()", condition)
    found = unrolled(model)
    assert not held(found)
    agrees_with_torch(found, lambda x: loop_in_torch(x, 4), sample(model))


def test_the_steps_share_the_weights_of_the_body() -> None:
    found = unrolled(loop("m = Constant<value = int64 {4}>()"))
    weights = [v for v in found.graph.initializers.values() if v.const_value is not None and v.const_value.size == 3]
    assert len(weights) == 2


@pytest.mark.parametrize("limit", [0, 12])
def test_a_loop_that_is_long_becomes_a_scan(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_flow, "LARGEST_UNROLLED", limit)
    model = loop("m = Constant<value = int64 {4}>()")
    found = unrolled(model)
    assert held(found) == {"Scan"}
    agrees_with_torch(found, lambda x: loop_in_torch(x, 4), sample(model))


def test_a_loop_of_unknown_length_becomes_a_scan() -> None:
    model = loop("n = Shape<start = 0, end = 1>(x) m = Squeeze(n, first)")
    found = unrolled(model)
    assert held(found) == {"Scan"}
    for rows in (1, 3):
        x = np.random.default_rng(rows).uniform(-1, 1, (rows, 3)).astype(np.float32)
        agrees_with_torch(found, lambda x, rows=rows: loop_in_torch(x, rows), x)


COUNTED = """body = b (int64 i, bool c, float[N, 3] v, int64 k) => (bool d, float[N, 3] w, int64 l) {
    l = Add(k, one) d = Less(l, limit) t = Mul(v, s) w = Sin(t) }"""


@pytest.mark.parametrize(("limit", "left"), [(20, set()), (19, {"Scan"})])
def test_a_loop_that_counts_to_a_known_end(limit: int, left: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_flow, "LARGEST_UNROLLED", limit)
    model = load(
        "zero = Constant<value = int64 {0}>() limit = Constant<value = int64 {5}>()"
        f'l, n = Loop("", true, x, zero) <{COUNTED}> y = Mul(l, x)'
    )
    found = unrolled(model)
    assert held(found) == left

    def function(x: torch.Tensor) -> torch.Tensor:
        v = x
        for _ in range(5):
            v = torch.sin(v * SCALES)
        return v * x

    agrees_with_torch(found, function, sample(model))


def test_a_condition_ends_a_loop_before_its_last_step() -> None:
    model = load(
        "zero = Constant<value = int64 {0}>() limit = Constant<value = int64 {2}>() m = Constant<value = int64 {7}>()"
        f"l, n = Loop(m, true, x, zero) <{COUNTED}> y = Mul(l, x)"
    )
    agrees_with_torch(unrolled(model), lambda x: torch.sin(torch.sin(x * SCALES) * SCALES) * x, sample(model))


def test_a_loop_of_no_steps_hands_its_states_on() -> None:
    model = load(
        "m = Constant<value = int64 {0}>() y = Loop(m, true, x) <body = b (int64 i, bool c, float[N, 3] v) => "
        "(bool d, float[N, 3] w) { d = Identity(c) w = Sin(v) }>"
    )
    found = unrolled(model)
    assert not held(found)
    assert not {node.op_type for node in found.graph} - {"Identity"}


def test_a_state_may_grow_when_a_loop_is_unrolled() -> None:
    model = load(
        "m = Constant<value = int64 {3}>() y = Loop(m, true, x) <body = b (int64 i, bool c, float[A, 3] v) => "
        "(bool d, float[B, 3] w) { d = Identity(c) t = Sin(v) w = Concat<axis = 0>(v, t) }>",
        outputs="float[M, 3] y",
    )
    found = unrolled(model)

    def function(x: torch.Tensor) -> torch.Tensor:
        for _ in range(3):
            x = torch.cat([x, torch.sin(x)])
        return x

    agrees_with_torch(found, function, sample(model))


def test_what_is_nested_is_unrolled_too() -> None:
    """A branch by the number of the step, in a loop in a branch."""
    model = load(
        """
        y = If (true) <then_branch = a () => (float[N, 3] ya) {
            m = Constant<value = int64 {3}>()
            ya = Loop(m, true, x) <body = b (int64 i, bool c, float[N, 3] v) => (bool d, float[N, 3] w) {
                d = Identity(c) last = Equal(i, one)
                w = If (last) <
                    then_branch = e () => (float[N, 3] we) { we = Mul(v, s) },
                    else_branch = f () => (float[N, 3] wf) { wf = Sin(v) }>
            }>
        }, else_branch = g () => (float[N, 3] yb) { yb = Neg(x) }>
        """
    )
    found = unrolled(model)
    assert not held(found)
    agrees_with_torch(found, lambda x: torch.sin(torch.sin(x) * SCALES), sample(model))


@pytest.mark.parametrize("limit", [0, 99])
def test_a_body_may_put_out_what_it_reads_twice_or_a_constant(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The condition as it came, a state as it came, one value twice, and a constant."""
    monkeypatch.setattr(control_flow, "LARGEST_UNROLLED", limit)
    model = load(
        """
        m = Constant<value = int64 {3}>()
        l, kept, a, b, k = Loop(m, true, x, x) <
            body = b (int64 i, bool c, float[N, 3] v, float[N, 3] u) =>
                (bool c, float[N, 3] w, float[N, 3] u, float[N, 3] w, float[N, 3] w, float[3] z) {
                z = Constant<value = float[3] {3.0, 2.0, 1.0}>() w = Sin(v) }>
        p = ReduceSum<keepdims = 0>(a, first) q = ReduceMax<keepdims = 0>(k, first)
        r = Mul(p, q) o = Add(l, r) t = ReduceSum<keepdims = 0>(b, first) f = Sub(o, t) y = Mul(f, kept)
        """
    )
    found = unrolled(model)
    assert held(found) == (set() if limit else {"Scan"})

    def function(x: torch.Tensor) -> torch.Tensor:
        steps = [torch.sin(x), torch.sin(torch.sin(x)), torch.sin(torch.sin(torch.sin(x)))]
        return (steps[-1] + sum(steps) * torch.tensor([3.0, 2.0, 1.0]) - sum(steps)) * x

    agrees_with_torch(found, function, sample(model))


def test_a_loop_of_no_steps_that_puts_something_out_is_left_alone() -> None:
    """What it puts out has no entries, and a shape that isn't known."""
    model = load(
        "m = Constant<value = int64 {0}>() l, y = Loop(m, true, x) <body = b (int64 i, bool c, float[N, 3] v) => "
        "(bool d, float[N, 3] w, float[N, 3] o) { d = Identity(c) w = Sin(v) o = Cos(v) }>",
        outputs="float[M, N, 3] y",
    )
    assert unroll(model.graph) == 0


@pytest.mark.parametrize("forever", ["Identity(c)", "Or(c, c)"])
def test_a_loop_without_end_is_left_alone(forever: str) -> None:
    model = load(
        'y = Loop("", true, x) <body = b (int64 i, bool c, float[N, 3] v) => (bool d, float[N, 3] w) '
        f"{{ d = {forever} w = Sin(v) }}>"
    )
    assert unroll(model.graph) == 0
    assert held(model) == {"Loop"}


def test_a_loop_that_ends_when_the_data_says_so_is_refused_by_node() -> None:
    model = load(
        'limit = Constant<value = float {5.0}>() y = Loop("", true, x) <body = b (int64 i, bool c, float[N, 3] v) => '
        "(bool d, float[N, 3] w) { w = Add(v, v) t = ReduceSum<keepdims = 0>(w) d = Less(t, limit) }>"
    )
    found = unrolled(model)
    assert held(found) == {"Loop"}
    with pytest.raises(NoGradientError, match=r"Loop \(node 'node_of_y', output 'y'\)"):
        gradient(found, sample(model), sample(model))


# Scans

SCAN = """body = b (float[N, 3] h, float[N, 3] v) => (float[N, 3] n, float[N, 3] o) {
    t = Mul(h, s) q = Add(t, v) n = Tanh(q) o = Mul(n, v) }"""


def scan_in_torch(x: torch.Tensor, reads_back: bool, writes_back: bool) -> torch.Tensor:
    h, put_out = x.amax(1), []
    for v in x.unbind(1)[:: -1 if reads_back else 1]:
        h = torch.tanh(h * SCALES + v)
        put_out.append(h * v)
    weights = torch.tensor([1.0, -2.0, 3.0, 0.5, 2.0], dtype=torch.float64)[:, None, None]
    return h + (torch.stack(put_out[:: -1 if writes_back else 1]) * weights).sum(0)


@pytest.mark.parametrize("output_axis", [0, 1, -1])
@pytest.mark.parametrize(("reads_back", "writes_back"), [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_a_scan_along_any_axis_both_ways(reads_back: int, writes_back: int, output_axis: int) -> None:
    """Unrolled, and by the rule, which sees scans of unknown length."""
    attributes = f"scan_input_directions = [{reads_back}], scan_output_directions = [{writes_back}], "
    attributes += f"scan_output_axes = [{output_axis}], "
    shape = {0: "5, 1, 1", 1: "1, 5, 1", -1: "1, 1, 5"}[output_axis]
    text = scan_text(attributes, shape, output_axis)
    model = load(text, "float[N, 5, 3] x")
    found = unrolled(model)
    assert not held(found)
    x = sample(model)
    for one in (found, model):
        agrees_with_torch(one, lambda x: scan_in_torch(x, bool(reads_back), bool(writes_back)), x)


def scan_text(attributes: str, shape: str, axis: int) -> str:
    return (
        "middle = Constant<value = int64[1] {1}>() start = ReduceMax<keepdims = 0>(x, middle)"
        f"l, os = Scan<num_scan_inputs = 1, scan_input_axes = [1], {attributes} {SCAN}>(start, x)"
        f"shape = Constant<value = int64[3] {{{shape}}}>()"
        "w = Constant<value = float[5] {1.0, -2.0, 3.0, 0.5, 2.0}>()"
        f"weights = Reshape(w, shape) weighed = Mul(os, weights) axis = Constant<value = int64[1] {{{axis}}}>()"
        "r = ReduceSum<keepdims = 0>(weighed, axis) y = Add(l, r)"
    )


def test_a_scan_along_the_last_axis() -> None:
    """Unrolled and by the rule."""
    model = load(
        """
        last = Constant<value = int64[1] {2}>() start = ReduceMax<keepdims = 0>(x, last)
        y, os = Scan<num_scan_inputs = 1, scan_input_axes = [2], body = b (float[N, 3] h, float[N, 3] v) =>
            (float[N, 3] n, float[N, 3] o) { t = Mul(h, s) n = Add(t, v) o = Identity(n) }>(start, x)
        """,
        "float[N, 3, 5] x",
    )

    def function(x: torch.Tensor) -> torch.Tensor:
        h = x.amax(2)
        for v in x.unbind(2):
            h = h * SCALES + v
        return h

    for one in (unrolled(model), model):
        agrees_with_torch(one, function, sample(model))


def test_a_body_whose_identities_were_eliminated_is_mended() -> None:
    """onnxruntime gives zeros where one value of a Scan's body is put out twice."""
    model = load(
        """
        y, os = Scan<num_scan_inputs = 1, body = b (float[3] h, float[3] v) => (float[3] n, float[3] o) {
            t = Mul(h, s) n = Add(t, v) o = Identity(n) }>(s, x)
        """,
        outputs="float[3] y, float[N, 3] os",
    )
    expected = run(model, x=sample(model))
    passes.IdentityEliminationPass()(model)
    body = model.graph.node("node_of_y").attributes["body"].as_graph()
    assert body.outputs[0] is body.outputs[1]
    assert unroll(model.graph) == 0
    for found, other in zip(run(model, x=sample(model)), expected, strict=True):
        np.testing.assert_array_equal(found, other)
