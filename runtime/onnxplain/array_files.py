"""Reads examples that are no pictures: an array in a .npy file, or one for each input of the network in a .npz file."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.errors import PictureError

SUFFIXES = frozenset({".npy", ".npz"})
MOST_BYTES = 1_000_000_000
"""Unpacked; a .npz file of few bytes can unpack to any number."""


def read_arrays(path: Path) -> NDArray[Any] | dict[str, NDArray[Any]]:
    """The array of a .npy file, or those of a .npz file by name; PictureError for anything else, and past 1 GB."""
    try:
        if _unpacked(path) > MOST_BYTES:
            raise PictureError(f"{path}: unpacks to more than {MOST_BYTES // 10**9} GB")
        content = np.load(path, allow_pickle=False)
        if isinstance(content, np.ndarray):
            return content
        with content:
            return {name: content[name] for name in content.files}
    except OSError as error:
        raise PictureError(f"{path}: can't be read ({error.strerror or error})") from None
    except (ValueError, EOFError, zipfile.BadZipFile, KeyError) as error:
        raise PictureError(f"{path}: holds no arrays of numbers ({error})") from None


def _unpacked(path: Path) -> int:
    if not zipfile.is_zipfile(path):
        return path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        return sum(entry.file_size for entry in archive.infolist())
