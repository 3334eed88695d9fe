"""Writes the bundle: the graphs, their weights once, and explainer.json; all of it or nothing."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx_ir as ir
from onnxplain.errors import OutputError

WEIGHTS = "weights.data"
PAGE = 4096
SMALLEST = 1024
"""Bytes; smaller tensors, and integers, stay inside the graphs."""


@contextmanager
def new_folder(target: Path, overwrite: bool) -> Iterator[Path]:
    """A temporary folder beside `target` that takes its place when the block ends well, and vanishes when it doesn't."""
    if target.exists() and not overwrite:
        raise OutputError(f"{target} exists; choose another name or pass --overwrite")
    if target.exists() and not (target / "explainer.json").is_file():
        raise OutputError(f"{target} exists and isn't a bundle; it isn't overwritten")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise OutputError(f"{target.parent}: can't be written to ({error.strerror})") from error
    try:
        yield folder
        _synchronise(folder)
        _move_into_place(folder, target)
    except OSError as error:
        raise OutputError(f"{target}: can't be written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_graphs(folder: Path, models: Mapping[str, ir.Model]) -> None:
    """Writes every graph to NAME.onnx and each distinct large weight once to weights.data (page-aligned)."""
    with (folder / WEIGHTS).open("wb") as file:
        places: dict[str, tuple[int, int]] = {}
        for model in models.values():
            for value in model.graph.initializers.values():
                _move_out(value, file, places, folder)
    for name, model in models.items():
        ir.save(model, folder / f"{name}.onnx")
    if not places:
        (folder / WEIGHTS).unlink()


def write_description(folder: Path, description: Mapping[str, Any]) -> None:
    """Writes explainer.json."""
    text = json.dumps(description, indent=1, ensure_ascii=False, allow_nan=False)
    (folder / "explainer.json").write_text(text + "\n", encoding="utf-8")


def sha256_of(file: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _move_out(value: ir.Value, file: Any, places: dict[str, tuple[int, int]], folder: Path) -> None:
    """Turns a large float tensor into a reference into the weights file, writing it there the first time."""
    tensor = value.const_value
    if tensor is None or tensor.nbytes < SMALLEST or not tensor.dtype.is_floating_point():
        return
    content = tensor.tobytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest not in places:
        file.write(b"\0" * (-file.tell() % PAGE))
        places[digest] = (file.tell(), len(content))
        file.write(content)
    offset, length = places[digest]
    value.const_value = ir.ExternalTensor(
        WEIGHTS, offset, length, tensor.dtype, shape=ir.Shape(tensor.shape), name=str(value.name), base_dir=folder
    )


def _synchronise(folder: Path) -> None:
    """Forces the files to disk before the folder gets its name."""
    for path in [*folder.iterdir(), folder]:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _move_into_place(folder: Path, target: Path) -> None:
    folder.chmod(0o755)
    if not target.exists():
        folder.rename(target)
        return
    aside = target.with_name(f".{target.name}.old")
    shutil.rmtree(aside, ignore_errors=True)
    target.rename(aside)
    folder.rename(target)
    shutil.rmtree(aside)
