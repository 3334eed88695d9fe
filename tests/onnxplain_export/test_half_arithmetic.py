"""Bundles that compute in half precision: right in real half arithmetic, proved with its roundings, or refused."""

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator

import networks
import small_models
from onnxplain import Explainer
from onnxplain.errors import BundleError, ModelError, ParameterError, VerificationError
from onnxplain_export import export, refresh
from onnxplain_export.bundle import write_graphs
from onnxplain_export.emitter import Emitter
from onnxplain_export.graphs import GRAPHS
from onnxplain_export.graphs.gradient import gradient
from onnxplain_export.half_arithmetic import in_half
from onnxplain_export.normalize import Normalized, normalize
from onnxplain_export.normalize.normalized import Half
from onnxplain_export.sources import read_source
from onnxplain_export.verify import verification
from onnxplain_export.verify.rounding import with_roundings
from small_models import conv, head, model, node

HALF = ir.DataType.FLOAT16
METHODS = ["gradient", "smoothgrad", "integrated_gradients", "occlusion", "gradcam"]


def conv_net() -> torch.nn.Module:
    """Strided and depthwise convolutions, BatchNormalization, ReLU, ReLU6, max and average pools."""
    torch.manual_seed(4)
    nn = torch.nn
    return networks.randomised(
        nn.Sequential(
            *(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(3, 2, 1)),
            *(nn.Conv2d(8, 8, 3, 2, 1, groups=8), nn.BatchNorm2d(8), nn.ReLU6(), nn.AvgPool2d(2)),
            *(nn.Conv2d(8, 16, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5)),
        )
    )


NETWORKS: dict[str, tuple[Callable[[], torch.nn.Module], int]] = {
    "convolutions": (conv_net, 40),
    "squeeze and excite": (lambda: networks.mobile_net(5), 16),
    "attention": (lambda: networks.vision_transformer(size=24, patch=8, width=16, depth=1, heads=2, classes=5), 24),
}


def halved(module: torch.nn.Module, size: int) -> Normalized:
    return in_half(normalize(read_source(module, torch.zeros(1, 3, size, size))), [])


def reference_gradient(normalized: Normalized, images: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """By numpy's own float16, operator by operator."""
    evaluator = ReferenceEvaluator(ir.to_proto(gradient(normalized)))
    (total,) = evaluator.run(["total"], {normalized.image: images, "target": targets})
    return np.asarray(total)[:, 0]


def exact_gradient(module: torch.nn.Module, images: np.ndarray, targets: np.ndarray) -> np.ndarray:
    rows = torch.tensor(images, dtype=torch.float64, requires_grad=True)
    module.double()(rows).gather(1, torch.tensor(targets)).sum().backward()
    return rows.grad.numpy()


def images_of(size: int, count: int = 2) -> np.ndarray:
    return np.random.default_rng(5).standard_normal((count, 3, size, size)).astype(np.float32)


def distance(found: np.ndarray, truth: np.ndarray) -> float:
    return float(np.linalg.norm(found.astype(np.float64) - truth) / np.linalg.norm(truth))


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_in_real_half_arithmetic_are_near_those_in_float64(name: str) -> None:
    make, size = NETWORKS[name]
    module, images, targets = make(), images_of(size), np.array([[1], [4]])
    found = reference_gradient(halved(module, size), images, targets)
    assert found.dtype == np.float32
    assert distance(found, exact_gradient(module, images, targets)) < 5e-2


@pytest.mark.parametrize("name", NETWORKS)
def test_the_roundings_of_the_proof_are_those_of_half_arithmetic(name: str) -> None:
    make, size = NETWORKS[name]
    normalized, images, targets = halved(make(), size), images_of(size), np.array([[1], [4]])
    real = reference_gradient(normalized, images, targets)
    proto = ir.to_proto(with_roundings(gradient(normalized)))
    emulated = small_models.run(proto, {normalized.image: images, "target": targets}, "total")[:, 0]
    assert distance(emulated, real) < 3e-2


LOUD_CHANNEL = {"b": np.array([300, *[0] * 7], np.float32)}
LOUD = {"w": small_models.WEIGHTS["w"] * np.float32(150)}


def layer_norm(squared: onnx.NodeProto, epsilon: float) -> onnx.ModelProto:
    """Over the channels of tokens, as exports of opsets below 17 write it; one channel is of size 300."""
    weights = {"last": np.array([-1]), "two": np.float32(2), "eps": np.float32(epsilon)}
    nodes = [
        *(*small_models.tokens(), node("ReduceMean", ["t", "last"], ["m"]), node("Sub", ["t", "m"], ["d"]), squared),
        *(node("ReduceMean", ["q", "last"], ["v"]), node("Add", ["v", "eps"], ["e"]), node("Sqrt", ["e"], ["s"])),
        *(node("Div", ["d", "s"], ["n"]), node("Sigmoid", ["n"], ["r"]), *small_models.pooled_tokens("r")),
    ]
    return model(nodes, {**small_models.TOKENS, **LOUD_CHANNEL, **weights})


def group_norm(mean: str, applied: str, groups: int) -> onnx.ModelProto:
    """In parts, over maps of size 300; its statistics divide, or they become a factor and a shift."""
    weights = {"places": np.array([2, 3]), "eps": np.float32(1e-3), "one": np.float32(1)}
    shapes = {"up": np.array([0, groups, -1, 16]), "down": np.array([0, 8, 16, 16])}
    given = ["places"] if mean == "ReduceMean" else []
    ways = {
        "divided": [node("Div", ["d", "s"], ["n"])],
        "shifted": [
            *(node("Div", ["one", "s"], ["i"]), node("Mul", ["g", "i"], ["a"]), node("Mul", ["m", "i"], ["h"])),
            node("Sub", ["a", "h"], ["n"]),
        ],
    }
    nodes = [
        *(conv(), node("Reshape", ["c", "up"], ["g"]), node(mean, ["g", *given], ["m"])),
        *(node("Sub", ["g", "m"], ["d"]), node("Mul", ["d", "d"], ["q"]), node(mean, ["q", *given], ["v"])),
        *(node("Add", ["v", "eps"], ["e"]), node("Sqrt", ["e"], ["s"]), *ways[applied]),
        *(node("Reshape", ["n", "down"], ["r"]), node("Sigmoid", ["r"], ["relu"]), *head("r")[1:]),
    ]
    return model(nodes, {**LOUD, **shapes, **weights})


def normalized_scores(rows: torch.Tensor, loud: dict[str, np.ndarray], groups: int, epsilon: float) -> torch.Tensor:
    """What these networks compute, in float64 (0 groups: a layer normalization); a ReLU's gradient would jump."""
    weights = {name: torch.tensor(content).double() for name, content in {**small_models.WEIGHTS, **loud}.items()}
    maps = torch.nn.functional.conv2d(rows, weights["w"], weights["b"], padding=1)
    if groups:
        maps = torch.nn.functional.group_norm(maps, groups, eps=epsilon)
    else:
        maps = torch.nn.functional.layer_norm(maps.movedim(1, -1), [8], eps=epsilon).movedim(-1, 1)
    return maps.sigmoid().mean((2, 3)) @ weights["fw"] + weights["fb"]


NORMS: dict[str, tuple[onnx.ModelProto, dict[str, np.ndarray], int, float]] = {
    "layer, power": (layer_norm(node("Pow", ["d", "two"], ["q"]), 1e-5), LOUD_CHANNEL, 0, 1e-5),
    "layer, product": (layer_norm(node("Mul", ["d", "d"], ["q"]), 1e-3), LOUD_CHANNEL, 0, 1e-3),
    **{
        f"{mean}, {applied}, {groups} groups": (group_norm(mean, applied, groups), LOUD, groups, 1e-3)
        for mean in ("ReduceMean", "GlobalAveragePool")
        for applied in ("divided", "shifted")
        for groups in (8, 2)
    },
}


@pytest.mark.parametrize("name", NORMS)
def test_normalizations_in_parts_keep_the_range_of_float32(name: str) -> None:
    """Squares of 300 are out of half precision's; divided by an infinite variance, all would be 0."""
    proto, *described = NORMS[name]
    normalized = in_half(normalize(read_source(proto)), [])
    images, targets = small_models.images(3, 16, 16), np.array([[0], [1], [4]])
    (scores,) = ReferenceEvaluator(ir.to_proto(GRAPHS["forward"](normalized))).run(["scores"], {"x": images})
    rows = torch.tensor(images, dtype=torch.float64, requires_grad=True)
    truth = normalized_scores(rows, *described)
    assert distance(scores, truth.detach().numpy()) < 1e-2
    truth.gather(1, torch.tensor(targets)).sum().backward()
    assert distance(reference_gradient(normalized, images, targets), rows.grad.numpy()) < 1e-2


def faint(factor: float = 2.0**-5, layers: int = 3) -> onnx.ModelProto:
    """Scores that hardly react to the picture: each layer makes the gradient so many times smaller."""
    weights = {"small": np.float32(factor)}
    names = ["x", *(f"s{index}" for index in range(layers))]
    shrinking = [node("Mul", [one, "small"], [other]) for one, other in pairwise(names)]
    return model([*shrinking, node("Conv", [names[-1], "w", "b"], ["c"], pads=[1] * 4), *head("c")], weights)


def test_without_the_scale_small_gradients_would_vanish() -> None:
    normalized = in_half(normalize(read_source(faint())), [])
    assert normalized.half is not None
    assert normalized.half.scale >= 2.0**10
    images, targets = small_models.images(3, 16, 16), np.zeros((3, 1), np.int64)
    feeds = {"x": images, "target": targets}
    truth = small_models.run(ir.to_proto(gradient(normalized.full)), feeds, "total")[:, 0]
    assert distance(reference_gradient(normalized, images, targets), truth) < 2e-2
    plain = replace(normalized, half=Half(normalized.full, 1.0))
    assert distance(reference_gradient(plain, images, targets), truth) > 0.3


def test_weights_of_steps_dont_make_the_cotangent_smaller() -> None:
    """A weight of 1e-6 would underflow if it entered the reverse pass."""
    normalized = halved(conv_net(), 16)
    images, steps = images_of(16, 1), np.array([[[1.0, 1e-6]]], np.float32)
    feeds = {normalized.image: images, "target": np.array([[1]]), "baseline": np.zeros((1, 1, 1, 1), np.float32)}
    (total,) = ReferenceEvaluator(ir.to_proto(GRAPHS["path"](normalized))).run(["total"], {**feeds, "steps": steps})
    whole = reference_gradient(normalized, images, np.array([[1]])) * images
    np.testing.assert_allclose(total[:, 0], whole * np.float32(1e-6), rtol=1e-4, atol=1e-12)


def test_masks_are_comparisons_and_strides_are_one_convolution() -> None:
    made = gradient(halved(conv_net(), 40)).graph
    kinds = [one.op_type for one in made if one.op_type in ("HardSigmoid", "ConvTranspose", "Where")]
    assert "HardSigmoid" not in kinds
    assert kinds.count("ConvTranspose") == 2
    assert "Where" in kinds
    assert not any(one.name.startswith("blocked/") for one in made)


def test_only_the_network_is_in_half_precision() -> None:
    normalized = halved(conv_net(), 16)
    for name in ("forward", "gradient", "path", "noise", "masked"):
        made = GRAPHS[name](normalized).graph
        ends = [*made.inputs, *made.outputs]
        assert all(value.dtype in (ir.DataType.FLOAT, ir.DataType.INT64) for value in ends)
        weights = [value for value in made.initializers.values() if "weight" in value.name]
        assert {value.dtype for value in weights} == {HALF}
    products = [one for one in gradient(normalized).graph if one.op_type in ("Conv", "ConvTranspose", "Gemm")]
    assert all(one.outputs[0].dtype == HALF for one in products)


@pytest.mark.parametrize("name", ["LayerNormalization", "Softmax"])
def test_what_needs_range_or_digits_stays_in_float32(name: str) -> None:
    make, size = NETWORKS["attention"]
    made = gradient(halved(make(), size)).graph
    kinds = {one.outputs[0].dtype for one in made if one.op_type == name}
    assert kinds == {ir.DataType.FLOAT}


def test_feature_maps_arent_cast_for_a_gate_or_a_normalization() -> None:
    """Squeeze-and-excitation's mean, and a BatchNormalization that no convolution takes in."""
    make, size = NETWORKS["squeeze and excite"]
    gate = gradient(halved(make(), size)).graph
    nodes = [conv(), node("Relu", ["c"], ["r"]), node("BatchNormalization", ["r", *"smuv"], ["n"]), *head("n")]
    numbers = np.random.default_rng(6).uniform(0.5, 1.5, (4, 8)).astype(np.float32)
    proto = model(nodes, dict(zip("smuv", numbers, strict=True)))
    normalized = in_half(normalize(read_source(proto)), [])
    for made in (gate, gradient(normalized).graph):
        widened = [one for one in made if one.op_type == "Cast" and one.inputs[0].dtype == HALF]
        assert len(widened) == 2  # the scores and the gradient
    images, targets = small_models.images(3, 16, 16), np.zeros((3, 1), np.int64)
    truth = small_models.run(ir.to_proto(gradient(normalized.full)), {"x": images, "target": targets}, "total")[:, 0]
    assert distance(reference_gradient(normalized, images, targets), truth) < 1e-2


def test_an_epsilon_that_half_precision_loses_stays() -> None:
    """x / (|x| + 1e-8) of a map that is 0 in places."""
    nodes = [
        *(conv(), node("Relu", ["c"], ["r"]), node("Abs", ["r"], ["a"])),
        *(node("Add", ["a", "eps"], ["d"]), node("Div", ["r", "d"], ["q"]), node("Add", ["q", "r"], ["s"]), *head("s")),
    ]
    normalized = in_half(normalize(read_source(model(nodes, {"eps": np.float32(1e-8)}))), [])
    images = small_models.images(3, 16, 16)
    found = reference_gradient(normalized, images, np.zeros((len(images), 1), np.int64))
    assert np.isfinite(found).all()


def exported(folder: Path, module: Any = None, **options: Any) -> Path:
    module = module or conv_net()
    options = {"methods": METHODS, "example": torch.zeros(1, 3, 40, 40), "precision": "float16", **options}
    return export(module, folder / "net.explain", **options)


def test_a_bundle_is_proved_and_tells_its_precision(tmp_path: Path) -> None:
    bundle = exported(tmp_path)
    told = json.loads((bundle / "explainer.json").read_text("utf-8"))
    assert told["format"] == 1
    assert told["arithmetic"]["precision"] == "float16"
    assert np.log2(told["arithmetic"]["scale"]).is_integer()
    assert told["verification"]["precision"]["cosine"] > 0.99
    assert {"path", "noise", "masked", "layer"} <= set(told["verification"])
    assert {entry["dtype"] for graph in told["graphs"].values() for entry in graph["outputs"]} <= {"float32", "int64"}
    assert Explainer(bundle).explain(images_of(40)[:1]).provenance["precision"] == "float16"


@pytest.mark.parametrize("method", METHODS)
def test_maps_are_near_those_in_float32(tmp_path: Path, method: str) -> None:
    half, whole = (
        exported(tmp_path / "a", methods=[method]),
        exported(tmp_path / "b", methods=[method], precision="float32"),
    )
    images = images_of(40)
    maps = [Explainer(bundle).explain(images, method, targets=1).attribution for bundle in (half, whole)]
    assert maps[0].dtype == np.float32
    assert distance(maps[0], maps[1].astype(np.float64)) < (0.1 if method == "occlusion" else 2e-2)  # small drops


def test_several_targets_share_a_pass(tmp_path: Path) -> None:
    bundle = exported(tmp_path, methods=["gradient"])
    assert (bundle / "gradient.targets.onnx").is_file()
    explainer, images = Explainer(bundle), images_of(40, 1)
    together = explainer.explain(images, "gradient", targets=[[0, 3]]).attribution[0]
    for index, target in enumerate((0, 3)):
        alone = explainer.explain(images, "gradient", targets=target).attribution
        np.testing.assert_allclose(together[index], alone.reshape(together[index].shape), rtol=2e-2, atol=1e-5)


def test_free_cotangents_of_any_size(tmp_path: Path) -> None:
    """A cotangent of 1e6 doesn't overflow, and one of 1e-6 doesn't underflow."""
    bundle = exported(tmp_path, methods=["gradient"], cotangent=True)
    explainer, images = Explainer(bundle), images_of(40, 1)
    way = np.array([1, -2, 0.5, 0, 3], np.float32)
    maps = [explainer.gradient(images, cotangent=way * np.float32(size)) for size in (1e6, 1, 1e-6)]
    np.testing.assert_allclose(maps[0], maps[1] * 1e6, rtol=1e-4)
    np.testing.assert_allclose(maps[2], maps[1] * 1e-6, rtol=1e-4)


def test_values_inside_the_network_and_other_outputs(tmp_path: Path) -> None:
    nodes = [conv(), node("Relu", ["c"], ["r"]), *head("r")]
    outputs = [small_models.SCORES, ("r", TensorProto.FLOAT, ["N", 8, 16, 16])]
    bundle = export(
        model(nodes, outputs=outputs), tmp_path / "inside.explain", wrt="c", methods=["gradient"], precision="float16"
    )
    found = Explainer(bundle).gradient(small_models.images(3, 16, 16), targets=1)
    assert found.dtype == np.float32
    told = json.loads((bundle / "explainer.json").read_text("utf-8"))["graphs"]["forward"]["outputs"]
    assert {"name": "r", "dtype": "float32", "shape": ["N", 8, 16, 16]} in told


def overflowing(peak: float) -> onnx.ModelProto:
    """A value in the middle reaches `peak` times what the picture does; the scores are of ordinary size."""
    weights = {"up": np.float32(peak), "down": np.float32(1 / peak)}
    rise = [conv(), node("Mul", ["c", "up"], ["high"]), node("Mul", ["high", "down"], ["low"])]
    return model([*rise, *head("low")], weights)


def test_a_network_that_leaves_the_range_of_half_precision_is_refused(tmp_path: Path) -> None:
    export(overflowing(1e3), tmp_path / "a.explain", methods=["gradient"], precision="float16")
    with pytest.raises(VerificationError, match=r"in half precision .* precision='float32'"):
        export(overflowing(6e4), tmp_path / "b.explain", methods=["gradient"], precision="float16")
    assert not (tmp_path / "b.explain").exists()


def test_a_network_that_needs_the_digits_of_float32_is_refused(tmp_path: Path) -> None:
    """Scores that hang on the difference of two large numbers."""
    weights = {"much": np.float32(2048)}
    lifted = [conv(), node("Add", ["c", "much"], ["high"]), node("Sub", ["high", "much"], ["low"])]
    with pytest.raises(VerificationError, match=r"in half precision .* precision='float32'"):
        export(model([*lifted, *head("low")], weights), tmp_path / "a.explain", precision="float16")


@pytest.mark.parametrize("graph", ["path", "noise"])
def test_a_graph_that_disagrees_with_the_others_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, graph: str
) -> None:
    """However far the network's gradients in half precision are from those in float32."""
    far = {"error": 0.4, "tolerance": 0.5, "cosine": 0.9, "images": 3}
    monkeypatch.setattr(verification, "against_float32", lambda *_: far)
    normalized = halved(conv_net(), 16)
    made = {name: GRAPHS[name](normalized) for name in ("forward", "gradient", "path", "noise")}
    write_graphs(tmp_path, made)
    record = verification.verify(normalized, tmp_path, made, [])
    assert record["precision"] == far
    assert record[graph]["error"] < 1e-3
    total = next(value for value in made[graph].graph.outputs if value.name == "total")
    op = Emitter(made[graph].graph, "wrong")
    wrong = op.Mul(total, 1.3)
    wrong.type, wrong.shape = total.type, total.shape
    made[graph].graph.outputs[list(made[graph].graph.outputs).index(total)] = wrong
    wrong.name, total.name = "total", "right"
    with pytest.raises(VerificationError, match=f"'{graph}' is off by 3.0e-01"):
        verification.verify(normalized, tmp_path, made, [])


def test_weights_beyond_the_range_are_refused(tmp_path: Path) -> None:
    weights = {"w": small_models.WEIGHTS["w"] * np.float32(1e6)}
    with pytest.raises(ModelError, match="'w' has values beyond float16's 65504; export with precision='float32'"):
        export(model([conv(), *head("c")], weights), tmp_path / "a.explain", precision="float16")


def test_rule_tables_are_left_out_or_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="DeepLIFT is computed in float32 only; export with precision='float32'"):
        exported(tmp_path, methods=["deeplift"])
    told = json.loads((exported(tmp_path, methods="all") / "explainer.json").read_text("utf-8"))
    assert "deeplift" in told["left_out"]
    assert {"guided_backprop", "gradcam", "rise"} <= set(told["methods"])


def test_a_refresh_is_refused(tmp_path: Path) -> None:
    bundle = exported(tmp_path, methods=["gradient"])
    with pytest.raises(BundleError, match="can't be refreshed: its arithmetic in half precision"):
        refresh(bundle, conv_net())


def test_one_of_the_two_kinds_of_half_precision_is_chosen(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="float16=True rounds the weights"):
        exported(tmp_path, float16=True)
    with pytest.raises(ParameterError, match="unknown precision 'half'"):
        exported(tmp_path, precision="half")
