"""Kernels in place of those of ONNX's reference evaluator that round to float32 or ignore an attribute."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from onnx.reference.op_run import OpRun

MODES = {"linear": "bilinear", "cubic": "bicubic"}


class GridSample(OpRun):
    """torch's: the reference evaluator's rounds the coordinates to float32."""

    def _run(self, x: np.ndarray, grid: np.ndarray, **attributes: Any) -> tuple[np.ndarray]:
        mode, padding = attributes["mode"], attributes["padding_mode"]
        options = {
            "mode": MODES.get(mode, mode),
            "padding_mode": padding,
            "align_corners": bool(attributes["align_corners"]),
        }
        return (F.grid_sample(torch.tensor(x), torch.tensor(grid), **options).numpy(),)


class AffineGrid(OpRun):
    """torch's: the reference evaluator's rounds to float32."""

    def _run(self, theta: np.ndarray, size: np.ndarray, align_corners: int) -> tuple[np.ndarray]:
        return (F.affine_grid(torch.tensor(theta), size.tolist(), bool(align_corners)).numpy(),)


class DeformConv(OpRun):
    """The reference evaluator's samples with its GridSample; this one with torch's."""

    def _run(self, x: np.ndarray, weight: np.ndarray, offset: np.ndarray, *others: Any, **attributes: Any) -> Any:
        bias, mask = (*others, None, None)[:2]
        group, groups = attributes["group"] or 1, attributes["offset_group"] or 1
        strides, dilations = attributes["strides"] or [1, 1], attributes["dilations"] or [1, 1]
        pads, (count, channels, height, width) = attributes["pads"] or [0] * 4, x.shape
        filters, _, *kernel = weight.shape
        outputs = offset.shape[2:]
        moves = offset.reshape(count * groups, kernel[0], kernel[1], 2, *outputs)
        rows = np.arange(kernel[0])[:, None, None, None] * dilations[0] + np.arange(outputs[0])[:, None] * strides[0]
        columns = np.arange(kernel[1])[:, None, None] * dilations[1] + np.arange(outputs[1]) * strides[1]
        down = (rows - pads[0] + moves[:, :, :, 0]) / (height - 1) * 2 - 1
        right = (columns - pads[1] + moves[:, :, :, 1]) / (width - 1) * 2 - 1
        grid = np.stack([right, down], axis=-1).reshape(count * groups, -1, 1, 2)
        images = torch.tensor(x.reshape(count * groups, channels // groups, height, width))
        samples = F.grid_sample(images, torch.tensor(grid.astype(x.dtype)), align_corners=True).numpy()
        samples = samples.reshape(count, groups, channels // groups, *kernel, *outputs)
        if mask is not None:
            samples = samples * mask.reshape(count, groups, 1, *kernel, *outputs)
        samples = samples.reshape(count, group, channels // group, *kernel, *outputs)
        weights = weight.reshape(group, filters // group, -1, *kernel)
        y = np.einsum("gmckl,ngcklhw->ngmhw", weights, samples).reshape(count, filters, *outputs)
        return (y if bias is None else y + bias.reshape(-1, 1, 1),)


class GatherElements(OpRun):
    """The reference evaluator's takes few entries only, and no indices that leave a part of the data out."""

    def _run(self, data: np.ndarray, indices: np.ndarray, axis: int) -> tuple[np.ndarray]:
        across = axis % data.ndim
        part = data[tuple(slice(None if i == across else n) for i, n in enumerate(indices.shape))]
        return (np.take_along_axis(part, indices, axis),)


class Unique(OpRun):
    """The reference evaluator's ignores `sorted` where only the values are asked for."""

    def _run(self, x: np.ndarray, axis: int | None = None, sorted: int = 1) -> tuple[np.ndarray, ...]:  # noqa: A002
        y, first, inverse, counts = np.unique(x, True, True, True, axis=axis)
        inverse = inverse.reshape(-1)
        if not sorted:
            order = np.argsort(first)
            y, first, counts = np.take(y, order, axis=axis or 0), first[order], counts[order]
            inverse = np.argsort(order)[inverse]
        return (y, first, inverse, counts)[: len(self.onnx_node.output)]


class MeanVarianceNormalization(OpRun):
    """The reference evaluator's body of simpler operators holds float32 constants."""

    def _run(self, x: np.ndarray, axes: list[int] | None = None) -> tuple[np.ndarray]:
        over = tuple(axes or (0, 2, 3))
        return ((x - x.mean(over, keepdims=True)) / (x.std(over, keepdims=True) + 1e-9),)


KERNELS: list[type[OpRun]] = [GridSample, AffineGrid, DeformConv, GatherElements, Unique, MeanVarianceNormalization]
"""What stands in for the reference evaluator's own."""
