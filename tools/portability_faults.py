"""Faults of runtimes, each as the smallest model that shows it: `portability_faults.py NAME`, or `--list`.

Prints what is expected and what the runtime finds; 1 is returned where they still differ, 0 where the fault is gone.
Expected are closed forms in numpy. `--write FOLDER` leaves the model and its inputs there, for a report to the
runtime's authors. The runtimes are those of portability.py, installed as there.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

import portability
from portability_cases import described, difference, read_outputs

Array = NDArray[Any]
TABLE = Path(__file__).with_suffix(".md")
TOLERANCE = 1e-5


@dataclass(frozen=True)
class Shown:
    """A model with inputs and the outputs that it should give; `beside` are further files that it needs."""

    model: onnx.ModelProto
    feeds: dict[str, Array]
    expected: dict[str, Array]
    beside: dict[str, bytes]


@dataclass(frozen=True)
class Fault:
    """What is wrong in which version of a runtime, and what the exported graphs do about it."""

    name: str
    runtime: str
    version: str
    operator: str
    wrong: str
    avoided: str
    shown: Callable[[], Shown]


FAULTS: dict[str, Fault] = {}


def fault(runtime: str, version: str, operator: str, wrong: str, avoided: str) -> Callable[[Callable[[], Shown]], Any]:
    """Registers the function that makes the model, by its own name."""

    def register(function: Callable[[], Shown]) -> Callable[[], Shown]:
        FAULTS[function.__name__] = Fault(function.__name__, runtime, version, operator, wrong, avoided, function)
        return function

    return register


def shown(
    nodes: list[onnx.NodeProto],
    feeds: dict[str, Array],
    expected: dict[str, Array],
    weights: dict[str, Array] | None = None,
    beside: dict[str, bytes] | None = None,
) -> Shown:
    """The model of these nodes, its batch axis free."""

    def entry(name: str, values: Array) -> onnx.ValueInfoProto:
        kind = helper.np_dtype_to_tensor_dtype(values.dtype)
        return helper.make_tensor_value_info(name, kind, ["N", *values.shape[1:]])

    inputs, outputs = ([entry(*one) for one in part.items()] for part in (feeds, expected))
    initializers = [numpy_helper.from_array(values, name) for name, values in (weights or {}).items()]
    graph = helper.make_graph(nodes, "fault", inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return Shown(model, feeds, expected, beside or {})


def numbers(*shape: int) -> Array:
    """Normal numbers of a fixed seed."""
    return np.random.default_rng(len(shape)).standard_normal(shape).astype(np.float32)


def pointwise(x: Array, weight: Array) -> Array:
    """A 1 × 1 convolution of x [N, C, H, W]."""
    return np.einsum("nchw,oc->nohw", x, weight[:, :, 0, 0])


node = helper.make_node
OPENVINO, OPENCV, EVALUATOR = ("OpenVINO", "2026.4.1"), ("OpenCV", "5.0.0"), ("reference evaluator", "1.23.2")
APART = "yes: the second use reads the weight through two negations, which are folded at load (`graphs/portable.py`)"


@fault(*OPENVINO, "MatMul, Gemm", "a square weight that is read as it is and transposed: one product is wrong", APART)
def openvino_square_weight() -> Shown:
    """x W and x Wᵀ."""
    x, w = numbers(2, 16), numbers(16, 16)
    nodes = [node("MatMul", ["x", "w"], ["a"]), node("Transpose", ["w"], ["t"], perm=[1, 0])]
    nodes.append(node("MatMul", ["x", "t"], ["b"]))
    return shown(nodes, {"x": x}, {"a": x @ w, "b": x @ w.T}, {"w": w})


@fault(
    *OPENVINO,
    "MatMul, Gemm",
    "the same with two initializers that lie at the same bytes of an external file: weights are told apart by address",
    APART,
)
def openvino_same_bytes() -> Shown:
    """The same, W twice."""
    one = openvino_square_weight()
    w = numbers(16, 16)
    one.model.graph.node[1].input[0] = "again"
    again = one.model.graph.initializer.add()
    again.CopyFrom(numpy_helper.from_array(w, "again"))
    for tensor in one.model.graph.initializer:
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", "weights.data"), ("offset", "0"), ("length", str(w.nbytes))):
            tensor.external_data.add(key=key, value=value)
    return Shown(one.model, one.feeds, one.expected, {"weights.data": w.tobytes()})


@fault(*OPENVINO, "Conv, ConvTranspose", "a weight that both share, as many channels out as in: one is wrong", APART)
def openvino_shared_kernel() -> Shown:
    """A convolution by 1 × 1 and its adjoint."""
    x, w = numbers(2, 8, 5, 5), numbers(8, 8, 1, 1)
    nodes = [node("Conv", ["x", "w"], ["a"]), node("ConvTranspose", ["x", "w"], ["b"])]
    turned = w.transpose(1, 0, 2, 3)
    return shown(nodes, {"x": x}, {"a": pointwise(x, w), "b": pointwise(x, turned)}, {"w": w})


@fault(
    *OPENVINO,
    "HardSigmoid",
    "alpha 0 is read as 0.2 and beta 0 as 0.5, the defaults",
    "yes: masks have beta −1e-20; a network's own HardSigmoid with a 0 is as it is",
)
def openvino_hard_sigmoid() -> Shown:
    """clip(x, 0, 1)."""
    x = np.array([[-2, -0.5, 0, 0.25, 2]], np.float32)
    return shown([node("HardSigmoid", ["x"], ["y"], alpha=1.0, beta=0.0)], {"x": x}, {"y": np.clip(x, 0, 1)})


@fault(
    *OPENVINO,
    "Mul of int64",
    "computed in 32 bits",
    "yes: random numbers are made in float32, of whole numbers below 2^22",
)
def openvino_int64() -> Shown:
    """3·10⁹ · 3."""
    i = np.array([[3_000_000_000, 2**33 + 1, 7]])
    return shown([node("Mul", ["i", "three"], ["y"])], {"i": i}, {"y": i * 3}, {"three": np.array([3])})


@fault(
    *OPENCV,
    "HardSigmoid, Mul",
    "x · HardSigmoid(z) with alpha 1/6 and beta 1/2 becomes HardSwish(z), whatever x is: squeeze-excite is wrong",
    "yes: alpha is the next float after 1/6 there (`graphs/portable.py`)",
)
def opencv_hard_swish() -> Shown:
    """x · clip(z / 6 + 1/2, 0, 1)."""
    x, z = numbers(2, 4, 3, 3), 2 * numbers(2, 4, 3, 3)[::-1].copy()
    nodes = [node("HardSigmoid", ["z"], ["s"], alpha=1 / 6, beta=0.5), node("Mul", ["x", "s"], ["y"])]
    return shown(nodes, {"x": x, "z": z}, {"y": x * np.clip(z / 6 + 0.5, 0, 1)})


@fault(
    *OPENCV,
    "Softplus, Tanh, Mul",
    "x · tanh(softplus(z)) becomes Mish(z), whatever x is",
    "yes: Mish's derivative has −tanh(−softplus(z))",
)
def opencv_mish() -> Shown:
    """x · tanh(ln(1 + exp(z)))."""
    x, z = numbers(2, 4, 3, 3), 2 * numbers(2, 4, 3, 3)[::-1].copy()
    nodes = [node("Softplus", ["z"], ["p"]), node("Tanh", ["p"], ["t"]), node("Mul", ["x", "t"], ["y"])]
    return shown(nodes, {"x": x, "z": z}, {"y": x * np.tanh(np.log1p(np.exp(z)))})


@fault(
    *OPENCV,
    "Conv, Add",
    "a sum of two convolutions that broadcasts is refused when it runs",
    "no: graphs for several classes at once (`*.targets`); those for one class run, with several as well",
)
def opencv_sum_of_convolutions() -> Shown:
    """w x + w z, z a line."""
    x, z, w = numbers(2, 8, 4, 4), numbers(2, 8, 1, 4), numbers(8, 8, 1, 1)
    nodes = [node("Conv", ["x", "w"], ["a"]), node("Conv", ["z", "w"], ["b"]), node("Add", ["a", "b"], ["y"])]
    return shown(nodes, {"x": x, "z": z}, {"y": pointwise(x, w) + pointwise(z, w)}, {"w": w})


@fault(
    *OPENCV,
    "Div, Conv",
    "0 / 0 in the channels that fill up a block of 8 reaches the next convolution",
    "no: LRP-ε of layers whose channels aren't a multiple of 8",
)
def opencv_filled_block() -> Shown:
    """w (a / b) with four channels."""
    x, w = 2 + np.abs(numbers(2, 4, 5, 5)), np.abs(numbers(4, 4, 1, 1))
    nodes = [node("Conv", ["x", "w"], ["a"]), node("Conv", ["x", "v"], ["b"])]
    nodes += [node("Div", ["a", "b"], ["q"]), node("Conv", ["q", "w"], ["y"])]
    quotient = pointwise(x, w) / pointwise(x, w + 1)
    return shown(nodes, {"x": x}, {"y": pointwise(quotient, w)}, {"w": w, "v": w + 1})


@fault(
    *EVALUATOR,
    "ConvTranspose",
    "groups with several channels out are refused",
    "no: gradients of grouped convolutions with strides (ResNeXt, RegNet)",
)
def evaluator_grouped() -> Shown:
    """Two groups of a transposed convolution by 1 × 1."""
    x, w = numbers(2, 8, 4, 4), numbers(8, 4, 1, 1)
    parts = [pointwise(x[:, part], w[part].transpose(1, 0, 2, 3)) for part in (slice(0, 4), slice(4, 8))]
    expected = np.concatenate(parts, axis=1)
    return shown([node("ConvTranspose", ["x", "w"], ["y"], group=2)], {"x": x}, {"y": expected}, {"w": w})


@fault(
    "onnxruntime",
    "1.31.1",
    "ScatterND(add)",
    "additions to the same place are lost where several threads add",
    "yes: derivatives add by ScatterElements, which doesn't lose any",
)
def onnxruntime_scatter() -> Shown:
    """Counts of three million whole numbers below 64; wrong with two threads or more."""
    places = np.random.default_rng(0).integers(0, 64, (3_000_000, 1))
    ones, nothing = np.ones((3_000_000, 1), np.float32), np.zeros((64, 1), np.float32)
    expected = np.bincount(places[:, 0], minlength=64)[:, None].astype(np.float32)
    nodes = [node("ScatterND", ["d", "i", "u"], ["y"], reduction="add")]
    return shown(nodes, {"d": nothing, "i": places, "u": ones}, {"y": expected})


def table() -> str:
    """All faults as a table in Markdown."""
    lines = ["| runtime | operators | what is wrong | avoided in our graphs | shown by |", "|---|---|---|---|---|"]
    for one in FAULTS.values():
        row = [f"{one.runtime} {one.version}", one.operator, one.wrong, one.avoided, f"`{one.name}`"]
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def found(one: Fault, folder: Path, work: Path) -> dict[str, Array] | str:
    """What the runtime gives, or what it says."""
    (case,) = cases = [_written(one, folder)]
    (folder / "cases.json").write_text(json.dumps(cases), "utf-8")
    results = folder / "results"
    portability.run(folder / "cases.json", cases, results, portability.RUNNERS[one.runtime](work))
    try:
        return read_outputs(results / case["id"])
    except KeyError:
        return str(json.loads((results / case["id"] / "result.json").read_text("utf-8"))["error"])


def _written(one: Fault, folder: Path) -> dict[str, Any]:
    made = one.shown()
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{one.name}.onnx"
    file.write_bytes(made.model.SerializeToString())
    for name, data in made.beside.items():
        (folder / name).write_bytes(data)
    return described(one.name, file, file, made.feeds, list(made.expected), folder)


def shows(one: Fault, folder: Path, work: Path) -> bool:
    """Whether the runtime still has the fault; prints both sides."""
    given, expected = found(one, folder, work), one.shown().expected
    print(f"{one.name}: {one.runtime}, {one.operator}: {one.wrong}")
    if isinstance(given, str):
        print(f"  expected: an answer\n  found: {given[:300]}")
        return True
    for name, values in expected.items():
        answer = given[name]
        worst = np.argsort(-np.abs(values - answer).ravel())[:6] if answer.shape == values.shape else slice(6)
        print(f"  {name} expected {list(values.shape)}, the worst {values.ravel()[worst]}")
        print(f"  {name} found    {list(answer.shape)}, there     {answer.ravel()[worst]}")
    error = difference(given, expected)
    print(f"  relative difference {error:.1e}")
    return not error <= TOLERANCE


def main() -> int:
    """Runs the faults that are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(FAULTS)}")
    parser.add_argument("--list", action="store_true", help=f"write them all to {TABLE.name}")
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="leave models and inputs there")
    parser.add_argument("--work", type=Path, default=portability.WORK, help="where runtimes are installed")
    arguments = parser.parse_args()
    for name in arguments.names:
        if name not in FAULTS:
            parser.error(f"unknown fault {name!r}; known: {', '.join(FAULTS)}")
    if not arguments.names and not arguments.list:
        parser.error(f"name one of {', '.join(FAULTS)}")
    if arguments.list:
        TABLE.write_text(f"# Faults of runtimes\n\n{INTRODUCTION}\n\n{table()}\n", "utf-8")
    still = []
    with tempfile.TemporaryDirectory() as scratch:
        for name in arguments.names:
            still.append(shows(FAULTS[name], (arguments.write or Path(scratch)) / name, arguments.work))
    return int(any(still))


INTRODUCTION = """Found by running every exported graph on every runtime (`tools/portability.py`) and cutting what was
wrong down to the fewest nodes. `python tools/portability_faults.py NAME` runs one and prints what is expected and what
is found; `--write FOLDER` leaves its model and inputs there. Written by `tools/portability_faults.py --list`."""

if __name__ == "__main__":
    sys.exit(main())
