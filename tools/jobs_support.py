"""What the checks of batch jobs (`jobs_*.py`) share: a small network, pictures, a job in a process of its own.

Linux only: processes are found in /proc, by a mark in their environment.
"""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "support"))
MARK = "ONNXPLAIN_CHECKED_JOB"
SIDE, CLASSES = 112, 5
STEPS = [
    {"step": "exif"},
    {"step": "colour", "order": "RGB"},
    {"step": "resize", "rule": "exact", "size": [SIDE, SIDE], "kernel": "bilinear", "antialias": True, "round": True},
    {"step": "scale", "factor": 1 / 255},
    {"step": "mean", "values": [0.5, 0.4, 0.6]},
    {"step": "std", "values": [0.2, 0.25, 0.3]},
    {"step": "layout", "order": "NCHW"},
]
LABELS = ["cat", "dog", "tench", "crane", "tram"]


def small_bundle(folder: Path) -> Path:
    """The bundle of a network of two convolutions with random weights, made once."""
    if folder.exists():
        return folder
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    from onnxplain_export import export

    draw = np.random.default_rng(5)
    shapes = {"w1": (8, 3, 3, 3), "w2": (12, 8, 3, 3), "w3": (12, CLASSES)}
    weights = {name: draw.normal(size=shape) / np.sqrt(np.prod(shape[:-1]) / 4) for name, shape in shapes.items()}
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"], strides=[2, 2], pads=[1] * 4),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], strides=[2, 2], pads=[1] * 4),
        helper.make_node("Relu", ["c2"], ["r2"]),
        helper.make_node("GlobalAveragePool", ["r2"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("MatMul", ["f", "w3"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", CLASSES])],
        [numpy_helper.from_array(weight.astype(np.float32), name) for name, weight in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    folder.parent.mkdir(parents=True, exist_ok=True)
    file = folder.with_suffix(".onnx")
    onnx.save(model, file)
    return Path(export(file, folder, preprocessing=STEPS, labels=LABELS))


def toy_bundle(folder: Path) -> Path:
    """The bundle of the tests' toy network, whose runs take next to no time."""
    from toy_bundle import write_toy_bundle

    return write_toy_bundle(folder)


def drawn(draw: np.random.Generator, height: int, width: int) -> NDArray[np.uint8]:
    """A picture of smooth random colours [H, W, 3]."""
    import cv2

    few = draw.integers(0, 256, (5, 7, 3), np.uint8)
    return np.ascontiguousarray(cv2.resize(few, (width, height), interpolation=cv2.INTER_CUBIC))


def make_pictures(folder: Path, count: int, bad: int = 0, seed: int = 1) -> Path:
    """Writes pictures of several sizes and kinds into a new folder, and some files that are none among them."""
    import cv2

    folder.mkdir(parents=True)
    draw, shuffle = np.random.default_rng(seed), random.Random(seed)
    numbers = list(range(count + bad))
    broken = set(shuffle.sample(numbers, bad))
    for number in numbers:
        pixels = drawn(draw, int(draw.integers(40, 220)), int(draw.integers(40, 220)))
        suffix = shuffle.choice([".jpg", ".png"])
        data = cv2.imencode(suffix, pixels)[1].tobytes()
        if number in broken:
            data = shuffle.choice([b"", b"no picture", data[: len(data) // 3], data[:40]])
        (folder / f"{number:04d}{suffix}").write_bytes(data)
    return folder


def tree(folder: Path) -> dict[str, str]:
    """The SHA-256 of every file below a folder, by its name in there; "folder" for a folder."""
    return {
        str(path.relative_to(folder)): "folder" if path.is_dir() else hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
    }


def differing(one: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    """The names at which two trees differ."""
    return sorted(name for name in {*one, *other} if one.get(name) != other.get(name))


@dataclass(frozen=True)
class Plan:
    """A job, in words that another process takes."""

    bundle: Path
    source: Path
    methods: Sequence[str] = ("gradient",)
    output: Mapping[str, Any] = field(default_factory=dict)
    limits: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=lambda: {"lanes": 2, "workers": 2})

    def job(self, out: Path) -> Any:
        """The job in this process."""
        from onnxplain.jobs import Job, Limits, Output

        output, limits = Output(**self.output), Limits(**self.limits)
        source = str(self.source)
        return Job(self.bundle, source, out, list(self.methods), output=output, limits=limits, **self.settings)

    def start(self, out: Path, mark: str = "") -> "subprocess.Popen[str]":
        """The job in a process of its own, which is found by its mark."""
        request = {**vars(self), "bundle": str(self.bundle), "source": str(self.source), "out": str(out)}
        paths = [os.environ.get("PYTHONPATH", ""), str(ROOT / "runtime"), str(ROOT / "export")]
        environment = {**os.environ, MARK: mark, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
        command = [sys.executable, __file__, json.dumps(request, default=dict)]
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
        )

    def finish(self, out: Path, seconds: float = 300) -> tuple[int, str]:
        """Runs it to its end; the exit code, and what it said on stderr."""
        process = self.start(out)
        try:
            _, said = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            return -1, f"still running after {seconds:g} seconds"
        return process.returncode, said


def new_mark() -> str:
    """A mark for processes that belong together."""
    return uuid.uuid4().hex


def marked(mark: str) -> list[int]:
    """The processes with a mark in their environment, but for zombies."""
    wanted, found = f"{MARK}={mark}".encode(), []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                if wanted in (folder / "environ").read_bytes().split(b"\0"):
                    found.append(int(folder.name))
            except OSError:
                continue
    return found


def gone(mark: str, seconds: float) -> float | None:
    """The seconds until all processes with a mark are gone; None where one stays for longer."""
    begun = time.monotonic()
    while marked(mark):
        if time.monotonic() - begun > seconds:
            return None
        time.sleep(0.02)
    return time.monotonic() - begun


def shared_memory() -> set[str]:
    """The names of the shared memory blocks of this machine."""
    folder = Path("/dev/shm")
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


@contextmanager
def nothing_left() -> Iterator[None]:
    """AssertionError where a thread, a child process or an open file is left behind."""
    import threading

    before = {*threading.enumerate()}, children(), Counter(open_files())
    yield
    until = time.monotonic() + 2
    while (left := [*({*threading.enumerate()} - before[0]), *(children() - before[1])]) and time.monotonic() < until:
        time.sleep(0.01)
    assert not left, f"left behind: {left}"
    still_open = Counter(open_files()) - before[2]
    assert not still_open, f"left open: {', '.join(still_open)}"


def children() -> set[int]:
    """The processes that this one started, zombies too."""
    found = set()
    for task in Path("/proc/self/task").iterdir():
        try:
            found |= set(map(int, (task / "children").read_text().split()))
        except OSError:
            continue
    return found


def open_files() -> list[str]:
    """The files that this process has open, but for sockets and the like."""
    found = []
    for handle in Path("/proc/self/fd").iterdir():
        try:
            target = os.readlink(handle)
        except OSError:
            continue
        if target.startswith("/") and not target.startswith("/proc/"):
            found.append(target)
    return found


def in_thread() -> type:
    """What stands in for a worker process where decoding isn't looked at: it decodes in the job's own threads."""
    from onnxplain.bundle_files import read_bundle
    from onnxplain.errors import PictureError
    from onnxplain.jobs import decoder
    from onnxplain.jobs.decoding import Decoded, Worker

    bundles: dict[Path, Any] = {}

    class InThread(Worker):
        """A worker without a process."""

        def decode(self, item: Any, row: NDArray[Any]) -> Decoded:
            """As Worker.decode."""
            if isinstance(item.content, str):
                raise PictureError(item.content)
            head, content = self._request(item)
            if self._bundle not in bundles:
                bundles[self._bundle] = read_bundle(self._bundle, verify=False)
            image = decoder._tried(head, bytes(content), bundles[self._bundle])
            if isinstance(image, str):
                raise PictureError(image)
            row[...] = image.row[0]
            return Decoded(image.sha256, image.seen, image.box)

    return InThread


@contextmanager
def without_processes() -> Iterator[None]:
    """Jobs of this process decode in its own threads meanwhile."""
    from onnxplain.jobs import pipeline

    before = pipeline.Worker
    pipeline.Worker = in_thread()  # type: ignore[assignment, misc]
    try:
        yield
    finally:
        pipeline.Worker = before  # type: ignore[misc]


def verdicts(out: Path) -> dict[str, list[dict[str, Any]]]:
    """Every picture's lines, of the index and of the failures, by its name."""
    found: dict[str, list[dict[str, Any]]] = {}
    for folder in sorted((out / "shards").glob("[0-9]*")):
        for name in ("index.jsonl", "failures.jsonl"):
            for line in (folder / name).read_text(encoding="utf-8").splitlines():
                entry = json.loads(line)
                found.setdefault(entry["name"], []).append(entry)
    return found


def main() -> int:
    """The job of a process of its own, as `Plan.start` asks for it."""
    from onnxplain.errors import OnnxplainError

    request = json.loads(sys.argv[1])
    out = Path(request.pop("out"))
    try:
        summary = Plan(**request).job(out).run()
    except OnnxplainError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 3
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    print(json.dumps({"explained": summary["explained"], "failed": summary["failed"]}))
    return 0


if __name__ == "__main__":
    # What a shell without job control starts in the background ignores Ctrl-C, and so would this.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(main())
