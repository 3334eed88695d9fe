"""Occlusion under the preset "captum" against Captum itself, on three kinds of networks."""

import numpy as np
import pytest
import torch
from captum.attr import Occlusion
from torch import nn

from onnxplain import Explainer
from onnxplain_export import export

TARGETS = [2, 0]
GRIDS = [((5, 4), (3, 2)), ((4, 4), (4, 4)), ((7, 3), (2, 3)), ((3, 3), (1, 1))]
LARGEST_ERROR = 1e-4


class Residual(nn.Module):
    """Two paths that meet again."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.norm, self.head = nn.BatchNorm2d(8), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.stem(x))
        return self.head((y + torch.relu(self.norm(self.body(y)))).mean(dim=(2, 3)))


def plain() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(192, 4)
    )


def depthwise() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 9, 3, stride=2, groups=3),
        nn.GELU(),
        nn.Conv2d(9, 8, 1),
        nn.SiLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 4),
    )


@pytest.fixture(scope="module", params=[plain, Residual, depthwise])
def pair(request, tmp_path_factory):
    """A network, and an Explainer of it."""
    torch.manual_seed(1)
    network = request.param().eval()
    folder = tmp_path_factory.mktemp("captum") / "net.explain"
    export(network, folder, example=torch.zeros(1, 3, 14, 18), methods=["occlusion"])
    return network, Explainer(folder, device="cpu")


@pytest.mark.parametrize(("window", "stride"), GRIDS)
@pytest.mark.parametrize("fill", [0.0, 0.5])
def test_occlusion_is_captums(pair, window, stride, fill):
    network, explainer = pair
    images = torch.randn(2, 3, 14, 18, generator=torch.Generator().manual_seed(0))
    theirs = Occlusion(network).attribute(
        images, sliding_window_shapes=(3, *window), strides=(3, *stride), baselines=fill, target=torch.tensor(TARGETS)
    )
    ours = explainer.explain(
        images.numpy(), "occlusion", TARGETS, preset="captum", window=window, stride=stride, fill=fill
    ).attribution
    expected = theirs.numpy()
    error = np.linalg.norm(ours - expected[:, :1]) / np.linalg.norm(expected[:, :1])
    assert error <= LARGEST_ERROR
    np.testing.assert_array_equal(expected, expected[:, :1].repeat(3, axis=1))  # theirs is the same for all channels
