"""Models are read from what people have in hand, and bad ones are refused with a reason."""

import hashlib
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import TensorProto, numpy_helper
from sklearn.linear_model import LinearRegression

import small_models
from onnxplain.errors import ModelError, OnnxplainError
from onnxplain_export.normalize import normalize
from onnxplain_export.sources import read_source
from small_models import WEIGHTS, conv, head, model, node


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "net.onnx"
    onnx.save(small_models.classifier(), path)
    return path


@pytest.fixture
def external(tmp_path: Path) -> Path:
    """A model whose convolution's weight lies in weights.bin beside it."""
    path = tmp_path / "net.onnx"
    onnx.save(small_models.classifier(), path, save_as_external_data=True, location="weights.bin", size_threshold=500)
    return path


def test_path_proto_and_ir_model_are_the_same_model(file: Path) -> None:
    sources = [read_source(given) for given in (file, str(file), onnx.load(file), ir.load(file))]
    assert [source.opset for source in sources] == [20] * 4
    assert [source.name for source in sources] == ["net", "net", "small", "small"]
    assert sources[0].sha256 == sources[1].sha256 == hashlib.sha256(file.read_bytes()).hexdigest()


def test_a_given_model_is_left_as_it_is() -> None:
    nodes = [node("Conv", ["x", "target", "b"], ["total"], pads=[1] * 4), *head("total")]
    proto = model(nodes, {"target": WEIGHTS["w"]})
    given = ir.from_proto(proto)
    before = proto.SerializeToString(), ir.to_proto(given).SerializeToString()
    for one in (proto, given):
        normalize(read_source(one))
    assert (proto.SerializeToString(), ir.to_proto(given).SerializeToString()) == before


def test_external_data_beside_the_model_is_read(external: Path) -> None:
    assert (external.parent / "weights.bin").is_file()
    source = read_source(external)
    np.testing.assert_array_equal(source.model.graph.initializers["w"].const_value.numpy(), WEIGHTS["w"])
    in_memory = read_source(ir.load(external))
    assert not isinstance(in_memory.model.graph.initializers["w"].const_value, ir.ExternalTensor)


def test_a_torch_module_needs_an_example() -> None:
    with pytest.raises(ModelError, match="needs example="):
        read_source(torch.nn.Linear(3, 2))


def test_a_torch_module_that_cannot_be_exported_says_why() -> None:
    class Broken(torch.nn.Module):
        def forward(self, _: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("this network never works")

    with pytest.raises(ModelError, match=r"torch can't export Broken to ONNX: .*this network never works") as failure:
        read_source(Broken(), torch.zeros(1, 3))
    assert "\n" not in str(failure.value)


def test_a_torch_module_that_fixes_its_batch_is_freed() -> None:
    class Fixed(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.tanh(x.reshape(1, 12)[:, :5])

    found = normalize(read_source(Fixed(), torch.zeros(1, 3, 2, 2)))
    assert found.baked == 1


def made_by(package: str, callable_: bool = False) -> object:
    """An object whose class says that it comes from a package that isn't installed."""
    members = {"__module__": f"{package}.engine.network"} | ({"__call__": lambda self: None} if callable_ else {})
    return type("Network", (), members)()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "can't export a dict; give a path to an ONNX file, .*a torch module.*a Keras model.*scikit-learn"),
        (None, "can't export a NoneType; give a path"),
        (lambda x: x, "can't export a function; a JAX function is converted by jax2onnx"),
        (made_by("tensorflow"), "can't export a Network; convert it with tf2onnx"),
        (made_by("keras"), "can't export a Network; convert it with tf2onnx"),
        (made_by("tf_keras"), "can't export a Network; convert it with tf2onnx"),
        (made_by("flax", callable_=True), "can't export a Network; convert it with jax2onnx"),
        (made_by("paddle"), "can't export a Network; convert it with paddle2onnx"),
        (made_by("xgboost"), "can't export a Network; .*onnxmltools; but trees have a zero gradient"),
        (torch.nn.Linear, "can't export the class Linear; give a model made from it"),
        (torch.zeros(3), "can't export a Tensor; give the torch module, with example="),
    ],
)
def test_anything_else_is_refused_with_the_way_to_onnx(given: object, said: str) -> None:
    with pytest.raises(ModelError, match=said) as failure:
        read_source(given)
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("net.keras", r"load it with keras\.saving\.load_model\(\) and give the model"),
        ("net.H5", "load it with keras"),
        ("net.pth", "load it with torch and give the module with example="),
        ("net.pt2", r"torch\.export\.load"),
        ("net.safetensors", "these are weights alone"),
        ("net.tflite", "tf2onnx.convert --tflite"),
        ("net.pdmodel", "paddle2onnx"),
        ("net.joblib", "load it with joblib and give the estimator"),
    ],
)
def test_files_of_other_formats_say_what_reads_them(name: str, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"anything")
    with pytest.raises(ModelError, match=f"not an ONNX model; .*{said}"):
        read_source(tmp_path / name)


@pytest.mark.parametrize(("inside", "said"), [("saved_model.pb", "tf2onnx"), ("explainer.json", "already a bundle")])
def test_folders_of_other_formats_say_what_they_are(inside: str, said: str, tmp_path: Path) -> None:
    (tmp_path / inside).touch()
    with pytest.raises(ModelError, match=said):
        read_source(tmp_path)


@pytest.mark.parametrize(
    ("package", "model"),
    [
        ("onnxscript", lambda: (torch.nn.Linear(3, 2), torch.zeros(1, 3))),
        ("skl2onnx", lambda: (LinearRegression().fit(np.eye(2), [0, 1]), None)),
    ],
    ids=["torch", "scikit-learn"],
)
def test_a_missing_package_is_named(package: str, model: "callable", monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModelError, match=rf"needs {package}: pip install"):
        read_source(*model())


def test_recognising_a_model_imports_no_framework() -> None:
    script = "import sys; import onnxplain_export.sources.source, onnxplain_export.sources.recognition as r\n"
    script += "r.frameworks(object()), r.refusal(3)\n"
    script += "print(sorted({'torch', 'keras', 'sklearn', 'skl2onnx', 'tensorflow'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def contents() -> dict[str, bytes]:
    proto = small_models.classifier().SerializeToString()
    return {
        "empty": b"",
        "text": b"This is not a model.\n" * 50,
        "picture": b"\x89PNG\r\n\x1a\n" + bytes(200),
        "random": random.Random(0).randbytes(4096),
        "truncated": proto[: len(proto) // 2],
        "one byte short": proto[:-1],
        "zeros": bytes(1000),
        "no graph": onnx.ModelProto(ir_version=8).SerializeToString(),
    }


@pytest.mark.parametrize("kind", contents())
def test_what_is_not_a_model_is_refused_in_one_line(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(contents()[kind])
    with pytest.raises(ModelError, match=r"net\.onnx: not an ONNX model") as failure:
        read_source(path)
    assert "\n" not in str(failure.value)


def test_missing_file_and_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such file"):
        read_source(tmp_path / "none.onnx")
    with pytest.raises(ModelError, match="is not a file"):
        read_source(tmp_path)


def test_damaged_files_never_raise_anything_but_our_errors(tmp_path: Path) -> None:
    """Bytes flipped and cut at random: either the model is still usable, or the error is one of ours."""
    proto = small_models.classifier().SerializeToString()
    rng = random.Random(1)
    path = tmp_path / "net.onnx"
    refused = 0
    for _ in range(150):
        content = bytearray(proto)
        for _ in range(rng.randint(1, 4)):
            content[rng.randrange(len(content) if rng.random() < 0.2 else 400)] = rng.randrange(256)
        path.write_bytes(content if rng.random() < 0.7 else content[: rng.randrange(len(content))])
        try:
            normalize(read_source(path))
        except OnnxplainError:
            refused += 1
    assert refused > 50


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("where", ["initializer", "node", "float16"])
def test_weights_that_are_not_finite_are_refused(where: str, value: float) -> None:
    bad = WEIGHTS["b"].copy()
    bad[3] = value
    if where == "node":
        proto = model([node("Constant", [], ["bias"], value=numpy_helper.from_array(bad)), conv(), *head("c")])
        proto.graph.node[1].input[2] = "bias"
        named = "Constant"
    else:
        proto = model([conv(), *head("c")], {"b": bad.astype(np.float16) if where == "float16" else bad})
        named = "tensor 'b'"
    with pytest.raises(ModelError, match=f"{named}.*holds NaN or infinite values"):
        read_source(proto)


def test_an_attention_mask_may_hold_minus_infinity() -> None:
    mask = np.where(np.tri(4, dtype=bool), 0, -np.inf).astype(np.float32)
    read_source(model([conv(), *head("c"), node("Identity", ["mask"], ["m"])], {"mask": mask}))


def point_at(path: Path, location: str, **entries: int) -> None:
    """Makes the external weight lie elsewhere."""
    proto = onnx.load(path, load_external_data=False)
    for tensor in proto.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            del tensor.external_data[:]
            for key, value in {"location": location, **entries}.items():
                tensor.external_data.add(key=key, value=str(value))
    onnx.save(proto, path)


def test_external_data_that_are_missing_or_truncated_are_refused(external: Path) -> None:
    data = external.parent / "weights.bin"
    data.write_bytes(data.read_bytes()[:-4])
    with pytest.raises(ModelError, match=r"'weights\.bin' is truncated: tensor 'w' ends at byte 864"):
        read_source(external)
    data.unlink()
    with pytest.raises(ModelError, match=r"tensor 'w' keeps its data in 'weights\.bin', which is missing"):
        read_source(external)


@pytest.mark.parametrize("entries", [{"offset": 1 << 40}, {"offset": -8}, {"offset": 800, "length": 4}])
def test_external_data_that_reach_past_their_file_are_refused(external: Path, entries: dict[str, int]) -> None:
    point_at(external, "weights.bin", **entries)
    with pytest.raises(ModelError):
        read_source(external)


@pytest.mark.parametrize("kind", ["absolute", "above", "symlink"])
def test_external_data_outside_the_folder_are_refused(
    external: Path, kind: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "weights.bin"
    os.replace(external.parent / "weights.bin", elsewhere)
    if kind == "symlink":
        (external.parent / "weights.bin").symlink_to(elsewhere)
    else:
        point_at(external, str(elsewhere) if kind == "absolute" else f"../{elsewhere.parent.name}/weights.bin")
    with pytest.raises(ModelError, match="keeps its data outside the model's folder"):
        read_source(external)


def test_external_data_without_a_path_are_refused(external: Path) -> None:
    with pytest.raises(ModelError, match="give the model's path instead"):
        read_source(onnx.load(external, load_external_data=False))
