"""Copies of graphs that are made ready: asked for, kept within bounds, and never the source of another map."""

import json
import os
import pickle
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.testing import assert_array_equal

from onnxplain import BundleError, Explainer, ParameterError, ready_graphs, sessions
from onnxplain.ready_graphs import GRAPH, RECORD, USUAL_SIZE, VARIABLE, WEIGHTS, allowed_bytes

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
    explainer = Explainer(folder, device="cpu", cache=cache, verify=verify)
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


@pytest.mark.usefixtures("copies")
def test_a_forked_process_compares_the_weights_itself(own, rows):
    explainer = Explainer(own, device="cpu", cache=True)
    explainer._sessions._ready._checked.result()
    flip(own / "weights.data")
    explainer._sessions._ready._process = -1
    with pytest.raises(BundleError, match=r"weights\.data was altered"):
        explainer.explain(rows)


@pytest.mark.parametrize("weights", [False, True])
def test_a_bundle_that_was_replaced_says_so(copies, own, rows, weights):
    explainer = Explainer(own, device="cpu", cache=True)
    if weights:  # too late for those that were compared
        flip(own / "weights.data")
        explainer._sessions._ready._process = -1
    described = json.loads((own / "explainer.json").read_text())
    (own / "explainer.json").write_text(json.dumps({**described, "name": "another"}))
    with pytest.raises(BundleError, match="was replaced"):
        explainer.explain(rows)
    assert not copies.exists() or list(copies.iterdir()) == []


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
        (tmp_path / "cpuinfo").unlink()
        ready_graphs._processor.cache_clear()
        gradient(folder, rows)
        assert len(list(copies.iterdir())) == 3
    finally:
        ready_graphs._processor.cache_clear()


def test_the_least_lately_used_go_when_there_is_no_more_room(copies, folder, opened, monkeypatch):
    monkeypatch.setattr(ready_graphs, "SHARE", 1)
    explainer = Explainer(folder, device="cpu", cache=True)

    def used(name):
        opened.clear()
        assert explainer._sessions._create(explainer.bundle.graphs[name])
        time.sleep(0.02)  # a file's time may be that of the system's last tick
        return opened[-1]

    first, second = used("gradient"), used("path")
    assert used("gradient") == first
    size = sum(file.stat().st_size for file in copies.rglob("*.*"))
    explainer._sessions._ready._most = size + size // 4
    third = used("noise")
    assert {copy.name for copy in copies.iterdir()} == {first, third} != {second}


def test_weights_that_would_push_out_all_others_are_not_copied(copies, folder, rows):
    weights = (folder / "weights.data").stat().st_size
    gradient(folder, rows, cache=f"{4 * weights - 1}B")
    assert not copies.exists()
    gradient(folder, rows, cache=f"{4 * weights}B")
    assert copies.exists()


def test_what_was_never_finished_is_removed_after_a_while(copies, folder, rows):
    old, new = copies / ".old", copies / ".new"
    for entry in (old, new):
        entry.mkdir(parents=True)
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
