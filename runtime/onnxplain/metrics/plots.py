"""Plots of an evaluation, where matplotlib is installed (`pip install "onnxplain[plots]"`)."""

import importlib.util
import io
import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from onnxplain.metrics.evaluation import Evaluation

COLUMNS = 3
# Okabe and Ito's colours, which colour-blind readers can tell apart (jfly.uni-koeln.de/color, 2008).
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
ARROWS = {"higher": "higher is better", "lower": "lower is better"}


def plot_png(evaluation: "Evaluation") -> bytes | None:
    """The means of every metric with their 95 % intervals, a panel for each, as PNG; None without matplotlib."""
    panels = _panels(len(evaluation.metrics), 0.45 * len(evaluation.methods) + 1.1)
    if panels is None:
        return None
    figure, axes = panels
    at = np.arange(len(evaluation.methods))
    for number, (entry, axis) in enumerate(zip(evaluation.metrics, axes, strict=True)):
        summaries = [evaluation.summary(method, entry.name) for method in evaluation.methods]
        for place, each in enumerate(summaries):
            colour = COLOURS[place % len(COLOURS)]
            if each.mean is None:
                axis.text(0.02, place, "no value", va="center", transform=axis.get_yaxis_transform(), color="#777777")
                continue
            axis.barh(place, each.mean, color=colour, height=0.62, alpha=0.85)
            if each.low is not None and each.high is not None:
                axis.plot([each.low, each.high], [place, place], color="#222222", linewidth=1.6)
        axis.axvline(0, color="#222222", linewidth=0.8)
        axis.set_yticks(at, evaluation.methods if number % COLUMNS == 0 else [""] * len(at))
        axis.set_ylim(len(at) - 0.5, -0.5)
        axis.set_title(f"{entry.name} ({ARROWS[entry.better]})", fontsize=10)
    figure.supxlabel(f"mean of {len(evaluation)} pictures, with its 95 % interval", fontsize=9)
    return _png(figure)


def curves_png(evaluation: "Evaluation") -> bytes | None:
    """The mean curves of the metrics that have them, such as deletion, as PNG; None without them or matplotlib."""
    entries = [entry for entry in evaluation.metrics if any(metric == entry.name for _, metric in evaluation.curves)]
    panels = _panels(len(entries), 3.0) if entries else None
    if panels is None:
        return None
    figure, axes = panels
    for entry, axis in zip(entries, axes, strict=True):
        for number, method in enumerate(evaluation.methods):
            curve = evaluation.curves.get((method, entry.name))
            if curve is not None:
                colour = COLOURS[number % len(COLOURS)]
                marker = "o" if len(curve.at) < 20 else None
                axis.plot(curve.at, curve.values.mean(axis=0), color=colour, label=method, marker=marker, markersize=3)
        axis.set_title(f"{entry.name} ({ARROWS[entry.better]})", fontsize=10)
        axis.set_xlabel("share of the layers" if entry.name == "randomisation" else "share of the pixels")
        axis.set_ylabel("correlation" if entry.name == "randomisation" else "mean score")
        axis.grid(color="#dddddd", linewidth=0.6)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    return _png(figure)


def _panels(count: int, height: float) -> tuple[Any, list[Any]] | None:
    """A figure of `count` panels; None without matplotlib."""
    if importlib.util.find_spec("matplotlib") is None:
        return None
    # Optional, and slow to load. A Figure of its own leaves the caller's pyplot and its backend alone.
    from matplotlib.figure import Figure

    columns = min(COLUMNS, count)
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(3.6 * columns + 1.4, height * rows + 0.5), layout="constrained")
    axes = list(np.atleast_1d(figure.subplots(rows, columns)).reshape(-1))
    for axis in axes[count:]:
        axis.set_axis_off()
    for axis in axes[:count]:
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8)
    return figure, axes[:count]


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()
