"""Each differentiable operator in every form that the opsets gave it means the same after normalisation."""

from collections.abc import Iterator

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator

import small_models
from expanded_models import expanded
from normalizing import assert_gradient_of_scores, normalized, scores_of
from onnxplain_export.autodiff import differentiate
from onnxplain_export.normalize.opset import NEWEST, OLDEST
from onnxplain_export.vjp import STANDARD
from operator_forms import FORMS
from rule_harness import KERNELS
from small_models import model, node

SIZE = (3, 6, 6)
BATCH_OF_ONE = frozenset(
    {"Scatter", "ScatterElements", "ScatterND", "Unique", "DFT", "STFT", "Col2Im", "ReverseSequence", "GridSample"}
    | {"RoiAlign", "DeformConv", "GatherElements", "AffineGrid", "TensorScatter", "MaxUnpool"}
)
"""Forms written with constants for one image."""
ELSEWHERE = frozenset({"If", "Scan"})
"""Tested in test_control_flow.py."""


def versions(op_type: str) -> Iterator[int]:
    """The opsets, among those that are read, at which the operator's definition changes or begins."""
    history = [s for s in onnx.defs.get_all_schemas_with_history() if (s.domain, s.name) == ("", op_type)]
    starts = sorted(s.since_version for s in history if not s.deprecated)
    ends = min((s.since_version for s in history if s.deprecated), default=NEWEST + 1)
    yield from sorted({max(start, OLDEST) for start in starts if not any(start < s <= OLDEST for s in starts)} - {ends})


def form_model(op_type: str, opset: int) -> onnx.ModelProto:
    """The form, followed by five random sums of its entries' tanh."""
    form = FORMS[op_type](opset)
    used = {name for one in form.nodes for name in one.input}
    weights = {name: content for name, content in form.weights.items() if name in used}
    batch = 1 if op_type in BATCH_OF_ONE else "N"
    inputs = [("x", onnx.TensorProto.FLOAT, [batch, *SIZE])]
    head = model(form.nodes, weights, inputs=inputs, outputs=[("z", onnx.TensorProto.FLOAT, None)], opset=opset)
    z = answer(head, small_models.images(*SIZE, count=1))
    width = z.size
    mixing = np.random.default_rng(0).standard_normal((width, 5)).astype(np.float32) / np.float32(np.sqrt(width))
    tail = [
        node("Flatten", ["z"], ["flat_z"]),
        node("Mul", ["flat_z", "calm"], ["calm_z"]),
        node("Tanh", ["calm_z"], ["tanh_z"]),
        node("MatMul", ["tanh_z", "mix"], ["y"]),
    ]
    tensors = {**weights, "mix": mixing, "calm": np.float32(1 / np.abs(z).max())}
    outputs = [("y", onnx.TensorProto.FLOAT, [batch, 5])]
    return model([*form.nodes, *tail], tensors, inputs=inputs, outputs=outputs, opset=opset)


def answer(proto: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    """What onnxruntime says, or onnx itself."""
    try:
        return small_models.run(proto, {"x": images})
    except Exception:  # onnxruntime's own types, for a kernel or an opset that it lacks
        return np.asarray(ReferenceEvaluator(proto, new_ops=KERNELS).run(None, {"x": images})[0])


def gradient_in_float32(proto: onnx.ModelProto, image: np.ndarray) -> tuple[onnx.ModelProto, np.ndarray]:
    """The expanded model and the gradient of its second output at one image, by onnxruntime."""
    model = expanded(proto)
    plain = ir.to_proto(model)
    graph = model.graph
    u = ir.val("cotangent", dtype=ir.DataType.FLOAT, shape=ir.Shape([1, 5]))
    graph.inputs.append(u)
    (found,) = differentiate(graph, graph.outputs[0], [graph.inputs[0]], u)
    graph.outputs.append(found)
    feeds = {"x": image, "cotangent": np.eye(5, dtype=np.float32)[1:2]}
    return plain, small_models.run(ir.to_proto(model), feeds, str(found.name))


@pytest.mark.parametrize(("op_type", "opset"), [(op, opset) for op in FORMS for opset in versions(op)])
def test_form(op_type: str, opset: int) -> None:
    proto = form_model(op_type, opset)
    images = small_models.images(*SIZE)
    truth = np.concatenate([answer(proto, image[None]) for image in images])
    tolerance = 5e-6 * np.abs(truth).max()
    if op_type not in BATCH_OF_ONE:
        found = normalized(proto)
        np.testing.assert_allclose(scores_of(found, images), truth, rtol=0, atol=tolerance)
        assert_gradient_of_scores(found, images)
        return
    for image, expected in zip(images[:, None], np.split(truth, len(images)), strict=True):
        plain, total = gradient_in_float32(proto, image)
        np.testing.assert_allclose(small_models.run(plain, {"x": image}), expected, rtol=0, atol=tolerance)
        length = np.linalg.norm(total)
        moves = [size / length * total for size in (0.1, 0.01, 0.003)]
        rises = [small_models.run(plain, {"x": image + v}) - small_models.run(plain, {"x": image - v}) for v in moves]
        slopes = [rise[0, 1] / (2 * np.linalg.norm(v)) for rise, v in zip(rises, moves, strict=True)]
        assert np.min(np.abs(np.array(slopes) / length - 1)) < 0.02


def test_every_operator_is_in_the_table() -> None:
    known = {name for name in STANDARD if "::" not in name}
    assert known - ELSEWHERE <= set(FORMS)
