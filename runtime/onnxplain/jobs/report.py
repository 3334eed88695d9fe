"""report.html of a finished job: a page in which a person browses its results, by class, confidence and statistics.

The page holds what is said once; what is said of each picture lies in scripts beside it, which a page opened from disk
may load where it may not read other files. Pictures are parts of the shards' sheets of thumbnails.
"""

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from onnxplain.errors import OutputError
from onnxplain.heatmap import overlay
from onnxplain.jobs import shards, storage
from onnxplain.jobs.description import Description, read_description
from onnxplain.jobs.report_page import FAILED, MEANINGS, PAGE, STYLE
from onnxplain.jobs.report_script import SCRIPT
from onnxplain.jobs.thumbnails import COLUMNS, SIDE
from onnxplain.report import percent, text
from onnxplain.report_page import BASE_STYLE, LEGEND

REPORT, DATA = "report.html", "report-data"
MOST = 10_000
"""Explained pictures that the page shows: the first of the job."""
MOST_FAILED = 1_000
PART = 1_000
"""Pictures in a file of data."""
PER_PAGE = 60
DIGITS = 7
"""Of a number in the data; a float32 has no more."""

# The keys of a line that the page shows, beside those of each method.
KEPT = (
    "number",
    "row",
    "name",
    "predicted",
    "target",
    "label",
    "probability",
    "target_probability",
    "target_score",
)


def write_report(job: Path, numbers: Sequence[int], about: Mapping[str, Any]) -> None:
    """Writes report.html and report-data/ of a job whose finished shards have these numbers.

    `about` is what write_summary returned. Equal shards make equal bytes.
    """
    described = read_description(job)
    if described is None:
        raise OutputError(f"{job} holds no job")
    folder = job / DATA
    storage.make_folder(folder)
    storage.remove_leftovers(folder)
    methods = list(described.methods)
    gathered = _Gathered(job, methods)
    names: list[str] = []
    explained = islice(_explained(job, numbers), MOST)
    while part := list(islice(explained, PART)):
        names.append(f"results-{len(names):03d}.js")
        storage.write_file(folder / names[-1], _script(gathered.part(part)))
    for path in sorted(folder.iterdir()):
        if path.name not in names:
            storage.remove(path)
    page = _page(described, gathered, names, list(islice(_failed(job, numbers), MOST_FAILED)), about)
    storage.write_file(job / REPORT, page.encode("utf-8"))


class _Gathered:
    """What is found out on the way through the lines: the classes' names, and how the maps lie in their files."""

    def __init__(self, job: Path, methods: Sequence[str]) -> None:
        self._job, self._methods = job, list(methods)
        self._known: tuple[int, Mapping[str, Any]] | None = None
        self.shown = 0
        self.classes: dict[int, str] = {}
        self.maps: dict[str, Mapping[str, Any]] = {}
        self.parquet = ""

    def part(self, lines: Sequence[tuple[int, Mapping[str, Any]]]) -> dict[str, Any]:
        """Some lines, each with its shard's number, as columns."""
        columns: dict[str, list[Any]] = {"shard": [], "overlays": []}
        sheets: dict[str, list[int]] = {}
        for place, (shard, line) in enumerate(lines):
            manifest = self._manifest(shard)
            if str(shard) not in sheets:
                sheets[str(shard)] = [manifest["pictures"], self._sheets(manifest)]
            columns["shard"].append(shard)
            columns["overlays"].append(self._overlays(manifest, line["number"]))
            self._name_classes(line)
            for key, value in line.items():
                if self._is_shown(key):
                    exact = key.endswith(".scale")
                    columns.setdefault(key, [None] * place).append(value if exact else _rounded(value))
            for column in columns.values():
                column.extend([None] * (place + 1 - len(column)))
        if not any(columns["overlays"]):
            del columns["overlays"]
        kept = {name: column for name, column in columns.items() if any(one is not None for one in column)}
        self.shown += len(lines)
        return {"count": len(lines), "sheets": sheets, "columns": kept}

    def _manifest(self, shard: int) -> Mapping[str, Any]:
        if self._known is None or self._known[0] != shard:
            path = shards.shard_folder(self._job, shard) / shards.MANIFEST
            self._known = shard, json.loads(path.read_text(encoding="utf-8"))
            self.parquet = next((name for name in self._known[1]["files"] if name.endswith(".parquet")), self.parquet)
            for method, one in self._known[1]["maps"].items():
                self.maps.setdefault(method, one)
        return self._known[1]

    def _sheets(self, manifest: Mapping[str, Any]) -> int:
        """Which sheets a shard has: bit 0 for the pictures', bit i + 1 for those of method i's maps."""
        names = [shards.THUMBNAILS, *(f"thumbnails.{method}.jpg" for method in self._methods)]
        return sum((name in manifest["files"]) << bit for bit, name in enumerate(names))

    def _overlays(self, manifest: Mapping[str, Any], number: int) -> int:
        """Of which methods there is an overlay of a picture: bit i for method i."""
        names = [f"{shards.OVERLAYS}/{number:08d}.{method}.png" for method in self._methods]
        return sum((name in manifest["files"]) << bit for bit, name in enumerate(names))

    def _name_classes(self, line: Mapping[str, Any]) -> None:
        for number, name in (("predicted", "predicted_label"), ("target", "target_label"), ("label", "true_label")):
            if line[number] is not None:
                self.classes.setdefault(int(line[number]), line[name])

    def _is_shown(self, key: str) -> bool:
        method, dot, name = key.rpartition(".")
        if not dot:
            return key in KEPT
        return method in self._methods and name != "sha256"


def _explained(job: Path, numbers: Sequence[int]) -> Iterator[tuple[int, dict[str, Any]]]:
    for number in numbers:
        for line in shards.lines(shards.shard_folder(job, number) / shards.INDEX):
            yield number, line


def _failed(job: Path, numbers: Sequence[int]) -> Iterator[dict[str, Any]]:
    for number in numbers:
        yield from shards.lines(shards.shard_folder(job, number) / shards.FAILURES)


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, list):
        return [float(f"{one:.3g}") for one in value]
    return value


def safe_json(content: Any) -> str:
    """Plain data as JSON in ASCII that ends no script and starts no tag."""
    made = json.dumps(content, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return made.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _script(part: Mapping[str, Any]) -> bytes:
    return f"(self.results??=[]).push({safe_json(part)})\n".encode("ascii")


def _page(
    described: Description,
    gathered: _Gathered,
    names: Sequence[str],
    failures: Sequence[Mapping[str, Any]],
    about: Mapping[str, Any],
) -> str:
    labels = {str(number): name for number, name in sorted(gathered.classes.items())}
    methods = list(described.methods)
    data = {
        "methods": methods,
        "maps": {method: gathered.maps.get(method, {}) for method in methods},
        "parquet": gathered.parquet,
        "folder": shards.FOLDER,
        "overlays": shards.OVERLAYS,
        "columns": COLUMNS,
        "perPage": PER_PAGE,
        "classes": labels,
        "shown": gathered.shown,
        "meanings": MEANINGS,
    }
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode("utf-8")).digest()).decode("ascii")
    stops = overlay(np.full((9, 3), 150, np.uint8), np.linspace(0, 1, 9))  # as the maps' thumbnails are drawn
    return Template(PAGE).substitute(
        title=text(f"{described.bundle['name']}: a job's results"),
        heading=text(described.bundle["name"]),
        policy=f"script-src 'self' 'sha256-{digest}'",
        style=BASE_STYLE + f":root {{ --side: {SIDE}px; }}" + STYLE,
        introduction="".join(f"<p>{text(line)}</p>" for line in _introduction(described, gathered, about)),
        figures="".join(f"<div><dt>{text(what)}</dt><dd>{text(count)}</dd></div>" for what, count in _figures(about)),
        legend=Template(LEGEND).substitute(stops=", ".join(f"rgb({r} {g} {b})" for r, g, b in stops)),
        meanings="".join(f"<dt>{text(name)}</dt><dd>{text(meaning)}</dd>" for name, meaning in MEANINGS.values()),
        failures=_failures(failures, about),
        made="".join(f"<dt>{text(name)}</dt><dd>{text(value)}</dd>" for name, value in _made(described, gathered)),
        data=safe_json(data),
        scripts="".join(f'<script src="{DATA}/{name}"></script>\n' for name in names),
        script=SCRIPT,
    )


def _introduction(described: Description, gathered: _Gathered, about: Mapping[str, Any]) -> Iterator[str]:
    methods = list(described.methods)
    by = f"method {methods[0]}" if len(methods) == 1 else f"methods {', '.join(methods[:-1])} and {methods[-1]}"
    maps = f"{'a map' if len(methods) == 1 else 'maps'} of what in it the answer depends on, made by the {by}"
    what = {
        "top": "Each picture is explained for the class that the network gives it, the one it finds most probable.",
        "true": "Each picture is explained for its true class, whether the network finds it most probable or not.",
    }
    target = described.targets
    name = gathered.classes.get(target, str(target)) if isinstance(target, int) else target
    explained = what.get(str(target), f"Each picture is explained for one class, {name}.")
    glow = "Colours glow where the influence is strong."
    yield f"Each card is a picture as the network saw it and, beside it, {maps}. {glow} {explained}"
    if about["explained"] > gathered.shown:
        yield (
            f"The page shows the first {gathered.shown:,} of {about['explained']:,} explained pictures, in the job's "
            "order; the shards beside it hold all of them."
        )


def _figures(about: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "pictures", f"{about['pictures']:,}"
    yield "explained", f"{about['explained']:,}"
    yield "failed", f"{about['failed']:,}"
    if about["accuracy"] is not None:
        judged = sum(one["labelled"] for one in about["classes"].values())
        yield f"right, of {judged:,} with a known class", percent(about["accuracy"])
    if about["probability"]["mean"] is not None:
        yield "probability on average", percent(about["probability"]["mean"])


def _failures(failures: Sequence[Mapping[str, Any]], about: Mapping[str, Any]) -> str:
    rows = "".join(
        f'<tr><td>{int(line["number"])}</td><th scope="row"><bdi>{text(line["name"])}</bdi></th>'
        f"<td>{text(line['where'])}</td><td><bdi>{text(_without(line['name'], line['error']))}</bdi></td></tr>"
        for line in failures
    )
    if not rows:
        return ""
    cut = about["failed"] > len(failures)
    note = f"The first {len(failures):,} of {about['failed']:,}; failures.jsonl has all of them. " if cut else ""
    return Template(FAILED).substitute(count=f"{about['failed']:,}", note=note, rows=rows)


def _without(name: str, error: str) -> str:
    """An error without the picture's name before it, which stands beside it."""
    return error.removeprefix(f"{name}: ")


def _made(described: Description, gathered: _Gathered) -> Iterator[tuple[str, str]]:
    """What the maps depend on, name by name."""
    for method, one in described.methods.items():
        parameters = ", ".join(f"{name}={json.dumps(value)}" for name, value in one.get("parameters", {}).items())
        explains = f"explains {one['explains']}" if one.get("explains") else ""
        yield method, "; ".join(filter(None, (parameters or "no parameters", explains)))
    kinds = {"full": "all channels", "sum": "summed over channels", "magnitude": "sizes, summed over channels"}
    known = [one for one in gathered.maps.values() if "shape" in one]
    shapes = {f"{' × '.join(map(str, one['shape']))} {one['dtype']}" for one in known}
    yield "maps", "; ".join([kinds.get(described.output.maps, described.output.maps), *sorted(shapes)])
    yield "bundle", f"{described.bundle['name']}, SHA-256 {described.bundle['sha256']}"
    yield "source", ", ".join(f"{name} {value}" for name, value in described.source.items() if value is not None)
    yield "versions", ", ".join(f"{name} {version}" for name, version in described.versions.items())
    yield "fingerprint", described.fingerprint
