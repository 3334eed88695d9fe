"""The graphs of a feature layer are proved before a bundle is called done, and a wrong one is caught."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from normalizing import normalized
from onnxplain_export.emitter import Emitter
from onnxplain_export.evaluate import run, session_of
from onnxplain_export.graphs.forward import forward
from onnxplain_export.graphs.gradient import gradient
from onnxplain_export.graphs.layer import layer as layer_graph
from onnxplain_export.graphs.tail import tail as tail_graph
from onnxplain_export.layers import named_layer
from onnxplain_export.normalize import Normalized
from onnxplain_export.verify.layers import layer_checks
from onnxplain_export.verify.proof import Proof, sample_feeds
from onnxplain_export.vjp import STANDARD
from onnxplain_export.vjp.registry import Rule
from small_models import conv, model, node, random_weight


def two_pools() -> onnx.ModelProto:
    """Mean and maximum over places side by side, behind a residual block."""
    nodes = [
        node("Conv", ["r", "w2"], ["d"], pads=[1] * 4),
        node("Add", ["d", "r"], ["sum"]),
        node("Relu", ["sum"], ["last"]),
        node("GlobalAveragePool", ["last"], ["mean"]),
        node("GlobalMaxPool", ["last"], ["most"]),
        node("Concat", ["mean", "most"], ["both"], axis=1),
        node("Flatten", ["both"], ["flat"]),
        node("Gemm", ["flat", "wide"], ["y"]),
    ]
    return model(
        [conv(), node("Relu", ["c"], ["r"]), *nodes], {"w2": random_weight(8, 8, 3, 3), "wide": random_weight(16, 5)}
    )


def proof_of(network: Normalized) -> Proof:
    """A proof of a network's forward and gradient graph, for what is proved against them."""
    sessions = {"forward": session_of(forward(network)), "gradient": session_of(gradient(network))}
    given = sample_feeds(network, [])
    scores = run(sessions["forward"], given, ["scores"])[0]
    chosen = np.array([[0, 3], [1, 1], [4, 2]])
    rows, values = np.zeros((0, *network.value_shape)), given[network.image]
    spread = np.ones(network.value_shape)
    return Proof(network, sessions, sessions, network.image, given, values, scores, chosen, rows, spread)


def checked(name: str, change: Callable[[ir.Model], ir.Model] = lambda made: made, graph: str = "layer") -> dict:
    """The record of a layer's graphs, one of which was changed."""
    network = normalized(two_pools())
    at = named_layer(network, name)
    made = {"layer": layer_graph(network, at), "tail": tail_graph(network, at)}
    made[graph] = change(made[graph])
    proof = proof_of(network)
    sessions = {**proof.sessions, **{one: session_of(model) for one, model in made.items()}}
    return dict(layer_checks(replace(proof, sessions=sessions), at, "layer", "tail"))


def scaled(output: str) -> Callable[[ir.Model], ir.Model]:
    """Makes an output of a graph a thousandth too large."""

    def change(made: ir.Model) -> ir.Model:
        made = ir.from_proto(ir.to_proto(made))
        old = next(value for value in made.graph.outputs if value.name == output)
        position = list(made.graph.outputs).index(old)
        old.name = f"wrong/{output}"
        new = Emitter(made.graph, "wrong").Mul(old, 1.001)
        new.name, new.shape, new.type = output, old.shape, old.type
        made.graph.outputs[position] = new
        return made

    return change


@pytest.mark.parametrize("name", ["last", "d", "x"])
def test_right_graphs_of_a_layer_are_proved(name: str) -> None:
    record = checked(name)
    assert set(record) == {"layer", "tail"}
    assert record["layer"]["slopes"] <= 5e-3
    for entry in record.values():
        assert entry["error"] <= entry["tolerance"] / 2
        assert entry["images"] == 3


@pytest.mark.parametrize(
    ("graph", "output"), [("layer", "layer_features"), ("layer", "total"), ("layer", "norm"), ("tail", "scores")]
)
def test_a_wrong_graph_of_a_layer_is_caught(graph: str, output: str) -> None:
    record = checked("last", scaled(output), graph)
    assert record[graph]["error"] > record[graph]["tolerance"]


def test_a_gradient_that_differs_from_the_slopes_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where both graphs that hold it agree: here both are twice what they should be at a pool."""
    rule = STANDARD["GlobalMaxPool"]

    def doubled(op: Emitter, node: ir.Node, g: ir.Value) -> list:
        return [op.Mul(answer, 2.0) for answer in rule.function(op, node, g)]

    monkeypatch.setitem(STANDARD, "GlobalMaxPool", Rule(doubled))
    record = checked("last")
    assert record["layer"]["error"] > record["layer"]["tolerance"] == 1e-2
