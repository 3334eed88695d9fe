"""The CAM formulas are those of their papers: closed forms, slow sums written out, and values at the edges."""

import cv2
import numpy as np
import pytest

from onnxplain import cams
from onnxplain.cams import CAMS, enlarged, enlarged_in_bytes, in_layout, on_grid
from onnxplain.errors import BundleError, ParameterError

GENERATOR = np.random.default_rng(5)
A = GENERATOR.standard_normal((2, 4, 3, 5)).astype(np.float32)
G = GENERATOR.standard_normal((2, 3, 4, 3, 5)).astype(np.float32)


def looped(place, features=A, gradients=G):
    """A map [N, T, h, w] from a function of one image's features, one gradient and a place."""
    count, targets = gradients.shape[:2]
    height, width = features.shape[2:]
    return np.array(
        [
            [
                [[place(features[n].astype(float), gradients[n, t].astype(float), i, j) for j in range(width)]
                 for i in range(height)]
                for t in range(targets)
            ]
            for n in range(count)
        ]
    )  # fmt: skip


def gradcam(a, g, i, j):
    return sum(g[k].sum() / g[k].size * a[k, i, j] for k in range(len(a)))


def gradcam_plus_plus(a, g, i, j):
    total = 0.0
    for k in range(len(a)):
        weight = 0.0
        for p in np.ndindex(*g[k].shape):
            alpha = g[k][p] ** 2 / (2 * g[k][p] ** 2 + a[k].sum() * g[k][p] ** 3)
            weight += alpha * max(g[k][p], 0)
        total += weight * a[k, i, j]
    return total


def hirescam(a, g, i, j):
    return sum(g[k, i, j] * a[k, i, j] for k in range(len(a)))


def layercam(a, g, i, j):
    return sum(max(g[k, i, j], 0) * a[k, i, j] for k in range(len(a)))


def xgradcam(a, g, i, j):
    return sum((g[k] * a[k]).sum() / a[k].sum() * a[k, i, j] for k in range(len(a)))


def eigencam(a, _g, i, j):
    flat = a.reshape(len(a), -1).T
    _, vectors = np.linalg.eigh(flat.T @ flat)
    projected = flat @ vectors[:, -1]
    return (projected * np.sign(projected.sum())).reshape(a.shape[1:])[i, j]


@pytest.mark.parametrize("name", CAMS)
def test_a_cam_is_its_papers_sum(name: str) -> None:
    found = CAMS[name](A, G)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, looped(globals()[name]), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", CAMS)
@pytest.mark.parametrize(("features", "gradients"), [(A * 0, G * 0), (A * 0, G), (A, G * 0), (A[:0], G[:0])])
def test_a_cam_of_zeros_or_of_no_image_is_defined(name: str, features: np.ndarray, gradients: np.ndarray) -> None:
    with np.errstate(all="raise"):
        found = CAMS[name](features, gradients)
    assert found.shape == (len(features), 3, 3, 5)
    assert np.isfinite(found).all()
    if name != "eigencam" or not features.any():
        assert not found.any()


@pytest.mark.parametrize("name", CAMS)
def test_a_cam_of_one_image_and_target_doesnt_depend_on_the_others(name: str) -> None:
    alone = CAMS[name](A[1:], G[1:, 2:])
    np.testing.assert_allclose(alone[0, 0], CAMS[name](A, G)[1, 2], rtol=1e-12)


def test_gradcam_plus_plus_of_a_single_place_is_the_exact_one() -> None:
    """One channel, one place: α = 1 / (2 + g A)."""
    a, g = np.array(3.0), np.array(0.5)
    found = cams.gradcam_plus_plus(a.reshape(1, 1, 1, 1), g.reshape(1, 1, 1, 1, 1))
    np.testing.assert_allclose(found.ravel(), 0.5 / (2 + 0.5 * 3) * 3)


def test_gradcam_plus_plus_leaves_out_a_pole() -> None:
    a, g = np.full((1, 1, 1, 1), -2.0), np.ones((1, 1, 1, 1, 1))
    with np.errstate(all="raise"):
        assert cams.gradcam_plus_plus(a, g).ravel() == [0]


def test_a_linear_scores_hirescam_adds_up_to_it() -> None:
    score = np.einsum("ntkhw,nkhw->nt", G.astype(float), A.astype(float))
    np.testing.assert_allclose(cams.hirescam(A, G).sum((2, 3)), score)


def test_eigencam_of_rectified_features_is_nowhere_negative() -> None:
    found = cams.eigencam(np.maximum(A, 0), G)
    assert found.min() >= -1e-12
    assert (found.max((2, 3)) > 0).all()


def test_eigencam_whose_map_adds_up_to_nothing_still_has_a_sign() -> None:
    row = np.array([[[[-3.0, 1.0, 2.0]]]])
    zeros = np.zeros((1, 1, 1, 1, 3))
    np.testing.assert_allclose(cams.eigencam(row, zeros).ravel(), [3, -1, -2])
    np.testing.assert_allclose(cams.eigencam(-row, zeros).ravel(), [3, -1, -2])


def test_ablationcam_weighs_by_the_share_of_the_score_that_is_lost() -> None:
    features = np.stack([np.eye(2), np.ones((2, 2))])[None]
    for y, expected in ((4.0, [0.75, -0.25]), (-4.0, [-1.25, -2.25]), (0.0, [-1.0, -5.0])):
        ablated = np.array([[[1.0, 5.0]]])
        found = cams.ablationcam(features, np.array([[y]]), ablated)
        np.testing.assert_allclose(found[0, 0], expected[0] * np.eye(2) + expected[1])


def test_scorecam_masks_run_from_0_to_1_and_a_constant_channel_hides_all() -> None:
    features = np.stack([A[0, 0], np.full((3, 5), 7.0), -A[0, 0]])
    masks = cams.scorecam_masks(features, (9, 10))
    assert masks.shape == (3, 9, 10)
    assert masks.dtype == np.float32
    np.testing.assert_array_equal(masks.min((1, 2)), [0, 0, 0])
    np.testing.assert_array_equal(masks.max((1, 2)), [1, 0, 1])
    np.testing.assert_allclose(masks[0] + masks[2], np.ones((9, 10)), atol=1e-6)


def test_single_places_keep_one_place_of_all_channels() -> None:
    found = cams.single_places(A[0], 4, 7)
    assert found.shape == (3, 4, 3, 5)
    for row, (i, j) in zip(found, [(0, 4), (1, 0), (1, 1)], strict=True):
        expected = np.zeros((4, 3, 5), np.float32)
        expected[:, i, j] = A[0, :, i, j]
        np.testing.assert_array_equal(row, expected)


@pytest.mark.parametrize("layout", cams.LAYOUTS)
def test_layouts_come_to_the_grid_and_back(layout: str) -> None:
    before = GENERATOR.standard_normal((2, 2, 4)).astype(np.float32)
    given = {
        "NCHW": A,
        "NHWC": A.transpose(0, 2, 3, 1),
        "tokens": np.concatenate([before, A.reshape(2, 4, 15).transpose(0, 2, 1)], 1),
    }[layout]
    found = on_grid(given, layout, (3, 5), 2 if layout == "tokens" else 0)
    np.testing.assert_array_equal(found, A)
    np.testing.assert_array_equal(in_layout(found, layout, before if layout == "tokens" else None), given)


def test_an_unknown_layout_or_formula_is_a_newer_bundles() -> None:
    with pytest.raises(BundleError, match="pip install"):
        on_grid(A, "HWCN", (3, 5))
    with pytest.raises(BundleError, match="gradcam"):
        cams.find_cam("gradcam_plus")
    with pytest.raises(ParameterError, match="bilinear"):
        cams.upsampled(A, (6, 6), "bilinea")


def test_a_second_formula_of_a_name_is_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        cams.cam("gradcam")(cams.hirescam)


def test_enlarging_is_bilinear_between_centres() -> None:
    found = enlarged(np.array([[0.0, 1.0], [2.0, 4.0]]), (4, 2))
    np.testing.assert_allclose(found, [[0, 1], [0.5, 1.75], [1.5, 3.25], [2, 4]])


@pytest.mark.parametrize("grid", [(7, 7), (60, 41), (300, 300)])
def test_maps_of_any_grid_are_enlarged_as_opencv_does(grid) -> None:
    """Grids small and large: products are computed in pieces."""
    maps = np.random.default_rng(0).standard_normal((2, 1, *grid))
    expected = cv2.resize(np.moveaxis(maps[:, 0], 0, -1), (320, 301), interpolation=cv2.INTER_LINEAR)
    found = enlarged(maps, (301, 320))
    assert found.shape == (2, 1, 301, 320)
    np.testing.assert_allclose(np.moveaxis(found[:, 0], 0, -1), expected, atol=1e-4)


def test_mindspores_bytes_are_those_recorded() -> None:
    """Recorded with MindSpore XAI 2.0.0 on Pillow 13.0; the wrapped numbers are its 8 bits' too."""
    expected = [[0, 64, 191, 255], [16, 68, 171, 223], [47, 75, 131, 159], [63, 79, 111, 127]]
    np.testing.assert_allclose(enlarged_in_bytes(np.array([[0, 1], [0.25, 0.5]]), (4, 4)) * 255, expected, atol=1e-9)
    wrapped = enlarged_in_bytes(np.array([[[1.2, 2.0], [300.0, 0.003]]] * 2), (2, 2))
    np.testing.assert_allclose(wrapped * 255, [[[50, 254], [212, 0]]] * 2)


def test_mindspores_bytes_and_the_exact_resize_agree_to_a_byte_or_two() -> None:
    maps = np.random.default_rng(0).uniform(0, 1, (3, 7, 7))
    difference = enlarged_in_bytes(maps, (28, 28)) - enlarged(maps, (28, 28))
    assert np.abs(difference).max() <= 2 / 255
    assert difference.mean() < 0  # bits are cut off, not rounded


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_guided_gradcam_weighs_every_channel_of_the_gradient(layout: str) -> None:
    maps = np.arange(12.0).reshape(1, 2, 2, 3)
    shape = (1, 2, 4, 2, 3) if layout == "NCHW" else (1, 2, 2, 3, 4)
    found = cams.guided(maps, np.ones(shape), layout)
    assert found.shape == shape
    for channel in range(4):
        one = found[:, :, channel] if layout == "NCHW" else found[..., channel]
        np.testing.assert_array_equal(one, maps)
