"""A read of all entries in their own order at places that the graph computes is a reshape."""

import numpy as np
import pytest

from normalizing import assert_same_scores, normalized, operators
from small_models import CLASSES, conv, model, node


def strided(stride: int, offset: int = 0):
    """Averages [N, 8, 1, 1], flattened and read at n·stride + c + offset, as torch exports the view of a pooling."""
    nodes = [
        conv(),
        node("GlobalAveragePool", ["c"], ["pooled"]),
        node("Reshape", ["pooled", "all"], ["flat"]),
        node("Shape", ["x"], ["batch"], start=0, end=1),
        node("Squeeze", ["batch"], ["count"]),
        node("Range", ["zero", "count", "one"], ["images"]),
        node("Mul", ["images", "stride"], ["starts"]),
        node("Unsqueeze", ["starts", "behind"], ["rows"]),
        node("Add", ["rows", "channels"], ["places"]),
        node("Gather", ["flat", "places"], ["view"], axis=0),
        node("Flatten", ["view"], ["features"]),
        node("Gemm", ["features", "fw", "fb"], ["y"]),
    ]
    weights = {
        "all": np.array([-1]),
        "zero": np.array(0),
        "one": np.array(1),
        "stride": np.array(stride),
        "behind": np.array([1, 2, 3]),
        "channels": (np.arange(8) + offset).reshape(1, 8, 1, 1),
    }
    return model(nodes, weights)


def test_a_view_in_order_becomes_a_reshape():
    found = assert_same_scores(strided(8))
    assert "Gather" not in operators(found)
    assert "Range" not in operators(found)
    assert found.scores.shape == (CLASSES,)


@pytest.mark.parametrize(("stride", "offset"), [(0, 0), (7, 0), (7, 1)])
def test_a_read_in_another_order_stays(stride, offset):
    assert "Gather" in operators(normalized(strided(stride, offset)))
