"""An evaluation as text and as files."""

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxplain.errors import OutputError
from onnxplain.metrics.plots import curves_png, plot_png
from onnxplain.metrics.statistics import Summary
from onnxplain.output import write_bytes

if TYPE_CHECKING:
    from onnxplain.metrics.evaluation import Evaluation

ARROWS = {"higher": "↑", "lower": "↓"}
FILES = {"values": "evaluation.csv", "summary": "evaluation.json", "plot": "plot.png", "curves": "curves.png"}
NO_PLOT = 'plots need matplotlib: pip install "onnxplain[plots]"'


def table(evaluation: "Evaluation", classes: bool = False) -> str:
    """The means as text, a line for each metric (and class), a column for each method, and the notes below.

    An arrow says which direction is better, brackets hold the 95 % interval of the mean, and "n" how many values are
    finite where not all are.
    """
    lines = [["", *evaluation.methods]]
    for entry in evaluation.metrics:
        summaries = [evaluation.summary(method, entry.name) for method in evaluation.methods]
        lines.append([f"{entry.name} {ARROWS[entry.better]}", *map(_cell, summaries)])
        if classes:
            by_class = [evaluation.classes(method, entry.name) for method in evaluation.methods]
            lines += [[f"  {name}", *(_cell(each[name]) for each in by_class)] for name in by_class[0]]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    rows = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    count = f"{len(evaluation)} picture{'' if len(evaluation) == 1 else 's'}; mean [95 % interval]"
    return "\n".join([*rows, f"{count}; ↑ higher is better, ↓ lower", *(f"note: {note}" for note in evaluation.notes)])


def _cell(summary: Summary) -> str:
    if summary.mean is None:
        return "-"
    interval = "" if summary.low is None or summary.high is None else f" [{summary.low:.3g}, {summary.high:.3g}]"
    counted = "" if summary.count == summary.total else f" n={summary.count}/{summary.total}"
    return f"{summary.mean:.3g}{interval}{counted}"


def write(evaluation: "Evaluation", folder: Any) -> dict[str, str]:
    """Writes the files into a folder, made if it isn't there; returns their names by what they hold.

    evaluation.csv has a line for each picture, method and metric; evaluation.json the means. Without matplotlib there
    are no plots, and evaluation.json says so.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"can't write {folder}: {error.strerror or error}") from None
    drawn = {"plot": plot_png(evaluation), "curves": curves_png(evaluation)}
    content = {"values": _csv(evaluation).encode(), **{name: data for name, data in drawn.items() if data is not None}}
    notes = [] if drawn["plot"] is not None else [NO_PLOT]
    content["summary"] = _json(evaluation, notes).encode()
    for name, data in content.items():
        write_bytes(folder / FILES[name], data)
    return {name: FILES[name] for name in FILES if name in content}


def _csv(evaluation: "Evaluation") -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["picture", "class", "label", "method", "metric", "value"])
    for number, picture in enumerate(evaluation.pictures):
        for (method, metric), values in evaluation.values.items():
            who = [picture, int(evaluation.targets[number]), evaluation.labels[number]]
            writer.writerow([*who, method, metric, repr(float(values[number]))])
    return text.getvalue()


def _json(evaluation: "Evaluation", notes: list[str]) -> str:
    content = {
        "pictures": len(evaluation),
        "metrics": {entry.name: {"better": entry.better, "means": entry.summary} for entry in evaluation.metrics},
        "means": list(_means(evaluation)),
        "notes": [*evaluation.notes, *notes],
        "provenance": evaluation.provenance,
    }
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False, default=str) + "\n"


def _means(evaluation: "Evaluation") -> Iterator[dict[str, Any]]:
    for method, metric in evaluation.values:
        classes = {name: asdict(each) for name, each in evaluation.classes(method, metric).items()}
        yield {"method": method, "metric": metric, **asdict(evaluation.summary(method, metric)), "classes": classes}
