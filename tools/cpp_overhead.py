"""How much longer the C++ engine's explain takes than the bare runs of its graphs: medians of rounds that take turns.

    python tools/cpp_overhead.py BUNDLE [--rounds 15] [--threads 2]

Builds tests/cpp/overhead.cpp with -O2. One image, gradient, SmoothGrad and integrated gradients of 24 steps in runs of
8 rows. By the clock, only a machine that is doing nothing else gives figures worth reading; the processors' work with
--threads 1 is steadier.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from cpp_runtime import ROOT, MissingError

sys.path.insert(0, str(ROOT / "tests" / "support"))

from cpp_engine import build, toolchain


def overheads(bundle: Path, rounds: int, threads: int) -> dict[str, tuple[float, float, float]]:
    """For each method the bare runs' seconds, and the share by which explain takes longer, by the clock and in work."""
    with tempfile.TemporaryDirectory() as folder:
        program = build(toolchain(), "overhead", Path(folder, "overhead"), ["-O2"])
        command = [str(program), str(bundle), str(rounds), str(threads)]
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return {
        times["method"]: (statistics.median(times["bare"]), _share(times, ""), _share(times, "_work"))
        for times in map(json.loads, lines)
    }


def _share(times: dict[str, list[float]], kind: str) -> float:
    pairs = zip(times[f"explain{kind}"], times[f"bare{kind}"], strict=True)
    return statistics.median(explain / bare - 1 for explain, bare in pairs)


def main() -> int:
    """Prints a line for each method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    try:
        found = overheads(arguments.bundle, arguments.rounds, arguments.threads)
    except MissingError as missing:
        print(f"missing: {missing}", file=sys.stderr)
        return 1
    for method, (seconds, share, work) in found.items():
        shares = f"explain {100 * share:+.2f} % by the clock, {100 * work:+.2f} % in work of all threads"
        print(f"{method:24s} bare {1000 * seconds:8.2f} ms   {shares}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
