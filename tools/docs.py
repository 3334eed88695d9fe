"""Writes the tables in README.md that come from the code: `python tools/docs.py`; `--check` fails where they drifted.

A table stands between `<!-- NAME -->` and `<!-- end of NAME -->`.
"""

import argparse
import json
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import bench_table
import coverage_table
import ground_truth_table
import portability_table
from onnxplain.preprocessing import PRESETS
from onnxplain_export.methods import CORE, graphs_of
from onnxplain_export.methods.activation import ACTIVATION
from onnxplain_export.methods.gradient import GRADIENT
from onnxplain_export.methods.perturbation import PERTURBATION
from onnxplain_export.methods.tables import TABLES as RULE_TABLES
from onnxplain_export.normalize.machine_learning import LOWERINGS
from onnxplain_export.vjp import NO_GRADIENT, STANDARD

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"

FAMILIES = {
    "elementwise": "arithmetic and pointwise",
    "trigonometric": "trigonometry",
    "activation": "activations",
    "linear": "linear algebra",
    "convolution": "convolutions",
    "deformable": "deformable convolutions",
    "pooling": "pooling",
    "resampling": "resizing and padding",
    "sampling": "grids and regions",
    "spectral": "Fourier transforms",
    "normalization": "normalisation",
    "reduction": "reductions",
    "shape": "shapes",
    "indexing": "indexing",
    "scatter": "scattering and picking",
    "recurrent": "recurrent layers",
    "control": "branches and loops",
}


def methods() -> Iterator[str]:
    """The explainers with their defaults, by family."""
    for family, entries in {"gradients": GRADIENT, "other rules": RULE_TABLES, "activations": ACTIVATION}.items():
        yield from _family(family, entries)
    yield from _family("perturbations", PERTURBATION)


def _family(family: str, entries: Mapping[str, Any]) -> Iterator[str]:
    yield f"| {family} | what a map shows | parameters |"
    yield "|---|---|---|"
    for name, entry in entries.items():
        defaults = {key: value["default"] for key, value in entry["parameters"].items()}
        parameters = ", ".join(
            f"`{key}={value}`" if value not in ("", None) else f"`{key}`" for key, value in defaults.items()
        )
        mark = "" if graphs_of(entry) <= CORE else " †"
        yield f"| `{name}`{mark} | {entry['about']} | {parameters or '–'} |"
    yield ""


def operators() -> Iterator[str]:
    """The operators with a derivative rule, by the file that holds it."""
    found = defaultdict(list)
    for name, rule in STANDARD.items():
        found[rule.function.__module__.rsplit(".", 1)[-1]].append(name)
    yield f"{len(STANDARD)} operators have a derivative rule, {len(NO_GRADIENT)} are registered as having no gradient."
    yield ""
    yield "| family | operators |"
    yield "|---|---|"
    for family in sorted(found, key=list(FAMILIES).index):
        yield f"| [{FAMILIES[family]}](export/onnxplain_export/vjp/{family}.py) | {', '.join(sorted(found[family]))} |"
    lowered = ", ".join(sorted(set(LOWERINGS) - {name.rpartition("::")[2] for name in NO_GRADIENT}))
    file = "export/onnxplain_export/normalize/machine_learning.py"
    yield f"| `ai.onnx.ml`, [written in standard operators]({file}) | {lowered} |"


def presets() -> Iterator[str]:
    """The names of the preprocessing presets."""
    yield ", ".join(f"`{name}`" for name in PRESETS)


def accuracies() -> Iterator[str]:
    """How often the shipped networks are right."""
    measured = json.loads((ROOT / "models" / "accuracy.json").read_text("utf-8"))
    kinds = list(next(iter(measured.values())))
    yield f"| network | {' | '.join(kinds)} |"
    yield "|---" * (1 + len(kinds)) + "|"
    for network, values in measured.items():
        yield f"| `{network}` | {' | '.join(f'{values[kind]:.1%}' for kind in kinds)} |"


TABLES: dict[str, Callable[[], Iterator[str]]] = {
    "coverage": coverage_table.table,
    "methods": methods,
    "operators": operators,
    "presets": presets,
    "accuracies": accuracies,
    "ground truth": ground_truth_table.table,
    "speed": bench_table.table,
    "portability": portability_table.table,
    "runtime faults": portability_table.faults,
}


def main() -> int:
    """Writes, or with --check compares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where a table isn't current")
    arguments = parser.parse_args()
    before = README.read_text("utf-8")
    after = before
    for name, lines in TABLES.items():
        after = replaced(after, name, "\n".join(lines()))
    if before == after:
        return 0
    if arguments.check:
        print("README.md: its tables aren't what the code says; run: python tools/docs.py", file=sys.stderr)
        return 1
    README.write_text(after, "utf-8")
    return 0


def replaced(document: str, name: str, table: str) -> str:
    """The document with a table put between its markers."""
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if not pattern.search(document):
        sys.exit(f"README.md has no markers for {name!r}")
    return pattern.sub(lambda _: f"{begin}\n{table}\n{end}", document)


if __name__ == "__main__":
    sys.exit(main())
