"""A network written by hand, its bundle, and inputs for it."""

import numpy as np
import pytest

from onnxplain import Explainer
from toy_bundle import write_toy_bundle


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_toy_bundle(tmp_path_factory.mktemp("toy") / "toy.explain")


@pytest.fixture(scope="module")
def explainer(folder):
    return Explainer(folder, device="cpu")


@pytest.fixture(scope="module")
def linear(tmp_path_factory):
    return Explainer(write_toy_bundle(tmp_path_factory.mktemp("linear") / "toy.explain", linear=True), device="cpu")


@pytest.fixture
def rows():
    return np.random.default_rng(3).normal(size=(5, 3, 8, 8)).astype(np.float32)


@pytest.fixture
def picture():
    return np.random.default_rng(4).integers(0, 256, (20, 31, 3), np.uint8)
