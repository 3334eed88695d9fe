"""Trains the head of a detector on features; the one module beside torch's source that imports torch.

DeConf-C: Hsu, Shen, Jin, Kira: Generalized ODIN (2020, arXiv:2002.11297). Only pictures of the kind that the
network was trained for are used.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from onnxplain_export.graphs.masked import NORM_ROOM

MOMENTUM, DECAY = 0.9, 1e-4
SLOWER, EVERY = 0.1, 30
"""The learning rate is multiplied by the first after as many epochs as the second says."""


@dataclass(frozen=True)
class Training:
    """How the head is trained: by gradient descent with momentum, in shuffled batches."""

    epochs: int = 90
    learning_rate: float = 0.1
    batch: int = 16
    seed: int = 0


def train_head(
    features: NDArray[np.float32], labels: NDArray[np.int64], classes: int, sigmoid: bool, training: Training
) -> NDArray[np.float32]:
    """The weight [classes, F] of a head that tells the labels [P] of features [P, F] by their cosines h.

    While it learns, the logits are h / g with g = σ(BatchNorm(linear(f))), which takes up how sure the network is; h
    alone is the detector. The loss is softmax cross-entropy, or that of independent classes where `sigmoid` is True.
    """
    generator = torch.Generator().manual_seed(training.seed)
    inputs, targets = torch.from_numpy(features), torch.from_numpy(labels)
    width = features.shape[1]
    weight = (torch.randn(classes, width, generator=generator) * (2 / width) ** 0.5).requires_grad_()
    divisor = (torch.randn(1, width, generator=generator) * (2 / width) ** 0.5).requires_grad_()
    bias = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD(
        [weight, divisor, bias], lr=training.learning_rate, momentum=MOMENTUM, weight_decay=DECAY
    )
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, EVERY, SLOWER)
    with torch.enable_grad():
        for _ in range(training.epochs):
            order = torch.randperm(len(inputs), generator=generator)
            for start in range(0, len(inputs), training.batch):
                chosen = order[start : start + training.batch]
                if len(chosen) < 2:
                    continue  # one picture has no spread for the normalisation
                logits = cosines(inputs[chosen], weight) / _divisor(inputs[chosen], divisor, bias)
                optimizer.zero_grad()
                torch.autograd.backward([_loss(logits, targets[chosen], sigmoid)])
                optimizer.step()
            schedule.step()
    return weight.detach().numpy()


def cosines(features: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """h [rows, classes], in [−1, 1]."""
    return _unit(features) @ _unit(weight).T


def _unit(rows: torch.Tensor) -> torch.Tensor:
    return rows / (rows.norm(dim=1, keepdim=True) + NORM_ROOM)


def _divisor(features: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    answer = features @ weight.T + bias
    return torch.sigmoid(torch.nn.functional.batch_norm(answer, None, None, training=True))


def _loss(logits: torch.Tensor, targets: torch.Tensor, sigmoid: bool) -> torch.Tensor:
    if not sigmoid:
        return torch.nn.functional.cross_entropy(logits, targets)
    several = torch.nn.functional.one_hot(targets, logits.shape[1]).to(logits.dtype)
    return torch.nn.functional.binary_cross_entropy_with_logits(logits, several)
