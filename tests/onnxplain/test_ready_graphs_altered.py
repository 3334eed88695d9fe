"""Altered bundles and damaged copies of their graphs give an error or a new copy, never another map."""

import hashlib
import io
import json
import os
import shutil
import signal
import threading
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.testing import assert_array_equal

from onnxplain import BundleError, Explainer, ready_graphs
from onnxplain.ready_graphs import GRAPH, RECORD, WEIGHTS
from ready_copies import copies as copies
from ready_copies import gradient, keeps_copies, run_gradient
from ready_copies import opened as opened

pytestmark = keeps_copies


@pytest.fixture
def own(folder, tmp_path):
    """A bundle that a test may alter."""
    return Path(shutil.copytree(folder, tmp_path / "own.explain"))


def flip(file):
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 64
    file.write_bytes(data)


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
