"""The virtual environments of the frameworks in the coverage table; standard library only."""

import shutil
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

CONSTRAINTS = Path(__file__).with_name("coverage_constraints.txt")
TORCH = ("numpy", "onnx", "onnxscript", "torch")

ENVIRONMENTS: dict[str, Sequence[str]] = {
    "torch": (*TORCH, "torchvision", "timm", "transformers", "keras"),
    "tensorflow": ("numpy", "onnx", "tensorflow-cpu", "keras", "tf2onnx"),
    "jax": ("numpy", "onnx", "jax", "flax", "equinox", "jax2onnx"),
    "paddle": ("numpy", "onnx", "packaging", "paddlepaddle", "paddle2onnx"),
    "sklearn": ("numpy", "onnx", "scikit-learn", "skl2onnx"),
}
REMOVED_AFTER_USE = ("tensorflow", "jax", "paddle")


def environment_python(name: str, work: Path) -> Path:
    """The interpreter of the named environment, which is made where it is missing or has other requirements."""
    folder = work / "environments" / name
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    made_for, requirements = folder / "made-for.txt", _requirements(name)
    if made_for.exists() and made_for.read_text("utf-8") == requirements:
        return python
    print(f"making the environment {name}: {', '.join(ENVIRONMENTS[name])}", flush=True)
    venv.create(folder, with_pip=True, clear=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-c", str(CONSTRAINTS)]
    finished = subprocess.run([*pip, *ENVIRONMENTS[name]], check=False)
    if finished.returncode:
        raise SystemExit("the installation failed; pip's message is above")
    made_for.write_text(requirements, "utf-8")
    return python


def _requirements(name: str) -> str:
    return " ".join(ENVIRONMENTS[name]) + "\n" + CONSTRAINTS.read_text("utf-8")


def remove_environment(name: str, work: Path) -> None:
    """Deletes the environment, if it is one of the big ones that few networks use."""
    if name in REMOVED_AFTER_USE:
        shutil.rmtree(work / "environments" / name, ignore_errors=True)
