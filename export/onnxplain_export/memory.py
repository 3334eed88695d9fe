"""Measures how much memory one row of each graph takes, for the planner, in a process of its own.

The file is also that process's program: it imports the engine only.
"""

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
from onnxplain.sessions import session_options

ROWS = 8
MARGIN = 1.25
"""Over what was measured: the runtime's allocator grows in steps."""


def bytes_per_row(folder: Path, inputs: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, int]:
    """The growth of resident memory by one run of each graph, per row.

    `inputs` lists each graph's inputs (name, dtype, shape) for a run of ROWS rows. Where the system doesn't tell the
    size of a process, ten times the largest input is assumed. ModelError where the graphs can't be run so.
    """
    request = json.dumps({str(folder / f"{name}.onnx"): list(entries) for name, entries in inputs.items()})
    # A fixed threshold makes the C library give large blocks back, so that one graph's memory isn't the next one's.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "PYTHONPATH": os.pathsep.join(sys.path)}
    # -P: the other files of this folder must not pass for top-level modules.
    command = [sys.executable, "-P", __file__]
    answer = subprocess.run(command, input=request, capture_output=True, text=True, env=environment, check=False)
    if answer.returncode:
        last = (answer.stderr.strip().splitlines() or [f"exit code {answer.returncode}"])[-1]
        raise ModelError(f"measuring the memory of {ROWS} rows failed: {last}")
    measured = json.loads(answer.stdout)
    return {
        name: int(max(measured[str(folder / f"{name}.onnx")] * MARGIN, _least(entries)))
        for name, entries in inputs.items()
    }


def _least(inputs: Sequence[Mapping[str, Any]]) -> float:
    return 10 * max(float(np.prod(entry["shape"])) * 4 for entry in inputs) / ROWS


def _measure(file: str, inputs: Sequence[Mapping[str, Any]]) -> float:
    session = onnxruntime.InferenceSession(file, session_options(), providers=["CPUExecutionProvider"])
    feeds = {entry["name"]: np.zeros(entry["shape"], entry["dtype"]) for entry in inputs}
    before = _resident_bytes()
    session.run(None, feeds)
    return max(_resident_bytes() - before, 0) / ROWS


def _resident_bytes() -> int:
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return _peak_bytes()
    return pages * os.sysconf("SC_PAGE_SIZE")


def _peak_bytes() -> int:
    """The largest size so far where the present one isn't told (macOS), 0 where neither is (Windows)."""
    try:
        import resource  # absent on Windows
    except ImportError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _main() -> None:
    measured = {}
    for file, inputs in json.load(sys.stdin).items():
        measured[file] = _measure(file, inputs)
        gc.collect()
    print(json.dumps(measured))


if __name__ == "__main__":
    _main()
