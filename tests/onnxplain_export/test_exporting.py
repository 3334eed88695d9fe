"""`export()` writes a whole, verified, reproducible bundle, or nothing at all."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

import onnxplain_export.exporting
import small_models
from onnxplain import Explainer
from onnxplain.cli import main
from onnxplain.errors import ModelError, NoGradientError, OnnxplainError, OutputError, ParameterError, VerificationError
from onnxplain_export import export
from onnxplain_export.exporting import _labels
from onnxplain_export.methods import METHODS
from onnxplain_export.vjp import STANDARD
from small_models import conv, head, model, node, random_weight

FLOAT = TensorProto.FLOAT


def refused(error: type[OnnxplainError], message: str, given, folder: Path, **options) -> None:
    """The export fails with this one line and leaves nothing behind."""
    before = sorted(folder.rglob("*"))
    with pytest.raises(error, match=message) as failure:
        export(given, folder / "deep" / "net.explain", **options)
    assert "\n" not in str(failure.value)
    assert sorted(folder.rglob("*")) == before


def methods_of(bundle: Path) -> set[str]:
    return set(json.loads((bundle / "explainer.json").read_text())["methods"])


def tree(source: str = "x") -> onnx.NodeProto:
    """A tree ensemble of one split."""
    return node(
        "TreeEnsembleClassifier",
        [source],
        ["label", "y"],
        domain="ai.onnx.ml",
        name="forest",
        nodes_treeids=[0, 0, 0],
        nodes_nodeids=[0, 1, 2],
        nodes_featureids=[0, 0, 0],
        nodes_values=[0.5, 0.0, 0.0],
        nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"],
        nodes_truenodeids=[1, 0, 0],
        nodes_falsenodeids=[2, 0, 0],
        class_treeids=[0, 0],
        class_nodeids=[1, 2],
        class_ids=[0, 1],
        class_weights=[1.0, 1.0],
        classlabels_int64s=[0, 1],
    )


TREE = {
    "outputs": [("label", TensorProto.INT64, ["N"]), ("y", FLOAT, ["N", 2])],
    "domains": {"ai.onnx.ml": 3},
    "opset": 17,
}


def test_a_tree_has_no_gradient(tmp_path: Path) -> None:
    proto = model([tree()], inputs=[("x", FLOAT, ["N", 4])], **TREE)
    refused(NoGradientError, "zero everywhere.*TreeEnsembleClassifier", proto, tmp_path)


def test_a_tree_on_pictures_can_be_occluded(tmp_path: Path) -> None:
    proto = model([node("Flatten", ["x"], ["flat"]), tree("flat")], **TREE)
    refused(NoGradientError, "zero everywhere.*export with --methods occlusion", proto, tmp_path)
    bundle = export(proto, tmp_path / "tree.explain", methods=["occlusion"])
    assert Explainer(bundle).explain(np.zeros((1, 3, 16, 16), np.float32), method="occlusion").attribution.shape == (
        1,
        1,
        16,
        16,
    )


def test_an_argmax_on_every_path_has_no_gradient(tmp_path: Path) -> None:
    best = [
        node("ArgMax", ["c"], ["i"], axis=1),
        node("Cast", ["i"], ["f"], to=FLOAT),
        node("Conv", ["f", "one"], ["d"]),
    ]
    proto = model([conv(), *best, *head("d")], {"one": random_weight(8, 1, 1, 1)})
    refused(NoGradientError, r"'y' with respect to 'x' is zero everywhere.*\(ArgMax\)", proto, tmp_path)


def test_every_operator_without_a_rule_is_named_with_its_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(STANDARD, "Det", raising=False)
    nodes = [
        node("Det", ["x"], ["d"], name="first"),
        node("Unsqueeze", ["d", "axes"], ["u"]),
        node("Expand", ["u", "wide"], ["e"]),
    ]
    nodes += [node("Det", ["e"], ["f"], name="second"), node("Gemm", ["f", "fw"], ["y"])]
    weights = {"axes": np.array([2, 3]), "wide": np.array([1, 1, 2, 2]), "fw": random_weight(3, 5)}
    refused(
        NoGradientError,
        r"no derivative rule for Det \(node 'first'.*Det \(node 'second'",
        model(nodes, weights),
        tmp_path,
    )


def test_a_batch_that_cannot_be_freed_is_refused(tmp_path: Path) -> None:
    nodes = [conv(), *head("c", "z"), node("ReduceMean", ["z", "zero"], ["m"]), node("Sub", ["z", "m"], ["y"])]
    for first in ("N", 1):
        proto = model(
            nodes,
            {"zero": np.array([0])},
            inputs=[("x", FLOAT, [first, 3, 16, 16])],
            outputs=[("y", FLOAT, [first, 5])],
        )
        refused(VerificationError, "the batch axis isn't free", proto, tmp_path)


def test_a_network_that_ignores_its_input_is_refused(tmp_path: Path) -> None:
    refused(
        VerificationError,
        "zero on random images",
        small_models.classifier(weights={"fw": np.zeros((8, 5), np.float32)}),
        tmp_path,
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"methods": ["smothgrad"]}, "unknown method 'smothgrad'; did you mean 'smoothgrad'"),
        ({"methods": "gradiant"}, "unknown method 'gradiant'; did you mean 'gradient'"),
        ({"methods": []}, "no method"),
        ({"methods": ["gradient", "rise_plus"]}, "rise_plus is added after export, by: onnxplain detector"),
        ({"preprocessing": "torchvison"}, "did you mean 'torchvision'"),
        ({"score": "logit"}, "did you mean 'logits'"),
        ({"activation": "softmx"}, "did you mean 'softmax'"),
        ({"labels": ["a", "b"]}, "2 labels for 5 classes"),
        ({"labels": "/nowhere/labels.txt"}, "can't be read"),
        ({"score_output": "why"}, "unknown output 'why'"),
    ],
)
def test_a_wrong_option_is_refused(options: dict, message: str, tmp_path: Path) -> None:
    refused(ParameterError, message, small_models.classifier(), tmp_path, **options)


def test_occlusion_needs_pictures(tmp_path: Path) -> None:
    proto = model([node("Gemm", ["x", "fw", "fb"], ["y"])], inputs=[("x", FLOAT, ["N", 8])])
    refused(ModelError, "occlusion needs pictures", proto, tmp_path, methods=["occlusion"])
    bundle = export(proto, tmp_path / "table.explain")
    found = methods_of(bundle)
    assert {"gradient", "smoothgrad", "integrated_gradients", "smoothgrad_integrated"} <= found
    assert not any(METHODS[name]["pictures"] for name in found)


def test_the_command_prints_one_line_and_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(b"not a model")
    assert main(["export", str(path), "-o", str(tmp_path / "net.explain")]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("onnxplain: ")
    assert captured.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == [path]


# The output folder


def test_an_existing_bundle_is_replaced_only_when_asked(tmp_path: Path) -> None:
    target = export(small_models.classifier(), tmp_path / "net.explain", methods=["gradient"])
    with pytest.raises(OutputError, match="exists; choose another name or pass --overwrite"):
        export(small_models.classifier(), target)
    export(small_models.classifier(), target, methods=["occlusion"], overwrite=True)
    assert methods_of(target) == {"occlusion"}
    assert list(tmp_path.iterdir()) == [target]


def test_a_failed_export_leaves_the_old_bundle(tmp_path: Path) -> None:
    target = export(small_models.classifier(), tmp_path / "net.explain", methods=["gradient"])
    content = (target / "explainer.json").read_bytes()
    with pytest.raises(ParameterError):
        export(small_models.classifier(), target, overwrite=True, labels=["a"])
    assert (target / "explainer.json").read_bytes() == content
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("kind", ["folder", "file", "bundle with a picture"])
def test_what_is_not_a_bundle_is_never_overwritten(kind: str, tmp_path: Path) -> None:
    target = tmp_path / "precious"
    if kind == "file":
        target.write_text("mine")
    else:
        target.mkdir()
        (target / "mine.txt").write_text("mine")
        if kind != "folder":
            (target / "explainer.json").write_text("{}")
    with pytest.raises(OutputError, match="isn't overwritten"):
        export(small_models.classifier(), target, overwrite=True)
    assert (target if kind == "file" else target / "mine.txt").read_text() == "mine"


def test_a_folder_that_cannot_be_written_is_refused_before_the_model_is_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="is a file"):
        export("/nowhere/net.onnx", tmp_path / "file" / "net.explain")


@pytest.mark.parametrize("stage", ["write_graphs", "verify", "describe_files", "write_description"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_an_interrupt_leaves_nothing_half_made(
    stage: str, overwrite: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out" / "net.explain"
    if overwrite:
        export(small_models.classifier(), target, methods=["gradient"])
    before = sorted(tmp_path.rglob("*"))

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(onnxplain_export.exporting, stage, interrupt)
    with pytest.raises(KeyboardInterrupt):
        export(small_models.classifier(), target, methods=["gradient"], overwrite=overwrite)
    assert sorted(tmp_path.rglob("*")) == before


# What is written


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(small_models.classifier(), tmp_path_factory.mktemp("bundles") / "net.explain", labels=list("abcde"))


def test_two_exports_are_the_same_to_the_byte(bundle: Path, tmp_path: Path) -> None:
    again = export(small_models.classifier(), tmp_path / "other.explain", labels=list("abcde"))
    for path in bundle.iterdir():
        if path.name != "explainer.json":  # which holds the measured memory
            assert path.read_bytes() == (again / path.name).read_bytes(), path.name
    first, second = (json.loads((folder / "explainer.json").read_text()) for folder in (bundle, again))
    for description in (first, second):
        for graph in description["graphs"].values():
            del graph["bytes_per_row"], graph["bytes_per_run"]
    assert first == second


def weight_places(bundle: Path) -> set[tuple[int, int]]:
    places = set()
    for path in bundle.glob("*.onnx"):
        for tensor in onnx.load(path, load_external_data=False).graph.initializer:
            if tensor.data_location == TensorProto.EXTERNAL:
                entries = {entry.key: entry.value for entry in tensor.external_data}
                assert entries["location"] == "weights.data"
                places.add((int(entries["offset"]), int(entries["length"])))
            else:
                assert np.prod(tensor.dims) * 4 < 1024 or tensor.data_type != FLOAT
    return places


def test_every_large_weight_is_stored_once_on_a_page_of_its_own(tmp_path: Path) -> None:
    nodes = [
        conv(),
        node("Conv", ["c", "deep"], ["d"], pads=[1] * 4),
        node("Conv", ["d", "twin"], ["e"], pads=[1] * 4),
        *head("e"),
    ]
    deep = random_weight(8, 8, 3, 3)
    network = model(nodes, {"deep": deep, "twin": deep.copy()})  # equal today, but not once one of them has learned
    bundle = export(network, tmp_path / "net.explain", methods=["gradient", "integrated_gradients"])
    content = (bundle / "weights.data").read_bytes()
    places = weight_places(bundle)
    parts = [content[offset : offset + length] for offset, length in places]
    assert all(offset % 4096 == 0 for offset, _ in places)
    assert len({hashlib.sha256(part).hexdigest() for part in parts}) == len(places) - 1
    assert sum(part == deep.tobytes() for part in parts) == 2
    assert len(content) < 3 * deep.nbytes + 4096 * (len(places) + 1)


def test_a_bundle_may_be_moved(bundle: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere" / "renamed.explain"
    shutil.copytree(bundle, moved)
    images = small_models.images(3, 16, 16)
    np.testing.assert_array_equal(
        Explainer(moved).gradient(images, [0, 1, 2]), Explainer(bundle).gradient(images, [0, 1, 2])
    )


def test_the_description_tells_where_the_bundle_came_from(bundle: Path) -> None:
    description = json.loads((bundle / "explainer.json").read_text())
    assert description["source"]["opset"] == 20
    assert description["inputs"] == [
        {"name": "x", "dtype": "float32", "shape": ["N", 3, 16, 16], "layout": "NCHW", "explained": True}
    ]
    assert description["outputs"][0]["labels"] == list("abcde")
    assert description["preprocessing"]["assumed"]
    passes = {"forward", "batch", "gradient", "missing"}
    assert set(description["verification"]) == passes | set(description["graphs"])
    assert all(entry["error"] <= entry["tolerance"] for entry in description["verification"].values())


def test_an_integer_network_is_given_the_pictures_own_numbers(tmp_path: Path) -> None:
    nodes = [node("Cast", ["x"], ["f"], to=FLOAT), node("Mul", ["f", "share"], ["s"]), conv("s"), *head("c")]
    proto = model(nodes, {"share": np.float32(1 / 255)}, inputs=[("x", TensorProto.UINT8, ["N", 3, 16, 16])])
    bundle = export(proto, tmp_path / "net.explain")
    assert json.loads((bundle / "explainer.json").read_text())["preprocessing"]["preset"] == "raw"


# One network through the years


@pytest.mark.filterwarnings("ignore")  # torch's old exporter warns of its own age
def test_every_opset_gives_the_same_gradient(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Dropout(),
        nn.Flatten(),
        nn.Linear(128, 5),
        nn.Softmax(1),
    ).eval()
    network[1].running_mean.uniform_(-1, 1)
    images = small_models.images(3, 16, 16, count=2)
    rows = torch.from_numpy(images).requires_grad_()
    network[:-1](rows)[:, 2].sum().backward()
    files = {}
    for opset in (9, 11, 13, 15, 17):
        files[opset] = tmp_path / f"{opset}.onnx"
        torch.onnx.export(network, (torch.zeros(1, 3, 16, 16),), files[opset], dynamo=False, opset_version=opset)
    files[7] = by_hand(network, tmp_path / "7.onnx")
    for opset, file in files.items():
        bundle = export(file, tmp_path / f"{opset}.explain", methods=["gradient"])
        gradient = Explainer(bundle).gradient(images, [2, 2])
        np.testing.assert_allclose(
            gradient, rows.grad.numpy(), rtol=0, atol=1e-6 * float(rows.grad.abs().max()), err_msg=str(opset)
        )


def by_hand(network: nn.Sequential, path: Path) -> Path:
    """The same network in opset 7 and IR 3, with a fixed batch, Dropout, and its weights among the inputs."""
    nodes = [
        node("Conv", ["x", "0.weight", "0.bias"], ["c"], pads=[1] * 4, strides=[2, 2], kernel_shape=[3, 3]),
        node("BatchNormalization", ["c", "1.weight", "1.bias", "1.running_mean", "1.running_var"], ["n"]),
        node("Relu", ["n"], ["r"]),
        node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Dropout", ["p"], ["d", "mask"], ratio=0.5),
        node("Flatten", ["d"], ["f"]),
        node("Gemm", ["f", "6.weight", "6.bias"], ["z"], transB=1),
        node("Softmax", ["z"], ["y"]),
    ]
    weights = {name: value.detach().numpy() for name, value in network.state_dict().items() if value.dim()}
    proto = model(
        nodes, weights, inputs=[("x", FLOAT, [1, 3, 16, 16])], outputs=[("y", FLOAT, [1, 5])], opset=7, ir_version=3
    )
    for tensor in proto.graph.initializer:
        proto.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    onnx.save(proto, path)
    return path


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (["0,tench", "1,goldfish, a fish", "2 shark"], ["tench", "goldfish, a fish", "shark"]),
        (["0: a", "1: b", "2: c"], ["a", "b", "c"]),
        (["7 up", "1 two", "2 three"], ["7 up", "1 two", "2 three"]),
        (["0", "1", "2"], ["0", "1", "2"]),
    ],
)
def test_class_numbers_before_the_labels_are_dropped(given: list[str], names: list[str]) -> None:
    assert _labels(given, 3) == names


def test_the_weights_table_says_what_lies_where_in_the_order_of_use(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Conv2d(3, 16, 5), nn.ReLU(), nn.Flatten(), nn.Linear(1024, 5))
    target = export(module, tmp_path / "net.explain", example=torch.zeros(1, 3, 12, 12), methods=["gradient"])
    described = json.loads((target / "explainer.json").read_text())["weights"]
    content = (target / described["file"]).read_bytes()
    forward = ir.load(target / "forward.onnx").graph
    tensors = {value.name: value.const_value for value in forward.initializers.values()}
    stored = {name: tensor for name, tensor in tensors.items() if isinstance(tensor, ir.ExternalTensor)}
    order = [value.name for node in forward for value in node.inputs if value is not None and value.name in stored]
    table = [entry for entry in described["tensors"] if entry["name"] in stored]
    assert [entry["name"] for entry in table] == list(dict.fromkeys(order))
    for entry in table:
        values = np.frombuffer(content, entry["dtype"], int(np.prod(entry["shape"])), entry["offset"])
        np.testing.assert_array_equal(values.reshape(entry["shape"]), stored[entry["name"]].numpy())
