"""Networks of JAX, exported by jax2onnx: name → shape of one input."""

from pathlib import Path
from typing import Any

import numpy as np

from coverage_networks.case import MODEL, Case, images, own_gradients, steadiest, top_classes

ARCHITECTURES: dict[str, tuple[int, ...]] = {
    "flax_mlp": (20,),
    "flax_cnn": (32, 32, 3),
    "flax_vit": (32, 32, 3),
    "equinox_mlp": (20,),
    "equinox_cnn": (3, 32, 32),
}
ENVIRONMENT = "jax"


def build(name: str, folder: Path) -> None:
    """Builds one of them, with five classes."""
    # Both are only in this source's own environment.
    import jax
    from jax2onnx import to_onnx

    from coverage_networks import jax_modules

    function = getattr(jax_modules, name)()
    shape = ARCHITECTURES[name]
    to_onnx(function, [("B", *shape)], return_mode="file", output_path=str(folder / MODEL), opset=20)

    def own(given: Any, cotangent: Any) -> list[Any]:
        with jax.enable_x64(False):
            return own_gradients(lambda *arrays: jax_modules.gradient(function, *arrays), given, cotangent)

    with jax.enable_x64(True):
        double = jax_modules.in_float64(function)
        rows = steadiest(images(shape), lambda given: reference(double, given), own)
        outputs, cotangent, gradient = reference(double, rows.astype(np.float64))
    Case(
        inputs={_input_name(folder / MODEL): rows},
        outputs=outputs,
        gradient=gradient,
        gradients32=own(rows, cotangent),
        cotangent=cotangent,
        targets=cotangent.argmax(1),
        exporter="jax2onnx",
        packages=["jax", "flax", "equinox", "jax2onnx"],
    ).write(folder)


def reference(double: Any, rows: Any) -> tuple[Any, Any, Any]:
    """The outputs in float64, the cotangent of the top classes, and its gradient."""
    from coverage_networks import jax_modules  # jax is only in this source's own environment

    outputs = np.asarray(double(rows))
    _, cotangent = top_classes(outputs)
    return outputs, cotangent, jax_modules.gradient(double, rows, cotangent)


def _input_name(file: Path) -> str:
    import onnx  # here, so that the exporter finds its own version of it first

    return onnx.load(file, load_external_data=False).graph.input[0].name
