"""Jobs that are killed, interrupted, or given what they can't explain: nothing is lost, nothing twice."""

import json
import os
import signal
import sys
import threading
import time

import numpy as np
import pytest

from jobs_kill import measure as kill_jobs
from jobs_pictures import measure as explain_bad_pictures
from jobs_support import (
    Plan,
    differing,
    gone,
    make_pictures,
    new_mark,
    nothing_left,
    tree,
    verdicts,
    without_processes,
)
from onnxplain import BundleError, ModelError, OutputError, ParameterError
from onnxplain.jobs import Job, Output, explaining, status, storage, verify
from toy_bundle import write_toy_bundle

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
METHODS = ("gradient", "smoothgrad")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return write_toy_bundle(tmp_path_factory.mktemp("toy") / "toy.explain")


@pytest.fixture(scope="module")
def plan(bundle, tmp_path_factory):
    source = make_pictures(tmp_path_factory.mktemp("source") / "pictures", 30, 3)
    return Plan(bundle, source, METHODS, {"shard_size": 8})


@pytest.fixture(scope="module")
def whole(plan, tmp_path_factory):
    """The tree of the job undisturbed."""
    out = tmp_path_factory.mktemp("whole") / "out"
    with nothing_left():
        plan.job(out).run()
    return tree(out)


@pytest.fixture(autouse=True)
def _nothing_left():
    with nothing_left():
        yield


def test_killed_jobs_leave_the_tree_of_an_undisturbed_one(bundle, tmp_path):
    tally = kill_jobs(tmp_path, count=4, pictures=30, a_round=4, bundle=bundle)
    assert tally.wrong == []
    assert sum(tally.kills.values()) == 4


def test_bad_pictures_get_one_verdict_each_and_change_no_map(bundle, tmp_path):
    bombs = ("30000.png", "profile.png", "loop.tif", "canvas.webp", "frames.gif", "scans.jpg", "packed.bmp")
    tally = explain_bad_pictures(tmp_path, mutations=42, good=21, some_bombs=bombs, bundle=bundle)
    assert tally.wrong == []
    assert tally.bombs >= 15


def test_ctrl_c_ends_a_job_in_seconds_and_the_next_run_goes_on(plan, whole, tmp_path):
    mark = new_mark()
    process = plan.start(tmp_path / "out", mark)
    until = time.monotonic() + 60
    while not list((tmp_path / "out").glob("shards/[0-9.]*")) and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=10)
    assert process.returncode == 130, said
    assert gone(mark, 2) is not None
    with without_processes():
        plan.job(tmp_path / "out").run()
    assert differing(whole, tree(tmp_path / "out")) == []


def test_the_second_of_two_runs_is_refused_at_once(plan, tmp_path):
    out = tmp_path / "out"
    with storage.alone(out):
        code, said = plan.finish(out, seconds=30)
        assert code == 3
        assert said.strip() == (
            f"OutputError: another run is writing into {out}; wait for it, or choose another folder"
        )
        with pytest.raises(OutputError, match="another run"):
            plan.job(out).run()
    assert os.listdir(out) == [".lock"]


def test_another_bundle_is_refused_with_the_difference(plan, whole, tmp_path):
    out, changed = tmp_path / "out", write_toy_bundle(tmp_path / "toy.explain", linear=True)
    with without_processes():
        plan.job(out).run()
        with pytest.raises(OutputError, match=r"holds another job; .*: bundle\.sha256: \"\w+\" there, \"\w+\" now$"):
            Plan(changed, plan.source, plan.methods, plan.output).job(out).run()
        plan.job(out).run()
    assert differing(whole, tree(out)) == []


def test_other_pictures_are_refused_with_the_difference(bundle, tmp_path):
    source, out = make_pictures(tmp_path / "pictures", 5), tmp_path / "out"
    plan = Plan(bundle, source)
    with without_processes():
        plan.job(out).run()
        before = tree(out)
        (source / "0002b.png").write_bytes(b"more")
        with pytest.raises(OutputError, match=r"picture 3 was .*0003\.\w+ .* and is .*0002b\.png \(4 bytes\)"):
            plan.job(out).run()
        assert tree(out) == before
        (source / "0002b.png").unlink()
        plan.job(out).run()
    assert tree(out) == before


def test_an_altered_list_of_pictures_is_written_again(plan, whole, tmp_path):
    out = tmp_path / "out"
    with without_processes():
        plan.job(out).run()
        (out / "source.jsonl").write_text("")
        plan.job(out).run()
    assert differing(whole, tree(out)) == []


def test_an_error_in_a_lane_ends_the_job_which_can_go_on(plan, whole, tmp_path, monkeypatch):
    take, calls = explaining.Shard.take, []

    def failing(self, batch):
        calls.append(batch.shard)
        if len(calls) == 3:
            raise ModelError("the graph failed")
        return take(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(explaining.Shard, "take", failing)
        with pytest.raises(ModelError, match="the graph failed"):
            plan.job(tmp_path / "out").run()
    assert 0 < len(list((tmp_path / "out" / "shards").glob("0*"))) < 5
    with without_processes():
        plan.job(tmp_path / "out").run()
    assert differing(whole, tree(tmp_path / "out")) == []


def test_an_error_of_the_source_ends_the_job_which_can_go_on(bundle, tmp_path):
    pictures = list(np.random.default_rng(0).integers(0, 256, (9, 8, 8, 3), np.uint8))

    class Source:
        def __init__(self, breaks):
            self.breaks = breaks

        def __iter__(self):
            for number, picture in enumerate(pictures):
                if number == 7 and self.breaks:
                    raise ConnectionError("the line is down")
                yield picture

    source, output = Source(True), Output(shard_size=3)
    with without_processes():
        with pytest.raises(ConnectionError, match="the line is down"):
            Job(bundle, source, tmp_path / "out", output=output).run()
        assert status(tmp_path / "out")["shards"] <= 2
        source.breaks = False
        Job(bundle, source, tmp_path / "out", output=output).run()
        Job(bundle, Source(False), tmp_path / "whole", output=output).run()
    assert differing(tree(tmp_path / "whole"), tree(tmp_path / "out")) == []


def test_a_picture_whose_numbers_overflow_is_a_failure_and_its_neighbours_are_explained(bundle, tmp_path):
    rows = list(np.random.default_rng(0).normal(size=(20, 3, 8, 8)).astype(np.float32))
    rows[5] = np.full((3, 8, 8), 1e30, np.float32)
    with without_processes():
        summary = Job(bundle, rows, tmp_path / "out", METHODS).run()
        others = [row for number, row in enumerate(rows) if number != 5]
        Job(bundle, others, tmp_path / "others", METHODS).run()
    assert (summary["explained"], summary["failed"]) == (19, 1)
    (failure,) = map(json.loads, (tmp_path / "out" / "failures.jsonl").read_text().splitlines())
    assert failure["number"] == 5
    assert failure["where"] == "explaining"
    found, right = verdicts(tmp_path / "out"), verdicts(tmp_path / "others")
    for number in range(20):
        if number != 5:
            mine = found[f"picture {number}"][0]
            other = right[f"picture {number - (number > 5)}"][0]
            assert [mine[f"{method}.sha256"] for method in METHODS] == [other[f"{method}.sha256"] for method in METHODS]
    assert verify(tmp_path / "out") == []


@pytest.mark.parametrize(("most", "passes"), [(3, True), (2, False), (0.5, True), (0.05, False), (0, False)])
def test_more_failures_than_are_allowed_end_the_job(plan, whole, tmp_path, most, passes):
    out = tmp_path / "out"
    limited = Plan(
        plan.bundle, plan.source, plan.methods, plan.output, settings={**plan.settings, "max_failures": most}
    )
    with without_processes():
        if passes:
            limited.job(out).run()
        else:
            with pytest.raises(OutputError, match=r"\d pictures failed, more than the \d of max_failures"):
                limited.job(out).run()
        plan.job(out).run()
    assert differing(whole, tree(out)) == []


def test_an_empty_source_leaves_nothing_that_hinders(plan, whole, tmp_path):
    with pytest.raises(ParameterError, match="the source is empty"):
        Job(plan.bundle, [], tmp_path / "out").run()
    with without_processes():
        plan.job(tmp_path / "out").run()
    assert differing(whole, tree(tmp_path / "out")) == []


def test_a_worker_that_cannot_start_ends_the_job(plan, tmp_path, monkeypatch):
    job = plan.job(tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", "/bin/false")
        with pytest.raises(BundleError, match="can't start: exit code 1"):
            job.run()


@pytest.fixture
def interruptible():
    """Ctrl-C raises KeyboardInterrupt here; a suite that was started in the background would ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_does_not_wait_for_long_runs(bundle, tmp_path):
    rows = list(np.random.default_rng(0).normal(size=(40, 3, 8, 8)).astype(np.float32))
    job = Job(bundle, rows, tmp_path / "out", {"smoothgrad": {"samples": 1_000_000}})
    threading.Timer(2.0, os.kill, (os.getpid(), signal.SIGINT)).start()
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        job.run()
    assert time.monotonic() - begun < 120  # the whole job takes hours; a busy machine may take seconds to start one
