"""Recurrences over time in standard operators: unrolled where they are short, one Scan where they are long."""

from collections.abc import Callable, Sequence

import onnx_ir as ir

from onnxplain_export.emitter import Emitter

LONGEST_UNROLLED = 64
"""Steps; TensorRT and CUDA graphs dislike Scan, and nobody likes ten thousand nodes."""

LAST = -(2**31)
"""As the end of a Slice that steps backwards: before the first entry."""

Values = Sequence[ir.Value]
Step = Callable[[Emitter, Values, Values], tuple[Values, Values]]
"""(emitter, each sequence's entry [1, …] of the step, states) → (what the step puts out [1, …], its new states)."""


def over_time(
    op: Emitter, step: Step, sequences: Values, states: Values, length: int | None, backwards: bool = False
) -> tuple[list[ir.Value], list[ir.Value]]:
    """What the steps put out, each joined along axis 0 in the sequences' own order, and the last states.

    `sequences` are [length, …], read from their end if `backwards`. A `length` of None is known only at run time.
    """
    if length is None or length > LONGEST_UNROLLED:
        return _scanned(op, step, sequences, states, backwards)
    entries = [_entries(op, sequence, length) for sequence in sequences]
    collected: list[Values] = []
    for t in reversed(range(length)) if backwards else range(length):
        outputs, states = step(op, [entry[t] for entry in entries], states)
        collected.append(outputs)
    if backwards:
        collected.reverse()
    joined = [op.Concat(*parts, axis=0) for parts in zip(*collected, strict=True)]
    return joined, list(states)


def shifted(op: Emitter, sequence: ir.Value, start: ir.Value, backwards: bool) -> ir.Value:
    """What each step finds: the entry of the step before it, `start` [1, …] for the first."""
    if backwards:
        return op.Concat(op.Slice(sequence, [1], [2**31 - 1], [0]), start, axis=0)
    return op.Concat(start, op.Slice(sequence, [0], [-1], [0]), axis=0)


def _entries(op: Emitter, sequence: ir.Value, length: int) -> Values:
    return [sequence] if length == 1 else op.Split(sequence, [1] * length, axis=0, outputs=length)


def _scanned(
    op: Emitter, step: Step, sequences: Values, states: Values, backwards: bool
) -> tuple[list[ir.Value], list[ir.Value]]:
    """The same as one Scan: its own reading directions aren't used, which few runtimes know."""
    turned = [reversed_(op, sequence) if backwards else sequence for sequence in sequences]
    prefix = f"{op.prefix}/steps_of_{sequences[0].name}"
    body = ir.Graph([], [], nodes=[], name=f"{prefix}/body", opset_imports=op.graph.opset_imports)
    inner = Emitter(body, prefix, op.float_type)
    body.inputs.extend(_inputs(prefix, [*states, *sequences]))
    outputs, after = step(inner, body.inputs[len(states) :], body.inputs[: len(states)])
    # An output may be the very value that an input is, or one that is put out twice.
    body.outputs.extend(inner.Identity(value) for value in (*after, *outputs))
    lifted = [op.Unsqueeze(sequence, [1]) for sequence in turned]
    count = len(body.outputs)
    results = op.Scan(*states, *lifted, body=body, num_scan_inputs=len(sequences), outputs=count)
    results = [results] if count == 1 else list(results)
    joined = [op.Squeeze(result, [1]) for result in results[len(states) :]]
    return [reversed_(op, value) if backwards else value for value in joined], results[: len(states)]


def _inputs(prefix: str, values: Values) -> list[ir.Value]:
    return [ir.val(f"{prefix}/{index}", dtype=value.dtype) for index, value in enumerate(values)]


def reversed_(op: Emitter, sequence: ir.Value) -> ir.Value:
    """The sequence from its last entry to its first."""
    return op.Slice(sequence, [-1], [LAST], [0], [-1])
