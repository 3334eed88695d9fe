"""Checks a derivative rule on a model of one node against finite differences, torch and onnxruntime.

The oracle is ONNX's reference evaluator in float64: for a random cotangent u and a random direction v, ⟨v, Jᵀu⟩ must
equal the central difference of ⟨u, f(x + hv)⟩, extrapolated to h = 0 from three steps (Richardson).
"""

import contextlib
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx_ir.passes.common import RemoveUnusedNodesPass

from onnxplain.errors import NoGradientError
from onnxplain_export.autodiff import differentiate
from onnxplain_export.emitter import IR_VERSION, OPSET
from onnxplain_export.vjp import STANDARD, RuleTable
from reference_kernels import KERNELS as SPATIAL_KERNELS
from reference_kernels_axes import KERNELS as AXES_KERNELS
from reference_kernels_pointwise import KERNELS as POINTWISE_KERNELS
from reference_kernels_recurrent import KERNELS as RECURRENT_KERNELS
from reference_kernels_sampling import KERNELS as SAMPLING_KERNELS

KERNELS = [*AXES_KERNELS, *POINTWISE_KERNELS, *RECURRENT_KERNELS, *SAMPLING_KERNELS, *SPATIAL_KERNELS]
"""What stands in for kernels that the reference evaluator lacks or gets wrong."""

STATIC, FREE, UNKNOWN = "static", "free", "unknown"
DIRECTIONS, STEP, TOLERANCE_FLOAT32 = 2, 5e-5, 2e-5


@dataclass(frozen=True, eq=False)
class Case:
    """One use of an operator.

    `inputs` are arrays, shapes (filled with distinct values between `low` and `high`, none near 0) or None where an
    optional input is left out. Arrays are initializers unless their index is in `wrt` or in `fed`. `batched` are the
    inputs whose first axis is the free batch axis: by default those of the rank and first axis of the widest of `wrt`.
    Of a node with many `outputs`, those in `used` count. `torch` computes the same in torch. `tolerance` is relative,
    and wider where attributes, which are float32, take part. The inputs in `typed` keep their type (Resize's float32
    scales). Those in `captured` are read by the node's branches or body, under the name `input_` with their index.
    """

    op_type: str
    inputs: Sequence[Any]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    wrt: Sequence[int] = (0,)
    note: str = ""
    torch: Callable[..., Any] | None = None
    fed: Sequence[int] = ()
    batched: Sequence[int] | None = None
    outputs: int = 1
    used: Sequence[int] = (0,)
    low: float = -2.0
    high: float = 2.0
    tolerance: float = 1e-8
    typed: Sequence[int] = ()
    captured: Sequence[int] = ()

    def __str__(self) -> str:
        sizes = ["-" if x is None else "x".join(map(str, x.shape)) for x in self.arrays()]
        return " ".join(part for part in (self.op_type, ",".join(sizes), self.note) if part)

    def arrays(self) -> list[np.ndarray | None]:
        """The inputs, the same at every call."""
        return [None if x is None else self._filled(i) for i, x in enumerate(self.inputs)]

    def _filled(self, index: int) -> np.ndarray:
        given = self.inputs[index]
        if not isinstance(given, tuple):
            return np.asarray(given)
        rng = np.random.default_rng([zlib.crc32(f"{self.op_type} {self.note}".encode()), index])
        size = int(np.prod(given))
        places = (rng.permutation(size) + rng.uniform(0.3, 0.7)) / max(size, 1)
        return (self.low + (self.high - self.low) * places).reshape(given)


def check_rule(case: Case, rules: RuleTable = STANDARD, *, flat: bool = False) -> None:
    """Raises AssertionError where the operator's rule disagrees with an oracle.

    An input that moves nothing is an error too, of the case, unless it may be `flat`.
    """
    with np.errstate(all="ignore"):
        _check(case, rules, flat)


def gradients(
    case: Case, rules: RuleTable = STANDARD, form: str = STATIC, cotangent: np.ndarray | None = None
) -> list[np.ndarray]:
    """The gradients that the rule gives in float64, for the case's cotangent unless another is given."""
    model = gradient_model(case, rules, form)
    u = case_cotangent(case) if cotangent is None else cotangent
    with np.errstate(all="ignore"):
        return _evaluate(model, {**feeds_of(case), "cotangent": u})


def gradients_float32(
    case: Case, rules: RuleTable = STANDARD, form: str = FREE, cotangent: np.ndarray | None = None
) -> list[np.ndarray]:
    """The same as onnxruntime computes them in float32."""
    u = case_cotangent(case) if cotangent is None else cotangent
    return run_float32(gradient_model(case, rules, form, np.float32), {**feeds_of(case), "cotangent": u})


def run_float32(model: onnx.ModelProto, feeds: Mapping[str, np.ndarray], threads: int = 1) -> list[np.ndarray]:
    """What onnxruntime computes; a feed of a floating type is given in that which the model declares."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    types = {
        value.name: helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type) for value in model.graph.input
    }
    return session.run(None, {name: np.asarray(x).astype(types[name]) for name, x in feeds.items()})


def feeds_of(case: Case) -> dict[str, np.ndarray]:
    """What the model reads besides its initializers."""
    return {f"input_{i}": x for i, x in enumerate(case.arrays()) if x is not None and (i in case.wrt or i in case.fed)}


def torch_gradients(case: Case, u: np.ndarray) -> list[np.ndarray]:
    """The gradients as torch computes them where the case says how, in float64."""
    import torch  # seconds to load: only where a case asks for it

    tensors = [None if x is None else torch.tensor(x) for x in case.arrays()]
    leaves = [tensors[i].requires_grad_() for i in case.wrt]
    y = case.torch(*tensors)
    return [x.numpy() for x in torch.autograd.grad(y, leaves, torch.tensor(u))]


def free_inputs(case: Case) -> list[int]:
    """The inputs whose first axis is the free batch axis."""
    shapes = [np.shape(x) for x in case.arrays()]
    given = [i for i in (*case.wrt, *case.fed) if shapes[i]]
    if case.batched is not None:
        return [i for i in given if i in case.batched]
    widest = max((shapes[i] for i in case.wrt), key=len)
    return [i for i in given if len(shapes[i]) == len(widest) and shapes[i][:1] == widest[:1]]


def case_cotangent(case: Case) -> np.ndarray:
    """A random cotangent of the case's output."""
    with np.errstate(all="ignore"):
        (y,) = _evaluate(forward_model(case), feeds_of(case))
    return np.random.default_rng(len(case.note) + 7).standard_normal(y.shape)


def forward_model(case: Case, form: str = STATIC, dtype: type = np.float64) -> onnx.ModelProto:
    """The one node, and for many outputs their entries joined in one vector."""
    arrays = [x if x is None or i in case.typed else _as(x, dtype) for i, x in enumerate(case.arrays())]
    names = ["" if x is None else f"input_{i}" for i, x in enumerate(arrays)]
    inputs, initializers = [], []
    for i, (name, x) in enumerate(zip(names, arrays, strict=True)):
        if x is None:
            continue
        if i in case.wrt or i in case.fed:
            inputs.append(helper.make_tensor_value_info(name, _elem_type(x.dtype), _shape(case, i, form)))
        else:
            initializers.append(numpy_helper.from_array(x, name))
    outputs = [f"output_{i}" for i in range(case.outputs)]
    listed = [name for i, name in enumerate(names) if i not in case.captured]
    nodes = [helper.make_node(case.op_type, listed, outputs, name="the_node", **case.attributes)]
    result = outputs[case.used[0]]
    if len(case.used) > 1 or case.outputs > 1:
        initializers.append(numpy_helper.from_array(np.array([-1]), "one_axis"))
        nodes += [helper.make_node("Reshape", [outputs[i], "one_axis"], [f"flat_{i}"]) for i in case.used]
        nodes.append(helper.make_node("Concat", [f"flat_{i}" for i in case.used], ["joined"], axis=0))
        result = "joined"
    cast_to = case.attributes["to"] if case.op_type == "Cast" else _elem_type(np.dtype(dtype))
    result_info = helper.make_tensor_value_info(result, cast_to, None)
    graph = helper.make_graph(nodes, "case", inputs, [result_info], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    return onnx.shape_inference.infer_shapes(model, strict_mode=_takes(case.op_type, dtype), data_prop=True)


def gradient_model(
    case: Case, rules: RuleTable = STANDARD, form: str = STATIC, dtype: type = np.float64
) -> onnx.ModelProto:
    """Inputs of the case and `cotangent` → the gradients at `wrt`; everything else removed."""
    model = ir.from_proto(forward_model(case, form, dtype))
    graph = model.graph
    of, values = graph.outputs[0], {value.name: value for value in graph.inputs}
    wrt = [values[f"input_{i}"] for i in case.wrt]
    cotangent = ir.val("cotangent", dtype=of.dtype, shape=of.shape)
    graph.inputs.append(cotangent)
    results = differentiate(graph, of, wrt, cotangent, rules)
    graph.outputs.clear()
    for i, (x, result) in enumerate(zip(wrt, results, strict=True)):
        node = ir.node("Identity", [result])
        node.outputs[0].name, node.outputs[0].dtype, node.outputs[0].shape = f"gradient_{i}", x.dtype, x.shape
        graph.append(node)
        graph.outputs.append(node.outputs[0])
    RemoveUnusedNodesPass()(model)
    proto = ir.to_proto(model)
    if all(value.shape is not None for value in graph.inputs):  # the checker wants them
        try:
            onnx.checker.check_model(proto, full_check=_takes(case.op_type, dtype))
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
            raise AssertionError(f"{case}: the gradient's graph is invalid: {error}") from error
    return proto


def _check(case: Case, rules: RuleTable, flat: bool) -> None:
    u = case_cotangent(case)
    found = {STATIC: gradients(case, rules, STATIC, u), FREE: gradients(case, rules, FREE, u)}
    with contextlib.suppress(NoGradientError):  # a rule may need to know shapes, and then says so
        found[UNKNOWN] = gradients(case, rules, UNKNOWN, u)
    _compare_with_differences(case, u, found[STATIC], flat)
    for form, others in found.items():
        for index, one, other in zip(case.wrt, found[STATIC], others, strict=True):
            _close(one, other, 1e-12, f"{case}: input {index}, shapes {form}")
    if case.torch is not None:
        for index, one, other in zip(case.wrt, found[STATIC], torch_gradients(case, u), strict=True):
            _close(one, other, case.tolerance, f"{case}: input {index} against torch")
    for index, one, other in zip(case.wrt, found[STATIC], gradients_float32(case, rules, FREE, u), strict=True):
        _close(one, other, TOLERANCE_FLOAT32, f"{case}: input {index} in onnxruntime")


def _compare_with_differences(case: Case, u: np.ndarray, found: Sequence[np.ndarray], flat: bool) -> None:
    evaluator = ReferenceEvaluator(forward_model(case), new_ops=KERNELS)
    feeds, rng = feeds_of(case), np.random.default_rng(11)
    # Of the two sums that are subtracted; it shows where a slope is small because its terms cancel.
    rounding = float(np.finfo(float).eps * np.sum(np.abs(u * evaluator.run(None, feeds)[0]))) / STEP

    def along(name: str, v: np.ndarray, h: float) -> float:
        ahead, behind = ({**feeds, name: feeds[name] + sign * h * v} for sign in (1, -1))
        difference = evaluator.run(None, ahead)[0] - evaluator.run(None, behind)[0]
        return float(np.sum(u * difference)) / (2 * h)

    for index, gradient in zip(case.wrt, found, strict=True):
        name = f"input_{index}"
        assert gradient.shape == feeds[name].shape, f"{case}: input {index}: shape {gradient.shape}"
        for _ in range(DIRECTIONS):
            v = rng.standard_normal(gradient.shape)
            claimed = float(np.sum(v * gradient))
            one, two, four = (along(name, v, multiple * STEP) for multiple in (1, 2, 4))
            true = (64 * one - 20 * two + four) / 45
            scale = max(abs(true), abs(claimed), 0.01 * float(np.linalg.norm(gradient) * np.linalg.norm(v)))
            assert flat or true != 0, f"{case}: input {index}: the case tests nothing, the output doesn't change"
            message = f"{case}: input {index}: the rule says {claimed}, finite differences {true}"
            assert abs(true - claimed) <= case.tolerance * scale + rounding, message


def _evaluate(model: onnx.ModelProto, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    return ReferenceEvaluator(model, new_ops=KERNELS).run(None, dict(feeds))


def _shape(case: Case, index: int, form: str) -> list[int | str] | None:
    if form == UNKNOWN:
        return None
    shape = list(np.shape(case.arrays()[index]))
    return ["N", *shape[1:]] if form == FREE and index in free_inputs(case) else shape


def _takes(op_type: str, dtype: type) -> bool:
    """Whether the operator is defined for the type: a few, such as Celu, know float32 only."""
    name = "tensor(double)" if dtype is np.float64 else "tensor(float)"
    if op_type == "MeanVarianceNormalization":  # onnx 1.23 can't infer through its body where the axes are left out
        return False
    schema = onnx.defs.get_schema(op_type, OPSET)
    return not schema.type_constraints or name in schema.type_constraints[0].allowed_type_strs


def _as(x: np.ndarray, dtype: type) -> np.ndarray:
    return x.astype(dtype) if x.dtype in (np.float32, np.float64) else x


def _elem_type(dtype: np.dtype) -> int:
    return int(TensorProto.DOUBLE) if dtype == np.float64 else helper.np_dtype_to_tensor_dtype(dtype)


def _close(one: np.ndarray, other: np.ndarray, tolerance: float, message: str) -> None:
    assert one.shape == other.shape, f"{message}: shape {other.shape} in place of {one.shape}"
    distance, size = np.linalg.norm(one - other), max(np.linalg.norm(one), np.linalg.norm(other))
    assert distance <= tolerance * size, f"{message}: {other.ravel()[:6]} in place of {one.ravel()[:6]}"
