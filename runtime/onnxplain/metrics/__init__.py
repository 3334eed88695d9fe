"""Metrics of explanations: how faithful, well placed, stable and specific a method's maps are.

All of them need a bundle and onnxruntime alone. `METRICS` is the table of them.
"""

from onnxplain.metrics import (  # noqa: F401 (each registers its metrics)
    agreement,
    faithfulness,
    localization,
    mindspore,
    robustness,
    specificity,
)
from onnxplain.metrics.evaluation import Curve, Evaluation, evaluate, measure
from onnxplain.metrics.masks import mask_files, masks_for
from onnxplain.metrics.registry import METRICS, Measurement, Metric, find_metric, metric
from onnxplain.metrics.reweighting import layers_of, reweighted
from onnxplain.metrics.statistics import Summary
from onnxplain.metrics.subject import Subject, subjects_of

__all__ = [
    "METRICS",
    "Curve",
    "Evaluation",
    "Measurement",
    "Metric",
    "Subject",
    "Summary",
    "evaluate",
    "find_metric",
    "layers_of",
    "mask_files",
    "masks_for",
    "measure",
    "metric",
    "reweighted",
    "subjects_of",
]
