"""Explains the decisions of an ONNX image classifier from the bundle that `onnxplain export` made of it."""

from onnxplain.errors import (
    BundleError,
    DeviceError,
    ModelError,
    NoGradientError,
    OnnxplainError,
    OutputError,
    ParameterError,
    PictureError,
    VerificationError,
)
from onnxplain.explainer import Explainer
from onnxplain.result import Result
from onnxplain.version import __version__

__all__ = [
    "BundleError",
    "DeviceError",
    "Explainer",
    "ModelError",
    "NoGradientError",
    "OnnxplainError",
    "OutputError",
    "ParameterError",
    "PictureError",
    "Result",
    "VerificationError",
    "__version__",
]
