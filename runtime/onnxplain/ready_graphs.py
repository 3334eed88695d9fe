"""Graphs as onnxruntime has made them ready to run here, kept so that a later process opens them without that work.

Most of the time that a session takes to open goes into weights: folding, reordering into the layout of this processor's
kernels. A copy holds what comes of it, and its weights are mapped from the file instead of being read. As it holds the
weights once more (of a gradient graph: twice), it is made only where that is asked for. Copies are taken from folders
alone that nobody but this user can have written to: what says that they are whole lies beside them.
"""

import contextlib
import functools
import hashlib
import json
import logging
import os
import shutil
import stat
import sys
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from onnxplain.bundle import Bundle, Graph
from onnxplain.bundle_files import check_weights, refuse_replaced, sha256_of
from onnxplain.calibration import cache_folder
from onnxplain.errors import BundleError, ParameterError
from onnxplain.planner import parse_memory
from onnxplain.providers import CPU
from onnxplain.runtime import onnxruntime
from onnxplain.version import __version__

VARIABLE = "ONNXPLAIN_CACHE"
"""The environment variable that asks for copies where Explainer's `cache` isn't given: 1, 0, or the most they take."""
USUAL_SIZE = "4GB"
GROWTH = 4
"""A copy takes up to so many times the bundle's weights: folded weights twice, and those kept in float16 twice that."""
GRAPH, WEIGHTS, RECORD = "graph.onnx", "weights.data", "record.json"
INSIDE = "1024"
"""Bytes from which onnxruntime leaves a tensor out of the graph's file."""
BLOCK, PIECE = 2**25, 2**18
"""Bytes that are hashed together, and that are read at once: so few stay in the processor's cache."""
AT_ONCE = 2
"""Blocks hashed at a time, beside the opening of the session."""
ABANDONED = 3600.0
"""Seconds after which nobody is still writing a copy that isn't finished."""
PROCESSOR = Path("/proc/cpuinfo")
CHANGING = ("processor", "cpu MHz", "bogomips", "BogoMIPS", "core id", "apicid", "initial apicid", "physical id")


def allowed_bytes(cache: bool | str | None) -> int:
    """The most that all copies together may take, in bytes; 0 where none are wanted."""
    if cache is None:
        cache = os.environ.get(VARIABLE, "").strip() or "0"
    given = str(cache).lower()
    if given in ("false", "0"):
        return 0
    try:
        return parse_memory(USUAL_SIZE if given in ("true", "1") else str(cache))
    except ParameterError:
        raise ParameterError(f"cache={cache!r} (or {VARIABLE}) must be True, False or a size such as 4GB") from None


class ReadyGraphs:
    """The copies of one bundle's graphs for the CPU, in the user's cache folder, which take up to `most` bytes in all.

    The bundle's graphs must have been compared with their hashes. Its weights are compared from now on, in a thread.
    """

    def __init__(self, bundle: Bundle, most: int) -> None:
        self._bundle, self._most = bundle, most
        self._folder = cache_folder() / "graphs"
        beside = ThreadPoolExecutor(1)
        self._checked, self._process = beside.submit(check_weights, bundle), os.getpid()
        beside.shutdown(wait=False)

    def check(self) -> None:
        """Waits until the weights have been compared; BundleError where they were altered, or replaced meanwhile."""
        try:
            if self._process == os.getpid():
                self._checked.result()
            else:  # a fork has no threads but the one that called it
                check_weights(self._bundle)
        except BundleError:
            refuse_replaced(self._bundle)
            raise

    def session(self, graph: Graph, options: Callable[[], Any]) -> Any | None:
        """A session on the graph's copy, made now unless there is one; None where there can't be any.

        `options` gives the session's settings, anew each time.
        """
        key = self._key(graph)
        if key is None:
            return None
        place = self._place(key)
        found = _opened(place, key, options())
        if found is None and not os.path.lexists(place) and self._fits(graph):
            self.check()
            self._make(graph, place, key, options())
            found = _opened(place, key, options())
        return found

    def _key(self, graph: Graph) -> str | None:
        """All that a copy depends on; None where some of it isn't known."""
        processor, weights = _processor(), self._bundle.weights
        if self._bundle.single is not None or weights is None or not (processor and weights[1] and graph.sha256):
            return None
        runtime = f"{onnxruntime.__version__} {onnxruntime.get_build_info()}"
        return json.dumps([graph.sha256, weights[1], __version__, runtime, processor])

    def _place(self, key: str) -> Path:
        return self._folder / hashlib.sha256(key.encode()).hexdigest()[:32]

    def _places(self) -> set[Path]:
        """Where the copies of this bundle's graphs are, or would be."""
        return {self._place(key) for graph in self._bundle.graphs.values() if (key := self._key(graph))}

    def _fits(self, graph: Graph) -> bool:
        """Whether there is room for a copy beside this bundle's others: they would push each other out, ever again."""
        taken = sum(map(_size, self._places()))
        weights = self._bundle.weights
        try:
            wanted = GROWTH * (self._bundle.path / weights[0]).stat().st_size if weights else 0
        except OSError:  # whoever opens the graph says why
            return False
        if taken + wanted > self._most:
            text = "no copy of %s is kept: it may take %d bytes, this bundle's others take %d, and %d are allowed"
            logging.getLogger(__name__).info(text, graph.file, wanted, taken, self._most)
        return taken + wanted <= self._most

    def _make(self, graph: Graph, place: Path, key: str, options: Any) -> None:
        """Writes a graph's copy, whole or not at all; BundleError where the files that it was made of were altered."""
        unfinished = self._folder / f".{uuid.uuid4().hex}"
        options.optimized_model_filepath = str(unfinished / GRAPH)
        entry = "session.optimized_model_external_initializers_"
        options.add_session_config_entry(f"{entry}file_name", WEIGHTS)
        options.add_session_config_entry(f"{entry}min_size_in_bytes", INSIDE)
        try:
            for folder in (self._folder.parent, self._folder):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _refuse_foreign(self._folder)
            unfinished.mkdir(mode=0o700)
            onnxruntime.InferenceSession(str(self._bundle.file_of(graph)), options, providers=[CPU])
            self._refuse_altered(graph)
            record = {"key": key, **{name: _hashes(unfinished / name) for name in (GRAPH, WEIGHTS)}}
            (unfinished / RECORD).write_text(json.dumps(record), "utf-8")
            for file in unfinished.iterdir():
                file.chmod(0o600)
            unfinished.rename(place)
            self._evict()
        except BundleError:
            raise
        except Exception as error:  # onnxruntime's have no common base; that another process was first is one of them
            logging.getLogger(__name__).info("no copy of %s is kept: %s", graph.file, error)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)

    def _refuse_altered(self, graph: Graph) -> None:
        """BundleError where a session may not be what the description says, since a file isn't any more."""
        file = self._bundle.file_of(graph)
        try:
            if sha256_of(file) != graph.sha256:
                raise BundleError(f"{file} was altered since it was opened (its SHA-256 differs); export it again")
            check_weights(self._bundle)
        finally:
            refuse_replaced(self._bundle)

    def _evict(self) -> None:
        """Removes what was unused for longest until the rest keeps to the bound, and what was never finished.

        This bundle's own copies are the last to go, as they find room beside each other.
        """
        entries, own = [], self._places()
        with contextlib.suppress(OSError):
            for entry in self._folder.iterdir():
                file = entry if entry.name.startswith(".") else entry / RECORD
                with contextlib.suppress(OSError):
                    entries.append((entry in own, file.stat().st_mtime, entry))
        total = 0
        for _, used, entry in sorted(entries, reverse=True):
            if entry.name.startswith("."):
                if time.time() - used > ABANDONED:
                    shutil.rmtree(entry, ignore_errors=True)
                continue
            total += _size(entry)
            if total > self._most:
                _remove(entry)


class _DamagedError(Exception):
    """A copy isn't what was written."""


def _opened(place: Path, key: str, options: Any) -> Any | None:
    """A session on a copy that is as it was written, to the last byte; one that isn't is removed."""
    try:
        _refuse_foreign(place.parent, place, *place.iterdir())
        session = _session(place, key, options)
    except FileNotFoundError:  # there is none, or another process has just removed it
        return None
    except _DamagedError as error:
        logging.getLogger(__name__).info("the copy %s is removed: %s", place, error)
        _remove(place)
        return None
    except Exception as error:  # what may be no fault of the copy's, as a lack of memory: the graph is opened itself
        logging.getLogger(__name__).info("the copy %s can't be used now: %s", place, error)
        return None
    with contextlib.suppress(OSError):
        os.utime(place / RECORD)  # when it was used
    return session


def _session(place: Path, key: str, options: Any) -> Any:
    """A session on a copy; _DamagedError where it isn't what was written, another where it can't be opened."""
    record = _record(place / RECORD)
    if record.get("key") != key or _hashes(place / GRAPH) != record.get(GRAPH):
        raise _DamagedError("its graph isn't the one that was written")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    # The graph is whole, so that a session can be made of it; whether its numbers are is found out meanwhile.
    with ThreadPoolExecutor(1) as beside:
        opening = beside.submit(onnxruntime.InferenceSession, str(place / GRAPH), options, providers=[CPU])
        if _hashes(place / WEIGHTS) != record.get(WEIGHTS):
            raise _DamagedError("its weights aren't those that were written")
        return opening.result()


def _record(file: Path) -> dict[str, Any]:
    """What was noted of a copy when it was written."""
    try:
        return dict(json.loads(file.read_bytes() if file.exists() else b""))
    except (ValueError, TypeError) as error:
        raise _DamagedError(f"its record can't be read: {error}") from None


def _refuse_foreign(folder: Path, *entries: Path) -> None:
    """PermissionError unless the folder of all copies, and all of one, are this user's, for nobody else to write.

    So are they made. Whoever owned the folder around them could put others in their place.
    """
    if sys.platform == "win32":  # a user's cache folder is closed to others there
        return
    around = folder.parent.stat()  # it may be a link, and writable to its group: that is some systems' default
    if around.st_uid != os.geteuid() or around.st_mode & stat.S_IWOTH:
        raise PermissionError(f"{folder.parent} isn't this user's alone")
    for path in (folder, *entries):
        found = path.lstat()
        real = stat.S_ISDIR(found.st_mode) or stat.S_ISREG(found.st_mode)
        if not real or found.st_uid != os.geteuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise PermissionError(f"{path} isn't this user's alone")


def _size(place: Path) -> int:
    """The bytes of a copy's files, as far as they are told."""
    with contextlib.suppress(OSError):
        return sum(file.stat().st_size for file in place.iterdir())
    return 0


def _hashes(file: Path) -> list[str]:
    """The SHA-256 of each block of a file; none where there is no file, since all tensors were small."""
    blocks = range(0, file.stat().st_size if file.exists() else 0, BLOCK)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(functools.partial(_hash, file), blocks))


def _hash(file: Path, start: int) -> str:
    found, buffer, left = hashlib.sha256(), memoryview(bytearray(PIECE)), BLOCK
    with file.open("rb", buffering=0) as stream:
        stream.seek(start)
        while left and (read := stream.readinto(buffer[:left])):  # less than was asked for, of some file systems
            found.update(buffer[:read])
            left -= read
    return found.hexdigest()


def _remove(place: Path) -> None:
    """Takes a copy away, at once for whoever looks for it; one that is in use stays so."""
    gone = place.with_name(f".{uuid.uuid4().hex}")
    with contextlib.suppress(OSError):
        place.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)


@functools.cache
def _processor() -> str | None:
    """What the first processor is and can do, on which the layout of weights depends; None where it isn't told."""
    try:
        first = PROCESSOR.read_text("utf-8").partition("\n\n")[0]
    except (OSError, UnicodeDecodeError):
        return None
    return "\n".join(line for line in first.splitlines() if not line.startswith(CHANGING)) or None
