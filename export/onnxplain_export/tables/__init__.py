"""Backward passes under other rules than the derivative's, one family a file."""

from onnxplain_export.tables.guided import DECONVOLUTION, GUIDED, activation_treatment
from onnxplain_export.tables.relevance import COMPOSITES, Composite

__all__ = ["COMPOSITES", "DECONVOLUTION", "GUIDED", "Composite", "activation_treatment"]
