"""Puts faults into the calls by which a batch job writes, one call after another, and into the runtime's memory.

    python tools/jobs_faults.py [--every 1] [--count 300] [--seed 0]

Every call of every kind that `onnxplain.jobs.storage` makes fails once in a run of its own: disk full, I/O error, no
permission, short writes, writes that end within, failed fsync, rename, mkdir, open, close and removal. Such a job must
end with an OutputError of one line or complete, in seconds, with nothing left open; the same command without faults
must then leave the very tree of an undisturbed run. `--count` further runs have two faults, the second while the job is
taken up again. Last, onnxruntime lacks memory at the k-th run, for every k, and at every k-th: maps stay within 1e-6.
`--every 5` tries every fifth call alone. Exit code 1 where anything isn't so.
"""

import argparse
import errno
import importlib.util
import os
import random
import shutil
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from jobs_support import Plan, differing, make_pictures, nothing_left, small_bundle, toy_bundle, tree, without_processes

HANGS = 60.0
"""Seconds after which a job counts as hung."""
CODES = {"full": errno.ENOSPC, "i/o error": errno.EIO, "no permission": errno.EACCES, "over quota": errno.EDQUOT}
FAULTS: dict[str, Sequence[str]] = {
    "open": ("full", "i/o error", "no permission"),
    "mkdir": ("full", "i/o error", "no permission"),
    "write": ("full", "i/o error", "over quota", "short", "short and full", "nothing"),
    "fsync": ("i/o error", "full"),
    "rename": ("i/o error", "full", "no permission"),
    "lseek": ("i/o error",),
    "close": ("i/o error", "full"),
    "unlink": ("i/o error", "no permission"),
    "rmdir": ("i/o error", "no permission"),
}
NO_MEMORY = (
    "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Non-zero status code returned while running Conv node. Name:'c' "
    "Status Message: bfc_arena.cc:376 Failed to allocate memory for requested buffer of size 6422528000"
)
METHODS = ("gradient", "integrated_gradients")
OUTPUT = {"shard_size": 5, "overlays": True}
FORMATS = ("npy", "parquet") if importlib.util.find_spec("pyarrow") else ("npy",)


class Faulty:
    """The module `os`, whose calls are counted, one of which fails: the k-th of a name, from 1 on."""

    def __init__(self, name: str = "", k: int = 0, fault: str = "") -> None:
        self._name, self._k, self._fault = name, k, fault
        self.calls: Counter[str] = Counter()
        self._full = False
        self._lock = threading.Lock()

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)

        if name == "fsync":  # no power fails here, and disks are slow
            real = os.fstat

        def call(*arguments: Any) -> Any:
            with self._lock:
                self.calls[name] += 1
                mine = name == self._name and self.calls[name] == self._k
            if self._full and name == "write":
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return self._fail(real, name, arguments) if mine else real(*arguments)

        return call

    def _fail(self, real: Any, name: str, arguments: Sequence[Any]) -> Any:
        if self._fault in CODES:
            if name == "close":  # the file is closed nevertheless
                real(*arguments)
            raise OSError(CODES[self._fault], os.strerror(CODES[self._fault]))
        if self._fault == "nothing":
            return 0
        self._full = self._fault == "short and full"
        handle, data = arguments
        return real(handle, data[: max(1, len(data) // 2)])


@dataclass
class Tally:
    """What was seen over all runs."""

    faults: Counter[str] = field(default_factory=Counter)
    ended: int = 0
    completed: int = 0
    worst: float = 0.0
    memory_runs: int = 0
    wrong: list[str] = field(default_factory=list)


def put_faults(plan: Plan, folder: Path, tally: Tally, every: int = 1, twice: int = 0, seed: int = 0) -> None:
    """Every `every`-th call of every kind fails in every way; then `twice` jobs with two faults."""
    from onnxplain.jobs import storage

    counting = Faulty()
    with _system(storage, counting):
        plan.job(folder / "whole").run()
    whole = tree(folder / "whole")
    resumed = _interrupted(plan, folder / "interrupted")
    for name, faults in FAULTS.items():
        for fault in faults:
            for k in range(1, counting.calls[name] + 1, every):
                _one(plan, folder / "faulty", whole, [Faulty(name, k, fault)], tally)
    # Removal happens where something is left over.
    for name, calls in resumed.items():
        for fault in FAULTS[name]:
            for k in range(1, calls + 1, every):
                _interrupted(plan, folder / "faulty")
                _one(plan, folder / "faulty", whole, [Faulty(name, k, fault)], tally, fresh=False)
    draw = random.Random(seed)
    for _ in range(twice):
        chosen = []
        for _ in range(2):
            name = draw.choice([name for name in FAULTS if counting.calls[name]])
            chosen.append(Faulty(name, draw.randint(1, counting.calls[name]), draw.choice(FAULTS[name])))
        _one(plan, folder / "faulty", whole, chosen, tally)


def _interrupted(plan: Plan, out: Path) -> dict[str, int]:
    """Leaves a folder as a kill within a shard does; the calls by which the next run removes that."""
    from onnxplain.jobs import storage

    shutil.rmtree(out, ignore_errors=True)
    plan.job(out).run()
    shutil.move(out / "shards" / "00000001", out / "shards" / f"{storage.TEMPORARY}00000001")
    (out / f"{storage.TEMPORARY}summary.json").write_text("{")
    counting = Faulty()
    copy = out.with_name(f"{out.name} again")
    shutil.copytree(out, copy)
    with _system(storage, counting):
        plan.job(copy).run()
    shutil.rmtree(copy)
    return {name: counting.calls[name] for name in ("unlink", "rmdir")}


def _one(
    plan: Plan, out: Path, whole: dict[str, str], systems: Sequence[Faulty], tally: Tally, fresh: bool = True
) -> None:
    """One job with a fault for each of its runs, then without."""
    from onnxplain.errors import OutputError
    from onnxplain.jobs import storage

    if fresh:
        shutil.rmtree(out, ignore_errors=True)
    what = ", then ".join(f"{one._name} {one._k}: {one._fault}" for one in systems)
    for system in systems:
        tally.faults[f"{system._name}: {system._fault}"] += 1
        with _system(storage, system):
            error = _bounded(lambda: plan.job(out).run())
        if error is None:
            tally.completed += 1
        elif isinstance(error, OutputError) and "\n" not in str(error) and str(out.parent) in str(error):
            tally.ended += 1
        else:
            tally.wrong.append(f"{what}: {type(error).__name__}: {error}")
    with _system(storage, Faulty()):
        error = _bounded(lambda: plan.job(out).run())
    if error is not None:
        tally.wrong.append(f"{what}: the next run ended with {type(error).__name__}: {error}")
    elif found := differing(whole, tree(out)):
        tally.wrong.append(f"{what}: {len(found)} files differ: {', '.join(found[:4])}")


def _bounded(work: Callable[[], Any]) -> BaseException | None:
    """What some work raises; TimeoutError where it hangs, AssertionError where it leaves something behind."""
    found: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            found.append(error)

    try:
        with nothing_left():
            thread = threading.Thread(target=run, daemon=True)
            thread.start()
            thread.join(HANGS)
            if thread.is_alive():
                return TimeoutError(f"still running after {HANGS:g} seconds")
            error = found.pop() if found else None
            if error is not None:
                error.__traceback__ = None  # it would keep what it came through
    except AssertionError as left:
        return left
    return error


@contextmanager
def _system(storage: Any, system: Any) -> Iterator[None]:
    before, storage.system = storage.system, system
    try:
        yield
    finally:
        storage.system = before


class _Lacking:
    """A session that has no memory at some of its runs."""

    def __init__(self, session: Any, lacks: Callable[[int], bool]) -> None:
        self._session, self._lacks = session, lacks

    def run(self, outputs: Any, feeds: Any, options: Any = None) -> Any:
        rows = max(value.shape[0] for value in feeds.values() if value.ndim)
        rows *= feeds["steps"].shape[1] if "steps" in feeds else 1
        if rows > 1 and self._lacks(rows):
            raise RuntimeError(NO_MEMORY)
        return self._session.run(outputs, feeds, options)


def lack_memory(plan: Plan, folder: Path, tally: Tally, every: int = 1) -> None:
    """Memory lacks at the k-th run, for every `every`-th k, and at every k-th run for some k."""
    from onnxplain.jobs import storage

    plan.job(folder / "whole").run()
    runs = [0]
    with _memory(lambda _: False, runs):
        plan.job(folder / "counted").run()
    many = runs[0]
    cases: list[tuple[str, Callable[[int], bool]]] = []
    for k in range(1, many + 1, every):
        cases.append((f"run {k}", lambda number, k=k: number == k))
    for k in (1, 2, 3, 5, 7):
        cases.append((f"every run of {k}", lambda number, k=k: number % k == 0))
    for what, lacks in cases:
        out = folder / "lacking"
        shutil.rmtree(out, ignore_errors=True)
        with _memory(lacks, [0]), _system(storage, Faulty()):
            error = _bounded(plan.job(out).run)
        tally.memory_runs += 1
        if error is not None:
            tally.wrong.append(f"no memory at {what}: {type(error).__name__}: {error}")
        else:
            tally.worst = max(tally.worst, _distance(folder / "whole", out))
    if tally.worst > 1e-6:
        tally.wrong.append(f"maps differ by {tally.worst:.2g} where memory lacked")


@contextmanager
def _memory(lacks: Callable[[int], bool], runs: list[int]) -> Iterator[None]:
    from onnxplain.sessions import Sessions

    create, lock = Sessions._create, threading.Lock()

    def asked(_rows: int) -> bool:
        with lock:
            runs[0] += 1
            return lacks(runs[0])

    def created(self: Any, graph: Any) -> Any:
        return _Lacking(create(self, graph), asked)

    Sessions._create = created  # type: ignore[method-assign]
    try:
        yield
    finally:
        Sessions._create = create  # type: ignore[method-assign]


def _distance(one: Path, other: Path) -> float:
    """The largest relative L2 distance of a map from the undisturbed one."""
    worst = 0.0
    for path in sorted((one / "shards").glob("*/*.npy")):
        for right, found in zip(np.load(path), np.load(other / path.relative_to(one)), strict=True):
            if np.isnan(right).all() and np.isnan(found).all():
                continue
            size = float(np.linalg.norm(right.astype(np.float64)))
            distance = float(np.linalg.norm(found.astype(np.float64) - right.astype(np.float64)))
            worst = max(worst, distance / size if size else (0.0 if distance == 0 else np.inf))
    return worst


def measure(folder: Path, every: int = 1, twice: int = 300, seed: int = 0) -> Tally:
    """All of it, in a folder."""
    tally = Tally()
    with without_processes():
        source = make_pictures(folder / "pictures", 7, 2, seed=seed)
        for kind in FORMATS:
            plan = Plan(toy_bundle(folder / "toy.explain"), source, METHODS, {**OUTPUT, "format": kind})
            put_faults(plan, folder / kind, tally, every, twice // len(FORMATS), seed)
        source = make_pictures(folder / "good", 20, 2, seed=seed + 1)
        plan = Plan(small_bundle(folder / "small.explain"), source, METHODS, {"shard_size": 20})
        lack_memory(plan, folder / "memory", tally, every)
    return tally


def report(tally: Tally) -> str:
    """What was found, in words."""
    kinds = Counter[str]()
    for name, count in tally.faults.items():
        kinds[name.split(":")[0]] += count
    lines = [
        f"{sum(tally.faults.values())} faults of {len(tally.faults)} kinds "
        f"({', '.join(f'{name} {count}' for name, count in kinds.items())})",
        f"{tally.ended} jobs ended with a clear error, {tally.completed} completed",
        f"{tally.memory_runs} jobs lacked memory; their maps differ by {tally.worst:.2g} at most",
        *(f"WRONG: {line}" for line in tally.wrong[:50]),
        f"failed, {len(tally.wrong)} times" if tally.wrong else "held: the next run leaves the undisturbed tree",
    ]
    return "\n".join(lines)


def main(arguments: Any = None) -> int:
    """Puts faults, and says what came of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--count", type=int, default=300, help="jobs with two faults")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        tally = measure(Path(folder), given.every, given.count, given.seed)
    print(report(tally))
    return 1 if tally.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
