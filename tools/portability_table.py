"""The README's table of runtimes, from tools/portability.json, and of their faults; standard library only."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("portability.json")
FAULTS = Path(__file__).with_name("portability_faults.md")
ALIKE = 1e-4
"""A larger difference than this is no rounding."""
FAMILIES: Mapping[str, Sequence[str]] = {
    "forward": ("forward", "tail"),
    "gradient": ("gradient",),
    "relevance (LRP)": ("relevance",),
    "DeepLIFT": ("deeplift",),
    "path": ("path",),
    "noise": ("noise",),
    "masked": ("masked",),
    "layer (CAM)": ("layer",),
    "several classes at once": ("targets",),
    "single file": ("single",),
}
# What a runtime says, in fewer words; the whole is in portability.json.
REASONS = {
    "residual added after convolution": "refuses a sum of convolutions that broadcasts",
    "could not broadcast input array": "refuses grouped transposed convolutions",
    "Provider type for Cast node": "refuses a Cast to float64",
    "wrong shape, or not finite": "wrong: not finite",
}

Cases = Mapping[str, Any]


def table() -> Iterator[str]:
    """The lines of README.md's table: a row for each family of graphs, and a folded one for each graph and network."""
    results = json.loads(RESULTS.read_text("utf-8"))
    runtimes = results["runtimes"]
    made = results["made_with"]
    yield (
        f"The largest relative difference (L2) to onnxruntime {made['onnxruntime']} on the CPU, over the graphs of a "
        "CNN, a MobileNet-like network with pads that differ at both ends, and a vision transformer, for one and for "
        "two classes. Where graphs don't run, how many, and the reason. WebGPU is computed in software (SwiftShader). "
        f"{_partial(runtimes)}Made by `tools/portability.py`."
    )
    yield ""
    yield f"| graphs | {' | '.join(f'{name} {_short(found)}' for name, found in runtimes.items())} |"
    yield "|---" * (1 + len(runtimes)) + "|"
    for family, beginnings in FAMILIES.items():
        cells = [_family(found["cases"], family, beginnings) for found in runtimes.values()]
        yield f"| {family} | {' | '.join(cells)} |"
    yield ""
    yield "<details><summary>Every graph of every network</summary>"
    yield ""
    yield from _every_graph(runtimes)
    yield ""
    yield "</details>"


def _partial(runtimes: Mapping[str, Any]) -> str:
    """Which runtimes ran only some of the cases."""
    counts = {name: sum(cell is not None for cell in found["cases"].values()) for name, found in runtimes.items()}
    most = max(counts.values())
    few = [f"{name} ran {count} of {most} cases. " for name, count in counts.items() if count < most]
    return "".join(few)


def faults() -> Iterator[str]:
    """The table of faults, as tools/portability_faults.py wrote it."""
    lines = FAULTS.read_text("utf-8").splitlines()
    yield from (line for line in lines if line.startswith("|"))


def family_of(case: str) -> str:
    """The family of a case `network/graph/targets`."""
    graph = case.split("/")[1]
    for name in ("several classes at once", "single file"):
        if graph.endswith(FAMILIES[name][0]) or graph.startswith(FAMILIES[name][0]):
            return name
    return next(name for name, beginnings in FAMILIES.items() if graph.startswith(tuple(beginnings)))


def _family(cases: Cases, family: str, beginnings: Sequence[str]) -> str:
    return _cell([value for case, value in cases.items() if beginnings and family_of(case) == family])


def _every_graph(runtimes: Mapping[str, Any]) -> Iterator[str]:
    yield f"| network | graph | {' | '.join(runtimes)} |"
    yield "|---" * (2 + len(runtimes)) + "|"
    rows: dict[tuple[str, str], None] = {}
    for found in runtimes.values():
        rows.update(dict.fromkeys((case.split("/")[0], case.split("/")[1]) for case in found["cases"]))
    for network, graph in rows:
        cells = [
            _cell([value for case, value in found["cases"].items() if case.startswith(f"{network}/{graph}/")])
            for found in runtimes.values()
        ]
        yield f"| {network} | `{graph}` | {' | '.join(cells)} |"


def _cell(values: Sequence[Any]) -> str:
    """The worst difference, and what doesn't run."""
    numbers = [value for value in values if not isinstance(value, str)]
    reasons = [_reason(value) for value in values if isinstance(value, str)]
    parts = [_number(max(numbers))] if numbers else []
    parts += [f"{reasons.count(reason)} of {len(values)}: {reason}" for reason in dict.fromkeys(reasons)]
    return "; ".join(parts) or "–"


def _number(error: float) -> str:
    text = "equal" if not error else f"{error:.0e}".replace("e-0", "e-")
    return f"**{text}**" if error > ALIKE else text


def _reason(text: str) -> str:
    known = [short for part, short in REASONS.items() if part in text]
    return known[0] if known else text.replace("|", "/").splitlines()[0][:60]


def _short(found: Mapping[str, Any]) -> str:
    return str(found["version"]).removesuffix(".93")
