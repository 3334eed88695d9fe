"""A folder of results that appears whole or not at all."""

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from onnxplain.errors import OutputError

INDEX, REPORT = "index.jsonl", "report.html"


@contextmanager
def output_folder(path: Path, overwrite: bool) -> Iterator[Path]:
    """A new folder to write into, renamed to `path` at the end and removed after any error.

    OutputError at once if `path` can't be written or holds something; with `overwrite` an earlier result of ours is
    replaced, and nothing else.
    """
    _refuse(path, overwrite)
    try:
        working = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=_nearest_folder(path)))
    except OSError as error:
        raise OutputError(f"can't write in {path.parent}: {error.strerror}") from None
    try:
        yield working
        _move(working, path)
    finally:
        shutil.rmtree(working, ignore_errors=True)


def _nearest_folder(path: Path) -> Path:
    """The first folder above `path` that exists: same file system, and nothing is made before the end."""
    return next((folder for folder in path.absolute().parents if folder.is_dir()), Path.cwd())


def _refuse(path: Path, overwrite: bool) -> None:
    if not path.is_dir():
        if path.exists() or path.is_symlink():
            raise OutputError(f"{path} is a file; name a folder to write")
        return
    try:
        found = {str(file.relative_to(path)) for file in path.rglob("*") if not file.is_dir()}
    except OSError as error:
        raise OutputError(f"can't read {path}: {error.strerror}") from None
    if not found:
        return
    if not overwrite:
        raise OutputError(f"{path} exists and is not empty; choose another folder, or replace it with --overwrite")
    foreign = sorted(found - _written_by_us(path))
    if foreign:
        raise OutputError(
            f"{path} holds files that onnxplain did not write, such as {foreign[0]}; choose another folder"
        )


def _written_by_us(path: Path) -> set[str]:
    """The files that an earlier result's index lists."""
    files = {INDEX, REPORT}
    with contextlib.suppress(OSError, ValueError, AttributeError):
        for line in (path / INDEX).read_text(encoding="utf-8").splitlines():
            files.update(json.loads(line).get("files", {}).values())
        return files
    return set()


def _move(working: Path, path: Path) -> None:
    """Renames the finished folder into place; an earlier result is moved aside first and deleted last."""
    aside = working.with_name(working.name + ".old")
    try:
        working.chmod(0o755)  # mkdtemp makes it private
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            path.rename(aside)
        working.rename(path)
    except OSError as error:
        if aside.is_dir():
            aside.rename(path)
        raise OutputError(f"can't write {path}: {error.strerror}") from None
    shutil.rmtree(aside, ignore_errors=True)
