"""Where the time goes, by operator: onnxruntime's own profile of the forward pass beside that of our gradient graph."""

import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import onnxruntime

from bench_gradient import FORWARD, GRAPH, feeds_of_graph, feeds_of_model
from bench_rounds import Timing
from bench_subject import Subject

RUNS, WARMUP = 10, 3
# What enters and leaves the runtime's blocked layout, and its copies between axes.
GROUPS = {"ReorderInput": "layout changes", "ReorderOutput": "layout changes", "Transpose": "Transpose"}


def measure(subject: Subject, _: Timing) -> dict[str, Any]:
    """Prints the table; there is nothing to record."""
    graphs = {
        FORWARD: (subject.forward_file, feeds_of_model(subject)),
        GRAPH: (subject.bundle("gradient") / "gradient.onnx", None),
    }
    profiles = {}
    for name, (file, feeds) in graphs.items():
        profiles[name] = _profile(subject, file, feeds)
    print("\n".join(_lines(profiles)), flush=True)
    return {}


def _profile(subject: Subject, file: Path, feeds: Any) -> dict[str, tuple[float, int]]:
    """Milliseconds and nodes of a run, by kind of operator."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = subject.threads
    options.enable_profiling = True
    options.profile_file_prefix = str(subject.work / "profile")
    session = onnxruntime.InferenceSession(str(file), options, providers=subject.providers)
    feeds = feeds_of_graph(subject, session) if feeds is None else feeds
    for _ in range(WARMUP + RUNS):
        session.run(None, feeds)
    file = Path(session.end_profiling())
    events = json.loads(file.read_text("utf-8"))
    file.unlink()
    kernels = [event for event in events if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")]
    kernels = kernels[len(kernels) * WARMUP // (WARMUP + RUNS) :]
    spent: dict[str, float] = defaultdict(float)
    nodes: Counter[str] = Counter()
    for event in kernels:
        kind = event["args"]["op_name"]
        kind = GROUPS.get(kind, kind)
        spent[kind] += event["dur"] / 1000 / RUNS
        nodes[kind] += 1
    return {kind: (spent[kind], nodes[kind] // RUNS) for kind in spent}


def _lines(profiles: dict[str, dict[str, tuple[float, int]]]) -> list[str]:
    """The operators, the dearest of the gradient first."""
    forward, graph = profiles[FORWARD], profiles[GRAPH]
    whole = sum(milliseconds for milliseconds, _ in forward.values())
    lines = [f"{'operator':28}{'forward, ms':>14}{'nodes':>7}{'gradient, ms':>14}{'nodes':>7}{'÷ forward':>11}"]
    order = sorted(forward.keys() | graph.keys(), key=lambda kind: -graph.get(kind, (0.0, 0))[0])
    for kind in order:
        (before, some), (after, many) = forward.get(kind, (0.0, 0)), graph.get(kind, (0.0, 0))
        lines.append(f"{kind:28}{before:14.2f}{some:7}{after:14.2f}{many:7}{after / whole:11.2f}")
    total = sum(milliseconds for milliseconds, _ in graph.values())
    return [*lines, f"{'all':28}{whole:14.2f}{'':7}{total:14.2f}{'':7}{total / whole:11.2f}"]
