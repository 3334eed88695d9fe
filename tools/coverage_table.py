"""The coverage table of README.md, from tools/coverage.json; standard library only."""

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("coverage.json")
PASSES, REFUSED, FAILS = "passes", "refused", "fails"
# Where a failure shows that is not ours: the network can't be built or exported, or its file answers otherwise.
THEIRS = "framework's side"

Results = Mapping[str, Any]


def table() -> Iterator[str]:
    """The lines of README.md's table of networks: the summary, the sources, every network, and what fails."""
    results = json.loads(RESULTS.read_text("utf-8"))
    yield from summary(results)
    yield ""
    yield from sources(results)
    yield ""
    yield from networks(results)
    yield ""
    yield from failures(results)


def summary(results: Results) -> Iterator[str]:
    """How many networks pass, the largest errors, and the median ratio of times."""
    entries = list(results["networks"].values())
    passing = _with(entries, PASSES)
    counts = [f"**{len(passing)} of {len(entries)} networks pass**"]
    for status, words in ((REFUSED, "refused because their gradient is zero"), (FAILS, "fail")):
        if found := _with(entries, status):
            counts.append(f"{len(found)} {words}")
    if theirs := [entry for entry in _with(entries, FAILS) if entry["stage"] == THEIRS]:
        counts[-1] += f" ({len(theirs)} of them on the framework's side)"
    yield "; ".join(counts) + "."
    if passing:
        strict = [entry for entry in passing if _worst(entry) <= 1e-5]
        yield f"{len(strict)} of them are within 1e-5 of the float64 gradient; the others are within five times the"
        yield f"framework's own float32 error; the worst uses {max(map(_share, passing)):.0%} of its bar."
        yield f"A gradient run takes {_median(passing):.2f} times a forward run (median)."


def sources(results: Results) -> Iterator[str]:
    """A line for each source and exporter."""
    yield "| source | exporter | pass | median error, ours | median error, its own float32 | gradient ÷ forward |"
    yield "|---|---|---|---|---|---|"
    for source, entries in _by_source(results).items():
        passing = _with(entries, PASSES)
        exporter = next((entry["exporter"] for entry in entries if "exporter" in entry), "–")
        ours = statistics.median(map(_worst, passing)) if passing else None
        own = statistics.median(entry["own_error"] for entry in passing) if passing else None
        numbers = f"{_number(ours)} | {_number(own)} | {_median(passing):.2f}" if passing else "– | – | –"
        yield f"| {source} | {exporter} | {len(passing)} of {len(entries)} | {numbers} |"


def networks(results: Results) -> Iterator[str]:
    """A line for each network that passes, folded away."""
    passing = {name: entry for name, entry in results["networks"].items() if entry["status"] == PASSES}
    yield "<details><summary>Every network that passes</summary>"
    yield ""
    yield "| network | exporter | operators | error: ours | its own float32 | gradient ÷ forward |"
    yield "|---|---|---|---|---|---|"
    for name, entry in passing.items():
        errors = f"{_number(_worst(entry))} | {_number(entry['own_error'])}"
        yield f"| {name} | {entry['exporter']} | {entry['operators']} | {errors} | {entry['ratio']:.2f} |"
    yield ""
    yield "</details>"


def failures(results: Results) -> Iterator[str]:
    """A line for each network that fails or is refused, with the reason."""
    others = {name: entry for name, entry in results["networks"].items() if entry["status"] != PASSES}
    if not others:
        return
    yield "| does not pass | where | why |"
    yield "|---|---|---|"
    for name, entry in others.items():
        yield f"| {name} | {entry.get('stage', entry['status'])} | {_in_a_cell(entry['reason'])} |"


def _by_source(results: Results) -> dict[str, list[Mapping[str, Any]]]:
    found: dict[str, list[Mapping[str, Any]]] = {}
    for name, entry in results["networks"].items():
        found.setdefault(name.split("/")[0], []).append(entry)
    return found


def _with(entries: Sequence[Mapping[str, Any]], status: str) -> list[Mapping[str, Any]]:
    return [entry for entry in entries if entry["status"] == status]


def _worst(entry: Mapping[str, Any]) -> float:
    """The larger error of the batch's gradient and of those one by one."""
    return max(entry["error"], entry["error_alone"])


def _share(entry: Mapping[str, Any]) -> float:
    return _worst(entry) / entry["bar"]


def _median(entries: Sequence[Mapping[str, Any]]) -> float:
    return statistics.median(entry["ratio"] for entry in entries)


def _number(value: float | None) -> str:
    """An error, or a dash where the framework has no gradient of its own to compare with."""
    return f"{value:.1e}" if value else "–"


def _in_a_cell(text: str, longest: int = 160) -> str:
    """The text on one line of a table."""
    text = " ".join(text.split()).replace("|", "\\|")
    return text if len(text) <= longest else text[: longest - 1] + "…"
