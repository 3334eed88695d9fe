"""How many rows a run of a graph should have: measured on this machine where much is to be done, and remembered."""

import contextlib
import json
import os
import platform
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from onnxplain.bundle import Bundle, Graph
from onnxplain.planner import Chunk, chunks
from onnxplain.runtime import onnxruntime

SIZES = (1, 2, 4, 8, 16, 32, 64)
WORTH = 20
"""Times the rows that are run to measure, each size twice: so much work must be ahead."""
ENOUGH = 1.03
"""The smallest size within 3 % of the best: it takes the least memory."""


class Calibration:
    """The best sizes of a bundle's runs, kept in the user's cache folder for each machine, provider and threads.

    What can't be read or written there is measured again.
    """

    def __init__(self, bundle: Bundle, provider: str, threads: int) -> None:
        self._file = cache_folder() / "rows" / f"{bundle.lineage[:32]}.json"
        self._where = f"{platform.node()}, {provider}, {threads} threads, onnxruntime {onnxruntime.__version__}"
        self._known: dict[str, int] | None = None
        self._lock = threading.Lock()

    def rows(self, graph: Graph) -> int | None:
        """How many rows, each target counted, a run of the graph is best given; None where that wasn't measured yet."""
        with self._lock:
            if self._known is None:
                self._known = self._read()
            return self._known.get(graph.name)

    @staticmethod
    def worth(rows: int) -> bool:
        """Whether so many rows could be worth a measurement at all."""
        return rows >= WORTH * 2 * SIZES[0]

    def measure(self, graph: Graph, run: Callable[[Chunk], object], images: int, steps: int, most: int) -> None:
        """Tries runs of up to `most` images times steps, if there are so many of them that it is worth the time."""
        sizes = [size for size in SIZES if size <= min(most, images * steps)]
        if images * steps < WORTH * 2 * sum(sizes) or self.rows(graph) is not None:
            return
        runs = {size: next(chunks(images, steps, size, shared=graph.draws)) for size in sizes}
        seconds = {size: _seconds_per_row(run, chunk) for size, chunk in runs.items()}
        best = next(size for size in sizes if seconds[size] <= ENOUGH * min(seconds.values()))
        with self._lock:
            self._known = {**self._read(), graph.name: best}
            self._write(self._known)

    def _read(self) -> dict[str, int]:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            found = json.loads(self._file.read_text("utf-8")).get(self._where, {})
            return {str(name): rows for name, rows in found.items() if isinstance(rows, int) and rows > 0}
        return {}

    def _write(self, known: dict[str, int]) -> None:
        with contextlib.suppress(OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            every = {}
            with contextlib.suppress(OSError, ValueError):
                every = json.loads(self._file.read_text("utf-8"))
            text = json.dumps({**(every if isinstance(every, dict) else {}), self._where: known}, indent=1)
            # In a file of its own first: other processes see the old one or the new one.
            with tempfile.NamedTemporaryFile("w", dir=self._file.parent, delete=False, encoding="utf-8") as file:
                file.write(text)
            os.replace(file.name, self._file)


def cache_folder() -> Path:
    """Where this user's caches are: XDG_CACHE_HOME, or what the system has for it; for a user without a home, a
    folder beside the temporary files.
    """
    given = os.environ.get("XDG_CACHE_HOME")
    if given:
        return Path(given) / "onnxplain"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", tempfile.gettempdir())) / "onnxplain" / "cache"
    try:
        home = Path.home()
    except RuntimeError:  # a container's user that no file of users knows
        return Path(tempfile.gettempdir()) / f"onnxplain-{os.getuid()}"
    return (home / "Library" / "Caches" if sys.platform == "darwin" else home / ".cache") / "onnxplain"


def _seconds_per_row(run: Callable[[Chunk], object], chunk: Chunk) -> float:
    """The time of the second of two runs of the same, for each of its rows: the first one gets the memory."""
    run(chunk)
    before = time.perf_counter()
    run(chunk)
    return (time.perf_counter() - before) / chunk.rows
