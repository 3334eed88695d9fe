"""Where a job's pictures come from. Each kind of source has a file of its own here."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from onnxplain.errors import ParameterError
from onnxplain.jobs.items import Source
from onnxplain.jobs.sources.files import Files
from onnxplain.jobs.sources.iterables import InMemory

ClassOf = Callable[[int | str], int]
"""The number of a class from its number or name; ParameterError where there is no such class."""


def find_source(given: Any, labels: Any, class_of: ClassOf, columns: Mapping[str, str]) -> Source:
    """The source that `given` names: paths of folders, patterns, lists and archives, or pictures in memory.

    `labels` says where true classes are: "folders" (the name of a picture's folder), a CSV file of names and classes,
    a mapping, or None. `columns` name what a table's columns or a mapping's keys hold: image, label and name.
    """
    paths = _paths(given)
    if paths is None:
        return InMemory(given, columns, class_of)
    return Files(paths, labels, class_of)


def _paths(given: Any) -> list[Path] | None:
    """The paths that are given, None where it is something else."""
    if isinstance(given, str | os.PathLike):
        return [Path(given)]
    if isinstance(given, Sequence) and not isinstance(given, np.ndarray | bytes):
        if not given:
            raise ParameterError("the source is empty")
        if all(isinstance(entry, str | os.PathLike) for entry in given):
            return [Path(entry) for entry in given]
    if not isinstance(given, Iterable):
        raise ParameterError(f"{type(given).__name__} is no source of pictures: give paths, or an iterable of pictures")
    return None
