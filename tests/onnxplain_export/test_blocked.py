"""The reverse pass stays in the layout that onnxruntime's convolutions work in, and computes the same."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch

import networks
from onnxplain_export.graphs import frame
from onnxplain_export.graphs.gradient import gradient
from onnxplain_export.normalize import normalize
from onnxplain_export.sources import read_source

SIDE = 64


@pytest.fixture(scope="module")
def source() -> ir.Model:
    module = networks.resnet18(5)
    return read_source(module, torch.zeros(1, 3, SIDE, SIDE))


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch, source: ir.Model) -> ir.Model:
    """The gradient's graph without the operators that lead back into the layout."""
    with monkeypatch.context() as patched:
        patched.setattr(frame, "keep_blocked", lambda model: None)
        return gradient(normalize(source))


def run(model: ir.Model, folder: Path, images: np.ndarray) -> tuple[np.ndarray, Counter[str]]:
    """The gradient, and the operators of the graph that onnxruntime makes of the model."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.optimized_model_filepath = 3, str(folder / "loaded.onnx")
    session = onnxruntime.InferenceSession(
        ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    targets = np.array([[0]] * len(images), np.int64)
    (total,) = session.run(["total"], {session.get_inputs()[0].name: images, "target": targets})
    return total, Counter(node.op_type for node in onnx.load(folder / "loaded.onnx").graph.node)


def test_sums_and_masks_stay_blocked(source: ir.Model, plain: ir.Model, tmp_path: Path) -> None:
    images = np.random.default_rng(0).normal(size=(2, 3, SIDE, SIDE)).astype(np.float32)
    kept, operators = run(gradient(normalize(source)), tmp_path, images)
    expected, left = run(plain, tmp_path, images)
    assert np.linalg.norm(kept - expected) < 1e-5 * np.linalg.norm(expected)
    if not left["ReorderOutput"]:
        pytest.skip("this processor's onnxruntime has no blocked layout")
    assert operators["ReorderOutput"] < left["ReorderOutput"]
    assert operators["ReorderInput"] < left["ReorderInput"]


def test_cotangents_carry_the_shapes_of_their_values(source: ir.Model) -> None:
    """Which is what onnxruntime's layout pass needs to know that two operands have one shape."""
    graph = gradient(normalize(source)).graph
    added = [node for node in graph if node.op_type in ("Add", "Mul") and len(node.outputs[0].shape or ()) == 4]
    alike = [node for node in added if node.inputs[0].shape == node.inputs[1].shape]
    assert len(alike) > 20
    assert {str(node.outputs[0].shape[0]) for node in alike} == {"rows"}
