"""Measures one part of one network: `bench_measure.py NETWORK PART OPTIONS WORK RESULT`, called by bench.py.

Runs in the benchmark's own environment.
"""

import importlib
import json
import sys
import warnings
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from bench_rounds import Timing
from bench_subject import Subject

PACKAGES = ("onnxruntime", "torch", "torchvision", "timm", "captum", "onnx-ad", "dianna", "numpy")
QUICK = Timing(rounds=3, least=3, warmup=1)
SLOW_ROUNDS, SLOW_SECONDS = 7, 60.0


def main(network: str, part: str, options: dict[str, Any], work: Path) -> dict[str, Any]:
    """The part's result, with the versions that it was measured with."""
    warnings.simplefilter("ignore")
    subject = Subject(
        network, work, options["batch"], options["threads"], options["device"], options["precision"], options["quick"]
    )
    rounds = options["rounds"]
    usual = Timing(rounds) if part == "gradient" else Timing(max(rounds, SLOW_ROUNDS), SLOW_ROUNDS, SLOW_SECONDS)
    timing = QUICK if options["quick"] else usual
    if (reason := subject.obstacle()) is not None:
        raise SystemExit(f"  skipped: {reason}")
    result = importlib.import_module(f"bench_{part}").measure(subject, timing)
    gpu = {"gpu": torch.cuda.get_device_name()} if subject.device == "cuda" else {}
    return result | {"versions": _versions(), **gpu}


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


if __name__ == "__main__":
    measured = main(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), Path(sys.argv[4]))
    Path(sys.argv[5]).write_text(json.dumps(measured), "utf-8")
