"""Networks of timm: name → side of the picture, and arguments of its constructor."""

from pathlib import Path
from typing import Any

from coverage_networks.case import SEED, images
from coverage_networks.torchvision_networks import import_torchvision

ARCHITECTURES: dict[str, tuple[int, dict[str, Any]]] = {
    "test_byobnet": (96, {}),
    "test_convnext3": (96, {}),
    "test_efficientnet_evos": (96, {}),
    "test_efficientnet_gn": (96, {}),
    "test_mambaout": (96, {}),
    "test_nfnet": (96, {}),
    "test_vit3": (96, {"img_size": 96}),
    "test_vit4": (96, {"img_size": 96}),
    "cait_xxs24_224": (64, {"img_size": 64}),
    "coatnet_nano_rw_224": (64, {"img_size": 64}),
    "convmixer_768_32": (42, {}),
    "cspresnet50": (64, {}),
    "dla34": (32, {}),
    "edgenext_xx_small": (64, {}),
    "eva02_tiny_patch14_224": (70, {"img_size": 70}),
    "fastvit_t8": (64, {}),
    "ghostnet_100": (64, {}),
    "gmixer_12_224": (64, {"img_size": 64}),
    "hrnet_w18_small": (64, {}),
    "levit_128s": (224, {}),
    "maxxvit_rmlp_nano_rw_256": (64, {"img_size": 64}),
    "mixer_s32_224": (64, {"img_size": 64}),
    "mobilenetv4_conv_small": (64, {}),
    "mobilevit_xxs": (64, {}),
    "nfnet_l0": (64, {}),
    "poolformer_s12": (64, {}),
    "repvgg_a0": (64, {}),
    "res2net50_14w_8s": (64, {}),
    "resmlp_12_224": (64, {"img_size": 64}),
    "tinynet_e": (64, {}),
    "volo_d1_224": (64, {"img_size": 64}),
    "xcit_nano_12_p16_224": (64, {"img_size": 64}),
}
ENVIRONMENT = "torch"


def build(name: str, folder: Path) -> None:
    """Builds one of them with ten classes."""
    # Both are only in this source's own environment.
    from coverage_networks import torch_case

    import_torchvision()
    import timm

    side, arguments = ARCHITECTURES[name]
    torch_case.torch.manual_seed(SEED)
    module = timm.create_model(name, pretrained=False, num_classes=10, **arguments)
    torch_case.finish(torch_case.TorchNetwork(module, {"image": images((3, side, side))}), folder, ["timm"])
