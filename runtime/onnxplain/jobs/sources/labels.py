"""True classes: by a picture's folder, a table, or what an archive or a data set says, as the network's numbers."""

import csv
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from onnxplain.errors import ParameterError

ClassOf = Callable[[int | str], int]
"""The number of a class from its number or name; ParameterError where there is no such class."""
FOLDERS, NONE = "folders", "none"
COLUMNS = ("label", "cls", "class")
"""What a table's column or a mapping's key with the true class is called, if nothing else is said."""
NUMBER = re.compile(r"-?[0-9]+")
OPT_OUT = "labels='none' leaves true classes out"


class Labels:
    """The true classes of pictures in files: "folders", a CSV file of names and classes, a mapping, "none", or None.

    Without any, what stands in an archive beside a picture counts.
    """

    def __init__(self, labels: Any, class_of: ClassOf) -> None:
        self._class_of = class_of
        self._folders, self._own = labels == FOLDERS, labels is None
        self._table: Mapping[str, Any] | None = None
        if isinstance(labels, Mapping):
            self._table = labels
        elif isinstance(labels, str | os.PathLike) and labels not in (FOLDERS, NONE):
            self._table = _table(Path(labels))
        elif labels is not None and not isinstance(labels, str):
            raise ParameterError(f"labels={labels!r} must be 'folders', 'none', a CSV file or a mapping")
        self._bare: dict[str, str] = {}
        self._matched = False

    def of(self, name: str, inner: str, own: Any = None) -> int | None:
        """The true class of a picture, None where it isn't known; ParameterError where there is no such class.

        `inner` is its path within the folder or archive that was named, `own` what stands there beside it.
        """
        if self._folders:
            return true_class(name, _of_folder(PurePath(name).parent.name, self._class_of), self._class_of)
        if self._table is not None:
            return true_class(name, self._listed(name, inner), self._class_of)
        return true_class(name, own, self._class_of) if self._own else None

    def check(self) -> None:
        """After all pictures: ParameterError where a table names none of them."""
        if self._table is not None and not self._matched:
            some = next(iter(self._table), None)
            raise ParameterError(f"the labels name none of the source's pictures; the first is for {some!r}")

    def _listed(self, name: str, inner: str) -> Any:
        assert self._table is not None
        bare = PurePath(inner).name
        key = next((key for key in (name, inner, bare) if key in self._table), None)
        if key is None:
            return None
        self._matched = True
        if key == bare and bare not in (name, inner) and self._bare.setdefault(bare, name) != name:
            raise ParameterError(f"the label of {bare!r} fits both {self._bare[bare]} and {name}; write their paths")
        return self._table[key]


def true_class(name: str, label: Any, class_of: ClassOf) -> int | None:
    """The number of the class that a label says; None for no label (None, NaN).

    `name` is the picture's, for the ParameterError where there is no such class.
    """
    try:
        value = _plain(label)
        return None if value is None else class_of(value)
    except ParameterError as error:
        raise ParameterError(f"the true class of {name}: {error}; {OPT_OUT}") from error


def number_or_name(text: str) -> int | str:
    """A class as it is written in files: a number where it is one."""
    text = text.strip()
    return int(text) if NUMBER.fullmatch(text) else text


def translation(names: Sequence[str], class_of: ClassOf) -> Callable[[Any], Any]:
    """What turns the numbers of a data set's own classes, of these names, into labels of the network's; -1 is none.

    The names decide where the network has them all. Where it has as many classes, and none of the names under another
    number, the numbers are taken as they are (its labels may be worded otherwise); else ParameterError.
    """
    found = {number: there for number, name in enumerate(names) if (there := _tried(name, class_of)) is not None}
    if len(found) == len(names):
        by_number: dict[Any, int] = dict(found)
        return lambda label: None if _plain(label) == -1 else by_number.get(_plain(label), label)
    as_many = _tried(len(names) - 1, class_of) is not None and _tried(len(names), class_of) is None
    if as_many and all(number == there for number, there in found.items()):
        return lambda label: None if _plain(label) == -1 else label
    missing = next(name for number, name in enumerate(names) if number not in found)
    raise ParameterError(f"the data set's classes aren't the network's, which has no {missing!r}; {OPT_OUT}")


def _tried(label: int | str, class_of: ClassOf) -> int | None:
    try:
        return class_of(label)
    except ParameterError:
        return None


def _plain(label: Any) -> int | str | None:
    """A number, a name, or None, from arrays of one number, floats of tables with gaps, and bytes too."""
    unwrap = getattr(label, "item", None)
    try:
        value = unwrap() if callable(unwrap) else label
    except (ValueError, RuntimeError):  # several numbers
        value = label
    if isinstance(value, bytes):
        value = number_or_name(value.decode("utf-8", "backslashreplace"))
    if isinstance(value, float):
        value = None if math.isnan(value) else int(value) if value.is_integer() else value
    if value is None or (isinstance(value, int | str) and not isinstance(value, bool)):
        return value
    raise ParameterError(f"{str(value)[:40]!r} ({type(value).__name__}) is no class number or name")


def _of_folder(name: str, class_of: ClassOf) -> int | str:
    """A folder's class: by its name, or by its number where no class has that name."""
    number = number_or_name(name)
    return number if isinstance(number, int) and _tried(name, class_of) is None else name


def _table(path: Path) -> dict[str, int | str]:
    """Names and classes from a CSV file of two columns, with or without a heading (name,label)."""
    try:
        with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as lines:
            rows = [row for row in csv.reader(lines) if row]
    except (OSError, csv.Error) as error:
        raise ParameterError(f"the labels {path} can't be read: {error}") from error
    wrong = next((number for number, row in enumerate(rows, 1) if len(row) < 2), None)
    if wrong is not None or not rows:
        raise ParameterError(f"the labels {path} need two columns, a picture's name and its class (row {wrong or 1})")
    if rows[0][1].strip().lower() in (*COLUMNS, "target"):
        rows = rows[1:]
    table: dict[str, int | str] = {}
    for row in rows:
        label = number_or_name(row[1])
        if table.setdefault(row[0], label) != label:
            raise ParameterError(f"the labels {path} give {row[0]} two classes, {table[row[0]]} and {label}")
    return table
