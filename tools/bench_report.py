"""The lines that the benchmark prints of one result; standard library only."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from bench_table import cell


def report(result: Mapping[str, Any]) -> Iterator[str]:
    """One line for each figure, and for who didn't take part."""
    if result.get("void"):
        yield f"void after {result['attempts']} attempts: nothing of this is published"
    for heading, words in KINDS.items():
        for name, value in result.get(heading, {}).items():
            yield words(name, value)
    for name, value in result.items():
        if isinstance(value, float):
            yield f"{name}: {value:.3g}"


def _milliseconds(value: Mapping[str, Any]) -> str:
    low, high = value["interval"]
    return f"{1000 * value['median']:.4g} ms ({1000 * low:.4g}–{1000 * high:.4g})"


KINDS: Mapping[str, Callable[[str, Any], str]] = {
    "seconds": lambda name, value: f"{name}: {_milliseconds(value)}",
    "ratios": lambda name, value: f"{name}: {cell(value)}",
    "megabytes": lambda name, value: f"{name}: {value:.0f} MB",
    "growth": lambda name, value: f"{name}: grows by {value:.2f} of it",
    "correlation": lambda name, value: f"correlation of {name}: {value:.3f}",
    "evaluations": lambda name, value: f"gradient evaluations, {name}: {value}",
    "errors": lambda name, value: f"error of {name}: {value['typical']:.1e}, at worst {value['worst']:.1e}",
    "absent": lambda name, value: f"without {name}: {value}",
}
"""How a line of each kind of figure reads."""
