"""What the tests of callbacks train and compare: digits, a small network, and trainings that are killed."""

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from torch import nn

import onnxplain_export.exporting
from onnxplain.tracking import InstanceTracker, LabelTracker, SaliencyTracker

DIGITS = load_digits()
IMAGES = (DIGITS.images / 16).astype(np.float32)[:, None]
LABELS = DIGITS.target.astype(np.int64)
TRAINED, MEASURED = slice(0, 160), slice(160, 220)
X, Y = IMAGES[MEASURED], LABELS[MEASURED]
BATCH = 32
EPOCHS = 3
KILLED_AT = (3, 2)
"""The epoch in which a training is killed, and the batches of it that are done."""


def network() -> nn.Sequential:
    """A network whose training depends on random numbers and on what BatchNorm has seen."""
    torch.manual_seed(7)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Flatten(),
        nn.Linear(6 * 6 * 6, 10),
    )


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Small networks are faster on one thread, and two processes compute the same to the last bit."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@contextmanager
def quick_exports() -> Iterator[None]:
    """Exports without their proofs and measurements, which say nothing about what is recorded."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnxplain_export.exporting, "verify", lambda *_: {})
        patch.setattr("onnxplain_export.description.measured_memory", lambda _, runs: dict.fromkeys(runs, (1, 1)))
        yield


@pytest.fixture
def quickly() -> Iterator[None]:
    """Quick exports during a test."""
    with quick_exports():
        yield


def training_set() -> torch.utils.data.TensorDataset:
    return torch.utils.data.TensorDataset(torch.tensor(IMAGES[TRAINED]), torch.tensor(LABELS[TRAINED]))


class Drawing(torch.utils.data.Dataset[Any]):
    """What is measured, from a data set that draws from every generator, as random crops do."""

    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, index: int) -> Any:
        random.random()
        np.random.rand()  # noqa: NPY002 (as data sets do)
        torch.rand(1)
        return X[index], Y[index]


def measured() -> torch.utils.data.DataLoader[Any]:
    """What is measured, in batches; going through them draws random numbers."""
    return torch.utils.data.DataLoader(Drawing(), 20)


class Shuffled(torch.utils.data.Sampler[int]):
    """Another order in each epoch, which a training that goes on finds again."""

    def __init__(self) -> None:
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return TRAINED.stop

    def __iter__(self) -> Any:
        return iter(torch.randperm(len(self), generator=torch.Generator().manual_seed(self.epoch)).tolist())


def trackers(**saliency: Any) -> dict[str, Any]:
    """One of each kind; few draws, since it isn't they that are tested."""
    return {
        "saliency": SaliencyTracker(
            2,
            methods=("gradient", "smoothgrad"),
            every=3,
            parameters={"smoothgrad": {"samples": 2}},
            keep_film=False,
            **saliency,
        ),
        "labels": LabelTracker("cross_entropy"),
        "instances": InstanceTracker("cross_entropy", 3, 3),
    }


def cross_entropies(trained: nn.Module) -> NDArray[np.float64]:
    """Of each measured sample, by torch itself in float64."""
    with torch.no_grad():
        logits = trained.double().eval()(torch.tensor(X, dtype=torch.float64))
    return nn.functional.cross_entropy(logits, torch.tensor(Y), reduction="none").numpy()


def assert_followed(watch: Any, epoch: int, expected: NDArray[np.float64]) -> None:
    """What both trackers hold of an epoch is what was expected of each sample."""
    recorded = watch.instances.history["eval"]
    found = [recorded[index][epoch] for index in range(len(X))]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    for label in range(10):
        band = watch.labels.history["eval"][label]["std"][epoch]
        values = expected[label == Y]
        np.testing.assert_allclose([band.mean, band.high - band.mean], [values.mean(), values.std(ddof=1)], atol=1e-5)


def assert_same_maps(watch: Any, explainer: Any, images: Any = X[:2]) -> None:
    """The maps that were shown are those of another bundle."""
    shown = watch.maps["eval"]
    assert (shown.epoch, len(shown), list(shown.results)) == (EPOCHS, 2, ["gradient", "smoothgrad"])
    for method, result in shown.results.items():
        parameters = {"samples": 2} if method == "smoothgrad" else {}
        fresh = explainer.explain(images, method, **parameters)
        np.testing.assert_allclose(result.attribution, fresh.attribution, rtol=0, atol=1e-6)


def histories(watch: Any) -> tuple[Any, ...]:
    """All that the trackers of a Watch have recorded."""
    instances = {mode: {key: recorded[key] for key in recorded} for mode, recorded in watch.instances.history.items()}
    return watch.labels.history, instances, watch.saliency.shown, watch.epochs


def kill_if_due(epoch: int, batches: int) -> None:
    """Ends this process where a killed training is to end, as a full machine would."""
    if (epoch, batches) == KILLED_AT and "--killed" in sys.argv:
        os.kill(os.getpid(), signal.SIGKILL)


def run_killed(script: str, folder: Path, **variables: str) -> None:
    """Runs a test's file as a script, which trains in `folder` until it kills itself."""
    paths = [str(Path(script).parents[1] / "support"), *(path for path in sys.path if path)]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "OMP_NUM_THREADS": str(torch.get_num_threads()),
        **variables,
    }
    done = subprocess.run(
        [sys.executable, script, str(folder), "--killed"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr[-3000:]
