"""What people have in hand → an ONNX graph: files and protos, and one module for each framework."""

from onnxplain_export.sources.source import Source, read_source

__all__ = ["Source", "read_source"]
