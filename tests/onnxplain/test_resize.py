"""Resizing gives the numbers of the libraries that networks are trained with."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage
import torch
from PIL import Image

from onnxplain.errors import ParameterError
from onnxplain.resize import interpolation_matrix, resize

PHOTOGRAPHS = Path(skimage.__file__).parent / "data"
SIZES = [(256, 384), (224, 224), (33, 71), (7, 500), (300, 1000), (451, 640), (1, 1)]
PILLOW = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "nearest": Image.Resampling.NEAREST,
}


@pytest.fixture(params=["coffee.png", "chelsea.png"], scope="module")
def photograph(request):
    with Image.open(PHOTOGRAPHS / request.param) as picture:
        return np.asarray(picture.convert("RGB"))


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("kernel", ["bilinear", "bicubic", "nearest"])
def test_antialiased_equals_pillow_exactly(photograph, kernel, size):
    height, width = size
    # Width, then height: Pillow 13 swaps the passes for some shapes, older ones never do.
    narrow = Image.fromarray(photograph).resize((width, photograph.shape[0]), PILLOW[kernel])
    expected = np.asarray(narrow.resize((width, height), PILLOW[kernel]))
    np.testing.assert_array_equal(resize(photograph, height, width, kernel=kernel), expected)


@pytest.mark.parametrize("size", [(256, 384), (224, 224), (33, 71)], ids=str)
@pytest.mark.parametrize("kernel", ["bilinear", "bicubic"])
def test_shrinking_is_within_one_level_of_pillow_in_one_call(photograph, kernel, size):
    expected = np.asarray(Image.fromarray(photograph).resize(size[::-1], PILLOW[kernel])).astype(int)
    assert np.abs(resize(photograph, *size, kernel=kernel) - expected).max() <= 1


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(("kernel", "interpolation"), [("bilinear", cv2.INTER_LINEAR), ("bicubic", cv2.INTER_CUBIC)])
def test_without_antialias_equals_opencv(photograph, kernel, interpolation, size):
    expected = cv2.resize(photograph.astype(np.float32), size[::-1], interpolation=interpolation)
    result = resize(photograph, *size, kernel=kernel, antialias=False, rounded=False)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, expected, atol=2e-4)


@pytest.mark.parametrize("size", [(224, 224), (33, 71), (451, 640)], ids=str)
@pytest.mark.parametrize("kernel", ["bilinear", "bicubic"])
def test_unrounded_antialias_equals_torch(photograph, kernel, size):
    images = torch.from_numpy(photograph.astype(np.float64)).permute(2, 0, 1)[None]
    expected = torch.nn.functional.interpolate(images, size, mode=kernel, antialias=True)[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(resize(photograph, *size, kernel=kernel, rounded=False), expected, atol=1e-4)


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("kernel", ["bilinear", "bicubic", "nearest"])
@pytest.mark.parametrize(("source", "target"), [(1, 1), (1, 9), (9, 1), (640, 7), (13, 200)])
def test_a_flat_picture_stays_flat(kernel, antialias, source, target):
    np.testing.assert_allclose(interpolation_matrix(source, target, kernel, antialias).sum(axis=1), 1.0, atol=1e-12)


def test_a_box_resamples_that_stretch_alone(photograph):
    line = photograph[:, :, 0].astype(np.float64)
    expected = Image.fromarray(line.astype(np.float32)).resize(
        (50, line.shape[0]), Image.Resampling.BILINEAR, box=(20.5, 0, 170.25, line.shape[0])
    )
    result = line @ interpolation_matrix(line.shape[1], 50, "bilinear", True, (20.5, 170.25)).T
    np.testing.assert_allclose(result, np.asarray(expected), atol=1e-3)


@pytest.mark.parametrize("kernel", ["bilinear", "bicubic", "nearest"])
@pytest.mark.parametrize("antialias", [True, False])
def test_a_box_beyond_the_ends_repeats_the_border(kernel, antialias):
    matrix = interpolation_matrix(8, 6, kernel, antialias, (-40.0, -20.0))
    beyond = matrix @ (np.arange(8) + 5.0)
    # The antialiased kernel averages what it reaches of the border region; the others repeat the last pixel.
    np.testing.assert_allclose(beyond, 5.0, atol=1.5 if antialias and kernel != "nearest" else 0)


def test_the_same_size_changes_nothing(photograph):
    for antialias in (True, False):
        same = resize(photograph, *photograph.shape[:2], kernel="bicubic", antialias=antialias)
        np.testing.assert_array_equal(same, photograph)


def test_an_unknown_kernel_is_named_with_the_nearest():
    with pytest.raises(ParameterError, match="did you mean 'bicubic'"):
        interpolation_matrix(8, 4, "bicubik", True)


def test_nothing_is_resized_to_nothing(photograph):
    with pytest.raises(ParameterError, match="at least 1"):
        resize(photograph, 0, 10)
