"""The gradients of a case as the package onnx-ad computes them: an engine with which ours shares no line.

It is run in float64 by ONNX's reference evaluator. `EXPECTED_REFUSALS` and `KNOWN_WRONG` say where it doesn't count.
"""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import onnx_ad
from onnx.reference import ReferenceEvaluator
from onnx.reference.ops.op_scan import Scan as OriginalScan

import reference_kernels
from rule_harness import KERNELS, Case, feeds_of, forward_model

Array = np.ndarray


class ConvTranspose(reference_kernels.ConvTranspose):
    """With output_shape, as onnx-ad's adjoints have it: the standard then derives the pads, the larger at the start."""

    def _run(self, x: Array, weight: Array, bias: Array | None = None, **attributes: Any) -> tuple[Array]:
        wanted = attributes["output_shape"]
        if not wanted:
            return super()._run(x, weight, bias, **attributes)
        rank = x.ndim - 2
        (full,) = super()._run(x, weight, bias, **attributes | {"pads": [0] * (2 * rank)})
        for axis, size in enumerate(wanted, start=2):
            total = full.shape[axis] - size
            start = total - total // 2
            full = np.pad(full, [(0, max(-total, 0) if i == axis else 0) for i in range(full.ndim)])
            full = np.take(full, np.arange(size) + max(start, 0), axis=axis)
        return (full,)


class MaxPool(reference_kernels.MaxPool):
    """With the Indices, counted through the whole input."""

    def _run(self, x: Array, **attributes: Any) -> tuple[Array, ...]:
        windows = self._windows(x, attributes, np.nan)
        places = self._windows(np.arange(x.size, dtype=x.dtype).reshape(x.shape), attributes, np.nan)
        first = np.nanargmax(windows, axis=0)[None]
        found = [np.take_along_axis(values, first, axis=0)[0] for values in (windows, places)]
        return (found[0], found[1].astype(np.int64))[: len(self.onnx_node.output)]


class Scan(OriginalScan):
    """In either direction, which the reference evaluator's refuses."""

    def __init__(self, onnx_node: onnx.NodeProto, run_params: dict[str, Any]) -> None:
        node = onnx.NodeProto()
        node.CopyFrom(onnx_node)
        directions = {a.name: list(a.ints) for a in node.attribute if a.name.endswith("_directions")}
        kept = [a for a in onnx_node.attribute if a.name not in directions]
        node.ClearField("attribute")
        node.attribute.extend(kept)
        super().__init__(node, run_params)
        self._reads, self._writes = (directions.get(f"scan_{way}_directions", []) for way in ("input", "output"))

    def _run(self, *inputs: Array, **options: Any) -> tuple[Array, ...]:
        states = len(inputs) - self.num_scan_inputs
        outputs = super()._run(*inputs[:states], *_turned(inputs[states:], self._reads), **options)
        return (*outputs[:states], *_turned(outputs[states:], self._writes))


def _turned(arrays: tuple[Array, ...], directions: list[int]) -> list[Array]:
    padded = [*directions, *[0] * len(arrays)]
    return [x[::-1] if backwards else x for x, backwards in zip(arrays, padded, strict=False)]


_REPLACED = {"ConvTranspose": ConvTranspose, "MaxPool": MaxPool, "Scan": Scan}
_KERNELS = [*(kernel for kernel in KERNELS if kernel.__name__ not in _REPLACED), *_REPLACED.values()]


def onnx_ad_gradients(case: Case, cotangent: Array) -> list[Array]:
    """Its gradients at `wrt`; raises whatever it raises where it refuses the case."""
    names = [f"input_{index}" for index in case.wrt]
    adjoint = onnx_ad.reverse(forward_model(case), inputs=names, layout="onnx")
    (seed,) = (value.name for value in adjoint.graph.input if value.name.startswith("adj_"))
    feeds = {**feeds_of(case), seed: cotangent[..., None]}
    found = ReferenceEvaluator(adjoint, new_ops=_KERNELS).run([f"adj_{name}" for name in names], feeds)
    return [gradient[..., 0] for gradient in found]


_AT_RUN_TIME = r"only with a constant '?(axes|axis|starts|repeats)"
_UNKNOWN_SHAPES = r"needs a declared shape|the rank of .* is unknown|only where the concatenated extent"
_RECURRENT = r"sequence_lens shorter|with clip is not|with input_forget is not"
_CEIL = r"ceil_mode=1 is not differentiated in reverse"

EXPECTED_REFUSALS: Mapping[str, str] = {
    "AffineGrid": _UNKNOWN_SHAPES,
    "AveragePool": _CEIL,
    "Conv": r"grouped Conv is not differentiated with respect to its weight",
    "ConvTranspose": r"not differentiated with respect to its weight",
    "CumSum": _AT_RUN_TIME,
    "DFT": r"an inverse onesided DFT",
    "Einsum": r"repeated index|leading ellipsis|without the ellipsis",
    "GRU": _RECURRENT,
    "GatherND": r"with batch_dims is not differentiated",
    "LSTM": _RECURRENT,
    "LpPool": _CEIL,
    "Pad": r"only constant-mode Pad",
    "RNN": _RECURRENT,
    **dict.fromkeys(
        ["ReduceL2", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceProd", "ReduceSum"], _AT_RUN_TIME
    ),
    "ScatterElements": r"reduction='(mul|min|max)' is not differentiated",
    "ScatterND": r"reduction='(mul|min|max)' is not differentiated",
    "Slice": rf"{_AT_RUN_TIME}|step other than 1",
    "Squeeze": _AT_RUN_TIME,
    "Tile": _AT_RUN_TIME,
    "TopK": _UNKNOWN_SHAPES,
    "Unsqueeze": _UNKNOWN_SHAPES,
}
"""What onnx-ad 0.3 says, as an expression, of the cases that it doesn't differentiate."""


def refused_as_expected(case: Case, error: Exception) -> bool:
    """Whether the refusal is one of those that are known."""
    expected = EXPECTED_REFUSALS.get(case.op_type)
    return expected is not None and re.search(expected, str(error)) is not None


def _pads_moved(case: Case) -> bool:
    """Whether the pads that a runtime derives from onnx-ad's output_shape aren't those of the window."""
    sizes = np.shape(case.inputs[0]) if not isinstance(case.inputs[0], tuple) else case.inputs[0]
    kernel = case.attributes.get("kernel_shape") or np.shape(case.arrays()[1])[2:]
    rank = len(kernel)
    strides, dilations = (case.attributes.get(name, [1] * rank) for name in ("strides", "dilations"))
    pads = case.attributes.get("pads", [0] * (2 * rank))
    for axis in range(rank):
        begin, end = pads[axis], pads[rank + axis]
        span = (kernel[axis] - 1) * dilations[axis] + 1
        left = (sizes[2 + axis] + begin + end - span) % strides[axis]
        total = begin + end - left
        if max(total - total // 2, 0) != begin:
            return True
    return False


def _is(*notes: str) -> Callable[[Case], bool]:
    return lambda case: case.note in notes


_EMPTY = (_is("empty axes"), "reads an empty list of axes as none; the standard as all")
_UNEVEN = (_pads_moved, "gives ConvTranspose an output_shape in place of pads, which moves uneven pads")
_ZERO = (lambda case: True, "counts it among the operators whose derivative is zero")

KNOWN_WRONG: Mapping[str, tuple[Callable[[Case], bool], str]] = {
    "AveragePool": _UNEVEN,
    "BatchNormalization": (_is("everything"), "gives the mean and the variance no gradient"),
    "Clip": (_is("bounds crossed"), "lets x through where the lower bound is above the upper one"),
    "Conv": _UNEVEN,
    "Det": _ZERO,
    "GRU": (_is("linear before reset, without bias"), "takes linear_before_reset for 0 where there is no bias"),
    "OneHot": _ZERO,
    "Pad": (lambda case: min(case.inputs[1]) < 0, "doesn't put back what negative pads removed"),
    **dict.fromkeys([f"Reduce{name}" for name in ("L1", "L2", "LogSumExp", "Max", "Mean", "Min", "Prod")], _EMPTY),
    "ReduceSumSquare": _EMPTY,
}
"""Where onnx-ad 0.3 answers, and wrongly: which cases, and why. Each was settled by finite differences and torch."""


def known_wrong(case: Case) -> bool:
    """Whether the case is one of those."""
    applies, _ = KNOWN_WRONG.get(case.op_type, (lambda case: False, ""))
    return applies(case)


def distance(one: Array, other: Array) -> float:
    """Relative, infinite for different shapes or where either isn't finite."""
    if one.shape != other.shape:
        return math.inf
    size = max(float(np.linalg.norm(one)), float(np.linalg.norm(other)))
    apart = float(np.linalg.norm(one - other))
    return 0.0 if apart == 0 else apart / size if np.isfinite(apart) else math.inf
