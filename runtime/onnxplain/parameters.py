"""Checks a method's parameters against the kinds and ranges that the bundle gives."""

import math
import numbers
from collections.abc import Mapping
from typing import Any

import numpy as np

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
    """The value as int, float, name or array; ParameterError if it is of the wrong kind or out of range."""
    if parameter.kind == "image":
        return _image(parameter, value)
    if not _is_number(value):
        raise ParameterError(f"{parameter.name}={value!r} is no {_KIND_WORDS[parameter.kind]}")
    if parameter.kind == "int" and value != int(value):
        raise ParameterError(f"{parameter.name}={value!r} must be a whole number")
    low, high = parameter.minimum, parameter.maximum
    if (low is not None and value < low) or (high is not None and value > high):
        raise ParameterError(f"{parameter.name}={value!r} is out of range: {range_of(parameter)}")
    return int(value) if parameter.kind == "int" else float(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)


_KIND_WORDS = {"int": "whole number", "float": "number"}


def range_of(parameter: Parameter) -> str:
    """The range as a person would say it, such as "1 to 100" or "at least 0"."""
    low, high = parameter.minimum, parameter.maximum
    if low is not None and high is not None:
        return f"{low} to {high}"
    if low is not None:
        return f"at least {low}"
    return f"at most {high}" if high is not None else "any number"


def _image(parameter: Parameter, value: Any) -> Any:
    if isinstance(value, str):
        if value not in NAMED_FILLS:
            raise ParameterError(unknown(parameter.name, value, NAMED_FILLS) + " (or a number, or an array)")
        return value
    try:
        array = np.asarray(value, np.float32)
    except (TypeError, ValueError):
        raise ParameterError(f"{parameter.name}={value!r} is no number, name or array of numbers") from None
    if not np.isfinite(array).all():
        raise ParameterError(f"{parameter.name} contains NaN or infinity")
    return float(value) if array.ndim == 0 else array


def from_text(parameter: Parameter, text: str) -> Any:
    """The value that a command line's text stands for, checked."""
    try:
        return check(parameter, float(text) if parameter.kind != "int" else int(text))
    except ValueError:
        if parameter.kind == "image":
            return check(parameter, text)
        raise ParameterError(f"{parameter.name}={text!r} is no {_KIND_WORDS[parameter.kind]}") from None
