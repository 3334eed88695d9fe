"""Maps are drawn so that bright means strong, and never from numbers that are none."""

import numpy as np
import pytest

from onnxplain.errors import ParameterError
from onnxplain.heatmap import (
    COLOUR_MAPS,
    HEATMAP_PRESETS,
    STATISTICS,
    at_size,
    colours,
    diverging,
    heatmap,
    overlay,
    overlay_original,
    reduced,
    signed_map,
    signed_overlay,
    signed_picture,
)
from onnxplain.preprocessing import override, prepare, preset_steps

rng = np.random.default_rng(0)


def test_a_heat_map_is_the_absolute_sum_from_minimum_to_99th_percentile():
    attribution = rng.normal(size=(3, 3, 20, 31)).astype(np.float32)
    heat = heatmap(attribution)
    for image, drawn in zip(attribution.astype(np.float64), heat, strict=True):
        total = sum(abs(channel) for channel in image)
        ordered = np.sort(total.ravel())
        position = 0.99 * (ordered.size - 1)
        low, high = ordered[int(position)], ordered[int(position) + 1]
        top = low + (position - int(position)) * (high - low)
        expected = np.minimum((total - ordered[0]) / (top - ordered[0]), 1)
        np.testing.assert_allclose(drawn, expected, atol=1e-6)
    assert heat.dtype == np.float32
    assert heat.shape == (3, 20, 31)


def test_layouts_agree():
    attribution = rng.normal(size=(2, 3, 9, 11))
    np.testing.assert_array_equal(heatmap(attribution), heatmap(attribution.transpose(0, 2, 3, 1), "NHWC"))
    signed = signed_picture(attribution)
    np.testing.assert_array_equal(signed, signed_picture(attribution.transpose(0, 2, 3, 1), "NHWC"))


def test_an_images_map_does_not_depend_on_its_neighbours():
    attribution = rng.normal(size=(2, 3, 9, 11)) * np.array([1, 1000]).reshape(2, 1, 1, 1)
    np.testing.assert_array_equal(heatmap(attribution)[0], heatmap(attribution[:1])[0])
    np.testing.assert_array_equal(heatmap(attribution)[1], heatmap(attribution[1]))


@pytest.mark.parametrize("value", [0.0, 1.0, -3e30, 1e-45])
def test_a_constant_map_is_zeros(value):
    with np.errstate(all="raise"):
        np.testing.assert_array_equal(heatmap(np.full((1, 3, 5, 6), value, np.float32)), 0)


def test_a_map_of_a_single_pixel_is_that_pixel():
    attribution = np.zeros((1, 3, 40, 40), np.float32)
    attribution[0, 1, 7, 9] = -1e-30
    expected = np.zeros((1, 40, 40))
    expected[0, 7, 9] = 1
    np.testing.assert_array_equal(heatmap(attribution), expected)
    red_or_blue = signed_picture(attribution)[0]
    assert (red_or_blue != 255).any(axis=-1).sum() == 1
    assert red_or_blue[7, 9, 2] > red_or_blue[7, 9, 0]


@pytest.mark.parametrize("draw", [heatmap, signed_picture])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_map_that_is_not_finite_is_an_error(draw, bad):
    attribution = np.zeros((1, 3, 5, 6))
    attribution[0, 0, 2, 2] = bad
    with pytest.raises(ParameterError, match="1 values that are NaN or infinite"):
        draw(attribution)


@pytest.mark.parametrize(("shape", "layout"), [((2, 5), "NCHW"), ((1, 3, 0, 4), "NCHW"), ((1, 3, 4, 4), "NCWH")])
def test_what_has_no_height_and_width_is_an_error(shape, layout):
    with pytest.raises(ParameterError, match=r"height|layout"):
        heatmap(np.zeros(shape), layout)


def test_without_heat_the_picture_stays_and_strong_heat_shines_in_the_maps_colour():
    seen = rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)
    cold = overlay(seen, np.zeros((30, 40)))
    np.testing.assert_array_equal(cold[..., 0], cold[..., 2])
    grey = seen @ [0.299, 0.587, 0.114]
    assert np.corrcoef(cold[..., 0].ravel(), grey.ravel())[0, 1] > 0.999
    hot = overlay(seen, np.ones((30, 40))).astype(int)
    assert (hot.sum(axis=-1) > cold.astype(int).sum(axis=-1)).all()
    # Inferno ends in a light yellow: more red than blue, everywhere.
    assert (hot[..., 0] > hot[..., 2] + 50).all()


@pytest.mark.parametrize("colour_map", ["inferno", "magma", "turbo"])
def test_weak_heat_never_darkens_the_picture_to_a_hole(colour_map):
    seen = np.full((1, 101, 3), 180, np.uint8)
    drawn = overlay(seen, np.linspace(0, 0.5, 101)[None], colour_map).astype(float) @ [0.299, 0.587, 0.114]
    assert drawn.min() > 0.85 * drawn[0, 0]


def test_an_overlay_of_a_batch_is_that_of_its_images():
    seen = rng.integers(0, 256, (2, 8, 9, 3), dtype=np.uint8)
    heat = rng.random((2, 8, 9))
    np.testing.assert_array_equal(overlay(seen, heat)[1], overlay(seen[1], heat[1]))


@pytest.mark.parametrize("colour_map", COLOUR_MAPS)
def test_colours_are_opencvs(colour_map):
    import cv2

    ramp = np.arange(256, dtype=np.uint8)[None]
    expected = cv2.applyColorMap(ramp, getattr(cv2, f"COLORMAP_{colour_map.upper()}"))[..., ::-1]
    np.testing.assert_array_equal(colours(ramp / 255.0, colour_map), expected)


def test_a_wrong_drawing_parameter_is_named():
    seen, heat = np.zeros((4, 5, 3), np.uint8), np.zeros((4, 5))
    with pytest.raises(ParameterError, match="did you mean 'inferno'"):
        overlay(seen, heat, "infrno")
    with pytest.raises(ParameterError, match="strength"):
        overlay(seen, heat, strength=1.5)
    with pytest.raises(ParameterError, match="doesn't fit"):
        overlay(seen, heat.T)


@pytest.mark.parametrize("shape", [(300, 600), (601, 300), (64, 81)], ids=str)
def test_heat_lands_on_the_original_where_the_network_saw_it(shape):
    """The brightest block of the seen picture, used as heat, glows on the same block of the original."""
    height, width = shape
    top, left = height // 2 - height // 8, width // 2 - width // 20
    original = np.zeros((height, width, 3), np.uint8)
    original[top : top + height // 8, left : left + width // 10] = 255
    prepared = prepare(original, preset_steps("torchvision", 64, 64))
    drawn = overlay_original(np.zeros_like(original), prepared.seen[..., 0] / 255.0, prepared.box).astype(int)
    found = np.argwhere(drawn.sum(axis=-1) > drawn.sum(axis=-1).max() / 2)
    pixel = (prepared.box[2] - prepared.box[0]) / 64
    expected = (top, left, top + height // 8 - 1, left + width // 10 - 1)
    np.testing.assert_allclose((*found.min(axis=0), *found.max(axis=0)), expected, atol=pixel)


def test_what_the_network_did_not_see_has_no_heat():
    original = np.full((100, 300, 3), 90, np.uint8)
    drawn = overlay_original(original, np.ones((50, 50)), (0.0, 100.0, 100.0, 200.0))
    cold = overlay(original[:1, :1], np.zeros((1, 1)))[0, 0]
    assert (drawn[:, :100] == cold).all()
    assert (drawn[:, 200:] == cold).all()
    assert (drawn[:, 100:200] != cold).any(axis=-1).all()


def test_heat_on_the_padding_is_left_out():
    steps = override(preset_steps("torchvision", 100, 100), resize="none")
    prepared = prepare(np.full((40, 100, 3), 9, np.uint8), steps)
    heat = np.zeros((100, 100))
    heat[:30] = 1
    drawn = overlay_original(np.full((40, 100, 3), 9, np.uint8), heat, prepared.box)
    np.testing.assert_array_equal(drawn, drawn[0, 0] * np.ones_like(drawn))


def test_a_signed_map_is_red_for_the_target_blue_against_and_white_for_neither():
    attribution = np.zeros((1, 2, 1, 3))
    attribution[0, :, 0, 0] = (5, -1)
    attribution[0, :, 0, 1] = (1, -5)
    attribution[0, :, 0, 2] = (7, -7)
    (red, blue, white) = signed_picture(attribution)[0, 0].astype(int)
    assert red[0] > red[2] + 50
    assert blue[2] > blue[0] + 50
    assert (white == 255).all()


@pytest.mark.parametrize(
    ("reduction", "expected"),
    [
        ("absolute_sum", lambda a: np.abs(a[0]) + np.abs(a[1]) + np.abs(a[2])),
        ("absolute_maximum", lambda a: np.maximum(np.maximum(np.abs(a[0]), np.abs(a[1])), np.abs(a[2]))),
        ("signed_sum", lambda a: a[0] + a[1] + a[2]),
        ("mean", lambda a: (a[0] + a[1] + a[2]) / 3),
    ],
)
def test_channels_become_one_number_as_the_reduction_says(reduction, expected):
    attribution = rng.normal(size=(3, 7, 9))
    np.testing.assert_allclose(reduced(attribution, "NCHW", reduction), expected(attribution), rtol=1e-12)
    heat = heatmap(attribution, reduction=reduction, percentile=100)
    order = np.argsort(expected(attribution).ravel())
    np.testing.assert_array_equal(np.argsort(heat.ravel(), kind="stable"), order)
    assert (heat.min(), heat.max()) == (0, 1)


@pytest.mark.parametrize("statistic", STATISTICS)
def test_the_percentile_is_a_parameter(statistic):
    total = np.arange(200.0).reshape(1, 1, 10, 20)
    # Of 200 values the 90th percentile lies at place 179.1.
    high = {"linear": 179.1, "lower": 179.0}[statistic]
    np.testing.assert_allclose(
        heatmap(total, percentile=90, statistic=statistic)[0], np.minimum(total[0, 0] / high, 1), rtol=1e-6
    )


@pytest.mark.parametrize("options", [{}, *HEATMAP_PRESETS.values()], ids=["default", *HEATMAP_PRESETS])
@pytest.mark.parametrize("shape", [(3, 10, 20), (1, 1, 1), (2, 1, 500)], ids=str)
def test_every_preset_is_safe_on_constant_and_sparse_maps(options, shape):
    with np.errstate(all="raise"):
        np.testing.assert_array_equal(heatmap(np.full(shape, -3.0), **options), 0)
        if shape[1] * shape[2] > 1:
            sparse = np.zeros(shape)
            sparse[:, 0, 1] = (5, -5, 5)[: shape[0]]
            heat = heatmap(sparse, **options)
            assert heat[0, 1] == 1
            assert heat.sum() == 1


def test_a_grey_map_is_pairs():
    attribution = rng.normal(size=(31, 17, 3))
    total = np.sum(np.abs(attribution), axis=2)
    high, low = np.percentile(total, 99), np.min(total)
    np.testing.assert_allclose(
        heatmap(attribution, "NHWC", **HEATMAP_PRESETS["pair"]), np.clip((total - low) / (high - low), 0, 1), atol=1e-7
    )


def test_mindspores_map_is_the_largest_channel_from_minimum_to_maximum():
    attribution = rng.normal(size=(3, 31, 17))
    largest = np.abs(attribution).max(axis=0)
    expected = (largest - largest.min()) / (largest.max() - largest.min())
    np.testing.assert_allclose(heatmap(attribution, **HEATMAP_PRESETS["mindspore"]), expected, atol=1e-7)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"percentile": 0}, "percentile"),
        ({"percentile": 101}, "percentile"),
        ({"statistic": "upper"}, "unknown statistic"),
        ({"reduction": "absolute_max"}, "did you mean 'absolute_maximum'"),
    ],
    ids=str,
)
def test_a_wrong_option_of_a_heat_map_is_named(options, says):
    with pytest.raises(ParameterError, match=says):
        heatmap(np.ones((3, 4, 4)), **options)


def test_a_signed_map_keeps_zero_at_zero_and_both_sides_on_one_scale():
    attribution = np.zeros((1, 20, 30))
    attribution[0, 0, :7] = (8, -8, 4, -4, 2, 80, -800)
    share = signed_map(attribution)[0, :7]
    # Of 600 values the 99th percentile lies at place 593.01, between the 2 and a 4.
    np.testing.assert_allclose(share, [1, -1, 1, -1, 2 / 2.02, 1, -1], rtol=1e-6)
    np.testing.assert_array_equal(signed_map(-attribution), -signed_map(attribution))
    np.testing.assert_array_equal(signed_map(np.zeros((1, 4, 5))), 0)
    np.testing.assert_array_equal(signed_picture(attribution), diverging(signed_map(attribution)))


def test_diverging_colours_are_white_in_the_middle_and_mirrored_in_brightness():
    scale = np.linspace(-1, 1, 41)
    drawn = diverging(scale).astype(float)
    assert (drawn[20] == 255).all()
    brightness = drawn @ [0.299, 0.587, 0.114]
    assert (np.diff(brightness[:21]) > 0).all()
    assert (np.diff(brightness[20:]) < 0).all()
    np.testing.assert_allclose(brightness, brightness[::-1], atol=30)
    assert (drawn[:20, 2] > drawn[:20, 0]).all()
    assert (drawn[21:, 0] > drawn[21:, 2]).all()


def test_a_signed_overlay_is_grey_without_a_sign_red_for_and_blue_against():
    seen = rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)
    bare = signed_overlay(seen, np.zeros((30, 40))).astype(int)
    assert np.ptp(bare, axis=-1).max() == 0
    assert np.corrcoef(bare[..., 0].ravel(), (seen @ [0.299, 0.587, 0.114]).ravel())[0, 1] > 0.999
    red = signed_overlay(seen, np.ones((30, 40))).astype(int)
    blue = signed_overlay(seen, -np.ones((30, 40))).astype(int)
    assert (red[..., 0] > red[..., 2] + 60).all()
    assert (blue[..., 2] > blue[..., 0] + 60).all()
    weak = signed_overlay(seen, np.full((30, 40), 0.2)).astype(int)
    assert ((weak[..., 0] - weak[..., 2] > 5) & (weak[..., 0] - weak[..., 2] < red[..., 0] - red[..., 2])).all()
    with pytest.raises(ParameterError, match="doesn't fit"):
        signed_overlay(seen, np.zeros((40, 30)))


def test_a_small_map_is_brought_to_the_pictures_size_pixel_centre_on_pixel_centre():
    small = np.array([[0.0, 1.0]])
    np.testing.assert_allclose(at_size(small, 3, 4), [[0, 0.25, 0.75, 1]] * 3)
    assert at_size(small, 1, 2) is small
    with pytest.raises(ParameterError, match=r"\[h, w\]"):
        at_size(np.zeros((1, 2, 2)), 4, 4)
