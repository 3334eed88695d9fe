"""The modules of torch_networks.py: one function each, which returns it."""

import torch
from torch import Tensor, nn


def mlp() -> nn.Module:
    """Fully connected layers, each with another activation."""
    return nn.Sequential(
        nn.Linear(20, 64), nn.ELU(), nn.Linear(64, 64), nn.Softplus(), nn.LayerNorm(64),
        nn.Linear(64, 32), nn.PReLU(), nn.Linear(32, 16), nn.Mish(), nn.Linear(16, 5),
    )  # fmt: skip


class Recurrent(nn.Module):
    """A recurrent layer in both directions, and a linear one on what it says last."""

    def __init__(self, layer: type[nn.RNNBase]) -> None:
        super().__init__()
        self.layer = layer(6, 16, num_layers=2, bidirectional=True, batch_first=True)
        self.classes = nn.Linear(32, 5)

    def forward(self, steps: Tensor) -> Tensor:
        """Logits [N, 5] of sequences [N, 12, 6]."""
        return self.classes(self.layer(steps)[0][:, -1])


def lstm() -> nn.Module:
    """An LSTM of two layers, in both directions."""
    return Recurrent(nn.LSTM)


def gru() -> nn.Module:
    """A GRU of two layers, in both directions."""
    return Recurrent(nn.GRU)


def conv_1d() -> nn.Module:
    """Convolutions over time, dilated, with pooling."""
    return nn.Sequential(
        nn.Conv1d(2, 16, 7, stride=2, padding=3), nn.BatchNorm1d(16), nn.ReLU(), nn.MaxPool1d(3, 2, 1),
        nn.Conv1d(16, 32, 3, dilation=2, padding=2), nn.GELU(), nn.AvgPool1d(2),
        nn.Conv1d(32, 32, 3, groups=4), nn.LeakyReLU(), nn.AdaptiveMaxPool1d(1), nn.Flatten(), nn.Linear(32, 5),
    )  # fmt: skip


def conv_3d() -> nn.Module:
    """Convolutions over space and time."""
    return nn.Sequential(
        nn.Conv3d(1, 8, 3, padding=1), nn.BatchNorm3d(8), nn.ReLU(), nn.MaxPool3d(2),
        nn.Conv3d(8, 16, 3, stride=(1, 2, 2), padding=1), nn.SiLU(), nn.AvgPool3d((2, 2, 2)),
        nn.Flatten(), nn.Linear(16 * 2 * 2 * 2, 5),
    )  # fmt: skip


class UNet(nn.Module):
    """A small U-Net: transposed convolution and bilinear upsampling, with both levels carried over."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = _block(3, 8), _block(8, 16), _block(16, 32)
        self.pool = nn.MaxPool2d(2)
        self.up, self.up_again = nn.ConvTranspose2d(32, 16, 2, stride=2), nn.Upsample(scale_factor=2, mode="bilinear")
        self.fourth, self.fifth = _block(32, 16), _block(24, 8)
        self.classes = nn.Conv2d(8, 4, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Logits [N, 4, H, W] of images [N, 3, H, W]."""
        first = self.first(image)
        second = self.second(self.pool(first))
        third = self.up(self.third(self.pool(second)))
        fourth = self.up_again(self.fourth(torch.cat([second, third], 1)))
        return self.classes(self.fifth(torch.cat([first, fourth], 1)))


def _block(before: int, after: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU())


def u_net() -> nn.Module:
    """A U-Net that tells four kinds of pixels apart."""
    return UNet()


class Encoder(nn.Module):
    """A transformer encoder over steps, and a linear layer on their mean."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, norm_first=True, activation="gelu")
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.classes = nn.Linear(16, 5)

    def forward(self, steps: Tensor) -> Tensor:
        """Logits [N, 5] of sequences [N, 10, 16]."""
        return self.classes(self.layers(steps).mean(1))


def transformer_encoder() -> nn.Module:
    """torch's own transformer encoder."""
    return Encoder()
