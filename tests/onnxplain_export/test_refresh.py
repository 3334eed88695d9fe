"""`refresh()` gives a bundle new weights: it is then, to the last bit, what a new export of them would be."""

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from torch import nn

import onnxplain_export.exporting
from networks import mobile_net, vision_transformer
from onnxplain import Explainer
from onnxplain.cli import main
from onnxplain.errors import BundleError, ModelError, OnnxplainError, OutputError
from onnxplain_export import export, refresh
from small_models import conv, head, model, node, random_weight

FLOAT = TensorProto.FLOAT
IMAGE, PICTURE = torch.zeros(1, 3, 12, 12), torch.zeros(1, 3, 32, 32)


def later(module: nn.Module, seed: int = 1) -> nn.Module:
    """The module after some training: every float of it has changed."""
    generator = torch.Generator().manual_seed(seed)
    trained = copy.deepcopy(module)
    with torch.no_grad():
        for tensor in [*trained.parameters(), *trained.buffers()]:
            if tensor.is_floating_point():
                tensor.mul_(1 + 0.2 * torch.rand(tensor.shape, generator=generator).to(tensor.dtype))
                tensor.add_(0.02 * torch.rand(tensor.shape, generator=generator).to(tensor.dtype))
    return trained


def quick(given: Any, folder: Path, **options: Any) -> Path:
    """An export without its proofs and measurements, which say nothing about the files."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnxplain_export.exporting, "verify", lambda *_: {})
        patch.setattr("onnxplain_export.description.measured_memory", lambda _, runs: dict.fromkeys(runs, (1, 1)))
        return export(given, folder, **options)


def assert_same_files(one: Path, other: Path) -> None:
    names = sorted(path.name for path in one.iterdir())
    assert names == sorted(path.name for path in other.iterdir())
    for name in names:
        if name != "explainer.json":
            assert (one / name).read_bytes() == (other / name).read_bytes(), name
    first, second = (json.loads((folder / "explainer.json").read_text()) for folder in (one, other))
    for part in ("graphs", "methods", "inputs", "outputs", "layers", "weights"):
        assert first[part] == second[part], part


def sequential(*layers: nn.Module) -> Callable[[], nn.Module]:
    def made() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(*copy.deepcopy(layers)).eval()

    return made


FLAT = (nn.AdaptiveAvgPool2d(2), nn.Flatten())


class Tied(nn.Module):
    """One weight read twice, plainly and transposed; another, equal today, of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = (
            nn.Linear(16, 16, bias=False),
            nn.Linear(16, 16, bias=False),
            nn.Linear(16, 4),
        )
        self.second.weight.data = self.first.weight.data.clone()
        self.third = nn.Linear(16, 16, bias=False)
        self.third.weight = self.first.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.tanh(self.second(torch.tanh(self.first(x.flatten(1)[:, :16]))))
        return self.last(torch.tanh(self.third(x) @ self.first.weight))


class Recurrent(nn.Module):
    """An LSTM over the rows of a picture."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.LSTM(36, 8, batch_first=True), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.cell(x.permute(0, 2, 1, 3).flatten(2))[0][:, -1])


def initialised(make: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    """As torch initialises: whole layers of equal numbers, biases of 0, which exporters would take for one or none."""

    def made() -> nn.Module:
        module = make()
        for part in module.modules():
            if isinstance(part, nn.Conv2d | nn.Linear) and part.bias is not None:
                nn.init.zeros_(part.bias)
        return module

    return made


WIDE = sequential(
    nn.Conv2d(3, 256, 3),
    nn.BatchNorm2d(256),
    nn.ReLU(),
    nn.Conv2d(256, 256, 1),
    nn.GroupNorm(4, 256),
    *FLAT,
    nn.Linear(1024, 4),
)
NETWORKS: dict[str, tuple[Callable[[], nn.Module], torch.Tensor, dict[str, Any]]] = {
    "conv + norm": (
        sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(200, 4)),
        IMAGE,
        {"methods": "all"},
    ),
    "norm first": (
        sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 8, 3, stride=2), nn.PReLU(8), *FLAT, nn.Linear(32, 4)),
        IMAGE,
        {"methods": "all"},
    ),
    "transposed": (
        sequential(
            nn.ConvTranspose2d(3, 4, 3, 2), nn.BatchNorm2d(4), nn.ELU(), *FLAT, nn.Linear(16, 8), nn.BatchNorm1d(8)
        ),
        IMAGE,
        {},
    ),
    "just initialised": (initialised(WIDE), IMAGE, {}),
    "mobile": (mobile_net, torch.zeros(1, 3, 32, 32), {"methods": ["gradcam", "lrp_epsilon", "guided_backprop"]}),
    "transformer": (
        lambda: vision_transformer(size=32),
        torch.zeros(1, 3, 32, 32),
        {"methods": ["smoothgrad", "gradcam"]},
    ),
    "recurrent": (sequential(Recurrent()), IMAGE, {}),
    "tied": (sequential(Tied()), IMAGE, {}),
    "float16": (WIDE, IMAGE, {"float16": True}),
    "half": (lambda: WIDE().half(), IMAGE.half(), {}),
    "double": (lambda: WIDE().double(), IMAGE.double(), {}),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_refreshed_bundle_is_what_a_new_export_would_be(name: str, tmp_path: Path) -> None:
    make, image, options = NETWORKS[name]
    before = make()
    after = later(before)
    old = quick(before, tmp_path / "old.explain", example=image, **options)
    new = quick(after, tmp_path / "new.explain", example=image, **options)
    assert any(path.read_bytes() != (new / path.name).read_bytes() for path in old.glob("*.[!j]*"))
    assert_same_files(refresh(old, after, tmp_path / "refreshed.explain"), new)


def proto(
    seed: int = 0, *, opset: int = 20, prefix: str = "", activation: str = "Tanh", size: int = 9, **attributes: Any
) -> onnx.ModelProto:
    """A network as a file may hold it: one weight in a Constant, one read twice, a normalisation, a shape."""
    weights = {
        "kernel": random_weight(4, 3, 3, 3, seed=seed),
        "scale": 1 + random_weight(4, seed=seed + 1),
        "mean": random_weight(4, seed=seed + 2),
        "variance": 1 + random_weight(4, seed=seed + 3) ** 2,
        "shared": random_weight(6, 6, seed=seed + 4),
    }
    shape = {"size": np.array([0, -1], np.int64)}
    constant = numpy_helper.from_array(random_weight(4, 6, seed=seed + 5))
    names = {name: prefix + name for name in weights}
    kernel, scale, mean, variance, shared = names.values()
    nodes = [
        node("Conv", ["x", kernel], ["c"], name="first", **{"pads": [1] * 4, **attributes}),
        node("BatchNormalization", ["c", scale, mean, mean, variance], ["normed"], name="norm"),
        node("GlobalAveragePool", ["normed"], ["p"], name="pool"),
        node("Reshape", ["p", "size"], ["f"], name="flat"),
        node("Constant", [], ["projection"], value=constant),
        node("MatMul", ["f", "projection"], ["h"], name="project"),
        node(activation, ["h"], ["t"], name="squash"),
        node("MatMul", ["t", shared], ["u"], name="mix"),
        node("Transpose", [shared], ["turned"], name="turn"),
        node("MatMul", ["u", "turned"], ["y"], name="head"),
    ]
    tensors = {**{names[name]: content for name, content in weights.items()}, **shape}
    entries = {"inputs": [("x", FLOAT, ["N", 3, size, size])], "outputs": [("y", FLOAT, ["N", 6])]}
    return model(nodes, weights=tensors, opset=opset, **entries)


@pytest.mark.parametrize("opset", [13, 20])
def test_a_file_with_other_names_finds_its_weights_by_what_reads_them(opset: int, tmp_path: Path) -> None:
    old = quick(proto(0, opset=opset), tmp_path / "old.explain", methods="all")
    newer = proto(10, opset=opset)
    refreshed = refresh(old, proto(10, opset=opset, prefix="epoch_2/"), tmp_path / "refreshed.explain")
    assert_same_files(refreshed, quick(newer, tmp_path / "new.explain", methods="all"))
    assert Explainer(refreshed).bundle.source["sha256"] != Explainer(old).bundle.source["sha256"]


def test_a_file_is_read_from_its_path_and_the_bundle_says_so(tmp_path: Path) -> None:
    old = export(proto(0), tmp_path / "net.explain")
    onnx.save(proto(10), tmp_path / "epoch_2.onnx")
    assert refresh(old, tmp_path / "epoch_2.onnx") == old
    fresh = export(tmp_path / "epoch_2.onnx", tmp_path / "fresh.explain")
    assert_same_files_but_memory(old, fresh)
    source = Explainer(old).bundle.source
    assert source["file"] == "epoch_2.onnx"
    assert source["sha256"] == Explainer(fresh).bundle.source["sha256"]
    assert Explainer(old).bundle.verification["forward"]["error"] < 1e-6


def assert_same_files_but_memory(one: Path, other: Path) -> None:
    for path in one.iterdir():
        assert path.name == "explainer.json" or path.read_bytes() == (other / path.name).read_bytes(), path.name


@pytest.mark.filterwarnings("ignore")  # torch's exporter warns of its own parts
def test_checkpoints_as_torchs_exporter_writes_them_by_default(tmp_path: Path) -> None:
    """Weights in a file beside each, and a batch that is fixed."""
    before = NETWORKS["conv + norm"][0]()
    for name, module in (("epoch_1", before), ("epoch_2", later(before))):
        torch.onnx.export(module, (IMAGE.repeat(2, 1, 1, 1),), tmp_path / f"{name}.onnx", verbose=False)
        assert (tmp_path / f"{name}.onnx.data").exists()
    bundle = export(tmp_path / "epoch_1.onnx", tmp_path / "net.explain", methods=["gradient"])
    fresh = export(tmp_path / "epoch_2.onnx", tmp_path / "fresh.explain", methods=["gradient"])
    assert_same_files_but_memory(refresh(bundle, tmp_path / "epoch_2.onnx"), fresh)


def test_maps_are_those_of_a_new_export(tmp_path: Path) -> None:
    before = NETWORKS["conv + norm"][0]()
    after = later(before)
    bundle = export(before, tmp_path / "net.explain", example=IMAGE)
    fresh = export(after, tmp_path / "fresh.explain", example=IMAGE)
    stale = Explainer(bundle)
    images = np.random.default_rng(0).standard_normal((2, 3, 12, 12)).astype(np.float32)
    old_map = stale.explain(images, "gradient").attribution
    refresh(bundle, after)
    for method in ("gradient", "smoothgrad", "integrated_gradients", "occlusion"):
        found, wanted = (Explainer(one).explain(images, method).attribution for one in (bundle, fresh))
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6 * np.abs(wanted).max())
    assert np.abs(Explainer(bundle).explain(images, "gradient").attribution - old_map).max() > 1e-3
    # What was opened before stays whole: it goes on with its own weights, or says that it can't.
    np.testing.assert_array_equal(stale.explain(images, "gradient").attribution, old_map)
    with pytest.raises(BundleError, match="was replaced since it was opened; open it again"):
        stale.explain(images, "smoothgrad")


def test_a_mapping_of_arrays_is_taken_by_name(tmp_path: Path) -> None:
    before = NETWORKS["conv + norm"][0]()
    after = later(before)
    bundle = quick(before, tmp_path / "net.explain", example=IMAGE)
    one = refresh(bundle, after, tmp_path / "one.explain")
    assert_same_files_but_memory(refresh(bundle, after.state_dict(), tmp_path / "two.explain"), one)
    with pytest.raises(ModelError, match=r"lacks a weight of the .*: unknown name '5\.bias'; did you mean '5\.bia'"):
        refresh(bundle, {name.replace("5.bias", "5.bia"): one for name, one in after.state_dict().items()})


def test_a_refreshed_bundle_is_refreshed_again(tmp_path: Path) -> None:
    before = NETWORKS["norm first"][0]()
    bundle = quick(before, tmp_path / "net.explain", example=IMAGE)
    for seed in (1, 2, 3):
        refresh(bundle, later(before, seed))
    assert_same_files_but_memory(bundle, quick(later(before, 3), tmp_path / "new.explain", example=IMAGE))
    changes = Explainer(bundle).bundle.source["changes"]
    assert sum(change.startswith("weights refreshed") for change in changes) == 1


def test_a_module_is_left_as_it_was(tmp_path: Path) -> None:
    module = sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), *FLAT, nn.Linear(16, 4))()
    bundle = quick(module, tmp_path / "net.explain", example=IMAGE)
    module.train()
    module[2].eval()
    torch.manual_seed(5)
    state, weights = torch.get_rng_state(), copy.deepcopy(module.state_dict())
    refresh(bundle, module)
    assert torch.equal(torch.get_rng_state(), state)
    assert [part.training for part in module] == [True, True, False, True, True, True]
    assert all(torch.equal(tensor, weights[name]) for name, tensor in module.state_dict().items())


class WithTemperature(nn.Module):
    """Scores, and beside them numbers that no image has a row of."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.temperature = wide(), nn.Parameter(torch.arange(5.0))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.body(x), self.temperature * 2


def test_outputs_without_a_row_for_each_image_are_left_aside(tmp_path: Path) -> None:
    before = WithTemperature().eval()
    bundle = quick(before, tmp_path / "net.explain", example=IMAGE)
    refresh(bundle, later(before))
    assert Explainer(bundle).bundle.verification["forward"]["error"] < 1e-5


def wide(classes: int = 4) -> nn.Module:
    return sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), *FLAT, nn.Linear(16, classes))()


DIFFERENT: dict[str, tuple[Callable[[], Any], str]] = {
    "wider": (lambda: wide(5), r"the weight '4\.bias' has shape \[5\], not \[4\]"),
    "renamed": (
        lambda: nn.Sequential(nn.Sequential(*wide())),
        "lacks a weight of the bundle's network: unknown name '0",
    ),
    "another activation": (
        lambda: nn.Sequential(*[nn.GELU() if isinstance(part, nn.ReLU) else part for part in wide()]),
        "something that holds no weights isn't as it was at export",
    ),
    "diverged": (lambda: filled(wide(), float("nan")), "'0.weight' holds NaN or infinite values; has the training"),
    "a file": (lambda: proto(size=12), r"Conv \(node 'node_conv2d'\) reads 2 values, not 3"),
}


def filled(module: nn.Module, number: float) -> nn.Module:
    with torch.no_grad():
        module[0].weight[0, 0, 0, 0] = number
    return module


@pytest.mark.parametrize("name", DIFFERENT)
def test_another_module_is_refused_with_the_first_difference(name: str, tmp_path: Path) -> None:
    bundle = quick(wide(), tmp_path / "net.explain", example=IMAGE)
    before = {path.name: path.read_bytes() for path in bundle.iterdir()}
    make, message = DIFFERENT[name]
    with pytest.raises(OnnxplainError, match=message) as failure:
        refresh(bundle, make())
    assert "\n" not in str(failure.value)
    assert {path.name: path.read_bytes() for path in bundle.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["net.explain"]


def with_node(change: Callable[[onnx.ModelProto], None]) -> onnx.ModelProto:
    changed = proto(10)
    change(changed)
    return changed


FILES: dict[str, tuple[Callable[[], onnx.ModelProto], str]] = {
    "stride": (lambda: proto(10, strides=[2, 2]), r"Conv \(node 'first'\) has strides \[2, 2\], not given before"),
    "operator": (lambda: proto(10, activation="Relu"), r"Tanh \(node 'squash'\) has become Relu \(node 'squash'\)"),
    "untied": (lambda: with_node(untie), r"Transpose \(node 'turn'\) reads 'other'; when exported, it shared 'shared'"),
    "tied": (
        lambda: with_node(tie),
        r"BatchNormalization \(node 'norm'\) shares 'mean'; when exported, it had 'variance'",
    ),
    "shorter": (lambda: with_node(shorten), "the network has|the outputs|MatMul"),
    "shape": (lambda: with_node(reshape), "'size' has changed, by which the bundle's graphs were built"),
    "picture": (
        lambda: with_node(enlarge),
        r"^input 0 is float \[N, 3, 12, 12\], not float \[N, 3, 9, 9\]",
    ),
}


def untie(one: onnx.ModelProto) -> None:
    one.graph.initializer.append(numpy_helper.from_array(random_weight(6, 6), "other"))
    next(each for each in one.graph.node if each.name == "turn").input[0] = "other"


def tie(one: onnx.ModelProto) -> None:
    next(each for each in one.graph.node if each.name == "norm").input[4] = "mean"


def shorten(one: onnx.ModelProto) -> None:
    del one.graph.node[-1]
    one.graph.node[-2].output[0] = "y"


def reshape(one: onnx.ModelProto) -> None:
    next(each for each in one.graph.initializer if each.name == "size").CopyFrom(
        numpy_helper.from_array(np.array([-1, 4], np.int64), "size")
    )


def enlarge(one: onnx.ModelProto) -> None:
    for axis in (2, 3):
        one.graph.input[0].type.tensor_type.shape.dim[axis].dim_value = 12


@pytest.mark.parametrize("name", FILES)
def test_another_file_is_refused_with_the_first_difference(name: str, tmp_path: Path) -> None:
    bundle = quick(proto(0), tmp_path / "net.explain")
    make, message = FILES[name]
    with pytest.raises(ModelError, match=message) as failure:
        refresh(bundle, make())
    assert "\n" not in str(failure.value)


def test_an_estimator_is_converted_again(tmp_path: Path) -> None:
    """Its label output, whose node holds coefficients as attributes, is no part of what is explained."""
    features, classes = load_digits(return_X_y=True)
    early, late = (LogisticRegression(C=c, max_iter=1000).fit(features / 16, classes) for c in (0.01, 0.1))
    bundle = quick(early, tmp_path / "net.explain")
    fresh = quick(late, tmp_path / "fresh.explain")
    assert_same_files_but_memory(refresh(bundle, late), fresh)


def test_what_a_rule_has_looked_at_may_not_change(tmp_path: Path) -> None:
    """The derivative of x^2 is written as 2x, so another exponent needs another graph."""

    def network(power: float) -> onnx.ModelProto:
        nodes = [node("Pow", ["x", "power"], ["c2"]), conv("c2"), *head("c")]
        return model(nodes, weights={"power": np.float32(power)})

    bundle = quick(network(2.0), tmp_path / "net.explain")
    with pytest.raises(ModelError, match="'power' has changed, by which the bundle's graphs were built"):
        refresh(bundle, network(3.0))


def test_bundles_that_cannot_be_refreshed_say_why(tmp_path: Path) -> None:
    bundle = quick(proto(0), tmp_path / "net.explain")
    told = json.loads((bundle / "explainer.json").read_text())
    (bundle / "refresh.onnx").write_bytes(b"broken")
    with pytest.raises(BundleError, match=r"refresh\.onnx is missing or was altered after export"):
        refresh(bundle, proto(10))
    del told["refresh"]
    (bundle / "explainer.json").write_text(json.dumps(told))
    with pytest.raises(BundleError, match="exported by an older version; export it again"):
        refresh(bundle, proto(10))
    with pytest.raises(BundleError, match="does not exist"):
        refresh(tmp_path / "nothing.explain", proto(10))
    (tmp_path / "file.onnx").write_bytes(proto(0).SerializeToString())
    with pytest.raises(BundleError, match="is a single file, with its weights inside"):
        refresh(tmp_path / "file.onnx", proto(10))


def test_an_output_that_exists_is_refused_unless_told(tmp_path: Path) -> None:
    bundle = quick(proto(0), tmp_path / "net.explain")
    other = refresh(bundle, proto(10), tmp_path / "other.explain")
    with pytest.raises(OutputError, match="exists; choose another name"):
        refresh(bundle, proto(20), other)
    refresh(bundle, proto(20), other, overwrite=True)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems can't exchange two names at once")
def test_there_is_no_moment_without_a_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = quick(proto(0), tmp_path / "net.explain")
    monkeypatch.setattr(Path, "rename", lambda *_: pytest.fail("the old bundle was moved away first"))
    refresh(bundle, proto(10))
    assert [path.name for path in tmp_path.iterdir()] == ["net.explain"]


READER = """
import sys, numpy as np
from onnxplain import Explainer
from onnxplain.errors import BundleError
images = np.random.default_rng(0).standard_normal((1, 3, 9, 9)).astype(np.float32)
wanted = np.load(sys.argv[2])
read = refused = 0
print("ready", flush=True)
while sys.stdin.readable() and read < 60:
    try:
        explainer = Explainer(sys.argv[1], device="cpu")
        scores, maps = explainer.scores(images), explainer.explain(images, "gradient", targets=1).attribution
    except BundleError as error:
        assert "was replaced" in str(error), error
        refused += 1
        continue
    pairs = [(wanted["scores_0"], wanted["maps_0"]), (wanted["scores_1"], wanted["maps_1"])]
    assert any(np.array_equal(scores, s) and np.array_equal(maps, m) for s, m in pairs), "neither of the two"
    read += 1
print(read, refused)
"""


def test_whoever_reads_meanwhile_has_the_old_or_the_new_bundle(tmp_path: Path) -> None:
    bundle = quick(proto(0), tmp_path / "net.explain")
    images = np.random.default_rng(0).standard_normal((1, 3, 9, 9)).astype(np.float32)
    answers = {}
    for number, seed in enumerate((10, 0)):
        refresh(bundle, proto(seed))
        explainer = Explainer(bundle, device="cpu")
        answers[f"scores_{number}"] = explainer.scores(images)
        answers[f"maps_{number}"] = explainer.explain(images, "gradient", targets=1).attribution
    np.savez(tmp_path / "wanted.npz", **answers)
    command = [sys.executable, "-c", READER, str(bundle), str(tmp_path / "wanted.npz")]
    reader = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "ready\n"
        count = 0
        while reader.poll() is None:
            refresh(bundle, proto(10 * (count % 2)))
            count += 1
        out, error = reader.communicate(timeout=60)
    finally:
        reader.kill()
    assert reader.returncode == 0, error
    assert out.split()[0] == "60"
    assert count > 3


def test_the_command_refreshes_and_says_what_it_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = quick(proto(0), tmp_path / "net.explain")
    onnx.save(proto(10), tmp_path / "later.onnx")
    assert main(["refresh", str(bundle), str(tmp_path / "later.onnx"), "-o", str(tmp_path / "out.explain")]) == 0
    printed = capsys.readouterr().out
    assert "has the weights of" in printed
    assert "forward: differs by" in printed
    assert "gradient: differs by" in printed
    assert main(["info", str(tmp_path / "out.explain")]) == 0
    assert "verified when it was refreshed:" in capsys.readouterr().out
    onnx.save(proto(10, activation="Relu"), tmp_path / "other.onnx")
    assert main(["refresh", str(bundle), str(tmp_path / "other.onnx")]) == 2
    assert "Tanh (node 'squash') has become Relu" in capsys.readouterr().err
