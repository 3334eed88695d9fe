"""Every write of a job goes through here: files and folders that are there whole, on the disk, or not at all."""

import contextlib
import errno
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from onnxplain.errors import OutputError

TEMPORARY = ".part-"
"""What is not finished begins with this; a leftover of an interrupted run is removed by the next."""

LOCKING = 1.0
"""Seconds for which the lock is tried: somebody who only looks whether it is taken holds it for a moment."""

# Tests put another module in its place, whose calls fail one by one. Nothing below writes by any other way.
system: Any = os


@contextmanager
def clear_errors(path: Path) -> Iterator[None]:
    """OutputError for what the operating system refuses, with the file or folder that it was about."""
    try:
        yield
    except OSError as error:
        what = error.strerror or str(error)
        hint = "; make room and run the same command again" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        raise OutputError(f"can't write {path}: {what}{hint}") from error


def make_folder(path: Path) -> None:
    """A folder and those above it, their entries on the disk; one that is there stays."""
    if path.is_dir():
        return
    make_folder(path.parent)
    with clear_errors(path), contextlib.suppress(FileExistsError):
        system.mkdir(path)
        sync_folder(path.parent)


def write_file(path: Path, data: bytes) -> None:
    """A small file with this content: written under a temporary name, synced, renamed, its folder synced."""
    temporary = path.with_name(f"{TEMPORARY}{path.name}")
    write_new(temporary, data)
    rename(temporary, path)


def write_json(path: Path, content: Any) -> None:
    """As write_file, of plain data; equal data makes equal bytes."""
    write_file(path, json_bytes(content))


def json_bytes(content: Any) -> bytes:
    """Plain data as this package writes it to files."""
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    return text.encode("utf-8", "backslashreplace")


def write_new(path: Path, data: bytes) -> None:
    """A file with this content, synced, under the name itself: for folders that are renamed as a whole."""
    with Growing(path) as file:
        file.write(data, 0)
        file.sync()


def rename(source: Path, target: Path) -> None:
    """Gives a finished file or folder its name, for good."""
    with clear_errors(target):
        system.rename(source, target)
        sync_folder(target.parent)


def sync_folder(path: Path) -> None:
    """Puts a folder's entries on the disk; systems that can't (Windows, some network drives) do so by themselves."""
    if os.name == "nt":
        return
    with clear_errors(path):
        handle = system.open(path, os.O_RDONLY)
        try:
            system.fsync(handle)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):
                raise
        finally:
            system.close(handle)


def remove(path: Path) -> None:
    """Removes a file or folder, if it is there."""
    with clear_errors(path), contextlib.suppress(FileNotFoundError):
        if path.is_dir() and not path.is_symlink():
            for inside in sorted(path.iterdir()):
                remove(inside)
            system.rmdir(path)
        else:
            system.unlink(path)


def remove_leftovers(folder: Path) -> None:
    """Removes what an interrupted run left unfinished in a folder."""
    for path in sorted(folder.glob(f"{TEMPORARY}*")):
        remove(path)


class Growing:
    """A new file that is written at any of its places, by one thread at a time; closed on any way out."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with clear_errors(path):
            flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0)
            self._handle: int | None = system.open(path, flags, 0o644)

    def __enter__(self) -> "Growing":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self.drop()

    def write(self, data: Any, at: int) -> None:
        """Writes all of the bytes at a place; what a single call leaves over, by further ones."""
        rest = memoryview(data).cast("B")
        with clear_errors(self._path):
            system.lseek(self._open, at, os.SEEK_SET)
            while len(rest):
                written = system.write(self._open, rest)
                if not written:
                    raise OSError(errno.EIO, "nothing more is written")
                rest = rest[written:]

    def sync(self) -> None:
        """Waits until what was written is on the disk."""
        with clear_errors(self._path):
            system.fsync(self._open)

    def forget(self) -> None:
        """Gives back the memory that holds what is on the disk already: nobody reads it soon."""
        if hasattr(os, "posix_fadvise"):
            with contextlib.suppress(OSError):
                os.posix_fadvise(self._open, 0, 0, os.POSIX_FADV_DONTNEED)

    def close(self) -> None:
        """Closes the file, of which some file systems tell only then what they couldn't keep; again does nothing."""
        handle, self._handle = self._handle, None
        if handle is not None:
            with clear_errors(self._path):
                system.close(handle)

    def drop(self) -> None:
        """Closes the file without a word: one that isn't wanted any more."""
        with contextlib.suppress(OutputError):
            self.close()

    @property
    def _open(self) -> int:
        if self._handle is None:
            raise OSError(errno.EBADF, "the file is closed")
        return self._handle


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Nobody else writes into the folder meanwhile: OutputError where another process does.

    The lock goes with its process, however that ends.
    """
    make_folder(folder)
    path = folder / ".lock"
    with clear_errors(path):
        handle = system.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        until = time.monotonic() + LOCKING
        with clear_errors(path):
            while not _lock(handle):
                if time.monotonic() > until:
                    raise OutputError(f"another run is writing into {folder}; wait for it, or choose another folder")
                time.sleep(0.05)
        yield
    finally:
        with contextlib.suppress(OSError):
            system.close(handle)


def is_alone(folder: Path) -> bool:
    """Whether no run is writing into the folder now."""
    try:
        handle = os.open(folder / ".lock", os.O_RDONLY)
    except OSError:
        return True
    try:
        return _lock(handle)
    except OSError:  # a file system without locks: nobody could have begun
        return True
    finally:
        os.close(handle)


def _lock(handle: int) -> bool:
    """Takes a file's lock; False where somebody has it, OSError where there is no such thing."""
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        lock: Any = msvcrt
        try:
            lock.locking(handle, lock.LK_NBLCK, 1)
        except OSError:
            return False
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
