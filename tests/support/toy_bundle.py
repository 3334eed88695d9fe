"""A bundle written by hand around a network whose gradient, path integrals and occlusions have closed forms.

score_c(x) = Σ_i A[c, i]·x_i + ½ Σ_i B[c, i]·x_i² + bias_c on images [N, 3, 8, 8], so its gradient is A[c] + B[c]·x.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

CLASSES, CHANNELS, SIDE = 4, 3, 8
IMAGE = [CHANNELS, SIDE, SIDE]
LABELS = ["cat", "dog", "tench, Tinca tinca", "crane"]
_random = np.random.default_rng(7)
A = _random.normal(size=(CLASSES, *IMAGE)).astype(np.float32)
B = _random.normal(size=(CLASSES, *IMAGE)).astype(np.float32)
BIAS = np.array([0.3, -0.2, 0.1, 0.0], np.float32)
MEAN, STD = [0.5, 0.4, 0.6], [0.2, 0.25, 0.3]
PREPROCESSING = [
    {"step": "exif"},
    {"step": "colour", "order": "RGB"},
    {"step": "resize", "rule": "exact", "size": [SIDE, SIDE], "kernel": "bilinear", "antialias": True, "round": True},
    {"step": "scale", "factor": 1 / 255},
    {"step": "mean", "values": MEAN},
    {"step": "std", "values": STD},
    {"step": "layout", "order": "NCHW"},
]


def scores_of(images: NDArray[Any], linear: bool = False) -> NDArray[np.float64]:
    """The network in float64 numpy: [N, classes]."""
    x = np.asarray(images, np.float64).reshape(len(images), 1, -1)
    a, b = A.reshape(CLASSES, -1).astype(np.float64), B.reshape(CLASSES, -1).astype(np.float64)
    return (a * x + (0 if linear else 0.5) * b * x * x).sum(axis=2) + BIAS


def gradient_of(images: NDArray[Any], target: int) -> NDArray[np.float64]:
    """The gradient of one class's score: [N, 3, 8, 8]."""
    return A[target].astype(np.float64) + B[target].astype(np.float64) * np.asarray(images, np.float64)


def noise_of(draw: int, seed: int) -> NDArray[np.float64]:
    """The toy's "noise": z_i = sin(3·draw + i + seed), the same for every image."""
    return np.sin(3.0 * draw + np.arange(np.prod(IMAGE)).reshape(IMAGE) + seed)


class Writer:
    """Collects nodes; every call adds one and returns its output's name."""

    def __init__(self, weights: dict[str, NDArray[Any]]) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights = weights
        self.constants: list[onnx.TensorProto] = []

    def __getattr__(self, operator: str) -> Any:
        def add(*inputs: str, **attributes: Any) -> str:
            name = f"{operator}_{len(self.nodes)}"
            self.nodes.append(helper.make_node(operator, list(inputs), [name], **attributes))
            return name

        return add

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        """A small inline constant."""
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name


def _pieces(op: Writer, x: str, class_axes: int) -> str:
    """Scores [..., classes] of x [..., 3, 8, 8] with `class_axes` leading axes."""
    count = op.constant([0] * class_axes + [-1], np.int64)
    flat = op.Reshape(x, count)
    linear = op.MatMul(flat, "A_flat")
    square = op.MatMul(op.Mul(flat, flat), "B_flat")
    return op.Add(op.Add(linear, op.Mul(square, op.constant(0.5))), "bias")


def _gather(op: Writer, weight: str) -> str:
    return op.Gather(weight, "target", axis=0)  # [N, T, 3, 8, 8]


def forward(op: Writer) -> dict[str, str]:
    """Scores and top class."""
    scores = _pieces(op, "image", 1)
    return {"scores": scores, "top": op.ArgMax(scores, axis=1, keepdims=0)}


def gradient(op: Writer) -> dict[str, str]:
    """A[target] + B[target]·x."""
    x = op.Unsqueeze("image", op.constant([1], np.int64))
    total = op.Add(_gather(op, "A"), op.Mul(_gather(op, "B"), x))
    shape = op.Concat(op.Shape("target"), op.constant([1, 1, 1], np.int64), axis=0)
    return {"total": total, "norm": op.Expand(op.constant(1.0), shape)}


def _column(op: Writer, index: int, rank: int = 6) -> str:
    """One column of steps [S, K, columns] as [S, 1, K, 1, 1, 1]."""
    axes = op.constant([1, *range(3, rank)], np.int64)
    return op.Unsqueeze(op.Gather("steps", op.constant(index, np.int64), axis=2), axes)


def _weighted_gradient(op: Writer, points: str, weight: str) -> str:
    """Weighted gradients [N, T, K, 3, 8, 8] at points [N, 1, K, 3, 8, 8]."""
    two = op.constant([2], np.int64)
    at = op.Add(op.Unsqueeze(_gather(op, "A"), two), op.Mul(op.Unsqueeze(_gather(op, "B"), two), points))
    return op.Mul(at, weight)


def _sum_steps(op: Writer, value: str) -> str:
    return op.ReduceSum(value, op.constant([2], np.int64), keepdims=0)


def path(op: Writer) -> dict[str, str]:
    """(x - b)·Σ w·g(b + alpha (x - b))."""
    axes, one = op.constant([1, 2], np.int64), op.constant([1], np.int64)
    alpha, weight = _column(op, 0), _column(op, 1)
    distance = op.Sub("image", "baseline")
    points = op.Add(op.Unsqueeze("baseline", axes), op.Mul(alpha, op.Unsqueeze(distance, axes)))
    summed = _sum_steps(op, _weighted_gradient(op, points, weight))
    return {"total": op.Mul(op.Unsqueeze(distance, one), summed), "norm": _sum_steps(op, weight)}


def noise(op: Writer) -> dict[str, str]:
    """Gradients at b + alpha (x + sigma·z(draw) - b), times (noisy x - b) where multiply is 1."""
    draw, alpha, weight, multiply = (_column(op, index) for index in range(4))
    axes, image_axes = op.constant([1, 2], np.int64), op.constant([1, 2, 3, 4, 5], np.int64)
    seed = op.Cast("seed", to=TensorProto.FLOAT)
    ramp = op.constant(np.arange(np.prod(IMAGE)).reshape(IMAGE))
    z = op.Sin(op.Add(op.Add(op.Mul(draw, op.constant(3.0)), ramp), seed))
    noisy = op.Add(op.Unsqueeze("image", axes), op.Mul(op.Unsqueeze("sigma", image_axes), z))
    start = op.Unsqueeze("baseline", axes)
    distance = op.Sub(noisy, start)
    term = _weighted_gradient(op, op.Add(start, op.Mul(alpha, distance)), weight)
    factor = op.Add(op.Mul(multiply, distance), op.Sub(op.constant(1.0), multiply))
    return {"total": _sum_steps(op, op.Mul(term, factor)), "norm": _sum_steps(op, weight)}


def _inside(op: Writer, axis: int, low: str, high: str) -> str:
    shape = [1, 1, 1, 1, 1]
    shape[axis] = SIDE
    position = op.constant(np.arange(SIDE).reshape(shape))
    inside = op.And(op.GreaterOrEqual(position, low), op.Less(position, high))
    return op.Cast(inside, to=TensorProto.FLOAT)


def masked(op: Writer) -> dict[str, str]:
    """Scores of images with windows replaced, and the drops added up over the windows."""
    columns = [
        op.Unsqueeze(op.Gather("steps", op.constant(i, np.int64), axis=2), op.constant([2, 3, 4], np.int64))
        for i in range(4)
    ]
    mask = op.Mul(_inside(op, 3, columns[0], columns[2]), _inside(op, 4, columns[1], columns[3]))  # [S, K, 1, 8, 8]
    one = op.constant([1], np.int64)
    kept = op.Mul(op.Unsqueeze("image", one), op.Sub(op.constant(1.0), mask))
    logits = _pieces(op, op.Add(kept, op.Mul(op.Unsqueeze("fill", one), mask)), 2)  # [N, K, classes]
    chosen = op.Where(op.Greater("activated", op.constant([0.5])), op.Softmax(logits, axis=-1), logits)
    count = op.Shape(chosen, start=1, end=2)
    index = op.Unsqueeze("target", one)  # [N, 1, T]
    tall = op.Concat(op.Shape("target", start=0, end=1), count, op.Shape("target", start=1, end=2), axis=0)
    scores = op.GatherElements(chosen, op.Expand(index, tall), axis=2)  # [N, K, T]
    drop = op.Transpose(op.Sub(op.Unsqueeze("reference", one), scores), perm=[0, 2, 1])  # [N, T, K]
    spread = op.Unsqueeze(drop, op.constant([3, 4, 5], np.int64))
    total = op.ReduceSum(op.Mul(spread, op.Unsqueeze(mask, one)), op.constant([2], np.int64), keepdims=0)
    norm = op.Unsqueeze(op.ReduceSum(mask, one, keepdims=0), one)
    return {"scores": scores, "total": total, "norm": norm}


FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
ROLES: dict[str, tuple[int, list[int | str]]] = {
    "image": (FLOAT, ["N", *IMAGE]),
    "target": (INT64, ["N", "T"]),
    "steps": (FLOAT, ["S", "K", "columns"]),
    "baseline": (FLOAT, ["b0", "b1", "b2", "b3"]),
    "fill": (FLOAT, ["b0", "b1", "b2", "b3"]),
    "sigma": (FLOAT, ["N"]),
    "seed": (INT64, [1]),
    "reference": (FLOAT, ["N", "T"]),
    "activated": (FLOAT, [1]),
}
GRAPHS: dict[str, tuple[Any, list[str], list[str] | None]] = {
    "forward": (forward, ["image"], None),
    "gradient": (gradient, ["image", "target"], None),
    "path": (path, ["image", "target", "steps", "baseline"], ["alpha", "weight"]),
    "noise": (
        noise,
        ["image", "target", "steps", "baseline", "sigma", "seed"],
        ["draw", "alpha", "weight", "multiply"],
    ),
    "masked": (
        masked,
        ["image", "target", "steps", "fill", "reference", "activated"],
        ["top", "left", "bottom", "right"],
    ),
}
ELEMENT = {FLOAT: "float32", INT64: "int64"}


def _number(default: Any, minimum: Any, maximum: Any, kind: str = "int") -> dict[str, Any]:
    return {"default": default, "minimum": minimum, "maximum": maximum, "kind": kind, "help": "a number"}


SAMPLES, STEPS = _number(25, 1, 1_000_000), _number(50, 1, 100_000)
NOISE, SEED = _number(0.15, 0, None, "float"), _number(0, 0, 2**20 - 1)
FILL = {"default": 0, "kind": "image", "help": "what stands for nothing"}
METHODS = {
    "gradient": ("gradient", "single", "logits", {}),
    "smoothgrad": ("noise", "draws", "logits", {"samples": SAMPLES, "noise": NOISE, "seed": SEED}),
    "integrated_gradients": ("path", "points", "logits", {"steps": STEPS, "baseline": FILL}),
    "smoothgrad_integrated": (
        "noise",
        "draws_points",
        "logits",
        {"samples": _number(10, 1, 1_000_000), "noise": NOISE, "steps": STEPS, "baseline": FILL, "seed": SEED},
    ),
    "occlusion": (
        "masked",
        "windows",
        "probabilities",
        {"window": _number(0, 0, 100_000), "stride": _number(0, 0, 100_000), "fill": FILL},
    ),
}


def write_toy_bundle(folder: Path, linear: bool = False, bytes_per_row: int = 1000, **changes: Any) -> Path:
    """Writes the bundle into a folder; `linear` leaves the squares out, `changes` replace entries of explainer.json."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {"A": A, "B": np.zeros_like(B) if linear else B}
    weights["A_flat"] = np.ascontiguousarray(weights["A"].reshape(CLASSES, -1).T)
    weights["B_flat"] = np.ascontiguousarray(weights["B"].reshape(CLASSES, -1).T)
    weights["bias"] = BIAS
    data = b"".join(weight.tobytes() for weight in weights.values())
    (folder / "weights.data").write_bytes(data)
    graphs = {name: _write_graph(folder, name, weights, bytes_per_row) for name in GRAPHS}
    description = _description(graphs, hashlib.sha256(data).hexdigest())
    (folder / "explainer.json").write_text(json.dumps({**description, **changes}))
    return folder


def _write_graph(folder: Path, name: str, weights: dict[str, NDArray[Any]], bytes_per_row: int) -> dict[str, Any]:
    write, roles, columns = GRAPHS[name]
    op = Writer(weights)
    outputs = write(op)
    for output, value in outputs.items():
        op.nodes.append(helper.make_node("Identity", [value], [output]))
    types = {"top": INT64}
    used = {entry for node in op.nodes for entry in node.input}
    graph = helper.make_graph(
        op.nodes,
        name,
        [helper.make_tensor_value_info(role, *ROLES[role]) for role in roles],
        [helper.make_tensor_value_info(output, types.get(output, FLOAT), None) for output in outputs],
        [*op.constants, *(tensor for tensor in _external(weights) if tensor.name in used)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    file = folder / f"{name}.onnx"
    file.write_bytes(model.SerializeToString())
    return {
        "file": file.name,
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "inputs": [
            {"name": role, "role": role, "dtype": ELEMENT[ROLES[role][0]], "shape": ROLES[role][1]} for role in roles
        ],
        "outputs": [{"name": output, "dtype": ELEMENT[types.get(output, FLOAT)]} for output in outputs],
        "columns": columns,
        "bytes_per_row": bytes_per_row,
    }


def _external(weights: dict[str, NDArray[Any]]) -> list[onnx.TensorProto]:
    tensors, offset = [], 0
    for name, weight in weights.items():
        tensor = TensorProto(name=name, data_type=FLOAT, dims=weight.shape, data_location=TensorProto.EXTERNAL)
        for key, value in (("location", "weights.data"), ("offset", offset), ("length", weight.nbytes)):
            tensor.external_data.add(key=key, value=str(value))
        tensors.append(tensor)
        offset += weight.nbytes
    return tensors


def _description(graphs: dict[str, Any], weights_hash: str) -> dict[str, Any]:
    methods = {
        name: {"graph": graph, "plan": plan, "finish": "mean", "explains": explains, "parameters": parameters}
        for name, (graph, plan, explains, parameters) in METHODS.items()
    }
    image = {"name": "image", "dtype": "float32", "shape": ["N", *IMAGE], "layout": "NCHW", "explained": True}
    logits = {"name": "logits", "shape": ["N", CLASSES], "explained": True, "classes": CLASSES}
    return {
        "format": 1,
        "onnxplain": "0.1.0",
        "name": "toy",
        "source": {"file": "toy.onnx", "sha256": "0" * 64, "producer": "by hand", "opset": 20, "precision": "float32"},
        "inputs": [image],
        "outputs": [{**logits, "activation": "softmax", "labels": LABELS}],
        "preprocessing": {"preset": None, "assumed": False, "steps": PREPROCESSING},
        "weights": {"file": "weights.data", "sha256": weights_hash},
        "graphs": graphs,
        "methods": methods,
        "layers": [],
        "renamed": {},
        "verification": {"forward": {"error": 1e-7, "inputs": 3}},
    }
