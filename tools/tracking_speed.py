"""What it costs to look at a training: a refresh against a new export, and the four columns of maps for five pictures.

python tools/tracking_speed.py [--rounds 5]; prints a Markdown table with medians. Needs torch and the extra [plots].
Both bundles of a network hold the same weights at the end, and their gradient maps are compared.
"""

import argparse
import copy
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnx
import torch

from environment import ROOT

sys.path.append(str(ROOT / "tests" / "support"))

from networks import resnet18
from onnxplain import Explainer
from onnxplain.tracking import SaliencyTracker
from onnxplain_export import export, refresh

PICTURES = 5


def main() -> int:
    """Prints one row for each network and way of giving its weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    print("| network | export, s | refresh, s | maps of both, largest difference | four columns of 5 pictures, s |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        honest = ROOT / "models" / "honest.onnx"
        later = Path(folder) / "later.onnx"
        onnx.save(_moved(onnx.load(honest)), later)
        _row("shipped network, ONNX file", honest, later, {}, Path(folder) / "honest", rounds)
        torch.manual_seed(0)
        before = resnet18(1000)
        example = {"example": torch.zeros(1, 3, 224, 224)}
        _row("ResNet-18, torch module", before, _trained(before), example, Path(folder) / "resnet", rounds)
    return 0


def _row(name: str, before: Any, after: Any, options: dict[str, Any], folder: Path, rounds: int) -> None:
    bundle, fresh = folder.with_suffix(".explain"), folder.with_suffix(".fresh.explain")
    export(before, bundle, **options)
    exporting, refreshing, drawing, differences = [], [], [], []
    for _ in range(rounds):
        exporting.append(_seconds(lambda: export(after, fresh, overwrite=True, **options)))
        refreshing.append(_seconds(lambda: refresh(bundle, after)))
        one, other = Explainer(bundle, device="cpu"), Explainer(fresh, device="cpu")
        images = np.random.default_rng(0).standard_normal((PICTURES, *_shape(one))).astype(np.float32)
        maps = [explainer.explain(images, "gradient").attribution for explainer in (one, other)]
        differences.append(float(np.abs(maps[0] - maps[1]).max() / np.abs(maps[1]).max()))
        tracker = SaliencyTracker(images)
        drawing.append(_seconds(lambda tracker=tracker: tracker.show(bundle, 1)))
    print(
        f"| {name} | {median(exporting):.1f} | {median(refreshing):.2f} | {max(differences):.1e} | "
        f"{median(drawing):.1f} ({SaliencyTracker().rows} gradients each) |",
        flush=True,
    )


def _shape(explainer: Explainer) -> list[int]:
    return [int(axis) for axis in explainer.bundle.image.shape[1:]]


def _seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def _moved(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with every float weight a little elsewhere."""
    generator = np.random.default_rng(1)
    for tensor in model.graph.initializer:
        content = onnx.numpy_helper.to_array(tensor)
        if content.dtype == np.float32:
            moved = content * generator.uniform(0.9, 1.1, content.shape)
            tensor.CopyFrom(onnx.numpy_helper.from_array(moved.astype(np.float32), tensor.name))
    return model


def _trained(module: torch.nn.Module) -> torch.nn.Module:
    """A copy of the module with every float a little elsewhere."""
    later = copy.deepcopy(module)
    with torch.no_grad():
        for tensor in [*later.parameters(), *later.buffers()]:
            if tensor.is_floating_point():
                tensor.mul_(1 + 0.1 * torch.rand_like(tensor))
    return later


if __name__ == "__main__":
    sys.exit(main())
