"""Batch jobs: explaining whole data sets, with results that survive any interruption. See Job."""

from onnxplain.jobs.description import Output
from onnxplain.jobs.job import Job, status, verify
from onnxplain.jobs.limits import Limits

__all__ = ["Job", "Limits", "Output", "status", "verify"]
