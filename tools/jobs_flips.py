"""Damages finished shards of a batch job: does `verify` find it, and does the same command repair it?

    python tools/jobs_flips.py [--count 500] [--seed 0]

Bits are flipped at random places of every file of a finished job's shards, one at a time; files are cut, lengthened,
emptied, removed, added and exchanged. Each time `onnxplain.jobs.verify` must name the shard, and the job, run again,
must leave the tree as it was. Exit code 1 where it doesn't.
"""

import argparse
import os
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from jobs_support import Plan, differing, make_pictures, toy_bundle, tree, without_processes


@dataclass
class Tally:
    """What was seen over all damages."""

    damages: Counter[str] = field(default_factory=Counter)
    files: set[str] = field(default_factory=set)
    repaired: int = 0
    wrong: list[str] = field(default_factory=list)


def flip(path: Path, draw: random.Random) -> str:
    """Turns one bit of a file."""
    size = path.stat().st_size
    at, bit = draw.randrange(size), draw.randrange(8)
    with open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1 << bit]))
    return f"bit {bit} of byte {at}"


def cut(path: Path, draw: random.Random) -> str:
    """Takes off a file's end."""
    size = draw.randrange(path.stat().st_size)
    os.truncate(path, size)
    return f"cut to {size} bytes"


def lengthen(path: Path, draw: random.Random) -> str:
    """Adds bytes to a file."""
    more = draw.randbytes(draw.randint(1, 100))
    with open(path, "ab") as file:
        file.write(more)
    return f"lengthened by {len(more)} bytes"


def remove(path: Path, _: random.Random) -> str:
    """Removes a file."""
    path.unlink()
    return "removed"


def add(path: Path, draw: random.Random) -> str:
    """Puts another file beside."""
    path.with_name(f"more{draw.randrange(100)}.npy").write_bytes(b"more")
    return "another beside it"


def exchange(path: Path, _: random.Random) -> str:
    """Exchanges the file for that of another shard, or a map file's halves."""
    data = path.read_bytes()
    if path.suffix == ".npy":
        half = (len(data) - 128) // 2
        path.write_bytes(data[:128] + data[128 + half :] + data[128 : 128 + half])
        return "its halves exchanged"
    other = next((one for one in path.parents[1].parent.rglob(path.name) if one != path), None)
    content = other.read_bytes() if other else b"\0" * len(data)
    path.write_bytes(content if content != data else data + b"\n")
    return "exchanged for another's"


DAMAGES: dict[str, Callable[[Path, random.Random], str]] = {
    "cut": cut,
    "lengthened": lengthen,
    "removed": remove,
    "added": add,
    "exchanged": exchange,
}


def damage_all(plan: Plan, out: Path, flips: int, repairs_every: int, draw: random.Random, tally: Tally) -> None:
    """Flips so many bits, and damages every file in every other way."""
    plan.job(out).run()
    whole = tree(out)
    files = sorted(path for path in (out / "shards").rglob("*") if path.is_file() and path.stat().st_size)
    tasks: list[tuple[str, Path]] = [("flipped", files[number % len(files)]) for number in range(flips)]
    others = [(kind, path) for kind in DAMAGES for path in files]
    tasks += draw.sample(others, min(len(others), flips))
    for number, (kind, path) in enumerate(tasks):
        backup = path.parents[len(path.relative_to(out / "shards").parts) - 2]
        _damage_one(plan, out, path, kind, whole, draw, tally, number % repairs_every == 0, backup)
    _damage_many(plan, out, files, whole, draw, tally)


def _damage_one(
    plan: Plan,
    out: Path,
    path: Path,
    kind: str,
    whole: dict[str, str],
    draw: random.Random,
    tally: Tally,
    repair: bool,
    shard: Path,
) -> None:
    from onnxplain.jobs import verify

    kept = out.with_name("kept")
    shutil.rmtree(kept, ignore_errors=True)
    shutil.copytree(shard, kept)
    how = (DAMAGES.get(kind) or flip)(path, draw)
    name = str(path.relative_to(out))
    tally.damages[kind] += 1
    tally.files.add(path.name if path.parent.name != "overlays" else "overlays")
    found = verify(out)
    if len(found) != 1 or shard.name not in found[0] or "\n" in found[0]:
        tally.wrong.append(f"{name}, {how}: verify says {found}")
    if repair:
        plan.job(out).run()
        tally.repaired += 1
        if left := differing(whole, tree(out)):
            tally.wrong.append(f"{name}, {how}: not repaired: {', '.join(left[:4])}")
    else:
        shutil.rmtree(shard)
        shutil.copytree(kept, shard)


def _damage_many(
    plan: Plan, out: Path, files: list[Path], whole: dict[str, str], draw: random.Random, tally: Tally
) -> None:
    """Several shards at once, and one that is missing as a whole."""
    from onnxplain.jobs import verify

    shards = sorted((out / "shards").iterdir())
    for path in files[::7]:
        flip(path, draw)
        tally.damages["several at once"] += 1
    touched = {path.relative_to(out / "shards").parts[0] for path in files[::7]} - {shards[-1].name}
    shutil.rmtree(shards[-1])
    found = verify(out)
    unseen = [name for name in touched if not any(name in line for line in found)]
    if unseen or not any("missing" in line for line in found):
        tally.wrong.append(f"of several damaged shards {unseen or shards[-1].name} isn't told: {found}")
    plan.job(out).run()
    tally.repaired += 1
    if left := differing(whole, tree(out)):
        tally.wrong.append(f"several at once: not repaired: {', '.join(left[:4])}")


def measure(folder: Path, flips: int, seed: int = 0, repairs_every: int = 1) -> Tally:
    """All of it, in a folder."""
    tally = Tally()
    source = make_pictures(folder / "pictures", 15, 2, seed=seed)
    formats = ("npy", "parquet") if find_spec("pyarrow") else ("npy",)
    for kind in formats:
        output = {"shard_size": 6, "overlays": True, "format": kind}
        plan = Plan(toy_bundle(folder / "toy.explain"), source, ("gradient", "smoothgrad"), output)
        with without_processes():
            damage_all(plan, folder / kind, flips // len(formats), repairs_every, random.Random(seed), tally)
    return tally


def report(tally: Tally) -> str:
    """What was found, in words."""
    kinds = ", ".join(f"{count} {kind}" for kind, count in tally.damages.items())
    lines = [
        f"{sum(tally.damages.values())} damages ({kinds})",
        f"in {len(tally.files)} kinds of files: {', '.join(sorted(tally.files))}",
        f"{tally.repaired} repairs by the same command",
        *(f"WRONG: {line}" for line in tally.wrong[:50]),
        f"failed, {len(tally.wrong)} times" if tally.wrong else "held: all were found and repaired",
    ]
    return "\n".join(lines)


def main(arguments: Any = None) -> int:
    """Damages, and says what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=500, help="flips of a bit")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        tally = measure(Path(folder), given.count, given.seed)
    print(report(tally))
    return 1 if tally.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
