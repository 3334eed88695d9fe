"""A graph in half precision as an accelerator computes it, on a runtime that has few kernels for it."""

from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime

from onnxplain_export.emitter import Emitter
from onnxplain_export.evaluate import run, session_of
from onnxplain_export.graphs.gradient import gradient
from onnxplain_export.half_arithmetic import MOVING
from onnxplain_export.normalize.onward import onward
from onnxplain_export.normalize.precision import to_float32
from onnxplain_export.verify.proof import IMAGES, Array, Proof, relative, rows_of, worst

TOLERANCE = 5e-2
MOVES_ALLOWED = 3.0
"""Times what the gradient in float32 moves when the values move by half precision's last place. At the kinks of ReLUs
and max pools a gradient jumps: with random weights ResNet-18's by 0.07 from that alone, and by 0.12 in half precision,
MobileNetV2's by 0.29 and 0.39; those of transformers, which have no kinks, by 1e-4 and 2e-3."""
MOST = 0.5
"""What is further off than this isn't that gradient any more, whatever the reason."""
FLAT = 1e-2
"""An image whose gradient is a smaller share of the largest one's lies on a plateau of the scores."""
FLOAT, HALF = int(ir.DataType.FLOAT), int(ir.DataType.FLOAT16)
LAST_PLACE = 2.0**-11


def with_roundings(model: ir.Model) -> ir.Model:
    """The graph in float32 with every result that is in half precision rounded to it: each operator alone is exact.

    onnxruntime's CPU would compute whole chains of half precision in float32, where nothing is lost or overflows.
    """
    rounded = model.clone()
    halves = [
        value
        for node in rounded.graph.all_nodes()
        for value in node.outputs
        if value.dtype == ir.DataType.FLOAT16 and node.op_type not in MOVING - {"Resize"}
    ]
    known = [(value, value.shape, value.type) for node in rounded.graph for value in node.outputs]
    to_float32(rounded)
    for value, shape, kind in known:  # onnxruntime shares memory by shapes: wrong ones are to show here too
        value.shape = shape
        value.type = ir.TensorType(ir.DataType.FLOAT) if kind == ir.TensorType(ir.DataType.FLOAT16) else kind
    op = Emitter(rounded.graph, "rounding")
    for value in halves:
        readers = list(value.uses())
        result = op.Cast(op.Cast(value, to=HALF), to=FLOAT)
        result.shape, result.type = value.shape, value.type
        for reader, index in readers:
            reader.replace_input_with(index, result)
    rounded.graph.sort()
    return rounded


def against_float32(proof: Proof, written: onnxruntime.InferenceSession) -> dict[str, Any]:
    """The gradient against that of the same network in float32, image by image, in L2.

    So is that of the graph as it is `written`: onnxruntime's CPU rounds less, and not everywhere alike.
    """
    images, chosen = np.arange(IMAGES), proof.chosen[:, :1]
    behind = onward(proof.normalized.full)
    exact = replace(proof, onward={"gradient": session_of(gradient(behind))}, entry=behind.image)
    expected = exact.gradient_at(proof.values, images, chosen)[:, 0].astype(np.float64)
    sway = np.random.default_rng(3).uniform(-LAST_PLACE, LAST_PLACE, proof.values.shape)
    feeds = {**rows_of(proof.normalized, proof.feeds, images), proof.chosen_name: chosen}
    on_cpu = run(written, feeds, ["total"])[0][:, 0]
    moved = exact.gradient_at(proof.values * (1 + sway), images, chosen)[:, 0]
    lengths = np.linalg.norm(expected.reshape(IMAGES, -1), axis=1)
    steep = np.flatnonzero(lengths >= FLAT * lengths.max())
    by_rounding = worst(relative(moved[index], expected[index]) for index in steep)
    errors = [relative(found[index], expected[index]) for found in (proof.gradients, on_cpu) for index in steep]
    return {
        "error": worst(errors),
        "tolerance": min(max(TOLERANCE, MOVES_ALLOWED * by_rounding), MOST),
        "cosine": min(_cosine(proof.gradients[index], expected[index]) for index in steep),
        "images": len(steep),
    }


def _cosine(a: Array, b: Array) -> float:
    return float(np.vdot(a, b)) / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-300)
