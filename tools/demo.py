"""Shows a network caught cheating: `python3 tools/demo.py` writes demo/report.html on a fresh machine.

Makes .venv, installs what explaining needs (no training framework), exports the two shipped networks, explains the
shipped pictures, and compares where each network looked. `--all` uses every method that the bundles carry.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from environment import ROOT, install


def main() -> int:
    """Installs, then runs demo_report.py in the new environment."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="every method, not only the five core ones")
    parser.add_argument("-o", "--output", type=Path, default=Path("demo"), help="folder to write; default: demo")
    arguments = parser.parse_args()
    output = arguments.output if arguments.output.is_absolute() else ROOT / arguments.output
    python = install("cpu,export,segments" if arguments.all else "cpu,export")
    command = [str(python), str(ROOT / "tools" / "demo_report.py"), str(output), *(["--all"] if arguments.all else [])]
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
