"""An interrupted training goes on with nothing lost and nothing doubled, and a damaged state is refused."""

import io
import json
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

import onnxplain
from onnxplain.errors import OnnxplainError, OutputError, ParameterError
from onnxplain.tracking import InstanceTracker, LabelTracker, state

EPOCHS, BATCHES, BATCH = 5, 40, 8


def new_trackers():
    return {
        "labels": LabelTracker("loss", ["std", "range", None], {"cat": 0, "dog": 1, "cart": 3}),
        "instances": InstanceTracker("loss", 3, 2, [17], epoch_frequency=2),
    }


def training(folder, way):
    """Train on from what `folder` holds, saving after each batch: "again" from the epoch's start, or "on"."""
    for name, tracker in new_trackers().items():
        path = folder / name
        tracker = type(tracker).restore(path) if path.exists() else tracker
        # The epoch is counted here, because the tracker of instances records only every second one.
        done = int((folder / f"{name}.done").read_text()) if (folder / f"{name}.done").exists() else 0
        for epoch in range(done + 1, EPOCHS + 1):
            if way == "again":
                tracker.epoch_begin("train")
            for batch in range(tracker.received("train") // BATCH, BATCHES):
                rng = np.random.default_rng([epoch, batch])
                keys = rng.integers(0, 4, BATCH) if name == "labels" else rng.integers(0, 500, BATCH)
                tracker.update(keys, rng.normal(size=BATCH), mode="train")
                tracker.save(path)
                yield name, epoch, batch
            tracker.epoch_end(epoch, "train")
            tracker.save(path)
            (folder / f"{name}.next").write_text(str(epoch))
            os.replace(folder / f"{name}.next", folder / f"{name}.done")


def states(folder):
    """The whole states, bytes and all."""
    return {name: (folder / name).read_bytes() for name in new_trackers()}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    assert len(list(training(folder, "again"))) == 2 * EPOCHS * BATCHES
    return states(folder)


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
@pytest.mark.parametrize("way", ["again", "on"])
def test_a_training_that_is_killed_ends_in_the_state_of_one_that_was_not(way, tmp_path, uninterrupted):
    found = os.environ | {"PYTHONPATH": str(Path(onnxplain.__file__).parent.parent)}
    command = [sys.executable, __file__, str(tmp_path), way]
    # Batches after which it is killed: anywhere, in each tracker's part, and in the middle of a write as like as not.
    for batches in (7, 2 * BATCHES - 5, 5 * BATCHES + 3, 33):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=found) as process:
            for _ in range(batches):
                assert process.stdout.readline().strip()
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
    assert states(tmp_path) != uninterrupted
    subprocess.run(command, check=True, env=found, stdout=subprocess.DEVNULL)
    assert states(tmp_path) == uninterrupted


def test_the_state_of_the_killed_training_is_that_of_a_plain_sum(tmp_path, uninterrupted):
    (tmp_path / "labels").write_bytes(uninterrupted["labels"])
    history = LabelTracker.restore(tmp_path / "labels").history["train"]
    for epoch in range(1, EPOCHS + 1):
        batches = [np.random.default_rng([epoch, batch]) for batch in range(BATCHES)]
        rows = [(rng.integers(0, 4, BATCH), rng.normal(size=BATCH)) for rng in batches]
        labels, values = (np.concatenate(part) for part in zip(*rows, strict=True))
        assert history["cart"][None][epoch] == pytest.approx(values[labels == 3].mean(), rel=1e-12)


def half_way():
    """Trackers in the middle of their third epoch, with awkward names and numbers."""
    labels = LabelTracker("loss $x$", ["range", None], {"a cat": 0, "né": 2.5, "text": "t"})
    unmapped = LabelTracker("loss")
    instances = InstanceTracker("loss", 1, 2, ["ö.png"])
    awkward = [0.1, -0.0, float("nan"), float("inf"), 5e-324, -1e308]
    for epoch in (1, 2, 3):
        for mode in ("train", "eval"):
            labels.update([0, 2.5, 0, 2.5, 7, 0], awkward, mode=mode)
            labels.update(["t"], [epoch], mode=mode)
            unmapped.update(["t", "né", "t", "7", "é" * epoch, "t"], awkward, mode=mode)
            unmapped.update([3, 1.5, True], [1, 2, 3], mode=mode)
            # Not the same samples in each epoch.
            instances.update(["a", "ö.png", "b", "a", f"{epoch}", "c"][epoch - 1 :], awkward[epoch - 1 :], mode=mode)
            if epoch < 3:
                for tracker in (labels, unmapped, instances):
                    tracker.epoch_end(epoch, mode)
    return [labels, unmapped, instances]


def written(tracker):
    """All that a tracker holds, as text in which a NaN equals itself."""
    history = {mode: dict(each) for mode, each in tracker.history.items()}
    settings = {name: value for name, value in vars(tracker).items() if not name.startswith("_") and name != "history"}
    return repr((history, settings, tracker.received("train"), tracker.steps("train")))


@pytest.mark.parametrize("tracker", half_way(), ids=lambda tracker: type(tracker).__name__)
def test_a_restored_tracker_is_the_saved_one_and_goes_on_like_it(tracker, tmp_path):
    tracker.save(tmp_path / "state")
    other = type(tracker).restore(tmp_path / "state")
    assert written(other) == written(tracker)
    assert other.to_bytes() == tracker.to_bytes()
    for each in (tracker, other):
        each.update(["t", "né", "t"], [4.0, 5.0, 6.0], mode="train")
        each.epoch_end(4, "train")
    assert written(other) == written(tracker)
    assert list(tmp_path.iterdir()) == [tmp_path / "state"]


@pytest.mark.parametrize("kind", [LabelTracker, InstanceTracker])
def test_a_new_tracker_can_be_saved(kind):
    assert kind.from_bytes(kind("loss").to_bytes()).history == {}


def refused(kind, data, words):
    with pytest.raises(ParameterError, match=words) as raised:
        kind.from_bytes(data, "my.npz")
    assert str(raised.value).startswith("my.npz: ")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("tracker", half_way(), ids=lambda tracker: type(tracker).__name__)
def test_a_damaged_state_is_refused_or_no_different(tracker):
    whole, holds = tracker.to_bytes(), written(tracker)
    refusals = 0
    for at in range(0, len(whole), 7):
        data = bytearray(whole)
        data[at] ^= 1 << at % 8
        try:
            assert written(type(tracker).from_bytes(bytes(data))) == holds
        except OnnxplainError:
            refusals += 1
    assert refusals > len(whole) / 7 / 2
    for length in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        refused(type(tracker), whole[:length], "damaged")
    refused(type(tracker), b"not a state", "no tracker's state, or damaged")


def remade(data, **head):
    """A state with another head."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        parts = {name: np.load(io.BytesIO(archive.read(name))) for name in archive.namelist()}
    found = json.loads(parts.pop("state.npy").tobytes()) | head
    parts = {name.removesuffix(".npy"): array for name, array in parts.items()}
    changed = io.BytesIO()
    np.savez(changed, state=np.frombuffer(json.dumps(found).encode(), np.uint8), **parts)
    return changed.getvalue()


@pytest.mark.parametrize("tracker", half_way(), ids=lambda tracker: type(tracker).__name__)
def test_newer_states_and_those_of_other_trackers_are_refused_by_name(tracker):
    data, kind = tracker.to_bytes(), type(tracker)
    assert written(kind.from_bytes(remade(data))) == written(tracker)
    refused(
        kind, remade(data, format=state.FORMAT + 1), "newer onnxplain .format 2, this one reads up to 1.: update it"
    )
    refused(
        kind, remade(data, kind="Other"), f"the state of an Other, not of an? {kind.__name__}: Other.restore reads it"
    )
    refused(kind, remade(data, settings={}), "damaged")
    refused(kind, remade(data, settings=[]), "damaged")


def test_files_that_can_not_be_read_or_written_are_named(tmp_path):
    with pytest.raises(ParameterError, match=r"nothing\.npz: can't be read"):
        LabelTracker.restore(tmp_path / "nothing.npz")
    with pytest.raises(OutputError, match="nowhere"):
        InstanceTracker("loss").save(tmp_path / "nowhere" / "state.npz")
    tracker = LabelTracker("loss")
    tracker.save(tmp_path / "labels.npz")
    with pytest.raises(ParameterError, match=r"labels\.npz: the state of a LabelTracker"):
        InstanceTracker.restore(tmp_path / "labels.npz")


if __name__ == "__main__":
    for place in training(Path(sys.argv[1]), sys.argv[2]):
        print(*place, flush=True)
