"""Drives the JavaScript engine from the tests: calls go in as JSON with raw arrays beside it, answers come back."""

import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
WEB = ROOT / "runtime" / "web"
SCRIPT = ROOT / "tests" / "web" / "calls.mjs"
LEAST_NODE = 20
PACKAGES = ("onnxruntime-node", "onnxruntime-web", "typescript")


def missing_node() -> str | None:
    """Why the JavaScript engine can't be tested here; None where it can, after an installation if need be."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None:
        return "node is not installed"
    version = subprocess.run([node, "--version"], capture_output=True, text=True, timeout=60).stdout.strip()
    if int(version.lstrip("v").split(".")[0]) < LEAST_NODE:
        return f"node {version} is older than {LEAST_NODE}"
    if all((WEB / "node_modules" / name).is_dir() for name in PACKAGES):
        return None
    if npm is None:
        return "npm is not installed, and runtime/web/node_modules lacks the packages"
    # onnxruntime-node's own script would look for CUDA libraries in another registry.
    done = subprocess.run(
        [npm, "ci", "--ignore-scripts"], cwd=WEB, capture_output=True, text=True, timeout=300, check=False
    )
    if done.returncode:
        return f"npm ci failed in runtime/web: {done.stderr.strip().splitlines()[-1:]}"
    return None


class JavaScriptError(Exception):
    """An error of the engine in JavaScript: its class's name and its message."""

    def __init__(self, name: str, message: str, stack: str) -> None:
        super().__init__(f"{name}: {message}")
        self.name, self.message, self.stack = name, message, stack


def run_calls(
    folder: Path,
    calls: Sequence[Mapping[str, Any]],
    *,
    runtime: str | None = None,
    bundle: Path | str | None = None,
    timeout: float = 300,
    **job: Any,
) -> list[Any]:
    """The answers to calls, arrays as numpy's; one that failed is a JavaScriptError, which isn't raised."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "packages": str(WEB),
        "runtime": runtime,
        "bundle": None if bundle is None else str(bundle),
        "out": str(folder),
        "calls": _written(list(calls), folder),
        **job,
    }
    (folder / "job.json").write_text(json.dumps(content), "utf-8")
    node = shutil.which("node")
    assert node is not None
    done = subprocess.run(
        [node, str(SCRIPT), str(folder / "job.json")], capture_output=True, text=True, timeout=timeout, check=False
    )
    if done.returncode:
        raise AssertionError(f"node failed: {done.stdout}\n{done.stderr}")
    answers = json.loads((folder / "answers.json").read_text("utf-8"))
    return [
        JavaScriptError(**answer["error"]) if "error" in answer else _read(answer.get("value")) for answer in answers
    ]


def picture(pixels: np.ndarray) -> dict[str, Any]:
    """A picture [H, W, C] as the engine takes it."""
    height, width = pixels.shape[:2]
    return {"width": width, "height": height, "pixels": np.ascontiguousarray(pixels)}


def _written(value: Any, folder: Path) -> Any:
    """The value with its arrays in files; a picture's pixels become its data."""
    if isinstance(value, np.ndarray):
        file = folder / f"in{len(list(folder.glob('in*.raw')))}.raw"
        file.write_bytes(np.ascontiguousarray(value).tobytes())
        return {"file": str(file), "dims": list(value.shape), "dtype": value.dtype.name}
    if isinstance(value, Mapping):
        if "pixels" in value:
            array = _written(value["pixels"], folder)
            return {**array, **{name: entry for name, entry in value.items() if name != "pixels"}, "dims": None}
        return {name: _written(entry, folder) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_written(entry, folder) for entry in value]
    if isinstance(value, np.generic):
        return value.item()
    return value


def _read(value: Any) -> Any:
    if isinstance(value, list):
        return [_read(entry) for entry in value]
    if isinstance(value, dict):
        if {"file", "dims", "dtype"} <= value.keys():
            return np.fromfile(value["file"], value["dtype"]).reshape(value["dims"])
        return {name: _read(entry) for name, entry in value.items()}
    return value
