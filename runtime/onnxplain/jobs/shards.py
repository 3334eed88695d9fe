"""A shard of a job: a folder with the maps of some hundred pictures, there whole or not at all, and how to check it.

shards/00000003/
    index.jsonl         a line for each picture that was explained: what it is, what the network says, its maps'
                        rows, checksums and statistics
    failures.jsonl      a line for each that couldn't be
    METHOD.npy          the maps; row i is picture `first` + i, all NaN for one that failed
    maps.parquet        in their place, where Parquet was asked for: a row for each picture that was explained
    thumbnails.jpg      the pictures, small; thumbnails.METHOD.jpg their maps
    overlays/           a PNG file for each picture and method, where asked for
    shard.json          what is in the folder, with the files' checksums
"""

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.jobs import storage

FOLDER, INDEX, FAILURES, MANIFEST = "shards", "index.jsonl", "failures.jsonl", "shard.json"
THUMBNAILS = "thumbnails.jpg"
OVERLAYS = "overlays"
HEADER = 128
"""Bytes before the numbers of a .npy file."""
FORMAT = 1


@dataclass(frozen=True, slots=True)
class Entry:
    """What came of one picture: its line of the index (or of the failures), and what else is written for it."""

    line: Mapping[str, Any]
    failed: bool = False
    overlays: Mapping[str, bytes] | None = None


def shard_folder(job: Path, number: int) -> Path:
    """Where a shard of a job is."""
    return job / FOLDER / f"{number:08d}"


def finished(job: Path) -> list[int]:
    """The numbers of the shards that are there, in order."""
    folder = job / FOLDER
    if not folder.is_dir():
        return []
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal())


def lines(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a .jsonl file."""
    with open(path, encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def jsonl(entries: Sequence[Mapping[str, Any]]) -> bytes:
    """Plain data as lines."""
    text = "".join(json.dumps(entry, ensure_ascii=False, allow_nan=False) + "\n" for entry in entries)
    return text.encode("utf-8", "backslashreplace")


def npy_header(shape: Sequence[int], dtype: Any) -> bytes:
    """The first bytes of a .npy file of this shape, always HEADER of them."""
    text = repr({"descr": np.dtype(dtype).newbyteorder("<").str, "fortran_order": False, "shape": tuple(shape)})
    magic = b"\x93NUMPY\x01\x00" + (HEADER - 10).to_bytes(2, "little")
    return magic + text.encode().ljust(HEADER - len(magic) - 1) + b"\n"


def digest(data: Any) -> str:
    """The SHA-256 of bytes or of an array's."""
    if isinstance(data, np.ndarray):
        data = np.ascontiguousarray(data).reshape(-1).view(np.uint8)
    return hashlib.sha256(data).hexdigest()


class MapFile:
    """A .npy file that is written row by row, its number of rows known at the end."""

    def __init__(self, path: Path, shape: Sequence[int], dtype: str) -> None:
        self._shape, self._dtype = tuple(shape), np.dtype(dtype)
        self._row = int(np.prod(shape, dtype=np.int64)) * self._dtype.itemsize
        self._file = storage.Growing(path)
        self._lock = threading.Lock()

    def put(self, row: int, values: NDArray[Any]) -> None:
        """Writes the maps of consecutive pictures, [n, *shape], the first at this row."""
        data = np.ascontiguousarray(values, self._dtype)
        with self._lock:
            self._file.write(data, HEADER + row * self._row)

    def sync(self) -> None:
        """Puts what was written so far on the disk."""
        self._file.sync()
        self._file.forget()

    def finish(self, rows: int) -> None:
        """Writes the head and waits for the disk."""
        self._file.write(npy_header((rows, *self._shape), self._dtype), 0)
        self.sync()
        self.close()

    def close(self) -> None:
        """Closes the file; OutputError where only now it turns out that something couldn't be written."""
        self._file.close()

    def drop(self) -> None:
        """Closes the file without a word, after an error elsewhere."""
        self._file.drop()


def manifest(
    number: int,
    first: int,
    entries: Sequence[Entry],
    maps: Mapping[str, Mapping[str, Any]],
    files: Mapping[str, bytes],
    written: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """The content of shard.json; of files that are `written` already, the sizes and hashes are given."""
    sums = {name: {"bytes": len(data), "sha256": digest(data)} for name, data in files.items()}
    failed = sum(entry.failed for entry in entries)
    content = {
        "format": FORMAT,
        "shard": number,
        "first": first,
        "pictures": len(entries),
        "explained": len(entries) - failed,
        "failed": failed,
        "maps": {name: dict(about) for name, about in maps.items()},
        "files": dict(sorted({**sums, **written}.items())),
    }
    return {**content, "sha256": digest(storage.json_bytes(content))}


def damage(folder: Path, number: int) -> str | None:
    """What is wrong with a shard, None where nothing is: every byte of it is read."""
    try:
        return _damage(folder, number)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{folder}: {type(error).__name__}: {error}"


def _damage(folder: Path, number: int) -> str | None:
    data = (folder / MANIFEST).read_bytes()
    about = json.loads(data)
    content = {name: value for name, value in about.items() if name != "sha256"}
    if data != storage.json_bytes(about) or about["sha256"] != digest(storage.json_bytes(content)):
        return f"{folder / MANIFEST} was altered"
    if about["shard"] != number:
        return f"{folder} holds shard {about['shard']}"
    for name, file in about["files"].items():
        with open(folder / name, "rb") as opened:
            if hashlib.file_digest(opened, "sha256").hexdigest() != file["sha256"]:
                return f"{folder / name} was altered"
    there = {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}
    expected = {MANIFEST, *about["files"], *(one["file"] for one in about["maps"].values())}
    if there != expected:
        odd = sorted(there - expected) or sorted(expected - there)
        return f"{folder}: {', '.join(odd[:3])} should{' not' if there - expected else ''} be there"
    for method, one in about["maps"].items():
        if one["file"] not in about["files"] and (wrong := _wrong_map(folder, method, one, about)):
            return wrong
    return None


def _wrong_map(folder: Path, method: str, one: Mapping[str, Any], about: Mapping[str, Any]) -> str | None:
    path, dtype = folder / one["file"], np.dtype(one["dtype"])
    row = int(np.prod(one["shape"], dtype=np.int64)) * dtype.itemsize
    if path.stat().st_size != HEADER + about["pictures"] * row:
        return f"{path} was cut or lengthened"
    known = {line["number"] - about["first"]: line[f"{method}.sha256"] for line in lines(folder / INDEX)}
    nothing = digest(np.full(one["shape"], np.nan, dtype))
    with open(path, "rb") as file:
        if file.read(HEADER) != npy_header((about["pictures"], *one["shape"]), dtype):
            return f"the head of {path} was altered"
        for number in range(about["pictures"]):
            if digest(file.read(row)) != known.get(number, nothing):
                return f"{path} was altered at picture {about['first'] + number}"
    return None
