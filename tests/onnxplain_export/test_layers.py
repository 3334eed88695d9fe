"""The layer that CAM methods explain at: found by itself, checked when named; its graphs keep their contracts."""

import functools

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import TensorProto
from torch import Tensor, nn

import networks
import quantized_models
import small_models
from normalizing import normalized
from onnxplain.errors import ModelError, ParameterError
from onnxplain_export.graphs.layer import layer as layer_graph
from onnxplain_export.graphs.tail import tail as tail_graph
from onnxplain_export.grids import fits
from onnxplain_export.layers import chosen_layers, find_layer, layer_entry, named_layer
from onnxplain_export.normalize import Normalized, named_value, normalize
from onnxplain_export.sources import read_source
from small_models import SCORES, conv, head, model, node, random_weight

SECOND = {"w2": random_weight(8, 8, 3, 3)}


def of_torch(module: nn.Module, *size: int) -> Normalized:
    return normalize(read_source(module.eval(), torch.zeros(1, 3, *size)))


def after_one_conv(nodes: list, weights: dict | None = None, **options) -> onnx.ModelProto:
    return model([conv(), node("Relu", ["c"], ["r"]), *nodes], weights, **options)


def pooled_early() -> onnx.ModelProto:
    """VGG's end: a pool and then fully connected layers that see every place."""
    nodes = [
        node("MaxPool", ["r"], ["pool"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Flatten", ["pool"], ["flat"]),
        node("Gemm", ["flat", "wide"], ["y"]),
    ]
    return after_one_conv(nodes, {"wide": random_weight(512, 5)})


def class_maps() -> onnx.ModelProto:
    """SqueezeNet's end: a convolution to maps of the classes, whose means are the scores."""
    nodes = [
        node("Conv", ["r", "classes"], ["maps"], name="classes"),
        node("Relu", ["maps"], ["scored"]),
        node("GlobalAveragePool", ["scored"], ["pooled"]),
        node("Flatten", ["pooled"], ["y"]),
    ]
    return after_one_conv(nodes, {"classes": random_weight(5, 8, 1, 1)})


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
    return after_one_conv(nodes, {**SECOND, "wide": random_weight(16, 5)})


def channels_last() -> onnx.ModelProto:
    """TensorFlow's layout: transposed for every convolution."""
    nodes = [
        node("Transpose", ["x"], ["first"], perm=[0, 3, 1, 2]),
        conv("first"),
        node("Transpose", ["c"], ["back"], perm=[0, 2, 3, 1]),
        node("Relu", ["back"], ["last"]),
        node("ReduceMean", ["last", "axes"], ["mean"], keepdims=0),
        node("Gemm", ["mean", "fw", "fb"], ["y"]),
    ]
    return model(nodes, {"axes": np.array([1, 2])}, inputs=[("x", TensorProto.FLOAT, ["N", 12, 16, 3])])


FOUND = {
    "one conv": (lambda: after_one_conv(head("r")), "relu", "NCHW", (16, 16), 0),
    "a pool before fully connected layers": (pooled_early, "r", "NCHW", (16, 16), 0),
    "maps of the classes": (class_maps, "r", "NCHW", (16, 16), 0),
    "two pools": (two_pools, "last", "NCHW", (16, 16), 0),
    "channels last": (channels_last, "last", "NHWC", (12, 16), 0),
}


@pytest.mark.parametrize("case", FOUND)
def test_the_last_features_on_a_grid_are_found(case: str) -> None:
    make, name, kind, grid, prefix = FOUND[case]
    found = find_layer(normalized(make()))
    assert (found.name, found.kind, found.grid, found.prefix) == (name, kind, grid, prefix)
    assert found.channels == 8


def test_class_maps_are_the_layer_where_there_is_nothing_else() -> None:
    nodes = [
        node("Conv", ["x", "classes"], ["maps"]),
        node("GlobalAveragePool", ["maps"], ["pooled"]),
        node("Flatten", ["pooled"], ["y"]),
    ]
    assert find_layer(normalized(model(nodes, {"classes": random_weight(5, 3, 1, 1)}))).name == "maps"


def test_a_network_without_a_grid_has_no_layer() -> None:
    nodes = [node("Flatten", ["x"], ["flat"]), node("Gemm", ["flat", "wide"], ["y"])]
    found = normalized(model(nodes, {"wide": random_weight(768, 5)}))
    with pytest.raises(ModelError, match="rows and columns or tokens"):
        find_layer(found)
    with pytest.raises(ParameterError, match="No value of this model has a grid"):
        named_layer(found, "flat")


def test_a_residual_network_of_torch_ends_in_its_last_stage() -> None:
    found = find_layer(of_torch(networks.resnet18(), 37, 96))
    assert (found.grid, found.channels, found.kind) == ((2, 3), 512, "NCHW")


class Transformer(nn.Module):
    """Tokens of patches behind `prefix` others, read at the first of those or as a mean."""

    def __init__(self, size: tuple[int, int], patch: int = 8, prefix: int = 1, width: int = 16, mean: bool = False):
        super().__init__()
        self.patches, self.mean = nn.Conv2d(3, width, patch, patch), mean
        length = (size[0] // patch) * (size[1] // patch) + prefix
        self.others = nn.Parameter(torch.randn(1, prefix, width))
        self.position = nn.Parameter(torch.randn(1, length, width))
        self.blocks = nn.Sequential(*[networks.Attention(width, 4) for _ in range(2)])
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.others.expand(x.shape[0], -1, -1), tokens], 1) + self.position
        tokens = self.norm(self.blocks(tokens))
        return self.head(tokens.mean(1) if self.mean else tokens[:, 0])


@pytest.mark.parametrize(
    ("size", "grid", "prefix"), [((64, 64), (8, 8), 1), ((33, 45), (4, 5), 2), ((16, 64), (2, 8), 5)]
)
def test_a_transformers_places_are_told_from_its_other_tokens(size, grid, prefix) -> None:
    found = find_layer(of_torch(Transformer(size, prefix=prefix), *size))
    assert (found.kind, found.grid, found.prefix, found.channels) == ("tokens", grid, prefix, 16)


@pytest.mark.parametrize("opset", [14, 17])
@pytest.mark.filterwarnings("ignore")  # the old exporter warns of its own age
def test_a_class_tokens_layer_is_the_last_blocks_first_normalisation(tmp_path, opset: int) -> None:
    """Behind the last attention only the class token matters; opset 14 writes LayerNormalization out."""
    torch.manual_seed(0)
    file = tmp_path / "vit.onnx"
    module = Transformer((32, 48)).eval()
    torch.onnx.export(module, (torch.zeros(1, 3, 32, 48),), file, dynamo=False, opset_version=opset)
    network = normalize(read_source(file))
    found = find_layer(network)
    assert found.entry != found.name
    feature = small_models.run(ir.to_proto(layer_graph(network, found)), feeds(network), "layer_features")
    caught = []
    module.blocks[1].norm1.register_forward_hook(lambda *given: caught.append(given[2]))
    module(torch.from_numpy(images(network)))
    np.testing.assert_allclose(feature, caught[0].detach().numpy(), atol=2e-5)


def test_where_tokens_are_averaged_the_last_normalisation_is_the_layer() -> None:
    network = of_torch(Transformer((32, 32), mean=True), 32, 32)
    found = find_layer(network)
    assert found.name == found.entry
    assert named_value(network.model.graph, found.name).producer().op_type == "LayerNormalization"


def images(network: Normalized, count: int = 2) -> np.ndarray:
    return small_models.images(*network.image_shape, count=count)


def feeds(network: Normalized, count: int = 2, targets: int = 2) -> dict[str, np.ndarray]:
    chosen = np.arange(count * targets).reshape(count, targets) % network.scores.shape[0]
    return {network.image: images(network, count), "target": chosen.astype(np.int64)}


@functools.cache
def residual() -> Normalized:
    return normalized(two_pools())


NAMED = {
    "passed by every way": ("last", ["last"]),
    "inside a branch": ("d", ["r", "d"]),
    "the image": ("x", ["x"]),
}


@pytest.mark.parametrize("case", NAMED)
def test_a_layers_gradient_is_that_of_finite_differences_of_its_tail(case: str) -> None:
    network, (name, _) = residual(), NAMED[case]
    at = named_layer(network, name)
    graph, tail = (ir.to_proto(make(network, at)) for make in (layer_graph, tail_graph))
    given = feeds(network, 3, 2)
    features, total = (small_models.run(graph, given, output) for output in ("layer_features", "total"))
    assert total.shape == (3, 2, *at.shape)
    for target in range(2):
        direction = total[:, target] / np.linalg.norm(total[:, target].reshape(3, -1), axis=1).reshape(3, 1, 1, 1)
        step = np.float32(1e-3)
        scores = [
            small_models.run(tail, tail_feeds(tail, given, features + sign * step * direction)) for sign in (1, -1)
        ]
        rise = np.take_along_axis(scores[0] - scores[1], given["target"][:, target : target + 1], 1)[:, 0] / (2 * step)
        length = np.linalg.norm(total[:, target].reshape(3, -1), axis=1)
        np.testing.assert_allclose(rise, length, rtol=2e-2)


def tail_feeds(tail: onnx.ModelProto, given: dict, features: np.ndarray) -> dict[str, np.ndarray]:
    offered = {**given, "layer": features}
    return {entry.name: offered[entry.name] for entry in tail.graph.input}


@pytest.mark.parametrize("case", NAMED)
def test_a_tail_of_unchanged_features_gives_the_networks_scores(case: str) -> None:
    network, (name, _) = residual(), NAMED[case]
    at = named_layer(network, name)
    given = feeds(network, 3)
    features = small_models.run(ir.to_proto(layer_graph(network, at)), given, "layer_features")
    tail = ir.to_proto(tail_graph(network, at))
    expected = small_models.run(two_pools(), {"x": given["x"]})
    np.testing.assert_allclose(small_models.run(tail, tail_feeds(tail, given, features)), expected, atol=1e-5)


def test_a_tail_asks_for_the_image_only_where_a_way_avoids_the_layer() -> None:
    inputs = {name: [one.name for one in tail_graph(residual(), named_layer(residual(), name)).graph.inputs]
              for name in ("last", "d", "r")}  # fmt: skip
    assert inputs == {"last": ["layer"], "d": ["x", "layer"], "r": ["layer"]}


def convolutions(graph: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Those of the network and of its gradient, without those that only lead back into onnxruntime's blocked layout."""
    return [one for one in graph.graph.node if one.op_type == "Conv" and not one.name.startswith("blocked/")]


def test_the_backward_pass_stops_at_the_layer() -> None:
    """Behind the last features no convolution goes back (as one with turned weights); at the image both do."""
    counts = {
        name: len(convolutions(ir.to_proto(layer_graph(residual(), named_layer(residual(), name)))))
        for name in ("last", "r", "x")
    }
    assert counts == {"last": 2, "r": 2 + 1, "x": 2 + 2}


@pytest.mark.parametrize("name", ["last", "d"])
def test_what_leads_to_the_layer_runs_once_for_each_image(name: str) -> None:
    """The first convolution sees the N images, the second's rows are N·T only where it lies behind the entry."""
    graph = ir.to_proto(layer_graph(residual(), named_layer(residual(), name)))
    rows = [len(small_models.run(graph, feeds(residual(), 2, 3), one.output[0])) for one in convolutions(graph)]
    assert rows == ([2, 2] if name == "last" else [2, 6])


def test_several_targets_are_the_single_ones() -> None:
    graph = ir.to_proto(layer_graph(residual(), find_layer(residual())))
    given = feeds(residual(), 3, 2)
    both = small_models.run(graph, given, "total")
    for target in range(2):
        one = small_models.run(graph, {**given, "target": given["target"][:, target : target + 1]}, "total")
        np.testing.assert_array_equal(both[:, target], one[:, 0])


def test_an_image_alone_has_the_map_that_it_has_in_a_batch() -> None:
    graph = ir.to_proto(layer_graph(residual(), find_layer(residual())))
    given = feeds(residual(), 7, 1)
    together = small_models.run(graph, given, "total")
    alone = small_models.run(graph, {name: values[3:4] for name, values in given.items()}, "total")
    np.testing.assert_allclose(alone[0], together[3], rtol=1e-5, atol=1e-9)


WRONG = {
    "a name that nearly exists": ("lasd", "did you mean 'last'.*every way passes: last, sum, r, c"),
    "a name that doesn't exist": ("qqqqqqqq", "unknown layer 'qqqqqqqq'.*BatchNormalization.*every way passes"),
    "no places left": ("mean", r"'mean' has shape \['N', 8, 1, 1\] and no place.*\[N, C, h, w\].*last, sum, r, c"),
    "scores": ("y", r"'y' has shape \['N', 5\] and no place"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_layer_is_told_what_would_be_right(case: str) -> None:
    name, text = WRONG[case]
    with pytest.raises(ParameterError, match=text):
        named_layer(residual(), name)


def test_a_value_beside_the_way_is_no_layer() -> None:
    nodes = [conv(), node("Relu", ["c"], ["beside"]), *head("c")]
    proto = model(nodes, outputs=[SCORES, ("beside", TensorProto.FLOAT, ["N", 8, 16, 16])])
    with pytest.raises(ParameterError, match="'beside' isn't on the way from the image to the scores"):
        named_layer(normalized(proto), "beside")


def test_channels_before_tokens_are_no_layer() -> None:
    """[N, C, L], as before the transposition of a patch embedding, though C may look like a grid too."""
    nodes = [
        node("Conv", ["x", "patch"], ["p"], strides=[4, 4]),
        node("Reshape", ["p", "flat"], ["channels"]),
        node("Transpose", ["channels"], ["tokens"], perm=[0, 2, 1]),
        node("ReduceMean", ["tokens", "one"], ["mean"], keepdims=0),
        node("Gemm", ["mean", "wide"], ["y"]),
    ]
    weights = {
        "patch": random_weight(16, 3, 4, 4), "flat": np.array([0, 16, 16]), "one": np.array([1]),
        "wide": random_weight(16, 5),
    }  # fmt: skip
    found = normalized(model(nodes, weights))
    with pytest.raises(ParameterError, match="tokens"):
        named_layer(found, "channels")
    assert named_layer(found, "tokens").grid == (4, 4)


def test_a_quantised_networks_layer_is_before_the_pool_too() -> None:
    """Quantisations between operators are no operators of their own."""
    network = normalized(quantized_models.quantized(), quantized="straight-through")
    assert find_layer(network).name == "r2_DequantizeLinear_Output"


def test_tokens_have_the_grid_of_the_convolution_that_made_them() -> None:
    """Patches needn't be square: 8 by 2 pixels of 16 by 16 are 2 by 8 places, though 4 by 4 would look more likely."""
    nodes = [
        node("Conv", ["x", "patch"], ["p"], strides=[8, 2]),
        node("Reshape", ["p", "flat"], ["channels"]),
        node("Transpose", ["channels"], ["tokens"], perm=[0, 2, 1]),
        node("Tanh", ["tokens"], ["last"]),
        node("ReduceMean", ["last", "one"], ["mean"], keepdims=0),
        node("Gemm", ["mean", "fw", "fb"], ["y"]),
    ]
    weights = {"patch": random_weight(8, 3, 8, 2), "flat": np.array([0, 8, 16]), "one": np.array([1])}
    found = find_layer(normalized(model(nodes, weights)))
    assert (found.name, found.kind, found.grid, found.prefix) == ("last", "tokens", (2, 8), 0)


def test_tokens_that_no_convolution_made_have_the_grid_most_like_the_picture() -> None:
    """Patches cut out by a reshape and multiplied: 4 by 4 pixels of 8 by 32."""
    nodes = [
        node("Reshape", ["x", "cut"], ["patches"]),
        node("Transpose", ["patches"], ["moved"], perm=[0, 2, 4, 1, 3, 5]),
        node("Reshape", ["moved", "flat"], ["tokens"]),
        node("MatMul", ["tokens", "embedding"], ["embedded"]),
        node("Tanh", ["embedded"], ["last"]),
        node("ReduceMean", ["last", "one"], ["mean"], keepdims=0),
        node("Gemm", ["mean", "fw", "fb"], ["y"]),
    ]
    weights = {
        "cut": np.array([0, 3, 2, 4, 8, 4]), "flat": np.array([0, 16, 48]), "one": np.array([1]),
        "embedding": random_weight(48, 8),
    }  # fmt: skip
    found = find_layer(normalized(model(nodes, weights, inputs=[("x", TensorProto.FLOAT, ["N", 3, 8, 32])])))
    assert (found.name, found.kind, found.grid, found.prefix) == ("last", "tokens", (2, 8), 0)


def test_names_of_ours_that_a_model_has_are_still_its_own() -> None:
    nodes = [conv(result="layer_features"), *head("layer_features")]
    found = normalized(model(nodes))
    at = named_layer(found, "layer_features")
    assert layer_entry(at, 0, True)["name"] == "layer_features"
    given = {"x": small_models.images(3, 16, 16), "target": np.zeros((3, 1), np.int64)}
    features = small_models.run(ir.to_proto(layer_graph(found, at)), given, "layer_features")
    np.testing.assert_allclose(features, small_models.run(model(nodes), {"x": given["x"]}, "layer_features"), atol=1e-6)


def test_entries_number_the_layers_and_the_first_is_the_default() -> None:
    entries = [layer_entry(at, number, True) for number, at in enumerate(chosen_layers(residual(), ["r", "last", "r"]))]
    assert [(one["name"], one["graph"], one["tail"], one["default"]) for one in entries] == [
        ("r", "layer", "tail", True),
        ("last", "layer.1", "tail.1", False),
    ]
    assert entries[0]["shape"] == ["N", 8, 16, 16]
    assert chosen_layers(residual())[0].name == "last"
    assert layer_entry(chosen_layers(residual())[0], 0, False)["tail"] is None


def test_an_empty_name_is_the_image() -> None:
    assert named_layer(residual(), "").shape == (3, 16, 16)


@pytest.mark.parametrize(
    ("size", "picture", "expected"),
    [
        ((7, 7), (224, 224), True),
        ((3, 5), (30, 45), True),
        ((2, 8), (16, 64), True),
        ((5, 13), (64, 64), False),
        ((8, 7), (224, 224), True),
        ((1, 1), (224, 224), False),
        ((1, 196), (224, 224), False),
        ((4, 4), (0, 0), False),
    ],
)
def test_a_grid_fits_a_picture_up_to_its_borders(size, picture, expected: bool) -> None:
    assert fits(size, picture) is expected
