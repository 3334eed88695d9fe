"""The exported gradient is torch's: networks of every kind, free and baked batch axes, against autograd in float64."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import networks
import torch_interpreter
from onnxplain import Explainer
from onnxplain_export import export

MODELS = Path(__file__).parents[2] / "models"
NETWORKS = {
    "resnet18": (networks.resnet18, 224),
    "mobile_net": (networks.mobile_net, 64),
    "vision_transformer": (networks.vision_transformer, 64),
}


def relative(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm((a - b).ravel()) / np.linalg.norm(b.ravel()))


def autograd(scores: "callable", images: np.ndarray, targets: list[int], dtype: torch.dtype) -> np.ndarray:
    rows = torch.from_numpy(images).to(dtype).requires_grad_()
    output: Tensor = scores(rows)
    output[torch.arange(len(targets)), torch.tensor(targets)].sum().backward()
    assert rows.grad is not None
    return rows.grad.double().numpy()


def assert_gradient_is_torchs(bundle: Path, scores32: "callable", scores64: "callable", images: np.ndarray) -> None:
    targets = [1, 3, 0][: len(images)]
    truth = autograd(scores64, images, targets, torch.float64)
    torchs_own = relative(autograd(scores32, images, targets, torch.float32), truth)
    ours = relative(Explainer(bundle, device="cpu").gradient(images, targets), truth)
    assert ours <= max(1e-5, 5 * torchs_own), (ours, torchs_own)


@pytest.mark.parametrize("name", NETWORKS)
def test_torch_module_with_free_batch(name: str, tmp_path: Path) -> None:
    make, size = NETWORKS[name]
    module = make()
    bundle = export(module, tmp_path / "net.explain", example=torch.zeros(1, 3, size, size), methods=["gradient"])
    images = np.random.default_rng(0).standard_normal((3, 3, size, size)).astype(np.float32)
    assert_gradient_is_torchs(bundle, module, copy.deepcopy(module).double(), images)


@pytest.mark.filterwarnings("ignore")  # the old exporter warns of its own age and limits
@pytest.mark.parametrize("name", NETWORKS)
def test_onnx_file_with_baked_batch(name: str, tmp_path: Path) -> None:
    make, size = NETWORKS[name]
    module = make()
    file = tmp_path / "net.onnx"
    torch.onnx.export(module, (torch.zeros(1, 3, size, size),), file, dynamo=False, opset_version=17)
    bundle = export(file, tmp_path / "net.explain", methods=["gradient"])
    images = np.random.default_rng(1).standard_normal((2, 3, size, size)).astype(np.float32)
    assert_gradient_is_torchs(bundle, module, copy.deepcopy(module).double(), images)


@pytest.mark.parametrize("name", ["honest", "shortcut"])
def test_shipped_networks(name: str, tmp_path: Path) -> None:
    file = MODELS / f"{name}.onnx"
    bundle = export(file, tmp_path / "net.explain", methods=["gradient"], preprocessing="timm-half")
    images = np.random.default_rng(2).standard_normal((3, 3, 64, 64)).astype(np.float32)

    def scores(rows: Tensor) -> Tensor:
        return torch_interpreter.scores(file, rows)

    assert_gradient_is_torchs(bundle, scores, scores, images)
