"""The three networks of the portability table: small, with lively random weights, and all that is awkward in theirs."""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

SIDE = 32
CLASSES = 7


def lively(module: nn.Module, seed: int) -> nn.Module:
    """The module for inference, its parameters and statistics drawn so that neither scores nor gradients fade."""
    generator = torch.Generator().manual_seed(seed)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean = torch.randn(part.num_features, generator=generator) * 0.1
            part.running_var = torch.rand(part.num_features, generator=generator) + 0.5
            part.weight.data = torch.rand(part.num_features, generator=generator) + 0.5
            part.bias.data = torch.randn(part.num_features, generator=generator) * 0.2
        elif isinstance(part, nn.LayerNorm):
            part.weight.data = torch.rand(part.normalized_shape, generator=generator) + 0.5
            part.bias.data = torch.randn(part.normalized_shape, generator=generator) * 0.2
        elif isinstance(part, nn.Conv2d | nn.Linear):
            inputs = part.weight[0].numel()
            part.weight.data = torch.randn(part.weight.shape, generator=generator) * (2 / inputs) ** 0.5
            if part.bias is not None:
                part.bias.data = torch.randn(part.bias.shape, generator=generator) * 0.1
    return module.eval()


class Block(nn.Module):
    """ResNet's basic block."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs))
        self.second = nn.Sequential(nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs))
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """[N, inputs, H, W] to [N, outputs, H / stride, W / stride]."""
        return functional.relu(self.second(functional.relu(self.first(x))) + self.shortcut(x))


class Fire(nn.Module):
    """SqueezeNet's squeeze and two expansions side by side, pooled without padding."""

    def __init__(self, inputs: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeezed, 1)
        self.one, self.three = nn.Conv2d(squeezed, expanded, 1), nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """[N, inputs, H, W] to [N, 2 · expanded, H, W]."""
        x = functional.relu(self.squeeze(x))
        return torch.cat([functional.relu(self.one(x)), functional.relu(self.three(x))], dim=1)


def cnn() -> nn.Module:
    """ResNet's stem and blocks, SqueezeNet's fire, a convolution of stride 3, pools, a square linear layer."""
    return lively(
        nn.Sequential(
            *(nn.Conv2d(3, 16, 7, 2, 3, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(3, 2, 1)),
            *(Block(16, 16, 1), Block(16, 32, 2), Fire(32, 8, 16), nn.Conv2d(32, 32, 3, 3, 1), nn.ReLU()),
            *(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, CLASSES)),
        ),
        seed=1,
    )


class Padded(nn.Module):
    """A convolution of stride 2 that is padded as TensorFlow's SAME: more at the end than at the beginning."""

    def __init__(self, inputs: int, outputs: int, side: int, groups: int = 1) -> None:
        super().__init__()
        self.pads = ((side - 2) // 2, (side - 1) // 2) * 2
        self.conv = nn.Conv2d(inputs, outputs, side, 2, 0, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """[N, inputs, H, W] to [N, outputs, H / 2, W / 2]."""
        return self.norm(self.conv(functional.pad(x, self.pads)))


class Inverted(nn.Module):
    """MobileNet's inverted residual: widened, filtered channel by channel, weighed by squeeze-and-excite, narrowed."""

    def __init__(self, inputs: int, outputs: int, side: int, stride: int, squeezes: bool, act: type[nn.Module]) -> None:
        super().__init__()
        wide = 4 * inputs
        self.widen = nn.Sequential(nn.Conv2d(inputs, wide, 1, bias=False), nn.BatchNorm2d(wide), act())
        filtering = (
            [Padded(wide, wide, side, wide)]
            if stride == 2
            else [nn.Conv2d(wide, wide, side, 1, side // 2, groups=wide, bias=False), nn.BatchNorm2d(wide)]
        )
        self.filter = nn.Sequential(*filtering, act())
        self.down, self.up = (nn.Conv2d(wide, 8, 1), nn.Conv2d(8, wide, 1)) if squeezes else (None, None)
        self.narrow = nn.Sequential(nn.Conv2d(wide, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """[N, inputs, H, W] to [N, outputs, H / stride, W / stride]."""
        y = self.filter(self.widen(x))
        if self.down is not None and self.up is not None:
            y = y * functional.hardsigmoid(self.up(functional.relu(self.down(y.mean((2, 3), keepdim=True)))))
        y = self.narrow(y)
        return x + y if self.residual else y


def mobilenet() -> nn.Module:
    """Pads that differ at both ends, depthwise convolutions, ReLU6, hard swish, squeeze-excite, SqueezeNet's end."""
    return lively(
        nn.Sequential(
            *(Padded(3, 8, 3), nn.Hardswish()),
            *(Inverted(8, 8, 3, 1, False, nn.ReLU6), Inverted(8, 12, 3, 2, False, nn.ReLU6)),
            *(Inverted(12, 12, 5, 1, True, nn.Hardswish), Inverted(12, 16, 5, 2, True, nn.Hardswish)),
            *(nn.Conv2d(16, 48, 1), nn.SiLU()),
            *(nn.Conv2d(48, CLASSES, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        ),
        seed=2,
    )


class Layer(nn.Module):
    """A transformer's layer: normalisation, attention, two linear layers with Gelu."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.wide, self.narrow = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """[N, tokens, width] to the same."""
        n, tokens, width = x.shape
        split = self.qkv(self.before(x)).reshape(n, tokens, 3, self.heads, width // self.heads)
        q, k, v = split.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, tokens, width)
        x = x + self.out(mixed)
        return x + self.narrow(functional.gelu(self.wide(self.between(x))))


class Transformer(nn.Module):
    """A vision transformer with patches of 8 × 8 and a class token."""

    def __init__(self, width: int = 24, heads: int = 3) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 8, 8)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(torch.zeros(1, (SIDE // 8) ** 2 + 1, width))
        self.layers = nn.Sequential(Layer(width, heads), Layer(width, heads))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 3, SIDE, SIDE] to scores [N, CLASSES]."""
        patches = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(x.shape[0], -1, -1), patches], dim=1) + self.position
        return self.head(self.norm(self.layers(tokens))[:, 0])


def vit() -> nn.Module:
    """A small vision transformer."""
    module = Transformer()
    generator = torch.Generator().manual_seed(3)
    module.token.data = torch.randn(module.token.shape, generator=generator)
    module.position.data = torch.randn(module.position.shape, generator=generator)
    return lively(module, seed=3)


NETWORKS = {"CNN": cnn, "MobileNet": mobilenet, "ViT": vit}


def written(name: str, folder: Path) -> Path:
    """The network as an ONNX file in `folder`, any number of pictures."""
    file = folder / f"{name}.onnx"
    torch.onnx.export(
        NETWORKS[name](),
        (torch.zeros(2, 3, SIDE, SIDE),),
        file,
        input_names=["image"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        external_data=False,
        verbose=False,
    )
    return file
