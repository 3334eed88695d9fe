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
from onnxplain.pictures import check_bytes
from onnxplain.preprocessing import Box

KEPT = 64_000_000
"""Bytes below which a worker keeps memory that it has freed."""
STARTING = 120.0
"""Seconds that a worker may take until it answers."""
STARTS = 2
"""How often it is tried: the first may have died of something else, such as a system short of memory."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """What a worker made of a picture, beside its row: its hash, the picture that the network sees, its place."""

    sha256: str
    seen: NDArray[np.uint8] | None
    box: Box | None


class _LostError(PictureError):
    """No picture, of a process that may be to blame for it rather than the picture."""


class Worker:
    """One worker process, and the way to it; used by one thread, which others may stop."""

    def __init__(self, bundle: Path, limits: Limits) -> None:
        self._bundle, self._limits = bundle, limits
        self._process: subprocess.Popen[bytes] | None = None
        self._asked = 0  # pictures that the process was given
        self._deadline: float | None = None
        self._late = self._stopped = False
        self._lock = threading.Lock()

    def decode(self, item: Item, row: NDArray[Any]) -> Decoded:
        """Decodes one picture into `row`, the network's own shape; PictureError where there is none to be had.

        Where the process dies, or had little memory left from earlier pictures, a new one tries once more: what comes
        of a picture depends on it alone.
        """
        if isinstance(item.content, str):
            raise PictureError(item.content)
        head, content = self._request(item)
        try:
            return self._tried(item, head, content, row)
        except _LostError:
            self.close()
            return self._tried(item, head, content, row)

    def _tried(self, item: Item, head: dict[str, Any], content: Any, row: NDArray[Any]) -> Decoded:
        if self._process is None:
            self._start()
        self._asked += 1
        self._limit(self._limits.seconds)
        try:
            self._send(head, content)
            answer = self._listen()
            if "error" in answer:
                doubtful = answer["tight"] and self._asked > 1
                raise (_LostError if doubtful else PictureError)(answer["error"])
            return self._decoded(item, answer, row)
        except (OSError, EOFError, ValueError) as error:
            raise self._obituary(item) from error
        finally:
            self._limit(None)

    def _decoded(self, item: Item, answer: dict[str, Any], row: NDArray[Any]) -> Decoded:
        fits = tuple(answer["row"]) == row.shape and answer["dtype"] == str(row.dtype)
        self._fill(row if fits else np.empty(answer["row"], answer["dtype"]))
        seen = None
        if "seen" in answer:
            seen = np.empty(answer["seen"], np.uint8)
            self._fill(seen)
        if not fits:
            raise PictureError(f"{item.name}: has shape {answer['row']}, not {list(row.shape)} as the others")
        return Decoded(answer["sha256"], seen, None if answer["box"] is None else tuple(answer["box"]))

    def check(self, now: float) -> None:
        """Ends the process if its picture's time is over."""
        with self._lock:
            if self._deadline is not None and now > self._deadline and self._process is not None:
                self._late = True
                self._process.kill()

    def stop(self) -> None:
        """Ends the process, and lets no other start: the thread that waits for it gets an error."""
        with self._lock:
            self._stopped = True
            if self._process is not None:
                self._process.kill()

    def close(self) -> None:
        """Ends the process and closes the way to it."""
        with self._lock:
            process, self._process, self._asked = self._process, None, 0
        if process is not None:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        stream.close()

    def _start(self) -> None:
        command = [sys.executable, "-P", "-m", "onnxplain.jobs.decoder", str(self._bundle), str(self._limits.memory)]
        # Its numbers are the same with any number of threads, and there is a worker for each core.
        alone = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        # The C library gives every large array back at once and asks for it anew, a page at a time: half of the work.
        keeping = {"MALLOC_MMAP_THRESHOLD_": str(KEPT), "MALLOC_TRIM_THRESHOLD_": str(KEPT)}
        found = [os.path.dirname(os.path.dirname(os.path.dirname(__file__))), os.environ.get("PYTHONPATH", "")]
        environment = {**os.environ, **alone, **keeping, "PYTHONPATH": os.pathsep.join(filter(None, found))}
        why = ""
        for _ in range(STARTS):
            try:
                self._open(command, environment)
                self._limit(STARTING)
                answer = self._listen()
            except (OSError, EOFError, ValueError) as error:
                why = self._why(error)
            else:
                if "error" not in answer:
                    return
                why = answer["error"]
                break
            finally:
                self._limit(None)
        raise BundleError(f"a worker process that decodes pictures can't start: {why}")

    def _open(self, command: list[str], environment: dict[str, str]) -> None:
        with self._lock:
            if self._stopped:
                raise BundleError("the job is ending")
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, start_new_session=True
            )

    def _why(self, error: Exception) -> str:
        """Why there is no process, or none any more."""
        if self._process is None:
            return str(error)
        with self._lock:
            late = self._late
        self._process.kill()
        code = self._process.wait()
        self.close()
        return f"no answer within {STARTING:g} seconds" if late else _cause(code)

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
            check_bytes(item.name, len(item.content), self._limits.bytes)
            return {**head, "kind": "bytes", "bytes": len(item.content)}, item.content
        array = np.asarray(item.content)
        if array.dtype.kind not in "fiub":
            raise PictureError(f"{item.name}: an array of {array.dtype} is no image")
        if array.nbytes > self._limits.memory // 4:
            raise PictureError(f"{item.name}: an array of {array.nbytes / 1e6:.0f} MB is more than a worker may take")
        array = np.ascontiguousarray(array).reshape(array.shape)
        shape = {"dtype": str(array.dtype), "shape": array.shape, "bytes": array.nbytes}
        return {**head, "kind": "array", **shape}, array.reshape(-1).view(np.uint8)

    def _send(self, head: dict[str, Any], content: Any) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(head).encode() + b"\n")
        if len(content):
            self._process.stdin.write(memoryview(content))
        self._process.stdin.flush()

    def _listen(self) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.endswith(b"\n"):
            raise EOFError
        return json.loads(line)

    def _fill(self, array: NDArray[Any]) -> None:
        assert self._process is not None
        answers: Any = self._process.stdout
        if answers.readinto(memoryview(array.data).cast("B")) != array.nbytes:
            raise EOFError

    def _obituary(self, item: Item) -> PictureError:
        """What the process died of over a picture; the next one starts a new process."""
        assert self._process is not None
        with self._lock:
            late = self._late
        self._process.kill()
        code = self._process.wait()
        self.close()
        if late:
            return PictureError(f"{item.name}: not decoded within {self._limits.seconds:g} seconds")
        return _LostError(f"{item.name}: the decoder died of it ({_cause(code)})")


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
