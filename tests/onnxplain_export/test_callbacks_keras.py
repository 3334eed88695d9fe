"""KerasWatch: `fit` of Keras, here on the torch backend, trains as without it, and each epoch is seen once."""
# ruff: noqa: ARG002 (Keras' signatures)

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from onnxplain import Explainer
from onnxplain.errors import ParameterError
from onnxplain.tracking import LabelTracker
from onnxplain_export import export
from watched_training import (  # noqa: F401 (fixtures)
    BATCH,
    EPOCHS,
    IMAGES,
    LABELS,
    TRAINED,
    X,
    Y,
    assert_followed,
    assert_same_maps,
    histories,
    kill_if_due,
    one_thread,
    quick_exports,
    quickly,
    run_killed,
    trackers,
)

# Keras' variables on torch, when numpy copies them.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")

DATA = (np.moveaxis(X, 1, -1), Y)


@pytest.fixture(scope="module")
def keras(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Keras on torch, with its settings in a folder of the test's own."""
    given = {"KERAS_BACKEND": "torch", "KERAS_HOME": str(tmp_path_factory.mktemp("keras"))}
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    try:
        import keras  # reads both when it is imported

        yield keras
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def compiled(keras: Any) -> Any:
    keras.utils.set_random_seed(7)
    layers = keras.layers
    model = keras.Sequential(
        [
            layers.Input((8, 8, 1)),
            layers.Conv2D(6, 3),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Dropout(0.3),
            layers.Flatten(),
            layers.Dense(10),
        ]
    )
    model.compile(keras.optimizers.Adam(1e-2), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def callback(keras: Any, *, seeded: bool = False) -> Any:
    """Keeps the weights after each epoch; starts epochs with a seed of their own, so that a training can go on."""

    class Each(keras.callbacks.Callback):  # type: ignore[misc, name-defined]
        weights: dict[int, Any]

        def on_train_begin(self, logs: Any = None) -> None:
            self.weights, self.epoch = {}, 0

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.epoch = epoch
            if seeded:
                keras.utils.set_random_seed(epoch)

        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            kill_if_due(self.epoch + 1, batch)

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.weights[epoch + 1] = [np.array(weight) for weight in self.model.get_weights()]

    return Each()


def fit(model: Any, *callbacks: Any) -> Any:
    images = np.moveaxis(IMAGES[TRAINED], 1, -1)
    model.fit(images, LABELS[TRAINED], BATCH, EPOCHS, verbose=0, callbacks=list(callbacks))
    return model


def ended(model: Any) -> list[Any]:
    return [np.array(value) for value in (*model.variables, *model.optimizer.variables)] + [torch.rand(3).numpy()]


def watch(keras: Any, folder: Path, **options: Any) -> Any:
    from onnxplain_export.callbacks import KerasWatch  # imports Keras, whose backend is chosen by then

    assert issubclass(KerasWatch, keras.callbacks.Callback)
    return KerasWatch(folder / "net.explain", **options)


@pytest.fixture(scope="module")
def watched(keras: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, list[Any], Any]:
    loader = DataLoader(TensorDataset(*map(torch.tensor, DATA)), 20)
    watching, each = watch(keras, tmp_path_factory.mktemp("watch"), data=loader, **trackers()), callback(keras)
    return watching, ended(fit(compiled(keras), watching, each)), each


def test_the_training_is_the_same_bit_for_bit(keras: Any, watched: Any) -> None:
    for with_it, without in zip(watched[1], ended(fit(compiled(keras))), strict=True):
        np.testing.assert_array_equal(with_it, without)


def with_weights(keras: Any, weights: Any) -> Any:
    model = compiled(keras)
    model.set_weights(weights)
    return model


def test_what_is_recorded_is_the_cross_entropy_of_keras_own_logits(keras: Any, watched: Any) -> None:
    assert list(watched[2].weights) == [1, 2, 3]
    for epoch, weights in watched[2].weights.items():
        with torch.no_grad():
            logits = with_weights(keras, weights)(torch.tensor(DATA[0]), training=False).double()
        expected = torch.nn.functional.cross_entropy(logits, torch.tensor(Y), reduction="none")
        assert_followed(watched[0].watch, epoch, expected.numpy())


def test_the_maps_are_those_of_a_new_export(keras: Any, watched: Any, tmp_path: Path) -> None:
    model = with_weights(keras, watched[2].weights[EPOCHS])
    fresh = export(model, tmp_path / "fresh.explain", methods=["gradient", "smoothgrad"])
    assert_same_maps(watched[0].watch, Explainer(fresh, "cpu"), DATA[0][:2])


def resumed(keras: Any, folder: Path) -> Any:
    """A training with Keras' own backup, which goes on from it."""
    watching = watch(keras, folder, data=DATA, state=folder / "state", **trackers())
    backup = keras.callbacks.BackupAndRestore(folder / "backup", delete_checkpoint=False)
    with quick_exports():
        fit(compiled(keras), watching, backup, callback(keras, seeded=True))
    return watching.watch


def test_a_killed_training_goes_on_with_nothing_lost_or_doubled(keras: Any, tmp_path: Path) -> None:
    run_killed(__file__, tmp_path / "killed", KERAS_BACKEND="torch", KERAS_HOME=os.environ["KERAS_HOME"])
    assert (tmp_path / "killed/backup").exists()
    assert histories(resumed(keras, tmp_path / "killed")) == histories(resumed(keras, tmp_path / "whole"))


@pytest.mark.usefixtures("quickly")
def test_a_network_that_diverges_is_told_once_and_trains_on(keras: Any, tmp_path: Path) -> None:
    class Diverge(keras.callbacks.Callback):  # type: ignore[misc, name-defined]
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            if epoch:
                self.model.layers[0].kernel.assign(self.model.layers[0].kernel * np.nan)

    watching = watch(keras, tmp_path, data=DATA, labels=LabelTracker("cross_entropy"))
    with pytest.warns(UserWarning, match="epoch 2: no bundle, but training goes on: .* NaN") as told:
        fit(compiled(keras), Diverge(), watching)
    assert len([one for one in told if "training goes on" in str(one.message)]) == 1
    assert (watching.watch.epochs, watching.watch.labels.steps()) == ({"eval": EPOCHS}, [1])


def test_wrong_arguments_are_errors_at_once(keras: Any, tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="there is nothing to watch with"):
        watch(keras, tmp_path, data=DATA)
    with pytest.raises(ParameterError, match="unknown option 'smaples'"):
        watch(keras, tmp_path, labels=LabelTracker("loss"), smaples=1)


if __name__ == "__main__":
    import keras

    resumed(keras, Path(sys.argv[1]))
