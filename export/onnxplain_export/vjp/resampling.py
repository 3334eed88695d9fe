"""Linear maps along single axes: interpolation and padding. The cotangent is the transposed map, axis by axis."""

from functools import lru_cache
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from onnx.reference import ReferenceEvaluator

from onnxplain.errors import NoGradientError
from onnxplain_export.emitter import IR_VERSION, OPSET, Emitter, attribute, constant_of, ranked_dims
from onnxplain_export.vjp.registry import Cotangents, vjp

RESIZE_ATTRIBUTES: dict[str, Any] = {
    "mode": "nearest",
    "coordinate_transformation_mode": "half_pixel",
    "nearest_mode": "round_prefer_floor",
    "cubic_coeff_a": -0.75,
    "exclude_outside": 0,
    "antialias": 0,
}
"""What shapes a Resize along one axis, with the standard's defaults."""


@vjp("Resize")
def resize(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """y = (M₁ ⊗ M₂ ⊗ …) x, one interpolation matrix per resized axis: dx = (M₁ᵀ ⊗ M₂ᵀ ⊗ …) dy."""
    matrices = _interpolation_matrices(node)
    factors = {axis: _repetition(matrix) for axis, matrix in matrices.items()}
    rank = len(ranked_dims(node, node.inputs[0]))
    spatial = all(axis >= 2 for axis in matrices)
    if matrices and spatial and all(factors.values()):
        kernel = [factors.get(axis) or 1 for axis in range(2, rank)]
        averaged = op.AveragePool(g, kernel_shape=kernel, strides=kernel)
        g = op.Mul(averaged, float(np.prod(kernel)))
    else:
        for axis, matrix in matrices.items():
            g = _contract(op, g, matrix, axis, rank)
    return g, *[None] * (len(node.inputs) - 1)


@vjp("Pad")
def pad(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """Constant: dx = dy without its border. Edge, reflect, wrap: the border's dy is added where its value came from."""
    mode, known, widths = attribute(node, "mode", "constant"), ranked_dims(node, node.inputs[0]), _pad_widths(node)
    rank = len(known)
    if mode == "constant":
        return _crop(op, g, widths, rank), *[None] * (len(node.inputs) - 1)
    for axis, (begin, end) in widths.items():
        size = known[axis]
        if not isinstance(size, int) or min(begin, end) < 0:
            raise NoGradientError(f"Pad (node {node.name!r}): mode {mode!r} needs a fixed axis and no negative pads")
        sources = np.pad(np.arange(size), (begin, end), mode=mode)
        inside = _crop(op, g, {axis: (begin, end)}, rank)
        for start, width in ((0, begin), (begin + size, end)):
            if width:
                border = op.Slice(g, [start], [start + width], [axis])
                origin, around = _origin(sources[start : start + width], size)
                folded = _contract(op, border, origin, axis, rank)
                inside = op.Add(inside, _zeros_around(op, folded, {axis: around}, rank))
        g = inside
    return g, *[None] * (len(node.inputs) - 1)


def _interpolation_matrices(node: ir.Node) -> dict[int, np.ndarray]:
    """The matrix [output, input] of each axis that the node changes."""
    x, y = ranked_dims(node, node.inputs[0]), ranked_dims(node, node.outputs[0])
    name = f"Resize (node {node.name!r})"
    if attribute(node, "coordinate_transformation_mode") == "tf_crop_and_resize":
        raise NoGradientError(f"{name}: tf_crop_and_resize has no derivative rule; crop and resize in two nodes")
    if attribute(node, "keep_aspect_ratio_policy", "stretch") != "stretch":
        raise NoGradientError(f"{name}: keep_aspect_ratio_policy has no derivative rule; write the sizes out")
    axes = [axis % len(x) for axis in attribute(node, "axes", range(len(x)))]
    given = node.inputs[2] if len(node.inputs) > 2 else None
    scales = constant_of(given)
    if given is not None and scales is None:
        raise NoGradientError(f"{name}: the scales must be constants")
    attributes = {key: attribute(node, key, default) for key, default in RESIZE_ATTRIBUTES.items()}
    matrices = {}
    for index, axis in enumerate(axes):
        before, after = x[axis], y[axis]
        scale = float(scales[index]) if scales is not None and scales.size else None
        if scale == 1.0 or (scale is None and before == after and before is not None):
            continue
        if not isinstance(before, int) or not isinstance(after, int):
            raise NoGradientError(f"{name}: axis {axis} is resized and must have a fixed size, not {before} to {after}")
        matrices[axis] = interpolation_matrix(before, after, scale, tuple(attributes.items()))
    # onnxruntime copies its input where no size changes, whatever the scales say.
    return {} if all(matrix.shape[0] == matrix.shape[1] for matrix in matrices.values()) else matrices


@lru_cache(maxsize=256)
def interpolation_matrix(
    before: int, after: int, scale: float | None, attributes: tuple[tuple[str, Any], ...]
) -> np.ndarray:
    """The matrix [after, before] that onnxruntime's Resize applies along one axis.

    In float64 from the ONNX reference evaluator, checked against onnxruntime; where the two disagree (the standard
    leaves room, and float32 coordinates fall to either side of a tie) it is onnxruntime's own.
    """
    basis = np.eye(before)[None, :, None]
    # Two equal rows become four, since onnxruntime copies what keeps its size, as this axis may.
    model = _resize_model((1, before, 2, before), (4, after), (2.0, scale), dict(attributes))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    rows = np.repeat(basis, 2, axis=2).astype(np.float32)
    measured = session.run(None, {"x": rows})[0][0, :, 0].astype(np.float64)
    model = _resize_model((1, before, 1, before), (1, after), (1.0, scale), dict(attributes))
    reference: Any = ReferenceEvaluator(model).run(None, {"x": basis})
    expected = reference[0][0, :, 0]
    agree = expected.shape == measured.shape and np.abs(expected - measured).max(initial=0) < 1e-4
    return np.ascontiguousarray((expected if agree else measured).T)


def _resize_model(
    shape: tuple[int, ...], sizes: tuple[int, int], scales: tuple[float, float | None], attributes: dict[str, Any]
) -> onnx.ModelProto:
    """Resizes the last two of four axes: to the sizes where a scale isn't known."""
    if None in scales:
        names, target = ["x", "", "", "target"], np.array([*shape[:2], *sizes], np.int64)
    else:
        names, target = ["x", "", "target"], np.array([1, 1, *scales], np.float32)
    make = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Resize", names, ["y"], **attributes)],
        "resize",
        [make("x", onnx.TensorProto.FLOAT, shape)],
        [make("y", onnx.TensorProto.FLOAT, [*shape[:2], *sizes])],
        [onnx.numpy_helper.from_array(target, "target")],
    )
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)


def _repetition(matrix: np.ndarray) -> int | None:
    """s where the matrix repeats every input s times (nearest, whole factor), else None."""
    factor = matrix.shape[0] // matrix.shape[1]
    repeated = factor * matrix.shape[1] == matrix.shape[0]
    same = repeated and np.array_equal(matrix, np.kron(np.eye(matrix.shape[1]), np.ones((factor, 1))))
    return factor if same else None


def _contract(op: Emitter, g: ir.Value, matrix: np.ndarray, axis: int, rank: int) -> ir.Value:
    """Σ over o of g[… o …] matrix[o, i] along `axis`, which becomes the matrix's input axis."""
    if axis == rank - 1:
        return op.MatMul(g, op.floats(matrix))
    if axis == rank - 2:
        return op.MatMul(op.floats(matrix.T), g)
    swap = list(range(rank))
    swap[axis], swap[-1] = rank - 1, axis
    return op.Transpose(op.MatMul(op.Transpose(g, perm=swap), op.floats(matrix)), perm=swap)


def _pad_widths(node: ir.Node) -> dict[int, tuple[int, int]]:
    """How much the node adds (or, negative, removes) before and after each axis."""
    pads = constant_of(node.inputs[1])
    named = node.inputs[3] if len(node.inputs) > 3 else None
    chosen, known = constant_of(named), ranked_dims(node, node.inputs[0])
    if pads is None or (named is not None and chosen is None):
        raise NoGradientError(f"Pad (node {node.name!r}): the pads and axes must be constants")
    axes = [int(axis) % len(known) for axis in (range(len(known)) if chosen is None else chosen)]
    pairs = zip(axes, pads[: len(axes)], pads[len(axes) :], strict=True)
    return {axis: (int(begin), int(end)) for axis, begin, end in pairs if begin or end}


def _crop(op: Emitter, g: ir.Value, widths: dict[int, tuple[int, int]], rank: int) -> ir.Value:
    """`g` without its border; a negative width, which removed something, becomes zeros."""
    cut = {axis: (max(begin, 0), max(end, 0)) for axis, (begin, end) in widths.items() if max(begin, end) > 0}
    if cut:
        far = np.iinfo(np.int32).max
        starts, ends = [begin for begin, _ in cut.values()], [-end if end else far for _, end in cut.values()]
        g = op.Slice(g, starts, ends, list(cut))
    grown = {axis: (max(-begin, 0), max(-end, 0)) for axis, (begin, end) in widths.items()}
    return _zeros_around(op, g, grown, rank)


def _zeros_around(op: Emitter, g: ir.Value, widths: dict[int, tuple[int, int]], rank: int) -> ir.Value:
    pads = [0] * (2 * rank)
    for axis, (begin, end) in widths.items():
        pads[axis], pads[rank + axis] = begin, end
    return op.Pad(g, pads, 0.0) if any(pads) else g


def _origin(sources: np.ndarray, size: int) -> tuple[np.ndarray, tuple[int, int]]:
    """The matrix [border, input] from a border to the stretch of input that it copies, and what lies around that."""
    first, last = int(sources.min()), int(sources.max())
    matrix = (sources[:, None] == np.arange(first, last + 1)).astype(np.float64)
    return matrix, (first, size - 1 - last)
