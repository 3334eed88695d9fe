"""How far the maps of the other engines are from Python's, method by method: the relative difference in L2.

    python tools/engine_agreement.py BUNDLE [--engines cpp,node,wasm] [--methods A,B] [--picture PICTURE] [--few]

Parameters are the defaults; with --few, methods of thousands of runs take fewer. Where a map differs by more than 1e-5,
three times the change that one unit in the last place of the input makes is allowed, and printed. Exits with 1 where
a map is further off.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cpp_runtime import ROOT, MissingError

sys.path.insert(0, str(ROOT / "tests" / "support"))

from cpp_engine import Engine, build, toolchain
from node_engine import JavaScriptError, missing_node, run_calls
from onnxplain import Explainer

Array = NDArray[Any]
Run = Callable[[str, Array, dict[str, Any]], Array]
"""(method, image, parameters) → its map; RuntimeError with what went wrong."""

TOLERANCE, ROUNDINGS = 1e-5, 3
PICTURE = ROOT / "models" / "pictures" / "00_zero.png"
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


def main() -> int:
    """Prints a line for each method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--engines", default="cpp,node,wasm", help="with commas; all unless given")
    parser.add_argument("--methods", help="with commas; all unless given")
    parser.add_argument("--picture", type=Path, default=PICTURE)
    parser.add_argument("--few", action="store_true", help="few steps for methods of many runs")
    arguments = parser.parse_args()
    explainer = Explainer(arguments.bundle, device="cpu")
    image = explainer.values([arguments.picture])
    methods = arguments.methods.split(",") if arguments.methods else list(explainer.bundle.methods)
    with tempfile.TemporaryDirectory() as folder:
        engines = {name: engine_of(name, arguments.bundle, Path(folder)) for name in arguments.engines.split(",")}
        right = [agrees(explainer, engines, method, image, arguments.few) for method in methods]
    return 0 if all(right) else 1


def engine_of(name: str, bundle: Path, folder: Path) -> Run:
    """What runs an engine; ends the program where something that it needs is missing."""
    if name == "cpp":
        try:
            program = build(toolchain(), "driver", folder / "driver", ["-O2"])
        except MissingError as missing:
            sys.exit(f"missing for C++: {missing}")
        return partial(in_cpp, Engine(program, folder / "jobs"), bundle)
    reason = missing_node()
    if reason is not None:
        sys.exit(f"missing for JavaScript: {reason}")
    return partial(in_javascript, name, bundle, folder / name)


def in_cpp(engine: Engine, bundle: Path, method: str, image: Array, parameters: dict[str, Any]) -> Array:
    """The C++ engine's map."""
    answer = engine.answer(bundle=bundle, method=method, images=image, parameters=parameters)
    if answer.error is not None:
        raise RuntimeError(answer.error[1])
    return answer.array("attribution")


def in_javascript(
    runtime: str, bundle: Path, folder: Path, method: str, image: Array, parameters: dict[str, Any]
) -> Array:
    """The JavaScript engine's map, on onnxruntime-node or in WebAssembly."""
    plain = {name: each.astype(np.int32) if name == "segments" else each for name, each in parameters.items()}
    call = {"what": "explain", "images": list(image), "options": {"method": method, "parameters": plain}}
    (answer,) = run_calls(folder, [call], runtime=runtime, bundle=bundle, timeout=36_000)
    if isinstance(answer, JavaScriptError):
        raise RuntimeError(str(answer))
    found: Array = answer["attribution"]
    return found


def agrees(explainer: Explainer, engines: dict[str, Run], method: str, image: Array, few: bool) -> bool:
    """Prints the method's line, and says whether all maps agree."""
    parameters = parameters_of(method, few, image)
    result = explainer.explain(image, method, **parameters)
    shown, right, allowed = [], True, None
    for name, run in engines.items():
        begun = time.perf_counter()
        try:
            error = relative(run(method, image, parameters), result.attribution)
        except RuntimeError as failure:
            shown.append(f"{name} failed: {failure}")
            right = False
            continue
        if error > TOLERANCE and allowed is None:
            allowed = ROUNDINGS * rounding(explainer, image, method, parameters, int(result.targets[0]))
        right = right and error <= max(TOLERANCE, allowed or 0)
        shown.append(f"{name} {error:.1e} in {time.perf_counter() - begun:6.1f} s")
    extra = "" if allowed is None else f"   (allowed {allowed:.1e})"
    print(f"{method:30} {'   '.join(shown)}{extra}{'' if right else '   WRONG'}", flush=True)
    return right


def parameters_of(method: str, few: bool, image: Array) -> dict[str, Any]:
    """What a method is run with; XRAI with segments, since only Python finds some itself."""
    found = dict(FEW.get(method, {})) if few else {}
    if method == "xrai":
        height, width = image.shape[-2:] if image.shape[1] in (1, 3) else image.shape[1:3]
        rows, columns = np.arange(height) * 6 // height, np.arange(width) * 6 // width
        found["segments"] = rows[:, None] * 6 + columns
    return found


def relative(found: Array, expected: Array) -> float:
    """The difference in L2, relative to what is expected."""
    return float(np.linalg.norm(found.astype(np.float64) - expected) / max(np.linalg.norm(expected), 1e-30))


def rounding(explainer: Explainer, image: Array, method: str, parameters: dict[str, Any], target: int) -> float:
    """How much the map changes at most with one unit in the last place of every input value, in three directions."""
    signs = np.random.default_rng(0).choice(np.array([-1, 1], np.float32), (3, *image.shape))
    moved = [(image + np.spacing(np.abs(image)) * sign).astype(np.float32) for sign in signs]
    maps = [explainer.explain(each, method, target, **parameters).attribution for each in (image, *moved)]
    return max(relative(each, maps[0]) for each in maps[1:])


if __name__ == "__main__":
    sys.exit(main())
