"""A small network for each operator of the relevance tables: what stands between its convolution and its head."""

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import NodeProto, TensorProto

from small_models import Array, conv, head, model, node, random_weight

SPATIAL = np.array([2, 3])


@dataclass(frozen=True)
class Between:
    """Nodes from "c" [N, 8, 16, 16] to "m" [N, 8, …]; `linear` says that they are, piecewise and without an offset."""

    nodes: list[NodeProto]
    weights: dict[str, Array]
    linear: bool = True

    def model(self) -> onnx.ModelProto:
        """The whole classifier of pictures [N, 3, 16, 16]."""
        return model([conv(), *self.nodes, *head("m")], self.weights)


def _one(op_type: str, *more: str, linear: bool = True, source: str = "c", **options: object) -> Between:
    weights = {name: options.pop(name) for name in more if name in options}
    return Between([node(op_type, [source, *more], ["m"], name="tried", **options)], weights, linear)  # type: ignore[arg-type]


SCALE = random_weight(8, 1, 1, seed=4)
SHIFT = random_weight(8, 1, 1, seed=5)

CASES: dict[str, Between] = {
    "AveragePool": _one("AveragePool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
    "GlobalAveragePool": _one("GlobalAveragePool"),
    "GlobalMaxPool": _one("GlobalMaxPool"),
    "MaxPool": _one("MaxPool", kernel_shape=[3, 3], strides=[2, 2]),
    "ReduceMean": _one("ReduceMean", "axes", axes=SPATIAL),
    "ReduceSum": _one("ReduceSum", "axes", axes=SPATIAL),
    "ReduceMax": _one("ReduceMax", "axes", axes=SPATIAL),
    "ReduceMin": Between([node("ReduceMin", ["c", "axes"], ["d"]), node("Neg", ["d"], ["m"])], {"axes": SPATIAL}),
    "CumSum": _one("CumSum", "axis", axis=np.array(2)),
    "Resize": Between(
        [node("Resize", ["c", "", "scales"], ["m"], mode="linear")], {"scales": np.array([1, 1, 1.5, 2], np.float32)}
    ),
    "Add": Between([node("Relu", ["c"], ["r"]), node("Add", ["r", "c"], ["m"])], {}),
    "Add constant": _one("Add", "shift", shift=SHIFT),
    "Sub": Between([node("Relu", ["c"], ["r"]), node("Sub", ["r", "c"], ["m"])], {}),
    "Sub constant": _one("Sub", "shift", shift=SHIFT),
    "Sub from constant": Between([node("Sub", ["shift", "c"], ["m"])], {"shift": SHIFT}),
    "Sum": Between([node("Relu", ["c"], ["r"]), node("Sum", ["r", "c", "c"], ["m"])], {}),
    "Mean": Between([node("Relu", ["c"], ["r"]), node("Mean", ["r", "c", "c"], ["m"])], {}),
    "Mul": _one("Mul", "scale", scale=SCALE),
    "Mul SiLU": Between([node("Sigmoid", ["c"], ["s"]), node("Mul", ["s", "c"], ["m"])], {}, False),
    "Mul gate": Between(
        [node("GlobalAveragePool", ["c"], ["p"]), node("Sigmoid", ["p"], ["s"]), node("Mul", ["c", "s"], ["m"])],
        {},
        False,
    ),
    "Mul square": _one("Mul", "c", linear=False),
    "Div": _one("Div", "scale", scale=SCALE),
    "Neg": _one("Neg"),
    "LRN": _one("LRN", linear=False, size=3, alpha=0.1),
    "Max": Between([node("Mul", ["c", "scale"], ["d"]), node("Max", ["c", "d"], ["m"])], {"scale": SCALE}),
    "Min": Between([node("Mul", ["c", "scale"], ["d"]), node("Min", ["c", "d"], ["m"])], {"scale": SCALE}),
    "Max constant": _one("Max", "zero", zero=np.float32(0)),
    "BatchNormalization": Between(
        [node("Relu", ["c"], ["r"]), node("BatchNormalization", ["r", "s", "t", "a", "v"], ["m"])],
        {"s": SCALE.ravel(), "t": SHIFT.ravel(), "a": SHIFT.ravel() / 2, "v": SCALE.ravel() ** 2},
    ),
    "Cast": Between(
        [node("Cast", ["c"], ["d"], to=TensorProto.DOUBLE), node("Cast", ["d"], ["m"], to=TensorProto.FLOAT)], {}
    ),
    "Concat": Between(
        [node("Concat", ["c", "c"], ["d"], axis=1), node("Slice", ["d", "start", "end", "one"], ["m"])],
        {"start": np.array([3]), "end": np.array([11]), "one": np.array([1])},
    ),
    "DepthToSpace": Between(
        [node("SpaceToDepth", ["c"], ["d"], blocksize=2), node("DepthToSpace", ["d"], ["m"], blocksize=2)], {}
    ),
    "Dropout": _one("Dropout"),
    "Expand": Between(
        [node("GlobalAveragePool", ["c"], ["p"]), node("Expand", ["p", "shape"], ["m"])],
        {"shape": np.array([1, 1, 3, 2])},
    ),
    "Flatten": Between(
        [node("Flatten", ["c"], ["f"], axis=2), node("Reshape", ["f", "shape"], ["m"])],
        {"shape": np.array([-1, 8, 16, 16])},
    ),
    "Gather": _one("Gather", "places", places=np.array([5, 0, 5, 15]), axis=3),
    "Identity": _one("Identity"),
    "Split": Between(
        [node("Split", ["c"], ["d", "e"], axis=2, num_outputs=2), node("Concat", ["e", "e"], ["m"], axis=3)], {}
    ),
    "Squeeze": Between(
        [node("Unsqueeze", ["c", "one"], ["d"]), node("Squeeze", ["d", "one"], ["m"])], {"one": np.array([1])}
    ),
    "Tile": _one("Tile", "times", times=np.array([1, 1, 2, 1])),
    "Transpose": _one("Transpose", perm=[0, 1, 3, 2]),
    "Pad": _one("Pad", "pads", pads=np.array([0, 0, 1, 2, 0, 0, 0, 1])),
    "Trilu": _one("Trilu"),
    "Where": Between(
        [node("Greater", ["c", "zero"], ["k"]), node("Where", ["k", "c", "zero"], ["m"])], {"zero": np.float32(0)}
    ),
    "Conv": _one("Conv", "w2", "b", source="c", w2=random_weight(8, 4, 3, 3), strides=[2, 1], group=2),
    "ConvTranspose": _one("ConvTranspose", "w2", "b", w2=random_weight(8, 4, 3, 3), strides=[2, 1], group=2),
    "MatMul": _one("MatMul", "w2", w2=random_weight(16, 7)),
    "MatMul from the left": Between([node("MatMul", ["w2", "c"], ["m"])], {"w2": random_weight(7, 16)}),
    "Gemm": Between(
        [
            node("GlobalAveragePool", ["c"], ["p"]),
            node("Flatten", ["p"], ["f"]),
            node("Gemm", ["f", "w2", "b"], ["g"], alpha=-0.5, beta=2.0, transB=1),
            node("Unsqueeze", ["g", "axes"], ["m"]),
        ],
        {"w2": random_weight(8, 8), "axes": SPATIAL},
    ),
    "Clip": Between([node("Clip", ["c", "low", "high"], ["m"])], {"low": np.float32(0), "high": np.float32(6)}, False),
    "PRelu": _one("PRelu", "slope", slope=SCALE),
}
"""From the operator that is tried, and what is special about the case."""

SMOOTH = ["Celu", "Elu", "Gelu", "HardSigmoid", "HardSwish", "Mish", "Selu", "Sigmoid", "Softplus", "Softsign", "Tanh"]
PIECEWISE = ["Abs", "LeakyRelu", "Relu"]
CASES |= {name: _one(name, linear=False) for name in [*SMOOTH, "Shrink", "ThresholdedRelu"]}
CASES |= {name: _one(name) for name in PIECEWISE}
