"""Batch jobs: explaining whole data sets, with results that survive any interruption. See Job."""

from onnxplain.jobs.batches import ExplainBatch
from onnxplain.jobs.description import Output
from onnxplain.jobs.inspecting import status, verify
from onnxplain.jobs.job import Job
from onnxplain.jobs.limits import Limits
from onnxplain.jobs.reading import results

__all__ = ["ExplainBatch", "Job", "Limits", "Output", "results", "status", "verify"]
