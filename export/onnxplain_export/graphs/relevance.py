"""The relevance of each number of the explained value for the explained score: layer-wise relevance propagation.

Bach et al. 2015 (doi:10.1371/journal.pone.0130140).
"""

from functools import reduce

import onnx_ir as ir

from onnxplain.errors import NoGradientError
from onnxplain_export.emitter import Dim
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
from onnxplain_export.tables.layers import Ledger
from onnxplain_export.tables.relevance import EPSILON_PLUS, Composite


def relevance(normalized: Normalized, composite: Composite = EPSILON_PLUS, audit: bool = False) -> ir.Model:
    """total [N, T, …] = the relevance of the value for scores[target], or for ⟨cotangent, scores⟩; norm is 1,
    scores are the images'.

    The composite's parameters are inputs [1], bounds of the value [1, …]. With `audit` there is an output more, `kept`
    [N, T]: what biases, ε and constants keep of the score, so that score = Σ total + kept.
    """
    refuse_half(normalized, "relevance")
    if normalized.straight_through:
        raise NoGradientError("relevance isn't defined for quantised networks; explain the float network")
    frame = open_at_value(normalized)
    op = frame.op
    chosen = chosen_input(frame)
    parameters = {
        name: frame.input(name, [1] if default is not None else bounds(frame, name))
        for name, default in composite.parameters.items()
    }
    enter(frame, per_image(frame, frame.value), chosen)
    scores, settled = told_scores(frame, chosen)
    start = op.Mul(row_cotangent(frame, settled), frame.scores)
    ledger = Ledger()
    rows = gradient_at_rows(frame, start, composite.table(parameters, ledger))
    total = op.Squeeze(split_rows(frame, rows, chosen, None), [1])
    images_and_targets = op.Shape(chosen, start=0, end=2)
    frame.output("total", total, [BATCH, "T", *frame.shape])
    norm = op.Expand(op.floats([[1.0]]), images_and_targets)
    frame.output("norm", op.Unsqueeze(norm, list(range(2, 2 + frame.rank))), [BATCH, "T", *[1] * frame.rank])
    if audit:
        kept = reduce(op.Add, ledger.entries, op.floats([0.0]))
        frame.output("kept", op.Reshape(op.Expand(kept, op.Shape(rows, end=1)), images_and_targets), [BATCH, "T"])
    frame.output("scores", scores, [BATCH, *normalized.scores.shape])
    return close_frame(frame, "relevance")


def bounds(frame: Frame, name: str) -> list[Dim]:
    """The shape of an input that broadcasts to one image's value."""
    return [1, *(f"{name}_{axis}" for axis in range(1, 1 + frame.rank))]
