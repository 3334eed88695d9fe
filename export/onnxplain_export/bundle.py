"""Writes the bundle: the graphs, their weights once, and explainer.json; all of it or nothing."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx_ir as ir

from onnxplain.errors import OutputError

WEIGHTS = "weights.data"
PAGE = 4096
SMALLEST = 1024
"""Bytes; smaller tensors, and integers, stay inside the graphs."""


def refuse_target(target: Path, overwrite: bool) -> None:
    """OutputError where no bundle can be written to `target`; only a bundle, alone in its folder, is replaced."""
    folder = next((parent for parent in target.absolute().parents if parent.exists()), Path("/"))
    if not folder.is_dir():
        raise OutputError(f"{target}: can't be written, {folder} is a file")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"{target}: can't be written, {folder} is write-protected")
    if not target.exists() and not target.is_symlink():
        return
    if not overwrite:
        raise OutputError(f"{target} exists; choose another name or pass --overwrite")
    foreign = {"explainer.json"} if not (target / "explainer.json").is_file() else _foreign_files(target)
    if "explainer.json" in foreign:
        raise OutputError(f"{target} exists and isn't a bundle; it isn't overwritten")
    if foreign:
        raise OutputError(f"{target} holds other files than a bundle's, such as {min(foreign)}; it isn't overwritten")


def _foreign_files(target: Path) -> set[str]:
    """What lies in a bundle's folder that its description doesn't name."""
    try:
        description = json.loads((target / "explainer.json").read_text("utf-8"))
        ours = {"explainer.json", WEIGHTS, *(graph["file"] for graph in description["graphs"].values())}
    except (ValueError, KeyError, TypeError, AttributeError):
        ours = set()  # not a bundle's explainer.json
    return {path.name for path in target.iterdir()} - ours


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A temporary folder that takes the place of `target` when the block ends well, and vanishes when it doesn't."""
    made = [parent for parent in target.absolute().parents if not parent.exists()]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise OutputError(f"{target.parent}: can't be written to ({error.strerror})") from error
    done = False
    try:
        yield folder
        _synchronise(folder)
        _move_into_place(folder, target)
        done = True
    except OSError as error:
        raise OutputError(f"{target}: can't be written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if not done:
            _remove_empty(made)


def _remove_empty(folders: Sequence[Path]) -> None:
    """Takes back the folders that were made for an output which failed, innermost first."""
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:
            return  # somebody else has put something there


def write_graphs(folder: Path, models: Mapping[str, ir.Model]) -> list[dict[str, Any]]:
    """Writes every graph to NAME.onnx and each distinct large weight once to weights.data (page-aligned).

    Returns where the forward graph's lie, in the order of first use: name, offset, shape and dtype of each tensor.
    """
    tensors: list[dict[str, Any]] = []
    with (folder / WEIGHTS).open("wb") as file:
        places: dict[str, tuple[int, int]] = {}
        for name, model in models.items():
            for value in _by_first_use(model.graph):
                moved = list(_move_out(value, file, places, folder))
                tensors += moved if name == "forward" else []
    for name, model in models.items():
        ir.save(model, folder / f"{name}.onnx")
    if not places:
        (folder / WEIGHTS).unlink()
    return tensors


def _by_first_use(graph: ir.Graph) -> list[ir.Value]:
    """The initializers in the order in which nodes read them; what only bodies and branches read comes last."""
    read = dict.fromkeys(value for node in graph for value in node.inputs if value is not None)
    own = dict.fromkeys(graph.initializers.values())
    return [*(value for value in read if value in own), *(value for value in own if value not in read)]


def write_description(folder: Path, description: Mapping[str, Any]) -> None:
    """Writes explainer.json."""
    text = json.dumps(description, indent=1, ensure_ascii=False, allow_nan=False)
    (folder / "explainer.json").write_text(text + "\n", encoding="utf-8")


def sha256_of(file: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _move_out(value: ir.Value, file: Any, places: dict[str, tuple[int, int]], folder: Path) -> Iterator[dict[str, Any]]:
    """Turns a large float tensor into a reference into the weights file; written there, and yielded, the first time."""
    tensor = value.const_value
    if tensor is None or tensor.nbytes < SMALLEST or not tensor.dtype.is_floating_point():
        return
    content = tensor.tobytes()
    digest = hashlib.sha256(content).hexdigest()
    shape = [int(size) for size in tensor.shape.numpy()]
    if digest not in places:
        file.write(b"\0" * (-file.tell() % PAGE))
        places[digest] = (file.tell(), len(content))
        file.write(content)
        dtype = tensor.dtype.numpy().name
        yield {"name": str(value.name), "offset": places[digest][0], "shape": shape, "dtype": dtype}
    offset, length = places[digest]
    value.const_value = ir.ExternalTensor(
        WEIGHTS,
        offset,
        length,
        tensor.dtype,
        shape=ir.Shape(shape),
        name=str(value.name),
        base_dir=folder,
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
    aside = folder.with_name(folder.name + ".old")
    target.rename(aside)
    try:
        folder.rename(target)
    except BaseException:  # an interrupt too must leave the old bundle where it was
        aside.rename(target)
        raise
    shutil.rmtree(aside, ignore_errors=True)
