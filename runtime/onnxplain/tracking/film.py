"""Figures of several epochs as a film: an animated GIF, WebP or PNG."""

import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from onnxplain.errors import OutputError, ParameterError
from onnxplain.output import write_bytes
from onnxplain.pictures import picture_in, png_bytes
from onnxplain.resize import resize

Pixels = NDArray[np.uint8]

SUFFIXES = (".gif", ".webp", ".png")
SHORTEST, LONGEST = 20, 60_000
"""Milliseconds of a frame: players show shorter ones for longer, and a GIF counts in hundredths with 16 bits."""
MOST_PIXELS = 2**31
"""A frame was drawn here; no file from elsewhere is read."""


class Film:
    """The frames of a film by epoch, held as PNG files; a frame of the same epoch replaces the one before."""

    def __init__(self, frames: dict[int, bytes] | None = None) -> None:
        self.frames: dict[int, bytes] = dict(frames or {})

    def __len__(self) -> int:
        return len(self.frames)

    def add(self, epoch: int, pixels: Pixels) -> None:
        """Takes the figure of an epoch, RGB uint8 `[H, W, 3]`."""
        self.frames[epoch] = png_bytes(pixels)

    def pictures(self) -> Iterable[Pixels]:
        """The frames in the epochs' order."""
        return (picture_in(self.frames[epoch], f"epoch {epoch}", True, MOST_PIXELS) for epoch in sorted(self.frames))


def write_film(
    path: str | Path, frames: Iterable[Pixels], *, milliseconds: int = 800, most: int | None = None, loops: int = 0
) -> None:
    """Write frames, RGB uint8 `[H, W, 3]`, as an animated .gif, .webp or .png (APNG), whole or not at all.

    Each is shown for so many `milliseconds` (20 to 60000; a GIF counts in tens), `loops` times, 0 without end. Where
    the larger side has more than `most` pixels, frames are shrunk to that. Smaller frames than others get a white rim.
    Raises ParameterError for another kind of file and for no frames, OutputError where it can't be written.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise ParameterError(f"{path}: a film is a file with the ending {', '.join(SUFFIXES)}")
    if isinstance(milliseconds, bool) or not SHORTEST <= milliseconds <= LONGEST:
        raise ParameterError(f"milliseconds={milliseconds!r} must be between {SHORTEST} and {LONGEST}")
    if most is not None and most < 16:
        raise ParameterError(f"most={most!r} must be at least 16 pixels")
    pictures = _of_one_size([_shrunk(_checked(frame), most) for frame in frames])
    if not pictures:
        raise ParameterError("a film needs at least one frame: nothing has been shown yet")
    write_bytes(path, _encoded(pictures, suffix, milliseconds, loops))


def _encoded(pictures: Sequence[Pixels], suffix: str, milliseconds: int, loops: int) -> bytes:
    import cv2  # heavy, and needed only where pictures are read or drawn

    film = cv2.Animation()
    film.frames = [np.ascontiguousarray(picture[..., ::-1]) for picture in pictures]
    film.durations = [milliseconds] * len(pictures)
    film.loop_count = loops
    # Written beside nothing else: OpenCV 4.11 knows files only, and leaves a half-made one where it fails.
    with tempfile.TemporaryDirectory() as folder:
        file = os.path.join(folder, f"film{suffix}")
        try:
            done = cv2.imwriteanimation(file, film, _options(suffix))
        except cv2.error as error:
            raise OutputError(f"OpenCV could not write a film as {suffix}: {error}") from None
        if not done:
            raise OutputError(f"OpenCV could not write a film of {len(pictures)} frames as {suffix}")
        return Path(file).read_bytes()


def _options(suffix: str) -> list[int]:
    """OpenCV's settings of a kind of file."""
    import cv2  # as above

    # A GIF has 256 colours. With 3 a figure's are 2 of 255 off on average, measured in OpenCV 5.0; by default 11, and
    # letters get yellow rims. 101 is WebP without loss.
    return {".gif": [cv2.IMWRITE_GIF_DITHER, 3], ".webp": [cv2.IMWRITE_WEBP_QUALITY, 101]}.get(suffix, [])


def _checked(frame: Pixels) -> Pixels:
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        raise ParameterError(f"a frame is RGB uint8 [H, W, 3], not {frame.dtype} {list(frame.shape)}")
    return frame


def _shrunk(frame: Pixels, most: int | None) -> Pixels:
    height, width = frame.shape[:2]
    if most is None or max(height, width) <= most:
        return frame
    share = most / max(height, width)
    return resize(frame, max(1, round(height * share)), max(1, round(width * share)))


def _of_one_size(frames: Sequence[Pixels]) -> list[Pixels]:
    height = max((frame.shape[0] for frame in frames), default=0)
    width = max((frame.shape[1] for frame in frames), default=0)
    return [
        np.pad(
            frame,
            ((0, height - frame.shape[0]), (0, width - frame.shape[1]), (0, 0)),
            mode="constant",
            constant_values=255,
        )
        for frame in frames
    ]
