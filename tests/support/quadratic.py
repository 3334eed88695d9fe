"""A network with a closed form, of odd and unequal sides: score_c(x) = Σ a_c x + ½ Σ b_c x² on [N, 3, 12, 17]."""

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto

from small_models import model, node

CLASSES, SHAPE = 4, (3, 12, 17)
LINEAR, SQUARE = np.random.default_rng(0).standard_normal((2, CLASSES, *SHAPE)).astype(np.float32)

Array = NDArray[np.float64]


def network(curved: bool = True, channels_last: bool = False) -> ModelProto:
    """The network as ONNX; without its squares unless `curved`."""
    first = [node("Transpose", ["x"], ["moved"], perm=[0, 3, 1, 2])] if channels_last else []
    weights = {
        "a": LINEAR.reshape(CLASSES, -1).T.copy(),
        "b": SQUARE.reshape(CLASSES, -1).T * np.float32(0.5 * curved),
    }
    nodes = [
        *first,
        node("Flatten", ["moved" if channels_last else "x"], ["flat"]),
        node("MatMul", ["flat", "a"], ["linear"]),
        node("Mul", ["flat", "flat"], ["squared"]),
        node("MatMul", ["squared", "b"], ["quadratic"]),
        node("Add", ["linear", "quadratic"], ["y"]),
    ]
    shape = (*SHAPE[1:], SHAPE[0]) if channels_last else SHAPE
    inputs = [("x", TensorProto.FLOAT, ["N", *shape])]
    return model(nodes, weights, inputs=inputs, outputs=[("y", TensorProto.FLOAT, ["N", CLASSES])])


def gradient(images: NDArray[np.floating], targets: NDArray[np.integer] | list[int] | int) -> Array:
    """The gradient of the targets' scores at images [N, …], for one target each or for all."""
    return LINEAR[targets].astype(np.float64) + SQUARE[targets] * images.astype(np.float64)


def scores(images: NDArray[np.floating]) -> Array:
    """The scores [N, classes] of images [N, …]."""
    x = images.astype(np.float64)
    return np.einsum("nchw,kchw->nk", x, LINEAR) + np.einsum("nchw,kchw->nk", x * x, SQUARE) / 2


def top_class(images: NDArray[np.floating]) -> NDArray[np.int64]:
    """Each image's class [N]."""
    return scores(images).argmax(axis=1)
