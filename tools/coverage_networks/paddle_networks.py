"""Networks of Paddle, exported by paddle2onnx: name → side of the picture."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from coverage_networks.case import MODEL, SEED, Case, images, own_gradients, steadiest, top_classes

ARCHITECTURES = {
    "le_net": 28,
    "resnet18": 64,
    "mobilenet_v2": 64,
    "squeezenet1_1": 64,
    "shufflenet_v2_x1_0": 64,
}
ENVIRONMENT = "paddle"
CHANNELS = {"le_net": 1}


def build(name: str, folder: Path) -> None:
    """Builds one of them, with ten classes."""
    import paddle  # only in this source's own environment

    paddle.seed(SEED)
    side = ARCHITECTURES[name]
    rows = images((CHANNELS.get(name, 3), side, side))
    model = _maker(name)()
    calibrate(model, rows.shape[1:])
    signature = [paddle.static.InputSpec([None, *rows.shape[1:]], "float32", "image")]
    paddle.onnx.export(model, str(folder / Path(MODEL).stem), input_spec=signature, opset_version=17)
    paddle.set_default_dtype("float64")
    double = _maker(name)()
    double.eval()
    double.set_state_dict({key: value.astype("float64") for key, value in model.state_dict().items()})

    def own(given: Any, cotangent: Any) -> list[Any]:
        return own_gradients(lambda *arrays: answer(model, *arrays)[1], given, cotangent)

    rows = steadiest(rows, lambda given: reference(double, given), own)
    outputs, cotangent, gradient = reference(double, rows.astype(np.float64))
    Case(
        inputs={"image": rows},
        outputs=outputs,
        gradient=gradient,
        gradients32=own(rows, cotangent),
        cotangent=cotangent,
        targets=cotangent.argmax(1),
        exporter="paddle2onnx",
        packages=["paddlepaddle", "paddle2onnx"],
    ).write(folder)


def _maker(name: str) -> Callable[[], Any]:
    from paddle.vision import models  # heavy

    if name == "le_net":
        return models.LeNet
    return lambda: getattr(models, name)(pretrained=False, num_classes=10)


def calibrate(model: Any, shape: Any) -> None:
    """Replaces the statistics of normalisation by those of random images, and its scales and shifts by random ones."""
    import paddle  # heavy

    norms = [layer for layer in model.sublayers() if isinstance(layer, paddle.nn.BatchNorm2D)]
    model.eval()
    for layer in norms:
        layer.weight.set_value(paddle.uniform(layer.weight.shape, min=0.7, max=1.3))
        layer.bias.set_value(paddle.uniform(layer.bias.shape, min=0.5, max=1.5))  # most units are then active
        layer._momentum = 0.0
        layer.train()
    with paddle.no_grad():
        model(paddle.randn([16, *shape]))
    model.eval()


def reference(double: Any, rows: Any) -> tuple[Any, Any, Any]:
    """The outputs in float64, the cotangent of the top classes, and its gradient."""
    outputs, _ = answer(double, rows, None)
    _, cotangent = top_classes(outputs)
    return outputs, cotangent, answer(double, rows, cotangent)[1]


def answer(model: Any, rows: Any, cotangent: Any) -> tuple[Any, Any]:
    """The output for a batch, and the gradient of its product with the cotangent."""
    import paddle  # heavy

    given = paddle.to_tensor(rows, stop_gradient=False)
    output = model(given)
    if cotangent is None:
        return output.numpy(), None
    (gradient,) = paddle.grad((output * paddle.to_tensor(cotangent)).sum(), [given])
    return output.numpy(), gradient.numpy()
