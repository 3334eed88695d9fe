"""Pictures in WebDataset shards: tar archives in which the files of one picture follow each other and share a key."""

import json
import os
import re
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from onnxplain.errors import ParameterError, PictureError
from onnxplain.jobs.items import Item, Part
from onnxplain.jobs.sources.labels import COLUMNS, number_or_name
from onnxplain.pictures import SUFFIXES

PACKED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst")
KEY = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]+)", re.DOTALL)
"""A member's key, its path up to the first dot of its own name, and what follows."""
MOST_BESIDE = 10_000_000
"""Bytes of a .json or .cls file beside a picture."""


def is_archive(path: Path) -> bool:
    """Whether a path is named like an archive, packed ones included."""
    return path.name.lower().endswith((".tar", *PACKED))


def archived(path: Path, columns: Mapping[str, str]) -> Iterator[tuple[Item, str]]:
    """The pictures of an archive, their true classes as they stand beside them, and their names within it.

    A true class is the content of `.cls`, or an entry of `.json` (label, cls or class). Where a key has several
    pictures, `columns["image"]` names the one by what follows the key. PictureError, with the archive's name, for one
    that is packed, damaged or cut off, ParameterError where a key's picture or class can't be told.
    """
    group = _Group("")
    for tar, member in _members(path):
        name = member.name.removeprefix("./")
        parts = KEY.fullmatch(name)
        if parts is None or member.isdir():
            continue
        key, ending = parts[1], parts[2].lower()
        if key != group.key:
            yield from group.items(path, columns)
            group = _Group(key)
        if f".{ending.rsplit('.', 1)[-1]}" in SUFFIXES:
            group.pictures[ending] = (name, _content(path, name, member))
        elif ending in ("cls", "json"):
            group.beside[ending] = _read(path, tar, member)
    yield from group.items(path, columns)


@dataclass(slots=True)
class _Group:
    """The members of one key."""

    key: str
    pictures: dict[str, tuple[str, Part | str]] = field(default_factory=dict)
    beside: dict[str, bytes] = field(default_factory=dict)

    def items(self, path: Path, columns: Mapping[str, str]) -> Iterator[tuple[Item, str]]:
        label = self._label(path, columns)
        wanted = columns.get("image", "").lower().lstrip(".")
        endings = [ending for ending in self.pictures if ending == wanted] or list(self.pictures)
        if len(endings) > 1:
            raise ParameterError(
                f"{path}: {self.key} has several pictures ({', '.join(endings)}); "
                f"name one of them by columns={{'image': {endings[0]!r}}}"
            )
        if not endings and label is not None:
            raise ParameterError(
                f"{path}: {self.key} has a class and no picture beside it; the files of one picture must follow each "
                "other (tar --sort=name)"
            )
        for ending in endings:
            name, content = self.pictures[ending]
            yield Item(f"{path}/{name}", content, label), name

    def _label(self, path: Path, columns: Mapping[str, str]) -> Any:
        if "cls" in self.beside:
            return number_or_name(self.beside["cls"].decode("utf-8", "backslashreplace"))
        if "json" not in self.beside:
            return None
        try:
            about = json.loads(self.beside["json"])
        except (ValueError, RecursionError) as error:
            raise PictureError(f"{path}: {self.key}.json is damaged: {error}") from error
        names = [columns["label"]] if "label" in columns else COLUMNS
        return next((about[name] for name in names if name in about), None) if isinstance(about, dict) else None


def _content(path: Path, name: str, member: tarfile.TarInfo) -> Part | str:
    """Where a picture's bytes are, or why they can't be read in place."""
    if not member.isreg():
        return f"{path}/{name}: is no regular file of the archive"
    if member.issparse():
        return f"{path}/{name}: is stored in pieces; unpack the archive"
    return Part(path, member.offset_data, member.size)


def _read(path: Path, tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    if member.size > MOST_BESIDE:
        raise PictureError(f"{path}: {member.name} has {member.size} bytes, too many for what stands beside a picture")
    try:
        file = tar.extractfile(member)
        data = b"" if file is None else file.read()
    except (tarfile.TarError, KeyError, OSError) as error:
        raise PictureError(f"{path}: {member.name} can't be read: {error}") from error
    if len(data) < member.size:
        raise PictureError(f"{path}: the archive is cut off within {member.name}")
    return data


def _members(path: Path) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """An archive's members, to its very end: tarfile takes any damage there for the end."""
    if path.name.lower().endswith(PACKED):
        raise PictureError(f"{path}: is packed; unpack it to .tar first (gunzip and the like), to be read in place")
    if not os.path.lexists(path):
        raise PictureError(f"{path}: no such file or folder")
    if not path.is_file():  # opening a pipe would wait for ever
        raise PictureError(f"{path}: is not a regular file")
    try:
        with open(path, "rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            while (member := tar.next()) is not None:
                cast(Any, tar).members.clear()  # which would hold every member
                yield tar, member
            _check_end(path, file, tar.offset)
    except (tarfile.TarError, OSError, ValueError, OverflowError) as error:
        raise PictureError(f"{path}: the archive is packed, damaged or cut off: {error}") from error


def _check_end(path: Path, file: Any, at: int) -> None:
    """PictureError unless zeros follow, at least a block of them."""
    file.seek(at)
    data = file.read(tarfile.BLOCKSIZE)
    if len(data) < tarfile.BLOCKSIZE or any(data):
        raise PictureError(f"{path}: the archive is damaged or cut off at byte {at}")
    while data := file.read(1 << 20):
        if any(data):
            raise PictureError(f"{path}: more follows after the archive's end at byte {at}; are these several in one?")
