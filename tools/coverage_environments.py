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
    return made_environment(work / "environments" / name, ENVIRONMENTS[name], CONSTRAINTS)


def made_environment(folder: Path, packages: Sequence[str], constraints: Path) -> Path:
    """The interpreter of the environment in `folder`, which is made where it is missing or has other requirements."""
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    made_for, requirements = folder / "made-for.txt", " ".join(packages) + "\n" + constraints.read_text("utf-8")
    if made_for.exists() and made_for.read_text("utf-8") == requirements:
        return python
    print(f"making the environment {folder.name}: {', '.join(packages)}", flush=True)
    venv.create(folder, with_pip=True, clear=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-c", str(constraints)]
    finished = subprocess.run([*pip, *packages], check=False)
    if finished.returncode:
        raise SystemExit("the installation failed; pip's message is above")
    made_for.write_text(requirements, "utf-8")
    return python


def remove_environment(name: str, work: Path) -> None:
    """Deletes the environment, if it is one of the big ones that few networks use."""
    if name in REMOVED_AFTER_USE:
        shutil.rmtree(work / "environments" / name, ignore_errors=True)
