import json

import pytest

from onnxplain.bundle_files import read_bundle
from onnxplain.errors import BundleError
from toy_bundle import write_toy_bundle


@pytest.fixture
def folder(tmp_path):
    return write_toy_bundle(tmp_path / "toy.explain")


def change(folder, **entries):
    file = folder / "explainer.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **entries}))


def described(folder):
    return json.loads((folder / "explainer.json").read_text())


def test_the_description_is_read(folder):
    bundle = read_bundle(folder)
    assert bundle.name == "toy"
    assert bundle.image.shape == ("N", 3, 8, 8)
    assert bundle.scores.labels is not None
    assert bundle.scores.labels[3] == "crane"
    assert bundle.graphs["path"].columns == ("alpha", "weight")
    assert bundle.methods["smoothgrad"].parameters["samples"].default == 25


def test_a_missing_folder_says_how_to_make_one(tmp_path):
    with pytest.raises(BundleError, match=r"does not exist.*onnxplain export"):
        read_bundle(tmp_path / "none")


def test_a_file_is_no_bundle(folder):
    with pytest.raises(BundleError, match=r"forward\.onnx is a file, not a bundle"):
        read_bundle(folder / "forward.onnx")


def test_a_folder_without_description_is_no_bundle(tmp_path):
    with pytest.raises(BundleError, match=r"no explainer\.json"):
        read_bundle(tmp_path)


def test_a_description_that_is_not_json_is_named(folder):
    (folder / "explainer.json").write_text("{")
    with pytest.raises(BundleError, match=r"explainer\.json is not JSON"):
        read_bundle(folder)


@pytest.mark.parametrize("text", ["[]", "{}", '{"format": "1"}'])
def test_other_json_is_no_description(folder, text):
    (folder / "explainer.json").write_text(text)
    with pytest.raises(BundleError, match="names no format"):
        read_bundle(folder)


def test_a_newer_format_is_refused_and_says_to_upgrade(folder):
    change(folder, format=2, onnxplain="3.0.0")
    with pytest.raises(BundleError, match=r"format 2, made by onnxplain 3\.0\.0.*--upgrade onnxplain"):
        read_bundle(folder)


@pytest.mark.parametrize("name", ["forward.onnx", "noise.onnx", "weights.data"])
def test_an_altered_file_is_named_unless_hashes_are_skipped(folder, name):
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(BundleError, match=f"{name} was altered"):
        read_bundle(folder)
    assert read_bundle(folder, verify=False).name == "toy"


@pytest.mark.parametrize("name", ["masked.onnx", "weights.data"])
def test_a_missing_file_is_named_even_without_hashes(folder, name):
    (folder / name).unlink()
    with pytest.raises(BundleError, match=f"{name} is missing"):
        read_bundle(folder, verify=False)


def test_a_file_outside_the_bundle_is_refused(folder):
    change(folder, weights={"file": "../weights.data", "sha256": ""})
    with pytest.raises(BundleError, match="outside the bundle"):
        read_bundle(folder)


@pytest.mark.parametrize("entry", ["name", "inputs", "outputs", "graphs", "methods", "source"])
def test_a_missing_entry_is_named(folder, entry):
    data = described(folder)
    del data[entry]
    (folder / "explainer.json").write_text(json.dumps(data))
    with pytest.raises(BundleError, match=f"incomplete: '{entry}' is missing"):
        read_bundle(folder)


def broken_parts(data):
    graphs, methods, output = data["graphs"], data["methods"], data["outputs"][0]
    gradient = methods["gradient"]
    return {
        "not exactly one input": {"inputs": []},
        "not exactly one output": {"outputs": [output, output]},
        "'sofmax' is none of": {"outputs": [{**output, "activation": "sofmax"}]},
        "needs the graph 'lost'": {"methods": {"gradient": {**gradient, "graph": "lost"}}},
        "no graph 'forward'": {"graphs": {"gradient": graphs["gradient"]}, "methods": {"gradient": gradient}},
        "'x' is none of int": {"methods": {"gradient": {**gradient, "parameters": {"a": {"kind": "x", "default": 1}}}}},
        "unknown step 'exiff'": {"preprocessing": {"steps": [{"step": "exiff"}]}},
        "is incomplete": {"graphs": []},
    }


NOTHING = {"graphs": {"gradient": 0}, "methods": {"gradient": {}}, "outputs": [{}]}


@pytest.mark.parametrize("message", broken_parts(NOTHING))
def test_a_description_that_contradicts_itself_says_how(folder, message):
    change(folder, **broken_parts(described(folder))[message])
    with pytest.raises(BundleError, match=message):
        read_bundle(folder)
