"""Trackers' states as files: settings and arrays in one .npz, whole or not at all, every float bit for bit."""

import io
import json
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.errors import ParameterError
from onnxplain.output import write_bytes

FORMAT = 1
HEAD = "state"
MALFORMED = (
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    EOFError,
    OverflowError,
    MemoryError,
    # What zipfile raises for a damaged directory, an unknown or encrypted compression, and damaged data.
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
)


def pack(kind: str, settings: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """The state of a tracker of this kind: `settings`, which JSON can hold, and `arrays` by name."""
    # The names are told, because a damaged directory can lack some of its entries.
    head = json.dumps({"format": FORMAT, "kind": kind, "settings": settings, "arrays": list(arrays)}).encode()
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, array in {HEAD: np.frombuffer(head, np.uint8), **arrays}.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
    return data.getvalue()


def unpack(kind: str, data: bytes, where: str = "the state") -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Settings and arrays; ParameterError, in one line, where the state is damaged, newer, or another tracker's."""
    try:
        stream = io.BytesIO(data)
        with zipfile.ZipFile(stream) as archive:
            # Before numpy makes room for what a damaged shape asks for.
            if archive.testzip() is not None:
                raise zipfile.BadZipFile("a checksum differs")
        stream.seek(0)
        with np.load(stream, allow_pickle=False) as content:
            head = json.loads(content[HEAD].tobytes())
            _check(kind, head, where)
            return head["settings"], {name: content[name] for name in head["arrays"]}
    except MALFORMED as error:
        raise damaged(where, error) from None


def damaged(where: str, error: Exception) -> ParameterError:
    """The error for a state that can't be read."""
    reason = str(error).partition("\n")[0] or type(error).__name__
    return ParameterError(f"{where}: no tracker's state, or damaged ({reason}): restore an earlier copy")


def write(path: str | Path, data: bytes) -> None:
    """Write a packed state to `path`, whole or not at all; raises OutputError."""
    write_bytes(path, data)


def read(path: str | Path) -> bytes:
    """The packed state at `path`; ParameterError where it can't be read."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ParameterError(f"{path}: can't be read ({error.strerror or error})") from None


def _check(kind: str, head: Any, where: str) -> None:
    if head["format"] > FORMAT:
        raise ParameterError(
            f"{where}: written by a newer onnxplain (format {head['format']}, this one reads up to {FORMAT}): update it"
        )
    if head["kind"] != kind:
        raise ParameterError(
            f"{where}: the state of {_a(head['kind'])}, not of {_a(kind)}: {head['kind']}.restore reads it"
        )


def _a(kind: str) -> str:
    return f"{'an' if kind[:1] in 'AEIOU' else 'a'} {kind}"
