"""Numpy kernels for the ONNX reference evaluator where its own spatial ones are wrong or missing.

onnx 1.23's ConvTranspose fails with groups, its pools place the overhang of ceil_mode on both sides, its GlobalMaxPool
and Pad fail on sequences and on negative pads, and GlobalLpPool is missing. These follow the standard at opset 20 and
are checked against torch and onnxruntime in `test_vjp_spatial.py`.
"""

from itertools import product
from typing import Any

import numpy as np
from onnx.reference.op_run import OpRun

Array = np.ndarray


class ConvTranspose(OpRun):
    """Adds x * W[tap] at every position that the tap reaches, then cuts the pads off."""

    def _run(self, x: Array, weight: Array, bias: Array | None = None, **attributes: Any) -> tuple[Array]:
        rank, group = x.ndim - 2, attributes["group"] or 1
        strides, dilations = attributes["strides"] or [1] * rank, attributes["dilations"] or [1] * rank
        pads, extra = attributes["pads"] or [0] * (2 * rank), attributes["output_padding"] or [0] * rank
        kernel, sizes, outputs = weight.shape[2:], x.shape[2:], weight.shape[1] * group
        reach = [(size - 1) * stride + 1 for size, stride in zip(sizes, strides, strict=True)]
        spans = [(k - 1) * d for k, d in zip(kernel, dilations, strict=True)]
        full = [a + b + c for a, b, c in zip(reach, spans, extra, strict=True)]
        y = np.zeros((len(x), outputs, *full), x.dtype)
        grouped = x.reshape(len(x), group, x.shape[1] // group, *sizes)
        weights = weight.reshape(group, -1, *weight.shape[1:])
        for tap in product(*(range(k) for k in kernel)):
            term = np.einsum("ngc...,gcm->ngm...", grouped, weights[(..., *tap)]).reshape(len(x), outputs, *sizes)
            starts = [t * d for t, d in zip(tap, dilations, strict=True)]
            y[(..., *(slice(a, a + r, s) for a, r, s in zip(starts, reach, strides, strict=True)))] += term
        y = y[(..., *(slice(pads[axis], full[axis] - pads[rank + axis]) for axis in range(rank)))]
        return (y if bias is None else y + bias.reshape(-1, *[1] * rank),)


class _Pool(OpRun):
    """Gathers the values that each window reads, NaN where it reads no value or padding that doesn't count."""

    def _windows(self, x: Array, attributes: dict[str, Any], padding: float) -> Array:
        """The windows' values, [taps, N, C, *outputs]."""
        kernel = attributes["kernel_shape"]
        rank = len(kernel)
        strides, dilations = attributes["strides"] or [1] * rank, attributes["dilations"] or [1] * rank
        pads = attributes["pads"] or [0] * (2 * rank)
        x = np.pad(x, [(0, 0), (0, 0), *zip(pads[:rank], pads[rank:], strict=True)], constant_values=padding)
        for axis, k in enumerate(kernel):
            span = (k - 1) * dilations[axis] + 1
            stride, room = strides[axis], x.shape[2 + axis] - span
            count = room // stride + 1
            if attributes["ceil_mode"] and room % stride and count * stride < x.shape[2 + axis] - pads[rank + axis]:
                count += 1
            positions = np.arange(count)[:, None] * stride + np.arange(k) * dilations[axis]
            overhang = max(positions.max() + 1 - x.shape[2 + axis], 0)
            x = np.pad(
                x, [(0, overhang if index == 2 + axis else 0) for index in range(x.ndim)], constant_values=np.nan
            )
            x = np.moveaxis(np.take(x, positions, axis=2 + axis), 3 + axis, -1)
        return np.moveaxis(x.reshape(*x.shape[: 2 + rank], -1), -1, 0)


class MaxPool(_Pool):
    """The largest value of each window."""

    def _run(self, x: Array, **attributes: Any) -> tuple[Array]:
        return (np.nanmax(self._windows(x, attributes, np.nan), axis=0),)


class AveragePool(_Pool):
    """The mean of each window's values; the padding counts as zeros with count_include_pad, the overhang never."""

    def _run(self, x: Array, **attributes: Any) -> tuple[Array]:
        padding = 0.0 if attributes["count_include_pad"] else np.nan
        return (np.nanmean(self._windows(x, attributes, padding), axis=0),)


class LpPool(_Pool):
    """The p-norm of each window's values."""

    def _run(self, x: Array, **attributes: Any) -> tuple[Array]:
        powers = np.abs(self._windows(x, attributes, 0.0)) ** attributes["p"]
        return (np.nansum(powers, axis=0) ** (1 / attributes["p"]),)


class GlobalMaxPool(OpRun):
    """The largest value over all positions."""

    def _run(self, x: Array) -> tuple[Array]:
        return (x.max(axis=tuple(range(2, x.ndim)), keepdims=True),)


class GlobalLpPool(OpRun):
    """The p-norm over all positions."""

    def _run(self, x: Array, p: int) -> tuple[Array]:
        return ((np.abs(x) ** p).sum(axis=tuple(range(2, x.ndim)), keepdims=True) ** (1 / p),)


class Pad(OpRun):
    """Pads as numpy does; a negative width removes."""

    def _run(self, x: Array, pads: Array, value: Any = None, axes: Array | None = None, mode: str = "") -> tuple[Array]:
        chosen = list(range(x.ndim)) if axes is None else [int(axis) for axis in axes]
        widths = np.zeros((x.ndim, 2), np.int64)
        widths[chosen] = np.reshape(pads, (2, -1)).T
        keep = tuple(slice(max(-a, 0), n - max(-b, 0)) for n, (a, b) in zip(x.shape, widths, strict=True))
        options: Any = {"constant_values": 0 if value is None else value} if mode == "constant" else {}
        return (np.pad(x[keep], np.maximum(widths, 0), mode, **options),)


KERNELS: list[type[OpRun]] = [ConvTranspose, MaxPool, AveragePool, LpPool, GlobalMaxPool, GlobalLpPool, Pad]
"""What stands in for the reference evaluator's own."""
