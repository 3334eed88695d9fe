"""Images explained in groups, so that a loop's own arrays keep to the memory: the maps are those of one group."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import quadratic
from onnxplain import Explainer, in_groups
from onnxplain_export import export
from quadratic import SHAPE

METHODS = ("gradient", "smoothgrad", "integrated_gradients", "smoothgrad_integrated", "occlusion")


@pytest.fixture
def alone(monkeypatch):
    """Makes every image a group of its own, and counts the groups."""
    counted = []

    def one_each(images, *_):
        counted.append(images)
        return [slice(number, number + 1) for number in range(images)]

    monkeypatch.setattr(in_groups, "images_at_once", one_each)
    return counted


def both(explainer, rows, alone, monkeypatch, *given, **parameters):
    in_parts = explainer.explain(rows, *given, **parameters)
    assert alone == [len(rows)]
    monkeypatch.undo()
    return in_parts, explainer.explain(rows, *given, **parameters)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("targets", [None, 1, [0, 1, 2, 3, 0], [[0, 2]] * 5])
def test_groups_change_nothing(explainer, rows, alone, monkeypatch, method, targets):
    found, expected = both(explainer, rows, alone, monkeypatch, method, targets)
    scale = np.abs(expected.attribution).max()
    assert_allclose(found.attribution, expected.attribution, atol=1e-6 * scale, rtol=0)
    assert_array_equal(found.targets, expected.targets)
    assert_allclose(found.scores, expected.scores, rtol=1e-6)


@pytest.fixture(scope="module")
def curved(tmp_path_factory):
    """A quadratic network with the methods whose arrays are given for each image."""
    methods = ["integrated_gradients", "xrai", "kernel_shap"]
    folder = tmp_path_factory.mktemp("curved") / "net.explain"
    return Explainer(export(quadratic.network(), folder, methods=methods), device="cpu")


def of_images(*shape):
    return np.random.default_rng(8).normal(size=(*shape, *SHAPE)).astype(np.float32)


@pytest.mark.parametrize("given", [(), (1,), (5,), (4,), (5, 2), (1, 3)])
def test_a_baseline_goes_with_its_images(curved, alone, monkeypatch, given):
    """One for all, one for each, several for all (4 baselines of 5 images), several for each."""
    parameters = {"baseline": of_images(*given), "steps": 8}
    found, expected = both(curved, of_images(5), alone, monkeypatch, "integrated_gradients", 1, **parameters)
    assert_allclose(found.attribution, expected.attribution, atol=2e-6 * np.abs(expected.attribution).max(), rtol=0)


def test_several_baselines_stay_several_in_a_group_of_as_many_images(curved, monkeypatch):
    rows, parameters = of_images(5), {"baseline": of_images(2), "steps": 8}
    expected = curved.explain(rows, "integrated_gradients", 1, **parameters)
    pairs = [slice(0, 2), slice(2, 4), slice(4, 5)]
    monkeypatch.setattr(in_groups, "images_at_once", lambda *_: pairs)
    found = curved.explain(rows, "integrated_gradients", 1, **parameters)
    assert_allclose(found.attribution, expected.attribution, atol=2e-6 * np.abs(expected.attribution).max(), rtol=0)


@pytest.mark.parametrize("method", ["xrai", "kernel_shap"])
@pytest.mark.parametrize("each", [True, False])
def test_segments_go_with_their_images(curved, alone, monkeypatch, method, each):
    height, width = SHAPE[1:]
    numbers = np.arange(height)[:, None] // 5 * 2 + np.arange(width) // 9
    segments = np.stack([np.roll(numbers, shift, axis=1) for shift in range(5)]) if each else numbers
    few = {"steps": 5} if method == "xrai" else {"samples": 200}
    found, expected = both(curved, of_images(5), alone, monkeypatch, method, 1, segments=segments, **few)
    assert_allclose(found.attribution, expected.attribution, atol=1e-5 * np.abs(expected.attribution).max(), rtol=0)
