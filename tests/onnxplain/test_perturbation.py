"""The perturbation family from end to end: exported networks whose maps are known, and other systems' numbers."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import small_models
from onnxplain import Explainer
from onnxplain.errors import ParameterError
from onnxplain.masks import random_masks
from onnxplain.plans import PLANS
from onnxplain_export import export
from small_models import conv, head, model, node, random_weight
from tight_memory import least_memory

HEIGHT, WIDTH = 6, 9
METHODS = {
    "occlusion": {},
    "rise": {"masks": 50, "cells": 3},
    "kernel_shap": {"samples": 60, "cells": 3},
    "lime": {"samples": 60, "cells": 3},
    "sobol": {"designs": 4, "cells": 3},
    "hsic": {"samples": 30, "cells": 3},
}
WEIGHT = random_weight(3 * HEIGHT * WIDTH, 2, seed=4)
BIAS = np.array([0.5, -0.25], np.float32)


def exported(tmp_path_factory, given, name, **options):
    folder = tmp_path_factory.mktemp(name) / f"{name}.explain"
    return Explainer(export(given, folder, methods=list(METHODS), **options), device="cpu")


@pytest.fixture(scope="module")
def linear(tmp_path_factory):
    """score = ⟨weight, x⟩ + bias, explained as it is."""
    nodes = [node("Flatten", ["x"], ["f"]), node("Gemm", ["f", "weight", "bias"], ["y"])]
    axes = ("x", 1, ["N", 3, HEIGHT, WIDTH])
    given = model(nodes, {"weight": WEIGHT, "bias": BIAS}, inputs=[axes], outputs=[("y", 1, ["N", 2])])
    return exported(tmp_path_factory, given, "linear", activation="none")


@pytest.fixture(scope="module", params=["NCHW", "NHWC"])
def network(tmp_path_factory, request):
    """A small convolutional classifier of pictures that aren't square, in either layout."""
    first = [] if request.param == "NCHW" else [node("Transpose", ["x"], ["p"], perm=[0, 3, 1, 2])]
    shape = [3, 13, 10] if request.param == "NCHW" else [13, 10, 3]
    nodes = [*first, conv("p" if first else "x"), *head("c")]
    return exported(tmp_path_factory, model(nodes, inputs=[("x", 1, ["N", *shape])]), "net", activation="softmax")


def images_for(network, count):
    return small_models.images(*network.bundle.image.shape[1:], count=count)


@pytest.fixture
def images():
    return small_models.images(3, HEIGHT, WIDTH, count=2, seed=8)


def contributions(images, fill=0.0):
    """What each pixel brings to the first score of the linear network: [N, H, W]."""
    return ((images - fill) * WEIGHT[:, 0].reshape(3, HEIGHT, WIDTH)).sum(axis=1).astype(np.float64)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("count", [1, 7])
def test_an_images_map_is_finite_and_the_same_alone_and_in_a_batch(network, method, count):
    images = images_for(network, 7)
    together = network.explain(images[:count], method, **METHODS[method]).attribution
    height = network.bundle.image.shape.index(13)
    assert together.shape == ((count, 1, 13, 10) if height == 2 else (count, 13, 10, 1))
    assert np.isfinite(together).all()
    assert np.ptp(together) > 0
    alone = network.explain(images[count - 1], method, **METHODS[method]).attribution
    assert_allclose(together[-1:], alone, rtol=2e-4, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_several_targets_share_the_passes(network, method):
    images = images_for(network, 2)
    several = network.explain(images, method, [[3, 0], [2, 2]], **METHODS[method]).attribution
    assert several.shape[:2] == (2, 2)
    for column in (0, 1):
        one = network.explain(images, method, [[3, 2], [0, 2]][column], **METHODS[method]).attribution
        assert_allclose(several[:, column], one, rtol=2e-4, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_a_memory_cap_changes_no_map(network, method):
    images = images_for(network, 3)
    free = network.explain(images, method, **METHODS[method]).attribution
    least = least_memory(network, images, method, **METHODS[method])
    capped = network.explain(images, method, memory=least, **METHODS[method]).attribution
    assert_allclose(capped, free, rtol=2e-4, atol=1e-6)


def test_rise_of_a_linear_network_is_the_masks_covariance(linear, images):
    """E[m f(x ⊙ m)] / E[m]: cells are independent, so E[m mᵀ] = p² + p (1 − p) W Wᵀ for each shift."""
    cells, p, number = 3, 0.4, 20_000
    seconds = np.zeros((HEIGHT * WIDTH, HEIGHT * WIDTH))
    heights, widths = (-(-side // cells) for side in (HEIGHT, WIDTH))
    for top in range(heights):
        for left in range(widths):
            rows, columns = weights(top, heights, HEIGHT, cells), weights(left, widths, WIDTH, cells)
            pixels = np.einsum("hr,wc->hwrc", rows, columns).reshape(HEIGHT * WIDTH, -1)
            seconds += (p**2 + p * (1 - p) * pixels @ pixels.T) / (heights * widths)
    expected = (contributions(images).reshape(2, -1) @ seconds) / p + BIAS[0]
    maps = linear.explain(images, "rise", 0, masks=number, cells=cells, probability=p, seed=5).attribution
    # A score's spread of 4 over √20000 draws, times m / p of up to 2.5, is 0.07.
    assert_allclose(maps.reshape(2, -1), expected, atol=0.12)
    assert np.ptp(expected, axis=1).min() > 1


def weights(shift, step, length, cells):
    """What each cell counts for in each pixel, by numpy's own interpolation."""
    scale = (cells + 1) * step / cells
    places = (np.arange(length) + shift + 0.5) / scale - 0.5
    return np.stack([np.interp(places, np.arange(cells), unit) for unit in np.eye(cells)], axis=1)


@pytest.mark.parametrize("fill", [0.0, 0.75])
def test_rise_is_the_mean_score_of_the_masks_that_keep_a_pixel(linear, images, fill):
    parameters = {"masks": 60, "cells": 4, "probability": 0.3, "seed": 11}
    maps = linear.explain(images, "rise", 0, fill=fill, **parameters).attribution[:, 0]
    masks = random_masks(11, PLANS["random_masks"].rule(parameters, HEIGHT, WIDTH), HEIGHT, WIDTH)
    base = BIAS[0] + fill * WEIGHT[:, 0].sum()
    scores = np.einsum("khw,nhw->nk", masks, contributions(images, fill)) + base
    assert_allclose(maps, np.einsum("nk,khw->nhw", scores, masks) / masks.sum(axis=0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", ["kernel_shap", "lime"])
def test_segments_of_a_linear_network_get_what_their_pixels_bring(linear, images, method):
    own = np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) // 11
    extra = {"ridge": 0.0} if method == "lime" else {}
    maps = linear.explain(images, method, 0, segments=own, fill=0.5, samples=100, **extra).attribution[:, 0]
    for number in np.unique(own):
        brought = contributions(images, 0.5)[:, own == number].sum(axis=1)
        assert_allclose(maps[:, own == number], brought[:, None].repeat((own == number).sum(), 1), rtol=1e-3, atol=1e-4)


def test_sobol_indices_of_a_linear_network_are_shares_of_variance(linear, images):
    maps = linear.explain(images, "sobol", 0, cells=2, designs=4000).attribution[:, 0]
    brought = contributions(images).reshape(2, 2, 3, WIDTH)
    squares = np.stack([brought[..., :5].sum(axis=(2, 3)), brought[..., 5:].sum(axis=(2, 3))], axis=2) ** 2
    shares = squares / squares.sum(axis=(1, 2), keepdims=True)
    assert_allclose(maps[:, ::3, ::5], shares, atol=0.06)


def test_hsic_ranks_the_segments_of_a_linear_network(linear, images):
    maps = linear.explain(images, "hsic", 0, cells=3, samples=1000).attribution[:, 0, ::2, ::3].reshape(2, 9)
    brought = np.abs(contributions(images).reshape(2, 3, 2, 3, 3).sum(axis=(2, 4))).reshape(2, 9)
    assert_array_equal(maps.argmax(axis=1), brought.argmax(axis=1))
    assert all(np.corrcoef(np.argsort(np.argsort([a, b])))[0, 1] > 0.8 for a, b in zip(maps, brought, strict=True))


def test_each_image_may_have_segments_of_its_own(linear, images):
    own = np.stack([np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) // size for size in (11, 18)])
    together = linear.explain(images, "kernel_shap", 0, segments=own, samples=100).attribution
    for image, numbers in enumerate(own):
        alone = linear.explain(images[image], "kernel_shap", 0, segments=numbers, samples=100).attribution
        assert_allclose(together[image : image + 1], alone, rtol=1e-4, atol=1e-6)
    slic = linear.explain(images, "lime", 0, segments="slic", cells=2, samples=50).attribution
    assert_allclose(slic[1:], linear.explain(images[1], "lime", 0, segments="slic", cells=2, samples=50).attribution)


def test_mindspores_occlusion_has_its_recorded_map(tmp_path_factory):
    nodes = [node("Flatten", ["x"], ["f"]), node("Gemm", ["f", "weight"], ["y"])]
    weight = np.stack([np.ones(16), np.arange(16) - 8], axis=1).astype(np.float32)
    axes = ("x", 1, ["N", 1, 4, 4])
    given = model(nodes, {"weight": weight}, inputs=[axes], outputs=[("y", 1, ["N", 2])])
    summing = exported(tmp_path_factory, given, "sum", activation="none")
    image = (np.arange(16, dtype=np.float32) / 16).reshape(1, 1, 4, 4)
    found = summing.explain(image, "occlusion", 0, preset="mindspore").attribution
    recorded = [
        [1.40625, 2.0625, 2.0625, 1.6875],
        [2.625, 3.375, 3.375, 3],
        [2.625, 3.375, 3.375, 3],
        [2.53125, 3.5625, 3.5625, 2.8125],
    ]
    assert_allclose(found[0, 0], recorded, atol=1e-5)


def test_mindspores_rise_is_the_mean_of_probability_times_mask(network):
    if network.bundle.image.layout != "NCHW":
        pytest.skip("MindSpore knows one layout")
    images = images_for(network, 1)
    found = network.explain(images, "rise", 2, preset="mindspore", masks=80, seed=4).attribution[0, 0]
    noise_table = PLANS["random_masks.mindspore"].rule({"masks": 80, "cells": 10, "probability": 0.5}, 13, 10)
    masks = random_masks(4, noise_table, 13, 10)
    logits = network.scores(images * masks[:, None]).astype(np.float64)
    powers = np.exp(logits)
    probabilities = (powers / powers.sum(axis=1, keepdims=True))[:, 2]
    assert_allclose(found, np.einsum("k,khw->hw", probabilities, masks) / 80, rtol=1e-4)


@pytest.mark.parametrize(
    ("method", "parameters", "message"),
    [
        ("occlusion", {"window": 3, "stride": 4}, "never be hidden"),
        ("occlusion", {"window": 13}, r"window=13 hides the whole image of 13x10 .*or a pair \(rows, columns\)"),
        ("occlusion", {"window": (4, 11)}, r"at most \(13, 10\)"),
        ("occlusion", {"window": (1, 2, 3)}, "pair"),
        ("rise", {"masks": 0}, "at least 1|1 to"),
        ("rise", {"cells": 11}, "2 to 10"),
        ("rise", {"cells": 33}, "2 to 32"),
        ("rise", {"probability": 0}, "0.01 to 0.99"),
        ("kernel_shap", {"cells": 11}, "at most 10"),
        ("kernel_shap", {"samples": 20, "cells": 4}, "at least 32"),
        ("lime", {"segments": np.zeros((10, 13))}, r"\[13, 10\] is right for all images"),
        ("lime", {"segments": "quickshift"}, "unknown segments 'quickshift'"),
        ("lime", {"distance": "manhattan"}, "unknown distance"),
        ("sobol", {"designs": 1}, "2 to"),
        ("hsic", {"segments": np.full((13, 10), np.nan)}, "NaN"),
    ],
)
def test_bad_parameters_are_errors_that_say_what_would_be_right(network, method, parameters, message):
    with pytest.raises(ParameterError, match=message):
        network.explain(images_for(network, 1), method, **parameters)
