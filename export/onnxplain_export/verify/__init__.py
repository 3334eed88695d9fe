"""Proves a bundle against its source."""

from onnxplain_export.verify.verification import verify

__all__ = ["verify"]
