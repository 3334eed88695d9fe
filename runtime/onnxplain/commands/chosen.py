"""The methods that a command line names, and those of them that can run here."""

from collections.abc import Mapping, Sequence
from typing import Any

from onnxplain.bundle import Bundle, Method
from onnxplain.errors import ParameterError
from onnxplain.messages import say
from onnxplain.presets import split_method
from onnxplain.regions import lacking, refuse_lacking
from onnxplain.requests import no_method

ALL = "all"


def named_methods(text: str | None, bundle: Bundle) -> list[str]:
    """The methods of "A,B", or all of the bundle; ParameterError for one that it lacks.

    Unless named, the bundle's usual one.
    """
    text = bundle.usual_method if text is None else text
    names = list(bundle.methods) if text == ALL else [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if split_method(name, None)[0] not in bundle.methods:
            raise ParameterError(no_method(bundle, split_method(name, None)[0]))
    if not names:
        raise ParameterError("--method names no method")
    return list(dict.fromkeys(names))


def plain_method(bundle: Bundle, method: str) -> Method:
    """The bundle's method behind a name such as "smoothgrad.captum"."""
    return bundle.methods[split_method(method, None)[0]]


def runnable(
    bundle: Bundle, methods: Sequence[str], settings: Mapping[str, Mapping[str, Any]], everything: bool
) -> list[str]:
    """The methods whose packages are there. Of `everything` the others are left out, which is said; else refused."""
    found = []
    for name in methods:
        method, given = plain_method(bundle, name), settings.get(name, {})
        if not everything:
            refuse_lacking(method, given)
        reason = lacking(method, given)
        if reason is None:
            found.append(name)
        else:
            say(f"{name} is left out: it needs {reason}")
    if not found:
        raise ParameterError("none of the bundle's methods can run here")
    return found


def has_no(methods: Sequence[str], parameter: str) -> str:
    """That methods don't have a parameter."""
    return f"{', '.join(methods)} {'has' if len(methods) == 1 else 'have'} no parameter {parameter!r}"
