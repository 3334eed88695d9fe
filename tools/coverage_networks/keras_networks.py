"""Networks of Keras, exported by Keras itself on torch: name → side of the picture, arguments of its constructor."""

import os
from pathlib import Path
from typing import Any

ARCHITECTURES: dict[str, tuple[int, dict[str, Any]]] = {
    "small_cnn": (32, {}),
    "separable_cnn": (32, {}),
    "ConvNeXtTiny": (64, {"include_preprocessing": False}),
    "DenseNet121": (64, {}),
    "EfficientNetB0": (64, {}),
    "MobileNetV2": (64, {}),
    "MobileNetV3Small": (64, {"include_preprocessing": False}),
    "NASNetMobile": (64, {}),
    "ResNet50V2": (64, {}),
    "Xception": (96, {}),
}
ENVIRONMENT = "torch"


def build(name: str, folder: Path) -> None:
    """Builds one of them with ten classes and exports it with Keras."""
    os.environ["KERAS_BACKEND"] = "torch"
    # Both are only in this source's own environment.
    import torch

    from coverage_networks import keras_case

    def answer(model: Any, images: Any, cotangent: Any) -> tuple[Any, Any]:
        rows = torch.from_numpy(images).requires_grad_()
        output = model(rows, training=False)
        (gradient,) = torch.autograd.grad((output * torch.from_numpy(cotangent)).sum(), rows)
        return output.detach().numpy(), gradient.numpy()

    def write(model: Any, file: Path) -> str:
        model.export(file, format="onnx", verbose=False)
        return "model.export"

    keras_case.finish(name, *ARCHITECTURES[name], answer, write, folder, ["keras", "torch", "onnxscript"])
