"""Writes the bundle: the graphs, their weights once, and explainer.json; all of it or nothing."""

import ctypes
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
from onnxplain_export.origins import origin_of
from onnxplain_export.recipe import RECIPE, Place

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
        ours = {"explainer.json", WEIGHTS, RECIPE, *(graph["file"] for graph in description["graphs"].values())}
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


def write_graphs(folder: Path, models: Mapping[str, ir.Model]) -> tuple[list[dict[str, Any]], list[Place]]:
    """Writes every graph to NAME.onnx and each distinct large weight once to weights.data (page-aligned).

    Returns where the forward graph's lie, in the order of first use: name, offset, shape and dtype of each tensor; and
    the place of everything that comes from the source's tensors.
    """
    tensors: list[dict[str, Any]] = []
    places: list[Place] = []
    with (folder / WEIGHTS).open("wb") as file:
        moved: dict[str, int] = {}
        for name, model in models.items():
            for value in _by_first_use(model.graph):
                before = len(moved)
                if _is_large(value):
                    offset = _move_out(value, file, moved, folder)
                    if len(moved) > before:
                        tensors += [_entry(value, offset)] if name == "forward" else []
                        places += _places(value, offset=offset)
                else:
                    places += _places(value, graph=name)
            bodies = (value for body in model.graph.subgraphs() for value in body.initializers.values())
            places += [place for value in bodies for place in _places(value, graph=name)]
    for name, model in models.items():
        ir.save(model, folder / f"{name}.onnx")
    if not moved:
        (folder / WEIGHTS).unlink()
    return tensors, places


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


def _is_large(value: ir.Value) -> bool:
    """Whether a float tensor is kept outside the graphs."""
    tensor = value.const_value
    return tensor is not None and tensor.nbytes >= SMALLEST and tensor.dtype.is_floating_point()


def _move_out(value: ir.Value, file: Any, moved: dict[str, int], folder: Path) -> int:
    """Turns a tensor into a reference into the weights file; written there the first time. Returns its offset.

    What comes from one place of the source is one tensor; others that merely hold the same numbers today aren't.
    """
    tensor = value.const_value
    assert tensor is not None  # `_is_large`
    content, origin = tensor.tobytes(), origin_of(value)
    key = hashlib.sha256(content).hexdigest() + ("" if origin is None or origin.pinned else origin.key)
    if key not in moved:
        file.write(b"\0" * (-file.tell() % PAGE))
        moved[key] = file.tell()
        file.write(content)
    shape = ir.Shape(tensor.shape.numpy())
    value.const_value = ir.ExternalTensor(
        WEIGHTS, moved[key], len(content), tensor.dtype, shape=shape, name=str(value.name), base_dir=folder
    )
    return moved[key]


def _entry(value: ir.Value, offset: int) -> dict[str, Any]:
    """What explainer.json says of a weight."""
    tensor = value.const_value
    assert tensor is not None  # `_is_large`
    shape = [int(size) for size in tensor.shape.numpy()]
    return {"name": str(value.name), "offset": offset, "shape": shape, "dtype": tensor.dtype.numpy().name}


def _places(value: ir.Value, offset: int = -1, graph: str = "") -> Iterator[Place]:
    """The place of a tensor that may change with the source's weights."""
    origin, tensor = origin_of(value), value.const_value
    if origin is not None and not origin.pinned and tensor is not None:
        shape = tuple(int(size) for size in tensor.shape.numpy())
        yield Place(origin, tensor.dtype.numpy().name, shape, offset, graph, str(value.name) if graph else "")


def _synchronise(folder: Path) -> None:
    """Forces the files to disk before the folder gets its name."""
    for path in [*folder.iterdir(), folder]:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _exchange(one: Path, other: Path) -> bool:
    """Exchanges two names at once, so that nobody finds either missing; False where the system can't."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):
        return False
    here, exchange = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux
    return bool(rename(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0)


def _move_into_place(folder: Path, target: Path) -> None:
    """Gives the new folder its name; where another has it, in one step if the system can exchange two names."""
    folder.chmod(0o755)
    if not target.exists():
        folder.rename(target)
        return
    if _exchange(folder, target):
        return  # the old bundle is removed under the temporary name
    aside = folder.with_name(folder.name + ".old")
    target.rename(aside)
    try:
        folder.rename(target)
    except BaseException:  # an interrupt too must leave the old bundle where it was
        aside.rename(target)
        raise
    shutil.rmtree(aside, ignore_errors=True)
