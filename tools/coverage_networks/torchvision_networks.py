"""Networks of torchvision: name → side of the picture, and arguments of its constructor."""

import sys
from pathlib import Path
from typing import Any

from coverage_networks.case import SEED, images

CLASSIFIERS: dict[str, tuple[int, dict[str, Any]]] = {
    "alexnet": (64, {}),
    "convnext_tiny": (64, {}),
    "densenet121": (32, {}),
    "efficientnet_b0": (64, {}),
    "efficientnet_v2_s": (64, {}),
    "googlenet": (64, {"init_weights": False}),
    "inception_v3": (96, {"init_weights": False}),
    "maxvit_t": (224, {}),
    "mnasnet1_0": (64, {}),
    "mobilenet_v2": (64, {}),
    "mobilenet_v3_large": (64, {}),
    "mobilenet_v3_small": (64, {}),
    "regnet_x_400mf": (64, {}),
    "regnet_y_400mf": (64, {}),
    "resnet18": (64, {}),
    "resnet50": (32, {}),
    "resnext50_32x4d": (32, {}),
    "shufflenet_v2_x1_0": (64, {}),
    "squeezenet1_1": (64, {}),
    "swin_t": (64, {}),
    "swin_v2_t": (64, {}),
    "vgg11_bn": (32, {}),
    "vgg16": (32, {}),
    "vit_b_16": (64, {"image_size": 64}),
    "wide_resnet50_2": (32, {}),
}
SEGMENTATION: dict[str, tuple[int, dict[str, Any]]] = {
    "deeplabv3_mobilenet_v3_large": (64, {}),
    "fcn_resnet50": (32, {}),
    "lraspp_mobilenet_v3_large": (64, {}),
}
ARCHITECTURES = [*CLASSIFIERS, *SEGMENTATION]
ENVIRONMENT = "torch"


def build(name: str, folder: Path) -> None:
    """Builds one of them: ten classes, or a segmentation of five."""
    from coverage_networks import torch_case  # torch is only in this source's own environment

    torchvision = import_torchvision()
    torch_case.torch.manual_seed(SEED)
    if name in CLASSIFIERS:
        side, arguments = CLASSIFIERS[name]
        module = torchvision.models.get_model(name, weights=None, num_classes=10, **arguments)
    else:
        side, arguments = SEGMENTATION[name]
        made = torchvision.models.get_model(name, weights=None, weights_backbone=None, num_classes=5, **arguments)
        module = torch_case.Entry(made, "out")
    network = torch_case.TorchNetwork(module, {"image": images((3, side, side))}, classifies=name in CLASSIFIERS)
    torch_case.finish(network, folder, ["torchvision"])


_kept: list[Any] = []


def import_torchvision() -> Any:
    """torchvision, even where its compiled operators can't be loaded: with a torch without CUDA they can't."""
    import torch  # heavy, as is the next

    try:
        import torchvision
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        for module in [key for key in sys.modules if key.split(".")[0] == "torchvision"]:
            del sys.modules[module]
        library = torch.library.Library("torchvision", "FRAGMENT")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _kept.append(library)  # the registration lives as long as the library
        import torchvision
    return torchvision
