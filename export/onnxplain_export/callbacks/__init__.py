"""Trackers during training: Watch for a plain loop, and the same as a callback of Lightning, Keras and transformers.

Watch, LightningWatch, KerasWatch and TrainerWatch; help(Watch) says what all of them take.
"""

import importlib
from typing import TYPE_CHECKING, Any

from onnxplain.errors import OnnxplainError

if TYPE_CHECKING:
    from onnxplain_export.callbacks.keras_callback import KerasWatch
    from onnxplain_export.callbacks.lightning_callback import LightningWatch
    from onnxplain_export.callbacks.trainer_callback import TrainerWatch
    from onnxplain_export.callbacks.watching import Watch

__all__ = ["KerasWatch", "LightningWatch", "TrainerWatch", "Watch"]

MODULES = {
    "KerasWatch": "keras_callback",
    "LightningWatch": "lightning_callback",
    "TrainerWatch": "trainer_callback",
    "Watch": "watching",
}
PACKAGES = {
    "keras": "keras",
    "lightning": "lightning",
    "pytorch_lightning": "lightning",
    "transformers": "transformers",
}
"""What is installed for a package that a callback lacks."""
BACKENDS = ("tensorflow", "jax")


def __getattr__(name: str) -> Any:
    # A class is imported when it is asked for: each needs a framework, and none of them all.
    if name not in MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(f"{__name__}.{MODULES[name]}"), name)
    except ModuleNotFoundError as error:
        package = PACKAGES.get(str(error.name).partition(".")[0])
        if error.name in BACKENDS and name == "KerasWatch":
            raise OnnxplainError(
                f"Keras would run on {error.name}, which isn't installed; set KERAS_BACKEND=torch before it is imported"
            ) from error
        if package is None:
            raise
        raise OnnxplainError(f"{name} needs {package}: pip install {package}") from error
