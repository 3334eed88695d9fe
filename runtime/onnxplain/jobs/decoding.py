"""Worker processes that decode and preprocess pictures, each one at a time; one that dies or hangs is replaced."""

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.errors import BundleError, PictureError
from onnxplain.jobs.items import Item, Part
from onnxplain.jobs.limits import Limits
from onnxplain.preprocessing import Box

STARTING = 120.0
"""Seconds that a worker may take until it answers."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """What a worker made of a picture, beside its row: its hash, the picture that the network sees, its place."""

    sha256: str
    seen: NDArray[np.uint8] | None
    box: Box | None


class Worker:
    """One worker process, and the way to it; used by one thread."""

    def __init__(self, bundle: Path, limits: Limits) -> None:
        self._bundle, self._limits = bundle, limits
        self._process: subprocess.Popen[bytes] | None = None
        self._deadline: float | None = None
        self._late = False
        self._lock = threading.Lock()

    def decode(self, item: Item, row: NDArray[Any]) -> Decoded:
        """Decodes one picture into `row`, the network's own shape; PictureError where there is none to be had."""
        if isinstance(item.content, str):
            raise PictureError(item.content)
        if self._process is None:
            self._start()
        head, content = self._request(item)
        self._limit(self._limits.seconds)
        try:
            self._send(head, content)
            answer = self._listen()
            if "error" in answer:
                raise PictureError(answer["error"])
            if tuple(answer["row"]) != row.shape or answer["dtype"] != str(row.dtype):
                raise PictureError(f"{item.name}: has shape {answer['row']}, not {list(row.shape)} as the others")
            self._fill(row)
            seen = None
            if "seen" in answer:
                seen = np.empty(answer["seen"], np.uint8)
                self._fill(seen)
            return Decoded(answer["sha256"], seen, None if answer["box"] is None else tuple(answer["box"]))
        except (OSError, EOFError, ValueError) as error:
            raise PictureError(self._obituary(item)) from error
        finally:
            self._limit(None)

    def check(self, now: float) -> None:
        """Ends the process if its picture's time is over."""
        with self._lock:
            if self._deadline is not None and now > self._deadline and self._process is not None:
                self._late = True
                self._process.kill()

    def close(self) -> None:
        """Ends the process."""
        with self._lock:
            process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        stream.close()

    def _start(self) -> None:
        command = [sys.executable, "-m", "onnxplain.jobs.decoder", str(self._bundle), str(self._limits.memory)]
        # Its numbers are the same with any number of threads, and there is a worker for each core.
        alone = {name: "1" for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        found = [os.path.dirname(os.path.dirname(os.path.dirname(__file__))), os.environ.get("PYTHONPATH", "")]
        environment = {**os.environ, **alone, "PYTHONPATH": os.pathsep.join(filter(None, found))}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, start_new_session=True
        )
        self._limit(STARTING)
        try:
            self._listen()
        except (OSError, EOFError, ValueError) as error:
            code = self._process.wait()
            raise BundleError(f"a worker process that decodes pictures can't start (it ended with {code})") from error
        finally:
            self._limit(None)

    def _limit(self, seconds: float | None) -> None:
        with self._lock:
            self._deadline = None if seconds is None else time.monotonic() + seconds
            self._late = False if seconds is not None else self._late

    def _request(self, item: Item) -> tuple[dict[str, Any], Any]:
        head: dict[str, Any] = {"name": item.name, "limits": self._limits.plain()}
        if isinstance(item.content, Path):
            return {**head, "kind": "file", "path": str(item.content)}, b""
        if isinstance(item.content, Part):
            where = {"path": str(item.content.path), "offset": item.content.offset, "size": item.content.size}
            return {**head, "kind": "part", **where}, b""
        if isinstance(item.content, bytes):
            return {**head, "kind": "bytes", "bytes": len(item.content)}, item.content
        array = np.ascontiguousarray(item.content)
        if array.dtype.kind not in "fiub":
            raise PictureError(f"{item.name}: an array of {array.dtype} is no image")
        shape = {"dtype": str(array.dtype), "shape": array.shape, "bytes": array.nbytes}
        return {**head, "kind": "array", **shape}, array.reshape(-1).view(np.uint8)

    def _send(self, head: dict[str, Any], content: Any) -> None:
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.write(json.dumps(head).encode() + b"\n")
        if len(content):
            self._process.stdin.write(memoryview(content))
        self._process.stdin.flush()

    def _listen(self) -> dict[str, Any]:
        assert self._process is not None and self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.endswith(b"\n"):
            raise EOFError
        return json.loads(line)

    def _fill(self, array: NDArray[Any]) -> None:
        assert self._process is not None and self._process.stdout is not None
        view = memoryview(array).cast("B")
        if self._process.stdout.readinto(view) != len(view):  # type: ignore[attr-defined] (a BufferedReader)
            raise EOFError

    def _obituary(self, item: Item) -> str:
        """Why the process died over a picture; the next one starts a new process."""
        assert self._process is not None
        with self._lock:
            late = self._late
        self._process.kill()
        code = self._process.wait()
        self.close()
        if late:
            return f"{item.name}: not decoded within {self._limits.seconds:g} seconds"
        return f"{item.name}: the decoder died of it ({_cause(code)})"


def _cause(code: int) -> str:
    import signal

    if code < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-code).name
    return f"exit code {code}"


class Watch:
    """A thread that ends the workers whose time is over."""

    def __init__(self, workers: list[Worker]) -> None:
        self._workers, self._stop = workers, threading.Event()
        self._thread = threading.Thread(target=self._run, name="onnxplain-watch", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(0.1):
            now = time.monotonic()
            for worker in self._workers:
                worker.check(now)

    def close(self) -> None:
        """Ends the thread."""
        self._stop.set()
        self._thread.join()
