"""Operators newer than opset 20 are expanded or rewritten, with the same values and the right gradients."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import NodeProto, TensorProto, helper
from onnx.reference import ReferenceEvaluator

from expanded_models import Array, expanded, numbers, source, value_and_gradients
from onnxplain.errors import ModelError
from onnxplain_export.normalize.machine_learning import LOWERINGS
from onnxplain_export.normalize.opset import NEWEST, OPSET, runnable
from onnxplain_export.vjp import NO_GRADIENT, STANDARD
from onnxplain_export.vjp.registry import REFUSED
from rule_harness import KERNELS

node = helper.make_node

CONVERTED = {"Scatter": "ScatterElements", "Upsample": "Resize"}
"""Deprecated operators, and what they become."""
REWRITTEN = {"BitCast", "CumProd", "TensorScatter"}
"""Primitive operators of later opsets that are written in those of opset 20."""


def latest_schemas() -> Mapping[str, onnx.defs.OpSchema]:
    found: dict[str, onnx.defs.OpSchema] = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        name = f"{schema.domain}::{schema.name}" if schema.domain else schema.name
        if schema.domain in ("", "ai.onnx.ml") and (
            name not in found or schema.since_version > found[name].since_version
        ):
            found[name] = schema
    return found


def test_every_operator_of_onnx_is_accounted_for() -> None:
    """A rule, no gradient, a body of other operators, a form in opset 20, or a reason why not."""
    unknown = []
    for name, schema in latest_schemas().items():
        body = schema.has_function or schema.has_context_dependent_function
        if name in STANDARD or name in NO_GRADIENT or name in REFUSED or body:
            continue
        if schema.domain == "ai.onnx.ml" and schema.name in LOWERINGS:
            continue
        if name not in REWRITTEN and name not in CONVERTED:
            unknown.append(name)
    assert not unknown
    assert onnx.defs.onnx_opset_version() >= NEWEST


def test_nothing_is_accounted_for_twice() -> None:
    assert not set(STANDARD) & NO_GRADIENT
    assert not (REWRITTEN | set(CONVERTED)) & (set(STANDARD) | NO_GRADIENT | set(REFUSED))
    assert all(not onnx.defs.has(name, max_inclusive_version=OPSET) for name in REWRITTEN)


# Attention against torch


def attention_in_torch(case: Mapping[str, Any], q: Any, k: Any, v: Any, mask: Any = None) -> torch.Tensor:
    """Softmax of the capped and masked products, heads repeated for grouped queries."""
    flat = q.dim() == 3
    if flat:
        q, k, v = (
            t.reshape(*t.shape[:2], heads, -1).transpose(1, 2)
            for t, heads in ((q, case["q_num_heads"]), (k, case["kv_num_heads"]), (v, case["kv_num_heads"]))
        )
    k, v = (t.repeat_interleave(q.shape[1] // k.shape[1], 1) for t in (k, v))
    scores = q @ k.transpose(-1, -2) * case.get("scale", 1 / np.sqrt(q.shape[-1]))
    if "softcap" in case:
        scores = case["softcap"] * torch.tanh(scores / case["softcap"])
    if mask is not None:
        scores = scores + mask if mask.dtype == torch.float64 else scores.masked_fill(~mask, -torch.inf)
    if case.get("is_causal"):
        scores = scores.masked_fill(~torch.ones(scores.shape[-2:], dtype=torch.bool).tril(), -torch.inf)
    y = torch.softmax(scores, -1) @ v
    return y.transpose(1, 2).flatten(2) if flat else y


FOUR, OTHER = (2, 3, 5, 4), (2, 3, 6, 4)
SEEN = np.random.default_rng(0).random((5, 6)) > 0.3
SEEN[:, 0] = True
BIAS = numbers(2, 1, 5, 6)
ATTENTION: Mapping[str, tuple[Any, ...]] = {
    "plain": (FOUR, OTHER, OTHER, None, {}),
    "another scale": (FOUR, OTHER, OTHER, None, {"scale": 0.25}),
    "boolean mask": (FOUR, OTHER, OTHER, SEEN, {}),
    "float mask": (FOUR, OTHER, OTHER, BIAS, {}),
    "causal": (FOUR, OTHER, OTHER, None, {"is_causal": 1}),
    "causal with a mask": (FOUR, OTHER, OTHER, BIAS, {"is_causal": 1}),
    "softcap": (FOUR, OTHER, OTHER, None, {"softcap": 0.75}),
    "softcap with a mask": (FOUR, OTHER, OTHER, SEEN, {"softcap": 0.75}),
    "grouped queries": ((2, 4, 5, 4), (2, 2, 6, 4), (2, 2, 6, 4), None, {}),
    "one key head": ((2, 4, 5, 4), (2, 1, 6, 4), (2, 1, 6, 7), None, {}),
    "flat": ((2, 5, 12), (2, 6, 12), (2, 6, 12), None, {"q_num_heads": 3, "kv_num_heads": 3}),
    "flat, grouped": ((2, 5, 16), (2, 6, 8), (2, 6, 8), None, {"q_num_heads": 4, "kv_num_heads": 2}),
}


@pytest.mark.parametrize("opset", [23, 24, 25])
@pytest.mark.parametrize("name", ATTENTION)
def test_attention_equals_torch(name: str, opset: int) -> None:
    *shapes, mask, case = ATTENTION[name]
    feeds = {key: numbers(*shape, seed=k) for k, (key, shape) in enumerate(zip("qkv", shapes, strict=True))}
    feeds |= {} if mask is None else {"mask": mask}
    proto = source([node("Attention", list(feeds), ["y"], **case)], feeds, opset)
    leaves = {key: torch.tensor(x, requires_grad=x.dtype == np.float64) for key, x in feeds.items()}
    y = attention_in_torch(case, *leaves.values())
    u = numbers(*y.shape, seed=9)
    wrt = [key for key, leaf in leaves.items() if leaf.requires_grad]
    value, gradients = value_and_gradients(proto, feeds, wrt, u)
    np.testing.assert_allclose(value, y.detach(), rtol=0, atol=1e-7)  # float32's square root of the scale
    for found, expected in zip(
        gradients, torch.autograd.grad(y, [leaves[key] for key in wrt], torch.tensor(u)), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-7)


# The others against onnx's own evaluator and differences


def uses() -> Mapping[str, tuple[NodeProto, dict[str, Array], int, dict[str, Array]]]:
    """Name → node, inputs that are differentiated, opset, constants."""
    x = numbers(3, 4, 5)
    row = {"a": x, "b": numbers(3, 4, 5, seed=1)}
    divided = {"a": 3 * x, "b": np.sign(row["b"]) * (1 + np.abs(row["b"]))}
    with_zeros = np.where(np.arange(60).reshape(3, 4, 5) % 7 == 0, 0.0, x)
    conv = {"x": numbers(2, 3, 7), "w": numbers(3, 1, 4), "b": numbers(3)}
    past = {"q": numbers(2, 3, 5, 4), "k": numbers(2, 3, 4, 4), "v": numbers(2, 3, 4, 4, seed=1)}
    past |= {"pk": numbers(2, 3, 2, 4), "pv": numbers(2, 3, 2, 4, seed=1)}
    cache = {"past": numbers(2, 6, 4), "new": numbers(2, 3, 4)}
    found = {
        "Swish": (node("Swish", ["a"], ["y"], alpha=1.25), {"a": x}, 24, {}),
        "SwiGLU": (node("SwiGLU", ["a", "b"], ["y"], alpha=1.25), row, 28, {}),
        "RMSNormalization": (node("RMSNormalization", ["a", "s"], ["y"]), {"a": x, "s": numbers(5)}, 23, {}),
        "RMSNormalization over two axes": (
            node("RMSNormalization", ["a", "s"], ["y"], axis=1, epsilon=0.125), {"a": x, "s": numbers(4, 5)}, 23, {}
        ),
        "GroupNormalization by channels": (
            node("GroupNormalization", ["x", "s", "b"], ["y"], num_groups=2),
            {"x": numbers(2, 4, 3, 3), "s": numbers(4), "b": numbers(4, seed=1)}, 21, {},
        ),
        "Mod of floats": (node("Mod", ["a", "b"], ["y"]), divided, 28, {}),
        "SpaceToDepth by columns": (
            node("SpaceToDepth", ["x"], ["y"], mode="CRD", blocksize=2), {"x": numbers(2, 3, 4, 6)}, 28, {}
        ),
        "CausalConvWithState": (node("CausalConvWithState", ["x", "w", "b"], ["y", "s"]), conv, 27, {}),
        "CausalConvWithState with Swish": (
            node("CausalConvWithState", ["x", "w", "b"], ["y", "s"], activation="silu"), conv, 27, {}
        ),
        "CausalConvWithState without a bias": (
            node("CausalConvWithState", ["x", "w", "", "p"], ["y", "s"]),
            {"x": conv["x"], "w": conv["w"], "p": numbers(2, 3, 3)}, 27, {},
        ),
        "Attention with a past and no mask": (
            node("Attention", ["q", "k", "v", "", "pk", "pv"], ["y", "nk", "nv"], is_causal=1), past, 24, {}
        ),
        "Attention with a padded cache": (
            node("Attention", ["q", "k", "v", "", "", "", "n"], ["y"]),
            {key: past[key] for key in "qkv"}, 24, {"n": np.array([2, 4])},
        ),
        "Attention in a window": (
            node("Attention", ["q", "k", "v"], ["y"], is_causal=1, left_window_size=2),
            {key: past[key] for key in "qkv"}, 25, {},
        ),
        "TensorScatter": (node("TensorScatter", ["past", "new"], ["y"]), cache, 24, {}),
        "TensorScatter from places": (
            node("TensorScatter", ["past", "new", "at"], ["y"], axis=1), cache, 24, {"at": np.array([1, 3])}
        ),
        "TensorScatter around the end": (
            node("TensorScatter", ["past", "new", "at"], ["y"], axis=-2, mode="circular"), cache, 24,
            {"at": np.array([1, 5])},
        ),
        "CumProd of zeros": (node("CumProd", ["x", "axis"], ["y"]), {"x": with_zeros}, 26, {"axis": np.array(1)}),
    }  # fmt: skip
    return {**found, **turned_both_ways(x), **linear_attentions()}


def turned_both_ways(x: Array) -> Mapping[str, tuple[NodeProto, dict[str, Array], int, dict[str, Array]]]:
    """Embeddings in halves or interleaved, products forwards or backwards."""
    rotated = {"x": numbers(2, 3, 4, 8), "cos": numbers(2, 4, 4), "sin": numbers(2, 4, 4, seed=1)}
    tables = {"x": rotated["x"], "cos": numbers(9, 4), "sin": numbers(9, 4, seed=1)}
    places = {"places": np.array([[0, 3, 2, 8], [1, 2, 3, 4]])}
    flat = {"x": numbers(2, 4, 24), "cos": rotated["cos"], "sin": rotated["sin"]}
    part = {"x": rotated["x"], "cos": numbers(2, 4, 2), "sin": numbers(2, 4, 2, seed=1)}
    found = {}
    for turned in (0, 1):
        found |= {
            f"RotaryEmbedding {turned}": (
                node("RotaryEmbedding", list(rotated), ["y"], interleaved=turned), rotated, 23, {}
            ),
            f"RotaryEmbedding by places {turned}": (
                node("RotaryEmbedding", [*tables, "places"], ["y"], interleaved=turned), tables, 23, places
            ),
            f"RotaryEmbedding of flat heads {turned}": (
                node("RotaryEmbedding", list(flat), ["y"], interleaved=turned, num_heads=3), flat, 23, {}
            ),
            f"RotaryEmbedding of a part {turned}": (
                node("RotaryEmbedding", list(part), ["y"], interleaved=turned, rotary_embedding_dim=4), part, 23, {}
            ),
        }  # fmt: skip
        for exclusive in (0, 1):
            for axis in (0, 1, -1):
                product = node("CumProd", ["x", "axis"], ["y"], reverse=turned, exclusive=exclusive)
                found[f"CumProd {turned} {exclusive} {axis}"] = (product, {"x": x}, 26, {"axis": np.array(axis)})
    return found


def linear_attentions() -> Mapping[str, tuple[NodeProto, dict[str, Array], int, dict[str, Array]]]:
    found = {}
    packed = {"q": numbers(2, 4, 6), "k": numbers(2, 4, 6, seed=1), "v": numbers(2, 4, 10, seed=2)}
    optional = {"past": 0.3 * numbers(2, 2, 3, 5), "decay": -np.abs(numbers(2, 4, 2)), "beta": 0.5 * numbers(2, 4, 2)}
    for rule, more in (("linear", ""), ("gated", "decay"), ("delta", "beta"), ("gated_delta", "decay beta")):
        for given in (more.split(), ["past", *more.split()]):
            names = [*packed, *(name if name in given else "" for name in optional)]
            while not names[-1]:
                names.pop()
            made = node("LinearAttention", names, ["y", "s"], q_num_heads=2, kv_num_heads=2, update_rule=rule)
            feeds = {**packed, **{name: optional[name] for name in given}}
            found[f"LinearAttention {rule} {' '.join(given)}"] = (made, feeds, 27, {})
    return found


USES = uses()


@pytest.mark.parametrize("name", USES)
def test_expansion(name: str) -> None:
    """Values as onnx's own evaluator has them, gradients as central differences of the expansion."""
    one, feeds, opset, weights = USES[name]
    proto = source([one], feeds, opset, weights=weights)
    truth = ReferenceEvaluator(proto).run(None, feeds)[0]
    u = numbers(*truth.shape, seed=9)
    value, gradients = value_and_gradients(proto, feeds, list(feeds), u)
    np.testing.assert_allclose(value, truth, rtol=0, atol=2e-6)  # bodies compute in float32, the expansion here doesn't
    model = expanded(proto)
    assert model.opset_imports == {"": OPSET}
    assert all(onnx.defs.has(held.op_type, max_inclusive_version=OPSET) for held in model.graph.all_nodes())
    evaluator = ReferenceEvaluator(ir.to_proto(model), new_ops=KERNELS)
    for key, gradient in zip(feeds, gradients, strict=True):
        v = numbers(*feeds[key].shape, seed=4)
        up, down = (evaluator.run(None, {**feeds, key: feeds[key] + h * v})[0] for h in (1e-5, -1e-5))
        expected = ((up - down) * u).sum() / 2e-5
        assert abs((gradient * v).sum() - expected) <= 1e-7 * max(np.linalg.norm(gradient), abs(expected)), key


def one_of(kind: int, op_type: str, **attributes: Any) -> onnx.ModelProto:
    made = node(op_type, ["x"] if op_type == "BitCast" else ["x", "x"], ["y"], name="here", **attributes)
    inputs = [helper.make_tensor_value_info("x", kind, [3])]
    graph = helper.make_graph([made], "one", inputs, [helper.make_tensor_value_info("y", kind, None)])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 28)], ir_version=10)


REFUSALS: Mapping[str, Callable[[], onnx.ModelProto]] = {
    r"BitCast \(node 'here'\) reads the bits": lambda: one_of(TensorProto.FLOAT, "BitCast", to=TensorProto.INT32),
    r"BitShift \(node 'here'\) of signed": lambda: one_of(TensorProto.INT32, "BitShift", direction="LEFT"),
}


@pytest.mark.parametrize("message", REFUSALS)
def test_what_opset_20_cannot_say_is_refused_by_node(message: str) -> None:
    with pytest.raises(ModelError, match=message):
        expanded(REFUSALS[message]())


def test_bits_of_a_constant_are_read_at_export() -> None:
    nodes = [node("BitCast", ["bits"], ["f"], to=TensorProto.FLOAT), node("Cast", ["f"], ["d"], to=11)]
    bits = np.array([0x3F800000, 0x40490FDB], np.int32)
    proto = source([*nodes, node("Mul", ["x", "d"], ["y"])], {"x": numbers(2)}, 26, weights={"bits": bits})
    u = np.ones(2)
    _, (found,) = value_and_gradients(proto, {"x": numbers(2)}, ["x"], u)
    np.testing.assert_allclose(found, [1, np.pi], rtol=1e-7)


def test_opsets_that_onnxruntime_does_not_run_are_lowered_for_it() -> None:
    feeds = {"a": numbers(2, 3), "b": numbers(2, 3, seed=1)}
    newer = ir.from_proto(source([node("SwiGLU", ["a", "b"], ["y"])], feeds, 28))
    assert runnable(newer).opset_imports[""] == OPSET
    older = ir.from_proto(source([node("Swish", ["a"], ["y"])], {"a": feeds["a"]}, 26))
    assert runnable(older) is older
