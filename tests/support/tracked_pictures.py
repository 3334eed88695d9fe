"""Pictures of the shipped network and of one with a closed form, for the tests of maps over epochs.

A test module imports the fixtures under their own names, as in `honest as honest`: ruff takes no parameter for a use.
"""

from pathlib import Path

import numpy as np
import pytest

import small_models
from onnxplain import Explainer
from onnxplain.tracking.saliency import METHODS
from onnxplain_export import export
from quadratic import SHAPE, network

MODELS = Path(__file__).parents[2] / "models"
NAMES = (MODELS / "labels.txt").read_text().split()
PICTURES = sorted((MODELS / "pictures").glob("*.png"))[:5]
TRUE = [0, 1, 2, 3, 4]
MAPPING = {name.upper(): number for number, name in enumerate(NAMES)}
STEPS = [
    {"step": "colour", "order": "RGB"},
    {"step": "scale", "factor": 1 / 255},
    {"step": "mean", "values": [0.5, 0.5, 0.5]},
    {"step": "std", "values": [0.5, 0.5, 0.5]},
    {"step": "layout", "order": "NCHW"},
]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("honest") / "honest.explain"
    methods = [*METHODS, "occlusion"]
    return export(MODELS / "honest.onnx", folder, preprocessing=STEPS, labels=MODELS / "labels.txt", methods=methods)


@pytest.fixture(scope="module")
def honest(bundle):
    return Explainer(bundle, device="cpu", rows=16)


@pytest.fixture(scope="module")
def quadratic(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quadratic") / "net.explain"
    return Explainer(export(network(), folder, methods=METHODS), device="cpu", rows=16)


@pytest.fixture
def images():
    """Three images of different ranges, so that the batch's differs from each one's."""
    return small_models.images(*SHAPE) * np.array([1, 2, 3], np.float32).reshape(-1, 1, 1, 1)


def rows_of(images):
    """Pictures as the network takes them."""
    return ((np.stack(images) / 255 - 0.5) / 0.5).transpose(0, 3, 1, 2).astype(np.float32)
