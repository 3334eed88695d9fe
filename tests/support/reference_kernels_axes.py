"""Kernels in place of those of ONNX's reference evaluator that misread starts or axes.

`test_vjp_properties.py` compares them with onnxruntime on every use that it draws.
"""

from typing import Any

import numpy as np
from onnx.reference.op_run import OpRun
from onnx.reference.ops.op_resize import Resize as OriginalResize


class Slice(OpRun):
    """The reference evaluator's cuts as Python does, where a start before the first entry leaves nothing backwards."""

    def _run(self, x: np.ndarray, starts: Any, ends: Any, axes: Any = None, steps: Any = None) -> tuple[np.ndarray]:
        steps = np.ones_like(starts) if steps is None else steps
        for axis, *bounds in zip(range(len(starts)) if axes is None else axes, starts, ends, steps, strict=True):
            start, end, step = (int(number) for number in bounds)
            size = x.shape[axis]
            start, end = (number + size if number < 0 else number for number in (start, end))
            lowest, highest = (0, size) if step > 0 else (0, size - 1)
            start = min(max(start, lowest), highest)
            end = min(max(end, lowest if step > 0 else -1), size)
            x = np.take(x, np.arange(start, end, np.clip(step, -size, size)), axis=axis)
        return (x,)


class Resize(OriginalResize):
    """The reference evaluator's fails where axes are counted from the end."""

    def _run(self, x: np.ndarray, *others: Any, axes: Any = None, **attributes: Any) -> tuple[np.ndarray]:
        counted = None if axes is None else [axis % x.ndim for axis in axes]
        return super()._run(x, *others, axes=counted, **attributes)


KERNELS: list[type[OpRun]] = [Slice, Resize]
"""What stands in for the reference evaluator's own."""
