"""The most memory that explaining takes, in processes of their own: ours against torch with Captum, and under caps."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench_rounds import Timing
from bench_subject import Subject

CHILD = Path(__file__).with_name("bench_child.py")
SAMPLES = 25
CAPS = (100, 250)
"""Megabytes; more than that no run of these networks takes."""
METHODS = {"smoothgrad": {"samples": SAMPLES}, "integrated_gradients": {"steps": SAMPLES}}


def measure(subject: Subject, _: Timing) -> dict[str, Any]:
    """Peak megabytes of gradient and SmoothGrad on both sides, and what runs add to the loaded network under a cap."""
    folder = subject.work / "memory" / subject.name
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "image.npy", subject.array[:2])
    module = folder / "module.pt"
    torch.save(torch.fx.symbolic_trace(subject.module), module)
    bundle, threads = subject.bundle("gradient", *METHODS), str(subject.threads)
    common = [str(folder), threads]
    samples = json.dumps(METHODS["smoothgrad"])
    megabytes = {
        "gradient, ours": _bytes(["ours", str(bundle), *common]) / 1e6,
        "gradient, torch + captum": _bytes(["captum", str(module), *common]) / 1e6,
        "smoothgrad, ours": _bytes(["ours", str(bundle), *common, "smoothgrad", samples]) / 1e6,
        "smoothgrad, torch + captum": _bytes(["tunnel", str(module), *common, str(SAMPLES)]) / 1e6,
    }
    found: dict[str, Any] = {"megabytes": megabytes, "growth": {}, "absent": {}}
    for name in ("gradient", "smoothgrad"):
        share = megabytes[f"{name}, torch + captum"] / megabytes[f"{name}, ours"]
        found[f"memory of torch + captum ÷ ours, {name}"] = share
    for method, parameters in METHODS.items():
        for cap in CAPS:
            words = ["capped", str(bundle), *common, method, json.dumps(parameters), f"{cap}MB"]
            try:
                found["growth"][f"{method} in {cap} MB"] = _bytes(words) / (cap * 1e6)
            except ChildError as refusal:
                found["absent"][f"{method} in {cap} MB"] = str(refusal)
    return found


class ChildError(Exception):
    """What a process said last before it failed."""


def _bytes(words: list[str]) -> int:
    finished = subprocess.run([sys.executable, str(CHILD), *words], capture_output=True, text=True, check=False)
    if finished.returncode:
        raise ChildError(finished.stderr.strip().splitlines()[-1][:200])
    return int(finished.stdout.split()[-1])
