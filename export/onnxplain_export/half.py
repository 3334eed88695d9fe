"""Weights in half precision: files of half the size, whose arithmetic stays in float32.

The weights are rounded first, after all foldings, so that what is proved, forward pass and gradient alike, is the
network with these weights; what is then stored in two bytes loses nothing.
"""

from collections.abc import Iterable

import numpy as np
import onnx_ir as ir

from onnxplain.errors import ModelError
from onnxplain_export.bundle import SMALLEST
from onnxplain_export.normalize import Normalized
from onnxplain_export.origins import Known, attach, computed, origin_of

FLOAT, HALF = int(ir.DataType.FLOAT), int(ir.DataType.FLOAT16)


def round_weights(normalized: Normalized) -> None:
    """Rounds a network's large weights to float16; ModelError for one that float16 can't hold."""
    source, count = normalized.source, 0
    for value in normalized.model.graph.initializers.values():
        tensor = value.const_value
        if tensor is None or tensor.dtype != ir.DataType.FLOAT or tensor.nbytes < SMALLEST:
            continue
        with np.errstate(over="ignore"):
            rounded = computed("Cast", computed("Cast", Known(tensor.numpy(), origin_of(value)), to=HALF), to=FLOAT)
        if not np.isfinite(rounded.content).all():
            raise ModelError(f"{source.file}: the weight {value.name!r} has values beyond float16's 65504")
        value.const_value = ir.Tensor(rounded.content, name=value.name)
        attach(value, rounded.origin)
        count += 1
    source.changes.append(f"{count} weights rounded to float16")
    source.rounded = True


def store_in_half(models: Iterable[ir.Model]) -> None:
    """Stores in float16 every large weight that loses nothing by it; a Cast, folded at load, gives it back."""
    for model in models:
        graph = model.graph
        for value in list(graph.initializers.values()):
            half = _half(value)
            if half is None or not value.uses():
                continue
            content = ir.Tensor(half.content, name=f"{value.name}/half")
            stored = attach(ir.val(f"{value.name}/half", const_value=content), half.origin)
            cast = ir.node("Cast", [stored], {"to": FLOAT}, name=f"{value.name}/float")
            widened = cast.outputs[0]
            widened.name, widened.shape = f"{value.name}/float", value.shape
            widened.type = ir.TensorType(ir.DataType.FLOAT)
            ir.convenience.replace_all_uses_with(value, widened)
            del graph.initializers[str(value.name)]
            graph.register_initializer(stored)
            graph.insert_before(graph[0], cast)


def _half(value: ir.Value) -> Known | None:
    """The weight in float16, None where that isn't the same."""
    tensor = value.const_value
    if tensor is None or tensor.dtype != ir.DataType.FLOAT or tensor.nbytes < SMALLEST:
        return None
    exact = tensor.numpy()
    with np.errstate(over="ignore"):
        half = computed("Cast", Known(exact, origin_of(value)), to=HALF)
    return half if np.array_equal(half.content.astype(np.float32), exact) else None
