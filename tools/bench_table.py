"""README.md's tables of speed, from tools/bench.json; standard library only."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bench_results import read

Results = Mapping[str, Any]

TITLES = {"cpu": "CPU", "cuda": "CUDA", "cuda float16": "CUDA, float16"}
RATIOS = {
    "gradient ÷ forward": "gradient ÷ forward",
    "explain ÷ forward": "`explain` ÷ forward",
    "torch eager ÷ ours": "torch eager ÷ ours",
    "torch.compile ÷ ours": "torch.compile ÷ ours",
    "captum ÷ ours": "Captum ÷ ours",
    "onnx-ad ÷ ours": "onnx-ad ÷ ours",
}
SOFTWARE = ("onnxruntime", "torch", "captum")
VOID = "Void, because the same thing timed twice didn't take the same time within 3 %"


def table() -> Iterator[str]:
    """The lines between README.md's markers."""
    results = read()
    if not results:
        yield "Not measured yet: `python tools/bench.py`."
    for device, found in results.items():
        title = TITLES.get(device, device)
        for lines in (gradient(title, found), methods(title, found), processes(title, found), tolerance(title, found)):
            written = list(lines)
            if written:
                yield from written
                yield ""
        yield caption(found)
        yield ""
        yield from remarks(found)


def gradient(title: str, found: Results) -> Iterator[str]:
    """A line for each network, and the geometric means with the worst, those of other machines too."""
    counted = _parts(found, "gradient")
    figures = {name: entry["ratios"] for name, entry in counted.items() if entry.get("ratios")}
    if not figures:
        return
    yield f"| {title}: the gradient | forward, ms | {' | '.join(RATIOS.values())} |"
    yield "|---" * (2 + len(RATIOS)) + "|"
    for name, ratios in figures.items():
        milliseconds = 1000 * counted[name]["seconds"]["forward"]["median"]
        yield f"| {name} | {milliseconds:.3g} | {' | '.join(cell(ratios.get(key)) for key in RATIOS)} |"
    yield f"| **geometric mean** (worst) | | {_means(list(figures.values()))} |"
    for machine, networks in found.get("elsewhere", {}).items():
        others = [entry["ratios"] for entry in _parts({"networks": networks}, "gradient").values()]
        if others:
            yield f"| {len(others)} networks on {machine} | | {_means(others)} |"


def _means(ratios: list[Mapping[str, Any]]) -> str:
    return " | ".join(mean_and_worst(ratios, key) for key in RATIOS)


def methods(title: str, found: Results) -> Iterator[str]:
    """A line for each figure of the methods: the geometric mean over the networks, the worst, and how many they are."""
    entries = [entry["ratios"] for part in ("methods", "targets", "rise") for entry in _parts(found, part).values()]
    named = [key for ratios in entries for key in ratios if "again" not in key]
    if not named:
        return
    yield f"| {title}: the methods | geometric mean (worst) | networks |"
    yield "|---|---|---|"
    for key in dict.fromkeys(sorted(named, key=_place)):
        having = [ratios for ratios in entries if key in ratios]
        yield f"| {_title(key)} | {mean_and_worst(having, key)} | {len(having)} |"


def processes(title: str, found: Results) -> Iterator[str]:
    """New processes: how soon the first map is there, what they hold, and what an export takes."""
    starts, memories = _parts(found, "start"), _parts(found, "memory")
    if not starts and not memories:
        return
    yield (
        f"| {title}: a new process | first map: ours | torch + Captum ÷ ours | memory: ours | torch + Captum ÷ ours "
        "| export, proofs included |"
    )
    yield "|---|---|---|---|---|---|"
    for name, entry in starts.items():
        for ours, which in (("ours", "one picture"), ("ours, graphs kept", "one picture, `cache=True`")):
            if ours not in entry["seconds"]:
                continue
            seconds, ratio = entry["seconds"][ours]["median"], cell(entry["ratios"][f"torch + captum ÷ {ours}"])
            held, share = entry["megabytes"][ours], entry[f"memory of torch + captum ÷ {ours}"]
            export = f"{entry['export, seconds']:.1f} s" if ours == "ours" else "–"
            yield f"| {name}, {which} | {seconds:.2f} s | {ratio} | {held:.0f} MB | {share:.1f} | {export} |"
    for name, entry in memories.items():
        for method in ("gradient", "smoothgrad"):
            share = entry[f"memory of torch + captum ÷ ours, {method}"]
            megabytes = entry["megabytes"][f"{method}, ours"]
            yield f"| {name}, `{method}` of two pictures | – | – | {megabytes:.0f} MB | {share:.1f} | – |"
    grown = [
        (share, f"`{what}` of {name}") for name, part in memories.items() for what, share in part["growth"].items()
    ]
    if grown:
        worst, where = max(grown)
        yield ""
        yield f"Under `memory=`, runs add at most {worst:.2f} of what is allowed to the loaded network ({where})."


def tolerance(title: str, found: Results) -> Iterator[str]:
    """Integrated gradients to 2 %: a line for each network and kind of score."""
    lines = []
    for name, entry in _parts(found, "tolerance").items():
        for score in ("logits", "probabilities"):
            keys = ("captum's evaluations ÷ ours", "ours ÷ captum's, worst picture", "largest error of ours")
            values = [entry.get(f"{score}: {key}") for key in keys]
            if None not in values:
                lines.append(f"| {name}, {score} | {values[0]:.2f} | {values[1]:.2f} | {values[2]:.1%} |")
    if lines:
        yield f"| {title}: integrated gradients to 2 % | Captum's steps ÷ ours | worst picture | our largest error |"
        yield "|---|---|---|---|"
        yield from lines


def caption(found: Results) -> str:
    """The machines, the versions and the days."""
    parts = [part for network in found["networks"].values() for part in network.values()]
    software = ", ".join(f"{name} {versions}" for name in SOFTWARE if (versions := _versions(parts, name)))
    threads, batch = ({str(part["made_with"][key]) for part in parts} for key in ("threads", "batch"))
    return (
        f"Measured by `tools/bench.py` {_days([part['date'] for part in parts])}: {_machines(found)}; "
        f"{'/'.join(sorted(threads))} threads, {'/'.join(sorted(batch))} pictures at once, {software}. Medians of "
        "ratios within rounds, with 95 % bootstrap intervals; forward is onnxruntime on the model as it came, "
        "`explain` a whole call, gradient its graph alone."
    )


def _versions(parts: Sequence[Results], name: str) -> str:
    return "/".join(sorted({part["versions"][name] for part in parts if name in part["versions"]}))


def _machines(found: Results) -> str:
    """The machine of most results, and which were measured on others: milliseconds compare on the same one alone."""
    measured: dict[str, list[str]] = {}
    for name, parts in found["networks"].items():
        for part, entry in parts.items():
            measured.setdefault(entry["machine"], []).append(f"{name} ({part})")
    usual, *others = sorted(measured, key=lambda machine: -len(measured[machine]))
    return usual + "".join(f"; on {machine} {', '.join(measured[machine])}" for machine in others)


def _days(dates: Sequence[str]) -> str:
    """When it was measured: a network's parts stay until what they measure has changed."""
    first, last = min(dates), max(dates)
    return f"on {last}" if first == last else f"from {first} to {last}"


def remarks(found: Results) -> Iterator[str]:
    """What is void, and folded away: who didn't take part, and why."""
    voids = [
        f"{name} ({part})" for name, entry in found["networks"].items() for part in entry if entry[part].get("void")
    ]
    if voids:
        yield f"{VOID}: {', '.join(voids)}."
        yield ""
    absent: dict[tuple[str, str], list[str]] = {}
    for name, parts in found["networks"].items():
        for entry in parts.values():
            for who, reason in entry.get("absent", {}).items():
                absent.setdefault((who, reason), []).append(name)
    if absent:
        yield "<details><summary>Who didn't take part, and why</summary>"
        yield ""
        yield "| who | where | why |"
        yield "|---|---|---|"
        for (who, reason), names in sorted(absent.items()):
            yield f"| {who} | {', '.join(names)} | {' '.join(reason.split()).replace('|', chr(92) + '|')} |"
        yield ""
        yield "</details>"


def cell(value: Mapping[str, Any] | None) -> str:
    """A ratio and its interval."""
    if value is None:
        return "–"
    low, high = value["interval"]
    return f"{value['median']:.2f} ({low:.2f}–{high:.2f})"


def mean_and_worst(figures: Sequence[Mapping[str, Any]], key: str) -> str:
    """The geometric mean over the networks, and the worst: the highest cost, or the least lead over a peer."""
    values = [ratios[key]["median"] for ratios in figures if key in ratios]
    if not values:
        return "–"
    mean = math.exp(sum(map(math.log, values)) / len(values))
    worst = min(values) if key.endswith("÷ ours") else max(values)
    return f"{mean:.2f} ({worst:.2f})"


def _parts(found: Results, part: str) -> dict[str, Any]:
    """The networks that have this part, and it counted."""
    networks = found["networks"].items()
    return {name: entry[part] for name, entry in networks if part in entry and not entry[part].get("void")}


def _place(key: str) -> int:
    """Costs before peers."""
    return 1 if key.endswith("÷ ours") else 0


def _title(key: str) -> str:
    """A figure's name as the table has it."""
    over, _, under = key.partition(" ÷ ")
    if over.startswith("captum "):
        return f"Captum's `{over.removeprefix('captum ')}` ÷ ours"
    if over == "dianna rise":
        return "DIANNA's `rise` ÷ ours"
    return f"{over if ' ' in over else f'`{over}`'} ÷ {under}"
