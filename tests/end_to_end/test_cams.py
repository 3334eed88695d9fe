"""Journeys with the CAM family: several inputs and layers, both layouts, little memory, a layer that isn't there."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from onnxplain import Explainer
from onnxplain.errors import ParameterError
from onnxplain_export import export
from other_networks import PictureAndAge
from tight_memory import least_memory

TOLERANCE = 1e-4
METHODS = ("gradcam", "scorecam", "ablationcam", "reciprocam")
IMAGES = np.random.default_rng(10).standard_normal((3, 3, 19, 26)).astype(np.float32)


def network() -> nn.Module:
    torch.manual_seed(9)
    layers = [nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.Conv2d(8, 12, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(12, 5)).eval()


def relative(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm((a - b).ravel()) / np.linalg.norm(b.ravel()))


@pytest.fixture(scope="module")
def explainer(tmp_path_factory: pytest.TempPathFactory) -> Explainer:
    folder = tmp_path_factory.mktemp("cams") / "net.explain"
    return Explainer(export(network(), folder, example=torch.zeros(1, 3, 19, 26), methods=[*METHODS]), device="cpu")


def test_a_layer_that_wasnt_exported_is_an_error(explainer: Explainer) -> None:
    with pytest.raises(ParameterError, match=r"unknown layer 'nowhere'.*--layer nowhere"):
        explainer.explain(IMAGES[:1], "gradcam", layer="nowhere")
    name = explainer.bundle.layers[0].name
    named = explainer.explain(IMAGES[:1], "gradcam", layer=name).attribution
    np.testing.assert_array_equal(named, explainer.explain(IMAGES[:1], "gradcam").attribution)


def test_a_network_with_another_input_and_several_layers(tmp_path: Path) -> None:
    """What else the network takes goes into the tail with each image's rows."""
    torch.manual_seed(7)
    module = PictureAndAge().eval()
    double = copy.deepcopy(module).double()
    names = ("ablationcam", "reciprocam", "gradcam")
    example = (torch.zeros(2, 3, 15, 20), torch.zeros(2, 5))
    bundle = export(module, tmp_path / "net.explain", example=example, methods=names, layers=["gelu", "conv2d"])
    explainer = Explainer(bundle, device="cpu")
    assert [layer.default for layer in explainer.bundle.layers] == [True, False]
    generator = np.random.default_rng(8)
    given = {"picture": generator.standard_normal((3, 3, 15, 20)), "age": generator.standard_normal((3, 5))}
    given = {name: values.astype(np.float32) for name, values in given.items()}
    convolved = double.first(torch.from_numpy(given["picture"]).double()).detach()
    gate = torch.tanh(double.gate(torch.from_numpy(given["age"]).double()))

    def scores(features: Tensor, image: int, layer: str) -> Tensor:
        features = F.gelu(features) if layer == "conv2d" else features
        return double.head(features.mean((-2, -1))) * gate[image]

    for layer, features in (("gelu", F.gelu(convolved)), ("conv2d", convolved)):
        options = {"layer": layer, "relu": False, "upsample": "none"}
        found = {name: explainer.explain(given, name, targets=3, **options).attribution[:, 0] for name in names}
        for image, a in enumerate(features):
            a = a.clone().requires_grad_()
            y = scores(a, image, layer)[3]
            (g,) = torch.autograd.grad(y, a)
            expected = (g.mean((1, 2), keepdim=True) * a).sum(0)
            assert relative(found["gradcam"][image], expected.detach().numpy()) <= TOLERANCE
            with torch.no_grad():
                kept = [a * (torch.arange(len(a)) != k)[:, None, None] for k in range(len(a))]
                lost = torch.stack([y - scores(one, image, layer)[3] for one in kept]) / y.abs()
                places = torch.eye(a[0].numel(), dtype=torch.float64).reshape(-1, 1, *a.shape[1:])
                alone = torch.stack([torch.softmax(scores(a * place, image, layer), 0)[3] for place in places])
            assert relative(found["ablationcam"][image], (lost[:, None, None] * a).sum(0).detach().numpy()) <= TOLERANCE
            assert relative(found["reciprocam"][image], alone.reshape(a.shape[1:]).numpy()) <= TOLERANCE


def test_a_map_of_a_channels_last_picture_has_its_channel_last(explainer: Explainer, tmp_path: Path) -> None:
    class Last(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x.permute(0, 3, 1, 2))

    bundle = export(Last(network()), tmp_path / "b.explain", example=torch.zeros(1, 19, 26, 3), methods=[*METHODS])
    last = Explainer(bundle, device="cpu")
    for method in METHODS:
        expected = explainer.explain(IMAGES, method, targets=1, relu=False).attribution
        found = last.explain(np.ascontiguousarray(IMAGES.transpose(0, 2, 3, 1)), method, targets=1, relu=False)
        assert found.attribution.shape == (3, 19, 26, 1)
        assert found.heatmap().shape == (3, 19, 26)
        assert relative(found.attribution[..., 0], expected[:, 0]) <= TOLERANCE


def test_maps_are_the_same_under_a_tight_memory(explainer: Explainer) -> None:
    for method in METHODS:
        free = explainer.explain(IMAGES, method, targets=0, relu=False).attribution
        tight = least_memory(explainer, IMAGES, method, targets=0, relu=False)
        found = explainer.explain(IMAGES, method, targets=0, relu=False, memory=tight).attribution
        assert relative(found, free) <= TOLERANCE
