"""Fourier transforms: linear, each the adjoint of its inverse."""

from typing import Any

import numpy as np
import onnx_ir as ir

from onnxplain.errors import NoGradientError
from onnxplain_export.emitter import Emitter, attribute, constant_of, ranked_dims
from onnxplain_export.vjp.registry import Cotangents, vjp


@vjp("DFT")
def dft(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """y = F x, cut or padded to the length L: dx = F* dy, which is L times the inverse transform, padded or cut back.

    Of real x the real part; a one-sided y lacks entries without a cotangent. The inverse has 1/L and F again.
    """
    axis, size, length, parts = _signal(node)
    inverse = attribute(node, "inverse", 0)
    if inverse and attribute(node, "onesided", 0):
        return [_of_real_inverse(op, node, g), *[None] * (len(node.inputs) - 1)]
    back = _adjoint(op, node, g, (axis, length, parts), inverse)
    rank = len(ranked_dims(node, node.inputs[0]))
    return [_fitted(op, back, rank, axis, length, size), *[None] * (len(node.inputs) - 1)]


@vjp("STFT")
def stft(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """y = F (w x) in each frame: dx = Σ over the frames of w F* dy, put back in place; dw = Σ over them of x F* dy."""
    signal, _, window, _ = (*node.inputs, None, None)[:4]
    known = ranked_dims(node, signal)
    step, length, parts = _frame_arguments(node)
    if not isinstance(known[1], int) or signal is None:
        raise NoGradientError(f"STFT (node {node.name!r}): the gradient needs a signal of fixed length, not {known}")
    frames = (known[1] - length) // step + 1
    back = _adjoint(op, node, g, (2, length, parts), 0)  # [N, frames, length, parts]
    places = (np.arange(frames)[:, None] * step + np.arange(length)).reshape(-1)
    weighted = back if window is None else op.Mul(back, op.Reshape(window, [length, 1]))
    flat = op.Reshape(weighted, [0, frames * length, parts])
    rows = op.Expand(op.constant(places.reshape(-1, 1), np.int64), op.Shape(flat))
    dx = op.ScatterElements(op.zeros_like(signal), rows, flat, axis=1, reduction="add")
    dw = None
    if window is not None and op.wants(window):
        cut = op.Gather(signal, op.constant(places.reshape(frames, length), np.int64), axis=1)
        dw = op.ReduceSum(op.Mul(cut, back), [0, 1, 3], keepdims=0)
    return [dx, None, dw, None][: len(node.inputs)]


def _adjoint(op: Emitter, node: ir.Node, g: ir.Value, form: tuple[int, int, int], inverse: int) -> ir.Value:
    """F* g of a transform of `length` along `axis` that reads `parts` numbers an entry; the length is kept."""
    axis, length, parts = form
    if attribute(node, "onesided", 1 if node.op_type == "STFT" else 0):
        g = _fitted(op, g, len(ranked_dims(node, node.outputs[0])), axis, length // 2 + 1, length)
    back = op.DFT(g, length, axis, inverse=1 - inverse)
    scaled = op.Mul(back, 1.0 / length if inverse else float(length))
    return op.Slice(scaled, [0], [1], [-1]) if parts == 1 else scaled


def _of_real_inverse(op: Emitter, node: ir.Node, g: ir.Value) -> ir.Value:
    """The adjoint of the real inverse: F g / L, twice where an entry of x stands for its mirror image too.

    The imaginary parts of the first entry, and of the last of an even length, aren't read.
    """
    axis, size, length, _ = _signal(node)
    half = length // 2 + 1
    if size != half:
        raise NoGradientError(
            f"DFT (node {node.name!r}): a real inverse of length {length} from {size} entries, not {half}, is computed "
            "differently by each runtime"
        )
    spectrum = op.DFT(g, length, axis, onesided=1)
    factors = np.full((half, 2), 2.0 / length)
    factors[[0] if length % 2 else [0, -1]] = [[1.0 / length, 0.0]]
    after = len(ranked_dims(node, node.inputs[0])) - axis - 2
    return op.Mul(spectrum, op.floats(factors.reshape(half, *[1] * after, 2)))


def _fitted(op: Emitter, g: ir.Value, rank: int, axis: int, before: int, after: int) -> ir.Value:
    """g cut or padded with zeros at the end of one axis."""
    if after < before:
        return op.Slice(g, [0], [after], [axis])
    pads = [0] * (2 * rank)
    pads[rank + axis] = after - before
    return op.Pad(g, pads) if after > before else g


def _signal(node: ir.Node) -> tuple[int, int, int, int]:
    """The axis, its size, the transform's length and the numbers an entry has (1 real, 2 complex)."""
    x, given_length, given_axis = (*node.inputs, None, None)[:3]
    known = ranked_dims(node, x)
    fixed_axis, fixed_length = constant_of(given_axis), constant_of(given_length)
    if (given_axis is not None and fixed_axis is None) or (given_length is not None and fixed_length is None):
        raise NoGradientError(f"DFT (node {node.name!r}): its length and axis must be constants")
    axis = (-2 if fixed_axis is None else int(fixed_axis.reshape(()))) % len(known)
    size, parts = known[axis], known[-1]
    if not isinstance(size, int) or not isinstance(parts, int):
        raise NoGradientError(f"DFT (node {node.name!r}): the gradient needs a signal of fixed length, not {known}")
    if fixed_length is not None:
        return axis, size, int(fixed_length.reshape(())), parts
    one_sided = attribute(node, "onesided", 0) and attribute(node, "inverse", 0)
    return axis, size, 2 * (size - 1) if one_sided else size, parts


def _frame_arguments(node: ir.Node) -> tuple[int, int, int]:
    """The step, the length of a frame and the numbers an entry has."""
    signal, given_step, window, given_length = (*node.inputs, None, None)[:4]
    known, step, length = ranked_dims(node, signal), constant_of(given_step), constant_of(given_length)
    widths = ranked_dims(node, window) if window is not None else ()
    size = int(length.reshape(())) if length is not None else widths[0] if widths else None
    if step is None or not isinstance(size, int) or (given_length is not None and length is None):
        raise NoGradientError(f"STFT (node {node.name!r}): its step and frame length must be constants")
    if (widths and widths[0] != size) or (len(known) == 3 and not isinstance(known[2], int)):
        raise NoGradientError(f"STFT (node {node.name!r}): the window must be as long as the frame, the signal known")
    parts = known[2] if len(known) == 3 else None
    if not isinstance(parts, int):
        raise NoGradientError(f"STFT (node {node.name!r}): the signal must be [batch, length, 1 or 2], not {known}")
    return int(step.reshape(())), size, parts
