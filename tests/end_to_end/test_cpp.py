"""The C++ engine gives what Python gives: maps, scores, pictures and errors, from the same bundles."""

import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from onnxruntime.quantization import QuantType

import networks
import quantized_models
from cpp_engine import ROOT, Answer, Engine, Toolchain, build, difference, nudged, toolchain
from cpp_runtime import MissingError
from onnxplain import Explainer
from onnxplain.preprocessing import PRESETS, prepare, preset_steps
from onnxplain.sessions import session_options
from onnxplain.system import threads_of_a_run
from onnxplain_export import export, export_single
from onnxplain_export.methods import METHODS
from refusals import bad_bundles, bad_calls, refusal

VECTORS = ROOT / "tests" / "vectors"
# Of gcc's checks; unoptimized, since optimizing what they add takes minutes.
SANITIZED = ["-O0", "-g1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
# ONNX Runtime keeps its environment and what its arena holds until the process ends.
LEAKS_OF_OTHERS = "leak:libonnxruntime\n"
TOLERANCE = 1e-5
FEW = {"samples": 5, "steps": 4, "masks": 40, "channels": 8, "designs": 3, "window": 9, "stride": 7, "cells": 3}


@pytest.fixture(scope="session")
def tools() -> Toolchain:
    """The compiler and ONNX Runtime's folder."""
    try:
        return toolchain()
    except MissingError as missing:
        pytest.skip(f"C++ isn't tested, missing: {missing}")


@pytest.fixture(scope="session")
def programs(tools: Toolchain, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The test programs: the driver as it is and, like the vectors, with the address and undefined sanitizers."""
    folder = tmp_path_factory.mktemp("cpp")
    made = {
        "sanitized": ("driver", SANITIZED),
        "driver": ("driver", ["-O1"]),
        "vectors": ("vectors", SANITIZED),
    }
    with ThreadPoolExecutor(2) as pool:
        built = {name: pool.submit(build, tools, source, folder / name, own) for name, (source, own) in made.items()}
        return {name: future.result() for name, future in built.items()}


@pytest.fixture(scope="session")
def engine(programs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return Engine(programs["driver"], tmp_path_factory.mktemp("cpp_jobs"))


@pytest.fixture(scope="session")
def sanitized(programs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Engine:
    folder = tmp_path_factory.mktemp("cpp_sanitized")
    (folder / "leaks").write_text(LEAKS_OF_OTHERS)
    environment = {**os.environ, "LSAN_OPTIONS": f"suppressions={folder / 'leaks'}:print_suppressions=0"}
    return Engine(programs["sanitized"], folder, environment)


@pytest.fixture(scope="session")
def bundle(all_bundles: dict[str, Path]) -> Path:
    return all_bundles["honest"]


@pytest.fixture(scope="module")
def python(bundle: Path) -> Explainer:
    return Explainer(bundle, device="cpu")


@pytest.fixture(scope="module")
def rows(python: Explainer, pictures: list[Path]) -> np.ndarray:
    """Five of the shipped pictures as the network takes them."""
    steps = python.bundle.steps
    return np.stack([prepare(pixels_of(picture), steps).rows for picture in pictures[:5]])


def pixels_of(picture: Path) -> np.ndarray:
    return cv2.cvtColor(cv2.imread(str(picture)), cv2.COLOR_BGR2RGB)


def few(explainer: Explainer, method: str) -> dict[str, Any]:
    """Parameters that make a method quick, and segments where it needs them."""
    known = explainer.bundle.methods[method].parameters
    chosen = {name: value for name, value in FEW.items() if name in known}
    if method == "kernel_shap":
        chosen["samples"] = 40
    return {**chosen, **given_segments(explainer, method)}


def given_segments(explainer: Explainer, method: str) -> dict[str, Any]:
    if method != "xrai":
        return {}
    height, width = (int(axis) for axis in explainer.bundle.image.shape[2:])
    return {"segments": np.arange(height)[:, None] * 5 // height * 6 + np.arange(width) * 6 // width}


def assert_agree(answer: Answer, explainer: Explainer, rows: np.ndarray, **call: Any) -> None:
    """The map is Python's, or nearer to it than three times what the last place of the input changes."""
    assert answer.error is None
    expected = explainer.explain(rows, **call)
    found = difference(answer.array("attribution"), expected.attribution)
    if found > TOLERANCE:
        noise = difference(explainer.explain(nudged(rows), **call).attribution, expected.attribution)
        assert found <= 3 * noise, (found, noise)
    assert difference(answer.array("scores"), expected.scores) <= TOLERANCE
    assert difference(answer.array("probabilities"), expected.probabilities) <= TOLERANCE
    assert answer.entries["targets"] == expected.targets.ravel().tolist()


def test_the_recorded_vectors(programs: dict[str, Path]) -> None:
    files = sorted(map(str, VECTORS.glob("*.json")))
    finished = subprocess.run([programs["vectors"], *files], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    compared = {line.split(":")[0]: int(line.split()[1]) for line in finished.stdout.splitlines()}
    assert {name for name, count in compared.items() if not count} <= {"masks"}  # the graphs make the masks


@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_the_map_of_python(
    method: str, engine: Engine, bundle: Path, python: Explainer, rows: np.ndarray
) -> None:
    if method not in python.bundle.methods:
        pytest.skip(f"the bundle has no {method}")
    parameters = given_segments(python, method)
    answer = engine.answer(bundle=bundle, method=method, images=rows[:1], parameters=parameters)
    assert_agree(answer, python, rows[:1], method=method, **parameters)


def test_several_targets_in_runs_that_a_cap_makes_small(
    engine: Engine, bundle: Path, python: Explainer, rows: np.ndarray
) -> None:
    targets = [[3, 5], [0, 9], [1, 2], [7, 7], [4, 8]]
    alike = [method for method in python.bundle.methods if method.startswith("lrp_")][1:]
    calls = [
        {"method": method, "targets": targets, "memory": "25MB", **few(python, method)}
        for method in python.bundle.methods
        if method not in alike
    ]
    answers = engine.answers([{"bundle": bundle, "images": rows, **as_job(call)} for call in calls])
    for call, answer in zip(calls, answers, strict=True):
        if answer.error is not None:  # the cap is too small for one run, in Python as well
            assert answer.error == refusal(lambda call=call: python.explain(rows, **call))
            continue
        assert answer.array("attribution").shape[:2] == (5, 2)
        assert_agree(answer, python, rows, **call)
    assert sum(answer.error is None for answer in answers) > len(answers) / 2


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A network of unequal sides, one of tokens, and one of quantised weights, whose products are computed in full."""
    folder = tmp_path_factory.mktemp("cpp_networks")
    methods = ["gradient", "smoothgrad", "gradcam", "ablationcam", "reciprocam", "rise", "lime"]
    made = {
        "mobile": (networks.mobile_net(7), torch.zeros(1, 3, 37, 53)),
        "attention": (networks.vision_transformer(size=32, patch=8), torch.zeros(1, 3, 32, 32)),
    }
    bundles = {
        name: export(network, folder / f"{name}.explain", example=example, methods=methods)
        for name, (network, example) in made.items()
    }
    wide = quantized_models.quantized(21, activation_type=QuantType.QUInt16, weight_type=QuantType.QInt8)
    file = folder / "quantised.explain"
    return {**bundles, "quantised": export(wide, file, methods=["gradient", "rise"], quantized="straight-through")}


@pytest.mark.parametrize("name", ["mobile", "attention", "quantised"])
def test_other_networks(name: str, engine: Engine, others: dict[str, Path]) -> None:
    explainer = Explainer(others[name], device="cpu")
    sizes = [int(axis) for axis in explainer.bundle.image.shape[1:]]
    rows = np.random.default_rng(5).standard_normal((2, *sizes)).astype(np.float32)
    for method in explainer.bundle.methods:
        parameters = few(explainer, method)
        answer = engine.answer(bundle=others[name], method=method, images=rows, parameters=parameters)
        assert_agree(answer, explainer, rows, method=method, **parameters)


VARIED: list[dict[str, Any]] = [
    {"method": "integrated_gradients", "baseline": "blur", "rule": "trapezoid", "steps": 6},
    {"method": "integrated_gradients", "baseline": "random", "baselines": 3, "seed": 4, "steps": 5},
    {"method": "integrated_gradients", "baseline": np.full((1, 2, 3, 64, 64), 0.25, np.float32), "steps": 4},
    {"method": "smoothgrad", "noise_of": "batch", "samples": 3},
    {"method": "smoothgrad", "noise_of": "absolute", "noise": 0.5, "samples": 3, "seed": 1048575},
    {"method": "expected_gradients", "noise": 0.1, "baseline": "white", "samples": 6},
    {"method": "blur_integrated_gradients", "rule": "riemann_left", "sigma": 3.0, "steps": 5},
    {"method": "guided_integrated_gradients", "baseline": "mean", "max_dist": 1.0, "steps": 5},
    {"method": "occlusion", "window": (9, 64), "stride": (4, 1), "fill": "white", "score": "logits"},
    {"method": "rise", "masks": 30, "cells": 5, "probability": 0.3},
    {"method": "rise", "masks": 30, "design": "independent"},
    {"method": "lime", "samples": 20, "distance": "euclidean", "ridge": 0.0, "cells": 6},
    {"method": "sobol", "designs": 4, "segments": np.arange(4096).reshape(64, 64) // 512 * 3},
    {"method": "xrai", "steps": 4, "baseline": "range", "reduction": "max", "segments": np.eye(64)[None] > 0},
    {"method": "gradcam", "upsample": "none"},
    {"method": "gradcam", "upsample": "bytes"},
    {"method": "hirescam", "relu": True},
    {"method": "scorecam", "channels": 5, "fill": "blur"},
    {"method": "gradient", "top": 3},
]


def test_parameters_other_than_the_defaults(engine: Engine, bundle: Path, python: Explainer, rows: np.ndarray) -> None:
    jobs = [{"bundle": bundle, "images": rows[:2], **as_job(call)} for call in VARIED]
    for call, answer in zip(VARIED, engine.answers(jobs), strict=True):
        assert_agree(answer, python, rows[:2], **call)


def as_job(call: dict[str, Any]) -> dict[str, Any]:
    """A call of explain as the test program takes it."""
    own = ("method", "targets", "memory", "score", "top", "images", "draw")
    job = {name: value for name, value in call.items() if name in own}
    return {**job, "parameters": {name: value for name, value in call.items() if name not in own}}


@pytest.mark.parametrize("preset", PRESETS)
def test_preprocessing_of_odd_sizes(preset: str, engine: Engine) -> None:
    random, jobs, expected = np.random.default_rng(1), [], []
    for height, width in ((64, 64), (300, 200), (37, 91), (21, 500), (480, 640)):
        pixels = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
        steps = preset_steps(preset, 64, 48)
        jobs.append({"what": "prepare", "pixels": pixels, "steps": steps})
        expected.append(prepare(pixels, steps))
    for answer, python in zip(engine.answers(jobs), expected, strict=True):
        np.testing.assert_allclose(answer.array("rows"), python.rows, rtol=1e-6, atol=1e-6)
        np.testing.assert_array_equal(answer.array("seen"), python.seen)
        np.testing.assert_allclose(answer.entries["box"], python.box)


def picture_jobs(pictures: list[Path]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pictures as C++ and as Python are handed them: of three channels, grey, with alpha, of 16 bits."""
    colour, grey = pixels_of(pictures[0]), cv2.imread(str(pictures[1]), cv2.IMREAD_GRAYSCALE)
    alpha = np.dstack([colour, np.full(colour.shape[:2], 7, np.uint8)])
    wide = colour.astype(np.uint16) * 257 + 100
    return [
        (colour, colour),
        (grey[..., None], grey),
        (alpha, colour),
        (wide, ((wide.astype(np.uint32) + 128) // 257).astype(np.uint8)),
    ]


def test_heat_maps_and_overlays(engine: Engine, bundle: Path, python: Explainer, pictures: list[Path]) -> None:
    for given, plain in picture_jobs(pictures):
        answer = engine.answer(bundle=bundle, images=[given], method="gradient", draw=True)
        expected = python.explain(plain)
        np.testing.assert_allclose(answer.array("heatmap"), expected.heatmap(), atol=1e-5)
        np.testing.assert_allclose(answer.array("signed"), expected.signed(), atol=1e-5)
        apart = np.abs(answer.array("overlay").astype(int) - expected.overlay())
        assert apart.max() <= 1  # where rounding decides
        assert (apart > 0).mean() < 1e-3


def test_float_images_are_drawn_as_what_they_were(
    engine: Engine, bundle: Path, python: Explainer, rows: np.ndarray
) -> None:
    call = {"method": "gradcam", "upsample": "none", "targets": [[1, 2], [3, 4]]}
    answer = engine.answer(bundle=bundle, images=rows[:2], **as_job(call), draw=True)
    expected = python.explain(rows[:2], **call)
    assert answer.array("overlay").shape == (2, 2, 64, 64, 3)
    assert np.abs(answer.array("overlay").astype(int) - expected.overlay()).max() <= 1


def test_bad_calls_have_the_same_words(engine: Engine, bundle: Path, python: Explainer, rows: np.ndarray) -> None:
    calls = [{"images": rows[:1], **call} for call in bad_calls(rows)]
    for call, answer in zip(calls, engine.answers([{"bundle": bundle, **as_job(call)} for call in calls]), strict=True):
        kept = {name: value for name, value in call.items() if name != "images"}
        assert answer.error == refusal(lambda kept=kept, call=call: python.explain(call["images"], **kept)), kept


def test_bad_bundles_have_the_same_words(engine: Engine, bundle: Path, tmp_path: Path) -> None:
    paths = list(bad_bundles(bundle, tmp_path))
    answers = engine.answers([{"bundle": path, "what": "open"} for path in paths])
    for path, answer in zip(paths, answers, strict=True):
        assert answer.error == refusal(lambda path=path: Explainer(path, device="cpu")), path


@pytest.mark.parametrize("pictures_inside", [False, True])
def test_a_single_file(
    pictures_inside: bool, engine: Engine, bundle: Path, pictures: list[Path], tmp_path: Path
) -> None:
    file, images = tmp_path / "one.onnx", [pixels_of(picture) for picture in pictures[:2]]
    own: dict[str, Any] = {"parameters": {"samples": 3}, "free": ["noise"], "picture_input": pictures_inside}
    export_single(bundle, file, "smoothgrad", **own)
    parameters = {"noise": 0.05}
    answer = engine.answer(bundle=file, images=images, parameters=parameters, targets=[[1, 2], [3, 4]], draw=True)
    expected = Explainer(file, device="cpu").explain(images, targets=[[1, 2], [3, 4]], **parameters)
    assert answer.error is None
    assert difference(answer.array("attribution"), expected.attribution) <= TOLERANCE
    assert difference(answer.array("scores"), expected.scores) <= TOLERANCE
    assert np.abs(answer.array("overlay").astype(int) - expected.overlay()).max() <= 1
    wrong = engine.answer(bundle=file, images=images, method="gradient")
    assert wrong.error == refusal(lambda: Explainer(file, device="cpu").explain(images, "gradient"))


def test_what_python_alone_has_is_said(engine: Engine, bundle: Path, rows: np.ndarray) -> None:
    calls: list[tuple[dict[str, Any], str]] = [
        ({"method": "smoothgrad", "tolerance": 0.1}, "Python"),
        ({"method": "smoothgrad.captum"}, "Python"),
        ({"method": "xrai"}, "give segments="),
        ({"method": "lime", "segments": "slic"}, "give segments="),
    ]
    jobs = [{"bundle": bundle, "images": rows[:1], **as_job(call)} for call, _ in calls]
    for (_, words), answer in zip(calls, engine.answers(jobs), strict=True):
        assert answer.error is not None
        assert words in answer.error[1]


def test_sessions_have_the_settings_of_python(engine: Engine, bundle: Path) -> None:
    settings, python = engine.answer(bundle=bundle, what="open").entries["settings"], session_options()
    assert set(settings) == {"session.force_spinning_stop", "session.qdq_matmulnbits_accuracy_level"}
    assert settings == {name: python.get_session_config_entry(name) for name in settings}


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system binds no process to processors")
def test_runs_take_as_many_threads_as_the_process_may_use(engine: Engine, bundle: Path) -> None:
    every = os.sched_getaffinity(0)
    assert engine.answer(bundle=bundle, what="open").entries["threads"] == threads_of_a_run(None)
    os.sched_setaffinity(0, {min(every)})
    try:
        bound = engine.answer(bundle=bundle, what="open").entries["threads"]
        assert bound == threads_of_a_run(None) == int((os.cpu_count() or 1) > 1)
    finally:
        os.sched_setaffinity(0, every)


def test_the_sanitizers_find_nothing(
    sanitized: Engine, bundle: Path, python: Explainer, rows: np.ndarray, tmp_path: Path
) -> None:
    jobs: list[dict[str, Any]] = []
    for method in python.bundle.methods:
        jobs.append({"method": method, "parameters": few(python, method), "targets": [[1, 2]], "draw": True})
    jobs += [as_job(call) for call in [*VARIED, *bad_calls(rows)]]
    answers = sanitized.answers([{"bundle": bundle, "images": rows[:1], **job} for job in jobs])
    assert len(answers) == len(jobs)
    opened = sanitized.answers([{"bundle": path, "what": "open"} for path in bad_bundles(bundle, tmp_path)])
    assert all(answer.error for answer in opened)


def test_the_example_is_built_by_cmake(
    tools: Toolchain, bundle: Path, pictures: list[Path], tmp_path: Path, python: Explainer
) -> None:
    if shutil.which("cmake") is None:
        pytest.skip("C++'s example isn't built, missing: cmake (apt-get install cmake)")
    if not Path("/usr/include/stb/stb_image.h").is_file():
        pytest.skip("C++'s example isn't built, missing: stb_image.h (apt-get install libstb-dev)")
    source, target = ROOT / "runtime" / "cpp", tmp_path / "build"
    quick = ["-DCMAKE_CXX_FLAGS_RELEASE=-O0 -Werror", f"-DORT_ROOT={tools.runtime}"]
    subprocess.run(["cmake", "-S", source, "-B", target, *quick], check=True, capture_output=True)
    subprocess.run(["cmake", "--build", target], check=True, capture_output=True)
    drawn, expected = tmp_path / "out.png", python.explain(pictures[0], "smoothgrad", samples=3)
    command = [target / "explain", bundle, pictures[0], drawn, "--method", "smoothgrad", "samples=3"]
    finished = subprocess.run(command, capture_output=True, text=True, check=True)
    probability = expected.probabilities[0, expected.targets[0]]
    assert finished.stdout == f"{expected.labels[0]}: {100 * probability:.1f} %\n"
    assert np.abs(pixels_of(drawn).astype(int) - expected.overlay()[0]).max() <= 1
    wrong = subprocess.run([*command[:4], "--method", "xyz"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 1
    assert wrong.stderr.startswith("explain: unknown method 'xyz'")
