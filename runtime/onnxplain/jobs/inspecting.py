"""Looking into a job's folder: where it stands, and whether it is as it was written."""

import json
import os
from pathlib import Path
from typing import Any

from onnxplain.bundle_files import sha256_of
from onnxplain.errors import BundleError, OutputError
from onnxplain.jobs import shards, storage
from onnxplain.jobs.description import read_description
from onnxplain.jobs.listing import FILE as LIST
from onnxplain.jobs.summary import SUMMARY


def status(out: str | os.PathLike[str]) -> dict[str, Any]:
    """Where a job stands: `running`, `complete`, and counts of shards and pictures. OutputError where there is none."""
    folder = Path(out)
    there = read_description(folder)
    if there is None:
        raise OutputError(f"{folder} holds no job")
    numbers = shards.finished(folder)
    total = there.source.get("pictures")
    counts = [counted(folder, number) for number in numbers]
    done, failed = sum(pictures for pictures, _ in counts), sum(lost for _, lost in counts)
    return {
        "running": not storage.is_alone(folder),
        "complete": (folder / SUMMARY).exists(),
        "methods": list(there.methods),
        "pictures": total,
        "done": done,
        "explained": done - failed,
        "failed": failed,
        "shards": len(numbers),
        "shards_in_all": None if total is None else -(-total // there.output.shard_size),
    }


def verify(out: str | os.PathLike[str]) -> list[str]:
    """What is wrong in a job's folder, a line each: every byte of what is finished is read and checked."""
    folder = Path(out)
    there = read_description(folder)
    if there is None:
        raise OutputError(f"{folder} holds no job")
    numbers = shards.finished(folder)
    found = [wrong for number in numbers if (wrong := shards.damage(shards.shard_folder(folder, number), number))]
    total = there.source.get("pictures")
    if (folder / SUMMARY).exists() and total is not None:
        missing = sorted(set(range(-(-total // there.output.shard_size))) - set(numbers))
        found += [f"shard {number} is missing" for number in missing]
    if there.source.get("kind") == "files" and _sha256(folder / LIST) != there.source["sha256"]:
        found.append(f"{folder / LIST} was altered")
    return found


def _sha256(path: Path) -> str | None:
    """A file's SHA-256; None for one that can't be read."""
    try:
        return sha256_of(path)
    except BundleError:
        return None


def counted(out: Path, number: int) -> tuple[int, int]:
    """The pictures of a finished shard, and how many of them failed; none where it can't be read."""
    try:
        about = json.loads((shards.shard_folder(out, number) / shards.MANIFEST).read_text(encoding="utf-8"))
        return int(about["pictures"]), int(about["failed"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0, 0
