"""The proof at the end of an export catches faults, names the graph, and raises no false alarm."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto

from onnxplain.errors import VerificationError
from onnxplain_export import graphs
from onnxplain_export.bundle import write_graphs
from onnxplain_export.exporting import export
from onnxplain_export.normalize import normalize
from onnxplain_export.sources import read_source
from onnxplain_export.verify import verify
from onnxplain_export.verify.differences import along_the_gradient
from onnxplain_export.verify.proof import Proof
from onnxplain_export.vjp import STANDARD
from onnxplain_export.vjp.registry import Rule
from small_models import WEIGHTS, conv, head, model, node, random_weight

FLOAT = TensorProto.FLOAT
GRAPHS = ("forward", "gradient", "path", "noise", "masked")


def residual() -> onnx.ModelProto:
    """A residual block with a smooth and a kinked activation: two paths from the picture to the scores."""
    nodes = [
        conv(),
        node("Relu", ["c"], ["r"]),
        node("Conv", ["r", "w2"], ["d"], pads=[1] * 4),
        node("Sigmoid", ["d"], ["s"]),
        node("Mul", ["d", "s"], ["silu"]),
        node("Add", ["silu", "c"], ["sum"]),
        *head("sum"),
    ]
    return model(nodes, {"w2": random_weight(8, 8, 3, 3)})


def proved(
    folder: Path, rules: dict[str, Rule] | None = None, change: Callable[[dict[str, ir.Model]], None] | None = None
) -> dict:
    """The record of a bundle whose gradients were made by `rules`, and which was then changed."""
    normalized = normalize(read_source(residual()))
    made = {}
    for name in GRAPHS:
        make = graphs.GRAPHS[name]
        made[name] = make(normalized, rules) if rules and name in ("gradient", "path", "noise") else make(normalized)
    if change:
        change(made)
    write_graphs(folder, made)
    return verify(normalized, folder, made, [])


def test_a_right_bundle_is_proved(tmp_path: Path) -> None:
    record = proved(tmp_path)
    assert set(record) == {"forward", "batch", "gradient", "missing", "path", "noise", "masked"}
    assert all(entry["images"] >= 1 for entry in record.values())


def factor(op_type: str, value: float) -> dict[str, Rule]:
    """The rules, with one that is wrong by a factor."""
    right = STANDARD[op_type]

    def wrong(op, one, g):
        return [None if answer is None else op.Mul(answer, value) for answer in right.function(op, one, g)]

    return {**STANDARD, op_type: Rule(wrong, right.broadcasts, right.many_outputs)}


def without_branch(op, _, g):
    return [g, op.Mul(g, 0.0)]


@pytest.mark.parametrize(
    "rules",
    [
        factor("Gemm", -1.0),
        factor("Gemm", 1.05),
        factor("Relu", 1.05),
        factor("Conv", 1.05),
        factor("Sigmoid", -1.0),
        {**STANDARD, "Add": Rule(without_branch, broadcasts=True)},
        {**STANDARD, "Mul": Rule(lambda op, one, g: [op.Mul(g, one.inputs[1]), op.Mul(g, 0.0)], broadcasts=True)},
        {**STANDARD, "Relu": Rule(lambda _, one, g: [g for _ in one.inputs])},
        {**STANDARD, "Relu": Rule(lambda op, _, g: [op.Relu(g)])},
    ],
    ids=[
        "sign",
        "Gemm 5 %",
        "Relu 5 %",
        "Conv 5 %",
        "Sigmoid sign",
        "branch of Add",
        "branch of Mul",
        "no mask",
        "guided",
    ],
)
def test_a_wrong_rule_is_caught(rules: dict[str, Rule], tmp_path: Path) -> None:
    with pytest.raises(VerificationError, match=r"gradient"):
        proved(tmp_path, rules)


def test_altered_weights_are_caught_by_the_forward_check(tmp_path: Path) -> None:
    def change(made: dict[str, ir.Model]) -> None:
        for one in made.values():
            value = one.graph.initializers["w"]
            value.const_value = ir.tensor(value.const_value.numpy() * np.float32(1.0001), name="w")

    with pytest.raises(VerificationError, match="the exported scores differ from the source model's"):
        proved(tmp_path, change=change)


def swapped(graph: str, first: str, second: str) -> Callable[[dict[str, ir.Model]], None]:
    """Makes every reader of one operator's first result read another's: a fault in one graph alone."""

    def change(made: dict[str, ir.Model]) -> None:
        for one in made[graph].graph:
            if one.op_type == first and one.name and one.name.startswith("explainer/"):
                one.op_type = second
                return
        raise AssertionError(f"{graph} has no {first}")

    return change


@pytest.mark.parametrize(("graph", "first", "second"), [
    ("path", "Add", "Sub"),
    ("path", "Mul", "Add"),
    ("path", "Sub", "Add"),
    ("noise", "Div", "Mul"),
    ("noise", "Log", "Sqrt"),
    ("masked", "Sub", "Add"),
    ("masked", "LessOrEqual", "Less"),
    ("masked", "Less", "LessOrEqual"),
    ("masked", "Softmax", "LogSoftmax"),
    ("masked", "And", "Or"),
])  # fmt: skip
def test_a_fault_in_one_graph_is_caught_and_named(graph: str, first: str, second: str, tmp_path: Path) -> None:
    with pytest.raises(VerificationError, match=f"the graph '{graph}' disagrees"):
        proved(tmp_path, change=swapped(graph, first, second))


@pytest.mark.parametrize(("graph", "column"), [("path", 0), ("path", 1), ("noise", 0), ("noise", 1), ("noise", 2)])
def test_a_column_that_is_read_for_another_is_caught(graph: str, column: int, tmp_path: Path) -> None:
    def change(made: dict[str, ir.Model]) -> None:
        gathers = [one for one in made[graph].graph if one.op_type == "Gather" and one.inputs[0].name == "steps"]
        gathers[column].replace_input_with(1, gathers[(column + 1) % len(gathers)].inputs[1])

    with pytest.raises(VerificationError, match=f"the graph '{graph}' disagrees"):
        proved(tmp_path, change=change)


def test_a_nan_in_the_forward_pass_is_no_small_error(tmp_path: Path) -> None:
    nodes = [conv(), *head("c", "z"), node("Abs", ["z"], ["a"]), node("Neg", ["a"], ["n"]), node("Log", ["n"], ["y"])]
    with pytest.raises(VerificationError):
        export(model(nodes), tmp_path / "net.explain")


ACTIVATIONS = ("Relu", "Tanh", "Sigmoid", "Softplus", "Elu", "HardSigmoid", "Gelu")


def small_network(
    activation: str, shape: list[int], classes: int = 5, scale: float = 1.0, gain: float = 1.0, seed: int = 0
) -> onnx.ModelProto:
    """Two layers with one activation; the logits are times `scale`, the first weights times `gain`."""
    weights = {
        "w": gain * random_weight(8, shape[0], 3, 3, seed=seed),
        "b": WEIGHTS["b"],
        "w2": random_weight(8, 8, 3, 3, seed=seed),
        "fw": scale * random_weight(8, classes, seed=seed),
        "fb": scale * random_weight(classes, seed=seed),
    }
    nodes = [
        conv(),
        node(activation, ["c"], ["a"]),
        node("Conv", ["a", "w2"], ["d"]),
        node(activation, ["d"], ["e"]),
        *head("e"),
    ]
    if len(shape) == 1:
        weights = {"w": gain * random_weight(*shape, 8, seed=seed), "fw": weights["fw"], "fb": weights["fb"]}
        nodes = [
            node("MatMul", ["x", "w"], ["c"]),
            node(activation, ["c"], ["a"]),
            node("Gemm", ["a", "fw", "fb"], ["y"]),
        ]
    weights = {name: content.astype(np.float32) for name, content in weights.items()}
    return model(nodes, weights, inputs=[("x", FLOAT, ["N", *shape])], outputs=[("y", FLOAT, ["N", classes])])


CASES = {
    **{activation: (activation, [3, 16, 16], {}) for activation in ACTIVATIONS},
    **{f"table {activation}": (activation, [20], {}) for activation in ("Relu", "Tanh")},
    "grey": ("Relu", [1, 28, 28], {}),
    "one class": ("Relu", [3, 16, 16], {"classes": 1}),
    "tiny logits": ("Relu", [3, 16, 16], {"scale": 1e-6}),
    "huge logits": ("Relu", [3, 16, 16], {"scale": 1e4}),
    "saturated": ("Tanh", [3, 16, 16], {"gain": 30.0}),
    "saturated table": ("Sigmoid", [20], {"gain": 30.0}),
}


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", CASES)
def test_a_right_network_raises_no_alarm(name: str, seed: int, tmp_path: Path) -> None:
    activation, shape, options = CASES[name]
    normalized = normalize(read_source(small_network(activation, shape, seed=seed, **options)))
    made = {name: graphs.GRAPHS[name](normalized) for name in (GRAPHS if len(shape) == 3 else GRAPHS[:-1])}
    write_graphs(tmp_path, made)
    record = verify(normalized, tmp_path, made, [])
    assert record["gradient"]["images"] >= 1


class Crumpled(Proof):
    """A score Σ wᵢ|xᵢ − cᵢ| + Σ xᵢ whose kinks lie closer to the image than the shortest step."""

    factor = 1.0
    """What its gradient is wrong by."""

    def scores_at(self, values: np.ndarray, _images: np.ndarray) -> np.ndarray:
        return (self.weights * np.abs(values - self.kinks) + values).sum(axis=1, keepdims=True)

    def gradient_at(self, values: np.ndarray, _images: np.ndarray, _chosen: np.ndarray) -> np.ndarray:
        return self.factor * (self.weights * np.sign(values - self.kinks) + 1)[:, None]

    @property
    def weights(self) -> np.ndarray:
        return np.random.default_rng(1).uniform(0, 1, self.values.shape[1])

    @property
    def kinks(self) -> np.ndarray:
        return self.values[0] + np.random.default_rng(2).choice([-1e-8, 1e-8], self.values.shape[1])


@pytest.mark.parametrize(("wrong", "caught"), [(1.0, False), (1.05, True), (-1.0, True)])
def test_kinks_next_to_an_image_raise_no_alarm_and_hide_no_fault(wrong: float, caught: bool) -> None:
    values = np.random.default_rng(0).standard_normal((1, 400))
    normalized = SimpleNamespace(scores=SimpleNamespace(free=False), straight_through=False, half=None)
    chosen = np.zeros((1, 2), np.int64)
    kind = type("Wrong", (Crumpled,), {"factor": wrong})
    proof = kind(normalized, {}, {}, "x", {}, values, np.ones((1, 1)), chosen, np.zeros((1, 400)), np.ones(400))
    gradients = proof.gradient_at(values, np.arange(1), chosen)[:, 0]
    record = along_the_gradient(replace(proof, gradients=gradients), np.full(1, 1e-12))
    assert record["images"] == 1
    assert (record["error"] > record["tolerance"]) is caught
