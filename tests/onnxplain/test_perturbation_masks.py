"""Windows, random cells and segments: where a picture is hidden."""

import sys

import cv2
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

from onnxplain.errors import ParameterError
from onnxplain.masks import MOST_CELLS, block_rows, painted_masks, random_masks, turned_over, window_masks
from onnxplain.plans import PLANS
from onnxplain.random import uniform
from onnxplain.segments import grid, segments_of

RISE = {"masks": 40, "cells": 7, "probability": 0.5}
DESIGNS = ("independent", "orthogonal")


def table(rule, parameters, *size):
    return PLANS[rule].rule(parameters, *size)


@pytest.mark.parametrize("size", [(64, 64), (45, 70)])
def test_the_masks_of_rise_are_its_cells_stretched_and_shifted(size):
    steps = table("random_masks", RISE, *size)
    masks = random_masks(5, steps, *size)
    noise = uniform(5, np.arange(40), (MOST_CELLS**2 + 2,))
    height, width = (-(-side // 7) for side in size)
    for k in range(40):
        cells = (noise[k, : MOST_CELLS**2].reshape(MOST_CELLS, MOST_CELLS)[:7, :7] < 0.5).astype(np.float32)
        large = cv2.resize(cells, (8 * width, 8 * height), interpolation=cv2.INTER_LINEAR)
        top, left = (int(u * n) for u, n in zip(noise[k, -2:], (height, width), strict=True))
        assert_allclose(masks[k], large[top : top + size[0], left : left + size[1]], atol=1e-5)


@pytest.mark.parametrize("cells", [2, 5, 7, 10])
def test_a_block_of_masks_keeps_every_two_cells_together_as_often_as_apart(cells):
    size = 2 * block_rows(cells)
    steps = table("random_masks", {**RISE, "masks": 2 * size, "cells": cells, "design": "orthogonal"}, 60, 50)
    noise = uniform(5, steps[:, 0], (MOST_CELLS**2 + 2,))
    kept = (noise[:, : MOST_CELLS**2] < 0.5) ^ turned_over(steps[:, 7], steps[:, 8])
    grid = kept.reshape(-1, MOST_CELLS, MOST_CELLS)[:, :cells, :cells].reshape(2, size, -1) * 2.0 - 1
    for block in grid:
        assert_allclose(block.T @ block, size * np.eye(cells**2), atol=0)
        assert_allclose(block.sum(axis=0), 0, atol=0)
        assert_allclose(block[::2], -block[1::2], atol=0)
    assert not np.array_equal(grid[0], grid[1])


def test_other_probabilities_have_no_blocks():
    parameters = {**RISE, "probability": 0.4}
    alone, blocks = (table("random_masks", {**parameters, "design": design}, 60, 50) for design in DESIGNS)
    assert_array_equal(alone, blocks)


def test_the_masks_have_the_mean_that_they_should_everywhere():
    steps = table("random_masks", {"masks": 4000, "cells": 5, "probability": 0.3}, 30, 40)
    masks = random_masks(1, steps, 30, 40)
    assert_allclose(masks.mean(axis=0), 0.3, atol=6 * 0.46 / 4000**0.5)
    assert masks.min() >= 0
    assert masks.max() <= 1
    one, two = (mask.ravel() - 0.3 for mask in masks[:2])
    assert abs(one @ two) / np.sqrt((one @ one) * (two @ two)) < 0.5


def test_mindspores_masks_agree_with_its_8_bit_ones():
    steps = table("random_masks.mindspore", {"masks": 20, "cells": 10, "probability": 0.5}, 64, 64)
    masks = random_masks(9, steps, 64, 64)
    noise = uniform(9, np.arange(20), (MOST_CELLS**2 + 2,))
    for k in range(20):
        cells = noise[k, : MOST_CELLS**2].reshape(MOST_CELLS, MOST_CELLS)[:10, :10] < 0.5
        large = Image.fromarray((cells * 255).astype(np.uint8)).resize((74, 74), Image.Resampling.BILINEAR)
        top, left = (int(u * 11) for u in noise[k, -2:])
        expected = np.asarray(large, np.float32)[top : top + 64, left : left + 64] / 255
        assert_allclose(masks[k], expected, atol=1.01 / 255)
    shifts = np.floor(uniform(0, np.arange(500), (MOST_CELLS**2 + 2,))[:, -2:] * 11)
    assert (shifts.min(), shifts.max()) == (0, 10)


@pytest.mark.parametrize("cells", [33, 9])
def test_more_cells_than_the_image_or_the_grid_has_are_refused(cells):
    with pytest.raises(ParameterError, match=f"cells={cells} is out of range for an image of {cells - 1}x50"):
        table("random_masks", {**RISE, "cells": cells}, cells - 1, 50)


def test_a_window_may_be_a_rectangle_with_a_stride_for_each_side():
    steps = table("windows", {"window": (2, 3), "stride": (2, 1)}, 5, 5)
    assert_array_equal(np.unique(steps[:, [0, 2]], axis=0), [[0, 2], [2, 4], [3, 5]])
    assert_array_equal(np.unique(steps[:, [1, 3]], axis=0), [[0, 3], [1, 4], [2, 5]])
    masks = window_masks(steps, 5, 5)
    assert (masks.sum(axis=(1, 2)) == 6).all()
    assert masks[0, :2, :3].all()


@pytest.mark.parametrize("window", [(9, 2), (2, 7), (8, 6)])
def test_a_window_that_does_not_fit_is_an_error_that_says_what_would(window):
    with pytest.raises(ParameterError, match=r"8x6 .*below 8, or a pair .* at most \(8, 6\)"):
        table("windows", {"window": window, "stride": 0}, 8, 6)


def test_captums_last_window_is_cut_off_at_the_border():
    steps = table("windows.captum", {"window": (3, 4), "stride": (2, 3)}, 8, 9)
    assert_array_equal(np.unique(steps[:, [0, 2]], axis=0), [[0, 3], [2, 5], [4, 7], [6, 8]])
    assert_array_equal(np.unique(steps[:, [1, 3]], axis=0), [[0, 4], [3, 7], [6, 9]])


@pytest.mark.parametrize(("side", "window", "count"), [(224, 7, 32), (299, 9, 33), (32, 3, 30), (33, 1, 33)])
def test_mindspores_windows_are_a_32nd_of_long_sides(side, window, count):
    steps = table("windows.mindspore", {"window": 0, "stride": 0}, side, side)
    assert len(steps) == count**2
    assert steps[0].tolist() == [0, 0, window, window]
    assert steps[-1, 2] == (count - 1) * (window if side > 32 else 1) + window


def test_a_grids_segments_are_nearly_equal_rectangles():
    numbers = grid(3, 7, 11)
    assert_array_equal(np.unique(numbers), np.arange(9))
    assert np.bincount(numbers.ravel()).tolist() == [12, 12, 9, 8, 8, 6, 8, 8, 6]
    states = np.eye(9)[[4]]
    mask = painted_masks(states, numbers)[0]
    rows, columns = np.nonzero(mask)
    assert mask.sum() == 8
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (3, 4, 4, 7)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_ones_own_segments_are_numbered_without_gaps(layout):
    rows = np.zeros((2, 3, 4, 6) if layout == "NCHW" else (2, 4, 6, 3), np.float32)
    own = np.tile([7, 7, 2, 2, -1, 50], (4, 1))
    found = segments_of({"segments": own, "cells": 7}, rows, layout)
    assert_array_equal(found, np.tile([2, 2, 1, 1, 0, 3], (1, 4, 1)))
    each = segments_of({"segments": np.stack([own, own.astype(float) + 1]), "cells": 7}, rows, layout)
    assert_array_equal(each, np.tile([2, 2, 1, 1, 0, 3], (2, 4, 1)))


def test_segments_of_another_size_are_an_error_that_says_the_right_one():
    rows = np.zeros((2, 3, 4, 6), np.float32)
    with pytest.raises(ParameterError, match=r"\[6, 4\] don't fit: \[4, 6\] .* \[2, 4, 6\] for one each"):
        segments_of({"segments": np.zeros((6, 4)), "cells": 7}, rows, "NCHW")
    with pytest.raises(ParameterError, match="whole numbers"):
        segments_of({"segments": np.full((4, 6), 0.5), "cells": 7}, rows, "NCHW")
    with pytest.raises(ParameterError, match="at most 4"):
        segments_of({"segments": "grid", "cells": 5}, rows, "NCHW")


@pytest.mark.parametrize("channels", [1, 3])
def test_superpixels_follow_the_edges_of_the_picture(channels):
    rows = np.zeros((1, channels, 20, 30), np.float32)
    rows[:, :, :, 13:] = 1
    (numbers,) = segments_of({"segments": "slic", "cells": 3}, rows, "NCHW")
    assert not set(numbers[:, :13].ravel()) & set(numbers[:, 13:].ravel())
    assert 4 <= numbers.max() + 1 <= 16


def test_superpixels_without_scikit_image_name_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage.segmentation", None)
    with pytest.raises(ParameterError, match=r"onnxplain\[segments\]"):
        segments_of({"segments": "slic", "cells": 3}, np.zeros((1, 3, 9, 9), np.float32), "NCHW")
