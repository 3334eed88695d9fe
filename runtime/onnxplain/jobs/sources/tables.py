"""Pictures in Parquet files: a column of encoded pictures, of structs as Hugging Face writes them, or of paths."""

import hashlib
import json
import os
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onnxplain.errors import ParameterError, PictureError, unknown
from onnxplain.jobs.items import Item
from onnxplain.jobs.sources.entries import Missing, content_of
from onnxplain.jobs.sources.iterables import IMAGES, NAMES
from onnxplain.jobs.sources.labels import COLUMNS, OPT_OUT, ClassOf, translation, true_class

SUFFIXES = (".parquet", ".pq")
ROWS = 32
"""Rows that are in memory at a time, and the bytes of a file that are read at a time."""
BUFFER = 1 << 20
SAMPLE = 4096
"""Bytes of each group that identify a file, beside its footer."""
TAIL = 8
"""Bytes after a Parquet file's footer: its length, and a mark."""


def is_table(path: Path) -> bool:
    """Whether a path is named like a Parquet file."""
    return path.suffix.lower() in SUFFIXES


@dataclass(frozen=True, slots=True)
class _Table:
    """A file: the rows of each of its groups, and what tells its content from another's."""

    path: Path
    groups: tuple[int, ...]
    size: int
    sha256: str

    @property
    def rows(self) -> int:
        return sum(self.groups)


class Tables:
    """The rows of Parquet files, file by file, read some at a time.

    `columns` name those with the picture, its true class and its name; without, they are told by their names and kinds
    (an empty name leaves the column out). Pictures without a name have that of the file and the row. A file is
    identified by its size and a hash of its footer, which has the places and sizes of all that is in it, and of the
    first bytes of each group's pictures; a change that leaves all these as they are isn't seen.
    """

    def __init__(
        self, paths: Sequence[Path], columns: Mapping[str, str], class_of: ClassOf, labels: bool = True
    ) -> None:
        self._parquet = _pyarrow_parquet()
        self._class_of = class_of
        schemas = {path: self._schema(path) for path in paths}
        if len(schemas) < len(paths):
            twice = next(path for path in paths if list(paths).count(path) > 1)
            raise ParameterError(f"{twice} is named twice")
        first = next(iter(schemas))
        self._columns = _chosen(first, schemas[first], columns, labels)
        self._image = str(self._columns["image"])
        self._label, self._name = self._columns["label"], self._columns["name"]
        classes = _own_classes(schemas[first], self._label)
        self._translate = translation(classes, class_of) if classes else None
        for path, schema in schemas.items():
            missing = next((column for column in self._wanted if schema.names.count(column) != 1), None)
            if missing is not None:
                raise ParameterError(f"{path}: there is no column {missing!r}, or several; {first} has one")
            _check_pictures(path, schema, self._image)
            if _own_classes(schema, self._label) != classes:
                raise ParameterError(f"{path}: the classes have other names than those of {first}; {OPT_OUT}")
        self._tables = [self._table(path) for path in schemas]
        if self._name is not None and "name" in columns:
            self._refuse_twice(self._name)

    @property
    def count(self) -> int:
        """The number of rows."""
        return sum(table.rows for table in self._tables)

    def describe(self) -> dict[str, Any]:
        """The columns, and of each file the size, the rows, and what identifies its content."""
        files = {
            str(table.path): {"bytes": table.size, "rows": table.rows, "sha256": table.sha256} for table in self._tables
        }
        # A mapping has no order of its own once it is in a file; the files' order is a part of what the source is.
        order = hashlib.sha256(json.dumps(list(files)).encode()).hexdigest()
        return {"kind": "parquet", "pictures": self.count, "columns": self._columns, "files": files, "order": order}

    def items(self, first: int = 0) -> Iterator[Item]:
        """The rows from that number on; of a group that is damaged, each is an item that says so."""
        before = 0
        for table in self._tables:
            if before + table.rows > first:
                yield from self._rows(table, max(0, first - before))
            before += table.rows

    @property
    def _wanted(self) -> list[str]:
        return [column for column in (self._image, self._label, self._name) if column is not None]

    def _rows(self, table: _Table, first: int) -> Iterator[Item]:
        """The rows of a file, from that number on."""
        with self._opened(table.path) as file:
            at = 0
            for group, rows in enumerate(table.groups):
                if at + rows > first:
                    yield from self._group(table, file, group, at, max(first, at))
                at += rows

    def _group(self, table: _Table, file: Any, group: int, at: int, first: int) -> Iterator[Item]:
        """The rows of a group, whose first is row `at` of its file, from row `first` of the file on."""
        row, end = at, at + table.groups[group]
        try:
            # A group may be larger than memory: its columns are read and unpacked page by page.
            for batch in file.iter_batches(ROWS, row_groups=[group], columns=self._wanted, use_threads=False):
                start = max(0, first - row)
                for number, entry in enumerate(batch.slice(start).to_pylist(), row + start):
                    yield self._item(table.path, number, entry)
                row += batch.num_rows
        except (OSError, ValueError, NotImplementedError) as error:  # of pyarrow, whose errors are these
            if isinstance(error, OSError) and error.errno is not None:
                raise PictureError(f"{table.path}: can't be read: {error.strerror or error}") from error
            for number in range(max(row, first), end):
                name = f"{table.path}/{number}"
                yield Item(name, f"{name}: this part of the file is damaged: {str(error).splitlines()[0]}")

    def _item(self, path: Path, number: int, entry: Mapping[str, Any]) -> Item:
        content, own_name = content_of(entry[self._image])
        name = None if self._name is None else entry[self._name]
        name = str(name) if name is not None else own_name or f"{path}/{number}"
        if isinstance(content, Missing):
            content = f"{name}: {content}"
        elif isinstance(content, Path):
            content = path.parent / content
        label = None if self._label is None else entry[self._label]
        return Item(
            name,
            content,
            true_class(name, label if self._translate is None else self._translate(label), self._class_of),
        )

    def _opened(self, path: Path) -> Any:
        """A file, read some at a time; PictureError where that can't be."""
        try:
            # Read ahead, a group would be in memory as a whole.
            return self._parquet.ParquetFile(
                path, buffer_size=BUFFER, pre_buffer=False, page_checksum_verification=True
            )
        except (OSError, ValueError, NotImplementedError) as error:
            raise PictureError(f"{path}: no Parquet file, or damaged, or can't be read: {error}") from error

    def _schema(self, path: Path) -> Any:
        if not os.path.lexists(path):
            raise PictureError(f"{path}: no such file or folder")
        if not path.is_file():  # opening a pipe would wait for ever
            raise PictureError(f"{path}: is not a regular file")
        with self._opened(path) as file:
            return file.schema_arrow

    def _table(self, path: Path) -> _Table:
        with self._opened(path) as opened:
            about = opened.metadata
            groups = [about.row_group(group) for group in range(about.num_row_groups)]
            rows = tuple(group.num_rows for group in groups)
            starts = [start for group in groups for start in _starts(group, self._image)]
        try:
            with open(path, "rb") as file:
                size = file.seek(-TAIL, os.SEEK_END) + TAIL
                footer = int.from_bytes(file.read(TAIL)[:4], "little")
                file.seek(size - min(size, TAIL + footer))
                digest = hashlib.sha256(file.read())
                for start in starts:
                    file.seek(start)
                    digest.update(file.read(SAMPLE))
                return _Table(path, rows, size, digest.hexdigest())
        except OSError as error:
            raise PictureError(f"{path}: can't be read: {error.strerror or error}") from error

    def _refuse_twice(self, column: str) -> None:
        """ParameterError where a column of names has one twice."""
        hashes = array("q", (hash(name) for _, name in self._names(column)))
        order = np.sort(np.frombuffer(hashes, np.int64)) if hashes else np.zeros(0, np.int64)
        twice = set(order[1:][order[1:] == order[:-1]].tolist())
        seen: dict[Any, str] = {}
        for where, name in self._names(column) if twice else ():
            if name is not None and hash(name) in twice and seen.setdefault(name, where) != where:
                raise ParameterError(f"the name {name!r} stands at {seen[name]} and at {where}; name another column")

    def _names(self, column: str) -> Iterator[tuple[str, Any]]:
        for table in self._tables:
            with self._opened(table.path) as file:
                batches = file.iter_batches(columns=[column])
                for number, name in enumerate(name for batch in batches for name in batch.column(0).to_pylist()):
                    yield f"{table.path}/{number}", name


def _starts(group: Any, column: str) -> Iterator[int]:
    """Where the pages of a column begin in a row group."""
    for number in range(group.num_columns):
        chunk = group.column(number)
        if chunk.path_in_schema == column or chunk.path_in_schema.startswith(f"{column}."):
            yield chunk.data_page_offset if chunk.dictionary_page_offset is None else chunk.dictionary_page_offset


def _pyarrow_parquet() -> Any:
    try:
        import pyarrow.parquet  # optional, and heavy
    except ImportError as error:
        raise ParameterError('Parquet files need pyarrow: pip install "onnxplain[parquet]"') from error
    return pyarrow.parquet


def _chosen(path: Path, schema: Any, columns: Mapping[str, str], labels: bool) -> dict[str, str | None]:
    """The columns with picture, class and name."""
    for column in columns.values():
        if column and column not in schema.names:
            raise ParameterError(f"{path}: {unknown('column', column, schema.names)}")
    image = columns.get("image") or _image_column(path, schema)
    _check_pictures(path, schema, image)
    rest = [name for name in schema.names if name != image]
    label = columns["label"] or None if "label" in columns else next((name for name in COLUMNS if name in rest), None)
    name = columns["name"] or None if "name" in columns else next((name for name in NAMES if name in rest), None)
    return {"image": image, "label": label if labels else None, "name": name}


def _image_column(path: Path, schema: Any) -> str:
    """The column with the pictures: by its name, or the only one of a kind that pictures have."""
    named = [name for name in IMAGES if name in schema.names]
    fitting = [field.name for field in schema if _holds_pictures(field.type, paths=False)]
    if named:
        return named[0]
    if len(fitting) != 1:
        raise ParameterError(
            f"{path}: which column has the pictures? name it by columns={{'image': …}}; there are "
            f"{', '.join(schema.names)}"
        )
    return fitting[0]


def _check_pictures(path: Path, schema: Any, image: str) -> None:
    kind = schema.field(image).type
    if not _holds_pictures(kind) and str(kind) != "null":  # a file of nothing but missing pictures
        raise ParameterError(f"{path}: the column {image!r} holds {kind}, no encoded pictures or paths")


def _holds_pictures(kind: Any, paths: bool = True) -> bool:
    """Whether a column of this type holds pictures: encoded, as structs of bytes or path, or (if `paths`) as paths."""
    from pyarrow import types  # optional, and heavy

    if types.is_dictionary(kind):
        kind = kind.value_type
    if types.is_struct(kind):
        names = {kind.field(number).name for number in range(kind.num_fields)}
        return bool(names & {"bytes", "path"})
    text = types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)
    return bool(
        types.is_binary(kind)
        or types.is_large_binary(kind)
        or types.is_binary_view(kind)
        or types.is_fixed_size_binary(kind)
        or (paths and text)
    )


def _own_classes(schema: Any, label: str | None) -> list[str] | None:
    """The names of a column's classes, as Hugging Face writes them into a file's metadata; None without."""
    try:
        names = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"][label]["names"]
    except (KeyError, TypeError, ValueError):
        return None
    return [names[str(number)] for number in range(len(names))] if isinstance(names, Mapping) else list(names)
