"""The gradient family under preset="pair" is PAIR's saliency package, fed with our gradients and recorded noise."""

import numpy as np
import pytest

from onnxplain import Explainer
from onnxplain.random import normal
from onnxplain_export import export
from small_models import classifier

saliency = pytest.importorskip("saliency.core", reason="the saliency package is the oracle here: pip install saliency")

METHODS = [
    "gradient",
    "smoothgrad",
    "integrated_gradients",
    "blur_integrated_gradients",
    "guided_integrated_gradients",
    "xrai",
]
TARGET, SEED, CLOSE = 2, 9, 1e-4


@pytest.fixture(scope="module")
def explainer(tmp_path_factory) -> Explainer:
    folder = tmp_path_factory.mktemp("pair")
    return Explainer(export(classifier(), folder / "net.explain", methods=METHODS), device="cpu")


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((2, 3, 16, 16)).astype(np.float32)


def channels_last(image: np.ndarray) -> np.ndarray:
    return np.moveaxis(image, 0, -1)


def model_of(explainer: Explainer) -> "callable":
    """What PAIR calls for a gradient: pictures [M, H, W, C] in float64."""

    def call(rows: np.ndarray, **_: object) -> dict:
        gradients = explainer.gradient(np.moveaxis(rows, -1, 1).astype(np.float32), TARGET)
        return {saliency.base.INPUT_OUTPUT_GRADIENTS: np.moveaxis(gradients, 1, -1)}

    return call


def assert_same(explainer: Explainer, images: np.ndarray, method: str, mask: "callable", **parameters: object) -> None:
    ours = explainer.explain(images, method, TARGET, preset="pair", **parameters).attribution
    for image, found in zip(images, ours, strict=True):
        theirs = mask(channels_last(image).astype(np.float64), model_of(explainer))
        found = channels_last(found).reshape(theirs.shape)
        assert np.linalg.norm(found - theirs) / np.linalg.norm(theirs) < CLOSE


@pytest.fixture
def old_numpy(monkeypatch) -> None:
    """numpy renamed the argument of quantile that PAIR uses."""
    quantile = np.quantile
    monkeypatch.setattr(
        np, "quantile", lambda a, q, interpolation="linear": quantile(a, q, method=interpolation), raising=True
    )


def test_smoothgrad_is_the_mean_square(explainer, images, monkeypatch):
    def smooth(image: np.ndarray, model: "callable") -> np.ndarray:
        draws = iter(normal(SEED, np.arange(25), (3, 16, 16)))
        monkeypatch.setattr(np.random, "normal", lambda mean, sigma, shape: sigma * channels_last(next(draws)))
        return saliency.GradientSaliency().GetSmoothedMask(image, model)

    assert_same(explainer, images, "smoothgrad", smooth, seed=SEED)


def test_integrated_gradients(explainer, images):
    assert_same(explainer, images, "integrated_gradients", saliency.IntegratedGradients().GetMask)


def test_blur_integrated_gradients(explainer, images):
    assert_same(explainer, images, "blur_integrated_gradients", saliency.BlurIG().GetMask)


@pytest.mark.usefixtures("old_numpy")
@pytest.mark.parametrize(("fraction", "max_dist"), [(0.1, 0.5), (1.0, 0.0)])
def test_guided_integrated_gradients(explainer, images, fraction, max_dist):
    def guided(image: np.ndarray, model: "callable") -> np.ndarray:
        return saliency.GuidedIG().GetMask(image, model, x_steps=40, fraction=fraction, max_dist=max_dist)

    options = {"steps": 40, "fraction": fraction, "max_dist": max_dist}
    assert_same(explainer, images, "guided_integrated_gradients", guided, **options)


@pytest.mark.usefixtures("old_numpy")
def test_guided_integrated_gradients_by_default(explainer, images):
    assert_same(explainer, images[:1], "guided_integrated_gradients", saliency.GuidedIG().GetMask)


def test_xrai_with_given_segments(explainer, images):
    masks = np.random.default_rng(1).random((9, 16, 16)) < 0.4

    def grow(image: np.ndarray, model: "callable") -> np.ndarray:
        parameters = saliency.XRAIParameters()
        parameters.experimental_params["min_pixel_diff"] = 1  # ours is 50 pixels of 224 by 224, as a share
        return saliency.XRAI().GetMask(image, model, segments=list(masks), extra_parameters=parameters)

    assert_same(explainer, images, "xrai", grow, segments=masks)


def test_xrai_segments_a_picture_as_pair_does():
    from onnxplain.regions import picture_masks

    picture = np.random.default_rng(2).random((4, 4, 3)).repeat(56, 0).repeat(56, 1)
    theirs = saliency.xrai._get_segments_felzenszwalb(picture)
    ours = picture_masks(picture)
    assert len(ours) == len(theirs)
    assert all((a == b).all() for a, b in zip(ours, theirs, strict=True))
