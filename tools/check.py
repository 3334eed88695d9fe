"""Everything that a change must pass: ruff, mypy, pytest, the generated documents. `python3 tools/check.py`

Makes its own virtual environment (.venv) on a fresh machine, where Python 3.11 and pip are all there is.
Words after `--` go to pytest; `--no-install` uses the environment as it is.

The tests of a file run one after the other, two files at a time: most keep one core busy, and those that measure memory
should not be many. `-- -n 0` runs all in one process.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from environment import ROOT, environment_python, install

CHECKS = {
    "ruff format": ["ruff", "format", "--check", "."],
    "ruff": ["ruff", "check", "."],
    "mypy": ["mypy"],
    "pytest": ["pytest", "--numprocesses=2", "--dist=loadfile"],
    "documents": [str(Path("tools") / "docs.py"), "--check"],
}


def main() -> int:
    """Runs every check, even after one has failed, and names those that did."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--no-install", action="store_true", help="use .venv, or this Python, as it is")
    parser.add_argument("pytest", nargs="*", help="arguments for pytest, after --")
    arguments = parser.parse_args()
    if arguments.no_install:
        python = environment_python() if environment_python().exists() else Path(sys.executable)
    else:
        python = install("dev")
    failed = [name for name in CHECKS if not _passes(python, name, arguments.pytest)]
    print(f"failed: {', '.join(failed)}" if failed else "all checks passed", flush=True)
    return 1 if failed else 0


def _passes(python: Path, name: str, pytest_arguments: list[str]) -> bool:
    command = CHECKS[name]
    print(f"== {name}", flush=True)
    module = [] if command[0].endswith(".py") else ["-m"]
    extra = pytest_arguments if name == "pytest" else []
    # torch would start a thread for each core in each process, and they would wait for one another.
    environment = {"OMP_NUM_THREADS": "1", **os.environ}
    finished = subprocess.run([str(python), *module, *command, *extra], cwd=ROOT, env=environment, check=False)
    return finished.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
