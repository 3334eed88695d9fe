"""Graphs as onnxruntime has made them ready to run here, kept so that a later process opens them without that work.

Most of the time that a session takes to open goes into weights: folding, reordering into the layout of this processor's
kernels. A copy holds what comes of it, and its weights are mapped from the file instead of being read. As it holds the
weights once more (of a gradient graph: twice), it is made only where that is asked for.
"""

import contextlib
import functools
import hashlib
import json
import logging
import os
import shutil
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

VARIABLE = "ONNXPLAIN_CACHE"
"""The environment variable that asks for copies where Explainer's `cache` isn't given: 1, 0, or the most they take."""
USUAL_SIZE = "4GB"
SHARE = 4
"""A network's weights take no more than this part of what all copies may: they would push each other out."""
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
    if cache in (False, "0"):
        return 0
    try:
        return parse_memory(USUAL_SIZE if cache in (True, "1") else str(cache))
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
        place = self._folder / hashlib.sha256(key.encode()).hexdigest()[:32]
        found = _opened(place, key, options())
        if found is None:
            self.check()
            self._make(graph, place, key, options())
            found = _opened(place, key, options())
            self._evict()
        return found

    def _key(self, graph: Graph) -> str | None:
        """All that a copy depends on; None where some of it isn't known, or the weights are too large."""
        processor, weights = _processor(), self._bundle.weights
        if self._bundle.single is not None or weights is None or not (processor and weights[1] and graph.sha256):
            return None
        with contextlib.suppress(OSError):
            if (self._bundle.path / weights[0]).stat().st_size * SHARE <= self._most:
                runtime = f"{onnxruntime.__version__} {onnxruntime.get_build_info()}"
                return json.dumps([graph.sha256, weights[1], runtime, processor])
        return None

    def _make(self, graph: Graph, place: Path, key: str, options: Any) -> None:
        """Writes a graph's copy, whole or not at all."""
        unfinished = self._folder / f".{uuid.uuid4().hex}"
        options.optimized_model_filepath = str(unfinished / GRAPH)
        entry = "session.optimized_model_external_initializers_"
        options.add_session_config_entry(f"{entry}file_name", WEIGHTS)
        options.add_session_config_entry(f"{entry}min_size_in_bytes", INSIDE)
        try:
            unfinished.mkdir(mode=0o700, parents=True)
            onnxruntime.InferenceSession(str(self._bundle.file_of(graph)), options, providers=[CPU])
            refuse_replaced(self._bundle)
            record = {"key": key, "graph": sha256_of(unfinished / GRAPH), "weights": _hashes(unfinished / WEIGHTS)}
            (unfinished / RECORD).write_text(json.dumps(record), "utf-8")
            unfinished.rename(place)
        except Exception as error:  # onnxruntime's have no common base; that another process was first is one of them
            logging.getLogger(__name__).info("no copy of %s is kept: %s", graph.file, error)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)

    def _evict(self) -> None:
        """Removes what was unused for longest until the rest keeps to the bound, and what was never finished."""
        entries = []
        with contextlib.suppress(OSError):
            for entry in self._folder.iterdir():
                file = entry if entry.name.startswith(".") else entry / RECORD
                with contextlib.suppress(OSError):
                    entries.append((file.stat().st_mtime, entry))
        total = 0
        for used, entry in sorted(entries, reverse=True):
            if entry.name.startswith("."):
                if time.time() - used > ABANDONED:
                    shutil.rmtree(entry, ignore_errors=True)
                continue
            with contextlib.suppress(OSError):
                total += sum(file.stat().st_size for file in entry.iterdir())
            if total > self._most:
                _remove(entry)


def _opened(place: Path, key: str, options: Any) -> Any | None:
    """A session on a copy that is as it was written, to the last byte; one that isn't is removed."""
    if not place.is_dir():
        return None
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        record = json.loads((place / RECORD).read_text("utf-8"))
        if record["key"] != key or sha256_of(place / GRAPH) != record["graph"]:
            raise ValueError("its graph isn't the one that was written")
        # The graph is whole, so that a session can be made of it; whether its numbers are is found out meanwhile.
        with ThreadPoolExecutor(1) as beside:
            hashes = beside.submit(_hashes, place / WEIGHTS)
            session = onnxruntime.InferenceSession(str(place / GRAPH), options, providers=[CPU])
            if hashes.result() != record["weights"]:
                raise ValueError("its weights aren't those that were written")
    except Exception as error:  # damage shows in many ways; the graph itself is opened then
        logging.getLogger(__name__).info("the copy %s is unusable: %s", place, error)
        _remove(place)
        return None
    with contextlib.suppress(OSError):
        os.utime(place / RECORD)  # when it was used
    return session


def _hashes(file: Path) -> list[str]:
    """The SHA-256 of each block of a file; none where there is no file, since all tensors were small."""
    blocks = range(0, file.stat().st_size if file.exists() else 0, BLOCK)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(functools.partial(_hash, file), blocks))


def _hash(file: Path, start: int) -> str:
    found, buffer = hashlib.sha256(), memoryview(bytearray(PIECE))
    with file.open("rb", buffering=0) as stream:
        stream.seek(start)
        for _ in range(0, BLOCK, PIECE):
            found.update(buffer[: stream.readinto(buffer)])
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
