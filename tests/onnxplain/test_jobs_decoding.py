"""Worker processes: what one picture may cost, and that it costs no other."""

import os
import signal
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest

from jobs_bombs import png, zeros
from jobs_support import children, drawn, gone, new_mark, nothing_left
from onnxplain import BundleError, ParameterError, PictureError
from onnxplain.images import read_image
from onnxplain.jobs import Limits, decoding
from onnxplain.jobs.decoding import Watch, Worker
from onnxplain.jobs.items import Item, Part

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")

PIXELS = drawn(np.random.default_rng(2), 20, 31)
DATA = cv2.imencode(".png", PIXELS[..., ::-1])[1].tobytes()
GOOD = Item("good", DATA)


@contextmanager
def worker_of(folder, **limits):
    worker = Worker(folder, Limits(**limits))
    watch = Watch([worker])
    try:
        yield worker
    finally:
        watch.close()
        worker.close()


@pytest.fixture(scope="module")
def shared(folder):
    """A worker that many tests use, one after another."""
    with worker_of(folder, seconds=20) as worker:
        yield worker


@pytest.fixture
def pipe(tmp_path):
    """A part of a file that never has anything to read."""
    os.mkfifo(tmp_path / "pipe")
    return Item("slow", Part(tmp_path / "pipe", 0, 10))


def decoded(worker, item):
    row = np.zeros((3, 8, 8), np.float32)
    found = worker.decode(item, row)
    return row, found


@pytest.mark.parametrize("kind", ["file", "part", "bytes", "picture", "row"])
def test_a_picture_is_prepared_as_by_the_engine_wherever_it_is(shared, explainer, tmp_path, kind):
    file = tmp_path / "a.png"
    file.write_bytes(DATA)
    (tmp_path / "b.tar").write_bytes(b"before" + DATA + b"after")
    expected = read_image(file, 0, explainer.bundle)
    content = {
        "file": file,
        "part": Part(tmp_path / "b.tar", 6, len(DATA)),
        "bytes": DATA,
        "picture": PIXELS,
        "row": expected.row[0],
    }[kind]
    row, found = decoded(shared, Item("a", content))
    assert np.array_equal(row, expected.row[0])
    assert np.array_equal(found.seen, expected.seen)
    assert (found.sha256 == expected.sha256) == (kind in ("file", "part", "bytes"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "bad: the file is empty"),
        (b"nothing", "bad: is not a picture of a format"),
        (DATA[:90], "bad: the picture is damaged or cut off"),
        (Path("/nowhere/a.png"), "/nowhere/a.png: can't be read: No such file or directory"),
        (Path("/dev/zero"), "/dev/zero: is not a regular file"),
        (Part(Path("/nowhere/a.tar"), 0, 5), "bad: /nowhere/a.tar can't be read"),
        (Part(Path(__file__), 0, 10**7), "ends within it"),
        (Part(Path("/dev/zero"), 0, 10**12), "bad: is larger than 50 MB"),
        (b"x" * 50_000_001, "bad: is larger than 50 MB"),
        (png(30_000, 30_000, b"", 1, 0), "bad: PNG of 30000x30000 pixels; the limit is 40 megapixels"),
        (np.zeros((2, 2)), r"bad has shape \[2, 2\]"),
        (np.full((3, 8, 8), np.nan, np.float32), "bad contains NaN or infinity"),
        (np.zeros((10_000, 10_000, 3), np.uint8), "bad: an array of 300 MB is more than a worker may take"),
        (np.array(["text"]), "bad: an array of <U4 is no image"),
        (np.array(1.0), r"bad has shape \[\]"),
        ("said by the source", "^said by the source$"),
    ],
)
def test_a_bad_picture_is_told_of_and_disturbs_no_other(shared, content, message):
    with pytest.raises(PictureError, match=message):
        decoded(shared, Item("bad", content))
    before = children()
    assert decoded(shared, GOOD)[1].seen is not None
    assert children() == before


def test_a_picture_of_another_size_disturbs_no_other(shared):
    with pytest.raises(PictureError, match=r"good: has shape \[3, 8, 8\], not \[3, 9, 9\]"):
        shared.decode(GOOD, np.zeros((3, 9, 9), np.float32))
    assert decoded(shared, GOOD)[1].seen is not None


def test_what_libraries_print_is_dropped(shared, capfd):
    jpeg = bytearray(cv2.imencode(".jpg", PIXELS)[1].tobytes())
    jpeg[-60:-20] = b"\xff\xd0" * 20
    for content in (bytes(jpeg), png(64, 64, b"broken"), DATA[:100]):
        try:
            decoded(shared, Item("bad", content))
        except PictureError:
            continue
    assert capfd.readouterr().err == ""


def test_a_picture_that_takes_too_long_costs_itself_alone(folder, pipe):
    with nothing_left(), worker_of(folder, seconds=0.5) as worker:
        decoded(worker, GOOD)
        begun = time.monotonic()
        with pytest.raises(PictureError, match=r"slow: not decoded within 0\.5 seconds"):
            decoded(worker, pipe)
        assert time.monotonic() - begun < 3
        decoded(worker, GOOD)


def test_a_picture_that_takes_too_much_memory_costs_itself_alone(folder):
    large = png(4000, 4000, zeros(4000 * 12_001))
    with worker_of(folder, memory=200_000_000) as worker:
        for _ in range(2):
            with pytest.raises(PictureError, match=r"takes more memory to decode than a worker may use|is damaged"):
                decoded(worker, Item("large", large))
            decoded(worker, GOOD)


def test_a_picture_that_kills_its_process_is_tried_once_more(folder, pipe):
    deaths = []

    def kill(worker):
        until = time.monotonic() + 20
        while time.monotonic() < until and len(deaths) < 2:
            process = worker._process
            if worker._deadline is not None and process and process.pid not in deaths and worker._asked:
                time.sleep(0.2)
                process.kill()
                deaths.append(process.pid)
            time.sleep(0.02)

    with nothing_left(), worker_of(folder) as worker:
        decoded(worker, GOOD)
        thread = threading.Thread(target=kill, args=(worker,))
        thread.start()
        with pytest.raises(PictureError, match=r"slow: the decoder died of it \(SIGKILL\)"):
            decoded(worker, pipe)
        thread.join()
        decoded(worker, GOOD)
    assert len(deaths) == 2


def test_a_process_that_dies_while_idle_costs_no_picture(folder):
    with nothing_left(), worker_of(folder) as worker:
        decoded(worker, GOOD)
        os.kill(worker._process.pid, signal.SIGKILL)
        time.sleep(0.1)
        decoded(worker, GOOD)


def test_a_worker_that_cannot_start_says_why(tmp_path):
    with (
        nothing_left(),
        worker_of(tmp_path) as worker,
        pytest.raises(BundleError, match=r"can't start: .*explainer\.json"),
    ):
        decoded(worker, GOOD)


def test_a_worker_that_dies_at_once_is_no_endless_loop(folder, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with nothing_left(), worker_of(folder) as worker, pytest.raises(BundleError, match="can't start: exit code 1"):
        decoded(worker, GOOD)
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with nothing_left(), worker_of(folder) as worker, pytest.raises(BundleError, match="No such file or directory"):
        decoded(worker, GOOD)


def test_a_worker_that_never_answers_is_given_up(folder, monkeypatch, tmp_path):
    silent = tmp_path / "silent"
    silent.write_text("#!/bin/sh\nexec sleep 60\n")
    silent.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(silent))
    monkeypatch.setattr(decoding, "STARTING", 0.3)
    with (
        nothing_left(),
        worker_of(folder) as worker,
        pytest.raises(BundleError, match=r"no answer within 0\.3 seconds"),
    ):
        decoded(worker, GOOD)


def test_a_stopped_worker_lets_go_of_its_picture_and_takes_no_other(folder, pipe):
    with nothing_left(), worker_of(folder) as worker:
        decoded(worker, GOOD)
        threading.Timer(0.3, worker.stop).start()
        begun = time.monotonic()
        with pytest.raises(BundleError, match="the job is ending"):
            decoded(worker, pipe)
        assert time.monotonic() - begun < 3


def test_a_busy_worker_ends_with_the_process_that_asked(folder, pipe):
    mark = new_mark()
    environment = {**os.environ, "ONNXPLAIN_CHECKED_JOB": mark}
    worker = Worker(folder, Limits())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "environ", environment)
        worker._start()
    process = worker._process
    worker._send(*worker._request(pipe))
    time.sleep(0.2)
    process.stdin.close()
    assert gone(mark, 2) is not None
    worker.close()


@pytest.mark.parametrize(
    "limits",
    [
        {"seconds": 0},
        {"seconds": float("inf")},
        {"seconds": float("nan")},
        {"memory": 1e8},
        {"bytes": True},
        {"pixels": -1},
    ],
)
def test_limits_are_positive_and_finite(limits):
    with pytest.raises(ParameterError, match=f"the limit {next(iter(limits))}="):
        Limits(**limits)
