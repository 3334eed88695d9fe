"""The README's table of methods on known answers, from tools/ground_truth.json; standard library only."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ground_truth_advice import FAILS, advice, verdict

RESULTS = Path(__file__).with_name("ground_truth.json")
EXACT = {"linear": "linear", "additive": "additive", "pooled": "features"}

Results = Mapping[str, Any]
Figures = Mapping[str, Any]


def table() -> Iterator[str]:
    """The lines of README.md's table of methods, and a folded one with the other figures."""
    results = json.loads(RESULTS.read_text("utf-8"))
    yield from _caption(results)
    yield ""
    yield (
        "| method | its numbers are | passes | on digit / patch | points at it | deletion / insertion | "
        "weights re-drawn | use it when |"
    )
    yield "|---" * 8 + "|"
    for name, figures in results["methods"].items():
        if "cost" in figures:
            yield f"| {' | '.join(_line(name, figures, results))} |"
    yield ""
    yield "<details><summary>Against closed forms, and by other metrics</summary>"
    yield ""
    yield (
        "Rank correlation with the exact map of a linear network, an additive one and the features of a pooled one; "
        "the share of the map on a planted pattern; and on `honest`, of which infidelity and gap should be low."
    )
    yield ""
    yield from closed_forms(results)
    yield ""
    yield "</details>"


def _caption(results: Results) -> Iterator[str]:
    """What the columns are."""
    digit, patch = results["chance"]["honest"]["digit"], results["chance"]["shortcut"]["patch"]
    made, radius = results["made_with"], results["settings"]["metrics"]["pointing_game"]["radius"]
    yield (
        f"How much of a map lies on the digit, where `honest` looks (chance: {digit:.0%}), and on the patch of sky, "
        f"where `shortcut` looks ({patch:.0%}); how often its highest pixel does, give or take {radius}; what is left "
        "of the probability while `honest` loses the map's pixels (low is good) or gains them (high is good), best "
        f"first; and how like the map stays while `honest`'s weights are re-drawn (it fails from {FAILS}). Means over "
        "the shipped pictures. A sentence stands at the end only where the figures bear it out. Measured by "
        f"`tools/ground_truth.py` ({made['machine']}, onnxruntime {made['onnxruntime']}), with intervals in its JSON."
    )


def _line(name: str, figures: Figures, results: Results) -> list[str]:
    return [
        f"`{name}`",
        figures["measures"],
        passes(figures),
        f"{_share(figures, 'honest', 'relevance_mass')} / {_share(figures, 'shortcut', 'relevance_mass')}",
        f"{_share(figures, 'honest', 'pointing_game')} / {_share(figures, 'shortcut', 'pointing_game')}",
        f"{_mean(figures, 'honest', 'deletion')} / {_mean(figures, 'honest', 'insertion')}",
        verdict(figures),
        advice(name, results),
    ]


def closed_forms(results: Results) -> Iterator[str]:
    """A line a method: rank correlation with the exact maps, the planted pattern, and metrics on the honest network."""
    yield (
        "| method | linear | additive | features | planted: mass on the pattern | faithfulness | infidelity | "
        "completeness gap | class sensitivity | time ÷ gradient |"
    )
    yield "|---" * 10 + "|"
    for name, figures in results["methods"].items():
        exact = [_exact(figures, network) for network in EXACT]
        honest = [_mean(figures, "honest", metric) for metric in ("faithfulness", "infidelity", "completeness")]
        rest = [_share(figures, "planted", "relevance_mass"), *honest, _mean(figures, "honest", "class_sensitivity")]
        time = f"{figures['cost']['time']:,.1f}" if "cost" in figures else "–"
        yield f"| `{name}` | {' | '.join([*exact, *rest, time])} |"


def text_table(results: Results) -> Iterator[str]:
    """The main figures of each method on a line for the terminal; means with their intervals."""
    yield f"{'':28} {'passes':>16} {'time':>7} {'linear':>7} {'additive':>8} {'features':>8} {'planted':>8}"
    for name, figures in results["methods"].items():
        exact = [_exact(figures, network) for network in EXACT]
        cost = f"{passes(figures):>16} {figures['cost']['time']:7.1f}" if "cost" in figures else " " * 24
        planted = _share(figures, "planted", "relevance_mass")
        yield f"{name:28} {cost} {exact[0]:>7} {exact[1]:>8} {exact[2]:>8} {planted:>8}"
    for network, part in (("planted", "pattern"), ("honest", "digit"), ("shortcut", "patch")):
        yield ""
        yield f"{network}, on the {part}: mean [95 % interval over pictures]"
        for name, figures in results["methods"].items():
            found = figures["networks"].get(network, {}).get("metrics", {})
            yield f"{name:28} " + "  ".join(f"{metric} {_interval(value)}" for metric, value in found.items())
    yield ""
    yield "correlation with the map before, while the weights are re-drawn from the output down; mean over the stages"
    for name, figures in results["methods"].items():
        found = figures["networks"].get("honest", {}).get("randomisation")
        if found:
            yield f"{name:28} {found['curve']} {_interval(found['mean'])} {verdict(figures)}"


def passes(figures: Figures) -> str:
    """What a picture costs: forward passes, and those with a backward pass."""
    cost = figures["cost"]
    parts = [
        f"{cost[kind]:,.0f} {word}{'' if cost[kind] == 1 else 's'}"
        for kind, word in (("gradient", "gradient"), ("forward", "forward"))
        if cost[kind]
    ]
    return " + ".join(parts) or "–"


def _metric(figures: Figures, network: str, metric: str) -> Figures | None:
    return figures["networks"].get(network, {}).get("metrics", {}).get(metric)


def _mean(figures: Figures, network: str, metric: str) -> str:
    found = _metric(figures, network, metric)
    return "–" if found is None else f"{found['mean']:.2f}"


def _share(figures: Figures, network: str, metric: str) -> str:
    found = _metric(figures, network, metric)
    return "–" if found is None else f"{found['mean']:.0%}"


def _exact(figures: Figures, network: str) -> str:
    """The word exact where the map is the right one to float32, else its rank correlation with that."""
    found = figures["networks"].get(network, {}).get("exact")
    if found is None:
        return "–"
    return "exact" if found["error"] <= 1e-5 else f"{found['spearman']:.2f}"


def _interval(found: Figures) -> str:
    if found["low"] is None:
        return "–" if found["mean"] is None else f"{found['mean']:.2f}"
    return f"{found['mean']:.2f} [{found['low']:.2f}, {found['high']:.2f}]"
