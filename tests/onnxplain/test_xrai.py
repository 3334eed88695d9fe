"""Regions: their segments, their growth, and the maps of XRAI."""

import sys

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import quadratic
import small_models
from onnxplain import Explainer, ParameterError
from onnxplain.regions import given_masks, grown, picture_masks
from onnxplain_export import export
from quadratic import SHAPE, gradient

HEIGHT, WIDTH = SHAPE[1:]
LABELS = np.arange(HEIGHT)[:, None] // 4 * 3 + np.arange(WIDTH) // 6
MASKS = np.stack([label == LABELS for label in range(9)])


@pytest.fixture(scope="module")
def explainer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quadratic") / "net.explain"
    return Explainer(export(quadratic.network(), folder, methods=["integrated_gradients", "xrai"]), device="cpu")


@pytest.fixture
def images():
    return small_models.images(*SHAPE)


def grown_slowly(attribution, masks, least):
    """Algorithm 1 word for word: the best segment is looked for among all, again and again."""
    worth, free, masks = np.full(attribution.shape, np.nan), np.ones(attribution.shape, bool), list(masks)
    while masks := [mask for mask in masks if (mask & free).sum() >= least]:
        best = int(np.argmax([attribution[mask & free].mean() for mask in masks]))
        added = masks.pop(best) & free
        worth[added] = attribution[added].mean()
        free &= ~added
    worth[free] = attribution[free].mean() if free.any() else 0
    return worth


@pytest.mark.parametrize("side", [(12, 17), (40, 56)])
def test_regions_grow_by_the_mean_attribution_of_their_new_pixels(side):
    generator = np.random.default_rng(0)
    attribution = generator.standard_normal(side)
    masks = generator.random((12, *side)) < 0.15
    least = max(1, round(50 * attribution.size / 224**2))
    found = grown(attribution, masks)
    assert_allclose(found, grown_slowly(attribution, masks, least), atol=1e-12)
    assert_allclose(found.sum(), attribution.sum())


def test_segments_that_add_too_few_pixels_are_left_out():
    attribution = np.zeros((224, 224))
    attribution[:7, :7] = 1  # 49 pixels
    small, rest = attribution > 0, attribution == 0
    assert len(np.unique(grown(attribution, np.stack([small, rest | small])))) == 1
    attribution[:7, :8] = 1
    assert_array_equal(grown(attribution, np.stack([attribution > 0, attribution == 0])), attribution)


def test_pictures_are_segmented_along_their_edges():
    pytest.importorskip("skimage")
    picture = np.zeros((60, 90, 3))
    picture[20:40, 30:70] = 1
    masks = picture_masks(picture)
    assert masks.shape[1:] == (60, 90)
    assert masks.any(axis=0).all()
    # Where a picture is enlarged, its edges become segments of their own.
    assert any(mask[24:36, 34:66].all() and not mask[:16].any() and not mask[44:].any() for mask in masks)
    assert not any(mask[30, 50] and mask[5, 5] for mask in masks)


def test_a_constant_picture_is_one_segment():
    pytest.importorskip("skimage")
    assert picture_masks(np.full((30, 20, 3), 7.0)).all()


@pytest.mark.parametrize("channels", ["sum", "max"])
def test_a_map_is_the_regions_mean_of_integrated_gradients_from_both_ends_of_the_range(explainer, images, channels):
    attribution = np.zeros(images.shape)
    for bound in (images.min, images.max):
        start = bound(axis=(1, 2, 3), keepdims=True)
        attribution += (images - start) * gradient((images + start) / 2, 2) / 2
    attribution = attribution.sum(axis=1) if channels == "sum" else attribution.max(axis=1)
    expected = np.stack([grown(one, MASKS) for one in attribution])
    found = explainer.explain(images, "xrai", 2, segments=LABELS, reduction=channels, baseline="range").attribution
    assert found.shape == (3, 1, HEIGHT, WIDTH)
    assert_allclose(found[:, 0], expected, rtol=1e-4, atol=1e-5)


def test_black_and_white_are_those_of_the_preprocessing(tmp_path, images):
    steps = [{"step": "scale", "factor": 1 / 255}, {"step": "layout", "order": "NCHW"}]
    options = {"methods": ["integrated_gradients", "xrai"], "preprocessing": steps}
    explainer = Explainer(export(quadratic.network(), tmp_path / "net.explain", **options), device="cpu")
    maps = [explainer.explain(images, "integrated_gradients", 1, baseline=b).attribution for b in ("black", "white")]
    attribution = np.mean(maps, axis=0).sum(axis=1)
    expected = np.stack([grown(one, MASKS) for one in attribution])
    found = explainer.explain(images, "xrai", 1, segments=LABELS).attribution
    assert_allclose(found[:, 0], expected, rtol=1e-4, atol=1e-5)


def test_segments_are_labels_or_masks_for_all_images_or_for_each():
    forms = [LABELS, np.stack([LABELS] * 4), MASKS, np.stack([MASKS] * 4)]
    for given in forms:
        found = given_masks(given, 4, HEIGHT, WIDTH)
        assert len(found) == 4
        assert all((one == MASKS).all() for one in found)


@pytest.mark.parametrize(
    "segments", [LABELS.T, np.stack([LABELS] * 3), LABELS[:, :5], np.zeros((HEIGHT, WIDTH), bool), np.zeros(4)]
)
def test_segments_of_a_wrong_shape_are_refused_with_the_right_ones(segments):
    with pytest.raises(ParameterError, match=r"whole numbers \[12, 17\] or \[4, 12, 17\], or masks of True and False"):
        given_masks(segments, 4, HEIGHT, WIDTH)


def test_without_scikit_image_the_error_says_how_to_get_it(monkeypatch):
    for name in ("skimage.morphology", "skimage.segmentation", "skimage.transform"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ParameterError, match=r"pip install 'onnxplain\[segments\]', or give segments="):
        picture_masks(np.zeros((30, 20, 3)))
