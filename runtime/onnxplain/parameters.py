"""Checks a method's parameters against the kinds and ranges that the bundle gives."""

import math
import numbers
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.array_files import read_array
from onnxplain.bundle import Method, Parameter
from onnxplain.errors import ParameterError, unknown

# What `baseline` and `fill` may be called instead of a number: see fills.py.
NAMED_FILLS = ("black", "white", "mean", "blur")


def check_parameters(method: Method, given: Mapping[str, Any]) -> dict[str, Any]:
    """All parameters of a method, the given ones checked and the others at their defaults, in the bundle's order."""
    for name in given:
        if name not in method.parameters:
            kind = f"parameter of {method.name}"
            known = method.parameters
            raise ParameterError(
                unknown(kind, name, known) if known else f"{method.name} has no parameters, not {name!r}"
            )
    return {name: check(entry, given.get(name, entry.default)) for name, entry in method.parameters.items()}


def check(parameter: Parameter, value: Any) -> Any:
    """The value as the plain thing that the kind stands for; ParameterError if it is of the wrong kind or range."""
    return _CHECKS[parameter.kind](parameter, value)


def _number(parameter: Parameter, value: Any) -> int | float:
    if not _is_number(value):
        raise ParameterError(f"{parameter.name}={value!r} is no {_KIND_WORDS[parameter.kind]}")
    if parameter.kind != "float" and value != int(value):
        raise ParameterError(f"{parameter.name}={value!r} must be a whole number")
    low, high = parameter.minimum, parameter.maximum
    if (low is not None and value < low) or (high is not None and value > high):
        raise ParameterError(f"{parameter.name}={value!r} is out of range: {range_of(parameter)}")
    return float(value) if parameter.kind == "float" else int(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)


_KIND_WORDS = {"int": "whole number", "float": "number", "size": "whole number or pair of them"}


def range_of(parameter: Parameter) -> str:
    """The range as a person would say it, such as "1 to 100" or "at least 0"."""
    if parameter.choices:
        return ", ".join(parameter.choices)
    low, high = parameter.minimum, parameter.maximum
    if low is not None and high is not None:
        return f"{low} to {high}"
    if low is not None:
        return f"at least {low}"
    return f"at most {high}" if high is not None else "any number"


def values_of(parameter: Parameter) -> str:
    """What the parameter may be, as a person would say it."""
    if parameter.kind == "image":
        return f"a number, an array or {', '.join(parameter.choices or NAMED_FILLS)}"
    if parameter.kind == "array":
        return ", ".join(("an array", *parameter.choices))
    if parameter.kind == "layer":
        return "a layer of the bundle"
    return "true, false" if parameter.kind == "bool" else range_of(parameter)


def _size(parameter: Parameter, value: Any) -> int | tuple[int, int]:
    if not isinstance(value, list | tuple | np.ndarray):
        return int(_number(parameter, value))
    if len(value) != 2:
        raise ParameterError(f"{parameter.name}={value!r} must be one whole number, or a pair (rows, columns)")
    rows, columns = (int(_number(parameter, side)) for side in value)
    return rows, columns


def _flag(parameter: Parameter, value: Any) -> bool:
    if not isinstance(value, bool | np.bool_):
        raise ParameterError(f"{parameter.name}={value!r} must be True or False")
    return bool(value)


def _choice(parameter: Parameter, value: Any) -> str:
    if not isinstance(value, str) or value not in parameter.choices:
        known = [", ".join(parameter.choices)] if parameter.choices else []
        known += ["an array (.npy file)"] if parameter.kind == "array" else []
        text = f"; it can be {' or '.join(known)}" if known else ""
        raise ParameterError(f"unknown {parameter.name} {value!r}{text}")
    return value


def _name(parameter: Parameter, value: Any) -> str:
    """A layer's name; whether the bundle has it is seen where it is used. "" is the default layer."""
    if not isinstance(value, str):
        raise ParameterError(f"{parameter.name}={value!r} is no name")
    return value


def _image(parameter: Parameter, value: Any) -> Any:
    """A number, a name, or float32 values that broadcast to the images."""
    if isinstance(value, str):
        names = parameter.choices or NAMED_FILLS
        if value not in names:
            raise ParameterError(unknown(parameter.name, value, names) + " (or a number, or an array)")
        return value
    array = _numbers(parameter, value).astype(np.float32)
    return float(array) if array.ndim == 0 else array


def _array(parameter: Parameter, value: Any) -> Any:
    """None, one of the choices, or an array."""
    if value is None:
        return None
    return _choice(parameter, value) if isinstance(value, str) else _numbers(parameter, value)


def _numbers(parameter: Parameter, value: Any) -> NDArray[Any]:
    try:
        array = np.asarray(value)
        finite = bool(np.isfinite(array).all())
    except (TypeError, ValueError):
        raise ParameterError(f"{parameter.name}={value!r} is no number, name or array of numbers") from None
    if not finite:
        raise ParameterError(f"{parameter.name} contains NaN or infinity")
    return array


_CHECKS: dict[str, Callable[[Parameter, Any], Any]] = {
    "int": _number,
    "float": _number,
    "bool": _flag,
    "size": _size,
    "choice": _choice,
    "image": _image,
    "array": _array,
    "layer": _name,
}


def from_text(parameter: Parameter, text: str) -> Any:
    """The value that a command line's text stands for, checked; arrays come from .npy files."""
    try:
        return check(parameter, _READ.get(parameter.kind, str)(text))
    except ValueError:
        if parameter.kind == "image":
            return check(parameter, _named_or_file(text))
        raise ParameterError(f"{parameter.name}={text!r} is no {_KIND_WORDS[parameter.kind]}") from None


def _flag_of(text: str) -> Any:
    return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}.get(text.casefold(), text)


def _size_of(text: str) -> Any:
    sides = [int(side) for side in text.replace("x", ",").split(",")]
    return sides[0] if len(sides) == 1 else sides


def _named_or_file(text: str) -> Any:
    return read_array(Path(text)) if text.endswith(".npy") else text


_READ: dict[str, Callable[[str], Any]] = {
    "int": int,
    "float": float,
    "bool": _flag_of,
    "size": _size_of,
    "image": float,
    "array": _named_or_file,
}
