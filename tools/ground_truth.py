"""Scores every explainer where the right answer is known: `python tools/ground_truth.py`

Networks in closed form, a planted pattern, and the shipped pair (see ground_truth_networks.py and models/README.md).
Results go to tools/ground_truth.json after each method; a later run measures only what is missing or was measured with
other settings. About five minutes on two idle cores.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

import ground_truth_measure as measuring
from ground_truth_measure import CASES, LOCALISED, Figures
from ground_truth_table import RESULTS, text_table
from onnxplain.output import write_bytes
from onnxplain_export.methods import METHODS


def main() -> int:
    """Measures, writes the JSON after each method and prints a table; 1 where something failed."""
    arguments = _arguments()
    results = _read(arguments.output) if arguments.output else {}
    settings = _settings(arguments.fast)
    if results.get("settings") != settings:
        results = {"settings": settings, "methods": {}}
    results["made_with"] = _made_with()
    results["methods"] = {name: results["methods"][name] for name in METHODS if name in results["methods"]}
    wanted = [name for name in arguments.methods or METHODS if arguments.again or _missing(results, name, arguments)]
    failed = []
    with tempfile.TemporaryDirectory(prefix="onnxplain.") as temporary, _pool(arguments.processes) as pool:
        folder = arguments.bundles or Path(temporary)
        if wanted:
            results["chance"] = _exported(pool, folder, arguments.network, arguments.fast)
        for name, figures in _measured(pool, wanted, folder, arguments):
            if "failed" in figures:
                failed.append(f"{name}: {figures['failed']}")
                continue
            before = results["methods"].get(name, {}).get("networks", {})
            figures["networks"] = {**before, **figures["networks"]}
            results["methods"][name] = {**results["methods"].get(name, {}), **figures}
            results["methods"] = {known: results["methods"][known] for known in METHODS if known in results["methods"]}
            if arguments.output:
                text = json.dumps(results, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
                write_bytes(arguments.output, text.encode())
    print("\n".join(text_table(results)))
    for line in failed:
        print(f"failed: {line}", file=sys.stderr)
    return 1 if failed else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), metavar="NAME", help="default: all")
    parser.add_argument("--network", nargs="+", choices=CASES, default=list(CASES), help="default: all")
    parser.add_argument("--fast", action="store_true", help="few samples and pictures, and no file unless --output")
    parser.add_argument("--again", action="store_true", help="measure again what was measured")
    parser.add_argument("--output", type=Path, metavar="FILE", help=f"default: {RESULTS.name}")
    parser.add_argument("--bundles", type=Path, metavar="FOLDER", help="keep the exported bundles, and use those there")
    parser.add_argument("--processes", type=int, default=min(2, os.cpu_count() or 1), help="default: 2")
    arguments = parser.parse_args()
    if arguments.output is None and not arguments.fast:
        arguments.output = RESULTS
    return arguments


def _measured(
    pool: ProcessPoolExecutor, methods: Sequence[str], folder: Path, arguments: argparse.Namespace
) -> Iterator[tuple[str, Figures]]:
    """Each method with its figures as they come, or with what failed."""
    started = time.perf_counter()
    futures: dict[Future[Figures], str] = {
        pool.submit(measuring.measure_method, name, folder, arguments.network, arguments.fast): name for name in methods
    }
    for number, future in enumerate(as_completed(futures), 1):
        name = futures[future]
        error = future.exception()
        if isinstance(error, KeyboardInterrupt):
            raise error
        minutes = (time.perf_counter() - started) / 60
        print(f"{number}/{len(futures)} {name}{' FAILED' if error else ''} ({minutes:.1f} min)", flush=True)
        yield name, {"failed": f"{type(error).__name__}: {error}"} if error else future.result()


def _exported(pool: ProcessPoolExecutor, folder: Path, names: Sequence[str], fast: bool) -> dict[str, dict[str, float]]:
    """Exports the networks that the folder lacks or has too old; returns the mean share of a picture in each mask."""
    missing = [name for name in names if not measuring.is_current(name, folder)]
    for future in [pool.submit(measuring.export_case, name, folder) for name in missing]:
        print(f"exported {future.result().stem}", flush=True)
    cases = [measuring.open_case(name, folder, fast) for name in names if name in LOCALISED]
    return {case.name: {part: round(float(np.mean(each)), 4) for part, each in case.masks.items()} for case in cases}


def _pool(processes: int) -> ProcessPoolExecutor:
    # Not forked: onnxruntime's threads don't survive a fork.
    return ProcessPoolExecutor(processes, mp_context=get_context("spawn"))


def _missing(results: dict[str, Any], method: str, arguments: argparse.Namespace) -> bool:
    return not set(arguments.network) <= results["methods"].get(method, {}).get("networks", {}).keys()


def _settings(fast: bool) -> dict[str, Any]:
    """What the figures depend on beside the code."""
    return {
        "metrics": measuring.SETTINGS,
        "randomisation": [measuring.STAGES, measuring.DRAWS, measuring.DRAWN_PICTURES],
        "most": measuring.MOST_FAST if fast else measuring.MOST,
        "fast": fast,
    }


def _made_with() -> dict[str, str]:
    return {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "numpy": np.__version__,
        "onnxruntime": onnxruntime.__version__,
    }


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text("utf-8")) if path.exists() else {}


if __name__ == "__main__":
    sys.exit(main())
