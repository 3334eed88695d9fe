"""Pictures in files: folders with all below them, patterns, single files, and lists of files."""

import csv
import glob
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from onnxplain.errors import ParameterError, PictureError
from onnxplain.jobs.items import Item
from onnxplain.pictures import SUFFIXES

LISTS = (".txt", ".lst")


class Files:
    """The pictures that paths name, path by path, a folder's in the order of their names."""

    def __init__(self, paths: Sequence[Path], labels: Any, class_of: Callable[[int | str], int]) -> None:
        self._paths, self._class_of = paths, class_of
        self._label = _labels(labels)

    def __iter__(self) -> Iterator[Item]:
        """All pictures; PictureError where a path isn't there, can't be read, or names none."""
        for path in self._paths:
            found = False
            for file in _files(path):
                found = True
                yield self._item(file)
            if not found:
                raise PictureError(f"{path}: no pictures here (looked for {' '.join(sorted(SUFFIXES))})")

    def _item(self, file: Path) -> Item:
        label = self._label(file)
        try:
            return Item(str(file), file, None if label is None else self._class_of(label))
        except ParameterError as error:
            raise ParameterError(f"the true class of {file}: {error}") from error


def _files(path: Path) -> Iterator[Path]:
    if path.is_dir():
        yield from _below(path)
    elif path.suffix.lower() in LISTS and path.is_file():
        yield from _listed(path)
    elif os.path.lexists(path):
        yield path
    elif glob.has_magic(str(path)):
        # Sorted, since a pattern's matches come in the order of the file system.
        yield from sorted(file for file in map(Path, glob.iglob(str(path), recursive=True)) if _is_picture(file))
    else:
        raise PictureError(f"{path}: no such file or folder")


def _below(folder: Path) -> Iterator[Path]:
    """A folder's pictures, then those of its subfolders, each in the order of names; one folder in memory at a time."""
    try:
        with os.scandir(folder) as entries:
            found = sorted((entry.name, entry.is_dir()) for entry in entries if not entry.name.startswith("."))
    except OSError as error:
        raise PictureError(f"{folder}: can't be read: {error.strerror or error}") from error
    for name, is_folder in found:
        if not is_folder and Path(name).suffix.lower() in SUFFIXES:
            yield folder / name
    for name, is_folder in found:
        if is_folder:
            yield from _below(folder / name)


def _is_picture(file: Path) -> bool:
    return file.suffix.lower() in SUFFIXES and file.is_file()


def _listed(path: Path) -> Iterator[Path]:
    """The files that the lines of a list name, relative to the list's own folder; empty lines and # are left out."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as lines:
            for line in lines:
                name = line.rstrip("\r\n")
                if name.strip() and not name.startswith("#"):
                    yield path.parent / name
    except OSError as error:
        raise PictureError(f"{path}: can't be read: {error.strerror or error}") from error


def _labels(labels: Any) -> Callable[[Path], int | str | None]:
    """What finds a file's true class."""
    if labels is None:
        return lambda file: None
    if labels == "folders":
        return lambda file: file.parent.name
    table = labels if isinstance(labels, Mapping) else _table(Path(labels))
    return lambda file: table.get(str(file), table.get(file.name))


def _table(path: Path) -> dict[str, int | str]:
    """Names and classes from a CSV file of two columns, with or without a heading (name,label)."""
    try:
        with open(path, encoding="utf-8", newline="") as lines:
            rows = [row for row in csv.reader(lines) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ParameterError(f"the labels {path} can't be read: {error}") from error
    wrong = next((number for number, row in enumerate(rows, 1) if len(row) < 2), None)
    if wrong is not None or not rows:
        raise ParameterError(f"the labels {path} need two columns, a picture's name and its class (row {wrong or 1})")
    if rows[0][1].strip().lower() in ("label", "class", "target"):
        rows = rows[1:]
    return {row[0]: number_or_name(row[1]) for row in rows}


def number_or_name(text: str) -> int | str:
    """A class as it is written in files: a number where it is one."""
    text = text.strip()
    return int(text) if text.lstrip("-").isdecimal() else text
