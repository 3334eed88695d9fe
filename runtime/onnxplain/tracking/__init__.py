"""What a network in training learns late or never: metrics by label and by sample, and maps, over its epochs."""

from onnxplain.tracking.following import Followed, follow
from onnxplain.tracking.instances import InstanceTracker
from onnxplain.tracking.labels import LabelTracker
from onnxplain.tracking.maps import TrackedMaps
from onnxplain.tracking.saliency import SaliencyTracker
from onnxplain.tracking.scoring import SAMPLE_METRICS, score_samples
from onnxplain.tracking.sinks import Notebook, PngFolder, publish
from onnxplain.tracking.summary import Band, Summary

__all__ = [
    "SAMPLE_METRICS",
    "Band",
    "Followed",
    "InstanceTracker",
    "LabelTracker",
    "Notebook",
    "PngFolder",
    "SaliencyTracker",
    "Summary",
    "TrackedMaps",
    "follow",
    "publish",
    "score_samples",
]
