"""One file, one Run: a method with its step table, defaults and weights inside a single ONNX file.

The other product of a bundle's graphs: what the engine does around them is done by the file itself.
"""

from onnxplain_export.single.writing import export_single

__all__ = ["export_single"]
