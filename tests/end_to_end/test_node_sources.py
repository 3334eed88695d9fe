"""Where the JavaScript engine opens bundles from, and what it says of unusable ones and of unusable calls."""

import functools
import hashlib
import http.server
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import node_engine
import toy_bundle
from node_engine import JavaScriptError, picture, run_calls
from onnxplain import Explainer
from onnxplain.errors import OnnxplainError
from onnxplain.pictures import read_picture
from onnxplain.version import __version__
from onnxplain_export import export, export_single

MODELS = Path(__file__).parents[2] / "models"
LIMIT = 2e-3
"""The integrated gradients of a network with kinks: rounding moves a few steps across them."""


@pytest.fixture(scope="module", autouse=True)
def node() -> None:
    reason = node_engine.missing_node()
    if reason is not None:
        pytest.skip(f"no JavaScript engine: {reason}")


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toy") / "toy.explain"
    toy_bundle.write_toy_bundle(folder)
    return folder


@pytest.fixture(scope="module")
def resizing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose preprocessing takes pictures of any size."""
    folder = tmp_path_factory.mktemp("resizing")
    methods = ["gradient", "smoothgrad", "integrated_gradients"]
    return export(MODELS / "honest.onnx", folder / "honest.explain", methods=methods, preprocessing="torchvision")


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((2, *toy_bundle.IMAGE)).astype(np.float32)


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found.astype(np.float64) - expected) / np.linalg.norm(expected))


def message_of(action: Callable[[], object]) -> tuple[str, str]:
    """The class and the words of Python's error."""
    with pytest.raises(OnnxplainError) as caught:
        action()
    return type(caught.value).__name__, str(caught.value)


CALLS: list[dict[str, Any]] = [
    {"method": "smothgrad"},
    {"method": "nothing_like_it"},
    {"method": "rise_plus"},
    {"method": "gradient", "parameters": {"samples": 3}},
    {"method": "smoothgrad", "parameters": {"sample": 3}},
    {"method": "smoothgrad", "parameters": {"samples": 0}},
    {"method": "smoothgrad", "parameters": {"samples": 2.5}},
    {"method": "smoothgrad", "parameters": {"samples": "many"}},
    {"method": "smoothgrad", "parameters": {"seed": -1}},
    {"method": "occlusion", "parameters": {"window": [1, 2, 3]}},
    {"method": "occlusion", "parameters": {"window": 8}},
    {"method": "occlusion", "parameters": {"window": 2, "stride": 5}},
    {"method": "occlusion", "parameters": {"fill": "grey"}},
    {"method": "gradient", "targets": 4},
    {"method": "gradient", "targets": -1},
    {"method": "gradient", "targets": "cot"},
    {"method": "gradient", "targets": [1]},
    {"method": "gradient", "targets": [[1, 2], [3]]},
    {"method": "gradient", "memory": "2 GiB"},
    {"method": "gradient", "memory": 1000},
    {"method": "gradient", "score": "logits"},
    {"method": "occlusion", "score": "logit"},
    {"method": "gradient", "top": 5},
    {"method": "gradient", "top": 2, "targets": 1},
    {"method": "gradient", "cotangent": [1.0, 0.0, 0.0, 0.0]},
]


def test_wrong_calls_get_the_words_that_python_has_for_them(toy: Path, images: np.ndarray, tmp_path: Path) -> None:
    calls = [{"what": "explain", "images": list(images), "options": options} for options in CALLS]
    explainer = Explainer(toy, device="cpu")
    for options, found in zip(CALLS, run_calls(tmp_path, calls, runtime="node", bundle=toy), strict=True):
        plain = {name: entry for name, entry in options.items() if name != "parameters"}
        given = {**plain, **options.get("parameters", {})}
        expected = message_of(lambda given=given: explainer.explain(images, **given))  # type: ignore[misc]
        assert isinstance(found, JavaScriptError), options
        assert (found.name, found.message) == expected, options


def test_wrong_images_get_the_words_that_python_has_for_them(toy: Path, images: np.ndarray, tmp_path: Path) -> None:
    broken = images[0].copy()
    broken[0, 0, 0] = np.nan
    wrong = [[images[0][:, :4]], [broken], [images[0], images[1][0]], [images[0].transpose(1, 2, 0)]]
    explainer = Explainer(toy, device="cpu")
    calls = [{"what": "explain", "images": each} for each in wrong]
    for each, found in zip(wrong, run_calls(tmp_path, calls, runtime="node", bundle=toy), strict=True):
        assert isinstance(found, JavaScriptError)
        assert (found.name, found.message) == message_of(lambda each=each: explainer.explain(each))  # type: ignore[misc]


def _newer(folder: Path) -> None:
    _changed(folder, format=2, onnxplain="9.0.0")


def _without_name(folder: Path) -> None:
    data = json.loads((folder / "explainer.json").read_text("utf-8"))
    del data["name"]
    (folder / "explainer.json").write_text(json.dumps(data), "utf-8")


def _changed(folder: Path, **fields: Any) -> None:
    file = folder / "explainer.json"
    file.write_text(json.dumps({**json.loads(file.read_text("utf-8")), **fields}), "utf-8")


def _altered(folder: Path) -> None:
    file = folder / "weights.data"
    content = bytearray(file.read_bytes())
    content[5] ^= 1
    file.write_bytes(content)


BROKEN: dict[str, Callable[[Path], object]] = {
    "newer": _newer,
    "altered": _altered,
    "no weights": lambda folder: (folder / "weights.data").unlink(),
    "no graph": lambda folder: (folder / "gradient.onnx").unlink(),
    "no description": lambda folder: (folder / "explainer.json").unlink(),
    "no format": lambda folder: (folder / "explainer.json").write_text("[]", "utf-8"),
    "no name": _without_name,
    "outside": lambda folder: _changed(folder, weights={"file": "../weights.data", "sha256": ""}),
    "gone": lambda folder: shutil.rmtree(folder),
    "a file": lambda folder: (shutil.rmtree(folder), folder.write_text("")),
}


def test_broken_bundles_get_the_words_that_python_has_for_them(toy: Path, tmp_path: Path) -> None:
    folders = {}
    for name, damage in BROKEN.items():
        folders[name] = tmp_path / f"{name}.explain"
        shutil.copytree(toy, folders[name])
        damage(folders[name])
    calls = [{"what": "open", "source": str(folder)} for folder in folders.values()]
    found = run_calls(tmp_path / "job", calls, runtime="node")
    for (name, folder), answer in zip(folders.items(), found, strict=True):
        expected = message_of(lambda folder=folder: Explainer(folder, device="cpu"))  # type: ignore[misc]
        assert isinstance(answer, JavaScriptError), name
        assert (answer.name, answer.message) == expected, name


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def address(toy: Path) -> Iterator[str]:
    """The toy bundle behind an address."""
    handler = functools.partial(_Quiet, directory=str(toy.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("runtime", ["node", "wasm"])
def test_a_bundle_opens_from_a_folder_an_address_and_files_in_memory(
    runtime: str, toy: Path, address: str, images: np.ndarray, tmp_path: Path
) -> None:
    files = [
        {"name": f"toy.explain/{file.name}", "bytes": np.frombuffer(file.read_bytes(), np.uint8)}
        for file in toy.iterdir()
    ]
    sources: list[Any] = [str(toy), f"{address}{toy.name}", {"files": files}, {"files": files, "map": True}]
    calls = [{"what": "open", "source": source, "images": list(images), "explain": {}} for source in sources]
    expected = Explainer(toy, device="cpu").explain(images).attribution
    for source, found in zip(sources, run_calls(tmp_path, calls, runtime=runtime), strict=True):
        assert not isinstance(found, JavaScriptError), (source, found)
        assert np.allclose(found["attribution"], expected, rtol=1e-5, atol=1e-6)


def test_what_is_fetched_is_checked_when_it_is_fetched(
    toy: Path, address: str, images: np.ndarray, tmp_path: Path
) -> None:
    for name in ("altered", "no graph", "no description"):
        folder = toy.parent / f"{name.replace(' ', '_')}.explain"
        shutil.copytree(toy, folder, dirs_exist_ok=True)
        BROKEN[name](folder)
    names = ["altered", "no_graph", "no_description"]
    calls = [{"what": "open", "source": f"{address}{name}.explain", "images": list(images)} for name in names]
    altered, missing, nothing = run_calls(tmp_path, calls, runtime="node")
    assert altered.message.endswith("was altered after export (its SHA-256 differs); export the bundle again")
    assert missing.message.endswith("gradient.onnx is missing; export the bundle again")
    assert nothing.message.endswith("has no explainer.json, so it is no bundle")


SINGLES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "images": ("smoothgrad", {"parameters": {"samples": 4}, "free": ["noise", "seed"]}, {"noise": 0.3, "seed": 7}),
    "pictures": (
        "integrated_gradients",
        {"parameters": {"steps": 5}, "free": ["baseline"], "picture_input": True, "picture_output": True},
        {"baseline": 0.5},
    ),
}


@pytest.fixture(scope="module")
def singles(resizing: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The single files, by what they take."""
    folder = tmp_path_factory.mktemp("singles")
    return {
        kind: export_single(resizing, folder / f"{kind}.onnx", method, **options)
        for kind, (method, options, _) in SINGLES.items()
    }


@pytest.mark.parametrize("runtime", ["node", "wasm"])
@pytest.mark.parametrize("kind", SINGLES)
def test_a_single_file_opens_by_its_own_bytes_and_gives_the_bundles_map(
    kind: str, runtime: str, resizing: Path, singles: dict[str, Path], pictures: list[Path], tmp_path: Path
) -> None:
    method, _, given = SINGLES[kind]
    file = singles[kind]
    pixels = [read_picture(path, True) for path in pictures[:2]]
    python = Explainer(file, device="cpu")
    rows = Explainer(resizing, device="cpu").values(pictures[:2])
    images: list[Any] = [picture(each) for each in pixels] if kind == "pictures" else list(rows)
    content = np.frombuffer(file.read_bytes(), np.uint8)
    sources: list[Any] = [str(file), {"files": [{"name": "one.onnx", "bytes": content}]}]
    explain = {"targets": [[2, 5], [1, 0]], "parameters": given}
    calls = [{"what": "open", "source": source, "images": images, "explain": explain} for source in sources]
    calls.append({"what": "open", "source": str(file), "images": images, "explain": {"top": 2}})
    *same, best = run_calls(tmp_path / "job", calls, runtime=runtime)
    taken = pixels if kind == "pictures" else list(rows)
    for found in same:
        assert not isinstance(found, JavaScriptError), found
        assert found["methods"] == [method]
        expected = python.explain(taken, None, [[2, 5], [1, 0]], **given).attribution
        assert relative(found["attribution"], expected) <= LIMIT
    assert not isinstance(best, JavaScriptError), best
    assert relative(best["attribution"], python.explain(taken, top=2).attribution) <= LIMIT


def test_pictures_become_the_same_rows_maps_and_drawings(resizing: Path, pictures: list[Path], tmp_path: Path) -> None:
    python = Explainer(resizing, device="cpu")
    calls, expected = [], []
    for number, size in enumerate([(64, 64), (37, 91), (200, 130)]):
        pixels = np.resize(read_picture(pictures[number], True), (*size, 3)).astype(np.uint8)
        calls.append({"what": "explain", "images": [picture(pixels)], "options": {}, "drawn": True})
        expected.append(python.explain(pixels, "gradient"))
    for found, result in zip(run_calls(tmp_path, calls, runtime="node", bundle=resizing), expected, strict=True):
        assert not isinstance(found, JavaScriptError), found
        assert relative(found["attribution"], result.attribution) <= 1e-5
        assert np.array_equal(found["seen"], result.images[0].seen)
        assert np.abs(found["heatmap"] - result.heatmap()).max() <= 1e-6
        assert np.abs(found["signed"] - result.signed()).max() <= 1e-6
        # A colour is chosen by rounding: where a map lies on the edge between two, either may be taken.
        assert np.mean(found["overlay"] != result.overlay()) <= 1e-3
        assert np.mean(found["original"] != result.overlay(original=True)[0]) <= 1e-3


def test_plain_models_and_other_bytes_are_no_single_files(toy: Path, tmp_path: Path) -> None:
    (tmp_path / "noise.onnx").write_bytes(b"\x0f\xff" * 40)
    calls = [{"what": "open", "source": str(file)} for file in (toy / "gradient.onnx", tmp_path / "noise.onnx")]
    plain, noise = run_calls(tmp_path / "job", calls, runtime="node")
    assert plain.name == noise.name == "BundleError"
    assert "or the file that it writes with --single METHOD" in plain.message
    assert "or the file that it writes with --single METHOD" in noise.message


def test_hashes_and_half_precision_are_right(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    lengths = [0, 1, 55, 56, 63, 64, 65, 119, 120, 1000]
    contents = [random.integers(0, 256, length, dtype=np.uint8) for length in lengths]
    values = np.concatenate(
        [random.standard_normal(4000) * 10.0 ** random.integers(-9, 6, 4000), [0, 65504, 65519.9, 65520, 2.0**-24]]
    ).astype(np.float32)
    calls = [*({"what": "sha256", "bytes": content} for content in contents), {"what": "half", "values": values}]
    *hashes, half = run_calls(tmp_path, calls)
    for content, found in zip(contents, hashes, strict=True):
        assert found == [hashlib.sha256(content.tobytes()).hexdigest()] * 2
    with np.errstate(over="ignore"):
        expected = values.astype(np.float16)
    assert np.array_equal(half["bits"], expected.view(np.uint16))
    assert np.array_equal(half["back"], expected.astype(np.float32))


def test_both_engines_have_one_version(tmp_path: Path) -> None:
    (found,) = run_calls(tmp_path, [{"what": "version"}])
    package = json.loads((node_engine.WEB / "package.json").read_text("utf-8"))
    lock = json.loads((node_engine.WEB / "package-lock.json").read_text("utf-8"))
    assert found == package["version"] == lock["version"] == __version__
    # Where packages come from is the installation's own matter.
    assert not any("resolved" in entry for entry in lock["packages"].values())


def test_options_that_do_not_exist_and_pictures_that_are_no_bytes_are_refused(toy, images, tmp_path):
    picture = {"data": images[0].astype(np.float32), "width": 4, "height": 4}
    calls = [
        {"what": "explain", "images": list(images), "options": {"method": "smoothgrad", "samples": 5}},
        {"what": "explain", "images": list(images), "options": {"target": 1}},
        {"what": "explain", "images": [picture]},
    ]
    option, target, bytes_ = run_calls(tmp_path, calls, runtime="node", bundle=toy)
    assert "unknown option 'samples'" in option.message
    assert "a method's parameters go into parameters: { samples: … }" in option.message
    assert "unknown option 'target'" in target.message
    assert "a picture's data are bytes (Uint8Array), not" in bytes_.message
