"""Networks written in plain torch: name → shape of one input."""

from pathlib import Path
from typing import Any

from coverage_networks.case import SEED, images

ARCHITECTURES: dict[str, tuple[int, ...]] = {
    "mlp": (20,),
    "lstm": (12, 6),
    "gru": (12, 6),
    "conv_1d": (2, 128),
    "conv_3d": (1, 8, 16, 16),
    "u_net": (3, 32, 32),
    "transformer_encoder": (10, 16),
}
SEGMENTATION = ("u_net",)
ENVIRONMENT = "torch"


def build(name: str, folder: Path) -> None:
    """Builds one of them."""
    # torch is only in this source's own environment.
    from coverage_networks import torch_case, torch_modules

    torch_case.torch.manual_seed(SEED)
    module = getattr(torch_modules, name)()
    inputs: dict[str, Any] = {"features": images(ARCHITECTURES[name])}
    torch_case.finish(torch_case.TorchNetwork(module, inputs, name not in SEGMENTATION), folder, [])
