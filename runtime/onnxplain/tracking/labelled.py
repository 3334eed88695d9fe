"""Pictures whose true classes are known: in a folder for each class, or in a CSV file of paths and classes."""

import csv
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from onnxplain.bundle import Bundle
from onnxplain.errors import ParameterError, PictureError
from onnxplain.jobs.sources.labels import COLUMNS, number_or_name
from onnxplain.pictures import SUFFIXES, find_pictures
from onnxplain.targets import class_of, name_of


@dataclass(frozen=True, slots=True)
class Labelled:
    """N pictures with the names or numbers of their classes, as a folder's or a file's author wrote them.

    `source` is the folder or file; `folders` are those of all classes, none for a file. `left_out` counts pictures in
    no class.
    """

    source: Path
    pictures: Sequence[Path]
    classes: Sequence[int | str]
    folders: Sequence[str] = ()
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class Matched:
    """The numbers [N] of the pictures' classes in a network, and what each of its classes is called.

    `note` says what had to be assumed, "" where nothing was.
    """

    numbers: NDArray[np.int64]
    names: Mapping[int, str]
    note: str = ""


def labelled_pictures(source: str | os.PathLike[str]) -> Labelled:
    """The pictures below a folder with a folder for each class, or those that a CSV file names with their classes.

    The lines of a CSV file are path,label, the path relative to the file's own folder; a heading is left out. Raises
    PictureError where there are no pictures or a file is missing, ParameterError where classes can't be told.
    """
    path = Path(source)
    if path.is_dir():
        return _in_folders(path)
    if not path.exists():
        raise PictureError(f"{path}: no such file or folder; give a folder with a folder for each class, or a CSV file")
    if path.suffix.lower() in SUFFIXES:
        raise ParameterError(f"{path} is one picture; give a folder with a folder for each class, or a CSV file")
    return _in_table(path)


def _in_folders(path: Path) -> Labelled:
    pictures = find_pictures(path)  # says that there are none
    folders = sorted(each.name for each in path.iterdir() if each.is_dir() and not each.name.startswith("."))
    places = [picture.relative_to(path).parts for picture in pictures]
    inside = [(picture, parts[0]) for picture, parts in zip(pictures, places, strict=True) if len(parts) > 1]
    if not inside:
        raise ParameterError(
            f"{path}: {len(pictures)} pictures, and no folder for each class; metrics need to know what a picture "
            "shows: sort them into folders, or give a CSV file of path,label"
        )
    chosen, classes = [each for each, _ in inside], [name for _, name in inside]
    return Labelled(path, chosen, classes, folders, len(pictures) - len(inside))


def _in_table(path: Path) -> Labelled:
    rows = _rows(path)
    pictures = [path.parent / row[0].strip() for _, row in rows]
    missing = [number for (number, _), picture in zip(rows, pictures, strict=True) if not os.path.lexists(picture)]
    if missing:
        first = next(picture for (number, _), picture in zip(rows, pictures, strict=True) if number == missing[0])
        others = f" ({len(missing)} of its {len(rows)} files are missing)" if len(missing) > 1 else ""
        raise PictureError(f"{path}, line {missing[0]}: {first} is not there; paths begin at {path.parent}{others}")
    return Labelled(path, pictures, [number_or_name(row[1]) for _, row in rows])


def _rows(path: Path) -> list[tuple[int, list[str]]]:
    """The lines of a CSV file with their numbers, without the heading and empty lines."""
    try:
        with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as lines:
            reader = csv.reader(lines)
            rows = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except (OSError, csv.Error) as error:
        raise ParameterError(f"{path} can't be read as a CSV file: {error}") from None
    for number, row in rows:
        if len(row) < 2 or not row[0].strip() or not row[1].strip():
            raise ParameterError(f"{path}, line {number}: needs a path and a class, as cats/1.png,cat")
    if rows and rows[0][1][1].strip().lower() in (*COLUMNS, "target"):
        rows = rows[1:]
    if not rows:
        raise PictureError(f"{path}: names no pictures")
    return rows


def matched(found: Labelled, bundle: Bundle) -> Matched:
    """The classes as a network numbers them; ParameterError for one that it doesn't have.

    A name is a class's label, or else its number. Where the network has no labels, and as many classes as there are
    folders, those are taken in alphabetical order, as training frameworks number them; the note says so.
    """
    output = bundle.scores
    count, labels = int(output.classes or 0), output.labels
    distinct = sorted(set(found.classes), key=str)
    if labels is None and found.folders and not all(name.isdecimal() for name in found.folders):
        _refuse_mixed(found)
        return _alphabetical(found, count, bundle)
    numbers = {name: _number(found, name, count, labels) for name in distinct}
    return Matched(np.array([numbers[name] for name in found.classes], np.int64), _told_apart(count, labels))


def _refuse_mixed(found: Labelled) -> None:
    """ParameterError where some folders have numbers and others names: a slip, which would move classes."""
    named = [name for name in found.folders if not name.isdecimal()]
    if len(named) < len(found.folders):
        raise ParameterError(
            f"{found.source}: the folder {named[0]!r} has a name and others have numbers; call all of them by the "
            "classes' numbers, or all by names"
        )


def _told_apart(count: int, labels: Sequence[str] | None) -> dict[int, str]:
    """The classes' names; where several share one (ImageNet has two cranes), with their numbers."""
    names = [name_of(number, labels) for number in range(count)]
    times = Counter(names)
    return {number: f"{name} ({number})" if times[name] > 1 else name for number, name in enumerate(names)}


def _number(found: Labelled, name: int | str, count: int, labels: Sequence[str] | None) -> int:
    text = str(name)
    try:
        if labels is not None and any(text.strip().casefold() == label.strip().casefold() for label in labels):
            return class_of(text, count, labels)
        return class_of(int(text) if text.isdecimal() else text, count, labels)
    except ParameterError as error:
        where = str(found.source / text) if found.folders else f"{found.source}, {_pictures_of(found, name)}"
        raise ParameterError(f"{where}: {str(error).replace('target', 'class', 1)}") from None


def _pictures_of(found: Labelled, name: int | str) -> str:
    times = Counter(found.classes)[name]
    picture = found.pictures[list(found.classes).index(name)].name
    return f"{picture}{f' and {times - 1} more' if times > 1 else ''}"


def _alphabetical(found: Labelled, count: int, bundle: Bundle) -> Matched:
    names = found.folders
    if len(names) != count:
        raise ParameterError(
            f"{found.source}: {len(names)} folders of classes, but {bundle.name} has {count} classes without names; "
            "call the folders by the classes' numbers, or name the classes when the bundle is made (--labels FILE)"
        )
    numbers: dict[int | str, int] = {name: number for number, name in enumerate(names)}
    note = f"{bundle.name} doesn't name its classes: the folders are taken for them in alphabetical order"
    note += f" ({names[0]} = 0, …, {names[-1]} = {count - 1})"
    return Matched(np.array([numbers[name] for name in found.classes], np.int64), dict(enumerate(names)), note)
