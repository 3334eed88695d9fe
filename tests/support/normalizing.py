"""Normalises small models and compares the result with what onnxruntime says of the source."""

import numpy as np
import onnx
import onnx_ir as ir

import small_models
from onnxplain_export.graphs.forward import forward
from onnxplain_export.graphs.gradient import gradient
from onnxplain_export.normalize import Normalized, normalize
from onnxplain_export.sources import read_source


def normalized(proto: onnx.ModelProto, **options) -> Normalized:
    return normalize(read_source(proto), **options)


def operators(found: Normalized) -> list[str]:
    return [one.op_type for one in found.model.graph]


def scores_of(found: Normalized, images: np.ndarray) -> np.ndarray:
    return small_models.run(ir.to_proto(forward(found)), {found.image: images}, "scores")


def assert_same_scores(proto: onnx.ModelProto, tapped: str = "y", dtype: type = np.float32, tolerance=2e-6, **options):
    """The scores of a batch are the source's, image by image, and the gradient is that of finite differences."""
    found = normalized(proto, **options)
    assert found.model.opset_imports == {"": 20}
    assert found.model.ir_version == 10
    images = small_models.images(*found.image_shape)
    if np.issubdtype(dtype, np.integer):
        images = np.round(images * 40 + 128).clip(0, 255)
    batch = found.baked or 1
    name = proto.graph.input[0].name
    truth = [small_models.run(proto, {name: row[None].repeat(batch, 0).astype(dtype)}, tapped)[:1] for row in images]
    ours = scores_of(found, images)
    expected = np.concatenate([row.reshape(1, -1) for row in truth]).astype(np.float32)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=tolerance * np.abs(expected).max())
    assert_gradient_of_scores(found, images)
    return found


def assert_gradient_of_scores(found: Normalized, images: np.ndarray) -> None:
    """Along the gradient, the score rises as much as the gradient says."""
    graph = ir.to_proto(gradient(found))
    targets = np.array([[1], [0], [1]], np.int64)
    total = small_models.run(graph, {found.image: images, "target": targets}, "total")[:, 0].astype(np.float64)
    lengths = np.sqrt((total**2).reshape(len(total), -1).sum(1)).reshape(-1, *[1] * (total.ndim - 1))
    assert (lengths > 0).all()
    errors = []
    for size in (1e-2, 1e-3, 1e-4):
        step = size * float(np.linalg.norm(images[0]))
        moves = (step * total / lengths).astype(np.float32)
        up, down = (
            scores_of(found, images + moves).astype(np.float64),
            scores_of(found, images - moves).astype(np.float64),
        )
        rise = np.take_along_axis(up - down, targets, axis=1).ravel() / (2 * step)
        errors.append(np.abs(rise / lengths.ravel() - 1))
    assert np.min(errors, axis=0).max() < 0.02
