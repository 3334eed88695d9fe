"""Kernels in place of those that ONNX's reference evaluator lacks, gets wrong or computes in float32 only."""

import math

import numpy as np
from onnx.reference.op_run import OpRun

_erf = np.vectorize(math.erf, otypes=[np.float64])


class Erf(OpRun):
    """The reference evaluator's rounds to float32."""

    def _run(self, x: np.ndarray) -> tuple[np.ndarray]:
        return (_erf(x).astype(x.dtype),)


class Gelu(OpRun):
    """The reference evaluator's rounds to float32."""

    def _run(self, x: np.ndarray, approximate: str = "none") -> tuple[np.ndarray]:
        if approximate == "tanh":
            return (0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),)
        return ((0.5 * x * (1 + _erf(x / math.sqrt(2)))).astype(x.dtype),)


class LRN(OpRun):
    """The reference evaluator's normalises as many channels as the batch has images."""

    def _run(self, x: np.ndarray, alpha: float, beta: float, bias: float, size: int) -> tuple[np.ndarray]:
        channels = range(x.shape[1])
        windows = [x[:, max(c - (size - 1) // 2, 0) : c + size // 2 + 1] for c in channels]
        sums = np.stack([np.sum(np.square(window), axis=1) for window in windows], axis=1)
        return (x / (bias + alpha / size * sums) ** beta,)


class LpNormalization(OpRun):
    """The reference evaluator's sums x, not its magnitude, for an odd p."""

    def _run(self, x: np.ndarray, axis: int, p: int) -> tuple[np.ndarray]:
        return (x / np.sum(np.abs(x) ** p, axis=axis, keepdims=True) ** (1 / p),)


class Mean(OpRun):
    """The reference evaluator's can't widen its first input."""

    def _run(self, *inputs: np.ndarray) -> tuple[np.ndarray]:
        return (sum(inputs[1:], start=inputs[0]) / len(inputs),)


KERNELS: list[type[OpRun]] = [Erf, Gelu, LRN, LpNormalization, Mean]
