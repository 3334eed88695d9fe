"""Watch in a plain torch loop: it sees every epoch, and the training notices nothing."""

import copy
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from onnxplain import Explainer
from onnxplain.errors import OutputError, ParameterError
from onnxplain.tracking import InstanceTracker, LabelTracker, SaliencyTracker
from onnxplain_export import export
from onnxplain_export.callbacks import Watch
from onnxplain_export.callbacks.watched_data import WatchedData
from watched_training import (  # noqa: F401 (fixtures)
    BATCH,
    EPOCHS,
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

NOTHING: Callable[..., None] = lambda *_: None  # noqa: E731

UNFED = pytest.mark.filterwarnings("ignore:.*was given no values")


class Sink:
    """Tells names and steps of what it is given."""

    def __init__(self, take: Callable[..., None]) -> None:
        self.take = take

    def figure(self, name: str, _: Any, step: int) -> None:
        self.take(name, step)

    def scalar(self, name: str, _: float, step: int) -> None:
        self.take(name, step)


def train(
    model: nn.Module,
    *,
    end: Callable[..., None] = NOTHING,
    checkpoint: Path | None = None,
    generator: torch.Generator | None = None,
) -> dict[str, Any]:
    """A usual loop, which goes on from a checkpoint; returns all that it ends with."""
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    loader = DataLoader(training_set(), BATCH, shuffle=True, generator=generator)
    first = 1
    if checkpoint is not None and checkpoint.exists():
        stored = torch.load(checkpoint)
        model.load_state_dict(stored["model"])
        optimizer.load_state_dict(stored["optimizer"])
        torch.set_rng_state(stored["random"])
        first = stored["epoch"] + 1
    for epoch in range(first, EPOCHS + 1):
        model.train()
        for number, (images, labels) in enumerate(loader):
            kill_if_due(epoch, number)
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
        end(epoch, loader)
        if checkpoint is not None:
            stored = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch}
            torch.save({**stored, "random": torch.get_rng_state()}, checkpoint)
    moments = [state[name] for state in optimizer.state.values() for name in ("exp_avg", "exp_avg_sq")]
    return {
        "weights": [*model.state_dict().values(), *moments],
        "gradients": [parameter.grad for parameter in model.parameters()],
        "flags": [part.training for part in model.modules()],
        "drawn": (torch.rand(1).item(), np.random.rand(), random.random()),  # noqa: NPY002
    }


def equal(one: dict[str, Any], other: dict[str, Any]) -> bool:
    tensors = all(
        torch.equal(a, b) for name in ("weights", "gradients") for a, b in zip(one[name], other[name], strict=True)
    )
    return tensors and one["flags"] == other["flags"] and one["drawn"] == other["drawn"]


def seeded() -> nn.Module:
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    return network()


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Watch, dict[str, Any], dict[int, nn.Module]]:
    """A training under a Watch, what it ended with, and the network after each epoch."""
    model, copies = seeded(), {}
    watch = Watch(model, tmp_path_factory.mktemp("watch") / "net.explain", data=measured(), **trackers())

    def end(epoch: int, _: Any) -> None:
        watch.epoch_end()
        copies[epoch] = copy.deepcopy(model)

    ended = train(model, end=end)
    return watch, ended, copies


def test_the_training_is_the_same_bit_for_bit(watched: Any) -> None:
    assert equal(watched[1], train(seeded()))


def test_a_training_that_draws_something_more_is_another() -> None:
    # What the comparison above would find.
    assert not equal(train(seeded(), end=lambda *_: torch.rand(1)), train(seeded()))
    assert not equal(train(seeded(), end=lambda *_: random.random()), train(seeded()))


def test_what_is_recorded_is_torchs_own_cross_entropy(watched: Any) -> None:
    watch, _, copies = watched
    for epoch, model in copies.items():
        assert_followed(watch, epoch, cross_entropies(copy.deepcopy(model)))


def test_the_maps_are_those_of_a_new_export(watched: Any, tmp_path: Path) -> None:
    watch, _, copies = watched
    fresh = export(copies[EPOCHS], tmp_path / "fresh.explain", example=X[:1], methods=["gradient", "smoothgrad"])
    assert_same_maps(watch, Explainer(fresh, "cpu"))


def test_a_training_loader_that_is_measured_too_goes_on_as_before(tmp_path: Path) -> None:
    def ended(watching: bool) -> dict[str, Any]:
        model, watches = seeded(), []

        def end(_: int, loader: Any) -> None:
            if watching and not watches:
                watches.append(Watch(model, tmp_path / "n", data=loader, labels=LabelTracker("cross_entropy"), every=2))
            if watching:
                watches[0].epoch_end()

        return train(model, end=end, generator=torch.Generator().manual_seed(3))

    assert equal(ended(True), ended(False))


def resumed(folder: Path) -> Watch:
    """A training with checkpoints in `folder`, which goes on where it was interrupted."""
    model = seeded()
    watch = Watch(model, folder / "net.explain", data=(X, Y), state=folder / "state", **trackers())
    with quick_exports():
        train(model, end=lambda epoch, _: watch.epoch_end(epoch), checkpoint=folder / "checkpoint.pt")
    return watch


def test_a_killed_training_goes_on_with_nothing_lost_or_doubled(watched: Any, tmp_path: Path) -> None:
    run_killed(__file__, tmp_path)
    assert (tmp_path / "checkpoint.pt").exists()
    watch = resumed(tmp_path)
    assert histories(watch) == histories(watched[0])
    watch.train_end()
    for name in ("labels.png", "instances.png"):
        assert (tmp_path / "state" / name).stat().st_size > 1000


@UNFED
def test_what_was_fed_before_a_kill_is_not_counted_twice(tmp_path: Path) -> None:
    def watch() -> Watch:
        labels, instances = LabelTracker("loss", None), InstanceTracker("loss")
        return Watch(network(), tmp_path / "n", labels=labels, instances=instances, state=tmp_path / "state")

    first = watch()
    first.batch(labels=[0, 1], values=[1.0, 2.0], indices=[5, 6], mode="train")
    first.epoch_end(mode="train")
    first.batch(labels=[0, 1], values=[9.0, 9.0], indices=[5, 6], mode="train")  # of an epoch that is broken off
    first.epoch_end()  # stores all that there is, and has nothing of its own
    again = watch()
    again.batch(labels=torch.tensor([0, 1]), values=torch.tensor([3.0, 4.0]), indices=[5, 6], mode="train")
    again.epoch_end(mode="train")
    assert again.labels is not None
    assert again.labels.history == {"train": {0: {None: {1: 1.0, 2: 3.0}}, 1: {None: {1: 2.0, 2: 4.0}}}}
    assert again.instances is not None
    assert dict(again.instances.history["train"][6]) == {1: 2.0, 2: 4.0}
    assert not (tmp_path / "n").exists()


@pytest.mark.usefixtures("quickly")
def test_a_network_that_diverges_is_told_once_and_trains_on(tmp_path: Path) -> None:
    model = network()
    watch = Watch(model, tmp_path / "net.explain", data=(X, Y), labels=LabelTracker("cross_entropy"))
    weight = model[0].weight.detach().clone()
    watch.epoch_end()
    with torch.no_grad():
        model[0].weight[0, 0, 0, 0] = torch.nan
    with pytest.warns(UserWarning, match=r"^epoch 2: no bundle, but training goes on: .* NaN .*\?$") as told:
        watch.epoch_end()
    assert len(told) == 1
    watch.epoch_end()
    with torch.no_grad():
        model[0].weight.copy_(weight)
    watch.epoch_end()
    assert watch.labels is not None
    assert watch.labels.steps() == [1, 4]
    with torch.no_grad():
        model[0].weight[0, 0, 0, 0] = torch.inf
    with pytest.warns(UserWarning, match="epoch 5: no bundle"):  # it went well meanwhile
        watch.epoch_end()


@pytest.mark.usefixtures("quickly")
def test_whatever_fails_in_watching_is_a_warning(tmp_path: Path) -> None:
    def fail(*_: Any) -> None:
        raise OSError("the disk is full")

    model = network()
    labels = LabelTracker("cross_entropy")
    batches = [(np.tile(X, (5, 1, 1, 1)), np.tile(Y, 5)), (X[:4], Y[:4] + 50)]
    watch = Watch(model, tmp_path / "n", data=batches, labels=labels, sinks=Sink(fail), state=tmp_path / "s")
    with pytest.warns(UserWarning, match=r"epoch 1: nothing measured, but training goes on: .*out of range"):
        watch.epoch_end()
    watch.epoch_end()
    assert labels.history == {}  # not what was measured before it failed
    batches[1] = (X[:4], Y[:4])
    with pytest.warns(UserWarning, match="epoch 3: nothing published, but training goes on: OSError: the disk is full"):
        watch.epoch_end()
    assert labels.steps() == [3]
    assert watch.epochs == {"eval": 3}


@UNFED
def test_a_disk_that_fails_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OutputError("can't write labels.npz: no space left")

    watch = Watch(network(), tmp_path / "n", labels=LabelTracker("loss"), state=tmp_path / "state")
    monkeypatch.setattr(LabelTracker, "save", full)
    with pytest.warns(UserWarning, match="epoch 1: nothing stored, but training goes on: can't write labels.npz"):
        watch.epoch_end()


def test_an_epoch_of_which_nothing_is_needed_costs_no_bundle(tmp_path: Path) -> None:
    saliency = SaliencyTracker((X[:2], Y[:2]), methods="gradient", every=9)
    instances = InstanceTracker("cross_entropy", epoch_frequency=5)
    watch = Watch(network(), tmp_path / "n", data=(X, Y), saliency=saliency, instances=instances, every=2)
    watch.epoch_end(3)
    watch.epoch_end(4)
    assert not watch.bundle.exists()
    with pytest.raises(ParameterError, match="epoch must be a whole number of at least 1, not 0"):
        watch.epoch_end(0)


def test_arrays_loaders_and_mappings_are_measured_alike(watched: Any) -> None:
    given = [
        (torch.tensor(X), torch.tensor(Y)),
        DataLoader(TensorDataset(torch.tensor(X), torch.tensor(Y)), 25),
        [{"pixel_values": X[:40], "labels": Y[:40]}, {"pixel_values": X[40:], "labels": Y[40:]}],
    ]
    explainer = Explainer(watched[0].bundle, "cpu")
    for data in given:
        followed = WatchedData(data, numbered=True).follow(explainer, step=1)
        np.testing.assert_array_equal(followed.values, watched[0].followed.values)
        np.testing.assert_array_equal(followed.indices, np.arange(len(X)))


@pytest.mark.usefixtures("quickly")
@UNFED
def test_pictures_come_from_the_batches_of_the_training_too(tmp_path: Path) -> None:
    drawn: list[tuple[str, int]] = []
    saliency = SaliencyTracker(3, methods="gradient", every=4)
    labels = LabelTracker("loss", None)
    state = tmp_path / "state"
    with Watch(
        network(),
        tmp_path / "n",
        saliency=saliency,
        labels=labels,
        sinks=Sink(lambda *told: drawn.append(told)),
        state=state,
    ) as watch:
        watch.batch(torch.tensor(X[:2]), torch.tensor([0, 0]), torch.ones(2, requires_grad=True))
        watch.batch(torch.tensor(X[2:4]), torch.tensor([0, 0]), torch.ones(2))
        watch.epoch_end()
        watch.epoch_end()
    assert saliency.shown == {"eval": [1, 2]}  # the last epoch's too
    assert len(watch.maps["eval"]) == 3
    assert drawn == [("saliency/eval", 1), ("loss/labels", 1), ("loss/labels/eval/0", 1), ("saliency/eval", 2)]
    assert (state / "saliency_eval.webp").stat().st_size > 1000
    assert SaliencyTracker.restore(state / "saliency.npz").shown == saliency.shown


class Tabled(nn.Module):
    """A network that makes a table in its first run and keeps it."""

    def __init__(self) -> None:
        super().__init__()
        self.network, self.scale, self.table = network(), nn.Parameter(torch.ones(1)), None

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.table = torch.ones(1, 8) if self.table is None else self.table
        return self.network(images * (self.scale * self.table))


@pytest.mark.usefixtures("quickly")
def test_inference_mode_and_autocast_leave_no_trace(tmp_path: Path) -> None:
    model = Tabled()
    watch = Watch(model, tmp_path / "n", data=(X, Y), instances=InstanceTracker("cross_entropy"))
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        watch.epoch_end()
        watch.epoch_end()
    assert watch.followed is not None
    expected = cross_entropies(copy.deepcopy(model.network))
    np.testing.assert_allclose(watch.followed.values, expected, rtol=0, atol=1e-5)
    model(torch.tensor(X)).sum().backward()


def test_in_a_distributed_training_the_first_process_watches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    labels = LabelTracker("cross_entropy")
    with Watch(network(), tmp_path / "n", data=(X, Y), labels=labels) as watch:
        watch.batch(X[:2], Y[:2], [1.0, 2.0], mode="train")
        watch.epoch_end()
        watch.epoch_end(mode="train")
    assert (labels.history, watch.epochs, watch.bundle.exists()) == ({}, {}, False)


if __name__ == "__main__":
    resumed(Path(sys.argv[1]))


def test_the_bundle_has_the_names_of_the_classes(tmp_path: Path) -> None:
    names = [f"digit {digit}" for digit in range(10)]
    watch = Watch(
        network(), tmp_path / "n", data=(X, Y), labels=LabelTracker("error"), metric="error", class_names=names
    )
    watch.epoch_end()
    assert Explainer(tmp_path / "n").bundle.scores.labels == tuple(names)


def test_a_run_that_begins_again_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    def watch() -> Watch:
        trackers = {"labels": LabelTracker("error"), "instances": InstanceTracker("error")}
        shown = SaliencyTracker(2, methods=["gradient"], every=1)
        return Watch(
            network(), tmp_path / "n", data=(X, Y), metric="error", saliency=shown, state=tmp_path / "state", **trackers
        )

    first = watch()
    for epoch in (1, 2, 3):
        first.epoch_end(epoch)
    second = watch()
    with pytest.warns(UserWarning, match="epoch 1 comes again: what was recorded after it, up to epoch 3, is dropped"):
        second.epoch_end(1)
    second.epoch_end(2)
    assert second.labels is not None
    assert second.instances is not None
    assert second.saliency is not None
    assert second.labels.steps() == second.instances.steps() == second.saliency.shown["eval"] == [1, 2]


def test_other_data_under_the_same_state_are_told(tmp_path: Path) -> None:
    def watch(count: int) -> Watch:
        labels = LabelTracker("error")
        return Watch(
            network(), tmp_path / "n", data=(X[:count], Y[:count]), metric="error", labels=labels, state=tmp_path / "s"
        )

    watch(40).epoch_end()
    with pytest.warns(UserWarning, match="epoch 2: data= are other samples than those of the epochs before"):
        watch(30).epoch_end()


def test_a_watch_that_is_given_nothing_says_so(tmp_path: Path) -> None:
    watch = Watch(network(), tmp_path / "n", labels=LabelTracker("loss"))
    with pytest.warns(
        UserWarning, match=r"epoch 1: batch\(\) was given no values of mode 'eval', so none are recorded"
    ):
        watch.epoch_end()
    watch.batch(labels=Y[:3], values=[1.0, 2.0, 3.0])
    watch.epoch_end()
    assert watch.labels is not None
    assert watch.labels.steps() == [2]
