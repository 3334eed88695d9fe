"""Reads examples that are no pictures: an array in a .npy file, or one for each input of the network in a .npz file."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.errors import ParameterError, PictureError

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


def read_array(path: Path) -> NDArray[Any]:
    """The one array of a .npy file; ParameterError for a file of several."""
    content = read_arrays(path)
    if isinstance(content, dict):
        raise ParameterError(f"{path}: a .npy file with one array is needed")
    return content


def _unpacked(path: Path) -> int:
    if not zipfile.is_zipfile(path):
        return path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        return sum(entry.file_size for entry in archive.infolist())
