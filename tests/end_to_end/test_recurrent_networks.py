"""Recurrent networks and loops, exported by torch as people do it, are explained at their input sequence."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from onnxplain import Explainer
from onnxplain_export import export


class Reader(nn.Module):
    """Reads a sequence [N, steps, features] and classifies it by the last state."""

    def __init__(self, layer: type[nn.LSTM] | type[nn.GRU] | type[nn.RNN]) -> None:
        super().__init__()
        self.layer = layer(5, 7, batch_first=True, bidirectional=True)
        self.head = nn.Linear(14, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x)[0][:, -1])


@pytest.mark.filterwarnings("ignore")  # the old exporter warns of its own age, and of the batch size it bakes in
@pytest.mark.parametrize("layer", [nn.LSTM, nn.GRU, nn.RNN])
def test_gradient_is_torchs_with_the_batch_freed(layer: type[nn.LSTM], tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Reader(layer).eval()
    torch.onnx.export(network, (torch.zeros(1, 6, 5),), tmp_path / "net.onnx", dynamo=False, opset_version=17)
    bundle = export(tmp_path / "net.onnx", tmp_path / "net.explain", methods=["gradient", "integrated_gradients"])
    rows = np.random.default_rng(0).standard_normal((4, 6, 5)).astype(np.float32)
    truth = torch.from_numpy(rows).double().requires_grad_()
    copy.deepcopy(network).double()(truth)[:, 1].sum().backward()
    assert truth.grad is not None
    ours = Explainer(bundle, device="cpu").gradient(rows, 1)
    np.testing.assert_allclose(ours, truth.grad.numpy(), rtol=1e-4, atol=1e-6)
