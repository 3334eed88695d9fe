"""What is asked of a single file, checked against the bundle that it is made from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from onnxplain.bundle import Bundle, Method
from onnxplain.errors import ParameterError, unknown
from onnxplain.parameters import check_parameters
from onnxplain.requests import no_method
from onnxplain_export.single.recipes import REASONS, RECIPES
from onnxplain_export.single.scene import FILLS

FREE_NUMBERS = ("noise", "seed", "epsilon", "gamma", "alpha")
"""Parameters, beside pictures, that a graph takes as they are; others size or fill the table of steps."""


@dataclass(frozen=True)
class Asked:
    """A method with all its parameters, those of them that stay inputs, and the form of the file."""

    method: Method
    parameters: Mapping[str, Any]
    free: tuple[str, ...]
    rows: int
    unrolled: bool
    picture_input: bool
    picture_output: bool


def asked(
    bundle: Bundle,
    method: str,
    parameters: Mapping[str, Any],
    free: Sequence[str],
    *,
    rows: int,
    unrolled: bool,
    picture_input: bool,
    picture_output: bool,
) -> Asked:
    """The request; ParameterError where one file can't do it, with the reason."""
    if bundle.free:
        raise ParameterError("a single file explains classes; this bundle takes a cotangent")
    if method not in bundle.methods:
        raise ParameterError(no_method(bundle, method))
    entry = bundle.methods[method]
    if entry.loop not in RECIPES:
        raise ParameterError(f"{method} has no form in one graph: {REASONS.get(entry.loop, 'the engine runs it')}")
    checked = check_parameters(entry, parameters)
    _check_baselines(entry, checked, free)
    for name in free:
        _check_free(entry, name)
    if isinstance(rows, bool) or not isinstance(rows, int) or rows < 1:
        raise ParameterError(f"rows={rows!r} must be a whole number of at least 1")
    if any(not isinstance(axis, int) for axis in bundle.image.shape[1:]):
        raise ParameterError(f"a single file needs a fixed size; the input {bundle.image.name!r} has free axes")
    if (picture_input or picture_output) and not (bundle.steps and bundle.image.layout):
        raise ParameterError("pictures in or out need a bundle with preprocessing; export the model with one")
    if picture_output and checked.get("upsample", "bilinear") != "bilinear":
        raise ParameterError("a picture can be drawn of a map at the picture's size alone: upsample must be bilinear")
    return Asked(entry, checked, tuple(free), rows, unrolled, picture_input, picture_output)


def _check_baselines(method: Method, parameters: Mapping[str, Any], free: Sequence[str]) -> None:
    if parameters.get("baseline") == "random" and "baseline" not in free:
        raise ParameterError(
            f"{method.name} draws its baselines from the images unless one is named: give baseline=0 or another "
            "number, black, white, mean or an array"
        )


def _check_free(method: Method, name: str) -> None:
    allowed = [entry for entry in method.parameters if entry in (*FREE_NUMBERS, *FILLS)]
    if not allowed:
        raise ParameterError(f"{method.name} has no parameter that can stay an input, not {name!r}")
    if name not in method.parameters:
        raise ParameterError(unknown(f"parameter of {method.name}", name, allowed))
    if name not in allowed:
        can = ", ".join(allowed)
        raise ParameterError(f"{name} is part of what the file is made of and can't stay an input; free can be: {can}")
