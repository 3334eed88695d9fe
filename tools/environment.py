"""The virtual environment (.venv) that the tools make for themselves; standard library only."""

import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".venv"
OLDEST = (3, 11)


def environment_python() -> Path:
    """The interpreter inside .venv."""
    return FOLDER / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def install(extras: str) -> Path:
    """Makes .venv where it is missing, installs this project with `extras` into it, and returns its interpreter."""
    if sys.version_info < OLDEST:
        sys.exit(f"Python {'.'.join(map(str, OLDEST))} or newer is needed; this is {sys.version.split()[0]}")
    python = environment_python()
    if not python.exists():
        print(f"making {FOLDER.relative_to(ROOT)}", flush=True)
        venv.create(FOLDER, with_pip=True)
    print(f"installing onnxplain[{extras}]", flush=True)
    constraints = ROOT / "tools" / "constraints.txt"
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-c", str(constraints)]
    finished = subprocess.run([*command, "-e", f"{ROOT}[{extras}]"], check=False)
    if finished.returncode:
        sys.exit("the installation failed; pip's message is above")
    return python
