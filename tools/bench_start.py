"""New process to first map, ours against torch with Captum: whole processes in turns, and the memory that they took."""

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench_rounds import Timing, settled
from bench_statistics import agrees, median, ratio
from bench_subject import Subject, error

OURS, SAME, KEPT, THEIRS = "ours", "ours again", "ours, graphs kept", "torch + captum"
CHILD = Path(__file__).with_name("bench_child.py")
LEAST = 7


def measure(subject: Subject, timing: Timing) -> dict[str, Any]:
    """Seconds from a new process to its first map of one picture, and the most memory that it held.

    Ours also where an earlier process has kept its graphs in the user's cache folder.
    """
    folder = subject.work / "start" / subject.name
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "image.npy", subject.array[:1])
    # Its graph with the weights alone: neither torchvision nor our own files have to be imported to open it.
    torch.save(torch.fx.symbolic_trace(subject.module), folder / "module.pt")
    bundle, threads = subject.bundle("gradient"), str(subject.threads)
    commands = {
        OURS: ["ours", str(bundle), str(folder), threads],
        SAME: ["ours", str(bundle), str(folder), threads],
        KEPT: ["ours", str(bundle), str(folder), threads],
        THEIRS: ["captum", str(folder / "module.pt"), str(folder), threads],
    }
    memory: dict[str, list[int]] = {name: [] for name in commands}
    kept = {"ONNXPLAIN_CACHE": "1", "XDG_CACHE_HOME": str(folder / "cache")}
    environments = {name: _environment(subject.work) | (kept if name == KEPT else {}) for name in commands}
    contenders = {name: _child(commands[name], memory[name], environments[name]) for name in commands}
    brief = Timing(min(timing.rounds, LEAST), min(timing.least, LEAST), warmup=1)
    seconds, attempts = settled(contenders, brief, OURS, SAME)
    truth = subject.truth[:1]
    errors = {name: error(np.load(folder / f"{commands[name][0]}.npy"), truth) for name in (OURS, THEIRS)}
    peak = {name: statistics.median(values) for name, values in memory.items()}
    pairs = ((SAME, OURS), (THEIRS, OURS), (THEIRS, KEPT))
    ratios = {f"{over} ÷ {under}": ratio(seconds, over, under) for over, under in pairs}
    return {
        "seconds": {name: median(values) for name, values in seconds.items()},
        "ratios": ratios,
        "megabytes": {name: value / 1e6 for name, value in peak.items()},
        **{f"memory of {THEIRS} ÷ {name}": peak[THEIRS] / peak[name] for name in (OURS, KEPT)},
        "export, seconds": subject.export_seconds("gradient"),
        "errors": errors,
        "attempts": attempts,
        "void": not agrees(seconds, OURS, SAME),
    }


def _environment(work: Path) -> dict[str, str]:
    """In which our modules are compiled when they are first imported, as installed ones are, and kept."""
    given = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return given | {"PYTHONPYCACHEPREFIX": str(work / "compiled")}


def _child(words: list[str], memory: list[int], environment: dict[str, str]) -> Any:
    """Runs a process to its end; it prints the most memory that it held."""

    def run() -> float:
        started = time.perf_counter()
        command = [sys.executable, str(CHILD), *words]
        finished = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        if finished.returncode:
            raise RuntimeError(finished.stderr[-2000:])
        memory.append(int(finished.stdout.split()[-1]))
        return time.perf_counter() - started

    return run
