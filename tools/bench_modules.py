"""The benchmark's torch modules that no library has: a small U-Net, and twins of ONNX files that have weights."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from coverage_networks.torchvision_networks import import_torchvision
from small_network import SmallNetwork

WIDTHS = (16, 32, 64, 128)
CLASSES = 5


def _double_convolution(channels: int, width: int) -> nn.Module:
    layers = []
    for entering in (channels, width):
        layers += [nn.Conv2d(entering, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    return nn.Sequential(*layers)


class UNet(nn.Module):
    """Three levels down and up again, joined across: [N, 3, H, W] -> class scores [N, 5, H, W] (arXiv:1505.04597)."""

    def __init__(self) -> None:
        super().__init__()
        entering = (3, *WIDTHS)
        self.down = nn.ModuleList(_double_convolution(a, b) for a, b in zip(entering, WIDTHS, strict=False))
        self.enlarge = nn.ModuleList(nn.ConvTranspose2d(2 * width, width, 2, 2) for width in WIDTHS[:-1])
        self.up = nn.ModuleList(_double_convolution(2 * width, width) for width in WIDTHS[:-1])
        self.head = nn.Conv2d(WIDTHS[0], CLASSES, 1)

    def forward(self, image: Tensor) -> Tensor:
        """The scores of every pixel."""
        features, across = image, []
        for level, down in enumerate(self.down):
            features = down(features if level == 0 else nn.functional.max_pool2d(features, 2))
            across.append(features)
        for level in reversed(range(len(self.up))):
            features = self.up[level](torch.cat([across[level], self.enlarge[level](features)], 1))
        return self.head(features)


def small_network(file: Path) -> nn.Module:
    """The shipped network's module, with the weights of its file: they have the module's own names."""
    weights = _weights(file)
    network = SmallNetwork()
    wanted = network.state_dict()
    network.load_state_dict({key: torch.from_numpy(weights[key]) if key in weights else wanted[key] for key in wanted})
    return network


def squeezenet(file: Path) -> nn.Module:
    """torchvision's SqueezeNet 1.1 with the weights of the published file, whose layers come in the same order."""
    weights = _weights(file)
    layers = ["conv1"]
    for fire in range(2, 10):
        layers += [f"fire{fire}/{part}" for part in ("squeeze1x1", "expand1x1", "expand3x3")]
    network = import_torchvision().models.squeezenet1_1(weights=None)
    convolutions = [part for part in network.modules() if isinstance(part, nn.Conv2d)]
    with torch.no_grad():
        for layer, convolution in zip([*layers, "conv10"], convolutions, strict=True):
            convolution.weight.copy_(torch.from_numpy(weights[f"{layer}_w_0"]))
            convolution.bias.copy_(torch.from_numpy(weights[f"{layer}_b_0"]))
    return network


def _weights(file: Path) -> dict[str, Any]:
    graph = onnx.load(file).graph
    return {entry.name: np.array(numpy_helper.to_array(entry), np.float32) for entry in graph.initializer}
