"""What goes to small or other places: half precision, reduced builds of onnxruntime, its own format, Triton, MLflow."""

import importlib.metadata
import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from google.protobuf import text_format
from onnxruntime.tools.reduced_build_config_parser import parse_config

from onnxplain import Explainer, ModelError, OutputError, ParameterError
from onnxplain.bundle_files import read_bundle
from onnxplain.cli import main
from onnxplain.operators import required_operators
from onnxplain_export import export, export_single
from onnxplain_export.triton import write_triton
from small_models import model, node, random_weight

MODELS = Path(__file__).parents[2] / "models"


def apart(found: Any, expected: Any) -> float:
    return float(np.linalg.norm(found.astype(float) - expected) / np.linalg.norm(expected.astype(float)))


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("half") / "honest.explain"
    return export(MODELS / "honest.onnx", target, methods=["gradient", "smoothgrad", "gradcam"], float16=True)


def test_half_precision_halves_the_weights_and_hardly_moves_the_maps(half, bundles, pictures):
    full = Explainer(bundles["honest"], device="cpu")
    sizes = [(Path(bundle) / "weights.data").stat().st_size for bundle in (half, full.bundle.path)]
    assert sizes[0] < 0.52 * sizes[1]
    record = read_bundle(half).verification
    assert 0 < record["float16"]["error"] < 2e-3
    assert "forward" not in record
    rows = np.stack([image.row[0] for image in full.explain(pictures).images])
    rounded = Explainer(half, device="cpu")
    assert apart(rounded.scores(rows), full.scores(rows)) < 5e-3
    for method in ("gradient", "gradcam"):
        found, expected = (each.explain(rows, method, 3).attribution for each in (rounded, full))
        # Units near their kink turn over; most of the map is the same.
        assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.95


def test_half_precision_in_a_single_file(half, tmp_path):
    file = export_single(half, tmp_path / "one.onnx", "smoothgrad", parameters={"samples": 3})
    assert file.stat().st_size < 0.75e6
    images = np.random.default_rng(0).normal(size=(1, 3, 64, 64)).astype(np.float32)
    expected = Explainer(half, device="cpu").explain(images, "smoothgrad", samples=3).attribution
    assert apart(Explainer(file, device="cpu").explain(images).attribution, expected) < 1e-4


def test_weights_beyond_half_precision_are_refused(tmp_path):
    large = model(
        [node("Flatten", ["x"], ["f"]), node("Gemm", ["f", "w"], ["y"])],
        {"w": random_weight(3 * 8 * 8, 5) * 1e6},
        inputs=[("x", onnx.TensorProto.FLOAT, ["N", 3, 8, 8])],
        outputs=[("y", onnx.TensorProto.FLOAT, ["N", 5])],
    )
    with pytest.raises(ModelError, match="'w' has values beyond float16's 65504"):
        export(large, tmp_path / "b.explain", methods=["gradient"], float16=True)
    assert not (tmp_path / "b.explain").exists()


def test_the_list_of_operators_is_one_that_onnxruntimes_builds_take(bundles, tmp_path, capsys):
    bundle = bundles["honest"]
    assert main(["info", str(bundle), "--operators"]) == 0
    text = capsys.readouterr().out
    assert text == required_operators(read_bundle(bundle))
    (tmp_path / "needed.config").write_text(text)
    needed, types = parse_config(str(tmp_path / "needed.config"), enable_type_reduction=True)
    listed = {name for domains in needed.values() for names in domains.values() for name in names}
    written = {
        entry.op_type
        for graph in read_bundle(bundle).graphs.values()
        for entry in _nodes(onnx.load(bundle / graph.file))
    }
    assert written <= listed
    assert "FusedConv" in listed  # what onnxruntime makes of a Conv and its Relu
    assert types is not None


def _nodes(graph: onnx.ModelProto) -> list[onnx.NodeProto]:
    found = list(graph.graph.node)
    for entry in found:
        found.extend(inner for attribute in entry.attribute for inner in attribute.g.node)
    return found


def test_onnxruntimes_own_format(bundles, tmp_path):
    export_single(bundles["honest"], tmp_path / "one.onnx", "smoothgrad", parameters={"samples": 3})
    command = [sys.executable, "-m", "onnxruntime.tools.convert_onnx_models_to_ort", str(tmp_path / "one.onnx")]
    subprocess.run([*command, "--optimization_style", "Fixed"], check=True, capture_output=True)
    feeds = {
        "image": np.random.default_rng(0).normal(size=(1, 3, 64, 64)).astype(np.float32),
        "target": np.array([[-1]]),
    }
    maps = [
        onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"]).run(["attribution"], feeds)[0]
        for file in (tmp_path / "one.onnx", tmp_path / "one.ort")
    ]
    # The converted file leaves out the layout that this processor is fastest in: other kernels, and a kink or two.
    assert apart(maps[1], maps[0]) < 5e-3


def model_config(text: str) -> Any:
    """The text as Triton's own schema reads it; an unknown or misplaced field is an error."""
    if importlib.util.find_spec("tritonclient") is None:
        pytest.skip("needs tritonclient, which holds Triton's schema")
    file = importlib.metadata.distribution("tritonclient").locate_file("tritonclient/grpc/model_config_pb2.py")
    spec = importlib.util.spec_from_file_location("model_config_pb2", str(file))
    assert spec is not None
    assert spec.loader is not None
    schema = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(schema)
    return text_format.Parse(text, schema.ModelConfig()), schema


def test_a_model_repository_for_triton(bundles, tmp_path):
    options: dict[str, Any] = {"picture_input": True, "picture_output": True, "free": ["noise"]}
    file = export_single(bundles["honest"], tmp_path / "one.onnx", "smoothgrad", parameters={"samples": 3}, **options)
    folder = write_triton(file, tmp_path / "repository", "honest")
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()) == [
        "1/model.onnx",
        "config.pbtxt",
        "labels.txt",
    ]
    config, schema = model_config((folder / "config.pbtxt").read_text())
    assert config.name == "honest"
    assert config.max_batch_size > 0
    session = onnxruntime.InferenceSession(folder / "1" / "model.onnx", providers=["CPUExecutionProvider"])
    types = {"tensor(float)": "TYPE_FP32", "tensor(int64)": "TYPE_INT64", "tensor(uint8)": "TYPE_UINT8"}
    for told, real in ((config.input, session.get_inputs()), (config.output, session.get_outputs())):
        assert [entry.name for entry in told] == [entry.name for entry in real]
        for entry, tensor in zip(told, real, strict=True):
            assert schema.DataType.Name(entry.data_type) == types[tensor.type]
            # With batching, Triton puts the batch axis before these.
            dims = list(entry.reshape.shape) if entry.HasField("reshape") else list(entry.dims)
            assert [-1, *dims] == [axis if isinstance(axis, int) else -1 for axis in tensor.shape]
            assert all(axis == -1 or axis > 0 for axis in entry.dims)
            assert len(entry.dims) > 0
    assert next(entry for entry in config.output if entry.name == "scores").label_filename == "labels.txt"
    assert len((folder / "labels.txt").read_text().splitlines()) == 10
    with pytest.raises(OutputError, match="exists; choose another name"):
        write_triton(file, tmp_path / "repository", "honest")
    assert write_triton(file, tmp_path / "repository", "honest", overwrite=True) == folder


def test_triton_refuses_inputs_that_are_not_for_each_image(bundles, tmp_path):
    file = export_single(
        bundles["honest"], tmp_path / "one.onnx", "smoothgrad", parameters={"samples": 2}, free=["seed"]
    )
    with pytest.raises(ParameterError, match="a row for each image in every input, and 'seed' is"):
        write_triton(file, tmp_path / "repository", "honest")
    assert not (tmp_path / "repository").exists()
