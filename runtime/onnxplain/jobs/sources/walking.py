"""Files below folders and those that patterns match, in an order that doesn't depend on the file system."""

import errno
import fnmatch
import glob
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from onnxplain.errors import PictureError


def below(folder: Path, enters: Callable[[Path], bool] | None = None) -> Iterator[Path]:
    """The files below a folder: its own in the order of their names, then those of its subfolders likewise.

    Hidden ones are left out, and subfolders that `enters` refuses. Links are followed, but not one to a folder that
    holds it, whose files are there already. PictureError for a folder that can't be read.
    """
    waiting: list[tuple[Path, Any]] = [(folder, ())]
    while waiting:
        folder, above = waiting.pop()
        files, folders, identity = _content(folder)
        if _among(identity, above):
            continue
        if enters is not None:
            folders = [name for name in folders if enters(folder / name)]
        for name in files:
            yield folder / name
        waiting += [(folder / name, (identity, above)) for name in reversed(folders)]


def matching(pattern: Path) -> Iterator[Path]:
    """The files that a pattern (`*`, `?`, `[…]`, `**` for any depth) matches, in the order of `below`."""
    plain = next(number for number, part in enumerate(pattern.parts) if glob.has_magic(part))
    root, wanted = Path(*pattern.parts[:plain]), pattern.parts[plain:]
    if root.is_dir():
        for file in below(root, lambda folder: _leads(folder.relative_to(root).parts, wanted)):
            if _fits(file.relative_to(root).parts, wanted):
                yield file


def is_pattern(path: Path) -> bool:
    """Whether a path is a pattern, and no file or folder of that very name."""
    return glob.has_magic(str(path)) and not os.path.lexists(path)


def _content(folder: Path) -> tuple[list[str], list[str], tuple[int, int]]:
    """The names of a folder's files and folders, each in order, and what tells it from other folders."""
    files: list[str] = []
    folders: list[str] = []
    try:
        about = os.stat(folder)
        with os.scandir(folder) as entries:
            for entry in entries:
                if not entry.name.startswith("."):
                    (folders if _is_folder(entry) else files).append(entry.name)
    except OSError as error:
        raise PictureError(f"{folder}: can't be read: {error.strerror or error}") from error
    files.sort()
    folders.sort()
    return files, folders, (about.st_dev, about.st_ino)


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError as error:
        if error.errno == errno.ELOOP:  # a link to itself: a file that can't be read
            return False
        raise


def _among(identity: tuple[int, int], above: Any) -> bool:
    while above:
        one, above = above
        if one == identity:
            return True
    return False


def _fits(names: Sequence[str], parts: Sequence[str]) -> bool:
    """Whether a pattern's parts match all of these names."""
    if not parts:
        return not names
    if parts[0] == "**":
        return any(_fits(names[skipped:], parts[1:]) for skipped in range(len(names) + 1))
    return bool(names) and fnmatch.fnmatch(names[0], parts[0]) and _fits(names[1:], parts[1:])


def _leads(names: Sequence[str], parts: Sequence[str]) -> bool:
    """Whether files in the folder of these names may match."""
    if not names or (parts and parts[0] == "**"):
        return bool(parts)
    return bool(parts) and fnmatch.fnmatch(names[0], parts[0]) and _leads(names[1:], parts[1:])
