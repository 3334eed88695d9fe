import hashlib
from dataclasses import replace

import cv2
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from onnxplain import Explainer, ParameterError
from onnxplain.heatmap import heatmap, overlay
from onnxplain.images import read_images, stack
from toy_bundle import write_toy_bundle


@pytest.fixture(scope="module")
def explainer(tmp_path_factory):
    return Explainer(write_toy_bundle(tmp_path_factory.mktemp("toy") / "toy.explain"), device="cpu")


@pytest.fixture
def pictures():
    return list(np.random.default_rng(4).integers(0, 256, (3, 20, 31, 3), np.uint8))


def test_the_heatmap_is_that_of_the_attribution(explainer, pictures):
    result = explainer.explain(pictures)
    assert_array_equal(result.heatmap(), heatmap(result.attribution, "NCHW"))
    assert result.heatmap().shape == (3, 8, 8)


def test_the_overlay_is_on_the_picture_that_the_network_saw(explainer, pictures):
    result = explainer.explain(pictures)
    drawn = result.overlay()
    assert drawn.shape == (3, 8, 8, 3)
    assert_array_equal(drawn[1], overlay(result.images[1].seen, result.heatmap()[1]))


def test_the_overlay_on_the_original_has_its_size_for_arrays_and_files(explainer, pictures, tmp_path):
    file = tmp_path / "a.png"
    cv2.imwrite(str(file), pictures[0][..., ::-1])
    result = explainer.explain([file, pictures[0], np.zeros((5, 9, 3), np.uint8)])
    from_file, from_array, small = result.overlay(original=True)
    assert from_file.shape == (20, 31, 3)
    assert_array_equal(from_file, from_array)
    assert small.shape == (5, 9, 3)


def test_several_targets_give_the_drawings_an_axis(explainer, pictures):
    result = explainer.explain(pictures, targets=[[0, 1]] * 3)
    assert result.heatmap().shape == (3, 2, 8, 8)
    assert result.overlay().shape == (3, 2, 8, 8, 3)
    assert result.overlay(original=True)[0].shape == (2, 20, 31, 3)


def test_float_rows_are_drawn_on_the_picture_that_they_stand_for(explainer, pictures):
    seen = explainer.explain(pictures)
    rows = np.concatenate([image.row for image in seen.images])
    assert_array_equal(explainer.explain(rows).overlay(), seen.overlay())


def test_without_preprocessing_there_is_no_picture_to_draw_on(tmp_path):
    explainer = Explainer(write_toy_bundle(tmp_path, preprocessing=None), device="cpu")
    result = explainer.explain(np.random.default_rng(0).normal(size=(2, 3, 8, 8)))
    with pytest.raises(ParameterError, match="without preprocessing"):
        result.overlay()
    assert result.heatmap().shape == (2, 8, 8)
    assert result._repr_png_().startswith(b"\x89PNG")


def test_an_index_takes_out_one_image_with_all_that_belongs_to_it(explainer, pictures):
    result = explainer.explain(pictures, targets=[3, 1, 2])
    one = result[1]
    assert_array_equal(one.attribution, result.attribution[1:2])
    assert one.targets.tolist() == [1]
    assert one.labels == ("dog",)
    assert one.images[0] is result.images[1]
    assert one.provenance["pictures"] == result.provenance["pictures"][1:2]
    assert_array_equal(result[-1].scores, result.scores[2:])
    with pytest.raises(IndexError):
        result[3]


def test_provenance_is_the_callers_own(explainer, pictures):
    result = explainer.explain(pictures)
    before = result[1].provenance
    result.provenance["bundle"]["name"] = "another"
    result.provenance["parameters"]["steps"] = 7
    assert result[1].provenance == before


def test_a_notebook_shows_each_image_with_its_maps_in_a_line(explainer, pictures):
    result = explainer.explain(pictures, targets=[[0, 1]] * 3)
    page = result._repr_html_()
    assert page.count("<img") == 3 * 3
    assert all(page.count(name) for name in result.labels[0])
    assert cv2.imdecode(np.frombuffer(result._repr_png_(), np.uint8), cv2.IMREAD_COLOR) is not None


def test_a_notebook_shows_nothing_of_what_is_no_picture(explainer):
    result = explainer.explain(np.zeros((1, 3, 8, 8), np.float32))
    table = replace(result, layout=None)
    assert table._repr_html_() is None
    assert table._repr_png_() is None


def test_a_presets_way_of_drawing_holds_and_options_go_before_it(explainer, pictures):
    result = explainer.explain(pictures)
    drawn = replace(result, method="gradient.mindspore")
    largest = np.abs(result.attribution).max(axis=1)
    low, high = largest.min(axis=(1, 2), keepdims=True), largest.max(axis=(1, 2), keepdims=True)
    assert_allclose(drawn.heatmap(percentile=100.0), (largest - low) / (high - low), atol=1e-6)
    assert not np.allclose(drawn.heatmap(), result.heatmap())


def test_signed_maps_keep_the_sign_of_the_sum_over_channels(explainer, pictures):
    result = explainer.explain(pictures)
    total = result.attribution.sum(axis=1)
    assert_array_equal(np.sign(result.signed()), np.sign(total))
    assert np.abs(result.signed()).max() == 1


def test_a_result_can_not_be_changed_by_assignment(explainer, pictures):
    result = explainer.explain(pictures)
    with pytest.raises(AttributeError):
        result.method = "other"
    assert_allclose(result.probabilities.sum(axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_result_keeps_its_images_when_the_array_they_came_in_changes(explainer, dtype):
    given = np.random.default_rng(5).normal(size=(3, 3, 8, 8)).astype(dtype)[::-1]
    before = given.copy()
    result = explainer.explain(given)
    given[:] = 0
    for image, row in zip(result.images, before, strict=True):
        assert_array_equal(image.row[0], row.astype(np.float32))
        assert image.sha256 == hashlib.sha256(row.tobytes()).hexdigest()


def test_a_batch_is_copied_once(explainer):
    images = read_images(np.ones((3, 3, 8, 8), np.float32), explainer.bundle)
    batch = stack(images, explainer.bundle.image)
    assert all(np.shares_memory(batch[number], image.row) for number, image in enumerate(images))


def test_a_result_prints_as_one_line(explainer, pictures):
    result = explainer.explain(pictures)
    assert repr(result).startswith("<Result of gradient for 3 images, 3×3×8×8: ")
    assert "\n" not in repr(result)
