"""Small networks in torch that Captum's hooks can follow, and the graphs made of them."""

import functools
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor, nn

import small_models
from networks import randomised
from onnxplain_export.normalize import Normalized, normalize
from onnxplain_export.sources import read_source

Array = np.ndarray[Any, Any]


class Copy(nn.Module):
    """x in a tensor of its own: Captum 0.9 hooks tensors, and reads the first of two hooks on one before the second."""

    def forward(self, x: Tensor) -> Tensor:
        return x.clone()


class Sum(nn.Module):
    """a + b, as a module that hooks can see."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a + b


class Plain(nn.Module):
    """Convolutions, ReLU, max and average pools, a dense head; the last row and column fit no window."""

    shape = (3, 19, 27)

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.relu1, self.copy = nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Dropout()
        self.pool1, self.conv2, self.relu2 = nn.MaxPool2d(2), nn.Conv2d(8, 12, 3, stride=2), nn.ReLU()
        self.pool2, self.hidden, self.relu3 = nn.AvgPool2d(2), nn.Linear(12 * 2 * 3, 9), nn.ReLU()
        self.head = nn.Linear(9, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool1(self.copy(self.relu1(self.conv1(x))))
        x = torch.flatten(self.pool2(self.relu2(self.conv2(x))), 1)
        return self.head(self.relu3(self.hidden(x)))


class Residual(nn.Module):
    """Two residual blocks with BatchNorm, the second one normalised before its convolution, and a global average."""

    shape = (3, 15, 21)

    def __init__(self, add: type[nn.Module] = Sum) -> None:
        super().__init__()
        self.stem, self.relu0 = nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.ReLU()
        self.conv1, self.norm1, self.relu1 = nn.Conv2d(6, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU()
        self.conv2, self.norm2, self.short = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Conv2d(6, 8, 1)
        self.add1, self.relu2 = add(), nn.ReLU()
        self.norm3, self.relu3, self.conv3 = nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1)
        self.add2, self.relu4, self.pool = add(), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu0(self.stem(x))
        y = self.norm2(self.conv2(self.relu1(self.norm1(self.conv1(x)))))
        x = self.relu2(self.add1(y, self.short(x)))
        x = self.relu4(self.add2(self.conv3(self.relu3(self.norm3(x))), x))
        return self.head(torch.flatten(self.pool(x), 1))


class Dense(nn.Module):
    """Three dense layers on 20 numbers."""

    shape = (20,)

    def __init__(self) -> None:
        super().__init__()
        self.first, self.relu = nn.Linear(20, 16), nn.ReLU()
        self.second, self.tanh, self.head = nn.Linear(16, 12), nn.Tanh(), nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.tanh(self.second(self.relu(self.first(x)))))


NETWORKS: dict[str, type[Any]] = {"plain": Plain, "residual": Residual, "dense": Dense}


@functools.cache
def network(name: str) -> Any:
    """One of the networks, its weights drawn from one seed."""
    torch.manual_seed(3)
    return randomised(NETWORKS[name]())


@functools.cache
def normalized(name: str) -> Normalized:
    return normalize(read_source(network(name), torch.zeros(1, *NETWORKS[name].shape)))


def images(name: str, count: int = 7, seed: int = 0) -> Array:
    return small_models.images(*NETWORKS[name].shape, count=count, seed=seed)


def targets(count: int = 7) -> Array:
    """A target for each image, [N, 1]."""
    return (np.arange(count, dtype=np.int64) * 2 % 5)[:, None]


def outputs(model: ir.Model, feeds: dict[str, Array]) -> dict[str, Array]:
    """All outputs of a graph by name."""
    session = small_models.session(ir.to_proto(model))
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def relative(a: Any, b: Any) -> float:
    """The relative L2 difference."""
    return float(np.linalg.norm(np.asarray(a) - np.asarray(b)) / np.linalg.norm(np.asarray(b)))
