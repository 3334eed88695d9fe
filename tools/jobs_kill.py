"""Kills batch jobs at random moments and starts them again: is anything lost, doubled, or done again for nothing?

    python tools/jobs_kill.py [--count 200] [--seed 0] [--folder DIR]

Each round takes a job of another kind (methods, shards, formats), runs it once undisturbed, and then kills it (`kill
-9` of the job alone, which its workers must notice; of the job and its workers; or of a worker, which the job must
survive) and starts it again until it comes to its end. Then every file must be as in the undisturbed run, by name and
SHA-256. Exit code 1 where anything isn't so. Linux only.

Rework is measured from outside: what lies in an unfinished shard's folder at the kill is done again, so there may be
one such folder with maps, of at most `shard_size` rows; and no file of a finished shard may be written again.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from jobs_support import (
    Plan,
    differing,
    gone,
    make_pictures,
    marked,
    new_mark,
    shared_memory,
    small_bundle,
    tree,
    verdicts,
)

VANISH = 2.0
"""Seconds within which no process of a killed job may be left."""
KINDS = (
    (("gradient",), {"shard_size": 24}),
    (("gradient", "integrated_gradients"), {"shard_size": 16, "dtype": "float16"}),
    (("smoothgrad", "gradient"), {"shard_size": 40, "overlays": True}),
    (("integrated_gradients",), {"shard_size": 30, "maps": "sum", "thumbnails": False}),
    *([(("gradient", "smoothgrad"), {"shard_size": 20, "format": "parquet"})] if find_spec("pyarrow") else []),
    (("gradient", "smoothgrad", "integrated_gradients"), {"shard_size": 33, "maps": "magnitude", "dtype": "float16"}),
)


@dataclass
class Tally:
    """What was seen over all rounds."""

    kills: Counter[str] = field(default_factory=Counter)
    rework: list[int] = field(default_factory=list)
    vanished: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


def run_round(plan: Plan, folder: Path, kills: int, draw: random.Random, tally: Tally) -> None:
    """One job, killed at most so many times, against itself undisturbed."""
    begun = time.monotonic()
    code, said = plan.finish(folder / "whole")
    seconds = time.monotonic() - begun
    if code:
        tally.wrong.append(f"the undisturbed job ended with {code}: {said}")
        return
    out, done = folder / "killed", False
    for _ in range(kills):
        before = _finished(out)
        done = _killed(plan, out, draw.uniform(0.02, 1.0) * seconds, draw, tally)
        _check_rework(plan, out, before, tally)
        if done:
            break
    if not done:
        code, said = plan.finish(out)
        if code:
            tally.wrong.append(f"the job ended with {code} after its kills: {said}")
    found = differing(tree(folder / "whole"), tree(out))
    if found:
        tally.wrong.append(f"{len(found)} files differ after the kills: {', '.join(found[:5])}")
    _check_verdicts(plan, out, tally)


def _killed(plan: Plan, out: Path, after: float, draw: random.Random, tally: Tally) -> bool:
    """Starts the job and kills it after some seconds; whether it had come to its end before."""
    mark = new_mark()
    process = plan.start(out, mark)
    try:
        _, said = process.communicate(timeout=after)
    except subprocess.TimeoutExpired:
        pass
    else:
        if process.returncode:
            tally.wrong.append(f"the job ended by itself with {process.returncode}: {said}")
        return True
    kind = draw.choice(["job", "job", "job and workers", "worker"])
    workers = [pid for pid in marked(mark) if pid != process.pid]
    if kind == "worker" and workers:
        _kill(draw.choice(workers))
        _survives(process, tally)
    else:
        kind = "job" if kind == "worker" else kind
        for pid in [process.pid, *(workers if kind == "job and workers" else [])]:
            _kill(pid)
    process.kill()
    process.communicate()
    tally.kills[kind] += 1
    _check_gone(mark, tally)
    return kind == "worker"


def _survives(process: "subprocess.Popen[str]", tally: Tally) -> None:
    """The job comes to its end though a worker was killed."""
    try:
        _, said = process.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        tally.wrong.append("the job hangs after a worker was killed")
        return
    if process.returncode:
        tally.wrong.append(f"the job ended with {process.returncode} since a worker was killed: {said}")


def _check_gone(mark: str, tally: Tally) -> None:
    seconds = gone(mark, VANISH)
    if seconds is None:
        tally.wrong.append(f"processes are left {VANISH:g} seconds after the kill: {marked(mark)}")
        for pid in marked(mark):
            _kill(pid)
    else:
        tally.vanished.append(seconds)


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _finished(out: Path) -> dict[str, tuple[int, int]]:
    """The files of finished shards: which they are and when they were written."""
    found = {}
    for path in sorted((out / "shards").glob("[0-9]*/**/*")):
        about = path.stat()
        found[str(path)] = (about.st_ino, about.st_mtime_ns)
    return found


def _check_rework(plan: Plan, out: Path, before: dict[str, tuple[int, int]], tally: Tally) -> None:
    """Finished shards stay untouched; what is unfinished is of one shard."""
    after = _finished(out)
    if any(after.get(name) != about for name, about in before.items()):
        tally.wrong.append("a finished shard was written again")
    rows = [_rows(folder) for folder in sorted((out / "shards").glob(".part-*"))]
    rows = [count for count in rows if count]
    tally.rework.append(sum(rows))
    if len(rows) > 1 or sum(rows) > plan.output["shard_size"]:
        tally.wrong.append(f"unfinished shards hold {rows} pictures, of {plan.output['shard_size']} a shard")


def _rows(folder: Path) -> int:
    """How many pictures' maps an unfinished shard has at most, by the files' sizes."""
    import numpy as np

    most = 0
    for path in folder.glob("*.npy"):
        whole = folder.parent / "00000000" / path.name
        if whole.exists():
            array = np.load(whole, mmap_mode="r")
            most = max(most, -(-max(0, path.stat().st_size - 128) // max(1, array[0].nbytes)))
        else:
            most = max(most, 1)
    return most


def _check_verdicts(plan: Plan, out: Path, tally: Tally) -> None:
    """Every picture has one line."""
    names = {str(path) for path in plan.source.iterdir()}
    found = verdicts(out)
    lost, doubled = names - set(found), [name for name, lines in found.items() if len(lines) > 1]
    if lost or doubled or set(found) - names:
        tally.wrong.append(f"{len(lost)} pictures are lost, {len(doubled)} doubled")


def measure(
    folder: Path, count: int, seed: int = 0, pictures: int = 90, a_round: int = 12, bundle: Path | None = None
) -> Tally:
    """Kills so many times, in rounds of some kills each, each round in a folder of its own."""
    draw, tally, memory = random.Random(seed), Tally(), shared_memory()
    bundle = bundle or small_bundle(folder / "small.explain")
    number = 0
    while sum(tally.kills.values()) < count and not tally.wrong:
        methods, output = KINDS[number % len(KINDS)]
        here = folder / f"round{number}"
        source = make_pictures(here / "pictures", pictures, pictures // 15, seed=seed + number)
        plan = Plan(bundle, source, methods, output)
        run_round(plan, here, min(a_round, count - sum(tally.kills.values())), draw, tally)
        if not tally.wrong:
            shutil.rmtree(here)
        number += 1
    if shared_memory() - memory:
        tally.wrong.append(f"shared memory is left: {sorted(shared_memory() - memory)}")
    return tally


def report(tally: Tally) -> str:
    """What was found, in words."""
    kinds = ", ".join(f"{count} of the {kind}" for kind, count in sorted(tally.kills.items()))
    slowest = max(tally.vanished, default=0.0)
    lines = [
        f"{sum(tally.kills.values())} kills ({kinds})",
        f"pictures done again for a kill: {max(tally.rework, default=0)} at most, {sum(tally.rework)} in all",
        f"no process left after {slowest:.2f} s at most",
        *(f"WRONG: {line}" for line in tally.wrong),
        "failed" if tally.wrong else "held: every tree is the undisturbed one's, nothing lost, nothing doubled",
    ]
    return "\n".join(lines)


def main(arguments: Any = None) -> int:
    """Kills, and says what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where to work; kept where something is wrong")
    given = parser.parse_args(arguments)
    if given.folder:
        tally = measure(given.folder, given.count, given.seed)
    else:
        with tempfile.TemporaryDirectory() as folder:
            tally = measure(Path(folder), given.count, given.seed)
    print(report(tally))
    return 1 if tally.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
