"""Finding, reading and writing picture files."""

import glob
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.errors import OutputError, PictureError
from onnxplain.output import write_bytes
from onnxplain.picture_header import FORMATS, picture_size

SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".gif"})
# A picture of 21 KiB can unpack to gigabytes; these bound what one bad file may cost.
MOST_BYTES = 50_000_000
MOST_PIXELS = 40_000_000


def find_pictures(paths: str | Path | Iterable[str | Path]) -> list[Path]:
    """Return the picture files that `paths` name, each once, in the order given.

    A file is taken as it is. A folder is searched with its subfolders, in sorted order, for files with a picture's
    suffix; so is a pattern with `*`, `?` or `[…]` (`**` for any depth). Hidden files are left out. Raises PictureError
    for a path that isn't there and for a folder or pattern without pictures.
    """
    found: dict[Path, None] = {}
    for path in [paths] if isinstance(paths, str | Path) else paths:
        found.update(dict.fromkeys(_pictures_of(path)))
    if not found:
        raise PictureError("no pictures were named")
    return list(found)


def _pictures_of(path: str | Path) -> list[Path]:
    if os.path.isdir(path):
        files = [Path(folder, name) for folder, _, names in os.walk(path) for name in names]
        files = [file for file in files if not any(part.startswith(".") for part in file.relative_to(path).parts)]
        kind = "folder"
    elif os.path.lexists(path):
        return [Path(path)]
    elif glob.has_magic(str(path)):
        files = [Path(name) for name in glob.glob(str(path), recursive=True) if os.path.isfile(name)]
        kind = "pattern"
    else:
        raise PictureError(f"{path}: no such file or folder")
    pictures = sorted(file for file in files if file.suffix.lower() in SUFFIXES)
    if not pictures:
        raise PictureError(f"{path}: no pictures in this {kind} (looked for {' '.join(sorted(SUFFIXES))})")
    return pictures


def read_picture(
    path: str | Path, upright: bool = True, most_bytes: int = MOST_BYTES, most_pixels: int = MOST_PIXELS
) -> NDArray[np.uint8]:
    """Return a picture file as RGB, uint8 `[H, W, 3]`.

    The format is told by content. Grey is repeated to three channels; alpha is dropped, not blended (as Pillow's
    `convert("RGB")`); 16 bits become 8 by rounding value / 257; CMYK is converted by OpenCV; of several frames the
    first is read. `upright` applies the orientation that a camera noted in EXIF (a TIFF's is always applied). Raises
    PictureError for a file that is missing, a folder, empty, damaged, of another format, or larger than `most_bytes`
    (50 MB) or `most_pixels` (40 megapixels).
    """
    return picture_in(read_file(path, most_bytes), path, upright, most_pixels)


def picture_in(
    data: bytes, name: str | Path, upright: bool = True, most_pixels: int = MOST_PIXELS
) -> NDArray[np.uint8]:
    """Return the picture that a file's bytes hold, as read_picture does; `name` is what errors call it."""
    _check_header(name, data, most_pixels)
    pixels = _decode(data, upright)
    if pixels is None:
        raise PictureError(f"{name}: the picture is damaged or cut off")
    if pixels.dtype == np.uint16:
        pixels = (pixels.astype(np.uint32) + 128) // 257
    elif pixels.dtype != np.uint8:
        raise PictureError(f"{name}: pixels are {pixels.dtype}; only pictures of 8 or 16 bits per channel are read")
    return np.ascontiguousarray(pixels, dtype=np.uint8)


def read_file(path: str | Path, most_bytes: int = MOST_BYTES) -> bytes:
    """Return the bytes of a picture's file; PictureError where it is missing, no file, empty, or larger than that."""
    if os.path.isdir(path):
        raise PictureError(f"{path}: is a folder, not a picture")
    if os.path.exists(path) and not os.path.isfile(path):
        raise PictureError(f"{path}: is not a regular file")
    try:
        with open(path, "rb") as file:
            data = file.read(most_bytes + 1)
    except OSError as error:
        raise PictureError(f"{path}: can't be read: {error.strerror or error}") from error
    check_bytes(path, len(data), most_bytes)
    return data


def check_bytes(name: str | Path, size: int, most_bytes: int = MOST_BYTES) -> None:
    """PictureError for a file that is empty or larger than that."""
    if not size:
        raise PictureError(f"{name}: the file is empty")
    if size > most_bytes:
        raise PictureError(f"{name}: is larger than {most_bytes / 1_000_000:g} MB; make it smaller first")


def _check_header(path: str | Path, data: bytes, most_pixels: int) -> None:
    header = picture_size(data)
    if header is None:
        known = ", ".join(name for name, _, _ in FORMATS)
        raise PictureError(f"{path}: is not a picture of a format that is read ({known}), or its header is damaged")
    name, height, width = header
    if height * width > most_pixels:
        limit = most_pixels / 1_000_000
        raise PictureError(f"{path}: {name} of {width}x{height} pixels; the limit is {limit:g} megapixels")


def _decode(data: bytes, upright: bool) -> NDArray[Any] | None:
    import cv2  # heavy, and needed only where pictures are read or drawn

    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_ANYDEPTH | (0 if upright else cv2.IMREAD_IGNORE_ORIENTATION)
    with _quiet_opencv():
        try:
            return cv2.imdecode(np.frombuffer(data, np.uint8), flags)
        except cv2.error:
            return None


SILENT = 0  # OpenCV's LOG_LEVEL_SILENT
_quiet_lock = threading.Lock()
_quiet_state = {"users": 0, "level": 0}


@contextmanager
def _quiet_opencv() -> Iterator[None]:
    """Keep OpenCV's log off stderr while a file is decoded; the level is global, so the last thread out restores it."""
    set_level = _log_level_setter()
    with _quiet_lock:
        if _quiet_state["users"] == 0:
            _quiet_state["level"] = set_level(SILENT)
        _quiet_state["users"] += 1
    try:
        yield
    finally:
        with _quiet_lock:
            _quiet_state["users"] -= 1
            if _quiet_state["users"] == 0:
                set_level(_quiet_state["level"])


def _log_level_setter() -> Callable[[int], int]:
    """OpenCV's function that sets its log level and returns the one before; version 5 has moved it."""
    import cv2  # heavy, and needed only where pictures are read or drawn

    setter: Callable[[int], int] = getattr(cv2.utils, "logging", cv2).setLogLevel
    return setter


def png_bytes(pixels: NDArray[np.uint8]) -> bytes:
    """Return `pixels`, RGB uint8 `[H, W, 3]` or grey `[H, W]`, as a PNG file."""
    import cv2  # heavy, and needed only where pictures are read or drawn

    if pixels.dtype != np.uint8 or not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)):
        raise OutputError(f"a PNG needs uint8 [H, W, 3] or [H, W], not {pixels.dtype} {list(pixels.shape)}")
    done, data = cv2.imencode(".png", np.ascontiguousarray(pixels[..., ::-1] if pixels.ndim == 3 else pixels))
    if not done:
        raise OutputError(f"OpenCV could not encode {list(pixels.shape)} pixels as PNG")
    return data.tobytes()


def write_png(path: str | Path, pixels: NDArray[np.uint8]) -> None:
    """Write `pixels`, RGB uint8 `[H, W, 3]` or grey `[H, W]`, to a PNG file that is there whole or not at all."""
    write_bytes(path, png_bytes(pixels))
