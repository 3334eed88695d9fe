"""How far explain's memory grows under `memory=`: for every method of a bundle, the peak against the bound.

    python tools/memory_cap.py BUNDLE [--memory 200MB] [--images 6] [--targets 1] [--method NAME …] [--full]

A process of its own opens the bundle, explains one image so that sessions and libraries are loaded, and then counts the
growth of its resident memory at the highest point of one more call. The images as the network takes them and the result
belong to the caller and are taken off. Linux only: it reads /proc/self. Without --full, methods take few steps.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

FEW = {"samples": 40, "steps": 12, "masks": 64, "designs": 4}
"""Parameters with which a method still makes several runs but takes little time."""
FEWER = {"smoothgrad_integrated": {"samples": 3}, "kernel_shap": {"samples": 128}}
SMALL_GRID = ("kernel_shap", "lime", "sobol", "hsic")
MOST_ROWS = 64
TOLERATED = 1.05
"""Of the bound; the goal."""


def measured(
    bundle: Path, memory: str | int, images: int, targets: int = 1, methods: Sequence[str] = (), full: bool = False
) -> dict[str, dict[str, Any]]:
    """For each method (all, unless named): "growth" at its peak and "memory", the bound, both in bytes.

    Where the bound is too small for a method, it is the least that the engine accepts.
    """
    request = {"bundle": str(bundle), "memory": memory, "images": images, "targets": targets}
    command = [sys.executable, __file__, "--child", json.dumps({**request, "methods": list(methods), "full": full})]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode:
        raise RuntimeError(answer.stderr)
    found: dict[str, dict[str, Any]] = json.loads(answer.stdout)
    return found


def _child(bundle: str, memory: str | int, images: int, targets: int, methods: list[str], full: bool) -> None:
    import numpy as np

    from onnxplain import Explainer
    from onnxplain.planner import parse_memory

    # More rows than a run would have otherwise: it is the bound alone that keeps them few.
    explainer = Explainer(bundle, device="cpu", verify=False, rows=MOST_ROWS)
    shape = [axis if isinstance(axis, int) else 64 for axis in explainer.bundle.image.shape[1:]]
    rows = np.random.default_rng(0).normal(size=(images, *shape)).astype(np.float32)
    chosen = [list(range(targets))] * images
    found = {}
    for method in methods or explainer.bundle.methods:
        parameters = {} if full else _few(explainer, method)
        bound = _accepted(explainer, rows[:1], chosen[:1], method, parse_memory(memory), parameters)
        growth = _growth(explainer, rows, chosen, method, bound, parameters)
        found[method] = {"growth": growth, "memory": bound}
    print(json.dumps(found))


def _few(explainer: Any, method: str) -> dict[str, Any]:
    known = explainer.bundle.methods[method].parameters
    few = {**{name: value for name, value in FEW.items() if name in known}, **FEWER.get(method, {})}
    if method in SMALL_GRID:
        few["cells"] = 3
    if method == "xrai":
        import numpy as np

        height, width = explainer.bundle.image.shape[2:]
        few["segments"] = (np.arange(height)[:, None] // 8 * 8 + np.arange(width) // 8).astype(int)
    if method == "blur_integrated_gradients":
        few["sigma"] = 5.0
    return few


def _accepted(explainer: Any, rows: Any, targets: Any, method: str, memory: int, parameters: dict[str, Any]) -> int:
    """The bound, or the least that the engine says it needs; the image is explained, so that all is loaded."""
    from onnxplain import ParameterError
    from onnxplain.planner import parse_memory

    for _ in range(8):
        try:
            explainer.explain(rows, method, targets, memory=memory, **parameters)
        except ParameterError as error:
            memory = parse_memory(" ".join(str(error).rsplit("needs ", 1)[1].split()[:2]))
        else:
            break
    return memory


def _growth(explainer: Any, rows: Any, targets: Any, method: str, memory: int, parameters: dict[str, Any]) -> int:
    import gc

    from onnxplain.sessions import give_back_memory

    give_back_memory()
    gc.collect()
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forgets the highest point so far
    result = explainer.explain(rows, method, targets, memory=memory, **parameters)
    peak = _status("VmHWM")
    return peak - before - rows.nbytes - result.attribution.nbytes


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def main() -> None:
    """Prints a line for each method; the exit status is 1 where one exceeds its bound by more than is tolerated."""
    if sys.argv[1:2] == ["--child"]:
        _child(**json.loads(sys.argv[2]))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--memory", default="200MB")
    parser.add_argument("--images", type=int, default=6)
    parser.add_argument("--targets", type=int, default=1)
    parser.add_argument("--method", nargs="*", default=())
    parser.add_argument("--full", action="store_true")
    given = parser.parse_args()
    found = measured(given.bundle, given.memory, given.images, given.targets, given.method, given.full)
    for method, sizes in found.items():
        share = sizes["growth"] / sizes["memory"]
        note = "" if share <= TOLERATED else "  <- more than allowed"
        print(f"{method:32s} {sizes['growth'] / 1e6:9.1f} MB of {sizes['memory'] / 1e6:9.1f} MB  {share:5.2f}{note}")
    sys.exit(any(sizes["growth"] > TOLERATED * sizes["memory"] for sizes in found.values()))


if __name__ == "__main__":
    main()
