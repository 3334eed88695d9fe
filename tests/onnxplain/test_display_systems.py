"""Displays that carry another system's name give that system's numbers."""

import numpy as np
import pytest
from PIL import Image

from onnxplain.display.fastestimator import display_pixels, grid_columns, highlight, visual_map
from onnxplain.display.mindspore import alpha_composite, normalize_saliency, saliency_to_image, saliency_to_rgba
from onnxplain.display.viridis import viridis
from onnxplain.errors import ParameterError

matplotlib = pytest.importorskip("matplotlib")
rng = np.random.default_rng(0)
VIRIDIS = matplotlib.colormaps["viridis"]
# What MindSpore XAI 2.0 made of this map (matplotlib 3.11, Pillow 13).
GOLDEN = np.array([[-1.0, 0.0], [1.0, 3.0]])
GOLDEN_RGBA = [[(68, 1, 84, 0), (58, 82, 139, 76)], [(32, 144, 140, 153), (253, 231, 36, 255)]]
GOLDEN_ON_GREY = [[(100, 100, 100), (87, 95, 112)], [(59, 126, 124), (253, 231, 36)]]


def recorded_rgba(saliency, alpha_factor=1.2, as_uint8=True, normalize=True):
    """MindSpore's arithmetic with matplotlib's own colour map."""
    low, high = saliency.min(), saliency.max()
    if normalize and high > low:
        saliency = (saliency - low) / (high - low)
    pixels = VIRIDIS(saliency)
    pixels[:, :, -1] = saliency * alpha_factor
    return np.clip(pixels * 255, 0, 255).astype(np.uint8) if as_uint8 else np.clip(pixels, 0, 1)


def test_the_table_is_matplotlibs_number_for_number():
    np.testing.assert_array_equal(viridis(), VIRIDIS.colors)


def test_mindspores_golden_numbers():
    np.testing.assert_array_equal(normalize_saliency(GOLDEN), [[0, 0.25], [0.5, 1]])
    np.testing.assert_array_equal(saliency_to_rgba(GOLDEN), GOLDEN_RGBA)
    grey = np.full((2, 2, 3), 100, np.uint8)
    np.testing.assert_array_equal(saliency_to_image(GOLDEN, grey), GOLDEN_ON_GREY)
    np.testing.assert_array_equal(saliency_to_image(GOLDEN), np.array(GOLDEN_RGBA)[..., :3])
    np.testing.assert_array_equal(saliency_to_image(GOLDEN, with_alpha=True), GOLDEN_RGBA)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("options", [{}, {"as_uint8": False}, {"normalize": False}, {"alpha_factor": 0.3}], ids=str)
def test_every_map_has_the_bytes_of_mindspores_arithmetic(dtype, options):
    for saliency in (rng.normal(size=(37, 53)), rng.random((1, 3)), np.linspace(-0.1, 1.1, 3000).reshape(30, 100)):
        saliency = saliency.astype(dtype)
        np.testing.assert_array_equal(saliency_to_rgba(saliency, **options), recorded_rgba(saliency, **options))
        batch = saliency[None, None]
        if saliency.shape[0] > 1:
            np.testing.assert_array_equal(saliency_to_rgba(batch, **options), saliency_to_rgba(saliency, **options))


def test_another_colour_map_takes_viridis_place():
    saliency = rng.random((5, 6))
    magma = saliency_to_rgba(saliency, colour_map=matplotlib.colormaps["magma"])
    expected = matplotlib.colormaps["magma"](normalize_saliency(saliency))[..., :3] * 255
    np.testing.assert_array_equal(magma[..., :3], expected.astype(np.uint8))


@pytest.mark.parametrize(("value", "colour"), [(0.0, (68, 1, 84, 0)), (1.0, (253, 231, 36, 255))])
def test_a_constant_map_is_not_normalised(value, colour):
    assert (saliency_to_rgba(np.full((3, 4), value)) == colour).all()


def test_a_value_that_is_no_number_is_clear():
    saliency = np.array([[0.5, np.nan], [0.25, 0.75]])
    np.testing.assert_array_equal(saliency_to_rgba(saliency)[0, 1], 0)
    np.testing.assert_array_equal(saliency_to_rgba(saliency)[1, 0], recorded_rgba(saliency[1:], normalize=False)[0, 0])


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
@pytest.mark.parametrize("size", [(40, 30), (90, 70), (33, 30), (11, 7)], ids=str)
def test_a_picture_lies_under_the_map_as_pillow_puts_it(mode, size):
    channels = {"RGB": (3,), "RGBA": (4,), "L": ()}[mode]
    original = rng.integers(0, 256, (size[1], size[0], *channels), np.uint8)
    saliency = rng.normal(size=(30, 40))
    # Width, then height: Pillow 13 swaps the passes for some shapes.
    under = Image.fromarray(original).resize((40, size[1])).resize((40, 30)).convert("RGBA")
    if mode == "RGBA" and size[1] != 30 and size[0] != 40:
        # In one go, since what is between two passes is weighed by its opacity only once.
        under = Image.fromarray(original).resize((40, 30))
    expected = Image.alpha_composite(under, Image.fromarray(recorded_rgba(saliency)))
    drawn = saliency_to_image(saliency, original, with_alpha=True)
    if mode == "RGBA":
        assert np.abs(drawn.astype(int) - np.asarray(expected)).max() <= 2
    else:
        np.testing.assert_array_equal(drawn, np.asarray(expected))
        np.testing.assert_array_equal(saliency_to_image(saliency, original), np.asarray(expected.convert("RGB")))


def test_compositing_is_pillows_for_every_pair_of_opacities():
    alphas = np.stack(np.meshgrid(np.arange(256), np.arange(256)), axis=-1).astype(np.uint8)
    under, over = rng.integers(0, 256, (2, 256, 256, 4), np.uint8)
    under[..., 3], over[..., 3] = alphas[..., 0], alphas[..., 1]
    expected = Image.alpha_composite(Image.fromarray(under), Image.fromarray(over))
    np.testing.assert_array_equal(alpha_composite(under, over), np.asarray(expected))


@pytest.mark.parametrize("bad", [np.zeros((2, 2), np.float16), np.zeros((2, 2), int), np.zeros((2, 3, 4)), np.zeros(3)])
def test_what_mindspore_refuses_is_refused(bad):
    with pytest.raises(ParameterError, match="saliency map is float32 or float64"):
        saliency_to_image(bad)
    with pytest.raises(ParameterError, match="a picture is uint8"):
        saliency_to_image(np.eye(2), np.zeros((2, 2, 3)))


def test_fastestimators_visual_map_golden():
    expected = np.array([0, 1 / 7, 2 / 7, 3 / 7, 4 / 7, 5 / 7, 6 / 7, 1, 1]).reshape(1, 3, 3)
    np.testing.assert_allclose(visual_map(np.arange(1.0, 10).reshape(1, 3, 3, 1), "NHWC"), expected, rtol=1e-6)
    sparse = np.zeros((1, 1, 10, 10))
    sparse[0, 0, 0, 0] = 3  # [1, NaN, NaN, …] in FastEstimator
    assert visual_map(sparse).sum() == 1


@pytest.mark.parametrize("size", [(7, 9), (10, 10), (28, 28), (64, 81), (11, 101)], ids=str)
def test_fastestimators_percentile_is_the_lower_of_two_values(size):
    attribution = rng.normal(size=(2, 3, *size)).astype(np.float32)
    for image, drawn in zip(np.abs(attribution.astype(np.float64)).sum(axis=1), visual_map(attribution), strict=True):
        ordered = np.sort(image.ravel())
        high = ordered[int(np.floor(0.99 * (ordered.size - 1)))]
        expected = np.clip((image - ordered[0]) / (high - ordered[0]), 0, 1)
        np.testing.assert_allclose(drawn, expected, atol=1e-6)


def test_fastestimators_highlight_is_its_formula():
    pictures = rng.uniform(-2, 3, (2, 3, 4, 5))
    heat = rng.random((2, 4, 5))
    low, high = pictures.min(), pictures.max()
    drawn = highlight(pictures, heat)
    for image, channel, row, column in [(0, 0, 0, 0), (1, 2, 3, 4), (0, 1, 2, 3)]:
        v, s = pictures[image, channel, row, column], heat[image, row, column]
        expected = 0.3 * (s * (v - low) + low) + 0.3 * v + 0.4 * s * (high - low) + low
        np.testing.assert_allclose(drawn[image, channel, row, column], expected, rtol=1e-12)
    last = highlight(np.moveaxis(pictures, 1, -1), heat, "NHWC")
    np.testing.assert_array_equal(np.moveaxis(last, -1, 1), drawn)
    with pytest.raises(ParameterError, match="don't fit"):
        highlight(pictures, heat[:, :2])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[3, 300, -1]]), [[3, 44, 255]]),
        (np.array([[0.0, 0.5, 1.0]]), [[0, 127, 255]]),
        (np.array([[0.0, 0.0]]), [[0, 0]]),
        (np.array([[-0.5, 0.1, 0.5]]), [[0, 153, 255]]),
        (np.array([[-1.0, 0.1, 0.6]]), [[0, 140, 204]]),
        (np.array([[-0.6, 0.5]]), [[51, 191]]),
        (np.array([[2.0, 4.0, 6.0]]), [[127, 191, 255]]),
        (np.array([[-0.5, -0.25]]), [[0, 85]]),
        (np.array([[[-3.0, 0.0, 10.0], [1.0, 0.0, 30.0]]]), [[[0, 0, 127], [255, 0, 255]]]),
    ],
    ids=["bytes", "0..1", "zeros", "-0.5..0.5", "-1..1", "-1..1 uneven", "positive", "negative", "each channel"],
)
def test_fastestimators_scale_follows_the_values(values, expected):
    with np.errstate(all="raise"):
        np.testing.assert_array_equal(display_pixels(values), expected)
    assert display_pixels(values).dtype == np.uint8


@pytest.mark.parametrize("bad", [np.array([[0.0, np.nan]]), np.array([[np.inf, 0]]), np.zeros(3), np.zeros((0, 2))])
def test_what_is_no_image_is_an_error(bad):
    with pytest.raises(ParameterError, match=r"NaN or infinite|an image is"):
        display_pixels(bad)


def test_fastestimators_columns_and_their_order():
    pictures, heat = rng.uniform(-1, 1, (2, 3, 4, 5)), rng.random((2, 2, 4, 5))
    columns = grid_columns(
        pictures, {"integrated": heat[0], "raw": heat[1]}, classes=["cat", "dog"], predictions=[3, 1], picture="image"
    )
    assert list(columns) == ["class", "prediction", "image", "image saliency", "saliency", "Integrated saliency"]
    assert columns["class"] == ["cat", "dog"]
    assert columns["prediction"] == ["3", "1"]
    np.testing.assert_array_equal(columns["image"][1], display_pixels(np.moveaxis(pictures[1], 0, -1)))
    lit = np.moveaxis(highlight(pictures, heat[0])[0], 0, -1)
    np.testing.assert_array_equal(columns["image saliency"][0], display_pixels(lit))
    np.testing.assert_array_equal(columns["saliency"], heat[1])
    for wrong in ({}, {"smooth": heat[0]}):
        with pytest.raises(ParameterError, match="smoothed_integrated"):
            grid_columns(pictures, wrong)
