"""Several targets of an image share its forward pass, and get the maps that they get alone."""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch

import networks
import other_networks
import small_models
from onnxplain import Explainer
from onnxplain.errors import NoGradientError
from onnxplain_export import export
from onnxplain_export.graphs import SHARING
from onnxplain_export.graphs.gradient import gradient
from onnxplain_export.graphs.sharing import _Repeating
from onnxplain_export.normalize import normalize
from onnxplain_export.sources import read_source

METHODS = ("gradient", "smoothgrad", "integrated_gradients", "smoothgrad_integrated")
TARGETS = [[0, 3, 1], [2, 2, 0]]


def of_torch(module: torch.nn.Module, *example: torch.Tensor) -> ir.Model:
    return read_source(module, example if len(example) > 1 else example[0])


NETWORKS = {
    "residual": lambda: of_torch(networks.resnet18(5), torch.zeros(1, 3, 33, 40)),
    "depthwise": lambda: of_torch(networks.mobile_net(5), torch.zeros(1, 3, 32, 32)),
    "attention": lambda: of_torch(networks.vision_transformer(), torch.zeros(1, 3, 64, 64)),
    "two inputs": lambda: of_torch(other_networks.PictureAndAge(), torch.zeros(1, 3, 16, 16), torch.zeros(1, 5)),
}


def both(name: str) -> tuple[ir.Model, ir.Model]:
    normalized = normalize(NETWORKS[name]())
    return gradient(normalized), gradient(normalized, shares=True)


def feeds_of(model: ir.Model, count: int, targets: np.ndarray) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    feeds = {"target": targets}
    for value in model.graph.inputs[:-1]:
        shape = [count, *(int(axis) for axis in list(value.shape)[1:])]
        feeds[value.name] = rng.standard_normal(shape).astype(np.float32)
    return feeds


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("count", [1, 3])
def test_the_gradients_are_those_of_each_target_alone(name: str, count: int) -> None:
    plain, shared = both(name)
    targets = np.array([[0, 3, 1], [2, 2, 0], [1, 0, 0]])[:count]
    feeds = feeds_of(plain, count, targets)
    (expected,) = small_models.session(ir.to_proto(plain)).run(["total"], feeds)
    (found,) = small_models.session(ir.to_proto(shared)).run(["total"], feeds)
    assert np.linalg.norm(found - expected) <= 1e-6 * np.linalg.norm(expected)


@pytest.mark.parametrize("name", ["residual", "attention"])
def test_the_forward_pass_runs_once_for_each_image(name: str) -> None:
    _, shared = both(name)
    rows = next(v for node in shared.graph for v in node.outputs if str(v.name).endswith("/rows"))
    shared.graph.outputs.append(rows)
    feeds = feeds_of(shared, 2, np.array(TARGETS))
    (found,) = small_models.session(ir.to_proto(shared)).run([str(rows.name)], feeds)
    assert len(found) == 2


def kept_apart(model: ir.Model, folder: Path) -> int:
    """How many products onnxruntime computes in the plain layout, though an operand comes from a convolution's own."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(folder / "optimized.onnx"), 4
    content = ir.to_proto(model).SerializeToString()
    onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    nodes = onnx.load(options.optimized_model_filepath).graph.node
    reordered = {name for node in nodes if node.op_type == "ReorderOutput" for name in node.output}
    return sum(node.op_type == "Mul" and bool(reordered & set(node.input)) for node in nodes)


def test_repeated_masks_stay_in_the_layout_of_convolutions(tmp_path: Path) -> None:
    plain, shared = both("residual")
    assert kept_apart(shared, tmp_path) <= kept_apart(plain, tmp_path)


def test_a_network_that_cannot_share_says_where() -> None:
    recurrent = torch.nn.LSTM(4, 6, batch_first=True)

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.recurrent, self.head = recurrent, torch.nn.Linear(6, 5)

        def forward(self, series: torch.Tensor) -> torch.Tensor:
            return self.head(self.recurrent(series)[0][:, -1])

    normalized = normalize(of_torch(Network(), torch.zeros(1, 7, 4)))
    with pytest.raises(NoGradientError, match=r"begin with the rows|shape"):
        gradient(normalized, shares=True)


def test_a_shared_graph_that_is_wrong_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = _Repeating.repeated
    with monkeypatch.context() as patch:
        patch.setattr(_Repeating, "repeated", lambda self, value, node: self.op.Neg(right(self, value, node)))
        folder = export(small_models.classifier(), tmp_path / "net.explain", methods=["gradient", "smoothgrad"])
    explainer = Explainer(folder)
    assert set(explainer.bundle.graphs) == {"forward", "gradient", "noise"}
    assert not list(folder.glob("*.targets.onnx"))
    images = small_models.images(*(int(axis) for axis in explainer.bundle.image.shape[1:]), count=2)
    together = explainer.explain(images, "gradient", TARGETS).attribution
    np.testing.assert_allclose(together[:, 0], explainer.gradient(images, [0, 2]), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("method", METHODS)
def test_maps_of_several_targets_are_those_of_each(method: str, tmp_path: Path) -> None:
    explainer = Explainer(export(small_models.classifier(), tmp_path / "net.explain"))
    assert {f"{graph}.targets" for graph in ("gradient", "path", "noise")} <= set(explainer.bundle.graphs) & set(
        SHARING
    )
    images = small_models.images(*(int(axis) for axis in explainer.bundle.image.shape[1:]), count=2)
    together = explainer.explain(images, method, TARGETS).attribution
    for index in range(3):
        alone = explainer.explain(images, method, [targets[index] for targets in TARGETS]).attribution
        assert np.linalg.norm(together[:, index] - alone) <= 1e-5 * np.linalg.norm(alone)
