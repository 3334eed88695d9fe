"""Every method on the shipped networks and on pictures of odd and unequal sides: it runs, its map is finite, and the
same alone and among others, for one target and for several.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

import networks
from onnxplain import Explainer
from onnxplain.presets import PRESETS
from onnxplain_export import export
from onnxplain_export.methods import METHODS

FEW = {
    "samples": 5,
    "steps": 4,
    "masks": 40,
    "channels": 8,
    "designs": 3,
    "window": 9,
    "stride": 7,
    "cells": 3,
}
TOLERANCE = 1e-4


def few(explainer: Explainer, method: str) -> dict[str, int]:
    """Parameters that make a method quick."""
    known = explainer.bundle.methods[method].parameters
    chosen = {name: value for name, value in FEW.items() if name in known}
    if method == "kernel_shap":
        chosen["samples"] = 40
    if method == "guided_integrated_gradients":
        chosen["steps"] = 3
    return chosen


@pytest.fixture(scope="module")
def explainers(tmp_path_factory: pytest.TempPathFactory, all_bundles: dict[str, Path]) -> dict[str, Explainer]:
    folder = tmp_path_factory.mktemp("odd")
    residual = export(
        networks.resnet18(7), folder / "residual.explain", example=torch.zeros(1, 3, 37, 53), methods="all"
    )
    tokens = networks.vision_transformer(size=32, patch=8)
    attention = export(tokens, folder / "attention.explain", example=torch.zeros(1, 3, 32, 32), methods="all")
    paths = {**all_bundles, "residual": residual, "attention": attention}
    return {name: Explainer(path, device="cpu") for name, path in paths.items()}


def rows_of(explainer: Explainer, count: int) -> np.ndarray:
    sizes = [int(axis) for axis in explainer.bundle.image.shape[1:]]
    return np.random.default_rng(5).standard_normal((count, *sizes)).astype(np.float32)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["honest", "shortcut", "residual", "attention"])
def test_a_map_is_finite_and_the_same_alone_and_among_others(
    name: str, method: str, explainers: dict[str, Explainer]
) -> None:
    explainer = explainers[name]
    if method not in explainer.bundle.methods:
        reason = explainer.bundle.left_out[method]
        assert name == "attention", reason  # what convolutional networks allow, all of them allow
        pytest.skip(reason)
    rows, parameters = rows_of(explainer, 7), few(explainer, method)
    together = explainer.explain(rows, method, **parameters).attribution
    height, width = (int(axis) for axis in explainer.bundle.image.shape[2:])
    assert together.shape[0] == 7
    assert together.shape[2:] == (height, width)
    assert np.isfinite(together).all()
    for image in (0, 3):
        alone = explainer.explain(rows[image], method, **parameters).attribution
        assert np.linalg.norm(alone[0] - together[image]) <= TOLERANCE * np.linalg.norm(together[image])


@pytest.mark.parametrize("method", METHODS)
def test_several_targets_have_the_maps_that_each_has_alone(method: str, explainers: dict[str, Explainer]) -> None:
    explainer = explainers["residual"]
    rows, parameters = rows_of(explainer, 2), few(explainer, method)
    together = explainer.explain(rows, method, [[4, 0], [4, 2]], **parameters).attribution
    alone = explainer.explain(rows, method, [0, 2], **parameters).attribution
    assert np.linalg.norm(together[:, 1] - alone) <= TOLERANCE * np.linalg.norm(alone)


def test_a_result_names_the_layer_that_was_used(explainers: dict[str, Explainer]) -> None:
    explainer = explainers["residual"]
    result = explainer.explain(rows_of(explainer, 1), "gradcam")
    assert result.parameters["layer"] == explainer.bundle.layers[0].name
    assert result.provenance["parameters"]["layer"] == explainer.bundle.layers[0].name


@pytest.mark.parametrize(("preset", "method"), [(p, m) for p, methods in PRESETS.items() for m in methods])
def test_every_preset_runs_on_a_shipped_network(
    preset: str, method: str, explainers: dict[str, Explainer], pictures: list[Path]
) -> None:
    explainer = explainers["honest"]
    if method == "rise_plus":
        pytest.skip("needs a detector: see test_detector.py")
    result = explainer.explain(pictures[:2], method, preset=preset, **few(explainer, method))
    assert result.method == f"{method}.{preset}"
    assert np.isfinite(result.attribution).all()
    assert result.heatmap().min() >= 0
    assert result.heatmap().max() <= 1
    same = explainer.explain(pictures[:2], f"{method}.{preset}", **few(explainer, method))
    np.testing.assert_array_equal(same.attribution, result.attribution)
