"""Copies of graphs that are made ready: asked for, kept within bounds, and never the source of another map."""

import errno
import hashlib
import io
import json
import logging
import os
import pickle
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.testing import assert_array_equal

from onnxplain import BundleError, Explainer, ParameterError, ready_graphs, sessions
from onnxplain.ready_graphs import GRAPH, GROWTH, RECORD, USUAL_SIZE, VARIABLE, WEIGHTS, allowed_bytes

METHODS = ("gradient", "integrated_gradients", "occlusion")
# Where the processor isn't told, none is made.
pytestmark = pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="this system keeps no copies")


@pytest.fixture
def copies(tmp_path, monkeypatch):
    """The folder of the copies, still missing."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(VARIABLE, raising=False)
    return tmp_path / "onnxplain" / "graphs"


@pytest.fixture
def own(folder, tmp_path):
    """A bundle that a test may alter."""
    return Path(shutil.copytree(folder, tmp_path / "own.explain"))


@pytest.fixture
def opened(monkeypatch):
    """The files that sessions are opened on from now on, by the names of their folders."""
    found = []
    real = sessions.onnxruntime.InferenceSession

    def session(file, *rest, **named):
        found.append(Path(file).parent.name)
        return real(file, *rest, **named)

    monkeypatch.setattr(sessions.onnxruntime, "InferenceSession", session)
    return found


def gradient(folder, rows, cache=True, verify=True):
    """The gradient of class 0: one graph, and so one copy."""
    return run_gradient(Explainer(folder, device="cpu", cache=cache, verify=verify), rows)


def run_gradient(explainer, rows):
    feeds = {"image": rows, "target": np.zeros((len(rows), 1), np.int64)}
    return explainer._sessions.run(explainer.bundle.graphs["gradient"], ["total"], feeds)[0]


def flip(file):
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 64
    file.write_bytes(data)


def test_maps_from_copies_are_the_same_to_the_last_bit(copies, folder, rows):
    for _ in range(2):  # the first makes the copies
        explainer, plain = (Explainer(folder, device="cpu", cache=cache) for cache in (True, False))
        for method in METHODS:
            assert_array_equal(explainer.explain(rows, method).attribution, plain.explain(rows, method).attribution)
    assert len(list(copies.iterdir())) == len({"forward", "gradient", "path", "masked"})


def test_the_graph_is_opened_once_and_then_its_copy(copies, folder, rows, opened):
    gradient(folder, rows)
    (copy,) = copies.iterdir()
    assert opened == [folder.name, copy.name]
    opened.clear()
    gradient(folder, rows)
    assert opened == [copy.name]
    assert sorted(file.name for file in copy.iterdir()) == sorted([GRAPH, RECORD, WEIGHTS])


def test_none_is_made_unless_asked_for(copies, folder, rows, monkeypatch):
    gradient(folder, rows, cache=None)
    gradient(folder, rows, cache=False)
    monkeypatch.setenv(VARIABLE, "0")
    gradient(folder, rows, cache=None)
    monkeypatch.setenv(VARIABLE, "1")
    gradient(folder, rows, cache=False)
    assert not copies.exists()
    gradient(folder, rows, cache=None)
    assert len(list(copies.iterdir())) == 1


def test_a_bundle_that_is_not_verified_has_none(copies, own, rows):
    expected = gradient(own, rows)
    copy = next(copies.iterdir())
    # The numbers that are asked for are now these, whatever the description says.
    np.negative(np.fromfile(own / "weights.data", np.float32)).tofile(own / "weights.data")
    assert not np.array_equal(gradient(own, rows, verify=False), expected)
    assert list(copies.iterdir()) == [copy]


@pytest.mark.parametrize("copied", [False, True])
def test_altered_weights_are_an_error_before_there_is_a_map(copies, own, rows, copied):
    if copied:
        Explainer(own, device="cpu", cache=True).explain(rows)
    found = set(copies.glob("*"))
    assert bool(found) == copied
    flip(own / "weights.data")
    explainer = Explainer(own, device="cpu", cache=True)
    for _ in range(2):
        with pytest.raises(BundleError, match=r"weights\.data was altered"):
            explainer.explain(rows)
    assert set(copies.glob("*")) == found


@pytest.mark.usefixtures("copies")
def test_an_altered_graph_is_an_error_at_once(own):
    flip(own / "gradient.onnx")
    with pytest.raises(BundleError, match=r"gradient\.onnx was altered"):
        Explainer(own, device="cpu", cache=True)


@pytest.fixture
def late(monkeypatch):
    """An event for which this process's comparison of the weights waits, as that of large ones takes a while."""
    event, here, real = threading.Event(), os.getpid(), ready_graphs.check_weights

    def check(bundle):
        if os.getpid() == here:
            event.wait()
        real(bundle)

    monkeypatch.setattr(ready_graphs, "check_weights", check)
    yield event
    event.set()


@pytest.mark.usefixtures("copies")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # Python 3.12: that this process has threads
def test_a_forked_process_compares_the_weights_itself(own, late):
    ready = Explainer(own, device="cpu", cache=True)._sessions._ready
    flip(own / "weights.data")
    child = os.fork()
    if not child:
        try:
            ready.check()
        except BundleError:
            os._exit(0)
        finally:
            os._exit(1)
    until = time.monotonic() + 20
    while not (ended := os.waitpid(child, os.WNOHANG))[0] and time.monotonic() < until:
        time.sleep(0.01)
    if not ended[0]:  # it waits for a thread that it hasn't got
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert not late.is_set()
    assert ended == (child, 0)


@pytest.mark.parametrize("weights", [False, True])
def test_a_bundle_that_was_replaced_says_so(copies, own, rows, weights, late):
    explainer = Explainer(own, device="cpu", cache=True)
    if weights:
        flip(own / "weights.data")
    described = json.loads((own / "explainer.json").read_text())
    (own / "explainer.json").write_text(json.dumps({**described, "name": "another"}))
    late.set()
    with pytest.raises(BundleError, match="was replaced"):
        explainer.explain(rows)
    assert not copies.exists() or list(copies.iterdir()) == []


def negated(file):
    np.negative(np.fromfile(file, np.float32)).tofile(file)


def truncate(file):
    os.truncate(file, file.stat().st_size - 1)


def empty(file):
    file.write_bytes(b"")


def of_another_key(file):
    record = json.loads(file.read_text())
    file.write_text(json.dumps({**record, "key": "another"}))


def sum_for_product(file):
    model = onnx.load(file, load_external_data=False)
    for node in model.graph.node:
        node.op_type = {"Mul": "Add"}.get(node.op_type, node.op_type)
    file.write_bytes(model.SerializeToString())


@pytest.mark.parametrize(("alter", "name"), [(negated, "weights.data"), (sum_for_product, "gradient.onnx")])
def test_files_altered_after_they_were_compared_leave_no_copy_and_give_no_map(copies, own, rows, alter, name):
    expected, whole = gradient(own, rows, cache=False), (own / name).read_bytes()
    explainer = Explainer(own, device="cpu", cache=True)
    explainer._sessions._ready.check()
    alter(own / name)
    assert not np.array_equal(gradient(own, rows, cache=False, verify=False), expected)
    with pytest.raises(BundleError, match=f"{name} was altered"):
        run_gradient(explainer, rows)
    assert list(copies.iterdir()) == []
    (own / name).write_bytes(whole)
    assert_array_equal(gradient(own, rows), expected)


DAMAGE = [(change, name) for change in (flip, truncate, empty, Path.unlink) for name in (GRAPH, WEIGHTS, RECORD)]


@pytest.mark.parametrize(("damage", "name"), [*DAMAGE, (of_another_key, RECORD), (sum_for_product, GRAPH)])
def test_a_damaged_copy_is_made_again_and_gives_no_other_map(copies, folder, rows, opened, damage, name):
    expected = gradient(folder, rows)
    (copy,) = copies.iterdir()
    damage(copy / name)
    opened.clear()
    assert_array_equal(gradient(folder, rows), expected)
    assert opened[-2:] == [folder.name, copy.name]  # behind what of it could be opened
    opened.clear()
    assert_array_equal(gradient(folder, rows), expected)
    assert opened == [copy.name]
    assert list(copies.iterdir()) == [copy]


@pytest.mark.parametrize("name", [GRAPH, WEIGHTS])
def test_the_parts_of_another_copy_are_no_parts_of_this(copies, folder, rows, linear, name):
    expected = gradient(folder, rows)
    (copy,) = copies.iterdir()
    gradient(linear.bundle.path, rows)
    (other,) = set(copies.iterdir()) - {copy}
    shutil.copyfile(other / name, copy / name)
    assert_array_equal(gradient(folder, rows), expected)


def test_other_processors_and_versions_have_copies_of_their_own(copies, folder, rows, monkeypatch, tmp_path):
    def told(text):
        (tmp_path / "cpuinfo").write_text(text)
        monkeypatch.setattr(ready_graphs, "PROCESSOR", tmp_path / "cpuinfo")
        ready_graphs._processor.cache_clear()
        gradient(folder, rows)
        return len(list(copies.iterdir()))

    try:
        assert told("processor\t: 0\ncpu MHz\t: 2400\nflags\t: avx2\n\nprocessor\t: 1\n") == 1
        assert told("processor\t: 0\ncpu MHz\t: 3100\nflags\t: avx2\n\nprocessor\t: 9\n") == 1
        assert told("processor\t: 0\ncpu MHz\t: 2400\nflags\t: avx2 avx512f\n\n") == 2
        monkeypatch.setattr(ready_graphs.onnxruntime, "__version__", "9.9")
        assert told("processor\t: 0\nflags\t: avx2 avx512f\n\n") == 3
        assert told("") == 3
        monkeypatch.setattr(ready_graphs, "__version__", "9.9")
        assert told("processor\t: 0\nflags\t: avx2 avx512f\n\n") == 4
        (tmp_path / "cpuinfo").unlink()
        ready_graphs._processor.cache_clear()
        gradient(folder, rows)
        assert len(list(copies.iterdir())) == 4
    finally:
        ready_graphs._processor.cache_clear()


@pytest.fixture
def used(opened):
    """Opens a graph of an Explainer and gives the name of the folder that it came from."""

    def use(explainer, name):
        opened.clear()
        assert explainer._sessions._create(explainer.bundle.graphs[name])
        time.sleep(0.02)  # a file's time may be that of the system's last tick
        return opened[-1]

    return use


def size_of(folder):
    return sum(file.stat().st_size for file in folder.rglob("*.*"))


def one_byte_short(copies, used, explainer, name):
    """Lets an Explainer have one byte less than a graph's copy takes besides those there are."""
    made = used(explainer, name)
    explainer._sessions._ready._most = size_of(copies) - 1
    shutil.rmtree(copies / made)
    return made


def test_the_least_lately_used_go_when_there_is_no_more_room(copies, folder, linear, used, monkeypatch):
    monkeypatch.setattr(ready_graphs, "GROWTH", 1)
    explainer, other = (Explainer(path, device="cpu", cache=True) for path in (folder, linear.bundle.path))
    first, second = used(other, "gradient"), used(other, "path")
    assert used(other, "gradient") == first
    third = one_byte_short(copies, used, explainer, "noise")
    assert used(explainer, "noise") == third
    assert {copy.name for copy in copies.iterdir()} == {first, third} != {second}


def test_copies_of_the_same_bundle_are_the_last_to_go(copies, folder, linear, used, monkeypatch):
    monkeypatch.setattr(ready_graphs, "GROWTH", 1)
    explainer, other = (Explainer(path, device="cpu", cache=True) for path in (folder, linear.bundle.path))
    first, _ = used(explainer, "gradient"), used(other, "gradient")
    third = one_byte_short(copies, used, explainer, "noise")
    assert used(explainer, "noise") == third
    assert {copy.name for copy in copies.iterdir()} == {first, third}


def test_what_finds_no_room_beside_the_same_bundles_copies_is_not_copied(copies, folder, used, caplog):
    explainer = Explainer(folder, device="cpu", cache=True)
    kept = [used(explainer, "gradient"), used(explainer, "path")]
    room = size_of(copies) + GROWTH * (folder / "weights.data").stat().st_size
    explainer._sessions._ready._most = room - 1
    with caplog.at_level(logging.INFO, ready_graphs.__name__):
        assert used(explainer, "noise") == folder.name
    assert "no copy of noise.onnx is kept" in caplog.text
    assert [used(explainer, name) for name in ("gradient", "path")] == kept
    explainer._sessions._ready._most = room
    kept.append(used(explainer, "noise"))
    assert {copy.name for copy in copies.iterdir()} == set(kept)


def test_weights_that_would_take_more_than_all_may_are_not_copied(copies, folder, rows):
    weights = (folder / "weights.data").stat().st_size
    gradient(folder, rows, cache=f"{GROWTH * weights - 1}B")
    assert not copies.exists()
    gradient(folder, rows, cache=f"{GROWTH * weights}B")
    assert copies.exists()


def test_what_was_never_finished_is_removed_after_a_while(copies, folder, rows):
    gradient(folder, rows)
    shutil.rmtree(next(copies.iterdir()))
    old, new = copies / ".old", copies / ".new"
    for entry in (old, new):
        entry.mkdir()
    os.utime(old, (0, 0))
    gradient(folder, rows)
    assert not old.exists()
    assert new.exists()


@pytest.mark.parametrize("obstacle", ["a file is in the way", "onnxruntime can't write it"])
def test_where_no_copy_can_be_written_the_map_is_the_same(copies, folder, rows, monkeypatch, obstacle):
    expected = gradient(folder, rows, cache=False)
    if obstacle.startswith("a file"):
        copies.parent.mkdir()
        copies.write_text("")
    else:
        monkeypatch.setattr(ready_graphs, "GRAPH", "missing/graph.onnx")
    assert_array_equal(gradient(folder, rows), expected)
    assert not copies.is_dir() or list(copies.iterdir()) == []


@pytest.mark.parametrize("copied", [False, True])
def test_a_folder_that_may_not_be_searched_leaves_the_map_the_same(copies, folder, rows, monkeypatch, copied):
    expected = gradient(folder, rows, cache=copied)

    def refused(real):
        def ask(path, *rest, **named):
            if copies in (path, *path.parents):
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            return real(path, *rest, **named)

        return ask

    for name in ("stat", "lstat", "iterdir", "mkdir", "open"):
        monkeypatch.setattr(Path, name, refused(getattr(Path, name)))
    assert_array_equal(gradient(folder, rows), expected)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="nothing is closed to this user")
@pytest.mark.parametrize("level", ["around", "folder", "copy"])
def test_what_is_closed_to_this_user_leaves_the_map_the_same(copies, folder, rows, level):
    expected = gradient(folder, rows)
    closed = {"around": copies.parent, "folder": copies, "copy": next(copies.iterdir())}[level]
    closed.chmod(0)
    try:
        assert_array_equal(gradient(folder, rows), expected)
    finally:
        closed.chmod(0o700)


posix = pytest.mark.skipif(sys.platform == "win32", reason="a user's cache folder is closed to others there")


def writable_by(bits):
    return lambda path, monkeypatch: path.chmod(stat.S_IMODE(path.stat().st_mode) | bits)


def linked(path, _):
    path.rename(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


def of_another_user(path, monkeypatch):
    real = os.stat_result

    def another(found):
        return real((*found[:4], found.st_uid + 1, *found[5:]))

    for name in ("stat", "lstat"):
        ask = getattr(Path, name)
        given = lambda one, ask=ask, **named: another(ask(one, **named)) if one == path else ask(one, **named)  # noqa: E731
        monkeypatch.setattr(Path, name, given)


FOREIGN = [
    (change, level)
    for change in (writable_by(0o020), writable_by(0o002), linked, of_another_user)
    for level in ("folder", "copy", GRAPH, WEIGHTS, RECORD)
]


@posix
@pytest.mark.parametrize(("change", "level"), [*FOREIGN, (writable_by(0o002), "around"), (of_another_user, "around")])
def test_a_copy_that_others_may_have_written_is_not_used(copies, folder, rows, opened, monkeypatch, change, level):
    expected = gradient(folder, rows)
    (copy,) = copies.iterdir()
    change({"around": copies.parent, "folder": copies, "copy": copy}.get(level, copy / level), monkeypatch)
    opened.clear()
    assert_array_equal(gradient(folder, rows), expected)
    assert opened == [folder.name]
    assert copy.exists()


@posix
@pytest.mark.parametrize("change", [writable_by(0o002), linked, of_another_user])
def test_no_copy_is_written_where_others_may_write(copies, folder, rows, opened, monkeypatch, change):
    copies.mkdir(0o700, parents=True)
    change(copies, monkeypatch)
    gradient(folder, rows)
    assert opened == [folder.name]
    assert list(copies.iterdir()) == []


@posix
def test_copies_are_closed_to_others_whatever_is_usual(copies, folder, rows, opened):
    usual = os.umask(0)
    try:
        gradient(folder, rows)
    finally:
        os.umask(usual)
    (copy,) = copies.iterdir()
    assert {stat.S_IMODE(path.stat().st_mode) for path in (copies.parent, copies, copy)} == {0o700}
    assert {stat.S_IMODE(file.stat().st_mode) for file in copy.iterdir()} == {0o600}
    opened.clear()
    gradient(folder, rows)
    assert opened == [copy.name]


def fails(error):
    def call(*_rest, **_named):
        raise error

    return call


TRANSIENT = {
    "files": ("_hashes", OSError(errno.EMFILE, "Too many open files")),
    "threads": ("ThreadPoolExecutor", RuntimeError("cannot schedule new futures after shutdown")),
}


@pytest.mark.parametrize("lack", ["memory", *TRANSIENT])
def test_a_whole_copy_stays_where_it_could_not_be_opened_once(copies, folder, rows, opened, monkeypatch, lack):
    expected = gradient(folder, rows)
    (copy,) = copies.iterdir()
    explainer = Explainer(folder, device="cpu", cache=True)
    with monkeypatch.context() as context:
        if lack == "memory":
            real = sessions.onnxruntime.InferenceSession

            def session(file, *rest, **named):
                if Path(file).parent == copy:
                    raise RuntimeError("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : std::bad_alloc")
                return real(file, *rest, **named)

            context.setattr(sessions.onnxruntime, "InferenceSession", session)
        else:
            context.setattr(ready_graphs, TRANSIENT[lack][0], fails(TRANSIENT[lack][1]))
        assert_array_equal(run_gradient(explainer, rows), expected)
    assert list(copies.iterdir()) == [copy]
    opened.clear()
    gradient(folder, rows)
    assert opened == [copy.name]


def test_copies_that_may_only_be_read_are_used(copies, folder, rows, opened, monkeypatch):
    gradient(folder, rows)
    (copy,) = copies.iterdir()
    opened.clear()
    monkeypatch.setattr(ready_graphs.os, "utime", fails(OSError(errno.EROFS, "Read-only file system")))
    gradient(folder, rows)
    assert opened == [copy.name]


@pytest.mark.parametrize("most", [None, 1000])
def test_hashes_are_of_whole_blocks_however_little_is_read_at_once(tmp_path, monkeypatch, most):
    monkeypatch.setattr(ready_graphs, "BLOCK", 2**19)
    data = np.random.default_rng(0).bytes(2**20 + 70_001)
    (tmp_path / "weights.data").write_bytes(data)

    class Short(io.FileIO):
        def readinto(self, buffer):
            return super().readinto(buffer[:most])

    monkeypatch.setattr(Path, "open", lambda file, mode, buffering: Short(file, mode))
    expected = [hashlib.sha256(data[start : start + 2**19]).hexdigest() for start in range(0, len(data), 2**19)]
    assert ready_graphs._hashes(tmp_path / "weights.data") == expected


PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
import numpy as np
from onnxplain import Explainer
rows = np.load(sys.argv[3])
np.save(sys.argv[4], Explainer(sys.argv[2], device="cpu", cache=True).explain(rows).attribution)
"""
GRAPHS_OF_A_MAP = 2
"""The toy's gradient doesn't tell the scores."""


def test_processes_that_begin_together_share_one_copy(copies, folder, rows, tmp_path):
    np.save(tmp_path / "rows.npy", rows)
    command = [sys.executable, "-c", PROGRAM, Path(ready_graphs.__file__).parents[1], folder, tmp_path / "rows.npy"]
    maps = [tmp_path / f"{i}.npy" for i in range(4)]
    started = [subprocess.Popen([*map(str, command), str(file)]) for file in maps]
    assert [process.wait() for process in started] == [0] * len(maps)
    expected = Explainer(folder, device="cpu").explain(rows).attribution
    for file in maps:
        assert_array_equal(np.load(file), expected)
    assert len(list(copies.iterdir())) == GRAPHS_OF_A_MAP


def test_a_pickled_explainer_keeps_copies_too(copies, folder, rows):
    pickle.loads(pickle.dumps(Explainer(folder, device="cpu", cache=True))).explain(rows)
    assert len(list(copies.iterdir())) == GRAPHS_OF_A_MAP


@pytest.mark.parametrize(
    ("given", "variable", "expected"),
    [
        (None, None, 0),
        (None, "", 0),
        (None, "0", 0),
        (None, "1", USUAL_SIZE),
        (None, " 2GB ", 2 * 10**9),
        (True, "0", USUAL_SIZE),
        (False, "1", 0),
        (None, "True", USUAL_SIZE),
        (None, "true", USUAL_SIZE),
        ("true", None, USUAL_SIZE),
        (None, "False", 0),
        (None, "false", 0),
        ("500MB", None, 5 * 10**8),
    ],
)
def test_how_much_is_kept(monkeypatch, given, variable, expected):
    monkeypatch.delenv(VARIABLE, raising=False)
    if variable is not None:
        monkeypatch.setenv(VARIABLE, variable)
    assert allowed_bytes(given) == (4 * 10**9 if expected is USUAL_SIZE else expected)


@pytest.mark.parametrize("given", ["yes", "-1GB", "4 TBB"])
def test_what_is_no_size_is_an_error_that_names_both_ways(monkeypatch, folder, given):
    with pytest.raises(ParameterError, match=f"cache='{given}' .or {VARIABLE}. must be True, False or a size"):
        Explainer(folder, cache=given)
    monkeypatch.setenv(VARIABLE, given)
    with pytest.raises(ParameterError, match=given):
        Explainer(folder)
