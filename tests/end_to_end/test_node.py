"""The JavaScript engine against the Python engine: every method, in Node and in onnxruntime-web's WebAssembly."""

import json
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import node_engine
from node_engine import JavaScriptError, run_calls
from onnxplain import Explainer, Result
from onnxplain_export.methods import METHODS

VECTORS = Path(__file__).parents[1] / "vectors"
TOLERANCE = 1e-5
ROUNDINGS = 3
"""Times the change that one unit in the last place of every input value makes."""
# WebAssembly takes minutes for the defaults of these on two cores; a run of each size is all that differs.
FEWER_ON_WASM = {
    "rise": {"masks": 400},
    "kernel_shap": {"samples": 300},
    "lime": {"samples": 200},
    "sobol": {"designs": 6},
    "hsic": {"samples": 300},
}
TRAINABLE = {"rise_plus"}


@pytest.fixture(scope="module", autouse=True)
def node() -> None:
    reason = node_engine.missing_node()
    if reason is not None:
        pytest.skip(f"no JavaScript engine: {reason}")


@pytest.fixture(scope="module")
def bundle(all_bundles: dict[str, Path]) -> Path:
    return all_bundles["honest"]


@pytest.fixture(scope="module")
def python(bundle: Path) -> Explainer:
    return Explainer(bundle, device="cpu")


@pytest.fixture(scope="module")
def rows(python: Explainer, pictures: list[Path]) -> np.ndarray:
    """Two pictures as the network takes them."""
    return np.asarray(python.values(pictures[:2]))


def segments(rows: np.ndarray) -> np.ndarray:
    """Segments of six by six rectangles, for the method that makes none in this engine."""
    height, width = rows.shape[-2:]
    return (np.arange(height)[:, None] * 6 // height * 6 + np.arange(width) * 6 // width).astype(np.int32)


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found.astype(np.float64) - expected) / max(np.linalg.norm(expected), 1e-30))


def value(answer: Any) -> Any:
    """The answer; an error of the engine is raised."""
    if isinstance(answer, JavaScriptError):
        raise answer
    return answer


def roundings(
    python: Explainer, row: np.ndarray, method: str, parameters: dict[str, Any], target: int
) -> Iterator[float]:
    """How much a map changes with one unit in the last place of every input value, in three directions one by one."""
    own = python.explain([row], method, target, **parameters).attribution
    for signs in np.random.default_rng(0).choice(np.array([-1, 1], np.float32), (3, *row.shape)):
        moved = (row + np.spacing(np.abs(row)) * signs).astype(np.float32)
        yield relative(python.explain([moved], method, target, **parameters).attribution, own)


@pytest.fixture(scope="module")
def every_method(bundle: Path, python: Explainer, rows: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The answers of both runtimes, by runtime and method, with the parameters that they had."""
    methods = list(python.bundle.methods)
    own = {name: ({"segments": segments(rows)} if name == "xrai" else {}) for name in methods}
    fewer = {name: {**own[name], **FEWER_ON_WASM.get(name, {})} for name in methods}

    def answers(runtime: str, parameters: dict[str, dict[str, Any]]) -> dict[str, Any]:
        calls = [
            {"what": "explain", "images": [rows[0]], "options": {"method": name, "parameters": parameters[name]}}
            for name in methods
        ]
        found = run_calls(tmp_path_factory.mktemp(runtime), calls, runtime=runtime, bundle=bundle)
        return {name: (answer, parameters[name]) for name, answer in zip(methods, found, strict=True)}

    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(answers, "node", own), pool.submit(answers, "wasm", fewer)]
        return dict(zip(("node", "wasm"), (run.result() for run in runs), strict=True))


@pytest.fixture(scope="module")
def expected_of(python: Explainer, rows: np.ndarray) -> Callable[[str, dict[str, Any]], Result]:
    """Python's result of a method, computed once for the same parameters."""
    known: dict[tuple[str, str], Result] = {}

    def found(method: str, parameters: dict[str, Any]) -> Result:
        key = method, str(parameters)
        if key not in known:
            known[key] = python.explain([rows[0]], method, **parameters)
        return known[key]

    return found


@pytest.mark.parametrize("runtime", ["node", "wasm"])
@pytest.mark.parametrize("method", sorted(set(METHODS) - TRAINABLE))
def test_every_method_gives_the_map_that_python_gives(
    method: str,
    runtime: str,
    every_method: Any,
    python: Explainer,
    rows: np.ndarray,
    expected_of: Callable[[str, dict[str, Any]], Result],
) -> None:
    answer, parameters = every_method[runtime][method]
    found = value(answer)
    expected = expected_of(method, parameters)
    assert found["targets"] == expected.targets.tolist()
    assert relative(found["scores"], expected.scores) <= TOLERANCE
    error = relative(found["attribution"], expected.attribution)
    if error > TOLERANCE:
        changes = roundings(python, rows[0], method, parameters, int(expected.targets[0]))
        assert any(error <= ROUNDINGS * change for change in changes), f"{error:.2g}"


OTHER_PARAMETERS: list[tuple[str, dict[str, Any]]] = [
    ("smoothgrad", {"samples": 3, "noise_of": "batch", "seed": 5}),
    ("vargrad", {"samples": 3, "noise": 0.4, "noise_of": "absolute"}),
    ("integrated_gradients", {"steps": 7, "rule": "trapezoid", "baseline": "random", "baselines": 3, "seed": 2}),
    ("integrated_gradients", {"steps": 5, "baseline": "blur"}),
    ("integrated_gradients", {"steps": 5, "rule": "inclusive", "baseline": "mean"}),
    ("smoothgrad_integrated", {"samples": 2, "steps": 4, "rule": "riemann_left", "baseline": "white"}),
    ("expected_gradients", {"samples": 6, "baseline": "black", "noise": 0.1, "seed": 9}),
    ("blur_integrated_gradients", {"steps": 5, "sigma": 7.0, "rule": "riemann_left"}),
    ("guided_integrated_gradients", {"steps": 6, "fraction": 0.1, "max_dist": 0.1, "baseline": "mean"}),
    ("lrp_epsilon_gamma_box", {"gamma": 0.5, "low": -3.0, "high": 3.0}),
    ("deeplift", {"baseline": 0.25}),
    ("gradcam", {"relu": False, "upsample": "none"}),
    ("layercam", {"upsample": "bytes"}),
    ("scorecam", {"channels": 9, "fill": "mean"}),
    ("occlusion", {"window": [9, 13], "stride": [5, 6], "fill": "black"}),
    ("rise", {"masks": 40, "cells": 5, "probability": 0.3, "seed": 3}),
    ("kernel_shap", {"samples": 60, "cells": 3, "fill": "white", "seed": 4}),
    ("lime", {"samples": 30, "cells": 4, "distance": "euclidean", "ridge": 0.0}),
    ("sobol", {"designs": 3, "cells": 3}),
    ("hsic", {"samples": 20, "cells": 3}),
]
TARGETS = [[3, 1], [0, 7]]


def test_parameters_baselines_and_several_targets_mean_the_same(
    bundle: Path, python: Explainer, rows: np.ndarray, tmp_path: Path
) -> None:
    own = np.random.default_rng(1).integers(0, 4, (2, *rows.shape[-2:])).astype(np.int32)
    fields = np.random.default_rng(2).standard_normal((3, *rows.shape[1:])).astype(np.float32)
    cases = [
        *OTHER_PARAMETERS,
        ("kernel_shap", {"samples": 14, "segments": own}),
        ("xrai", {"steps": 3, "baseline": "range", "reduction": "max", "segments": own}),
        ("integrated_gradients", {"steps": 3, "baseline": fields}),
    ]
    calls = [
        {"what": "explain", "images": list(rows), "options": {"method": m, "targets": TARGETS, "parameters": p}}
        for m, p in cases
    ]
    wrong = {}
    for (method, parameters), answer in zip(
        cases, run_calls(tmp_path, calls, runtime="node", bundle=bundle), strict=True
    ):
        expected = python.explain(rows, method, TARGETS, **parameters)
        if isinstance(answer, JavaScriptError):
            wrong[f"{method} {list(parameters)}"] = str(answer)
        elif (error := relative(answer["attribution"], expected.attribution)) > TOLERANCE:
            wrong[f"{method} {list(parameters)}"] = f"{error:.2g}"
    assert not wrong


@pytest.mark.parametrize("memory", ["12MB", "60MB", None])
def test_a_memory_cap_changes_the_runs_and_not_the_maps(
    memory: str | None, bundle: Path, python: Explainer, rows: np.ndarray, tmp_path: Path
) -> None:
    batch = np.concatenate([rows, rows[:, :, ::-1], rows[:, :, :, ::-1]])
    options: dict[str, Any] = {"method": "smoothgrad", "parameters": {"samples": 5}, "memory": memory}
    call = {"what": "explain", "images": list(batch), "options": options, "news": True}
    (answer,) = run_calls(tmp_path, [call], runtime="node", bundle=bundle)
    found = value(answer)
    expected = python.explain(batch, "smoothgrad", samples=5)
    assert relative(found["attribution"], expected.attribution) <= TOLERANCE
    assert found["partial"] == (10 if memory == "12MB" else 2)  # runs of 3 and of 15 rows


def test_the_map_grows_to_the_finished_one_and_progress_to_its_end(
    bundle: Path, rows: np.ndarray, tmp_path: Path
) -> None:
    methods = {
        "smoothgrad": {"samples": 40},
        "integrated_gradients": {"steps": 40},
        "occlusion": {},
        "vargrad": {"samples": 40},
        "blur_integrated_gradients": {"steps": 20},
        "guided_integrated_gradients": {"steps": 10},
    }
    calls = [
        {"what": "explain", "images": list(rows), "options": {"method": m, "parameters": p}, "news": True}
        for m, p in methods.items()
    ]
    for method, answer in zip(methods, run_calls(tmp_path, calls, runtime="node", bundle=bundle), strict=True):
        found = value(answer)
        assert found["partial"] >= 3, method
        assert np.allclose(found["last"].reshape(found["attribution"].shape), found["attribution"], atol=1e-7), method
        assert found["progress"] == sorted(found["progress"])
        assert found["progress"][-1] == pytest.approx(1.0), method


def test_a_call_can_be_ended_and_two_can_be_under_way(
    bundle: Path, python: Explainer, rows: np.ndarray, tmp_path: Path
) -> None:
    methods = ["smoothgrad", "gradcam", "occlusion", "gradient"]
    calls = [
        {"what": "aborted", "images": [rows[0]], "options": {"method": "smoothgrad"}},
        {"what": "at_once", "images": [rows[0]], "methods": methods},
    ]
    ended, together = run_calls(tmp_path, calls, runtime="wasm", bundle=bundle)
    assert isinstance(ended, JavaScriptError)
    assert ended.name == "AbortError"
    for method, found in zip(methods, value(together), strict=True):
        assert relative(found, python.explain([rows[0]], method).attribution) <= TOLERANCE, method


def test_the_recorded_vectors_hold() -> None:
    script = node_engine.SCRIPT.with_name("vectors.mjs")
    done = subprocess.run(["node", str(script), str(VECTORS)], capture_output=True, text=True, timeout=120, check=False)
    assert not done.returncode, done.stderr
    found = json.loads(done.stdout)
    assert found.keys() == {file.stem for file in VECTORS.glob("*.json")}
    assert {name: entry["wrong"] for name, entry in found.items() if entry["wrong"]} == {}


def test_a_typed_program_fits_the_types() -> None:
    compiler = node_engine.WEB / "node_modules" / "typescript" / "bin" / "tsc"
    if not compiler.is_file():
        pytest.skip("typescript is not installed in runtime/web/node_modules")
    command = ["node", str(compiler), "-p", str(node_engine.WEB / "tsconfig.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert not done.returncode, done.stdout
