"""A network that nobody here made: SqueezeNet in half precision, opset 7, IR 3, batch fixed at 1."""

import os
from pathlib import Path

import numpy as np
import pytest
import skimage

from onnxplain import Explainer
from onnxplain_export import export

FOLDER = Path(os.environ.get("ONNXPLAIN_REAL_MODELS", ""))
pytestmark = pytest.mark.skipif(
    not os.environ.get("ONNXPLAIN_REAL_MODELS"), reason="ONNXPLAIN_REAL_MODELS names no folder of real networks"
)
COFFEE = Path(skimage.__file__).parent / "data" / "coffee.png"
CUP_AND_PLATE = np.s_[0:175, 25:190]
"""Rows and columns that the cup with its saucer's rim takes in the 224×224 picture that the network sees."""


@pytest.fixture(scope="module")
def explainer(tmp_path_factory: pytest.TempPathFactory) -> Explainer:
    bundle = export(
        FOLDER / "squeezenet_imagenet_fp16_opset7.onnx",
        tmp_path_factory.mktemp("real") / "squeezenet.explain",
        preprocessing="caffe",
        labels=FOLDER / "imagenet_labels.txt",
    )
    return Explainer(bundle, device="cpu")


def test_it_says_espresso(explainer: Explainer) -> None:
    result = explainer.explain(COFFEE)
    assert "espresso" in result.labels[0]
    assert result.probabilities[0].max() > 0.9


def test_the_record_says_what_was_done_and_proved(explainer: Explainer) -> None:
    assert explainer.bundle.source["precision"] == "float16"
    assert any("batch axis freed" in change for change in explainer.bundle.source["changes"])
    assert explainer.bundle.verification["gradient"]["error"] <= 1e-2


@pytest.mark.parametrize("method", ["gradient", "smoothgrad", "integrated_gradients", "smoothgrad_integrated"])
def test_the_map_lies_on_the_cup(explainer: Explainer, method: str) -> None:
    parameters = {} if method == "gradient" else {"steps": 8} if method == "integrated_gradients" else {"samples": 3}
    weight = np.abs(explainer.explain(COFFEE, method, **parameters).attribution[0]).sum(axis=0, dtype=np.float64)
    inside = weight[CUP_AND_PLATE]
    outside = weight.sum() - inside.sum()
    density = inside.mean() / (outside / (weight.size - inside.size))
    assert density > 1.4, density
