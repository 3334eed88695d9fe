"""A shard's maps and index as one Parquet file, a row for each picture that was explained.

The columns of the index have its names; a method's maps are a column of its name: tensors of float32
(arrow.fixed_shape_tensor, in the file a list of numbers). pyarrow and Ray Data give them in their shape, pandas as flat
arrays, DuckDB as FLOAT[], Spark as array<float>; the shape is in the index of the shard (shard.json), and in the
schema's metadata. Maps of float16 are written as float32 too, multiplied by their scale, which is exact and leaves no
column for it: Spark opens no float16. Of their bits zstd packs most away, of those of float32 maps little.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.errors import ParameterError
from onnxplain.jobs import shards, storage

FILE = "maps.parquet"
MISSING = 'parquet output needs pyarrow: pip install "onnxplain[parquet]"'
GROUP = 16_000_000
"""Bytes of maps in a row group, which is in memory while it is written; fixed, since the file's bytes depend on it."""
CODEC, LEVEL = "zstd", 1
INTEGERS = ("number", "row", "target", "predicted", "label", "steps")
TEXTS = ("name", "sha256", "target_label", "predicted_label", "true_label")
TRUTHS = ("right",)
PAIRS = ("centre", "peak")
BOXES = ("box",)


def version() -> str:
    """The version of pyarrow, on which the file's bytes depend; ParameterError where it is missing."""
    try:
        import pyarrow as pa  # optional, and heavy
    except ImportError as error:
        raise ParameterError(MISSING) from error
    return str(pa.__version__)


def write_maps(
    folder: Path, lines: Sequence[Mapping[str, Any]], maps: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Writes FILE into a shard's folder, from the lines of its index and the .npy files of its maps; removes these.

    `maps` says of each method the file, the shape and the dtype. The file's size and SHA-256, as shard.json has them.
    Equal content makes equal bytes with one version of pyarrow.
    """
    version()
    import pyarrow.parquet as pq  # optional, and heavy

    schema = _schema(lines, maps)
    plain = [name for name in schema.names if name not in maps]
    together = max(1, GROUP // max(1, sum(_row_bytes(one) for one in maps.values())))
    with storage.Growing(folder / FILE) as file:
        sink = _Sink(file)
        with pq.ParquetWriter(
            sink,
            schema,
            compression=CODEC,
            compression_level=LEVEL,
            use_dictionary=plain,
            write_statistics=plain,
            write_page_checksum=True,
            store_schema=True,
        ) as writer:
            for first in range(0, len(lines), together):
                writer.write_table(_table(folder, lines[first : first + together], maps, schema), together)
        file.sync()
    for one in maps.values():
        storage.remove(folder / one["file"])
    return {"bytes": sink.size, "sha256": sink.sha256}


class _Sink:
    """The file as pyarrow writes it, from its first byte to its last."""

    def __init__(self, file: storage.Growing) -> None:
        self._file, self._digest = file, hashlib.sha256()
        self.size, self.closed = 0, False

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        self._file.write(view, self.size)
        self._digest.update(view)
        self.size += len(view)
        return len(view)

    def tell(self) -> int:
        return self.size

    def flush(self) -> None:
        """The file is synced at the end."""

    def close(self) -> None:
        """Whoever made the file closes it."""
        self.closed = True

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False


def _row_bytes(one: Mapping[str, Any]) -> int:
    return int(np.prod(one["shape"], dtype=np.int64)) * np.dtype(np.float32).itemsize


def _schema(lines: Sequence[Mapping[str, Any]], maps: Mapping[str, Mapping[str, Any]]) -> Any:
    """The columns, the same for all shards of a job whatever is in them."""
    import pyarrow as pa  # optional, and heavy

    scales = {f"{method}.scale" for method in maps}
    names = [name for name in dict.fromkeys(name for line in lines for name in line) if name not in scales]
    fields = [pa.field(name, _type(name)) for name in names]
    fields += [pa.field(method, pa.fixed_shape_tensor(pa.float32(), one["shape"])) for method, one in maps.items()]
    shapes = {method: list(one["shape"]) for method, one in maps.items()}
    return pa.schema(fields, {"onnxplain": json.dumps({"format": shards.FORMAT, "maps": shapes})})


def _type(name: str) -> Any:
    """The type of a column: by its name, as the values of one shard may all be missing."""
    import pyarrow as pa  # optional, and heavy

    last = name.rsplit(".", 1)[-1]
    for known, kind in (
        (INTEGERS, pa.int64()),
        (TEXTS, pa.string()),
        (TRUTHS, pa.bool_()),
        (PAIRS, pa.list_(pa.float64())),
        (BOXES, pa.list_(pa.int64())),
    ):
        if last in known:
            return kind
    return pa.float64()


def _table(folder: Path, lines: Sequence[Mapping[str, Any]], maps: Mapping[str, Mapping[str, Any]], schema: Any) -> Any:
    import pyarrow as pa  # optional, and heavy

    columns = []
    for field in schema:
        if field.name in maps:
            values = pa.array(_maps(folder, field.name, maps[field.name], lines).reshape(-1))
            storage_type = field.type.storage_type
            columns.append(
                pa.ExtensionArray.from_storage(field.type, pa.FixedSizeListArray.from_arrays(values, type=storage_type))
            )
        else:
            columns.append(pa.array([_plain(line.get(field.name)) for line in lines], field.type))
    return pa.Table.from_arrays(columns, schema=schema)


def _plain(value: Any) -> Any:
    """A value of the index; what is no valid text as jsonl writes it."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def _maps(folder: Path, method: str, one: Mapping[str, Any], lines: Sequence[Mapping[str, Any]]) -> NDArray[np.float32]:
    """The maps of these lines, float32 [n, …]."""
    found = np.empty((len(lines), *one["shape"]), np.float32)
    for row, (values, line) in enumerate(zip(_rows(folder / one["file"], one, lines), lines, strict=True)):
        found[row] = values
        if f"{method}.scale" in line:
            found[row] *= np.float32(line[f"{method}.scale"])
    return found


def _rows(path: Path, one: Mapping[str, Any], lines: Sequence[Mapping[str, Any]]) -> Iterator[NDArray[Any]]:
    dtype = np.dtype(one["dtype"])
    count = int(np.prod(one["shape"], dtype=np.int64))
    with storage.clear_errors(path), open(path, "rb") as file:
        for line in lines:
            file.seek(shards.HEADER + line["row"] * count * dtype.itemsize)
            yield np.frombuffer(file.read(count * dtype.itemsize), dtype, count).reshape(one["shape"])
