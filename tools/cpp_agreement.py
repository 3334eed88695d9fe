"""How far the C++ engine's maps are from Python's, method by method: the relative difference in L2.

    python tools/cpp_agreement.py BUNDLE [--pictures FILE …] [--method NAME …] [--full]

Builds tests/cpp/driver.cpp. Where a map differs by more than 1e-5, the change that one unit in the last place of the
input makes is printed beside it. Without --full, methods of thousands of runs take fewer.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from cpp_runtime import ROOT, MissingError

sys.path.insert(0, str(ROOT / "tests" / "support"))

from cpp_engine import Engine, build, difference, nudged, toolchain
from onnxplain import Explainer
from onnxplain.images import read_images

FEW: dict[str, dict[str, Any]] = {
    "rise": {"masks": 200},
    "scorecam": {"channels": 32},
    "guided_integrated_gradients": {"steps": 50},
    "kernel_shap": {"samples": 256},
    "lime": {"samples": 256},
    "hsic": {"samples": 256},
    "sobol": {"designs": 4},
}


def parameters_of(method: str, full: bool, size: list[int]) -> dict[str, Any]:
    """What a method is run with: its defaults, or fewer runs; XRAI's segments, since C++ finds none itself."""
    height, width = size
    segments = np.arange(height)[:, None] * 5 // height * 6 + np.arange(width) * 6 // width
    return {**({} if full else FEW.get(method, {})), **({"segments": segments} if method == "xrai" else {})}


def main() -> int:
    """Prints a line for each method; 1 where one is further off than the last place of the input moves it, times 3."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--pictures", type=Path, nargs="+", default=[ROOT / "models" / "pictures" / "00_zero.png"])
    parser.add_argument("--method", nargs="+", default=[])
    parser.add_argument("--full", action="store_true")
    arguments = parser.parse_args()
    explainer, wrong = Explainer(arguments.bundle, device="cpu"), 0
    rows = np.concatenate([image.row for image in read_images(arguments.pictures, explainer.bundle)])
    with tempfile.TemporaryDirectory() as folder:
        try:
            program = build(toolchain(), "driver", Path(folder, "driver"), ["-O2"])
        except MissingError as missing:
            print(f"missing: {missing}", file=sys.stderr)
            return 1
        engine = Engine(program, Path(folder, "jobs"))
        for method in arguments.method or explainer.bundle.methods:
            wrong += not agrees(engine, explainer, arguments.bundle, rows, method, arguments.full)
    return 1 if wrong else 0


def agrees(engine: Engine, explainer: Explainer, bundle: Path, rows: np.ndarray, method: str, full: bool) -> bool:
    """Prints the method's line, and says whether its maps agree."""
    size = [int(axis) for axis in explainer.bundle.image.shape if isinstance(axis, int) and axis > 4][:2]
    parameters = parameters_of(method, full, size)
    answer = engine.answer(bundle=bundle, method=method, images=rows, parameters=parameters)
    if answer.error is not None:
        print(f"{method:32s} {answer.error[1]}", flush=True)
        return False
    begun = time.perf_counter()
    expected = explainer.explain(rows, method, **parameters).attribution
    seconds = time.perf_counter() - begun
    found, limit = difference(answer.array("attribution"), expected), 1e-5
    if found > limit:
        limit = 3 * difference(explainer.explain(nudged(rows), method, **parameters).attribution, expected)
    shown = f"{found:.1e}" + (f" (allowed {limit:.1e})" if limit != 1e-5 else "")
    print(f"{method:32s} {shown:26s} C++ {answer.entries['seconds']:7.2f} s   Python {seconds:7.2f} s", flush=True)
    return found <= limit


if __name__ == "__main__":
    sys.exit(main())
