"""Which methods and graphs a bundle gets, and what it says of those that the network doesn't allow."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from onnxplain import ParameterError
from onnxplain_export import export
from onnxplain_export.methods import METHODS


def test_pictures_of_other_channels_have_gradients_alone_and_the_bundle_says_so(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Conv2d(5, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(240, 3))
    example = torch.zeros(1, 5, 12, 8)
    description = json.loads((export(module, tmp_path / "a", example=example) / "explainer.json").read_text())
    assert "gradient" in description["methods"]
    assert "1, 3 or 4 channels" in description["left_out"]["occlusion"]
    with pytest.raises(ParameterError, match="none of them is exported"):
        export(module, tmp_path / "b", example=example, layers=["relu"])


def test_all_is_every_method_and_what_is_left_out_has_a_reason(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(), nn.Flatten(), nn.Linear(240, 3))
    folder = export(module, tmp_path / "net", example=torch.zeros(1, 3, 12, 8), methods="all")
    description = json.loads((folder / "explainer.json").read_text())
    assert {*description["methods"], *description["left_out"]} == set(METHODS)
    assert all(name.startswith("lrp_") or name == "deeplift" for name in description["left_out"])
    assert all("isn't defined for" in reason for reason in description["left_out"].values())
    with pytest.raises(ParameterError, match="unknown method 'gradcan'; did you mean 'gradcam'"):
        export(module, tmp_path / "other", example=torch.zeros(1, 3, 12, 8), methods=["gradcan"])
