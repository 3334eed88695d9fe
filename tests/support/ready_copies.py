"""What the tests of graphs that are made ready share: the folder of the copies, and one map that needs a copy.

A test module imports the fixtures under their own names, as in `copies as copies`: ruff takes no parameter for a use.
"""

from pathlib import Path

import numpy as np
import pytest

from onnxplain import Explainer, sessions
from onnxplain.ready_graphs import VARIABLE

# Where the processor isn't told, none is made.
keeps_copies = pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="this system keeps no copies")


@pytest.fixture
def copies(tmp_path, monkeypatch):
    """The folder of the copies, still missing."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(VARIABLE, raising=False)
    return tmp_path / "onnxplain" / "graphs"


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
