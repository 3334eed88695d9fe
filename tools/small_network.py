"""The residual network of the shipped models, its training and export: what `tools/train_models.py` needs torch for."""

from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnxscript.optimizer import fold_constants, remove_unused_nodes
from torch import Tensor, nn

from digit_pictures import LABELS, SIDE, Bytes, prepare

WIDTHS = (16, 32, 64, 128)
BATCH = 64
Epoch = tuple[Bytes, NDArray[np.int64]]  # pictures [N, 64, 64, 3] and their classes [N]


class Block(nn.Module):
    """Two normalized 3x3 convolutions beside a normalized 1x1 convolution."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(width)
        self.second = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(width)
        self.shortcut = nn.Conv2d(channels, width, 1, bias=False)
        self.shortcut_norm = nn.BatchNorm2d(width)

    def forward(self, features: Tensor) -> Tensor:
        inner = torch.relu(self.first_norm(self.first(features)))
        return torch.relu(self.second_norm(self.second(inner)) + self.shortcut_norm(self.shortcut(features)))


class SmallNetwork(nn.Module):
    """A stem and three residual blocks with max pooling between them: [N, 3, 64, 64] -> logits [N, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, WIDTHS[0], 3, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(WIDTHS[0])
        self.blocks = nn.ModuleList([Block(*widths) for widths in pairwise(WIDTHS)])
        self.head = nn.Linear(WIDTHS[-1], len(LABELS))

    def forward(self, image: Tensor) -> Tensor:
        features = torch.relu(self.stem_norm(self.stem(image)))
        for block in self.blocks:
            features = block(nn.functional.max_pool2d(features, 2))
        return self.head(features.mean((2, 3)))


def train(epochs: Iterable[Epoch], count: int, seed: int, threads: int) -> SmallNetwork:
    """A network trained with AdamW and a one-cycle rate on `count` epochs of pictures."""
    torch.manual_seed(seed)
    torch.set_num_threads(threads)
    network = SmallNetwork().to(memory_format=torch.channels_last).train()  # 1.3x faster on a CPU than channels first
    adam = torch.optim.AdamW(network.parameters(), lr=4e-3, weight_decay=0.05)
    schedule = None
    for number, (images, classes) in enumerate(epochs, 1):
        per_epoch = len(classes) // BATCH
        schedule = schedule or torch.optim.lr_scheduler.OneCycleLR(adam, 4e-3, total_steps=count * per_epoch)
        losses = []
        for image, target in _batches(images, classes):
            # Smoothed labels keep the probabilities off 0 and 1, where occlusion would see nothing move.
            loss = nn.functional.cross_entropy(network(image), target, label_smoothing=0.05)
            adam.zero_grad()
            loss.backward()
            adam.step()
            schedule.step()
            losses.append(loss.item())
        print(f"  epoch {number}/{count}: loss {np.mean(losses):.3f}", flush=True)
    return network.eval()


def _batches(images: Bytes, classes: NDArray[np.int64]) -> Iterator[tuple[Tensor, Tensor]]:
    # The last, partial batch is left out: the epochs come in random order.
    for start in range(0, len(classes) - BATCH + 1, BATCH):
        rows = slice(start, start + BATCH)
        image = torch.from_numpy(prepare(images[rows])).contiguous(memory_format=torch.channels_last)
        yield image, torch.from_numpy(classes[rows])


def write_onnx(network: SmallNetwork, path: Path) -> None:
    """Write the network as ONNX of opset 20: batch axis free, BatchNormalization kept, exporter's notes removed."""
    example = torch.zeros(2, 3, SIDE, SIDE)
    program = torch.onnx.export(
        network.to(memory_format=torch.contiguous_format),
        (example,),
        dynamo=True,
        opset_version=20,
        optimize=False,  # the exporter's own optimization would fold BatchNormalization away
        verbose=False,
        input_names=["image"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
    )
    fold_constants(program.model)
    remove_unused_nodes(program.model)
    model = program.model_proto
    _strip(model)
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString(deterministic=True))


def _strip(model: onnx.ModelProto) -> None:
    """Remove the exporter's notes, which quote stack traces and thus paths."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")
