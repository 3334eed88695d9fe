"""Adds the gradient graph to any ONNX classifier and writes the explainer bundle."""

from onnxplain_export.autodiff import differentiate
from onnxplain_export.check.checking import check
from onnxplain_export.exporting import export
from onnxplain_export.refreshing import refresh
from onnxplain_export.single import export_single

__all__ = ["check", "differentiate", "export", "export_single", "refresh"]
