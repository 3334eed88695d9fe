"""LightningWatch: a Trainer of Lightning trains as without it, and each epoch is seen once."""
# ruff: noqa: ARG002 (Lightning's signatures)

import copy
import sys
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader

from onnxplain import Explainer
from onnxplain.errors import ParameterError
from onnxplain.tracking import InstanceTracker, LabelTracker, SaliencyTracker
from onnxplain_export import export
from onnxplain_export.callbacks import LightningWatch
from watched_training import (  # noqa: F401 (fixtures)
    BATCH,
    EPOCHS,
    Shuffled,
    X,
    Y,
    assert_followed,
    assert_same_maps,
    cross_entropies,
    histories,
    kill_if_due,
    measured,
    network,
    one_thread,
    quick_exports,
    quickly,
    run_killed,
    trackers,
    training_set,
)

pytestmark = [
    pytest.mark.filterwarnings(r"ignore:The '\w+_dataloader' does not have many workers"),
    pytest.mark.filterwarnings(r"ignore:The number of training batches \(\d+\) is smaller than the logging interval"),
    pytest.mark.filterwarnings(r"ignore:Checkpoint directory .* exists and is not empty"),
    # Of a newer torch, in Lightning itself.
    pytest.mark.filterwarnings(r"ignore:`isinstance\(treespec, LeafSpec\)` is deprecated"),
]


class Module(lightning.LightningModule):
    """The network with a usual training; `seeded` anew in each epoch, so that it can go on where it was interrupted."""

    def __init__(self, seeded: bool = False, diverges: bool = False) -> None:
        super().__init__()
        self.network, self.seeded, self.diverges = network(), seeded, diverges

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.network(images)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        kill_if_due(self.current_epoch + 1, batch_idx)
        if self.seeded and not batch_idx:
            torch.manual_seed(self.current_epoch)
        loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
        return loss * torch.nan if self.diverges and self.current_epoch else loss

    def validation_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        values = nn.functional.cross_entropy(self(batch[0]), batch[1], reduction="none")
        return {"values": values, "indices": torch.arange(len(values)) + 20 * batch_idx}

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), 1e-2)

    def train_dataloader(self) -> Any:
        order = {"sampler": Shuffled()} if self.seeded else {"shuffle": True}
        return DataLoader(training_set(), BATCH, **order)

    def val_dataloader(self) -> Any:
        return measured()


class Copies(Callback):
    """Keeps the network after each epoch."""

    def __init__(self) -> None:
        self.networks: dict[int, nn.Module] = {}

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self.networks[trainer.current_epoch + 1] = copy.deepcopy(pl_module.network)


def fit(module: Module, folder: Path, *added: Callback, resume: bool = False, **options: Any) -> Module:
    trainer = lightning.Trainer(
        max_epochs=EPOCHS,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=resume,
        default_root_dir=folder,
        callbacks=list(added),
        **options,
    )
    trainer.fit(module, ckpt_path="last" if resume and (folder / "last.ckpt").exists() else None)
    return module


def ended(module: Module) -> list[torch.Tensor]:
    moments = [each["exp_avg_sq"] for each in module.optimizers().optimizer.state.values()]
    return [*module.state_dict().values(), *moments, torch.rand(3)]


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> tuple[LightningWatch, list[torch.Tensor], Copies]:
    folder = tmp_path_factory.mktemp("lightning")
    watching, copies = LightningWatch(folder / "net.explain", data=measured(), **trackers()), Copies()
    return watching, ended(fit(Module(), folder, watching, copies)), copies


def test_the_training_is_the_same_bit_for_bit(watched: Any, tmp_path: Path) -> None:
    for with_it, without in zip(watched[1], ended(fit(Module(), tmp_path)), strict=True):
        assert torch.equal(with_it, without)


def test_what_is_recorded_is_torchs_own_cross_entropy(watched: Any) -> None:
    assert list(watched[2].networks) == [1, 2, 3]
    for epoch, trained in watched[2].networks.items():
        assert_followed(watched[0].watch, epoch, cross_entropies(copy.deepcopy(trained)))


def test_the_maps_are_those_of_a_new_export(watched: Any, tmp_path: Path) -> None:
    methods = ["gradient", "smoothgrad"]
    fresh = export(watched[2].networks[EPOCHS], tmp_path / "fresh.explain", example=X[:1], methods=methods)
    assert_same_maps(watched[0].watch, Explainer(fresh, "cpu"))


def resumed(folder: Path) -> Any:
    """A training with Lightning's own checkpoints, which goes on from the last."""
    watching = LightningWatch(folder / "net.explain", data=(X, Y), state=folder / "state", **trackers())
    with quick_exports():
        fit(Module(seeded=True), folder, ModelCheckpoint(folder, save_last=True), watching, resume=True)
    return watching.watch


def test_a_killed_training_goes_on_with_nothing_lost_or_doubled(tmp_path: Path) -> None:
    run_killed(__file__, tmp_path / "killed")
    assert (tmp_path / "killed/last.ckpt").exists()
    assert histories(resumed(tmp_path / "killed")) == histories(resumed(tmp_path / "whole"))


@pytest.mark.usefixtures("quickly")
def test_a_network_that_diverges_is_told_once_and_trains_on(tmp_path: Path) -> None:
    watching = LightningWatch(tmp_path / "n", data=(X, Y), network="network", labels=LabelTracker("cross_entropy"))
    with pytest.warns(UserWarning, match="epoch 2: no bundle, but training goes on: .* NaN") as told:
        module = fit(Module(diverges=True), tmp_path, watching)
    assert len([one for one in told if "training goes on" in str(one.message)]) == 1
    assert (module.current_epoch, watching.watch.epochs, watching.watch.labels.steps()) == (EPOCHS, {"eval": 3}, [1])


def test_what_the_validation_returns_is_recorded(tmp_path: Path) -> None:
    labels, instances = LabelTracker("loss", None), InstanceTracker("loss")
    copies = Copies()
    fit(Module(), tmp_path, LightningWatch(tmp_path / "n", labels=labels, instances=instances), copies)
    for epoch, trained in copies.networks.items():
        found = [instances.history["eval"][index][epoch] for index in range(len(X))]
        np.testing.assert_allclose(found, cross_entropies(trained), rtol=0, atol=1e-5)
    assert labels.steps() == instances.steps() == [1, 2, 3]


def test_of_several_validations_in_an_epoch_the_last_counts(tmp_path: Path) -> None:
    labels, instances = LabelTracker("loss", None), InstanceTracker("loss")
    watching = LightningWatch(tmp_path / "n", labels=labels, instances=instances)
    fit(Module(), tmp_path, watching, val_check_interval=0.4)  # after the second and the fourth of five batches
    last = np.array([instances.history["eval"][index][EPOCHS] for index in range(len(X))])
    for label in range(10):
        assert labels.history["eval"][label][None][EPOCHS] == pytest.approx(last[label == Y].mean(), rel=1e-6)


@pytest.mark.usefixtures("quickly")
def test_an_epoch_ends_after_its_last_batch_wherever_validations_are(tmp_path: Path) -> None:
    watching, copies = LightningWatch(tmp_path / "n", data=(X, Y), instances=InstanceTracker("cross_entropy")), Copies()
    fit(Module(), tmp_path, watching, copies, val_check_interval=0.4)
    assert watching.watch.followed is not None
    expected = cross_entropies(copies.networks[EPOCHS])
    np.testing.assert_allclose(watching.watch.followed.values, expected, rtol=0, atol=1e-5)


def test_an_epoch_ends_once_and_the_check_before_a_training_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watching, handed, ends = LightningWatch(tmp_path / "n", labels=LabelTracker("loss")), [], []
    monkeypatch.setattr(watching.watch, "batch", lambda *given: handed.append(given))
    monkeypatch.setattr(watching.watch, "epoch_end", ends.append)
    fit(Module(), tmp_path, watching, num_sanity_val_steps=2)
    assert (len(handed), ends) == (EPOCHS * 3, [1, 2, 3])
    fit(Module(), tmp_path, watching, limit_val_batches=0)
    assert ends == [1, 2, 3] * 2


def test_a_checkpoint_is_stored_after_its_epoch_was_recorded(tmp_path: Path) -> None:
    # Else a training that is killed between the two would go on without that epoch. With an interval in batches,
    # Lightning stores it after the validation.
    watching, recorded = LightningWatch(tmp_path / "n", labels=LabelTracker("loss")), []

    class Stored(Callback):
        def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: Any) -> None:
            recorded.append(watching.watch.labels.steps()[-1])

    fit(Module(), tmp_path, ModelCheckpoint(tmp_path / "c"), Stored(), watching, resume=True, val_check_interval=5)
    assert recorded == [1, 2, 3]


@pytest.mark.usefixtures("quickly")
def test_pictures_come_from_the_validation(tmp_path: Path) -> None:
    saliency = SaliencyTracker(25, methods="gradient", keep_film=False)
    watching = LightningWatch(tmp_path / "n", saliency=saliency)
    fit(Module(), tmp_path, watching)
    assert saliency.shown == {"eval": [1, 3]}
    maps = watching.watch.maps["eval"]
    np.testing.assert_array_equal([image.row[0] for image in maps.images], X[:25])
    assert list(maps.labels or ()) == [str(label) for label in Y[:25]]


def test_wrong_arguments_are_errors_at_once(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="there is nothing to watch with"):
        LightningWatch(tmp_path / "n", data=(X, Y))
    with pytest.raises(ParameterError, match="unknown option 'netwrk'"):
        LightningWatch(tmp_path / "n", netwrk="network", labels=LabelTracker("loss"))
    watching = LightningWatch(tmp_path / "n", network="netwrk", labels=LabelTracker("loss"))
    with pytest.raises(ParameterError, match=r"unknown part of Module 'netwrk'; did you mean 'network'\?"):
        fit(Module(), tmp_path, watching)


if __name__ == "__main__":
    resumed(Path(sys.argv[1]))
