"""What Keras networks share, whatever the backend: models, lively weights, gradients in float64 and float32."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

from coverage_networks.case import MODEL, SEED, Case, images, own_gradients, steadiest, top_classes

Array = NDArray[Any]
Answer = Callable[[Any, Array, Array], tuple[Array, Array]]


def finish(
    name: str,
    side: int,
    arguments: Mapping[str, Any],
    answer: Answer,
    write: Callable[[Any, Path], str],
    folder: Path,
    packages: Sequence[str],
) -> None:
    """Makes the network with lively weights, exports it and writes its case.

    `answer` gives a model's output for a batch, and the gradient of its product with a cotangent.
    """
    keras.utils.set_random_seed(SEED)
    model = made(name, side, arguments)
    calibrate(model)
    exporter = write(model, folder / MODEL)
    keras.config.set_floatx("float64")
    double = made(name, side, arguments)
    double.set_weights([weight.astype(np.float64) for weight in model.get_weights()])

    def own(given: Array, cotangent: Array) -> list[Array]:
        return own_gradients(lambda *arrays: answer(model, *arrays)[1], given, cotangent)

    rows = steadiest(images((side, side, 3)), lambda given: reference(double, given, answer), own)
    outputs, cotangent, gradient = reference(double, rows.astype(np.float64), answer)
    keras.config.set_floatx("float32")
    Case(
        inputs={_input_name(folder / MODEL): rows},
        outputs=outputs,
        gradient=gradient,
        gradients32=own(rows, cotangent),
        cotangent=cotangent,
        targets=cotangent.argmax(1),
        exporter=exporter,
        packages=packages,
    ).write(folder)


def reference(double: Any, rows: Array, answer: Answer) -> tuple[Array, Array, Array]:
    """The outputs in float64, the cotangent of the top classes, and its gradient."""
    outputs, _ = answer(double, rows, np.zeros((len(rows), 10)))
    _, cotangent = top_classes(outputs)
    return outputs, cotangent, answer(double, rows, cotangent)[1]


def made(name: str, side: int, arguments: Mapping[str, Any]) -> Any:
    """A network of this file, or one of keras.applications."""
    if name in SMALL:
        return keras.Sequential([keras.Input((side, side, 3)), *SMALL[name](), layers.Dense(10)])
    maker = getattr(keras.applications, name)
    return maker(weights=None, input_shape=(side, side, 3), classes=10, classifier_activation=None, **arguments)


def _small_cnn() -> list[Any]:
    return [
        layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False), layers.BatchNormalization(), layers.ReLU(),
        layers.MaxPooling2D(3, 2, padding="same"), layers.Conv2D(16, 3, padding="same", activation="swish"),
        layers.ZeroPadding2D(((0, 1), (0, 1))), layers.Conv2D(24, 3, strides=2, activation="elu"),
        layers.AveragePooling2D(2, padding="same"), layers.Flatten(),
    ]  # fmt: skip


def _separable_cnn() -> list[Any]:
    return [
        layers.SeparableConv2D(8, 3, padding="same", activation="mish"), layers.BatchNormalization(),
        layers.DepthwiseConv2D(3, strides=2, padding="same"), layers.LeakyReLU(),
        layers.GlobalMaxPooling2D(), layers.Dense(16, activation="tanh"),
    ]  # fmt: skip


def _upsampling_cnn() -> list[Any]:
    return [
        layers.Conv2D(8, 5, strides=4, padding="same", activation="relu"),
        layers.Conv2DTranspose(8, 3, strides=2, padding="same", activation="selu"),
        layers.UpSampling2D(2, interpolation="bilinear"), layers.LayerNormalization(), layers.GlobalAveragePooling2D(),
    ]  # fmt: skip


SMALL: dict[str, Callable[[], list[Any]]] = {
    "small_cnn": _small_cnn,
    "separable_cnn": _separable_cnn,
    "upsampling_cnn": _upsampling_cnn,
}


def calibrate(model: Any) -> None:
    """Replaces constant weights by random ones, and statistics of normalisation by those of random images."""
    generator = np.random.default_rng(SEED)
    for weight in model.trainable_weights:
        values = np.asarray(keras.ops.convert_to_numpy(weight))
        if (values == values.flat[0]).all():
            weight.assign(_instead_of(values, generator).astype(np.float32))
    norms = [layer for layer in model._flatten_layers() if isinstance(layer, layers.BatchNormalization)]
    for layer in norms:
        if layer.center:
            layer.beta.assign(generator.uniform(0.5, 1.5, layer.beta.shape))  # most units are then active
        layer.momentum = 0.0
    model(generator.standard_normal((16, *model.input_shape[1:])).astype(np.float32), training=True)
    for layer in norms:
        layer.momentum = 0.99


def _instead_of(constant: Array, generator: np.random.Generator) -> Array:
    value = float(constant.flat[0])
    if value == 0.0:
        return generator.uniform(-0.1, 0.1, constant.shape)
    return generator.uniform(0.7, 1.3, constant.shape) * (1.0 if abs(value) < 0.1 else value)


def _input_name(file: Path) -> str:
    import onnx  # here, so that the exporters find their own version of it first

    return onnx.load(file, load_external_data=False).graph.input[0].name
