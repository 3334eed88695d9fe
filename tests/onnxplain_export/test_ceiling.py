"""Pools whose ceil_mode lets a last window start in the padding: as many windows as onnxruntime and torch have."""

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto

import small_models
from normalizing import assert_same_scores, normalized
from onnxplain.errors import NoGradientError
from onnxplain_export.graphs.gradient import gradient
from small_models import conv, head, model, node

SIZES = (9, 10)
OPSETS = {"MaxPool": (10, 11, 12, 22), "AveragePool": (10, 11, 19, 22), "LpPool": (18, 22)}

WINDOWS: dict[str, dict[str, Any]] = {
    "in the end pad": {"kernel_shape": [2, 2], "strides": [3, 3], "pads": [0, 1, 1, 1]},
    "past unread entries": {"kernel_shape": [1, 1], "strides": [5, 3], "pads": [0, 0, 0, 0]},
    "beside an overhang": {"kernel_shape": [3, 2], "strides": [4, 3], "pads": [0, 1, 0, 1]},
    "past unread entries, beside an overhang": {"kernel_shape": [1, 3], "strides": [5, 2], "pads": [0, 0, 0, 0]},
    "both": {"kernel_shape": [3, 3], "strides": [4, 5], "pads": [2, 2, 2, 2]},
}


def pooled(kind: str, window: str, opset: int, **attributes: Any) -> onnx.ModelProto:
    """The pool, and what depends on its computed size: zeros of its shape, joined to it."""
    nodes = [
        conv(),
        node(kind, ["c"], ["p"], ceil_mode=1, name="pool", **WINDOWS[window], **attributes),
        node("Shape", ["p"], ["shape"]),
        node("ConstantOfShape", ["shape"], ["zeros"]),
        node("Concat", ["p", "zeros"], ["d"], axis=2),
        *head("d"),
    ]
    return model(nodes, inputs=[("x", TensorProto.FLOAT, ["N", 3, *SIZES])], opset=opset)


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize(
    ("kind", "opset", "attributes"),
    [
        *(("MaxPool", opset, {}) for opset in OPSETS["MaxPool"]),
        *(("AveragePool", opset, {"count_include_pad": k}) for opset in OPSETS["AveragePool"] for k in (0, 1)),
        *(("LpPool", opset, {}) for opset in OPSETS["LpPool"]),
    ],
)
def test_windows_are_those_that_onnxruntime_computes(
    kind: str, opset: int, attributes: dict[str, Any], window: str
) -> None:
    found = assert_same_scores(pooled(kind, window, opset, **attributes))
    (pool,) = (one for one in found.model.graph if one.op_type == kind)
    computed = small_models.run(pooled(kind, window, opset, **attributes), {"x": small_models.images(3, *SIZES)}, "p")
    assert list(pool.outputs[0].shape)[2:] == list(computed.shape[2:])


@pytest.mark.parametrize("counted", [False, True])
def test_the_windows_are_torch_s(counted: bool) -> None:
    proto = pooled("AveragePool", "in the end pad", 11, count_include_pad=int(counted))
    del proto.graph.node[1].attribute[:]
    same = {"kernel_shape": [2, 2], "strides": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": int(counted)}
    proto.graph.node[1].CopyFrom(node("AveragePool", ["c"], ["p"], ceil_mode=1, **same))
    images = small_models.images(3, *SIZES)
    inside = torch.tensor(small_models.run(proto, {"x": images}, "c"))
    expected = torch.nn.functional.avg_pool2d(inside, 2, 3, 1, ceil_mode=True, count_include_pad=counted)
    np.testing.assert_allclose(small_models.run(proto, {"x": images}, "p"), expected, rtol=1e-5, atol=1e-6)
    assert_same_scores(proto)


def test_pads_that_count_beside_unread_entries_are_refused() -> None:
    """No pads say it: those of the one axis must not grow, those of the other not fall below zero."""
    window = {"kernel_shape": [4, 1], "strides": [3, 5], "pads": [0, 0, 2, 0], "count_include_pad": 1}
    nodes = [conv(), node("AveragePool", ["c"], ["p"], ceil_mode=1, name="pool", **window), *head("p")]
    proto = model(nodes, inputs=[("x", TensorProto.FLOAT, ["N", 3, 10, 14])], opset=11)
    with pytest.raises(NoGradientError, match=r"AveragePool \(node 'pool'\).*replace ceil_mode by larger pads"):
        gradient(normalized(proto))
