"""Layer-wise relevance propagation: each rule is its formula, nothing gets lost, and what has no rule is refused."""

import functools
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from onnx import NodeProto
from torch import nn

import small_models
from onnxplain.errors import NoGradientError
from onnxplain_export.graphs.gradient import gradient
from onnxplain_export.graphs.relevance import relevance
from onnxplain_export.normalize import Normalized, normalize
from onnxplain_export.sources import read_source
from onnxplain_export.tables import COMPOSITES, layers
from onnxplain_export.tables.layers import Ledger
from onnxplain_export.tables.relevance import EPSILON, EPSILON_PLUS
from small_models import conv, head, model, node
from table_cases import CASES, Between
from table_networks import NETWORKS, images, network, normalized, outputs, relative, targets

PARAMETERS = {"epsilon": 0.05, "gamma": 0.4, "alpha": 1.7}
Dense = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def parameters(composite: str, found: Normalized, low: float = -4.0, high: float = 5.0) -> dict[str, np.ndarray]:
    """Numbers other than the defaults, and bounds of the image."""
    ends = {"low": low, "high": high}
    return {
        name: np.full(1, PARAMETERS[name], np.float32)
        if name in PARAMETERS
        else np.full([1] * (1 + len(found.value_shape)), ends[name], np.float32)
        for name in COMPOSITES[composite].parameters
    }


# A dense account of each rule: the matrix w [outputs, inputs] of a layer, its bias, its input, its outputs' relevance.


def by_epsilon(w: np.ndarray, b: np.ndarray, x: np.ndarray, r: np.ndarray) -> np.ndarray:
    y = w @ x + b
    return (w * x).T @ (r / (y + PARAMETERS["epsilon"] * np.where(y < 0, -1, 1)))


def by_positive(w: np.ndarray, b: np.ndarray, x: np.ndarray, r: np.ndarray) -> np.ndarray:
    c = np.maximum(w * x, 0)
    return c.T @ (r / (c.sum(1) + np.maximum(b, 0)))


def by_alpha_beta(w: np.ndarray, b: np.ndarray, x: np.ndarray, r: np.ndarray) -> np.ndarray:
    c = np.minimum(w * x, 0)
    total = c.sum(1) + np.minimum(b, 0)
    negative = c.T @ np.divide(r, total, out=np.zeros_like(r), where=total < 0)
    return PARAMETERS["alpha"] * by_positive(w, b, x, r) - (PARAMETERS["alpha"] - 1) * negative


def by_gamma(w: np.ndarray, b: np.ndarray, x: np.ndarray, r: np.ndarray) -> np.ndarray:
    found = np.zeros_like(x)
    for row, bias, relevance_of in zip(w, b, r, strict=True):
        chosen = np.maximum if row @ x + bias >= 0 else np.minimum
        c = row * x + PARAMETERS["gamma"] * chosen(row * x, 0)
        found += c / (c.sum() + bias + PARAMETERS["gamma"] * chosen(bias, 0)) * relevance_of
    return found


def by_flat(w: np.ndarray, b: np.ndarray, x: np.ndarray, r: np.ndarray) -> np.ndarray:  # noqa: ARG001
    reads = (w != 0).astype(np.float64)
    return reads.T @ (r / reads.sum(1))


def by_box(low: np.ndarray, high: np.ndarray) -> Dense:
    def rule(w: np.ndarray, b: np.ndarray, x: np.ndarray, r: np.ndarray) -> np.ndarray:  # noqa: ARG001
        c = w * x - np.maximum(w, 0) * low - np.minimum(w, 0) * high
        return c.T @ (r / c.sum(1))

    return rule


def ends(size: int) -> tuple[np.ndarray, np.ndarray]:
    return np.full(size, -4.0), np.full(size, 5.0)


RULES: dict[str, tuple[Dense, Dense, Dense]] = {
    "epsilon": (by_epsilon, by_epsilon, by_epsilon),
    "epsilon_plus": (by_positive, by_positive, by_epsilon),
    "epsilon_plus_flat": (by_flat, by_positive, by_epsilon),
    "gamma": (by_gamma, by_gamma, by_gamma),
    "epsilon_gamma_box": (by_box(*ends(3 * 7 * 9)), by_gamma, by_epsilon),
    "alpha_beta": (by_alpha_beta, by_alpha_beta, by_alpha_beta),
    "epsilon_alpha2_beta1": (by_alpha_beta, by_alpha_beta, by_epsilon),
    "epsilon_alpha2_beta1_flat": (by_flat, by_alpha_beta, by_epsilon),
}
"""The rules of the first layer, of convolutions and of dense layers."""


def signed(first: nn.Module | None = None) -> nn.Sequential:
    """A network whose layers read numbers of both signs, and whose negative sums have relevance."""
    torch.manual_seed(1)
    parts = [nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.Tanh(), nn.Conv2d(4, 6, 2, groups=2), nn.LeakyReLU(0.3)]
    parts += [nn.Flatten(), nn.Linear(6 * 3 * 4, 7), nn.Tanh(), nn.Linear(7, 5)]
    return nn.Sequential(*([first] if first else []), *parts).eval()


@functools.cache
def signed_network() -> tuple[nn.Sequential, Normalized]:
    net = signed()
    return net, normalize(read_source(net, torch.zeros(1, 3, 7, 9)))


def account(net: nn.Sequential, x: np.ndarray, target: int, rules: tuple[Dense, Dense, Dense]) -> np.ndarray:
    """The relevance of one image in float64, each layer as the matrix that its Jacobian is."""
    first, convolution, dense = rules
    steps, value = [], torch.tensor(x[None], dtype=torch.float64)
    for part in net.double():
        steps.append((part, value))
        value = part(value).detach()
    relevances = np.zeros(5)
    relevances[target] = float(value[0, target])
    for index, (part, given) in reversed(list(enumerate(steps))):
        if isinstance(part, nn.Conv2d | nn.Linear):
            zero = torch.zeros_like(given)
            w = torch.autograd.functional.jacobian(part, zero).reshape(relevances.size, -1).numpy()
            b = part(zero).detach().numpy().ravel()
            rule = first if index == 0 else convolution if isinstance(part, nn.Conv2d) else dense
            relevances = rule(w, b, given.numpy().ravel(), relevances.ravel())
    net.float()
    return relevances.reshape(x.shape)


@pytest.mark.parametrize("name", COMPOSITES)
def test_every_rule_is_its_formula(name: str) -> None:
    (net, found), x, target = signed_network(), small_models.images(3, 7, 9), targets(3)
    feeds = {found.image: x, "target": target, **parameters(name, found)}
    total = outputs(relevance(found, COMPOSITES[name]), feeds)["total"][:, 0]
    truth = np.stack([account(net, image, t, RULES[name]) for image, (t,) in zip(x, target, strict=True)])
    assert relative(total, truth) < 2e-5


def test_the_box_moves_with_a_normalisation_before_the_first_layer() -> None:
    class Normalise(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x - torch.tensor([0.4, 0.5, 0.6])[:, None, None]) / torch.tensor([0.2, -0.3, 0.25])[:, None, None]

    net, x, target = signed(Normalise()), small_models.images(3, 7, 9), targets(3)
    found = normalize(read_source(net, torch.zeros(1, 3, 7, 9)))
    feeds = {found.image: x, "target": target, **parameters("epsilon_gamma_box", found)}
    total = outputs(relevance(found, COMPOSITES["epsilon_gamma_box"]), feeds)["total"][:, 0]
    both = [Normalise()(torch.full((3, 7, 9), end)).numpy().ravel() for end in (-4.0, 5.0)]
    rules = (by_box(np.minimum(*both), np.maximum(*both)), *RULES["epsilon_gamma_box"][1:])
    moved = Normalise()(torch.tensor(x)).numpy()
    truth = np.stack([account(net[1:], image, t, rules) for image, (t,) in zip(moved, target, strict=True)])
    assert relative(total, truth) < 2e-5


@pytest.mark.parametrize("name", COMPOSITES)
@pytest.mark.parametrize("kind", NETWORKS)
def test_a_batch_is_its_images_alone_and_targets_are_too(kind: str, name: str) -> None:
    found, x = normalized(kind), images(kind)
    both = np.concatenate([targets(), (targets() + 1) % 5], axis=1)
    given = parameters(name, found)
    graph = relevance(found, COMPOSITES[name], audit=True)
    together = outputs(graph, {found.image: x, "target": both, **given})
    assert np.isfinite(together["total"]).all()
    for index in (0, 6):
        one = slice(index, index + 1)
        alone = outputs(graph, {found.image: x[one], "target": both[one, 1:], **given})["total"][0, 0]
        np.testing.assert_allclose(together["total"][index, 1], alone, rtol=0, atol=2e-5 * np.abs(alone).max())
    scores = network(kind)(torch.tensor(x)).detach().numpy()
    kept = np.take_along_axis(scores, both, 1) - together["total"].reshape(*both.shape, -1).sum(-1)
    np.testing.assert_allclose(kept, together["kept"], atol=1e-4 * np.abs(together["total"]).sum(-1).max())


@functools.cache
def case(name: str) -> Normalized:
    return normalize(read_source(CASES[name].model()))


def of_case(name: str, epsilon: float = 1e-12, composite: str = "epsilon") -> dict[str, np.ndarray]:
    """The outputs of a case's relevance graph."""
    found = case(name)
    given = {**parameters(composite, found), "epsilon": np.full(1, epsilon, np.float32)}
    feeds = {found.image: small_models.images(3, 16, 16), "target": targets(3), **given}
    return outputs(relevance(found, COMPOSITES[composite], audit=True), feeds)


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name].linear])
def test_without_epsilon_a_piecewise_linear_network_has_gradient_times_input(name: str) -> None:
    """Shrikumar et al. 2016 (arXiv:1605.01713): an account of every such operator that knows no rule of relevance."""
    x = small_models.images(3, 16, 16)
    plain = outputs(gradient(case(name)), {case(name).image: x, "target": targets(3)})["total"]
    assert relative(of_case(name)["total"], plain * x[:, None]) < 1e-3


@pytest.mark.parametrize("composite", ["epsilon", "epsilon_gamma_box"])
@pytest.mark.parametrize("name", CASES)
def test_what_arrives_and_what_is_kept_is_the_score(name: str, composite: str) -> None:
    found = of_case(name, 1e-6, composite)
    scores = small_models.run(CASES[name].model(), {"x": small_models.images(3, 16, 16)})
    missing = np.take_along_axis(scores, targets(3), 1) - found["kept"] - found["total"].reshape(3, 1, -1).sum(-1)
    assert np.abs(missing).max() <= 1e-4 * np.abs(found["total"]).reshape(3, -1).sum(1).max()


def test_every_operator_of_the_tables_has_a_case() -> None:
    tried = {one.op_type for name in CASES for one in [*CASES[name].nodes, *head("m"), conv()]}
    for composite in COMPOSITES.values():
        table = composite.table({}, Ledger())
        assert set(table) - tried == set()


def test_a_wrong_rule_is_seen_by_what_is_kept() -> None:
    wrong = replace(EPSILON, dense=lambda layer: layer.op.Mul(layers.epsilon(layer), 1.01))
    found, x = normalized("dense"), images("dense")
    feeds = {found.image: x, "target": targets(), "epsilon": np.full(1, 1e-6, np.float32)}
    scores = network("dense")(torch.tensor(x)).detach().numpy()
    errors = []
    for composite in (EPSILON, wrong):
        got = outputs(relevance(found, composite, audit=True), feeds)
        missing = np.take_along_axis(scores, targets(), 1) - got["kept"] - got["total"].sum(-1)
        errors.append(float(np.abs(missing).max()))
    assert errors[0] < 1e-5
    assert errors[1] > 1e-3


def between(*nodes: NodeProto, **weights: np.ndarray) -> Normalized:
    return normalize(read_source(Between(list(nodes), weights).model()))


@pytest.mark.parametrize(
    ("nodes", "named"),
    [
        ([node("Softmax", ["c"], ["m"], axis=1, name="inner_softmax")], "inner_softmax"),
        ([node("MatMul", ["c", "c"], ["m"], name="attention")], "attention"),
        ([node("Exp", ["c"], ["e"]), node("Div", ["c", "e"], ["m"], name="quotient")], "quotient"),
        ([node("InstanceNormalization", ["c", "b", "b"], ["m"], name="instance_norm")], "instance_norm"),
    ],
)
def test_what_has_no_rule_is_refused_by_name(nodes: list[NodeProto], named: str) -> None:
    with pytest.raises(NoGradientError, match=f"relevance isn't defined for .*{named}"):
        relevance(between(*nodes))


def test_an_operator_without_a_rule_is_no_hindrance_where_no_relevance_goes() -> None:
    """The gate of a squeeze-and-excitation block gets none, whatever it is computed by."""
    gate = [
        node("GlobalAveragePool", ["c"], ["p"]),
        node("Softmax", ["p"], ["q"], axis=1),
        node("Sigmoid", ["q"], ["s"]),
        node("Mul", ["c", "s"], ["m"]),
    ]
    found = between(*gate)
    x = small_models.images(3, 16, 16)
    feeds = {found.image: x, "target": targets(3), "epsilon": np.full(1, 1e-6, np.float32)}
    assert np.abs(outputs(relevance(found, EPSILON_PLUS), feeds)["total"]).max() > 0


def test_a_bias_in_an_add_of_its_own_is_a_bias() -> None:
    """Frameworks write a dense layer as MatMul and Add as often as as Gemm."""
    x, weight = small_models.images(20), small_models.random_weight(20, 8)
    shape = [("x", 1, ["N", 20])]
    rest = [node("Relu", ["h"], ["r"]), node("Gemm", ["r", "fw", "fb"], ["y"])]
    one = model([node("Gemm", ["x", "t", "b"], ["h"]), *rest], {"t": weight}, inputs=shape)
    two = model([node("MatMul", ["x", "t"], ["p"]), node("Add", ["p", "b"], ["h"]), *rest], {"t": weight}, inputs=shape)
    for name in ("alpha_beta", "gamma", "epsilon"):
        totals = []
        for proto in (one, two):
            found = normalize(read_source(proto))
            feeds = {"x": x, "target": targets(3), **parameters(name, found)}
            totals.append(outputs(relevance(found, COMPOSITES[name]), feeds)["total"])
        assert relative(*totals) < 1e-5


def test_an_activation_that_is_written_out_is_an_activation() -> None:
    """GELU as x·Φ(x): all relevance goes to x, none through Φ, as through the operator."""
    written = [
        node("Mul", ["c", "root"], ["d"]),
        node("Erf", ["d"], ["e"]),
        node("Add", ["e", "one"], ["f"]),
        node("Mul", ["f", "half"], ["h"]),
        node("Mul", ["h", "c"], ["m"]),
    ]
    numbers = {"root": np.float32(np.sqrt(0.5)), "one": np.float32(1), "half": np.float32(0.5)}
    totals = []
    for found in (between(*written, **numbers), between(node("Gelu", ["c"], ["m"]))):
        feeds = {found.image: small_models.images(3, 16, 16), "target": targets(3), **parameters("epsilon", found)}
        totals.append(outputs(relevance(found, COMPOSITES["epsilon"]), feeds)["total"])
    assert relative(*totals) < 1e-5
