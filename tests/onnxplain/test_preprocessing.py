"""The network is fed what its training pipeline would have fed it."""

import json
from pathlib import Path

import numpy as np
import pytest
import skimage
import torch
from PIL import Image, ImageOps

from onnxplain.errors import ParameterError, PictureError
from onnxplain.preprocessing import PRESETS, check_steps, is_upright, override, parse_size, prepare, preset_steps

PHOTOGRAPHS = Path(skimage.__file__).parent / "data"
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def photograph(name="coffee.png", height=None, width=None):
    with Image.open(PHOTOGRAPHS / name) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    return pixels[:height, :width]


def torchvision_resize(picture, size, resample):
    """torchvision 0.21, transforms/functional.py: _compute_resized_output_size, then PIL's resize."""
    width, height = picture.size
    short, long = (width, height) if width <= height else (height, width)
    new_short, new_long = size, int(size * long / short)
    new_width, new_height = (new_short, new_long) if width <= height else (new_long, new_short)
    # Two calls pin the order of the passes, which Pillow 13 chooses by shape.
    return picture.resize((new_width, height), resample).resize((new_width, new_height), resample)


def torchvision_center_crop(picture, crop_height, crop_width):
    """torchvision 0.21, transforms/functional.py: center_crop."""
    width, height = picture.size
    if crop_width > width or crop_height > height:
        left = (crop_width - width) // 2 if crop_width > width else 0
        top = (crop_height - height) // 2 if crop_height > height else 0
        right = (crop_width - width + 1) // 2 if crop_width > width else 0
        bottom = (crop_height - height + 1) // 2 if crop_height > height else 0
        picture = ImageOps.expand(picture, (left, top, right, bottom), fill=0)
        width, height = picture.size
    top, left = round((height - crop_height) / 2.0), round((width - crop_width) / 2.0)
    return picture.crop((left, top, left + crop_width, top + crop_height))


SHAPES = [(400, 600), (400, 399), (397, 600), (301, 450), (64, 51), (400, 101)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("side", "shorter"), [(224, 256), (64, 73)])
def test_the_torchvision_preset_is_torchvisions_pipeline(shape, side, shorter):
    pixels = photograph(height=shape[0], width=shape[1])
    picture = torchvision_resize(Image.fromarray(pixels), shorter, Image.Resampling.BILINEAR)
    picture = torchvision_center_crop(picture, side, side)
    tensor = torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1).to(torch.float32).div(255)
    expected = (tensor - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    prepared = prepare(pixels, preset_steps("torchvision", side, side))
    np.testing.assert_array_equal(prepared.seen, np.asarray(picture))
    assert prepared.rows.dtype == np.float32
    np.testing.assert_allclose(prepared.rows, expected.numpy(), atol=1e-5)


@pytest.mark.parametrize("shape", [(100, 37), (41, 101), (99, 98), (40, 63), (103, 101)], ids=str)
def test_the_crop_pads_and_rounds_as_torchvision_does(shape):
    pixels = photograph(height=shape[0], width=shape[1])
    steps = override(preset_steps("torchvision", 100, 100), resize="none")
    expected = np.asarray(torchvision_center_crop(Image.fromarray(pixels), 100, 100))
    np.testing.assert_array_equal(prepare(pixels, steps).seen, expected)


def test_the_timm_preset_is_timms_pipeline():
    picture = torchvision_resize(Image.fromarray(photograph()), 248, Image.Resampling.BICUBIC)
    expected = (np.asarray(torchvision_center_crop(picture, 224, 224)) / 255.0 - 0.5) / 0.5
    rows = prepare(photograph(), preset_steps("timm-half", 224, 224, layout="NHWC")).rows
    np.testing.assert_allclose(rows, expected, atol=1e-5)


def resized_as_tensorflow(pixels, height, width):
    """tf.image.resize(method="bilinear"): half-pixel centres, no antialias; torch's interpolate is the same."""
    images = torch.from_numpy(pixels.astype(np.float64)).permute(2, 0, 1)[None]
    return torch.nn.functional.interpolate(images, (height, width), mode="bilinear")[0].permute(1, 2, 0).numpy()


KERAS = {
    "keras-tf": lambda x: x / 127.5 - 1,
    "keras-torch": lambda x: (x / 255 - MEAN) / STD,
    "keras-caffe": lambda x: x[..., ::-1] - [103.939, 116.779, 123.68],
}


@pytest.mark.parametrize("mode", KERAS)
def test_the_keras_presets_are_preprocess_input(mode):
    expected = KERAS[mode](resized_as_tensorflow(photograph(), 160, 192))
    rows = prepare(photograph(), preset_steps(mode, 160, 192, layout="NHWC")).rows
    np.testing.assert_allclose(rows, expected, atol=1e-4)


def test_the_caffe_preset_is_blue_first_without_scaling():
    picture = torchvision_resize(Image.fromarray(photograph()), 259, Image.Resampling.BILINEAR)
    expected = np.asarray(torchvision_center_crop(picture, 227, 227)).astype(float)[..., ::-1] - [104, 117, 123]
    prepared = prepare(photograph(), preset_steps("caffe", 227, 227))
    np.testing.assert_allclose(prepared.rows, expected.transpose(2, 0, 1), atol=1e-4)
    np.testing.assert_allclose(prepared.seen[..., 2], prepared.rows[0] + 104, atol=1e-4)


@pytest.mark.parametrize(("preset", "factor"), [("unit", 255), ("raw", 1)])
def test_plain_presets_resize_to_the_networks_size(preset, factor):
    whole = np.asarray(Image.fromarray(photograph()).resize((80, 60), Image.Resampling.BILINEAR)).astype(int)
    rows = prepare(photograph(), preset_steps(preset, 60, 80, layout="NHWC")).rows
    assert np.abs(rows * factor - whole).max() <= 1.001


def test_a_grey_network_sees_pillows_grey():
    steps = preset_steps("raw", 60, 80, channels=1)
    pixels = photograph()
    grey = Image.fromarray(pixels).convert("L")
    expected = np.asarray(grey.resize((80, pixels.shape[0]), 2).resize((80, 60), 2))
    prepared = prepare(pixels, steps)
    np.testing.assert_array_equal(prepared.rows, expected[None].astype(np.float32))
    np.testing.assert_array_equal(prepared.seen, np.repeat(expected[..., None], 3, axis=2))


def test_the_box_says_which_part_of_the_picture_was_seen():
    """A picture that is 0 but for one bright block: the block is where the box says."""
    pixels = np.zeros((300, 600, 3), np.uint8)
    pixels[120:160, 250:330] = 255
    prepared = prepare(pixels, preset_steps("torchvision", 224, 224))
    top, left, bottom, right = prepared.box
    rows, columns = np.nonzero(prepared.seen[..., 0] > 127)
    across, down = (right - left) / 224, (bottom - top) / 224
    found = (top + rows.min() * down, left + columns.min() * across)
    found += (top + (rows.max() + 1) * down, left + (columns.max() + 1) * across)
    np.testing.assert_allclose(found, (120, 250, 160, 330), atol=down)
    assert (bottom - top) == pytest.approx(300 * 224 / 256)


def test_the_box_reaches_beyond_a_padded_picture():
    steps = override(preset_steps("torchvision", 100, 100), resize="none")
    prepared = prepare(np.full((40, 101, 3), 9, np.uint8), steps)
    assert prepared.box == (-30, 0, 70, 100)
    assert prepared.seen[:30].max() == prepared.seen[70:].max() == 0
    assert prepared.seen[30:70].min() == 9


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("size", [(32, 32), (225, 31), (64, 128)], ids=str)
def test_every_preset_gives_the_networks_shape_and_survives_json(name, size):
    for layout, shape in (("NCHW", (3, *size)), ("NHWC", (*size, 3))):
        steps = json.loads(json.dumps(preset_steps(name, *size, layout=layout)))
        assert check_steps(steps) == steps
        assert is_upright(steps)
        prepared = prepare(photograph(height=101, width=333), steps)
        assert prepared.rows.shape == shape
        assert prepared.seen.shape == (*size, 3)


def test_a_sliver_is_refused_before_it_fills_the_memory():
    with pytest.raises(PictureError, match="too long and thin"):
        prepare(np.zeros((1, 10_000, 3), np.uint8), preset_steps("torchvision", 224, 224))


@pytest.mark.parametrize("pixels", [np.zeros((5, 5)), np.zeros((5, 5, 4), np.uint8), np.zeros((0, 5, 3), np.uint8)])
def test_what_is_no_rgb_picture_is_refused(pixels):
    with pytest.raises(PictureError, match="uint8"):
        prepare(pixels, preset_steps("unit", 8, 8))


WRONG = [
    ([{"step": "resise"}], "did you mean 'resize'"),
    (
        [{"step": "resize", "rule": "shorter", "size": [1, 2], "kernel": "bilinear", "antialias": True, "round": True}],
        "one",
    ),
    ([{"step": "resize", "rule": "exact", "size": 9, "kernel": "bilinear", "antialias": True, "round": True}], "exact"),
    (
        [{"step": "resize", "rule": "exact", "size": [9, 9], "kernel": "bilinear", "antialias": True}],
        "'round' is missing",
    ),
    ([{"step": "crop", "size": [0, 4]}], "can't be"),
    ([{"step": "colour", "order": "RBG"}], "did you mean"),
    ([{"step": "scale", "factor": 1.0, "factr": 2.0}], "did you mean 'factor'"),
    ([{"step": "std", "values": [1.0, 0.0, 1.0]}], "std"),
    ([{"step": "mean", "values": [1.0, float("nan"), 1.0]}], "mean"),
    ([{"step": "mean", "values": [1.0, 2.0]}], "2 values for a picture of 3 channels"),
    ([{"step": "mean", "values": [1.0]}, {"step": "crop", "size": [4, 4]}], "order"),
    ([{"step": "scale", "factor": 1.0}, {"step": "scale", "factor": 1.0}], "twice"),
]


@pytest.mark.parametrize(("steps", "says"), WRONG)
def test_a_wrong_step_is_named(steps, says):
    with pytest.raises(ParameterError, match=says):
        check_steps([*steps, {"step": "layout", "order": "NCHW"}])


def test_a_layout_is_never_guessed():
    with pytest.raises(ParameterError, match="layout"):
        check_steps([{"step": "exif"}])


def test_an_unknown_preset_or_an_impossible_one_says_so():
    with pytest.raises(ParameterError, match="did you mean 'torchvision'"):
        preset_steps("torchvison", 8, 8)
    with pytest.raises(ParameterError, match="one channel"):
        preset_steps("torchvision", 8, 8, channels=1)
    with pytest.raises(ParameterError, match="5 channels"):
        preset_steps("unit", 8, 8, channels=5)


def test_overrides_replace_add_and_remove():
    steps = preset_steps("torchvision", 224, 224)
    changed = override(
        steps, mean=[0, 0, 0], std=[1, 1, 1], colour="bgr", resize="256x300", crop="200", kernel="bicubic"
    )
    expected = [
        {"step": "exif"},
        {"step": "colour", "order": "BGR"},
        {
            "step": "resize",
            "rule": "exact",
            "size": [256, 300],
            "kernel": "bicubic",
            "antialias": True,
            "round": True,
        },
        {"step": "crop", "size": [200, 200]},
        {"step": "scale", "factor": 1 / 255},
        {"step": "mean", "values": [0, 0, 0]},
        {"step": "std", "values": [1, 1, 1]},
        {"step": "layout", "order": "NCHW"},
    ]
    assert changed == expected
    assert override(steps) == steps
    kinds = [step["step"] for step in override(preset_steps("raw", 8, 8), mean=[1], scale=2, resize="none")]
    assert kinds == ["exif", "colour", "scale", "mean", "layout"]


def test_an_override_leaves_the_steps_it_was_given_alone():
    steps = preset_steps("torchvision", 224, 224)
    before = json.dumps(steps)
    override(steps, kernel="nearest", antialias=False)
    assert json.dumps(steps) == before


def test_an_override_without_its_step_is_an_error():
    with pytest.raises(ParameterError, match="needs a resize step"):
        override(preset_steps("unit", 8, 8), resize="none", kernel="bicubic")


@pytest.mark.parametrize("size", ["", "x", "12x", "1x2x3", "-4", "4.5"])
def test_a_size_that_is_none_is_refused(size):
    with pytest.raises(ParameterError, match="a size is"):
        parse_size(size)
