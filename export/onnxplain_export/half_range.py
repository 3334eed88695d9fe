"""By how much a cotangent is multiplied before it goes through a network in half precision."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxplain.errors import NoGradientError
from onnxplain.targets import TOP
from onnxplain_export.autodiff import reads
from onnxplain_export.emitter import Emitter
from onnxplain_export.evaluate import run, session_of
from onnxplain_export.graphs.gradient import gradient
from onnxplain_export.normalize import Normalized
from onnxplain_export.normalize.precision import to_float32
from onnxplain_export.verify.proof import Array, sample_feeds

MEASURED = "explainer/largest"
EXPONENT = 11
"""The largest cotangent of the images tried comes to between 2^10 and 2^11: others may have 32 times larger ones before
they overflow, and what is 2^24 times smaller still has all its digits."""
WIDEST = 2.0**60
"""Either way; beyond it the product in float32 might itself leave the range."""


def cotangent_scale(normalized: Normalized, steps: Sequence[dict[str, Any]]) -> float:
    """The power of two that brings cotangents to the middle of half precision's range; 1 where there is no gradient.

    The largest of the reverse pass is measured with the same graph in float32, where nothing is lost.
    """
    try:
        model = gradient(normalized)
    except NoGradientError:
        return 1.0
    entering = "cotangent" if normalized.scores.free else "target"
    halves = [value for value in _following(model.graph, entering) if value.dtype == ir.DataType.FLOAT16]
    if not halves:
        return 1.0
    to_float32(model)
    op = Emitter(model.graph, MEASURED)
    each = [op.Reshape(op.ReduceMax(op.Abs(value), keepdims=0), [1]) for value in halves]
    result = op.ReduceMax(op.Concat(*each, axis=0), keepdims=0)
    result.name, result.shape, result.type = MEASURED, ir.Shape([]), ir.TensorType(ir.DataType.FLOAT)
    model.graph.outputs.append(result)
    feeds = sample_feeds(normalized, list(steps))
    (largest,) = run(session_of(model), {**feeds, entering: _chosen(normalized, feeds)}, [MEASURED])
    if not np.isfinite(largest) or largest == 0:
        return 1.0  # the proof says what is wrong
    return float(np.clip(2.0 ** np.floor(EXPONENT - np.log2(float(largest))), 1 / WIDEST, WIDEST))


def _following(graph: ir.Graph, name: str) -> list[ir.Value]:
    """The values that follow from what the input of that name holds: linear in it, as the reverse pass is."""
    start = next(value for value in graph.inputs if value.name == name)
    found = {start}
    for node in graph:
        if node.op_type != "Shape" and any(value in found for value in reads(node)):
            found.update(node.outputs)
    return [value for node in graph for value in node.outputs if value in found]


def _chosen(normalized: Normalized, feeds: dict[str, Array]) -> Array:
    """Each image's top class and another, or random cotangents."""
    rows = len(feeds[normalized.image])
    if normalized.scores.free:
        generator = np.random.default_rng(20171212)
        return generator.standard_normal((rows, 2, *normalized.scores.shape)).astype(np.float32)
    other = np.arange(rows)[:, None] % normalized.scores.shape[0]
    return np.concatenate([np.full((rows, 1), TOP), other], axis=1).astype(np.int64)
