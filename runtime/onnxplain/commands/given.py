"""What command lines give in text: classes, and the parameters of methods."""

from collections.abc import Iterable, Sequence
from typing import Any

from onnxplain.bundle import Bundle
from onnxplain.commands.chosen import has_no, plain_method
from onnxplain.errors import ParameterError, unknown
from onnxplain.parameters import from_text


def target(text: str) -> Any:
    """A class number or name; None for the top class."""
    return None if text == "top" else int(text) if text.lstrip("-").isdecimal() else text


def pair(text: str) -> tuple[str, str]:
    """The two sides of NAME=VALUE."""
    name, equals, value = text.partition("=")
    if not equals:
        raise ParameterError(f"--set {text}: write NAME=VALUE")
    return name.strip().replace("-", "_"), value


def settings(
    bundle: Bundle, methods: Sequence[str], given: Iterable[tuple[str, str]], options: Iterable[str]
) -> dict[str, dict[str, Any]]:
    """The parameters of each method, from those given for all or for one; each must belong to at least one method.

    `options` are the command's own, which somebody may have meant.
    """
    found: dict[str, dict[str, Any]] = {method: {} for method in methods}
    # What is given for one method comes last, since it holds against what is given for all.
    for full, text in sorted(given, key=lambda entry: "." in entry[0]):
        one, dot, name = full.rpartition(".")
        if dot and one not in methods:
            raise ParameterError(unknown("method of this explanation", one, methods))
        asked = [one] if dot else methods
        owners = [method for method in asked if name in plain_method(bundle, method).parameters]
        if not owners:
            raise ParameterError(_no_owner(bundle, asked, name, options))
        for method in owners:
            found[method][name] = from_text(plain_method(bundle, method).parameters[name], text)
    return found


def _no_owner(bundle: Bundle, methods: Sequence[str], name: str, options: Iterable[str]) -> str:
    others = [method for method, entry in bundle.methods.items() if name in entry.parameters]
    if others:
        return f"{has_no(methods, name)}; {', '.join(others)} {'has' if len(others) == 1 else 'have'}"
    known = set(options).union(*(entry.parameters for entry in bundle.methods.values()))
    return unknown(f"option or parameter of {', '.join(methods)}", name, known)
