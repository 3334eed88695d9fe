"""Where a job's pictures come from. Each kind of source has a file of its own here."""

import os
from collections.abc import Iterable, Mapping, Sequence, Set
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from onnxplain.errors import ParameterError, unknown
from onnxplain.jobs.items import Source
from onnxplain.jobs.sources.archives import is_archive
from onnxplain.jobs.sources.files import Files, is_picture
from onnxplain.jobs.sources.finished import Finished
from onnxplain.jobs.sources.iterables import InMemory
from onnxplain.jobs.sources.labels import NONE, ClassOf
from onnxplain.jobs.sources.tables import Tables, is_table
from onnxplain.jobs.sources.walking import below, is_pattern, matching

__all__ = ["ClassOf", "Files", "Finished", "InMemory", "Tables", "find_source"]

COLUMNS = ("image", "label", "name")


def find_source(given: Any, labels: Any, class_of: ClassOf, columns: Mapping[str, str]) -> Source | Files:
    """The source that `given` names: paths of folders, patterns, lists, archives and tables, or pictures in memory.

    `labels` says where true classes are: "folders" (the name of a picture's folder), a CSV file of names and classes,
    a mapping, "none" to leave those out that a source has, or None. `columns` name what a table's columns, a mapping's
    keys or an archive's files hold: image, label and name.
    """
    for column in columns:
        if column not in COLUMNS:
            raise ParameterError(unknown("column", column, COLUMNS))
    class_of = lru_cache(100_000)(class_of)  # names are looked for among all labels
    paths = _paths(given)
    if paths is not None:
        tables = {path: files for path in paths if (files := _tables(path))}
        if not tables:
            return Files(paths, labels, class_of, columns)
        others = [path for path in paths if path not in tables]
        if others:
            raise ParameterError(f"Parquet files ({next(iter(tables))}) and others ({others[0]}) can't share a job")
    if labels is not None and labels != NONE:
        raise ParameterError("labels= are for files; name the column or key with true classes: columns={'label': …}")
    if paths is not None:
        return Tables([file for path in paths for file in tables[path]], columns, class_of, labels is None)
    return InMemory(given, columns, class_of, labels is None)


def _paths(given: Any) -> list[Path] | None:
    """The paths that are given, None where it is something else."""
    if isinstance(given, str | os.PathLike):
        return [Path(given)]
    if isinstance(given, Sequence) and not isinstance(given, np.ndarray | bytes):
        if not given:
            raise ParameterError("the source is empty")
        if isinstance(given, list | tuple) and all(isinstance(entry, str | os.PathLike) for entry in given):
            return [Path(entry) for entry in given]
    _refuse(given)
    return None


def _refuse(given: Any) -> None:
    """ParameterError for what can be gone through, and yet gives no pictures, or none in an order."""
    kind = type(given).__name__
    if isinstance(given, Mapping):
        some = next(iter(given), "train")
        raise ParameterError(
            f"a {kind} is no source of pictures: give one of its entries ({some!r}), or a list of them"
        )
    if isinstance(given, Set):
        raise ParameterError(f"a {kind} has no order, which a job needs: give a list")
    if isinstance(given, bytes | bytearray):
        raise ParameterError("these are the bytes of one picture: give a list of them")
    for method, hint in (("iloc", "to_dict('records')"), ("to_dicts", "to_dicts()"), ("to_pylist", "to_pylist()")):
        if hasattr(given, method):
            raise ParameterError(f"a {kind} is no source of pictures: give its rows, .{hint}, or its Parquet file")
    if isinstance(given, np.ndarray) and (given.ndim < 2 or (given.ndim == 3 and given.shape[-1] in (1, 3))):
        raise ParameterError(f"an array {list(given.shape)} is one picture at most: give [N, H, W, 3], or a list")
    numbered = hasattr(given, "__getitem__") and hasattr(given, "__len__")
    if not numbered and not isinstance(given, Iterable):
        raise ParameterError(f"{kind} is no source of pictures: give paths, or an iterable of pictures")


def _tables(path: Path) -> list[Path]:
    """The Parquet files that a path names; of a folder or pattern that names pictures or archives too, none."""
    if not path.is_dir() and not is_pattern(path):
        return [path] if is_table(path) else []
    found = []
    for file in below(path) if path.is_dir() else matching(path):
        if is_picture(file) or is_archive(file):
            return []
        if is_table(file):
            found.append(file)
    return found
