"""Architectures with random weights, written in plain torch: the sources of end-to-end gradient tests."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


def randomised(module: nn.Module, seed: int = 0) -> nn.Module:
    """The module in evaluation mode, its BatchNorm statistics and affine parameters drawn at random."""
    generator = torch.Generator().manual_seed(seed)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean = torch.randn(part.num_features, generator=generator) * 0.1
            part.running_var = torch.rand(part.num_features, generator=generator) + 0.5
            part.weight.data = torch.rand(part.num_features, generator=generator) + 0.5
            part.bias.data = torch.randn(part.num_features, generator=generator) * 0.1
    return module.eval()


class Residual(nn.Module):
    """ResNet's basic block (He et al. 2015, arXiv:1512.03385)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


def resnet18(classes: int = 1000) -> nn.Module:
    """ResNet-18 with random weights, for 224×224 pictures."""
    torch.manual_seed(0)
    stem = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    widths = [64, 64, 128, 256, 512]
    blocks = []
    for stage in range(4):
        blocks += [Residual(widths[stage], widths[stage + 1], 1 if stage == 0 else 2)]
        blocks += [Residual(widths[stage + 1], widths[stage + 1], 1)]
    return randomised(nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, classes)))


class AsymmetricConv(nn.Module):
    """A strided convolution padded as TensorFlow's SAME does: one row and column more at the end than at the start."""

    def __init__(self, inputs: int, outputs: int, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, 2, 0, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(functional.pad(x, (0, 1, 0, 1))))


class SqueezeExcite(nn.Module):
    """Channel attention, with MobileNetV3's activations (Howard et al. 2019, arXiv:1905.02244)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(width, width // 4, 1)
        self.up = nn.Conv2d(width // 4, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        weight = functional.relu(self.down(x.mean((2, 3), keepdim=True)))
        return x * functional.hardsigmoid(self.up(weight))


def mobile_net(classes: int = 10) -> nn.Module:
    """A MobileNet-like network: asymmetric pads, depthwise convolutions, ReLU6, hard swish, squeeze-excite."""
    torch.manual_seed(1)
    return randomised(
        nn.Sequential(
            AsymmetricConv(3, 16),
            nn.Hardswish(),
            nn.Conv2d(16, 48, 1, bias=False),
            nn.BatchNorm2d(48),
            nn.ReLU6(),
            AsymmetricConv(48, 48, groups=48),
            nn.ReLU6(),
            SqueezeExcite(48),
            nn.Conv2d(48, 24, 1, bias=False),
            nn.BatchNorm2d(24),
            nn.Conv2d(24, 96, 1),
            nn.Hardswish(),
            nn.Conv2d(96, 96, 5, 1, 2, groups=96),
            nn.SiLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(96, classes),
        )
    )


class Attention(nn.Module):
    """A pre-norm transformer block (Dosovitskiy et al. 2020, arXiv:2010.11929)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        n, tokens, width = x.shape
        split = self.qkv(self.norm1(x)).reshape(n, tokens, 3, self.heads, width // self.heads)
        q, k, v = split.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, tokens, width)
        x = x + self.out(mixed)
        return x + self.mlp(self.norm2(x))


class VisionTransformer(nn.Module):
    """A vision transformer with a class token."""

    def __init__(
        self, size: int = 64, patch: int = 8, width: int = 48, depth: int = 2, heads: int = 4, classes: int = 10
    ) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.position = nn.Parameter(torch.randn(1, (size // patch) ** 2 + 1, width))
        self.blocks = nn.Sequential(*[Attention(width, heads) for _ in range(depth)])
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(x.shape[0], -1, -1), tokens], dim=1) + self.position
        return self.head(self.norm(self.blocks(tokens))[:, 0])


def vision_transformer(**options: Any) -> nn.Module:
    """A vision transformer with random weights."""
    torch.manual_seed(2)
    return VisionTransformer(**options).eval()
