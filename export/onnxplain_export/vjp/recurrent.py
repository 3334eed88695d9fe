"""Recurrent layers: gates recomputed for all steps at once from the stored outputs, then one pass back in time.

Inside, sequences are [time, batch, size] and states [1, batch, hidden], one direction at a time. A step whose number
isn't below its sequence's length leaves the state as it is and puts out zeros.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxplain.errors import NoGradientError
from onnxplain_export.emitter import Emitter, attribute, constant_of, dims
from onnxplain_export.vjp.gates import Activation, activations
from onnxplain_export.vjp.registry import Cotangents, vjp
from onnxplain_export.vjp.steps import Values, over_time, shifted

SWAPPED = [1, 0, 2]
OUTPUTS_TIME_FIRST = [1, 2, 0, 3]
"""What turns the operands of layout 1 into those of layout 0; the outputs are [batch, time, direction, hidden]."""


@dataclass(frozen=True)
class Direction:
    """One direction's operands; `gy` is the cotangent of its outputs `y`, `gh` and `gc` of its last states."""

    x: ir.Value
    w: ir.Value
    r: ir.Value
    b: ir.Value | None
    p: ir.Value | None
    y: ir.Value
    h: ir.Value
    c: ir.Value
    gy: ir.Value | None
    gh: ir.Value
    gc: ir.Value
    runs: ir.Value | None
    functions: Sequence[Activation]
    hidden: int
    length: int | None
    backwards: bool

    def kept(self, op: Emitter, sequence: ir.Value, otherwise: float | ir.Value = 0.0) -> ir.Value:
        """`sequence` in the steps that run, `otherwise` in the others."""
        return sequence if self.runs is None else op.Where(self.runs, sequence, otherwise)

    def gates(self, op: Emitter, sequence: ir.Value | None, count: int) -> Values:
        """The pieces of the last axis."""
        return op.Split(sequence, [self.hidden] * count, axis=-1, outputs=count)


@dataclass(frozen=True)
class Pulled:
    """Cotangents of W x + bias, of R h₋ + bias, of the peepholes and of the first states.

    `factors` are pairs (rows of the cotangent, what R multiplies) whose products, put together, are R's cotangent.
    """

    inputs: ir.Value
    recurrent: ir.Value
    h: ir.Value
    c: ir.Value | None
    factors: Sequence[tuple[ir.Value, ir.Value]]
    p: ir.Value | None = None


@vjp("RNN", many_outputs=True)
def rnn(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """h = f(a), a = W x + R h₋ + b: da = f'(a) dh, dh₋ = Rᵀ da; dx = Wᵀ da."""
    return _answers(op, node, g, _rnn)


@vjp("GRU", many_outputs=True)
def gru(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """h = (1 - z) n + z h₋ with z, r = f(W x + R h₋ + b), n = g(Wₙ x + Rₙ (r h₋) + bₙ) or g(Wₙ x + r (Rₙ h₋ + bₙ)).

    dz = (h₋ - n) dh, dn = (1 - z) dh and dh₋ = z dh + what the gates pass on.
    """
    return _answers(op, node, g, _gru)


@vjp("LSTM", many_outputs=True)
def lstm(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """h = o k(c), c = f c₋ + i n with i, f = f(W x + R h₋ + p c₋ + b), n = g(…), o = f(… + p c).

    dc = dc₊ + o k'(c) dh + p da_o; do = k(c) dh, di = n dc, df = c₋ dc, dn = i dc; dh₋ = Rᵀ da, dc₋ = f dc + p da_if.
    """
    if attribute(node, "clip"):
        raise NoGradientError(
            f"LSTM (node {node.name!r}) clips, which runtimes read differently from the standard at the cell"
        )
    return _answers(op, node, g, _lstm)


def _rnn(op: Emitter, node: ir.Node, d: Direction) -> Pulled:
    before = shifted(op, d.kept(op, d.y, d.h), d.h, d.backwards)
    _, slope = d.functions[0].with_slope(op, _affine(op, d.x, d.w, d.b, before, d.r))

    def back(op: Emitter, now: Values, states: Values) -> tuple[Values, Values]:
        slope, *rest = now
        dh = op.Add(states[0], rest[0]) if d.gy is not None else states[0]
        da = op.Mul(dh, slope)
        dh_before = op.MatMul(da, d.r)
        return [da], [dh_before if d.runs is None else op.Where(rest[-1], dh_before, dh)]

    masks = [] if d.runs is None else [d.runs]
    (da,), (dh,) = over_time(op, back, [d.kept(op, slope), *_given(d), *masks], [d.gh], d.length, not d.backwards)
    return Pulled(da, da, dh, None, [(da, before)])


def _gru(op: Emitter, node: ir.Node, d: Direction) -> Pulled:
    before = shifted(op, d.kept(op, d.y, d.h), d.h, d.backwards)
    linear = bool(attribute(node, "linear_before_reset", 0))
    r_gates, r_new = op.Split(d.r, [2 * d.hidden, d.hidden], axis=0, outputs=2)
    sizes = [3 * d.hidden] * 2
    wb, rb = (None, None) if d.b is None else op.Split(d.b, sizes, axis=0, outputs=2)
    from_x = d.gates(op, _affine(op, d.x, d.w, wb), 3)
    from_h = d.gates(op, _affine(op, before, d.r, rb), 3)
    z, z_slope = d.functions[0].with_slope(op, op.Add(from_x[0], from_h[0]))
    r, r_slope = d.functions[0].with_slope(op, op.Add(from_x[1], from_h[1]))
    if linear:
        entering = op.Mul(r, from_h[2])
    else:
        rb_new = None if rb is None else op.Split(rb, [2 * d.hidden, d.hidden], axis=0, outputs=2)[1]
        entering = _affine(op, op.Mul(r, before), r_new, rb_new)
    new, new_slope = d.functions[1].with_slope(op, op.Add(from_x[2], entering))
    to_z = d.kept(op, op.Mul(op.Sub(before, new), z_slope))
    to_new = d.kept(op, op.Mul(op.Sub(1.0, z), new_slope))
    stays = d.kept(op, z, 1.0)
    # What r multiplies is known when `linear`, else what reaches it is.
    to_r = op.Mul(op.Mul(to_new, from_h[2]), r_slope) if linear else op.Mul(before, r_slope)

    def back(op: Emitter, now: Values, states: Values) -> tuple[Values, Values]:
        to_z, to_r, to_new, r, stays, *gy = now
        dh = op.Add(states[0], gy[0]) if gy else states[0]
        dz, dn = op.Mul(dh, to_z), op.Mul(dh, to_new)
        if linear:
            dr = op.Mul(dh, to_r)
            passed = op.MatMul(op.Concat(dz, dr, op.Mul(dn, r), axis=-1), d.r)
        else:
            entered = op.MatMul(dn, r_new)
            dr = op.Mul(entered, to_r)
            passed = op.Add(op.MatMul(op.Concat(dz, dr, axis=-1), r_gates), op.Mul(entered, r))
        return [op.Concat(dz, dr, axis=-1), dn], [op.Add(op.Mul(dh, stays), passed)]

    sequences = [to_z, to_r, to_new, r, stays, *_given(d)]
    (da_gates, dn), (dh,) = over_time(op, back, sequences, [d.gh], d.length, not d.backwards)
    da, last = op.Concat(da_gates, dn, axis=-1), op.Mul(dn, r)
    if linear:
        recurrent = op.Concat(da_gates, last, axis=-1)
        return Pulled(da, recurrent, dh, None, [(recurrent, before)])
    return Pulled(da, da, dh, None, [(da_gates, before), (dn, op.Mul(r, before))])


def _lstm(op: Emitter, node: ir.Node, d: Direction) -> Pulled:
    before = shifted(op, d.kept(op, d.y, d.h), d.h, d.backwards)
    coupled = bool(attribute(node, "input_forget", 0))
    gates = d.gates(op, _affine(op, d.x, d.w, d.b, before, d.r), 4)
    peepholes = None if d.p is None else d.gates(op, d.p, 3)
    new, new_slope = d.functions[1].with_slope(op, gates[3])
    cell = _cells(op, d, gates, new, peepholes, coupled)
    cell_before = shifted(op, cell, d.c, d.backwards)
    i, i_slope = d.functions[0].with_slope(op, _peeping(op, gates[0], peepholes, 0, cell_before))
    o, o_slope = d.functions[0].with_slope(op, _peeping(op, gates[1], peepholes, 1, cell))
    f, f_slope = d.functions[0].with_slope(op, _peeping(op, gates[2], peepholes, 2, cell_before))
    seen, seen_slope = d.functions[2].with_slope(op, cell)
    if coupled:
        f, to_f = op.Sub(1.0, i), op.zeros_like(i)
        to_i = op.Mul(op.Sub(new, cell_before), i_slope)
    else:
        to_f, to_i = op.Mul(cell_before, f_slope), op.Mul(new, i_slope)
    to_o, to_c, stays = op.Mul(seen, o_slope), op.Mul(o, seen_slope), f
    if peepholes is not None:
        to_c = op.Add(to_c, op.Mul(to_o, peepholes[1]))
        stays = op.Add(stays, op.Add(op.Mul(to_i, peepholes[0]), op.Mul(to_f, peepholes[2])))
    factors = d.kept(op, op.Concat(to_i, to_o, to_f, op.Mul(i, new_slope), axis=-1))
    masks = [] if d.runs is None else [d.runs]

    def back(op: Emitter, now: Values, states: Values) -> tuple[Values, Values]:
        factors, to_c, stays, *rest = now
        dh = op.Add(states[0], rest[0]) if d.gy is not None else states[0]
        dc = op.Add(states[1], op.Mul(dh, to_c))
        da = op.Mul(op.Concat(dc, dh, dc, dc, axis=-1), factors)
        dh_before = op.MatMul(da, d.r)
        if d.runs is not None:
            dh_before = op.Where(rest[-1], dh_before, dh)
        return [da], [dh_before, op.Mul(dc, stays)]

    sequences = [factors, d.kept(op, to_c), d.kept(op, stays, 1.0), *_given(d), *masks]
    (da,), (dh, dc) = over_time(op, back, sequences, [d.gh, d.gc], d.length, not d.backwards)
    return Pulled(da, da, dh, dc, [(da, before)], _peephole_cotangent(op, d, da, cell, cell_before))


def _cells(
    op: Emitter, d: Direction, gates: Values, new: ir.Value, peepholes: Values | None, coupled: bool
) -> ir.Value:
    """The cell after every step: c = f c₋ + i n."""
    masks = [] if d.runs is None else [d.runs]

    def gated(op: Emitter, i: ir.Value, f: ir.Value, c: ir.Value | None) -> tuple[ir.Value, ir.Value]:
        i = d.functions[0].value(op, _peeping(op, i, peepholes, 0, c))
        return i, op.Sub(1.0, i) if coupled else d.functions[0].value(op, _peeping(op, f, peepholes, 2, c))

    def peeping(op: Emitter, now: Values, states: Values) -> tuple[Values, Values]:
        i, f, new, *runs = now
        i, f = gated(op, i, f, states[0])
        after = op.Add(op.Mul(f, states[0]), op.Mul(i, new))
        after = op.Where(runs[0], after, states[0]) if runs else after
        return [after], [after]

    def plain(op: Emitter, now: Values, states: Values) -> tuple[Values, Values]:
        after = op.Add(op.Mul(now[0], states[0]), now[1])
        return [after], [after]

    if peepholes is not None:
        return over_time(op, peeping, [gates[0], gates[2], new, *masks], [d.c], d.length, d.backwards)[0][0]
    i, f = gated(op, gates[0], gates[2], None)
    sequences = [d.kept(op, f, 1.0), d.kept(op, op.Mul(i, new))]
    return over_time(op, plain, sequences, [d.c], d.length, d.backwards)[0][0]


def _peeping(op: Emitter, gate: ir.Value, peepholes: Values | None, which: int, cell: ir.Value | None) -> ir.Value:
    """What enters the gate, with what it sees of the cell."""
    return gate if peepholes is None else op.Add(gate, op.Mul(peepholes[which], cell))


def _peephole_cotangent(
    op: Emitter, d: Direction, da: ir.Value, cell: ir.Value, cell_before: ir.Value
) -> ir.Value | None:
    if d.p is None:
        return None
    i, o, f, _ = d.gates(op, da, 4)
    seen = op.Concat(op.Mul(i, cell_before), op.Mul(o, cell), op.Mul(f, cell_before), axis=-1)
    return op.ReduceSum(seen, [0, 1], keepdims=0)


def _given(d: Direction) -> list[ir.Value]:
    return [] if d.gy is None else [d.gy]


def _affine(
    op: Emitter,
    x: ir.Value,
    w: ir.Value,
    b: ir.Value | None,
    h: ir.Value | None = None,
    r: ir.Value | None = None,
) -> ir.Value:
    """x Wᵀ + b, with h Rᵀ where there are such; `b` may be both biases, one after the other."""
    result = op.MatMul(x, op.Transpose(w))
    if h is not None:
        result = op.Add(result, op.MatMul(h, op.Transpose(r)))
        b = None if b is None else op.ReduceSum(op.Reshape(b, [2, -1]), [0], keepdims=0)
    return result if b is None else op.Add(result, b)


def _answers(op: Emitter, node: ir.Node, g: Any, cell: Callable[[Emitter, ir.Node, Direction], Pulled]) -> Cotangents:
    """Runs `cell` for each direction and puts the node's cotangents together."""
    directions = _directions(op, node, g)
    pulled = [cell(op, node, d) for d in directions]
    batch_first = bool(attribute(node, "layout", 0))

    def joined(parts: Sequence[Any], turned: bool = False) -> Any:
        whole = op.Concat(*parts, axis=0)
        return op.Transpose(whole, perm=SWAPPED) if turned and batch_first else whole

    def by_direction(parts: Sequence[Any]) -> Any:
        return joined([op.Unsqueeze(part, [0]) for part in parts])

    dx = op.Sum(*(op.MatMul(one.inputs, d.w) for one, d in zip(pulled, directions, strict=True)))
    dx = op.Transpose(dx, perm=SWAPPED) if batch_first else dx
    dw = [op.Einsum(one.inputs, d.x, equation="tbg,tbi->gi") for one, d in zip(pulled, directions, strict=True)]
    dr = [joined([op.Einsum(*pair, equation="tbg,tbi->gi") for pair in one.factors]) for one in pulled]
    db = [joined([op.ReduceSum(part, [0, 1], keepdims=0) for part in (one.inputs, one.recurrent)]) for one in pulled]
    dh = joined([one.h for one in pulled], turned=True)
    dc = None if pulled[0].c is None else joined([one.c for one in pulled], turned=True)
    dp = None if pulled[0].p is None else by_direction([one.p for one in pulled])
    return [dx, by_direction(dw), by_direction(dr), by_direction(db), None, dh, dc, dp][: len(node.inputs)]


def _directions(op: Emitter, node: ir.Node, g: Any) -> list[Direction]:
    """The operands of each direction, time first, with zeros for states and cotangents that are missing."""
    operands: Any = (*node.inputs, *[None] * 8)
    x, w, r, b, lengths, h, c, p = operands[:8]
    gy, gh, gc = (*g, None, None)[:3]
    y = _named(op, node)
    if attribute(node, "layout", 0):
        y, gy = (_turned(op, value, OUTPUTS_TIME_FIRST) for value in (y, gy))
        x, h, c, gh, gc = (_turned(op, value, SWAPPED) for value in (x, h, c, gh, gc))
    length = _length(node)
    runs = _runs(op, x, lengths, length)
    direction = attribute(node, "direction", "forward")
    count = 2 if direction == "bidirectional" else 1
    functions, hidden = activations(node, count), _hidden(node)
    zero = op.zeros_like(op.Slice(_one(op, y, 0, 1, count), [0], [1], [0]))

    def state(value: ir.Value | None, d: int) -> ir.Value:
        if value is None:
            return zero
        return value if count == 1 else op.Slice(value, [d], [d + 1], [0])

    def last(value: ir.Value | None, d: int) -> ir.Value:
        """A sequence of no steps ends with zeros, whatever it began with, as onnxruntime has it."""
        found = state(value, d)
        return found if runs is None or value is None else op.Where(op.Slice(runs, [0], [1], [0]), found, 0.0)

    def masked(value: ir.Value | None) -> ir.Value | None:
        return value if value is None or runs is None else op.Where(runs, value, 0.0)

    return [
        Direction(
            x=x,
            w=_one(op, w, d, 0, count),
            r=_one(op, r, d, 0, count),
            b=_one(op, b, d, 0, count),
            p=_one(op, p, d, 0, count),
            y=_one(op, y, d, 1, count),
            h=state(h, d),
            c=state(c, d),
            gy=masked(_one(op, gy, d, 1, count)),
            gh=last(gh, d),
            gc=last(gc, d),
            runs=runs,
            functions=functions[d],
            hidden=hidden,
            length=length,
            backwards=direction == "reverse" or d == 1,
        )
        for d in range(count)
    ]


def _one(op: Emitter, value: Any, direction: int, axis: int, count: int) -> Any:
    """One direction's part, without the axis of directions."""
    if value is None:
        return None
    return op.Squeeze(value, [axis]) if count == 1 else op.Gather(value, direction, axis=axis)


def _turned(op: Emitter, value: ir.Value | None, order: Sequence[int]) -> Any:
    return None if value is None else op.Transpose(value, perm=order)


def _named(op: Emitter, node: ir.Node) -> ir.Value:
    """The sequence of outputs, which the node computes even where the model leaves it out."""
    y = node.outputs[0]
    if not y.name:
        y.name = f"{op.prefix}/outputs_of_{node.name or next(value.name for value in node.outputs if value.name)}"
    return y


def _length(node: ir.Node) -> int | None:
    """The number of steps where it is known."""
    known = dims(node.inputs[0]) if node.inputs[0] is not None else None
    steps = None if known is None else known[1 if attribute(node, "layout", 0) else 0]
    return steps if isinstance(steps, int) else None


def _hidden(node: ir.Node) -> int:
    known = dims(node.inputs[2]) if node.inputs[2] is not None else None
    hidden = attribute(node, "hidden_size", known[-1] if known else None)
    if not isinstance(hidden, int):
        raise NoGradientError(f"the hidden size of {node.op_type} (node {node.name!r}) is unknown")
    return hidden


def _runs(op: Emitter, x: Any, lengths: ir.Value | None, length: int | None) -> ir.Value | None:
    """[time, batch, 1]: whether the step is below its sequence's length; None where all are."""
    fixed = constant_of(lengths)
    if lengths is None or (fixed is not None and length is not None and (fixed == length).all()):
        return None
    if length is None:
        steps = op.Range(op.constant(0, np.int64), op.Gather(op.Shape(x), 0, axis=0), op.constant(1, np.int64))
    else:
        steps = op.constant(np.arange(length))
    return op.Less(op.Reshape(steps, [-1, 1, 1]), op.Reshape(op.Cast(lengths, to=int(ir.DataType.INT64)), [1, -1, 1]))
