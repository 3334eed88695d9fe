"""Runs every graph of three small networks on every runtime that is here, and writes the README's table of runtimes.

    python tools/portability.py [RUNTIME ...] [--work FOLDER] [--runner "NAME=COMMAND"]

Each runtime's share of tools/portability.json is replaced; `python tools/docs.py` makes the table of it. Without names
all are run. OpenVINO and the oldest supported onnxruntime get environments of their own in the work folder, Node and
the browser their packages; what can't be installed or isn't there is left out and said. Each runtime is a process of
its own with a limit on its time, so that a crash is one case's result. `--runner` adds a program of one's own, such as
one of the C++ API: it is called as `COMMAND CASES.JSON FOLDER`, see portability_cases.py.
"""

import argparse
import contextlib
import json
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from coverage_environments import made_environment
from cpp_runtime import MissingError, cpp_runtime
from portability_cases import cases_of, difference, read_outputs, single_cases_of

TOOLS = Path(__file__).resolve().parent
RESULTS = TOOLS / "portability.json"
CONSTRAINTS = TOOLS / "portability_constraints.txt"
NEWEST, OLDEST = "onnxruntime", "onnxruntime oldest"
WORK = Path(tempfile.gettempdir()) / "onnxplain-portability"
CASE_SECONDS = 120
"""So long may a runtime take for one case before it is ended."""


@dataclass(frozen=True)
class Runner:
    """A command that runs cases, what it needs around it, and the version it says it is."""

    command: Sequence[str]
    version: str
    environment: dict[str, str] = field(default_factory=dict)


class UnavailableError(Exception):
    """A runtime that isn't here."""


def main() -> int:
    """Runs the runtimes that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runtimes", nargs="*", help=f"of {', '.join(RUNNERS)}")
    parser.add_argument("--work", type=Path, default=WORK)
    parser.add_argument("--runner", action="append", default=[], metavar="NAME=COMMAND", help="a runner of one's own")
    arguments = parser.parse_args()
    work: Path = arguments.work
    work.mkdir(parents=True, exist_ok=True)
    cases = _cases(work)
    results = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {}
    results["shaken"] = {case["id"]: case["shaken"] for case in cases}
    results["made_with"] = {"onnxruntime": version("onnxruntime"), "machine": platform.machine()}
    own = dict(given.split("=", 1) for given in arguments.runner)
    names = arguments.runtimes or ([] if own else [name for name in RUNNERS if name != NEWEST])
    run(work / "cases.json", cases, _results(work, NEWEST), RUNNERS[NEWEST](work))
    for name in [*names, *own]:
        if name == NEWEST:
            continue
        try:
            runner = Runner(shlex.split(own[name]), "") if name in own else RUNNERS[name](work)
        except UnavailableError as error:
            print(f"{name}: left out, {error}")
            continue
        run(work / "cases.json", cases, _results(work, name), runner)
        compared = _compared(work, cases, name)
        measured = {**results.get("runtimes", {}), name: {"version": runner.version, "cases": compared}}
        results["runtimes"] = {one: measured[one] for one in [*RUNNERS, *own, *measured] if one in measured}
        print(f"{name} {runner.version}: {_said(compared)}", flush=True)
        RESULTS.write_text(json.dumps(_rounded(results), indent=1) + "\n", "utf-8")
    return 0


def _cases(work: Path) -> list[dict[str, Any]]:
    """The networks, their bundles and the cases, made anew: the graphs are what is measured."""
    from onnxplain_export import export  # these bring torch
    from portability_networks import NETWORKS, written

    for name in ("cases", "results"):
        shutil.rmtree(work / name, ignore_errors=True)
    (work / "cases").mkdir(parents=True)
    found = []
    for name in NETWORKS:
        bundle = work / f"{name}.explain"
        export(written(name, work), bundle, methods="all", preprocessing="unit", overwrite=True)
        found += cases_of(name, bundle, work / "cases")
        found += single_cases_of(name, bundle, work / "cases")
    (work / "cases.json").write_text(json.dumps(found), "utf-8")
    return found


def run(file: Path, cases: list[dict[str, Any]], folder: Path, runner: Runner) -> None:
    """Runs the cases in `file`; one that the runner dies of, or takes too long for, gets that as its result."""
    folder.mkdir(parents=True, exist_ok=True)
    while left := [case for case in cases if not (folder / case["id"] / "result.json").exists()]:
        ended = _until_it_stalls(runner, file, folder)
        still = [case for case in left if not (folder / case["id"] / "result.json").exists()]
        if still:
            place = folder / still[0]["id"]
            place.mkdir(parents=True, exist_ok=True)
            (place / "result.json").write_text(json.dumps({"error": ended}), "utf-8")


def _until_it_stalls(runner: Runner, cases: Path, folder: Path) -> str:
    """Runs the command until it ends or no result has come for so long; says how it ended."""
    environment = {**os.environ, **runner.environment}
    with subprocess.Popen(
        [*runner.command, str(cases), str(folder)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        known, since = -1, time.monotonic()
        while process.poll() is None:
            time.sleep(0.1)
            now = sum(1 for _ in folder.rglob("result.json"))
            if now != known:
                known, since = now, time.monotonic()
            if time.monotonic() - since > CASE_SECONDS:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                return f"no answer in {CASE_SECONDS} s"
        said = process.stderr.read().decode(errors="replace").strip() if process.stderr else ""
    code = process.returncode
    ending = f"crashes ({signal.Signals(-code).name})" if code < 0 else f"ends with {code}"
    return f"{ending}: {said.splitlines()[-1][:200]}" if said else ending


def _results(work: Path, name: str) -> Path:
    return work / "results" / name.replace(" ", "-")


def _compared(work: Path, cases: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """Each case's largest relative difference to onnxruntime, or why there is none."""
    found: dict[str, Any] = {}
    for case in cases:
        folder, expected = (_results(work, one) / case["id"] for one in (name, NEWEST))
        try:
            error = difference(read_outputs(folder), read_outputs(expected))
            found[case["id"]] = error if np.isfinite(error) else "wrong shape, or not finite"
        except KeyError:
            found[case["id"]] = json.loads((folder / "result.json").read_text("utf-8"))["error"]
    return found


def _said(compared: dict[str, Any]) -> str:
    errors = [value for value in compared.values() if not isinstance(value, str)]
    return f"{len(errors)} of {len(compared)} cases run, the largest difference {max(errors, default=0.0):.1e}"


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(entry) for key, entry in value.items()}
    return float(f"{value:.2g}") if isinstance(value, float) else value


# Runtimes.


def _python(runtime: str, package: str) -> Any:
    def runner(_: Path) -> Runner:
        return Runner([sys.executable, str(TOOLS / "portability_run.py"), runtime], version(package))

    return runner


def _environment(runtime: str, name: str, packages: Iterable[str]) -> Any:
    """The runner in an environment of its own."""

    def runner(work: Path) -> Runner:
        try:
            python = made_environment(work / "environments" / name, [*packages], CONSTRAINTS)
        except SystemExit as error:
            raise UnavailableError(str(error)) from None
        asked = f"from importlib.metadata import version; print(version({runtime!r}))"
        said = subprocess.run([python, "-c", asked], check=True, capture_output=True, text=True).stdout.strip()
        return Runner([str(python), str(TOOLS / "portability_run.py"), runtime], said, {"PYTHONPATH": ""})

    return runner


def _packages(work: Path) -> dict[str, str]:
    """Where onnxruntime's JavaScript packages are, installed where they are missing."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        raise UnavailableError("Node.js with npm isn't installed")
    folder = work / "node"
    if not (folder / "node_modules" / "onnxruntime-web").is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "package.json").write_text("{}\n", "utf-8")
        # Without its script, which looks for CUDA's files.
        command = [
            "npm",
            "install",
            "--ignore-scripts",
            "--no-audit",
            "--silent",
            "onnxruntime-node",
            "onnxruntime-web",
        ]
        if subprocess.run(command, cwd=folder, check=False).returncode:
            raise UnavailableError("npm can't install onnxruntime-node and onnxruntime-web")
    return {"ONNXRUNTIME_PACKAGES": str(folder)}


def _version_of(package: str, environment: dict[str, str]) -> str:
    file = Path(environment["ONNXRUNTIME_PACKAGES"], "node_modules", package, "package.json")
    return str(json.loads(file.read_text("utf-8"))["version"])


def _node(work: Path) -> Runner:
    packages = _packages(work)
    command = [str(shutil.which("node")), str(TOOLS / "portability_run.mjs")]
    return Runner(command, _version_of("onnxruntime-node", packages), packages)


def _browser(provider: str) -> Any:
    def runner(work: Path) -> Runner:
        if not any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))):
            raise UnavailableError("Chromium isn't installed")
        packages = _packages(work)
        command = [sys.executable, str(TOOLS / "portability_browser.py"), provider]
        return Runner(command, _version_of("onnxruntime-web", packages), packages)

    return runner


def _cpp(work: Path) -> Runner:
    """The program portability_run.cpp, compiled against the headers and library that the C++ engine is tested with."""
    compiler = shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        raise UnavailableError("no C++ compiler is installed")
    try:
        runtime = cpp_runtime()
    except MissingError as error:
        raise UnavailableError(str(error)) from None
    program = work / "portability_run"
    command = [compiler, "-std=c++17", "-O2", str(TOOLS / "portability_run.cpp"), f"-I{runtime / 'include'}"]
    command += [f"-L{runtime / 'lib'}", "-lonnxruntime", f"-Wl,-rpath,{runtime / 'lib'}", "-o", str(program)]
    built = subprocess.run(command, check=False, capture_output=True, text=True)
    if built.returncode:
        raise UnavailableError(f"it doesn't compile: {built.stderr.strip().splitlines()[-1]}")
    return Runner([str(program)], version("onnxruntime"))


RUNNERS = {
    NEWEST: _python("onnxruntime", "onnxruntime"),
    "C++ API": _cpp,
    OLDEST: _environment("onnxruntime", "onnxruntime-oldest", ("numpy", "onnxruntime==1.22.0")),
    "Node": _node,
    "WASM": _browser("wasm"),
    "OpenVINO": _environment("openvino", "openvino", ("numpy", "openvino==2026.4.*")),
    "OpenCV": _python("opencv", "opencv-python"),
    "reference evaluator": _python("reference", "onnx"),
    "WebGPU": _browser("webgpu"),
}


if __name__ == "__main__":
    sys.exit(main())
