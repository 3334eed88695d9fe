"""The networks that the benchmark times: a torch module with its weights, and the same as an ONNX file."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
MODELS = ROOT / "models"
# Where ONNXPLAIN_REAL_MODELS names no other, a folder of published networks beside the repository.
PUBLISHED = Path(os.environ.get("ONNXPLAIN_REAL_MODELS") or ROOT.parent / "shared" / "models")
SQUEEZENET = PUBLISHED / "squeezenet_imagenet_fp16_opset7.onnx"
SEED = 0


@dataclass(frozen=True, slots=True)
class Network:
    """How to get one: `make` builds the torch module, `file` is its ONNX file where it has one of its own.

    `cam` is the module whose output Grad-CAM explains, where the network has one; `scale` is that of its pixels, and
    `preprocessing` how they come from pictures.
    """

    make: Callable[[], Any]
    side: int = 224
    file: Path | None = None
    cam: str | None = None
    segments: bool = False
    scale: float = 1.0
    preprocessing: Any = None


def _torchvision(name: str) -> Callable[[], Any]:
    def make() -> Any:
        from coverage_networks.torchvision_networks import import_torchvision  # needs torch

        return import_torchvision().models.get_model(name, weights=None)

    return make


def _timm(name: str) -> Callable[[], Any]:
    def make() -> Any:
        from coverage_networks.torchvision_networks import import_torchvision  # needs torch

        import_torchvision()  # timm imports it
        import timm

        return timm.create_model(name, pretrained=False)

    return make


def _unet() -> Any:
    from bench_modules import UNet  # needs torch

    return UNet()


def _shipped(name: str) -> Callable[[], Any]:
    def make() -> Any:
        from bench_modules import small_network  # needs torch

        return small_network(MODELS / f"{name}.onnx")

    return make


def _squeezenet() -> Any:
    from bench_modules import squeezenet  # needs torch

    return squeezenet(SQUEEZENET)


# The shipped networks' pixels go from −1 to 1.
_DIGITS = [
    {"step": "colour", "order": "RGB"},
    {"step": "scale", "factor": 1 / 127.5},
    {"step": "mean", "values": [1.0] * 3},
    {"step": "layout", "order": "NCHW"},
]
_ALL = {
    "resnet18": Network(_torchvision("resnet18"), cam="layer4"),
    "resnet50": Network(_torchvision("resnet50"), cam="layer4"),
    "vgg16": Network(_torchvision("vgg16"), cam="features.29"),
    "mobilenet_v2": Network(_torchvision("mobilenet_v2"), cam="features"),
    "mobilenet_v3_small": Network(_torchvision("mobilenet_v3_small"), cam="features"),
    "efficientnet_b0": Network(_torchvision("efficientnet_b0"), cam="features"),
    "densenet121": Network(_torchvision("densenet121"), cam="features"),
    "convnext_tiny": Network(_torchvision("convnext_tiny"), cam="features"),
    "regnet_y_400mf": Network(_torchvision("regnet_y_400mf"), cam="trunk_output"),
    "vit_small_patch16_224": Network(_timm("vit_small_patch16_224")),
    "swin_t": Network(_torchvision("swin_t")),
    "unet": Network(_unet, segments=True),
    "honest": Network(_shipped("honest"), side=64, file=MODELS / "honest.onnx", cam="blocks.2", preprocessing=_DIGITS),
    "shortcut": Network(
        _shipped("shortcut"), side=64, file=MODELS / "shortcut.onnx", cam="blocks.2", preprocessing=_DIGITS
    ),
    "squeezenet": Network(_squeezenet, file=SQUEEZENET, cam="classifier.2", scale=60.0, preprocessing="caffe"),
}
NETWORKS = {name: network for name, network in _ALL.items() if network.file is None or network.file.exists()}


def images(network: Network, count: int, seed: int = 1) -> Any:
    """Random pictures [count, 3, side, side] for it."""
    import numpy as np  # the list of names alone needs none

    drawn = np.random.default_rng(seed).standard_normal((count, 3, network.side, network.side))
    return (network.scale * drawn).astype(np.float32)


def module_and_file(name: str, work: Path) -> tuple[Any, Path]:
    """The torch module, its weights without gradients, and its ONNX file; both the same each time."""
    import torch  # only in the benchmark's own environment

    network = NETWORKS[name]
    torch.manual_seed(SEED)
    module = network.make().eval().requires_grad_(False)
    if network.file is None:
        _enliven(module, torch.from_numpy(images(network, 4, seed=2)))
    return module, network.file or _onnx_file(module, name, work)


def _enliven(module: Any, pictures: Any) -> None:
    """Takes BatchNorm's statistics from pictures: with those of fresh weights deep networks answer alike to all."""
    import torch

    norms = [part for part in module.modules() if isinstance(part, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
    with torch.no_grad():
        module(pictures)
    module.eval()


def _onnx_file(module: Any, name: str, work: Path) -> Path:
    """The module as torch exports it, kept from the last time."""
    import torch

    file = work / "networks" / f"{name}-{torch.__version__}.onnx"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        example = torch.from_numpy(images(NETWORKS[name], 2))
        program = torch.onnx.export(
            module,
            (example,),
            dynamo=True,
            verbose=False,
            input_names=["image"],
            output_names=["scores"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
        )
        partial = file.with_suffix(".partial")
        program.save(partial, external_data=False)
        partial.replace(file)
    return file
