"""Writes in another form what runtimes are known to compute wrongly; tools/portability_faults.py shows each fault.

OpenVINO 2026.4 keeps the weights that it has rearranged by the address of their numbers. A square weight that is read
as it is and transposed (by Transpose, by Gemm's attributes, by ConvTranspose) is rearranged once, and one of the two
products is wrong; so is it where two initializers share bytes of a file. Two negations give the second a place of its
own: they change no bit, and what folds constants when it loads a graph does them then.

OpenCV 5.0 takes Mul(x, HardSigmoid(z)) with HardSwish's 1/6 and 1/2 for HardSwish(z), whatever x is. It looks for
exactly that 1/6; the next float differs by less than the product's rounding.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxplain_export.emitter import Emitter, attribute, dims, subgraphs

SIXTH = float(np.float32(1 / 6))
BESIDE_SIXTH = float(np.nextafter(np.float32(1 / 6), np.float32(1)))
VIEWS = frozenset({"Reshape", "Squeeze", "Unsqueeze"})
PRODUCTS = frozenset({"Conv", "ConvTranspose", "Einsum", "Gemm", "MatMul"})

Place = tuple[ir.Node, int]
"""An input of a node."""


def make_portable(model: ir.Model) -> None:
    """Changes the forms in a finished graph; shapes are known."""
    _keep_weights_apart(model.graph)
    for node in model.graph:
        if node.op_type == "HardSigmoid" and _is_taken_for_hard_swish(node):
            node.attributes["alpha"] = ir.AttrFloat32("alpha", BESIDE_SIXTH)


def _keep_weights_apart(graph: ir.Graph) -> None:
    """Gives the transposed uses of a weight that is also used as it is numbers of their own."""
    fixed = _fixed(graph)
    plain, turned = set[int](), dict[int, list[Place]]()
    for node in graph:
        if node.op_type not in PRODUCTS:
            continue
        for index, value in enumerate(node.inputs[:2]):
            if value not in fixed:
                continue
            place, is_turned = _origin(node, index, fixed)
            key = fixed[place[0].inputs[place[1]]]
            if not is_turned:
                plain.add(key)
            elif _is_square(place[0].inputs[place[1]]) or node.op_type == "ConvTranspose":
                turned.setdefault(key, []).append(place)
    op, own = Emitter(graph, "portable"), dict[int, ir.Value]()
    for key, places in turned.items():
        for node, index in places if key in plain else ():
            weight = node.inputs[index]
            if weight is not None and key not in own:
                own[key] = op.Neg(op.Neg(weight))
                own[key].shape, own[key].type = weight.shape, weight.type
            node.replace_input_with(index, own[key])


def _fixed(graph: ir.Graph) -> dict[ir.Value | None, int]:
    """What depends on no input, with a number that is the same for what is computed alike."""
    fixed: dict[ir.Value | None, int] = {}
    numbers: dict[Any, int] = {}
    for value in graph.initializers.values():
        fixed[value] = numbers.setdefault(value, len(numbers))
    for node in graph:
        given = [value for value in node.inputs if value is not None]
        if given and all(value in fixed for value in given) and not subgraphs(node) and len(node.outputs) == 1:
            how = tuple(sorted((name, str(attribute(node, name))) for name in node.attributes))
            key = node.op_type, how, tuple(fixed.get(value) for value in node.inputs)
            fixed[node.outputs[0]] = numbers.setdefault(key, len(numbers))
    return fixed


def _origin(node: ir.Node, index: int, fixed: dict[ir.Value | None, int]) -> tuple[Place, bool]:
    """Where a fixed operand enters the views and transpositions before a product, and whether these turn it."""
    is_turned = node.op_type == "ConvTranspose"
    if node.op_type == "Gemm":
        is_turned = bool(attribute(node, ("transA", "transB")[index], 0))
    place = node, index
    while (maker := place[0].inputs[place[1]].producer()) is not None and maker.inputs[0] in fixed:  # type: ignore[union-attr]
        if maker.op_type == "Transpose":
            order = attribute(maker, "perm")
            is_turned ^= order is None or order[-1] != len(order) - 1
        elif maker.op_type not in VIEWS:
            break
        place = maker, 0
    return place, is_turned


def _is_square(value: ir.Value | None) -> bool:
    shape = (None if value is None else dims(value)) or ()
    return len(shape) >= 2 and shape[-1] == shape[-2]


def _is_taken_for_hard_swish(node: ir.Node) -> bool:
    """Whether a HardSigmoid with HardSwish's numbers weighs something else than its own input."""
    alpha, beta = attribute(node, "alpha", 0.2), attribute(node, "beta", 0.5)
    if not np.isclose(alpha, SIXTH, rtol=1e-6) or beta != 0.5:
        return False
    return any(node.inputs[0] is not other for other in _factors(node.outputs[0]))


def _factors(value: ir.Value) -> Iterator[ir.Value | None]:
    """What `value` is multiplied by."""
    for reader, index in value.uses():
        if reader.op_type == "Mul":
            yield reader.inputs[1 - index]
