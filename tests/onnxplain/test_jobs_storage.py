"""What a job has written is there whole or not at all, whichever call of the operating system fails."""

import errno
import os
import random
import sys
import threading
import time

import pytest

from jobs_faults import FAULTS, Faulty, Plan, Tally, lack_memory, put_faults
from jobs_flips import measure as damage_shards
from jobs_support import make_pictures, nothing_left, tree, without_processes
from onnxplain import OutputError
from onnxplain.jobs import shards, storage

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")


@pytest.fixture
def plan(folder, tmp_path):
    source = make_pictures(tmp_path / "pictures", 7, 2)
    return Plan(folder, source, ("gradient", "smoothgrad"), {"shard_size": 5, "overlays": True})


@pytest.fixture
def failing(monkeypatch):
    """Lets the k-th call of a name fail."""

    def make(name, k, fault):
        monkeypatch.setattr(storage, "system", Faulty(name, k, fault))

    return make


def test_after_any_failed_call_the_next_run_leaves_the_same_tree(plan, tmp_path):
    tally = Tally()
    with without_processes():
        put_faults(plan, tmp_path, tally, every=31, twice=5)
    assert tally.wrong == []
    assert {name.split(":")[0] for name in tally.faults} == set(FAULTS)
    assert tally.ended > tally.completed > 0


def test_maps_stay_the_same_when_memory_runs_out_in_a_job(folder, tmp_path):
    tally = Tally()
    source = make_pictures(tmp_path / "pictures", 12, 1)
    with without_processes():
        lack_memory(Plan(folder, source, ("gradient", "smoothgrad"), {"shard_size": 16}), tmp_path, tally, every=2)
    assert tally.wrong == []
    assert tally.memory_runs >= 6


def test_damage_of_any_file_is_found_and_repaired(tmp_path):
    tally = damage_shards(tmp_path, flips=60, repairs_every=12)
    assert tally.wrong == []
    assert tally.damages["flipped"] == 60
    assert tally.repaired >= 10


def test_a_file_is_there_whole_or_not_at_all(tmp_path, failing):
    storage.write_file(tmp_path / "a", b"first")
    for name in ("open", "write", "fsync", "close", "rename"):
        failing(name, 1, "i/o error")
        with pytest.raises(OutputError, match=r"can't write .*: Input/output error$"):
            storage.write_file(tmp_path / "a", b"second")
        assert (tmp_path / "a").read_bytes() == b"first"
    storage.system = os
    storage.remove_leftovers(tmp_path)
    assert tree(tmp_path).keys() == {"a"}


def test_a_full_disk_comes_with_advice(tmp_path, failing):
    failing("write", 1, "full")
    with pytest.raises(OutputError, match="No space left on device; make room and run the same command again"):
        storage.write_new(tmp_path / "a", b"content")


def test_what_a_call_leaves_over_is_written_by_further_ones(tmp_path, failing):
    failing("write", 1, "short")
    storage.write_new(tmp_path / "a", b"0123456789")
    assert (tmp_path / "a").read_bytes() == b"0123456789"


def test_calls_that_write_nothing_are_an_error_and_no_endless_loop(tmp_path, failing):
    failing("write", 1, "nothing")
    with pytest.raises(OutputError, match="nothing more is written"):
        storage.write_new(tmp_path / "a", b"content")


def test_a_folder_that_cannot_be_synced_is_taken_as_it_is(tmp_path, monkeypatch):
    class NetworkDrive(Faulty):
        def fsync(self, _):
            raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(storage, "system", NetworkDrive())
    storage.sync_folder(tmp_path)


def test_a_closed_file_takes_nothing_more(tmp_path):
    file = storage.Growing(tmp_path / "a")
    file.close()
    file.close()
    with pytest.raises(OutputError):
        file.write(b"late", 0)


def test_removal_takes_whole_folders_but_only_the_link_to_one(tmp_path):
    (tmp_path / "kept" / "inner").mkdir(parents=True)
    (tmp_path / "kept" / "inner" / "file").touch()
    (tmp_path / ".part-link").symlink_to(tmp_path / "kept")
    (tmp_path / ".part-folder" / "inner").mkdir(parents=True)
    (tmp_path / ".part-folder" / "inner" / "file").touch()
    storage.remove_leftovers(tmp_path)
    assert tree(tmp_path).keys() == {"kept", "kept/inner", "kept/inner/file"}
    storage.remove(tmp_path / "not there")


def test_only_one_writes_into_a_folder(tmp_path):
    with storage.alone(tmp_path):
        assert not storage.is_alone(tmp_path)
        with nothing_left(), pytest.raises(OutputError, match="another run is writing into"), storage.alone(tmp_path):
            pass
    assert storage.is_alone(tmp_path)
    with storage.alone(tmp_path):
        pass


def test_looking_whether_a_run_is_on_does_not_refuse_one(tmp_path):
    with storage.alone(tmp_path):
        pass
    stop = threading.Event()

    def look():
        while not stop.is_set():
            storage.is_alone(tmp_path)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        until = time.monotonic() + 0.5
        while time.monotonic() < until:
            with storage.alone(tmp_path):
                pass
    finally:
        stop.set()
        thread.join()


def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")

    def flock(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(OutputError, match=r"\.lock: No locks available"), storage.alone(tmp_path):
        pass


def test_a_path_through_a_file_is_a_clear_error(plan, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file"):
        plan.job(tmp_path / "file" / "out").run()


def test_random_bytes_are_never_taken_for_a_shard(plan, tmp_path):
    with without_processes():
        plan.job(tmp_path / "out").run()
    folder = shards.shard_folder(tmp_path / "out", 0)
    manifest, draw = folder / shards.MANIFEST, random.Random(0)
    whole = manifest.read_bytes()
    contents = [b"", b"null", b"[]", b"{}", b'{"sha256": 1}', b"\xff", whole[:-1], whole + b" ", whole * 2]
    for content in [*contents, *(draw.randbytes(draw.randrange(300)) for _ in range(50))]:
        manifest.write_bytes(content)
        assert shards.damage(folder, 0) is not None
    manifest.write_bytes(whole)
    assert shards.damage(folder, 0) is None
    assert shards.damage(folder, 1) is not None
