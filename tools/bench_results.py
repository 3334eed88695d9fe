"""The benchmark's file of results, tools/bench.json: what is there and still valid isn't measured again.

Standard library only. {device: {"machine": …, "versions": …, "networks": {network: {part: result}}}}.
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
    there = results.setdefault(device, {"networks": {}})
    kept = dict(result)
    there["machine"] = machine() | ({"gpu": kept.pop("gpu")} if "gpu" in kept else {})
    there.setdefault("versions", {}).update(kept.pop("versions", {}))
    kept["date"] = date.today().isoformat()
    if kept.get("void"):
        kept = {key: kept[key] for key in ("void", "attempts", "made_with", "date") if key in kept}
    there["networks"].setdefault(network, {})[part] = _rounded(kept)
    place = {name: number for number, name in enumerate(order)}
    networks = sorted(there["networks"].items(), key=lambda entry: place.get(entry[0], len(place)))
    there["networks"] = dict(networks)
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


def machine() -> dict[str, Any]:
    """The machine, without its name."""
    found: dict[str, Any] = {"system": platform.system(), "architecture": platform.machine(), "cores": cores()}
    words = Path("/proc/cpuinfo")
    if words.exists():
        lines = (line.partition(":") for line in words.read_text("utf-8").splitlines())
        known = {key.strip(): value.strip() for key, _, value in lines}
        found["processor"] = known.get("model name", "")
        found["vector"] = "AVX-512" if "avx512f" in known.get("flags", "") else ""
    return found


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
