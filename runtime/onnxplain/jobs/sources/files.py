"""Pictures in files: folders with all below them, patterns, archives, single files, and lists of files."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from onnxplain.errors import PictureError
from onnxplain.jobs.items import Item
from onnxplain.jobs.sources.archives import archived, is_archive
from onnxplain.jobs.sources.labels import ClassOf, Labels
from onnxplain.jobs.sources.walking import below, is_pattern, matching
from onnxplain.pictures import SUFFIXES

LISTS = (".txt", ".lst")


class Files:
    """The pictures that paths name, path by path, a folder's in the order of their names.

    Of a folder without pictures, the archives below it are taken.
    """

    def __init__(self, paths: Sequence[Path], labels: Any, class_of: ClassOf, columns: Mapping[str, str]) -> None:
        self._paths, self._columns = paths, columns
        self._labels = Labels(labels, class_of)

    def __iter__(self) -> Iterator[Item]:
        """All pictures; PictureError where a path isn't there, can't be read, or names none."""
        for path in self._paths:
            found = False
            for item in self._items(path):
                found = True
                yield item
            if not found:
                raise PictureError(f"{path}: no pictures here (looked for {' '.join(sorted(SUFFIXES))} .tar)")
        self._labels.check()

    def _items(self, path: Path) -> Iterator[Item]:
        if path.is_dir():
            found = False
            for file in below(path):
                if is_picture(file):
                    found = True
                    yield self._item(file, str(file.relative_to(path)))
            for file in () if found else below(path):
                if is_archive(file):
                    yield from self._archived(file)
            return
        for file in _files(path):
            if is_archive(file):
                yield from self._archived(file)
            else:
                yield self._item(file, file.name)

    def _archived(self, path: Path) -> Iterator[Item]:
        for item, inner in archived(path, self._columns):
            yield Item(item.name, item.content, self._labels.of(item.name, inner, item.label))

    def _item(self, file: Path, inner: str) -> Item:
        return Item(str(file), file, self._labels.of(str(file), inner))


def is_picture(file: Path) -> bool:
    """Whether a file is named like a picture."""
    return file.suffix.lower() in SUFFIXES


def _files(path: Path) -> Iterator[Path]:
    if path.suffix.lower() in LISTS and path.is_file():
        yield from _listed(path)
    elif os.path.lexists(path):
        yield path
    elif is_pattern(path):
        yield from (file for file in matching(path) if is_picture(file) or is_archive(file))
    else:
        raise PictureError(f"{path}: no such file or folder")


def _listed(path: Path) -> Iterator[Path]:
    """The files that the lines of a list name, relative to the list's own folder; empty lines and # are left out."""
    try:
        with open(path, encoding="utf-8-sig", errors="surrogateescape") as lines:
            for line in lines:
                name = line.rstrip("\r\n")
                if name.strip() and not name.startswith("#"):
                    yield path.parent / name
    except OSError as error:
        raise PictureError(f"{path}: can't be read: {error.strerror or error}") from error
