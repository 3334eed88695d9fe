"""The benchmark's file of results, tools/bench.json: what is there and still valid isn't measured again.

Standard library only. {device: {"networks": {network: {part: result}}, "elsewhere": {machine: networks}}}; each result
says on which machine, with which versions and on which day it was measured. What was measured before on another machine
than the last time is kept elsewhere.
"""

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

TOOLS = Path(__file__).resolve().parent
ROOT = TOOLS.parent
RESULTS = TOOLS / "bench.json"
# Counted up where what is measured changes its meaning: older results are then measured again.
FORMAT = 1
OF_A_VOID_ONE = ("void", "attempts", "made_with", "machine", "versions", "date")


def code_version() -> str:
    """A digest of both packages: what a result was measured with."""
    digest = hashlib.sha256()
    for file in sorted([*(ROOT / "runtime").rglob("*.py"), *(ROOT / "export").rglob("*.py")]):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def read(file: Path = RESULTS) -> dict[str, Any]:
    """All results."""
    return json.loads(file.read_text("utf-8")) if file.exists() else {}


def is_done(results: Mapping[str, Any], device: str, network: str, part: str, made_with: Mapping[str, Any]) -> bool:
    """Whether the same code measured this with the same options, and the run counted."""
    known = results.get(device, {}).get("networks", {}).get(network, {}).get(part, {})
    return known.get("made_with") == dict(made_with) and not known.get("void")


def record(
    device: str, network: str, part: str, result: Mapping[str, Any], order: list[str], file: Path = RESULTS
) -> None:
    """Puts a result into the file, the networks in the order of their list; a void one without its figures."""
    results = read(file)
    there = results.setdefault(device, {})
    networks, elsewhere = there.setdefault("networks", {}), there.setdefault("elsewhere", {})
    kept = dict(result)
    kept["machine"] = machine(kept.pop("gpu", None))
    kept["date"] = date.today().isoformat()
    if kept.get("void"):
        kept = {key: kept[key] for key in OF_A_VOID_ONE if key in kept}
    before = networks.get(network, {}).get(part)
    older = elsewhere.get(kept["machine"], {})
    if part in older.get(network, {}):
        del older[network][part]
    if before and before["machine"] != kept["machine"] and not before.get("void"):
        elsewhere.setdefault(before["machine"], {}).setdefault(network, {})[part] = before
    networks.setdefault(network, {})[part] = _rounded(kept)
    place = {name: number for number, name in enumerate(order)}
    there["networks"] = dict(sorted(networks.items(), key=lambda entry: place.get(entry[0], len(place))))
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    partial.replace(file)


def _rounded(value: Any) -> Any:
    """Figures with four digits: more aren't measured."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, Mapping):
        return {key: _rounded(entry) for key, entry in value.items()}
    return [_rounded(entry) for entry in value] if isinstance(value, list | tuple) else value


def machine(gpu: str | None = None) -> str:
    """The machine in words, without its name."""
    processor = platform.machine()
    words = Path("/proc/cpuinfo")
    if words.exists():
        lines = (line.partition(":") for line in words.read_text("utf-8").splitlines())
        known = {key.strip(): value.strip() for key, _, value in lines}
        vector = " with AVX-512" if "avx512f" in known.get("flags", "") else ""
        processor = f"{known.get('model name') or processor}{vector}"
    return f"{cores()} cores ({processor}{f', {gpu}' if gpu else ''})"


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
