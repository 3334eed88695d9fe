import cv2
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from onnxplain import ParameterError, PictureError
from onnxplain.bundle_files import read_bundle
from onnxplain.images import read_images
from onnxplain.metrics import mask_files, masks_for
from toy_bundle import PREPROCESSING, write_toy_bundle


@pytest.fixture
def bundle(folder):
    return read_bundle(folder)


@pytest.fixture
def image(bundle, picture):
    return read_images([picture], bundle)  # 20 rows, 31 columns


def mask_of(top, left, bottom, right, shape=(20, 31)):
    mask = np.zeros(shape, np.uint8)
    mask[top:bottom, left:right] = 7
    return mask


def test_a_mask_is_resized_as_the_picture_is(bundle, image):
    found = masks_for([mask_of(0, 0, 10, 31)], image, bundle)
    assert found.dtype == bool
    assert_array_equal(found[0], np.repeat(np.arange(8) < 4, 8).reshape(8, 8))
    assert_array_equal(masks_for([mask_of(0, 0, 20, 16)], image, bundle)[0].sum(axis=1), [4] * 8)


def test_each_pixel_of_a_resized_mask_is_the_nearest_one(bundle, image):
    mask = np.random.default_rng(9).random((20, 31)) < 0.5
    rows, columns = ((np.arange(8) + 0.5) * side / 8 for side in (20, 31))
    expected = mask[np.ix_(rows.astype(int), columns.astype(int))]
    assert_array_equal(masks_for([mask], image, bundle)[0], expected)


def test_a_mask_is_cropped_as_the_picture_is(tmp_path, picture):
    steps = [{"step": "exif"}, {"step": "colour", "order": "RGB"}, {"step": "crop", "size": [8, 8]}, PREPROCESSING[-1]]
    bundle = read_bundle(
        write_toy_bundle(tmp_path / "crop", preprocessing={"preset": None, "assumed": False, "steps": steps})
    )
    images = read_images([picture], bundle)
    found = masks_for([mask_of(6, 0, 8, 31)], images, bundle)[0]  # the crop begins at row 6
    assert_array_equal(found[:, 0], [True, True] + [False] * 6)
    with pytest.raises(ParameterError, match="marks nothing that the network sees"):
        masks_for([mask_of(0, 0, 2, 31)], images, bundle)


def test_a_mask_may_have_the_networks_size(bundle, image):
    mask = np.eye(8)
    assert_array_equal(masks_for([mask], image, bundle)[0], mask == 1)
    rows = read_images(np.zeros((1, 3, 8, 8), np.float32), bundle)
    assert_array_equal(masks_for([mask], rows, bundle)[0], mask == 1)


def test_a_file_is_inside_wherever_it_is_not_black(bundle, tmp_path, picture):
    cv2.imwrite(str(tmp_path / "a.png"), picture)
    image = read_images([tmp_path / "a.png"], bundle)
    faint = mask_of(0, 0, 10, 31).astype(np.uint16)  # 7 of 65535
    colour = np.zeros((20, 31, 3), np.uint8)
    colour[:10, :, 2] = 1
    see_through = np.dstack([colour, np.full((20, 31), 255, np.uint8)])
    for number, content in enumerate((faint, colour, see_through)):
        file = tmp_path / f"mask{number}.png"
        cv2.imwrite(str(file), content)
        assert_array_equal(masks_for([file], image, bundle)[0].sum(axis=0), [4] * 8)


def test_a_wrong_mask_says_what_would_be_right(bundle, image, tmp_path):
    with pytest.raises(ParameterError, match=r"image 0 is of 31 rows x 20 columns.*needs one of 20 rows x 31.*or of 8"):
        masks_for([mask_of(0, 0, 5, 5, (31, 20))], image, bundle)
    with pytest.raises(ParameterError, match=r"mask of image 0 is empty"):
        masks_for([np.zeros((20, 31))], image, bundle)
    with pytest.raises(ParameterError, match="2 masks for 1 pictures"):
        masks_for([np.ones((8, 8))] * 2, image, bundle)
    with pytest.raises(ParameterError, match=r"\[8, 8, 3\]"):
        masks_for([np.ones((8, 8, 3))], image, bundle)
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(PictureError, match="is not a picture"):
        masks_for([tmp_path / "text.png"], image, bundle)


def test_masks_are_found_by_the_pictures_names(tmp_path):
    for name in ("a.png", "a.part.png", "b.part.png", "b.whole.png"):
        cv2.imwrite(str(tmp_path / name), np.ones((4, 4), np.uint8))
    assert mask_files(tmp_path, ["x/a.jpg"]) == [tmp_path / "a.png"]
    pattern = tmp_path / "{name}.part.png"
    assert mask_files(pattern, ["a.jpg", "b.jpg"]) == [tmp_path / "a.part.png", tmp_path / "b.part.png"]
    with pytest.raises(PictureError, match=r"b.png: no such mask for b.jpg; there is b.part.png and b.whole.png: name"):
        mask_files(tmp_path, ["b.jpg"])
    with pytest.raises(PictureError, match=r"masks are PNG files of the picture's name, such as c.png"):
        mask_files(tmp_path, ["c.jpg"])
    with pytest.raises(PictureError, match="is no folder"):
        mask_files(tmp_path / "nowhere", ["c.jpg"])
