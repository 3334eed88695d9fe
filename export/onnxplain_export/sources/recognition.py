"""Tells by its type's module or a file's name what a model was made with, without importing any framework."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onnxplain.errors import ModelError

TAKEN = (
    "a path to an ONNX file, a ModelProto, an onnx_ir.Model, a torch module, ExportedProgram or ONNXProgram, a Keras "
    "model, or a scikit-learn estimator or pipeline"
)
"""What export() takes."""

CONVERTERS: Mapping[str, str] = {
    "tensorflow": "convert it with tf2onnx (tf2onnx.convert.from_function, or python -m tf2onnx.convert)",
    "tf_keras": "convert it with tf2onnx (tf2onnx.convert.from_keras)",
    "jax": "convert it with jax2onnx (jax2onnx.to_onnx)",
    "jaxlib": "convert it with jax2onnx (jax2onnx.to_onnx)",
    "flax": "convert it with jax2onnx (jax2onnx.to_onnx)",
    "equinox": "convert it with jax2onnx (jax2onnx.to_onnx)",
    "paddle": "convert it with paddle2onnx (paddle.onnx.export)",
    "mindspore": "export it with mindspore.export(..., file_format='ONNX')",
    "xgboost": "convert it with onnxmltools; but trees have a zero gradient",
    "lightgbm": "convert it with onnxmltools; but trees have a zero gradient",
    "catboost": "save it with save_model(..., format='onnx'); but trees have a zero gradient",
    "builtins": "a JAX function is converted by jax2onnx, a TensorFlow function by tf2onnx",
}
"""By the top package of an object's type: the way to ONNX."""

LOADERS: Mapping[str, str] = {
    ".keras": "load it with keras.saving.load_model() and give the model",
    ".h5": "load it with keras.saving.load_model() and give the model",
    ".hdf5": "load it with keras.saving.load_model() and give the model",
    ".pt": "load it with torch and give the module with example=",
    ".pth": "load it with torch and give the module with example=",
    ".ckpt": "load it with its framework and give the module with example=",
    ".safetensors": "these are weights alone: load them into their torch module and give that with example=",
    ".pt2": "load it with torch.export.load() and give the program",
    ".pb": "convert it with python -m tf2onnx.convert",
    ".tflite": "convert it with python -m tf2onnx.convert --tflite",
    ".pdmodel": "convert it with paddle2onnx",
    ".pkl": "load it with pickle or joblib and give the estimator",
    ".pickle": "load it with pickle or joblib and give the estimator",
    ".joblib": "load it with joblib and give the estimator",
    ".ort": "this is onnxruntime's own format: give the ONNX file that it was made from",
    ".mlmodel": "convert it with onnxmltools",
}
"""By the suffix of a file that isn't ONNX: what to do with it."""


def frameworks(given: Any) -> set[str]:
    """The top packages of the classes that an object's type inherits from: {"torch"}, {"keras", "torch"}, …"""
    return {_package(base.__module__) for base in type(given).__mro__}


def _package(module: str) -> str:
    """The top package of a module; Keras 2, which had TensorFlow alone, goes by its present name."""
    return "tf_keras" if module.startswith(("keras.engine", "keras.src.engine")) else module.partition(".")[0]


def refusal(given: Any) -> str:
    """Why an object can't be exported, and what turns it into something that can."""
    kind = type(given).__name__
    if isinstance(given, type):
        return f"can't export the class {given.__name__}; give a model made from it"
    known = [CONVERTERS[name] for name in sorted(frameworks(given)) if name in CONVERTERS and name != "builtins"]
    if not known and callable(given):
        known = [CONVERTERS["builtins"]]
    return f"can't export a {kind}; {known[0]}" if known else f"can't export a {kind}; give {TAKEN}"


def refuse_other_file(path: Path) -> None:
    """ModelError where no file lies at `path`, or one that another tool must read."""
    if path.is_dir() and (path / "saved_model.pb").exists():
        raise ModelError(f"{path}: a TensorFlow SavedModel; convert it with python -m tf2onnx.convert --saved-model")
    if path.is_dir() and (path / "explainer.json").exists():
        raise ModelError(f"{path}: already a bundle; give the model that it was made from")
    if not path.is_file():
        raise ModelError(f"{path}: no such file" if not path.exists() else f"{path}: is not a file")
    advice = LOADERS.get(path.suffix.lower())
    if advice is not None:
        raise ModelError(f"{path}: not an ONNX model; {advice}")
