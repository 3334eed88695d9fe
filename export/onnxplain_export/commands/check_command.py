"""The command `onnxplain check`."""

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from onnxplain_export.check.checking import Verdict
from onnxplain_export.check.text_table import table, wrapped
from onnxplain_export.commands.model_options import add_model, checked

NODES_SHOWN = 3
"""Of those about which the same is to be said."""


def add_command(commands: Any) -> None:
    """Adds the parser of `onnxplain check`."""
    parser = commands.add_parser("check", help="say what in a model can be differentiated, before any export")
    add_model(parser)
    parser.add_argument("--json", action="store_true", help="print the verdict as JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Prints the verdict; 0 where gradients can be exported, 1 where they can't."""
    verdict = checked(arguments)
    if arguments.json:
        print(json.dumps({**asdict(verdict), "differentiable": verdict.differentiable}, indent=1, ensure_ascii=False))
    else:
        print("\n".join(line for part in verdict_lines(verdict) for line in wrapped(part)))
    return 0 if verdict.differentiable else 1


def verdict_lines(verdict: Verdict) -> Iterator[str]:
    """The verdict as text: the model, its operators, what is in the way, and the conclusion."""
    yield _headline(verdict)
    for change in verdict.changes:
        yield f"  changed: {change}"
    yield ""
    rows = [(name, str(count), role) for role, found in verdict.operators.items() for name, count in found.items()]
    yield from table(("operator", "nodes", "role"), rows)
    yield ""
    if verdict.obstacles:
        yield from table(("in the way", "why", "what to do"), list(_grouped(verdict)))
        yield ""
    yield from _conclusion(verdict)


def _headline(verdict: Verdict) -> str:
    if not verdict.shape:
        return f"{verdict.name}: {verdict.image} → {verdict.output}"
    classes = "" if verdict.classes is None else f", {verdict.classes} classes ({verdict.activation})"
    inside = "" if verdict.explained == verdict.image else f", explained at {verdict.explained}"
    return f"{verdict.name}: {verdict.image}{inside} → {verdict.output}{classes}"


def _grouped(verdict: Verdict) -> Iterator[tuple[str, str, str]]:
    """One row for the nodes about which the same is to be said."""
    groups: dict[tuple[str, str], list[str]] = {}
    for one in verdict.obstacles:
        node = f"{one['operator']} (node {one['node']!r}, output {one['output']!r})"
        groups.setdefault((one["why"], one["advice"]), []).append(node)
    for (why, advice), nodes in groups.items():
        more = f"; and {len(nodes) - NODES_SHOWN} more" if len(nodes) > NODES_SHOWN else ""
        yield "; ".join(nodes[:NODES_SHOWN]) + more, why, advice


def _conclusion(verdict: Verdict) -> Iterator[str]:
    if verdict.error is not None:
        yield f"can't be exported: {verdict.error}"
        if verdict.advice is not None:
            yield f"what to do: {verdict.advice}"
    elif verdict.zero:
        yield "the gradient is zero everywhere: no path from the input to the scores passes one"
    elif verdict.obstacles:
        yield "gradient methods can't be exported: no derivative rule for what is in the way"
    else:
        yield "every gradient method can be exported"
