"""Copies of graphs that are made ready: asked for, shared by processes, and the same to the last bit."""

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
from numpy.testing import assert_array_equal

from onnxplain import Explainer, ready_graphs
from onnxplain.ready_graphs import GRAPH, RECORD, VARIABLE, WEIGHTS
from ready_copies import copies as copies
from ready_copies import gradient, keeps_copies
from ready_copies import opened as opened

pytestmark = keeps_copies

METHODS = ("gradient", "integrated_gradients", "occlusion")


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
