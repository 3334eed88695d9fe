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

from onnxplain.sessions import session_options

ROWS = 8
MARGIN = 1.25
"""Over what was measured: the runtime's allocator grows in steps."""


def bytes_per_row(folder: Path, inputs: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, int]:
    """The growth of resident memory by one run of each graph, per row.

    `inputs` lists each graph's inputs (name, dtype, shape) for a run of ROWS rows. Where the system doesn't tell the
    size of a process, ten times the largest input is assumed.
    """
    request = json.dumps({str(folder / f"{name}.onnx"): list(entries) for name, entries in inputs.items()})
    # A fixed threshold makes the C library give large blocks back, so that one graph's memory isn't the next one's.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    answer = subprocess.run(
        [sys.executable, __file__], input=request, capture_output=True, text=True, env=environment, check=False
    )
    measured = json.loads(answer.stdout) if answer.returncode == 0 else {}
    return {
        name: int(max(measured.get(str(folder / f"{name}.onnx"), 0) * MARGIN, _least(entries)))
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
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _main() -> None:
    measured = {}
    for file, inputs in json.load(sys.stdin).items():
        measured[file] = _measure(file, inputs)
        gc.collect()
    print(json.dumps(measured))


if __name__ == "__main__":
    _main()
