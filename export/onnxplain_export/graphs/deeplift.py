"""Contributions to the difference of the score from a baseline's: DeepLIFT, rescale rule.

Shrikumar, Greenside, Kundaje 2017 (arXiv:1704.02685).
"""

import onnx_ir as ir

from onnxplain.errors import NoGradientError
from onnxplain_export.autodiff import describe
from onnxplain_export.emitter import Dim, dims, subgraphs
from onnxplain_export.graphs.frame import (
    Frame,
    chosen_input,
    close_frame,
    enter,
    gradient_at_rows,
    open_at_value,
    per_image,
    refuse_half,
    row_cotangent,
    split_rows,
    told_scores,
)
from onnxplain_export.normalize import BATCH, Normalized
from onnxplain_export.tables.deeplift import deeplift_table

REFERENCE = "explainer/reference"
"""What the names of values and axes of the network's copy at the baseline begin with."""


def deeplift(normalized: Normalized, captum: bool = False) -> ir.Model:
    """total [N, T, …] = (x − b)·Δscore/Δx, norm is 1, scores the images'; Σ total = score(x) − score(b).

    A second copy of the network runs at the baseline: once, where all images have the same, else once for each row.
    With `captum`, what follows an activation at once is treated as in that package: see `deeplift_table`.
    """
    refuse_half(normalized, "DeepLIFT")
    if normalized.straight_through:
        raise NoGradientError("DeepLIFT isn't defined for quantised networks; explain the float network")
    frame = open_at_value(normalized)
    op = frame.op
    chosen = chosen_input(frame)
    baseline = frame.input("baseline", [f"baseline_{axis}" for axis in range(1 + frame.rank)])
    difference = per_image(frame, op.Sub(frame.value, baseline))
    enter(frame, per_image(frame, frame.value), chosen)
    references = _references(frame, _baseline_rows(frame, baseline, chosen))
    scores, settled = told_scores(frame, chosen)
    rows = gradient_at_rows(frame, row_cotangent(frame, settled), deeplift_table(references, captum))
    multipliers = op.Squeeze(split_rows(frame, rows, chosen, None), [1])
    frame.output("total", op.Mul(multipliers, difference), [BATCH, "T", *frame.shape])
    ones = op.Expand(op.floats([[1.0]]), op.Shape(chosen, start=0, end=2))
    frame.output("norm", op.Unsqueeze(ones, list(range(2, 2 + frame.rank))), [BATCH, "T", *[1] * frame.rank])
    frame.output("scores", scores, [BATCH, *normalized.scores.shape])
    return close_frame(frame, "deeplift")


def _baseline_rows(frame: Frame, baseline: ir.Value, chosen: ir.Value) -> ir.Value:
    """One row for a baseline that all images share, else one for each image and target, as the network's rows are."""
    op = frame.op
    targets = op.Shape(chosen, start=1, end=2)
    wide = op.Expand(baseline, [1, *frame.shape])
    if _has_other_batched_inputs(frame):  # of which every row has its own
        wide = op.Expand(wide, op.Concat(op.Shape(chosen, start=0, end=1), [1] * frame.rank, axis=0))
    else:
        targets = op.Where(op.Equal(op.Shape(baseline, start=0, end=1), 1), 1, targets)
    repeated = op.Expand(op.Unsqueeze(wide, [1]), op.Concat([1], targets, [1] * frame.rank, axis=0))
    rows: ir.Value = op.Reshape(repeated, [-1, *frame.shape])
    rows.shape, rows.type = ir.Shape([f"{REFERENCE}/rows", *frame.shape]), ir.TensorType(ir.DataType.FLOAT)
    return rows


def _has_other_batched_inputs(frame: Frame) -> bool:
    return any(
        (dims(value) or (None,))[0] == BATCH
        for value, entry in zip(frame.inputs, frame.entries, strict=True)
        if entry is not frame.entry
    )


def _references(frame: Frame, rows: ir.Value) -> dict[ir.Value, ir.Value]:
    """Every value that depends on the rows, as it is at `rows`: those nodes once more."""
    if frame.rows is None:
        raise RuntimeError("the network's rows aren't connected")
    found = {frame.rows: rows}
    for node in list(frame.graph):
        if not any(value in found for value in node.inputs):
            continue
        if subgraphs(node):
            raise NoGradientError(f"DeepLIFT isn't defined for {describe(node)}: it holds a graph of its own")
        inputs = [None if value is None else found.get(value, value) for value in node.inputs]
        name = f"{REFERENCE}/{node.outputs[0].name}"
        copy = ir.node(node.op_type, inputs, domain=node.domain, num_outputs=len(node.outputs), name=name)
        copy.attributes.update(node.attributes)
        for output, original in zip(copy.outputs, node.outputs, strict=True):
            output.name, output.type = f"{REFERENCE}/{original.name}", original.type
            output.shape = _at_reference(dims(original))
            found[original] = output
        frame.graph.append(copy)
    return found


def _at_reference(shape: tuple[Dim, ...] | None) -> ir.Shape | None:
    """The shape with symbols of its own: onnxruntime uses a buffer again for another of the same symbols."""
    if shape is None:
        return None
    return ir.Shape([axis if isinstance(axis, int) else f"{REFERENCE}/{axis}" for axis in shape])
