"""A network quantised by onnxruntime's own tool: refused by default, explained straight through by name."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

import quantized_models
from onnxplain import Explainer
from onnxplain.errors import NoGradientError
from onnxplain_export import export


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> tuple[onnx.ModelProto, Explainer]:
    proto = quantized_models.quantized()
    bundle = export(
        proto, tmp_path_factory.mktemp("quantized") / "network.explain", quantized="straight-through", name="network"
    )
    return proto, Explainer(bundle, device="cpu")


def test_the_gradient_is_that_of_torchs_fake_quantisation(network: tuple[onnx.ModelProto, Explainer]) -> None:
    proto, explainer = network
    assert any("straight through" in change for change in explainer.bundle.source["changes"])
    images = np.random.default_rng(0).standard_normal((3, *explainer.bundle.image.shape[1:])).astype(np.float32)
    scores = explainer.scores(images)
    leaf = torch.tensor(images, requires_grad=True)  # in float64 other integers would come out
    theirs = quantized_models.in_torch(proto, leaf)
    theirs[torch.arange(3), torch.tensor(scores.argmax(1))].sum().backward()
    assert leaf.grad is not None
    truth = leaf.grad.numpy()
    difference = np.linalg.norm(explainer.gradient(images) - truth)
    assert difference <= 1e-5 * np.linalg.norm(truth)


def test_every_method_runs(network: tuple[onnx.ModelProto, Explainer]) -> None:
    _, explainer = network
    images = np.random.default_rng(1).standard_normal((2, *explainer.bundle.image.shape[1:])).astype(np.float32)
    for method in explainer.bundle.methods:
        assert explainer.explain(images, method).attribution.any()


def test_without_the_option_it_is_refused_by_node(tmp_path: Path) -> None:
    with pytest.raises(NoGradientError, match=r"QuantizeLinear \(node .*--quantized straight-through"):
        export(quantized_models.quantized(), tmp_path / "network.explain", methods=["gradient"])
