"""Facts about the walk itself, on graphs of a few nodes; the rules have their own harness."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import parser
from onnx.reference import ReferenceEvaluator

from onnxplain.errors import NoGradientError
from onnxplain_export.autodiff import active_values, blocking_nodes, differentiate
from onnxplain_export.emitter import Emitter
from onnxplain_export.vjp import STANDARD, Rule

RNG = np.random.default_rng(5)
RULES = {name: rule for name, rule in STANDARD.items() if name != "Det"}
"""Some facts here are about an operator without a rule: Det plays it."""


def load(body: str, inputs: str = "double[N, 3] x", outputs: str = "double[N, 3] y") -> ir.Model:
    """A model from the text of its nodes, shapes inferred and each node named after its first output."""
    text = f'<ir_version: 10, opset_import: ["" : 20]> g ({inputs}) => ({outputs}) {{ {body} }}'
    model = parser.parse_model(text)
    for node in model.graph.node:
        node.name = f"node_of_{node.output[0]}"
    return ir.from_proto(onnx.shape_inference.infer_shapes(model, data_prop=True))


def values(model: ir.Model) -> dict[str | None, ir.Value]:
    computed = [output for node in model.graph for output in node.outputs]
    return {value.name: value for value in [*model.graph.inputs, *computed]}


def walk(model: ir.Model, wrt: list[str], of: str = "y", rules=RULES) -> list[ir.Value]:
    """Appends the gradients, with `u` as the cotangent."""
    known = values(model)
    u = ir.val("u", dtype=known[of].dtype, shape=known[of].shape)
    model.graph.inputs.append(u)
    return differentiate(model.graph, known[of], [known[name] for name in wrt], u, rules)


def run(model: ir.Model, wrt: list[str], feeds: dict[str, np.ndarray], of: str = "y") -> list[np.ndarray]:
    found = walk(model, wrt, of)
    model.graph.outputs.clear()
    for i, value in enumerate(found):
        node = ir.node("Identity", [value])
        node.outputs[0].name, node.outputs[0].dtype = f"gradient_{i}", ir.DataType.DOUBLE
        model.graph.append(node)
        model.graph.outputs.append(node.outputs[0])
    return ReferenceEvaluator(ir.to_proto(model)).run(None, feeds)


def feeds(*names: str) -> dict[str, np.ndarray]:
    return {name: RNG.uniform(0.5, 2.0, (2, 3)) for name in names}


def test_a_value_used_twice_gets_the_sum():
    given = feeds("x", "u")
    (found,) = run(load("a = Exp(x) b = Sin(x) y = Mul(a, b)"), ["x"], given)
    x = given["x"]
    np.testing.assert_allclose(found, given["u"] * np.exp(x) * (np.sin(x) + np.cos(x)))


def test_a_value_used_twice_by_one_node_gets_the_sum():
    given = feeds("x", "u")
    (found,) = run(load("y = Mul(x, x)"), ["x"], given)
    np.testing.assert_allclose(found, 2 * given["u"] * given["x"])


def test_a_value_of_three_readers_gets_the_sum():
    given = feeds("x", "u")
    (found,) = run(load("a = Neg(x) b = Add(a, x) c = Mul(b, x) y = Sub(c, x)"), ["x"], given)
    np.testing.assert_allclose(found, -given["u"])


def test_what_was_broadcast_is_summed_over_a_free_batch():
    given = {**feeds("x", "u"), "b": RNG.normal(size=3), "s": RNG.normal(size=(1, 1)), "c": RNG.normal(size=(2, 1))}
    model = load(
        "p = Mul(x, b) q = Mul(p, s) y = Mul(q, c)", "double[N, 3] x, double[3] b, double[1, 1] s, double[N, 1] c"
    )
    found = run(model, ["x", "b", "s", "c"], given)
    x, b, s, c, u = (given[name] for name in "xbscu")
    np.testing.assert_allclose(found[0], u * b * s * c)
    np.testing.assert_allclose(found[1], (u * x * s * c).sum(0))
    np.testing.assert_allclose(found[2], (u * x * b * c).sum(keepdims=True))
    np.testing.assert_allclose(found[3], (u * x * b * s).sum(1, keepdims=True))


def test_equal_shapes_with_a_free_batch_need_no_shape_arithmetic():
    model = load("a = Add(x, z) y = Mul(a, z)", "double[N, 3] x, double[N, 3] z")
    walk(model, ["x", "z"])
    assert {node.op_type for node in model.graph} == {"Add", "Mul"}


def test_the_gradient_of_an_intermediate_value_stops_there():
    model = load(
        "d = Det(x) e = Expand(d, shape) y = Mul(e, z)", "double[3, 3] x, int64[1] shape, double[3] z", "double[3] y"
    )
    given = {"x": RNG.normal(size=(3, 3)), "shape": np.array([3]), "z": RNG.normal(size=3), "u": RNG.normal(size=3)}
    (found,) = run(model, ["e"], given)
    np.testing.assert_allclose(found, given["u"] * given["z"])


def test_input_and_intermediate_value_at_once():
    given = feeds("x", "u")
    first, second = run(load("a = Exp(x) y = Mul(a, x)"), ["x", "a"], given)
    np.testing.assert_allclose(second, given["u"] * given["x"])
    np.testing.assert_allclose(first, given["u"] * np.exp(given["x"]) * (1 + given["x"]))


def test_the_gradient_of_the_output_itself_is_the_cotangent():
    given = feeds("x", "u")
    (found,) = run(load("y = Exp(x)"), ["y"], given)
    np.testing.assert_array_equal(found, given["u"])


def test_operators_off_the_path_need_no_rule():
    model = load("d = Det(w) y = Mul(x, d)", "double[N, 3] x, double[3, 3] w")
    given = {**feeds("x", "u"), "w": RNG.normal(size=(3, 3))}
    (found,) = run(model, ["x"], given)
    np.testing.assert_allclose(found, given["u"] * np.linalg.det(given["w"]))


def test_a_missing_rule_names_operator_and_node():
    with pytest.raises(NoGradientError, match=r"no derivative rule for Det \(node 'node_of_d', output 'd'\)"):
        walk(load("d = Det(x) y = Exp(d)", "double[3, 3] x", "double y"), ["x"])


def test_a_missing_rule_names_the_domain():
    model = load("d = Exp(x) y = Neg(d)")
    next(iter(model.graph)).domain = "com.example"
    with pytest.raises(NoGradientError, match=r"com\.example::Exp"):
        walk(model, ["x"])


@pytest.mark.parametrize(
    "body",
    [
        "y = Floor(x)",
        "a = Exp(x) b = Round(a) y = Neg(b)",
        "a = Cast<to = 7>(x) y = Cast<to = 11>(a)",
        "c = Greater(x, x) y = Where(c, z, z)",
    ],
)
def test_a_gradient_that_is_zero_by_structure_is_an_error(body):
    with pytest.raises(NoGradientError, match="zero everywhere"):
        walk(load(body, "double[N, 3] x, double[N, 3] z"), ["x"])


def test_a_value_that_the_output_does_not_depend_on_is_an_error():
    with pytest.raises(NoGradientError, match=r"'z'.* zero everywhere"):
        walk(load("a = Exp(z) y = Exp(x)", "double[N, 3] x, double[N, 3] z"), ["x", "z"])


def test_a_blocked_path_beside_an_open_one_adds_nothing():
    given = feeds("x", "u")
    (found,) = run(load("a = Floor(x) y = Mul(a, x)"), ["x"], given)
    np.testing.assert_allclose(found, given["u"] * np.floor(given["x"]))


def test_an_input_that_matters_but_has_no_answer_is_an_error():
    rules = {**STANDARD, "Mul": Rule(lambda op, node, g: (op.Mul(g, node.inputs[1]), None))}
    model = load("y = Mul(x, z)", "double[N, 3] x, double[N, 3] z")
    with pytest.raises(NoGradientError, match=r"Mul \(node 'node_of_y'.*with respect to its input 1"):
        walk(model, ["x", "z"], rules=rules)


def test_a_rule_may_skip_an_input_that_does_not_matter():
    rules = {**STANDARD, "Mul": Rule(lambda op, node, g: (op.Mul(g, node.inputs[1]), None))}
    walk(load("y = Mul(x, z)", "double[N, 3] x, double[N, 3] z"), ["x"], rules=rules)


@pytest.mark.parametrize("answers", [0, 1, 3])
def test_a_rule_with_a_wrong_number_of_answers_is_an_error(answers):
    rules = {**STANDARD, "Mul": Rule(lambda op, node, g: (g,) * answers)}
    with pytest.raises(NoGradientError, match=rf"Mul \(node 'node_of_y'.* gave {answers} answers for 2 inputs"):
        walk(load("y = Mul(x, x)"), ["x"], rules=rules)


def test_a_cotangent_of_a_second_output_is_never_dropped():
    model = load("n, m = LayerNormalization(x, s) c = Cast<to = 11>(m) y = Mul(n, c)", "double[N, 3] x, double[3] s")
    with pytest.raises(NoGradientError, match=r"LayerNormalization .* first output only"):
        walk(model, ["x"])


def test_blocking_nodes_lists_what_lacks_a_rule_on_the_path_only():
    model = load(
        "e = Exp(x) d = Det(e) w = Det(z) s = Add(d, w) y = Neg(s)", "double[3, 3] x, double[3, 3] z", "double y"
    )
    known = values(model)
    assert [node.name for node in blocking_nodes(model.graph, known["y"], [known["x"]], RULES)] == ["node_of_d"]
    assert blocking_nodes(model.graph, known["y"], [known["e"], known["d"]], RULES) != []
    assert blocking_nodes(model.graph, known["y"], [known["s"]], RULES) == []


def test_active_values_lie_between_both_ends():
    model = load("a = Exp(x) b = Neg(a) c = Neg(a) y = Mul(b, z)", "double[N, 3] x, double[N, 3] z")
    known = values(model)
    names = {value.name for value in active_values(list(model.graph), known["y"], [known["x"]])}
    assert names == {"x", "a", "b", "y"}


# The emitter.


def test_an_unknown_operator_or_attribute_is_named_with_the_nearest_one():
    op = Emitter(load("y = Exp(x)").graph, "p")
    with pytest.raises(AttributeError, match="did you mean 'Softmax'"):
        op.Sofmax(1.0)
    with pytest.raises(TypeError, match="did you mean 'axis'"):
        op.Softmax(1.0, axes=1)


def test_equal_constants_are_stored_once_but_shapes_and_types_stay_apart():
    op = Emitter(load("y = Exp(x)").graph, "p", ir.DataType.DOUBLE)
    assert op.floats(1.0) is op.floats(1.0)
    assert op.floats([1.0]) is not op.floats(1.0)
    assert op.constant(1.0, np.float32) is not op.floats(1.0)
    assert op.floats(0.0) is not op.floats(-0.0)
    assert op.floats(1.0).const_value.numpy().shape == ()
