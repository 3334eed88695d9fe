"""Compares every method of a bundle in JavaScript with Python: `python tools/node_sweep.py BUNDLE --runtime wasm`

With --few, methods of many runs get few steps, so that a network of usual size takes minutes. Exits with 1 where a map
differs by more than 1e-5 and by more than 3 times what one unit in the last place of the picture changes.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "runtime"), str(ROOT / "tests" / "support")]

from node_engine import JavaScriptError, missing_node, run_calls  # noqa: E402 (the path is set above)
from onnxplain import Explainer  # noqa: E402

TOLERANCE = 1e-5
ROUNDINGS = 3
FEW: dict[str, dict[str, Any]] = {
    "rise": {"masks": 300},
    "kernel_shap": {"samples": 300},
    "lime": {"samples": 300},
    "sobol": {"designs": 6},
    "hsic": {"samples": 300},
    "occlusion": {"stride": 28},
    "scorecam": {"channels": 64},
    "smoothgrad_integrated": {"samples": 3, "steps": 10},
    "expected_gradients": {"samples": 30},
    "guided_integrated_gradients": {"steps": 50},
    "blur_integrated_gradients": {"steps": 30},
}


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found.astype(np.float64) - expected) / max(np.linalg.norm(expected), 1e-30))


def parameters_of(method: str, few: bool, row: np.ndarray) -> dict[str, Any]:
    found = dict(FEW.get(method, {})) if few else {}
    if method == "xrai":
        height, width = row.shape[-2:]
        found["segments"] = (np.arange(height)[:, None] * 6 // height * 6 + np.arange(width) * 6 // width).astype(
            np.int32
        )
    return found


def rounding(explainer: Explainer, row: np.ndarray, method: str, parameters: dict[str, Any], target: int) -> float:
    """How much the map changes at most with one unit in the last place of every input value, in three directions."""
    signs = np.random.default_rng(0).choice(np.array([-1, 1], np.float32), (3, *row.shape))
    moved = [(row + np.spacing(np.abs(row)) * sign).astype(np.float32) for sign in signs]
    maps = [explainer.explain([each], method, target, **parameters).attribution for each in (row, *moved)]
    return max(relative(each, maps[0]) for each in maps[1:])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--runtime", choices=("node", "wasm"), default="node")
    parser.add_argument("--picture", type=Path, default=ROOT / "models" / "pictures" / "00_zero.png")
    parser.add_argument("--methods", help="some methods, with commas; all unless given")
    parser.add_argument("--few", action="store_true", help="few steps for methods of many runs")
    arguments = parser.parse_args()
    reason = missing_node()
    if reason is not None:
        raise SystemExit(f"no JavaScript engine: {reason}")
    explainer = Explainer(arguments.bundle, device="cpu")
    row = explainer.values([arguments.picture])[0]
    methods = arguments.methods.split(",") if arguments.methods else list(explainer.bundle.methods)
    own = {method: parameters_of(method, arguments.few, row) for method in methods}
    calls = [
        {"what": "explain", "images": [row], "options": {"method": method, "parameters": own[method]}}
        for method in methods
    ]
    with tempfile.TemporaryDirectory() as folder:
        answers = run_calls(Path(folder), calls, runtime=arguments.runtime, bundle=arguments.bundle, timeout=36_000)
        wrong = 0
        for method, answer in zip(methods, answers, strict=True):
            line, right = judged(explainer, row, method, own[method], answer)
            wrong += not right
            print(line, flush=True)
    return int(wrong > 0)


def judged(
    explainer: Explainer, row: np.ndarray, method: str, parameters: dict[str, Any], answer: Any
) -> tuple[str, bool]:
    """A line about a method's map, and whether it is right."""
    if isinstance(answer, JavaScriptError):
        return f"{method:32} {answer}", False
    result = explainer.explain([row], method, **parameters)
    error = relative(answer["attribution"], result.attribution)
    line = f"{method:32} {error:8.1e} {answer['seconds']:7.2f} s"
    if error <= TOLERANCE:
        return line, True
    limit = ROUNDINGS * rounding(explainer, row, method, parameters, int(result.targets[0]))
    return f"{line}  rounding allows {limit:.1e}", error <= limit


if __name__ == "__main__":
    sys.exit(main())
