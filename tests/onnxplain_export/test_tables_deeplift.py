"""DeepLIFT: contributions add up to the difference of the scores, whatever is on the way, or the node is refused."""

import numpy as np
import pytest
import torch
from onnx import NodeProto, TensorProto

import small_models
from onnxplain.errors import NoGradientError
from onnxplain_export.graphs.deeplift import deeplift
from onnxplain_export.graphs.forward import forward
from onnxplain_export.graphs.gradient import gradient
from onnxplain_export.normalize import Normalized, normalize
from onnxplain_export.sources import read_source
from onnxplain_export.tables.deeplift import RESCALED
from small_models import conv, head, model, node
from table_cases import CASES, Between
from table_networks import NETWORKS, images, network, normalized, outputs, relative, targets

UNSUITED = {"Mul gate", "Mul square", "LRN"}
IMAGES, BASELINE = small_models.images(3, 16, 16), small_models.images(3, 16, 16, count=1, seed=9)

WRITTEN_OUT: dict[str, list[NodeProto]] = {
    "GELU": [
        node("Mul", ["c", "root"], ["d"]),
        node("Erf", ["d"], ["e"]),
        node("Add", ["e", "one"], ["f"]),
        node("Mul", ["c", "f"], ["m"]),
    ],
    "Mish": [node("Softplus", ["c"], ["d"]), node("Tanh", ["d"], ["e"]), node("Mul", ["c", "e"], ["m"])],
    "Softsign": [node("Abs", ["c"], ["d"]), node("Add", ["d", "one"], ["e"]), node("Div", ["c", "e"], ["m"])],
    "a/x": [node("Exp", ["c"], ["d"]), node("Div", ["root", "d"], ["m"])],
    "ln(1 + eˣ)": [node("Exp", ["c"], ["d"]), node("Add", ["d", "one"], ["e"]), node("Log", ["e"], ["m"])],
    "√(x² + 1)": [
        node("Pow", ["c", "two"], ["d"]),
        node("Add", ["d", "one"], ["e"]),
        node("Sqrt", ["e"], ["f"]),
        node("Reciprocal", ["f"], ["m"]),
    ],
}
CONSTANTS = {"root": np.float32(0.7071), "one": np.float32(1), "two": np.float32(2)}


def written_out(name: str) -> Normalized:
    names = {one for each in WRITTEN_OUT[name] for one in each.input}
    weights = {key: value for key, value in CONSTANTS.items() if key in names}
    return normalize(read_source(Between(WRITTEN_OUT[name], weights).model()))


def gap(found: Normalized, x: np.ndarray = IMAGES, baseline: np.ndarray = BASELINE) -> float:
    """How far the contributions' sums are from the difference of the scores, as a share of all contributions."""
    target = targets(len(x))
    total = outputs(deeplift(found), {found.image: x, "target": target, "baseline": baseline})["total"]
    run = forward(found)
    scores = [outputs(run, {found.image: np.broadcast_to(at, x.shape)})["scores"] for at in (x, baseline)]
    rise = np.take_along_axis(scores[0] - scores[1], target, 1)[:, 0]
    assert np.abs(rise).max() > 0
    rows = total.reshape(len(x), -1)
    return float((np.abs(rows.sum(1) - rise) / np.abs(rows).sum(1)).max())


@pytest.mark.parametrize("name", [name for name in CASES if name not in UNSUITED])
def test_contributions_add_up(name: str) -> None:
    assert gap(normalize(read_source(CASES[name].model()))) < 1e-5


@pytest.mark.parametrize("name", WRITTEN_OUT)
def test_activations_that_are_written_out_are_functions_of_one_number(name: str) -> None:
    assert gap(written_out(name)) < 1e-5


def test_every_rescaled_operator_has_a_case() -> None:
    nodes = [one for case in CASES.values() for one in case.nodes]
    nodes += [one for form in WRITTEN_OUT.values() for one in form]
    assert set(RESCALED) - {one.op_type for one in nodes} == set()


@pytest.mark.parametrize("name", ["Mul SiLU", "Relu", "MaxPool", "Gelu", "BatchNormalization"])
def test_near_the_image_it_is_the_gradient(name: str) -> None:
    """Where the difference vanishes the multiplier is the slope; a tiny one makes both the same."""
    found, target = normalize(read_source(CASES[name].model())), targets(3)
    near = IMAGES + np.float32(3e-7)
    total = outputs(deeplift(found), {found.image: IMAGES, "target": target, "baseline": near})["total"]
    plain = outputs(gradient(found), {found.image: IMAGES, "target": target})["total"]
    difference = (IMAGES - near)[:, None]
    moved = np.abs(difference) > 0
    assert relative((total / np.where(moved, difference, 1))[moved], plain[moved]) < 0.02
    nothing = outputs(deeplift(found), {found.image: IMAGES, "target": target, "baseline": IMAGES})["total"]
    assert np.abs(nothing).max() == 0


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_batch_is_its_images_alone_and_targets_are_too(kind: str) -> None:
    found, x = normalized(kind), images(kind)
    both = np.concatenate([targets(), (targets() + 1) % 5], axis=1)
    graph = deeplift(found)
    for baseline in (images(kind, 1, seed=5), images(kind, 7, seed=6)):
        together = outputs(graph, {found.image: x, "target": both, "baseline": baseline})["total"]
        for index in (0, 6):
            one = slice(index, index + 1)
            own = baseline[one] if len(baseline) > 1 else baseline
            alone = outputs(graph, {found.image: x[one], "target": both[one, 1:], "baseline": own})["total"][0, 0]
            np.testing.assert_allclose(together[index, 1], alone, rtol=0, atol=2e-5 * np.abs(alone).max())
        scores = [network(kind)(torch.tensor(at)).detach().numpy() for at in (x, baseline)]
        rise = np.take_along_axis(scores[0] - scores[1], both, 1)
        sums = together.reshape(*both.shape, -1)
        np.testing.assert_allclose(sums.sum(-1), rise, atol=1e-5 * np.abs(sums).sum(-1).max())


def test_a_baseline_may_be_one_number() -> None:
    found, target = normalized("plain"), targets()
    one, full = np.full((1, 1, 1, 1), 0.2, np.float32), np.full((1, 3, 19, 27), 0.2, np.float32)
    totals = [
        outputs(deeplift(found), {found.image: images("plain"), "target": target, "baseline": baseline})["total"]
        for baseline in (one, full)
    ]
    np.testing.assert_array_equal(*totals)


def test_a_second_input_of_the_network_goes_with_its_image() -> None:
    nodes = [conv(), node("Add", ["c", "other"], ["m"]), *head("m")]
    inputs = [small_models.IMAGE, ("other", TensorProto.FLOAT, ["N", 8, 16, 16])]
    found = normalize(read_source(model(nodes, inputs=inputs)))
    other = small_models.images(8, 16, 16, seed=4)
    target = np.array([[0, 1], [3, 2], [4, 0]])
    feeds = {found.image: IMAGES, "other": other, "target": target, "baseline": BASELINE}
    total = outputs(deeplift(found), feeds)["total"]
    scores = [
        small_models.run(model(nodes, inputs=inputs), {"x": np.repeat(at, 3 // len(at), 0), "other": other})
        for at in (IMAGES, BASELINE)
    ]
    rise = np.take_along_axis(scores[0] - scores[1], target, 1)
    np.testing.assert_allclose(total.reshape(3, 2, -1).sum(-1), rise, atol=1e-5)


REFUSED: dict[str, list[NodeProto]] = {
    "inner_softmax": [node("Softmax", ["c"], ["m"], axis=1, name="inner_softmax")],
    "attention": [node("MatMul", ["c", "c"], ["m"], name="attention")],
    "gate": [
        node("GlobalAveragePool", ["c"], ["p"]),
        node("Sigmoid", ["p"], ["s"]),
        node("Mul", ["c", "s"], ["m"], name="gate"),
    ],
    "instance_norm": [node("InstanceNormalization", ["c", "b", "b"], ["m"], name="instance_norm")],
    "choice": [
        node("ReduceMax", ["c"], ["p"]),
        node("Greater", ["c", "p"], ["k"]),
        node("Where", ["k", "c", "one"], ["m"], name="choice"),
    ],
}


@pytest.mark.parametrize("named", REFUSED)
def test_what_the_rule_isnt_defined_for_is_refused_by_name(named: str) -> None:
    weights = {"one": CONSTANTS["one"]} if named == "choice" else {}
    with pytest.raises(NoGradientError, match=f"DeepLIFT isn't defined for .*{named}"):
        deeplift(normalize(read_source(Between(REFUSED[named], weights).model())))
