"""One batch as trackers take it: a key for each sample (its label, its index) and the metric's value for it."""

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.errors import ParameterError

Key = int | float | str
BEYOND = 2**63


def whole_number(name: str, value: Any, least: int = -BEYOND) -> int:
    """`value` as an int of at least `least` that 64 bits hold; ParameterError for anything else."""
    try:
        number = operator.index(value)
    except TypeError:
        number = BEYOND
    if not least <= number < BEYOND:
        needed = "" if least == -BEYOND else f" of at least {least}"
        raise ParameterError(f"{name} must be a whole number{needed}, not {value!r}")
    return number


def batch_of(what: str, keys: Any, metric: str, values: Any) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """The keys [N], as int64, float64, bool or text, and the values [N] as float64, NaN among them kept.

    Takes lists, arrays and tensors of any framework, also those on a device or with a gradient. Raises ParameterError
    where they aren't one for each sample, or not the same number; `what` says what a key is ("label").
    """
    many = _plural(what)
    found = _keys(many, _one_each(many, f"one {what} for each sample", keys))
    numbers = _one_each(f"values of {metric!r}", "one number for each sample (in torch: reduction='none')", values)
    if numbers.dtype.kind not in "fiub":
        raise ParameterError(f"values of {metric!r} must be numbers, not {_kind(numbers)}")
    if len(found) != len(numbers):
        raise ParameterError(f"{len(found)} {many}, but {len(numbers)} values of {metric!r}: one of each for a sample")
    return found, numbers.astype(np.float64)


def whole_keys(what: str, keys: NDArray[Any]) -> NDArray[Any]:
    """Keys as int64 or text; floats that are whole become so. Raises ParameterError for others."""
    if keys.dtype.kind == "f":
        if not np.array_equal(keys, np.trunc(keys)) or (np.abs(keys) >= 2**53).any():
            raise ParameterError(f"{_plural(what)} must be whole numbers or text, not fractions")
        return keys.astype(np.int64)
    return keys.astype(np.int64) if keys.dtype.kind == "b" else keys


def _plural(what: str) -> str:
    return {"index": "indices"}.get(what, f"{what}s")


def _one_each(many: str, needed: str, data: Any) -> NDArray[Any]:
    array = _array(many, data)
    if array.ndim == 1:
        return array
    if array.ndim == 0:
        raise ParameterError(f"{many}: {needed} is needed, not a single one for the batch")
    hint = "reshape(-1) makes it so" if array.size == len(array) else "one-hot ones: argmax(1)"
    if many != "labels" and array.size != len(array):
        hint = "reduce the other axes"
    raise ParameterError(f"{many}: {needed} is needed, [N] and not {list(array.shape)}: {hint}")


def _array(many: str, data: Any) -> NDArray[Any]:
    try:
        # A torch tensor, without importing torch; numpy knows neither gradients, devices nor bfloat16.
        if hasattr(data, "detach"):
            data = data.detach().cpu()
            data = data.double() if data.is_floating_point() else data
        array = np.asarray(data)
    except (TypeError, ValueError, RuntimeError) as error:
        first = str(error).partition("\n")[0]
        raise ParameterError(f"{many}: no array of one axis can be made of them ({first})") from None
    # numpy turns numbers beside text into text.
    if array.dtype.kind == "U" and isinstance(data, Sequence) and not all(isinstance(each, str) for each in data):
        raise ParameterError(f"{many} must be all numbers or all text, not some of each")
    return array


def _keys(many: str, keys: NDArray[Any]) -> NDArray[Any]:
    if keys.size == 0 or keys.dtype.kind in "iub":
        if keys.dtype.kind == "u" and (keys >= BEYOND).any():
            raise ParameterError(f"{many} must be below 2^63")
        return keys.astype(bool if keys.dtype.kind == "b" else np.int64)
    if keys.dtype.kind == "f":
        if np.isnan(keys).any():
            raise ParameterError(f"{many} must not be NaN")
        return keys.astype(np.float64)
    if keys.dtype.kind == "U":
        return keys.copy()
    elements = keys.tolist()
    if not all(isinstance(each, str | bytes) for each in elements):
        raise ParameterError(f"{many} must be numbers or text, not {_kind(keys)}")
    # TensorFlow's text is bytes.
    return np.array([each.decode(errors="replace") if isinstance(each, bytes) else each for each in elements])


def _kind(array: NDArray[Any]) -> str:
    if array.dtype.kind == "O" and array.size:
        return type(array.flat[0]).__name__
    return {"U": "text", "S": "bytes", "c": "complex numbers"}.get(array.dtype.kind, str(array.dtype))
