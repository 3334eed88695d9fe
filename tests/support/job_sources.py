"""What the tests of a job's sources share: pictures in folders and archives, and what a source finds."""

import io
import tarfile
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from onnxplain.jobs.sources import find_source
from onnxplain.targets import class_of
from toy_bundle import CLASSES, LABELS

CLASS_OF = partial(class_of, classes=CLASSES, labels=LABELS)


def found(given, labels=None, **columns):
    """The items of a source."""
    source = find_source(given, labels, CLASS_OF, columns)
    return list(source.items()) if hasattr(source, "items") else list(source)


def names(items, folder=None):
    return [item.name if folder is None else str(Path(item.name).relative_to(folder)) for item in items]


def png(seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), np.uint8)
    return cv2.imencode(".png", pixels)[1].tobytes()


def put(folder, *paths):
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(png(len(path)))
    return folder


def archive(path, members):
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return path
