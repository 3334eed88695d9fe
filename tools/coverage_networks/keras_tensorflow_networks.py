"""Networks of Keras on TensorFlow, exported by tf2onnx: name → side of the picture, arguments of its constructor."""

import os
from pathlib import Path
from typing import Any

ARCHITECTURES: dict[str, tuple[int, dict[str, Any]]] = {
    "small_cnn": (32, {}),
    "separable_cnn": (32, {}),
    "upsampling_cnn": (32, {}),
    "ConvNeXtTiny": (64, {"include_preprocessing": False}),
    "EfficientNetB0": (64, {}),
    "MobileNetV2": (64, {}),
    "NASNetMobile": (64, {}),
    "ResNet50V2": (64, {}),
    "Xception": (96, {}),
}
ENVIRONMENT = "tensorflow"


def build(name: str, folder: Path) -> None:
    """Builds one of them with ten classes and converts it with tf2onnx."""
    os.environ["KERAS_BACKEND"] = "tensorflow"
    # All three are only in this source's own environment.
    import tensorflow
    import tf2onnx

    from coverage_networks import keras_case

    def answer(model: Any, images: Any, cotangent: Any) -> tuple[Any, Any]:
        rows = tensorflow.constant(images)
        with tensorflow.GradientTape() as tape:
            tape.watch(rows)
            output = model(rows, training=False)
            explained = tensorflow.reduce_sum(output * cotangent)
        return output.numpy(), tape.gradient(explained, rows).numpy()

    def write(model: Any, file: Path) -> str:
        function = tensorflow.function(lambda image: model(image, training=False))
        signature = [tensorflow.TensorSpec([None, *model.input_shape[1:]], tensorflow.float32, name="image")]
        tf2onnx.convert.from_function(function, signature, opset=17, output_path=str(file))
        return "tf2onnx"

    keras_case.finish(name, *ARCHITECTURES[name], answer, write, folder, ["keras", "tensorflow_cpu", "tf2onnx"])
