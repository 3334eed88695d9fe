"""Measures how much memory the runs of each graph take, for the planner, in a process of its own.

The file is also that process's program: it imports the engine only.
"""

import contextlib
import gc
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from onnxplain.errors import ModelError
from onnxplain.sessions import give_back_memory, session_options

ROWS = (1, 3, 8)
"""The sizes of the runs that are measured; in between and beyond, memory grows about evenly."""
MARGIN = 1.02
"""Over what was measured, which differs by as much from one process to the next."""
ALWAYS = 3 * 10**6
"""Beside what was measured, for any run: blocks that the C library keeps, which other threads' runs leave behind."""
PROC = Path("/proc/self")

Entries = Sequence[Mapping[str, Any]]


def measured_memory(folder: Path, runs: Mapping[str, Sequence[Entries]]) -> dict[str, tuple[int, int]]:
    """What a run of each graph adds to resident memory: (bytes for each row, bytes beside that for any run).

    `runs` lists for each graph the kinds of runs that are measured, each the inputs (name, dtype, shape) with None for
    the axis that grows with the rows. Where the system doesn't tell the size of a process, ten times the largest input
    is assumed. ModelError where the graphs can't be run so.
    """
    request = json.dumps({str(folder / f"{name}.onnx"): list(kinds) for name, kinds in runs.items()})
    # A fixed threshold makes the C library give large blocks back, so that one graph's memory isn't the next one's.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "PYTHONPATH": os.pathsep.join(sys.path)}
    # -P: the other files of this folder must not pass for top-level modules.
    command = [sys.executable, "-P", __file__]
    answer = subprocess.run(command, input=request, capture_output=True, text=True, env=environment, check=False)
    if answer.returncode:
        last = (answer.stderr.strip().splitlines() or [f"exit code {answer.returncode}"])[-1]
        raise ModelError(f"measuring the memory of {ROWS[-1]} rows failed: {last}")
    grown = json.loads(answer.stdout)
    return {
        name: line_above([ROWS, grown[str(folder / f"{name}.onnx")]], max(map(_least, kinds)))
        for name, kinds in runs.items()
    }


def line_above(measured: Sequence[Sequence[float]], least: float) -> tuple[int, int]:
    """Slope and offset of a line that no measured (rows, bytes) lies above; the slope is at least `least`."""
    rows, grown = np.asarray(measured, np.float64) * [[1.0], [MARGIN]]
    slope = max(float((grown[-1] - grown[0]) / (rows[-1] - rows[0])), least)
    return int(np.ceil(slope)), ALWAYS + int(np.ceil(max(float((grown - slope * rows).max()), 0.0)))


def _least(inputs: Entries) -> float:
    """Ten times the largest input, where nothing can be measured; else what one takes by itself."""
    largest = max(float(np.prod([axis or 1 for axis in entry["shape"]])) * 4 for entry in inputs)
    return largest if (PROC / "statm").exists() else 10 * largest


def _measure(file: str, kinds: Sequence[Entries]) -> list[int]:
    """The growth of resident memory by a run of each of ROWS, that of the kind which takes most."""
    session = onnxruntime.InferenceSession(file, session_options(), providers=["CPUExecutionProvider"])
    session.run(None, _feeds(kinds[0], 1))  # touches the weights and what else is loaded when first needed
    return [max(_growth(session, _feeds(inputs, rows)) for inputs in kinds) for rows in ROWS]


def _growth(session: Any, feeds: Mapping[str, Any]) -> int:
    give_back_memory()
    before = _resident_bytes()
    with contextlib.suppress(OSError):
        (PROC / "clear_refs").write_text("5", encoding="ascii")  # forgets the largest size so far
    answers = session.run(None, feeds)
    grown = max(_resident_bytes(), _status("VmHWM")) - before
    del answers
    return max(grown, 0)


def _feeds(inputs: Entries, rows: int) -> dict[str, Any]:
    return {entry["name"]: np.zeros([axis or rows for axis in entry["shape"]], entry["dtype"]) for entry in inputs}


def _resident_bytes() -> int:
    try:
        pages = int((PROC / "statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return _peak_bytes()
    return pages * os.sysconf("SC_PAGE_SIZE")


def _status(name: str) -> int:
    """A size from the process's status, 0 where it isn't told or can't be reset."""
    with contextlib.suppress(OSError):
        if os.access(PROC / "clear_refs", os.W_OK):
            for line in (PROC / "status").read_text(encoding="ascii").splitlines():
                if line.startswith(f"{name}:"):
                    return int(line.split()[1]) * 1024
    return 0


def _peak_bytes() -> int:
    """The largest size so far where the present one isn't told (macOS), 0 where neither is (Windows)."""
    try:
        import resource  # absent on Windows
    except ImportError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _main() -> None:
    measured = {}
    for file, kinds in json.load(sys.stdin).items():
        measured[file] = _measure(file, kinds)
        gc.collect()
    print(json.dumps(measured))


if __name__ == "__main__":
    _main()
