"""Grey windows, contour lines and masks of the most important pixels show what their numbers say."""

import numpy as np
import pytest

from onnxplain.display.pixels import contoured, shown_through, top_pixels, windowed
from onnxplain.errors import ParameterError
from onnxplain.heatmap import colours

rng = np.random.default_rng(0)


def test_a_window_is_black_below_and_white_above_and_straight_between():
    values = np.array([[-9.0, 1.0, 2.0, 3.0, 5.0, 6.0, 7.0]])
    np.testing.assert_array_equal(windowed(values, level=3, window=4), [[0, 0, 64, 128, 255, 255, 255]])
    assert windowed(values.astype(np.float32), level=3, window=4).dtype == np.uint8


def test_without_a_window_the_whole_range_is_shown():
    np.testing.assert_array_equal(windowed(np.array([[2.0, 4.0, 7.0]])), [[0, 102, 255]])
    np.testing.assert_array_equal(windowed(np.full((3, 4), 7)), 0)
    np.testing.assert_array_equal(windowed(np.array([[0, 255]], np.uint8)), [[0, 255]])


@pytest.mark.parametrize(
    "options", [{"level": 1}, {"window": 1}, {"level": 0, "window": 0}, {"level": np.nan, "window": 1}]
)
def test_half_a_window_is_an_error(options):
    with pytest.raises(ParameterError, match="window"):
        windowed(np.eye(2), **options)


@pytest.mark.parametrize(
    ("options", "kept"), [({"count": 7}, 7), ({"percent": 10}, 9), ({"percent": 100}, 88), ({"count": 0}, 0)]
)
def test_exactly_so_many_pixels_are_kept_and_they_are_the_largest(options, kept):
    maps = rng.normal(size=(3, 8, 11))
    mask = top_pixels(maps, **options)
    assert mask.shape == maps.shape
    assert mask.dtype == bool
    for one, found in zip(maps, mask, strict=True):
        assert found.sum() == kept
        assert set(one[found]) == set(np.sort(one.ravel())[88 - kept :])
        np.testing.assert_array_equal(top_pixels(one, **options), found)


def test_of_equal_pixels_the_first_are_kept():
    np.testing.assert_array_equal(top_pixels(np.zeros((2, 3)), count=2), [[1, 1, 0], [0, 0, 0]])
    np.testing.assert_array_equal(top_pixels(np.array([[1, 1, 2], [1, 2, 1]]), count=3), [[1, 0, 1], [0, 1, 0]])


@pytest.mark.parametrize(
    "options", [{}, {"count": 1, "percent": 1}, {"count": 5}, {"count": -1}, {"percent": 101}, {"percent": -0.1}]
)
def test_a_wrong_number_of_pixels_is_an_error(options):
    with pytest.raises(ParameterError, match=r"count|percent"):
        top_pixels(np.eye(2), **options)


@pytest.mark.parametrize("draw", [windowed, lambda values: top_pixels(values, count=1)], ids=["windowed", "top_pixels"])
def test_a_map_that_is_not_finite_is_an_error(draw):
    with pytest.raises(ParameterError, match="NaN or infinite"):
        draw(np.array([[0, np.nan]]))


def test_a_picture_shines_through_its_mask_alone():
    seen = rng.integers(1, 256, (2, 6, 7, 3), np.uint8)
    mask = rng.random((2, 6, 7)) < 0.5
    black, dim = shown_through(seen, mask), shown_through(seen, mask, 0.25)
    for drawn, rest in ((black, np.zeros_like(seen)), (dim, np.rint(seen * 0.25).astype(np.uint8))):
        np.testing.assert_array_equal(drawn[mask], seen[mask])
        np.testing.assert_array_equal(drawn[~mask], rest[~mask])
    with pytest.raises(ParameterError, match="doesn't fit"):
        shown_through(seen, mask[0])
    with pytest.raises(ParameterError, match="dim"):
        shown_through(seen, mask, 1.5)


def test_a_contour_runs_round_the_region_above_its_level():
    heat = np.zeros((40, 60))
    heat[10:30, 20:50] = 0.6
    seen = np.full((40, 60, 3), 128, np.uint8)
    drawn = contoured(seen, heat, [0.5])
    changed = (drawn != seen).any(axis=-1)
    rows, columns = np.nonzero(changed)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == pytest.approx((10, 29, 20, 49), abs=3)
    assert not changed[14:26, 24:46].any()  # a line, not an area
    assert all(changed[10, 20:50])
    assert tuple(drawn[29, 35]) == tuple(colours(np.array(0.5), "turbo"))
    np.testing.assert_array_equal(contoured(seen, heat, [0.7]), seen)


def test_a_layers_map_is_drawn_at_the_pictures_size_enlarged():
    seen = np.full((32, 48, 3), 128, np.uint8)
    heat = np.zeros((4, 6))
    heat[1:3, 2:4] = 1
    drawn = contoured(seen, heat, [0.5], enlarge=4)
    assert drawn.shape == (128, 192, 3)
    rows, columns = np.nonzero((drawn != 128).any(axis=-1))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == pytest.approx((32, 95, 64, 127), abs=4)


def test_smoothing_keeps_the_strongest_level():
    heat = np.zeros((30, 30))
    heat[15, 15] = 1
    seen = np.full((30, 30, 3), 128, np.uint8)
    assert (contoured(seen, heat, [0.9], smooth=3) != seen).any()
    np.testing.assert_array_equal(contoured(seen, np.zeros((30, 30)), smooth=3), seen)


@pytest.mark.parametrize("options", [{"levels": [1.5]}, {"enlarge": 0}, {"smooth": -1}], ids=str)
def test_a_wrong_option_of_a_contour_is_named(options):
    with pytest.raises(ParameterError, match=next(iter(options))):
        contoured(np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4)), **options)
