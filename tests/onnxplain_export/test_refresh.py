"""`refresh()` gives a bundle new weights: it is then, to the last bit, what a new export of them would be."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from torch import nn

from networks import mobile_net, vision_transformer
from onnxplain import Explainer
from onnxplain.errors import BundleError, ModelError
from onnxplain_export import export, refresh
from refreshing import (
    FLAT,
    IMAGE,
    assert_same_files,
    assert_same_files_but_memory,
    later,
    proto,
    quick,
    sequential,
    wide,
)


class Tied(nn.Module):
    """One weight read twice, plainly and transposed; another, equal today, of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = (
            nn.Linear(16, 16, bias=False),
            nn.Linear(16, 16, bias=False),
            nn.Linear(16, 4),
        )
        self.second.weight.data = self.first.weight.data.clone()
        self.third = nn.Linear(16, 16, bias=False)
        self.third.weight = self.first.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.tanh(self.second(torch.tanh(self.first(x.flatten(1)[:, :16]))))
        return self.last(torch.tanh(self.third(x) @ self.first.weight))


class Recurrent(nn.Module):
    """An LSTM over the rows of a picture."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.LSTM(36, 8, batch_first=True), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.cell(x.permute(0, 2, 1, 3).flatten(2))[0][:, -1])


def initialised(make: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    """As torch initialises: whole layers of equal numbers, biases of 0, which exporters would take for one or none."""

    def made() -> nn.Module:
        module = make()
        for part in module.modules():
            if isinstance(part, nn.Conv2d | nn.Linear) and part.bias is not None:
                nn.init.zeros_(part.bias)
        return module

    return made


WIDE = sequential(
    nn.Conv2d(3, 256, 3),
    nn.BatchNorm2d(256),
    nn.ReLU(),
    nn.Conv2d(256, 256, 1),
    nn.GroupNorm(4, 256),
    *FLAT,
    nn.Linear(1024, 4),
)
NETWORKS: dict[str, tuple[Callable[[], nn.Module], torch.Tensor, dict[str, Any]]] = {
    "conv + norm": (
        sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(200, 4)),
        IMAGE,
        {"methods": "all"},
    ),
    "norm first": (
        sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 8, 3, stride=2), nn.PReLU(8), *FLAT, nn.Linear(32, 4)),
        IMAGE,
        {"methods": "all"},
    ),
    "transposed": (
        sequential(
            nn.ConvTranspose2d(3, 4, 3, 2), nn.BatchNorm2d(4), nn.ELU(), *FLAT, nn.Linear(16, 8), nn.BatchNorm1d(8)
        ),
        IMAGE,
        {},
    ),
    "just initialised": (initialised(WIDE), IMAGE, {}),
    "mobile": (mobile_net, torch.zeros(1, 3, 32, 32), {"methods": ["gradcam", "lrp_epsilon", "guided_backprop"]}),
    "transformer": (
        lambda: vision_transformer(size=32),
        torch.zeros(1, 3, 32, 32),
        {"methods": ["smoothgrad", "gradcam"]},
    ),
    "recurrent": (sequential(Recurrent()), IMAGE, {}),
    "tied": (sequential(Tied()), IMAGE, {}),
    "float16": (WIDE, IMAGE, {"float16": True}),
    "half": (lambda: WIDE().half(), IMAGE.half(), {}),
    "double": (lambda: WIDE().double(), IMAGE.double(), {}),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_refreshed_bundle_is_what_a_new_export_would_be(name: str, tmp_path: Path) -> None:
    make, image, options = NETWORKS[name]
    before = make()
    after = later(before)
    old = quick(before, tmp_path / "old.explain", example=image, **options)
    new = quick(after, tmp_path / "new.explain", example=image, **options)
    assert any(path.read_bytes() != (new / path.name).read_bytes() for path in old.glob("*.[!j]*"))
    assert_same_files(refresh(old, after, tmp_path / "refreshed.explain"), new)


@pytest.mark.parametrize("opset", [13, 20])
def test_a_file_with_other_names_finds_its_weights_by_what_reads_them(opset: int, tmp_path: Path) -> None:
    old = quick(proto(0, opset=opset), tmp_path / "old.explain", methods="all")
    newer = proto(10, opset=opset)
    refreshed = refresh(old, proto(10, opset=opset, prefix="epoch_2/"), tmp_path / "refreshed.explain")
    assert_same_files(refreshed, quick(newer, tmp_path / "new.explain", methods="all"))
    assert Explainer(refreshed).bundle.source["sha256"] != Explainer(old).bundle.source["sha256"]


def test_a_file_is_read_from_its_path_and_the_bundle_says_so(tmp_path: Path) -> None:
    old = export(proto(0), tmp_path / "net.explain")
    onnx.save(proto(10), tmp_path / "epoch_2.onnx")
    assert refresh(old, tmp_path / "epoch_2.onnx") == old
    fresh = export(tmp_path / "epoch_2.onnx", tmp_path / "fresh.explain")
    assert_same_files_but_memory(old, fresh)
    source = Explainer(old).bundle.source
    assert source["file"] == "epoch_2.onnx"
    assert source["sha256"] == Explainer(fresh).bundle.source["sha256"]
    assert Explainer(old).bundle.verification["forward"]["error"] < 1e-6


@pytest.mark.filterwarnings("ignore")  # torch's exporter warns of its own parts
def test_checkpoints_as_torchs_exporter_writes_them_by_default(tmp_path: Path) -> None:
    """Weights in a file beside each, and a batch that is fixed."""
    before = NETWORKS["conv + norm"][0]()
    for name, module in (("epoch_1", before), ("epoch_2", later(before))):
        torch.onnx.export(module, (IMAGE.repeat(2, 1, 1, 1),), tmp_path / f"{name}.onnx", verbose=False)
        assert (tmp_path / f"{name}.onnx.data").exists()
    bundle = export(tmp_path / "epoch_1.onnx", tmp_path / "net.explain", methods=["gradient"])
    fresh = export(tmp_path / "epoch_2.onnx", tmp_path / "fresh.explain", methods=["gradient"])
    assert_same_files_but_memory(refresh(bundle, tmp_path / "epoch_2.onnx"), fresh)


def test_maps_are_those_of_a_new_export(tmp_path: Path) -> None:
    before = NETWORKS["conv + norm"][0]()
    after = later(before)
    bundle = export(before, tmp_path / "net.explain", example=IMAGE)
    fresh = export(after, tmp_path / "fresh.explain", example=IMAGE)
    stale = Explainer(bundle)
    images = np.random.default_rng(0).standard_normal((2, 3, 12, 12)).astype(np.float32)
    old_map = stale.explain(images, "gradient").attribution
    refresh(bundle, after)
    for method in ("gradient", "smoothgrad", "integrated_gradients", "occlusion"):
        found, wanted = (Explainer(one).explain(images, method).attribution for one in (bundle, fresh))
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6 * np.abs(wanted).max())
    assert np.abs(Explainer(bundle).explain(images, "gradient").attribution - old_map).max() > 1e-3
    # What was opened before stays whole: it goes on with its own weights, or says that it can't.
    np.testing.assert_array_equal(stale.explain(images, "gradient").attribution, old_map)
    with pytest.raises(BundleError, match="was replaced since it was opened; open it again"):
        stale.explain(images, "smoothgrad")


def test_a_mapping_of_arrays_is_taken_by_name(tmp_path: Path) -> None:
    before = NETWORKS["conv + norm"][0]()
    after = later(before)
    bundle = quick(before, tmp_path / "net.explain", example=IMAGE)
    one = refresh(bundle, after, tmp_path / "one.explain")
    assert_same_files_but_memory(refresh(bundle, after.state_dict(), tmp_path / "two.explain"), one)
    with pytest.raises(ModelError, match=r"lacks a weight of the .*: unknown name '5\.bias'; did you mean '5\.bia'"):
        refresh(bundle, {name.replace("5.bias", "5.bia"): one for name, one in after.state_dict().items()})


def test_a_refreshed_bundle_is_refreshed_again(tmp_path: Path) -> None:
    before = NETWORKS["norm first"][0]()
    bundle = quick(before, tmp_path / "net.explain", example=IMAGE)
    for seed in (1, 2, 3):
        refresh(bundle, later(before, seed))
    assert_same_files_but_memory(bundle, quick(later(before, 3), tmp_path / "new.explain", example=IMAGE))
    changes = Explainer(bundle).bundle.source["changes"]
    assert sum(change.startswith("weights refreshed") for change in changes) == 1


def test_a_module_is_left_as_it_was(tmp_path: Path) -> None:
    module = sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), *FLAT, nn.Linear(16, 4))()
    bundle = quick(module, tmp_path / "net.explain", example=IMAGE)
    module.train()
    module[2].eval()
    torch.manual_seed(5)
    state, weights = torch.get_rng_state(), copy.deepcopy(module.state_dict())
    refresh(bundle, module)
    assert torch.equal(torch.get_rng_state(), state)
    assert [part.training for part in module] == [True, True, False, True, True, True]
    assert all(torch.equal(tensor, weights[name]) for name, tensor in module.state_dict().items())


class WithTemperature(nn.Module):
    """Scores, and beside them numbers that no image has a row of."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.temperature = wide(), nn.Parameter(torch.arange(5.0))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.body(x), self.temperature * 2


def test_outputs_without_a_row_for_each_image_are_left_aside(tmp_path: Path) -> None:
    before = WithTemperature().eval()
    bundle = quick(before, tmp_path / "net.explain", example=IMAGE)
    refresh(bundle, later(before))
    assert Explainer(bundle).bundle.verification["forward"]["error"] < 1e-5


def test_an_estimator_is_converted_again(tmp_path: Path) -> None:
    """Its label output, whose node holds coefficients as attributes, is no part of what is explained."""
    features, classes = load_digits(return_X_y=True)
    early, late = (LogisticRegression(C=c, max_iter=1000).fit(features / 16, classes) for c in (0.01, 0.1))
    bundle = quick(early, tmp_path / "net.explain")
    fresh = quick(late, tmp_path / "fresh.explain")
    assert_same_files_but_memory(refresh(bundle, late), fresh)
