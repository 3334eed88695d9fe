"""The one place that imports onnxruntime, so that a missing or broken installation is explained in one line.

`onnxruntime` and its siblings (`onnxruntime-gpu`, …) are distributions that install the same folder: the last one
installed wins, and removing either breaks the other. Nothing in packaging forbids it (microsoft/onnxruntime#26807),
so it is said here.
"""

import contextlib
import importlib
import os
import sys
import warnings
from pathlib import Path
from types import ModuleType

SIBLINGS = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino", "onnxruntime-rocm")


def installed() -> list[str]:
    """The installed distributions that carry the `onnxruntime` module.

    By the names of their folders: importlib.metadata, a fifth of this package's start, would read no more than those.
    """
    found: set[str] = set()
    for folder in sys.path:
        with contextlib.suppress(OSError):
            found.update(_distribution(name) for name in os.listdir(folder or "."))
    return [name for name in SIBLINGS if name in found]


def _distribution(entry: str) -> str:
    """The distribution that an entry of a folder of modules describes, "" where it is none."""
    name, suffix = os.path.splitext(entry)
    return name.partition("-")[0].replace("_", "-").lower() if suffix in (".dist-info", ".egg-info") else ""


def _repair(names: list[str]) -> str:
    keep = "onnxruntime-gpu" if "onnxruntime-gpu" in names else names[-1]
    return f"pip uninstall -y {' '.join(names)} && pip install --force-reinstall --no-deps {keep}"


def load_onnxruntime() -> ModuleType:
    """The onnxruntime module; ImportError, or a warning where it still works, says in one line what to install."""
    names = installed()
    try:
        module = importlib.import_module("onnxruntime")
    except ModuleNotFoundError as error:
        if error.name != "onnxruntime":
            raise
        raise ImportError(
            'onnxplain needs onnxruntime: pip install "onnxplain[cpu]", or "onnxplain[gpu]" for CUDA'
        ) from None
    if not hasattr(module, "InferenceSession"):
        raise ImportError(f"onnxruntime is installed but empty; repair it: {_repair(names or ['onnxruntime'])}")
    if len(names) > 1:
        both = " and ".join(names)
        message = f"{both} are both installed and overwrite each other; keep one: {_repair(names)}"
        warnings.warn(message, stacklevel=2)
    return module


def _load_or_leave() -> ModuleType:
    """The module; where the command `onnxplain` itself was started, its one line isn't buried in a traceback."""
    try:
        return load_onnxruntime()
    except ImportError as error:
        # "-m" stands there while `python -m onnxplain` imports this package.
        if sys.argv and (sys.argv[0] == "-m" or Path(sys.argv[0]).stem == "onnxplain"):
            print(f"onnxplain: {error}", file=sys.stderr)
            raise SystemExit(2) from None
        raise


onnxruntime = _load_or_leave()
