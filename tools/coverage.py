"""Which networks are explained as their own framework would: `python tools/coverage.py`.

Builds architectures of many sources with random weights, each in its framework's own environment, exports them with
that framework's usual exporter, adds the gradient graph and compares it with the framework's gradient. Results go to
tools/coverage.json as they come; what is there is not done again. README.md's table is made from that file.
"""

import argparse
import fnmatch
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import Any

from coverage_environments import environment_python, remove_environment
from coverage_measure import RESULT
from coverage_networks.case import DESCRIPTION, MODEL
from coverage_networks.sources import SOURCES, names
from coverage_table import RESULTS, THEIRS, summary

TOOLS = Path(__file__).resolve().parent


def main() -> int:
    """Does what is not done yet, or what the options name, and prints the summary."""
    arguments = _arguments()
    chosen = list(_chosen(arguments))
    if arguments.list:
        print("\n".join(chosen))
        return 0
    _forget_others()
    work = arguments.work.resolve()
    for environment, group in groupby(chosen, key=lambda name: _source(name).ENVIRONMENT):
        for network in group:
            kept = arguments.retime and (_folder(work, network) / DESCRIPTION).exists()
            failure = None if kept else _build(network, environment, work, arguments.limit)
            result = failure or _measure(_folder(work, network), arguments.limit)
            _record(network, _without_folder(result, work))
            print(_line(network, result), flush=True)
        if not arguments.keep:
            remove_environment(environment, work)
    print("\n".join(summary(_results())))
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="PATTERN", action="append", help="networks such as 'timm/*'; may be repeated")
    parser.add_argument("--failed", action="store_true", help="of these, those that are not passing")
    parser.add_argument("--again", action="store_true", help="also those that have a result")
    parser.add_argument("--retime", action="store_true", help="measure again, with the ONNX files that were kept")
    parser.add_argument("--list", action="store_true", help="print the networks and do nothing")
    parser.add_argument("--keep", action="store_true", help="keep the big environments of few networks")
    parser.add_argument("--limit", type=int, default=300, help="seconds for building, and for measuring, one network")
    default = Path(tempfile.gettempdir()) / "onnxplain-coverage"
    parser.add_argument("--work", type=Path, default=default, help=f"folder of environments and files ({default})")
    return parser.parse_args()


def _chosen(arguments: argparse.Namespace) -> Iterator[str]:
    """The networks that the options name."""
    known = _results()["networks"]
    for name in names():
        if arguments.only and not any(fnmatch.fnmatch(name, pattern) for pattern in arguments.only):
            continue
        if arguments.failed:
            if known.get(name, {}).get("status") == "fails":
                yield name
        elif arguments.again or arguments.retime or arguments.list or name not in known:
            yield name


def _source(network: str) -> Any:
    return SOURCES[network.split("/")[0]]


def _folder(work: Path, network: str) -> Path:
    return work / "networks" / network


def _build(network: str, environment: str, work: Path, limit: int) -> dict[str, Any] | None:
    """Builds a network in its framework's environment; what went wrong, or None."""
    folder = _folder(work, network)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    python = environment_python(environment, work)
    source, name = network.split("/")
    command = [str(python), "-m", "coverage_networks.build", source, name, str(folder)]
    reason = _run(command, folder / "build.log", limit)
    if reason is None and (folder / DESCRIPTION).exists() and (folder / MODEL).exists():
        return None
    return {"status": "fails", "stage": THEIRS, "reason": reason or "it left no file"}


def _measure(folder: Path, limit: int) -> dict[str, Any]:
    """Explains and compares a network that was built."""
    (folder / RESULT).unlink(missing_ok=True)
    command = [sys.executable, str(TOOLS / "coverage_measure.py"), str(folder)]
    reason = _run(command, folder / "measure.log", limit)
    if reason is not None:
        return {"status": "fails", "stage": "crash", "reason": reason}
    return json.loads((folder / RESULT).read_text("utf-8"))


def _run(command: Sequence[str], log: Path, limit: int) -> str | None:
    """Runs a command in a process group of its own, its words in `log`; why it failed, or None."""
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    with log.open("w", encoding="utf-8") as words:
        process = subprocess.Popen(
            command, cwd=TOOLS, env=environment, stdout=words, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            status = process.wait(limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return f"took more than {limit} seconds"
    return None if status == 0 else f"{_last_error(log)} (exit status {status})"


def _last_error(log: Path) -> str:
    """The line that names the exception, or else the last one."""
    lines = [line.rstrip() for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
    named = [line for line in lines if re.match(r"[\w.]*(Error|Exception|Exit|Interrupt)\b", line)]
    return (named or lines or ["no message"])[-1][:300]


def _without_folder(result: Mapping[str, Any], work: Path) -> dict[str, Any]:
    """The result without the names of this machine's folders."""
    text = json.dumps(result)
    for folder in (work, TOOLS.parent, Path(sys.prefix)):
        text = text.replace(json.dumps(f"{folder}{os.sep}")[1:-1], "")
    return json.loads(text)


def _results() -> dict[str, Any]:
    if RESULTS.exists():
        return json.loads(RESULTS.read_text("utf-8"))
    return {"machine": {}, "versions": {}, "networks": {}}


def _record(network: str, result: Mapping[str, Any]) -> None:
    """Puts a network's result into the file of results, the networks in the order of their list."""
    results = _results()
    results["machine"] = {"system": platform.system(), "architecture": platform.machine(), "cores": os.cpu_count()}
    results["versions"]["onnxplain"] = {name: version(name) for name in ("onnx", "onnxruntime", "numpy")}
    kept = {key: _rounded(value) for key, value in result.items() if key != "versions"}
    if "versions" in result:
        results["versions"].setdefault(network.split("/")[0], {}).update(result["versions"])
    results["networks"][network] = kept
    order = {name: number for number, name in enumerate(names())}
    known = sorted(results["networks"].items(), key=lambda entry: order.get(entry[0], len(order)))
    _write(results | {"networks": dict(known)})


def _forget_others() -> None:
    """Drops the results of networks that are no longer listed."""
    results, listed = _results(), set(names())
    _write(results | {"networks": {name: entry for name, entry in results["networks"].items() if name in listed}})


def _write(results: Mapping[str, Any]) -> None:
    scratch = RESULTS.with_suffix(".partial")
    scratch.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    scratch.replace(RESULTS)


def _rounded(value: Any) -> Any:
    return float(f"{value:.3g}") if isinstance(value, float) else value


def _line(network: str, result: Mapping[str, Any]) -> str:
    if result["status"] == "passes":
        return f"{network}: error {result['error']:.1e} of {result['bar']:.1e}, {result['ratio']:.2f} × forward"
    return f"{network}: {result['status']}, {result['stage']}: {result['reason']}"


if __name__ == "__main__":
    raise SystemExit(main())
