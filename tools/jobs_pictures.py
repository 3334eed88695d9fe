"""A batch job over damaged pictures and bombs among good ones: one verdict each, and no other's map changes.

    python tools/jobs_pictures.py [--count 5000] [--seed 0] [--folder DIR]

So many mutations of pictures in 21 variants of 6 formats, more than 20 files made to break decoders (see
`jobs_bombs.py`), one that grows meanwhile, and 200 good ones, some of scikit-image where that is installed. The job
must end in time, no worker process may take more than its 512 MB, every file has one line in the index or the failures,
and the good ones' maps are bit for bit those of a job with the good ones alone. Exit code 1 where it isn't so.
"""

import argparse
import random
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobs_bombs import bombs, encoded, mutated, strange_files
from jobs_support import Plan, gone, marked, new_mark, small_bundle, verdicts

MEMORY = 512_000_000
TIMED = 10.0
METHODS = ("gradient", "integrated_gradients")


@dataclass
class Tally:
    """What was seen."""

    good: int = 0
    mutated: int = 0
    bombs: int = 0
    explained: int = 0
    seconds: float = 0.0
    peak: int = 0
    workers: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    of_bombs: dict[str, str] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)


def make_good(folder: Path, count: int, seed: int) -> None:
    """Good pictures in all variants, those of scikit-image first."""
    folder.mkdir(parents=True)
    made = 0
    for path in _of_scikit_image():
        if made < count // 4:
            shutil.copy(path, folder / f"a-{path.name}")
            made += 1
    number = 0
    while made < count:
        for name, data in encoded(seed, number).items():
            if made < count:
                (folder / f"g{number:03d}-{name}").write_bytes(data)
                made += 1
        number += 1


def _of_scikit_image() -> list[Path]:
    try:
        import skimage
    except ImportError:
        return []
    folder = Path(skimage.__file__).parent / "data"
    return sorted(path for path in folder.iterdir() if path.suffix in (".png", ".jpg", ".gif"))


def make_bad(folder: Path, mutations: int, seed: int, some_bombs: Sequence[str] = ()) -> tuple[int, int]:
    """Mutations and bombs, whose names lie between those of the good ones; how many of each."""
    draw = random.Random(seed)
    sources = [encoded(seed + 1, number) for number in range(12)]
    everything = [data for variants in sources for data in variants.values()]
    names = sorted(sources[0])
    for number in range(mutations):
        name = names[number % len(names)]
        data = mutated(draw.choice(sources)[name], everything, draw)
        (folder / f"g{draw.randrange(1000):03d}-m{number:05d}-{name}").write_bytes(data)
    count = 0
    for name, make in bombs(seed).items():
        if not some_bombs or name in some_bombs:
            (folder / f"g{draw.randrange(12):03d}-bomb-{name}").write_bytes(make())
            count += 1
    strange = folder / "strange"
    strange.mkdir()
    return mutations, count + len(strange_files(strange))


class Growing:
    """A file that grows while the job runs."""

    def __init__(self, path: Path, start: bytes) -> None:
        self._path, self._stop = path, threading.Event()
        path.write_bytes(start)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with open(self._path, "ab") as file:
            for _ in range(2000):
                if self._stop.wait(0.05):
                    return
                file.write(bytes(1000))
                file.flush()

    def close(self) -> None:
        """Ends it."""
        self._stop.set()
        self._thread.join()


def watched(plan: Plan, out: Path, seconds: float, tally: Tally) -> None:
    """Runs a job and notes the most memory that any of its workers took."""
    mark = new_mark()
    process = plan.start(out, mark)
    begun, peaks = time.monotonic(), {}
    while process.poll() is None:
        for pid in marked(mark):
            if pid != process.pid and (peak := _peak(pid)):
                peaks[pid] = peak
        if time.monotonic() - begun > seconds:
            tally.wrong.append(f"the job still runs after {seconds:g} seconds")
            process.kill()
        try:
            process.wait(0.05)
        except subprocess.TimeoutExpired:
            continue
    _, said = process.communicate()
    tally.seconds, tally.peak, tally.workers = time.monotonic() - begun, max(peaks.values(), default=0), len(peaks)
    if process.returncode:
        tally.wrong.append(f"the job ended with {process.returncode}: {said[-500:]}")
    elif said.strip():
        tally.wrong.append(f"the job said: {said[:300]}")
    if gone(mark, 2) is None:
        tally.wrong.append("processes are left behind")


def _peak(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    found = re.search(r"VmHWM:\s+(\d+) kB", text)
    return int(found[1]) * 1024 if found else 0


def compare(alone: Path, mixed: Path, source: Path, tally: Tally) -> None:
    """One verdict each; the good ones' as without the others."""
    right, found = verdicts(alone), verdicts(mixed)
    names = {str(path) for path in source.rglob("*") if path.suffix and not path.is_dir()}
    lost = sorted(names - set(found))
    if lost or set(found) - names:
        tally.wrong.append(f"{len(lost)} pictures without a verdict: {', '.join(lost[:5])}")
    several = [name for name, lines in found.items() if len(lines) != 1]
    if several:
        tally.wrong.append(f"{len(several)} pictures with several verdicts: {', '.join(several[:5])}")
    for name, (line,) in right.items():
        if "error" in line:
            tally.wrong.append(f"a good picture failed: {line['error']}")
        mine = found.get(str(source / Path(name).name), [{}])[0]
        if _lasting(line) != _lasting(mine):
            tally.wrong.append(f"{name} has another line among the others: {mine}")
    for name, (line, *_) in found.items():
        tally.explained += "error" not in line
        bomb = re.search(r"bomb-(.*)|strange/(.*)", name)
        if "error" in line:
            text = line["error"].replace(name, "…")
            tally.errors[re.sub(r"\d+", "#", text)[:70]] += 1
        if bomb:
            tally.of_bombs[bomb[1] or bomb[2]] = line.get("error", "explained").replace(name, "…")[:110]


def _lasting(line: dict[str, Any]) -> dict[str, Any]:
    """What doesn't depend on where a picture stands among others."""
    return {name: value for name, value in line.items() if name not in ("number", "row", "name")}


def measure(
    folder: Path,
    mutations: int,
    good: int = 200,
    seed: int = 0,
    some_bombs: Sequence[str] = (),
    bundle: Path | None = None,
) -> Tally:
    """All of it, in a folder; of the bombs, those named, or all."""
    tally = Tally(good=good)
    bundle = bundle or small_bundle(folder / "small.explain")
    make_good(folder / "good", good, seed)
    shutil.copytree(folder / "good", folder / "mixed")
    tally.mutated, tally.bombs = make_bad(folder / "mixed", mutations, seed, some_bombs)
    limits = {"seconds": TIMED, "memory": MEMORY}
    plans = {name: Plan(bundle, folder / name, METHODS, {"shard_size": 250}, limits) for name in ("good", "mixed")}
    code, said = plans["good"].finish(folder / "good out")
    if code:
        tally.wrong.append(f"the job of good pictures ended with {code}: {said}")
        return tally
    growing = Growing(folder / "mixed" / "g001-growing.jpg", encoded(seed, 0)["plain.jpg"])
    tally.bombs += 1
    try:
        watched(plans["mixed"], folder / "mixed out", 120 + 0.5 * mutations, tally)
    finally:
        growing.close()
    if tally.peak > MEMORY:
        tally.wrong.append(f"a worker took {tally.peak / 1e6:.0f} MB")
    if not tally.wrong:
        compare(folder / "good out", folder / "mixed out", folder / "mixed", tally)
    return tally


def report(tally: Tally) -> str:
    """What was found, in words."""
    lines = [
        f"{tally.good} good pictures, {tally.mutated} mutations and {tally.bombs} bombs in {tally.seconds:.0f} s: "
        f"{tally.explained} explained, {sum(tally.errors.values())} failed",
        f"a worker's memory at its highest: {tally.peak / 1e6:.0f} MB of {MEMORY / 1e6:.0f}; {tally.workers} processes",
        *(f"{count:6d}  {text}" for text, count in tally.errors.most_common(25)),
        *(f"  {name}: {text}" for name, text in sorted(tally.of_bombs.items())),
        *(f"WRONG: {line}" for line in tally.wrong[:30]),
        f"failed, {len(tally.wrong)} times" if tally.wrong else "held: one verdict each, the good ones' maps the same",
    ]
    return "\n".join(lines)


def main(arguments: Any = None) -> int:
    """Makes the pictures, runs the jobs, and says what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=5000, help="mutated pictures")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where to work; kept")
    given = parser.parse_args(arguments)
    if given.folder:
        tally = measure(given.folder, given.count, seed=given.seed)
    else:
        with tempfile.TemporaryDirectory() as folder:
            tally = measure(Path(folder), given.count, seed=given.seed)
    print(report(tally))
    return 1 if tally.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
