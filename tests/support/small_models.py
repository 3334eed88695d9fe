"""Small ONNX classifiers written by hand, and what onnxruntime says of them: the sources of the export tests."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from onnxplain.sessions import WHOLE_PRODUCTS

Array = NDArray[Any]
node = helper.make_node

IMAGE = ("x", TensorProto.FLOAT, ["N", 3, 16, 16])
SCORES = ("y", TensorProto.FLOAT, ["N", 5])
CLASSES = 5


def random_weight(*shape: int, seed: int = 0) -> Array:
    """He-scaled weights; the first axis is the output's."""
    fan_in = max(int(np.prod(shape[1:])), 1)
    return (np.random.default_rng([seed, *shape]).standard_normal(shape) * np.sqrt(2 / fan_in)).astype(np.float32)


WEIGHTS: Mapping[str, Array] = {
    "w": random_weight(8, 3, 3, 3),
    "b": random_weight(8),
    "fw": random_weight(8, CLASSES),
    "fb": random_weight(CLASSES),
}


def conv(source: str = "x", result: str = "c", **attributes: Any) -> NodeProto:
    """A convolution with the shared weights, from 3 to 8 channels, that keeps the size unless told otherwise."""
    return node("Conv", [source, "w", "b"], [result], name="conv", **(attributes or {"pads": [1, 1, 1, 1]}))


def head(source: str, result: str = "y") -> list[NodeProto]:
    """From feature maps [N, 8, H, W] to five scores."""
    return [
        node("Relu", [source], ["relu"]),
        node("GlobalAveragePool", ["relu"], ["pooled"]),
        node("Flatten", ["pooled"], ["features"]),
        node("Gemm", ["features", "fw", "fb"], [result], name="head"),
    ]


def tokens() -> list[NodeProto]:
    """The picture as 256 tokens of width 8."""
    return [
        conv(),
        node("Reshape", ["c", "flat"], ["channels"]),
        node("Transpose", ["channels"], ["t"], perm=[0, 2, 1]),
    ]


def pooled_tokens(source: str) -> list[NodeProto]:
    return [
        node("ReduceMean", [source, "one"], ["mean"], keepdims=0),
        node("Gemm", ["mean", "fw", "fb"], ["y"]),
    ]


TOKENS = {"flat": np.array([0, 8, 256]), "one": np.array([1])}


def model(
    nodes: Sequence[NodeProto],
    weights: Mapping[str, Any] | None = None,
    *,
    inputs: Sequence[tuple[str, int, Any]] = (IMAGE,),
    outputs: Sequence[tuple[str, int, Any]] = (SCORES,),
    opset: int = 20,
    ir_version: int = 10,
    domains: Mapping[str, int] | None = None,
    functions: Sequence[onnx.FunctionProto] = (),
) -> onnx.ModelProto:
    """A model of these nodes; of the shared weights, those that it uses are added."""
    used = {name for one in nodes for name in one.input}
    tensors = {**{name: WEIGHTS[name] for name in WEIGHTS if name in used}, **(weights or {})}
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info(*entry) for entry in inputs],
        [helper.make_tensor_value_info(*entry) for entry in outputs],
        [numpy_helper.from_array(np.asarray(content), name) for name, content in tensors.items()],
    )
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(*entry) for entry in (domains or {}).items())]
    return helper.make_model(graph, opset_imports=imports, ir_version=ir_version, functions=functions)


def classifier(**options: Any) -> onnx.ModelProto:
    """The plainest of them: convolution, ReLU, pooling, five scores."""
    return model([conv(), *head("c")], **options)


def session(given: onnx.ModelProto | Path) -> onnxruntime.InferenceSession:
    """An onnxruntime session that says nothing."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry(*WHOLE_PRODUCTS)
    content = str(given) if isinstance(given, Path) else given.SerializeToString()
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def run(given: onnx.ModelProto | Path, feeds: Mapping[str, Array], output: str | None = None) -> Array:
    """One output of a model by onnxruntime: the named one, even if it is none of the model's outputs, or the first."""
    if output is not None and isinstance(given, onnx.ModelProto) and output not in {v.name for v in given.graph.output}:
        copy = onnx.ModelProto()
        copy.CopyFrom(given)
        copy.graph.output.append(onnx.ValueInfoProto(name=output))
        given = copy
    return np.asarray(session(given).run(None if output is None else [output], dict(feeds))[0])


def images(*shape: int, count: int = 3, seed: int = 0) -> Array:
    """Standard normal images [count, *shape]."""
    return np.random.default_rng(seed).standard_normal((count, *shape)).astype(np.float32)
