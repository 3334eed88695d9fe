"""What runs in a worker process: takes one picture after another from stdin, answers with the network's row on stdout.

A picture may be made to crash a decoder, or to take all memory; here that costs one picture. Messages are a line of
JSON, and the bytes that it announces. This module is run as a program: python -m onnxplain.jobs.decoder BUNDLE BYTES.
"""

import contextlib
import hashlib
import json
import os
import queue
import sys
import threading
from typing import Any, BinaryIO

import numpy as np

from onnxplain.bundle import Bundle
from onnxplain.bundle_files import read_bundle
from onnxplain.errors import OnnxplainError, PictureError
from onnxplain.images import Image, image_of_array, prepared_image
from onnxplain.pictures import check_bytes, picture_in, read_file
from onnxplain.preprocessing import is_upright

Request = tuple[dict[str, Any], bytes]


def main(bundle: str, memory: int) -> None:
    """Answers requests until stdin ends."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what a library prints mustn't get among the answers
    try:
        opened = read_bundle(bundle, verify=False)
        import cv2  # where it is missing, that is to be known before the first picture
    except (OnnxplainError, ImportError, OSError) as error:
        _say(answers, {"error": str(error)})
        return
    cv2.setNumThreads(1)
    np.ones((256, 256)) @ np.ones((256, 256))  # OpenBLAS ends the process where there is no memory for its own buffer
    _hush()
    _bound(memory)
    waiting: queue.SimpleQueue[Request] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(requests, waiting), daemon=True).start()
    _say(answers, {"ready": True})
    while True:
        _answer(answers, _tried(*waiting.get(), opened), memory)


def _listen(requests: BinaryIO, waiting: "queue.SimpleQueue[Request]") -> None:
    """Takes requests; ends the process, whatever it is doing, as soon as nobody is there to ask."""
    code = 1
    try:
        while line := requests.readline():
            request = json.loads(line)
            waiting.put((request, requests.read(request.get("bytes", 0))))
        code = 0
    finally:
        os._exit(code)


def _hush() -> None:
    """Drops what the decoders' libraries print about damaged pictures; Python's own errors still reach stderr."""
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1, errors="backslashreplace")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)


def _bound(memory: int) -> None:
    """Lets allocations beyond `memory` fail, and a crash pass without a dump of the process."""
    with contextlib.suppress(ImportError, OSError, ValueError):  # Windows; a lower limit is set already
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))


def _tried(request: dict[str, Any], content: bytes, bundle: Bundle) -> Image | str:
    """The image, or why there is none."""
    try:
        return _image(request, content, bundle)
    except PictureError as error:
        return str(error)
    except MemoryError:
        return f"{request['name']}: takes more memory to decode than a worker may use"
    except Exception as error:  # a decoder's own, of any kind: one picture's matter
        return f"{request['name']}: {type(error).__name__}: {error}"


def _image(request: dict[str, Any], content: bytes, bundle: Bundle) -> Image:
    name, limits = request["name"], request["limits"]
    if request["kind"] == "array":
        array = np.frombuffer(content, request["dtype"]).reshape(request["shape"])
        return image_of_array(name, array, bundle)
    if request["kind"] == "file":
        data = read_file(request["path"], limits["bytes"])
    elif request["kind"] == "part":
        check_bytes(name, request["size"], limits["bytes"])
        data = _part(name, request["path"], request["offset"], request["size"])
    else:
        data = content
        check_bytes(name, len(data), limits["bytes"])
    pixels = picture_in(data, name, is_upright(bundle.steps), limits["pixels"])
    return prepared_image(name, hashlib.sha256(data).hexdigest(), pixels, bundle)


def _part(name: str, path: str, offset: int, size: int) -> bytes:
    try:
        with open(path, "rb") as file:
            file.seek(offset)
            data = file.read(size)
    except OSError as error:
        raise PictureError(f"{name}: {path} can't be read: {error.strerror or error}") from error
    if len(data) < size:
        raise PictureError(f"{name}: {path} ends within it")
    return data


def _answer(answers: BinaryIO, image: Image | str, memory: int) -> None:
    if isinstance(image, str):
        _say(answers, {"error": image, "tight": _peak() > memory // 2})
        return
    row, seen = np.ascontiguousarray(image.row), image.seen
    head: dict[str, Any] = {"sha256": image.sha256, "box": image.box, "row": row.shape[1:], "dtype": str(row.dtype)}
    if seen is not None:
        head["seen"] = seen.shape
    _say(answers, head)
    _all(answers, row)
    if seen is not None:
        _all(answers, np.ascontiguousarray(seen))


def _peak() -> int:
    """The most bytes that this process has taken so far, 0 where that isn't told (Windows)."""
    try:
        import resource
    except ImportError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _say(answers: BinaryIO, head: dict[str, Any]) -> None:
    _all(answers, json.dumps(head).encode() + b"\n")


def _all(answers: BinaryIO, data: Any) -> None:
    rest = memoryview(data).cast("B")
    while len(rest):
        rest = rest[answers.write(rest) :]


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):  # the job has ended
        main(sys.argv[1], int(sys.argv[2]))
