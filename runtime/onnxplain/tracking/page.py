"""The page of a training: which classes lag, which pictures are hardest, why, and how both went over its checkpoints.

One HTML file that needs nothing from outside, no script either.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from onnxplain.report import percent, standing_page, text
from onnxplain.report_page import BASE_STYLE, REPORT_STYLE
from onnxplain.tracking.page_charts import (
    Scale,
    apart,
    band,
    dots,
    floor_of,
    line,
    number,
    plot,
    scale_of,
    step_labels,
    tick_labels,
)
from onnxplain.tracking.page_pictures import HardPicture, hardest_pictures
from onnxplain.tracking.page_style import STYLE
from onnxplain.tracking.training import Bands, Training

NAMED = ("one", "two", "three", "four")
"""The classes that the chart of all names and colours: those that lag most."""
MOST_PANELS, MOST_LINES, MOST_ROWS = 12, 60, 200
"""Classes with a chart of their own, curves in the chart of all, and lines of a table or list."""


@dataclass(frozen=True, slots=True)
class Told:
    """What the page says beside the numbers: a title, paragraphs, warnings, and the foot."""

    title: str
    introduction: Sequence[str] = ()
    warnings: Sequence[str] = ()
    bounds: str = ""
    provenance: Mapping[str, str] = field(default_factory=dict)


def training_page(training: Training, bands: Bands, hard: Sequence[HardPicture], told: Told) -> str:
    """Return the page as HTML. All text is plain: whatever it holds is shown, never interpreted."""
    parts = [
        _figures(training),
        _warnings(training, told),
        '<nav class="jump" aria-label="On this page"><a href="#classes">Which classes lag</a>'
        '<a href="#hardest">Hardest pictures</a><a href="#table">All classes in numbers</a></nav>',
        _classes(training, bands, told),
        hardest_pictures(training, bands, hard),
        _table(training, bands),
    ]
    style = BASE_STYLE + REPORT_STYLE + STYLE
    return standing_page(told.title, told.introduction, None, "\n".join(parts), told.provenance, style)


def _figures(training: Training) -> str:
    last = training.followed[-1]
    found = {
        "pictures": str(len(last)),
        "classes among them": str(len(np.unique(last.labels))),
        "checkpoints" if len(training.steps) > 1 else "checkpoint": str(len(training.steps)),
        f"{training.metric.words}, mean": _from_to(training, "values"),
        "right": _from_to(training, "right"),
    }
    entries = "".join(f"<div><dt>{text(name)}</dt><dd>{text(value)}</dd></div>" for name, value in found.items())
    return f'<dl class="figures">{entries}</dl>'


def _from_to(training: Training, column: str) -> str:
    """The mean over all pictures at the first and the last checkpoint."""
    ends = training.followed if len(training.followed) == 1 else (training.followed[0], training.followed[-1])
    means = [float(np.mean(getattr(each, column))) for each in ends]
    return " → ".join(percent(mean) if column == "right" else number(mean) for mean in means)


def _warnings(training: Training, told: Told) -> str:
    bad = [f"<li>{text(error)}</li>" for error in [*training.bad.values()][:MOST_ROWS]]
    more = len(training.bad) - len(bad)
    parts = [f'<p class="warning">{text(warning)}</p>' for warning in told.warnings]
    if bad:
        those = "1 picture" if len(training.bad) == 1 else f"{len(training.bad)} pictures"
        bad += [f"<li>and {more} more</li>"] if more else []
        parts.append(
            f'<div class="warning">{those} could not be read, and counted nowhere:<ul>{"".join(bad)}</ul></div>'
        )
    return "".join(parts)


def _classes(training: Training, bands: Bands, told: Told) -> str:
    order = training.present
    if len(training.steps) == 1:
        one = f"{_reading(training)} One checkpoint has no curves: its numbers are in the table."
        return f'<section id="classes"><h2>Which classes lag</h2><p>{text(one)}</p></section>'
    named = order[: len(NAMED)]
    means = [bands[label][1] for label in order]
    scale = scale_of(training.steps, means, floor_of(means))
    overall = training.values[:, training.measured].mean(axis=1)
    others = "".join(line(scale, training.steps, bands[label][1], "other") for label in order[len(NAMED) : MOST_LINES])
    curves = [line(scale, training.steps, bands[label][1], kind) for label, kind in zip(named, NAMED, strict=False)]
    ends = [(training.name(label), float(bands[label][1][-1]), kind) for label, kind in zip(named, NAMED, strict=False)]
    ends.append(("mean of all", float(overall[-1]), "mean"))
    description = f"{training.metric.words} by class over the checkpoints; {_most(training)} lags most"
    chart = (
        f"{plot(scale, [others, line(scale, training.steps, overall, 'all'), *reversed(curves)], description)}"
        f"{tick_labels(scale)}{step_labels(scale, training.steps)}"
        f'<span class="axis">{text("step of the training")}</span>{_ends(scale.y, ends)}'
    )
    return (
        f'<section id="classes"><h2>Which classes lag</h2><p>{text(_reading(training))}</p>'
        f'<div class="card overview"><div class="chart">{chart}</div></div>'
        f'<p class="note">{text(_panels_note(order, told))}</p>{_panels(training, bands, order)}</section>'
    )


def _ends(place: Callable[[float], float], ends: Sequence[tuple[str, float, str]]) -> str:
    """The names at the ends of the curves, moved apart where they would lie on each other."""
    places = apart([place(value) if math.isfinite(value) else 0.0 for _, value, _ in ends], 7.5)
    return "".join(
        f'<span class="end {kind}" style="top:{at:.2f}%" title="{text(name)}"><bdi>{text(name)}</bdi></span>'
        for at, (name, _, kind) in zip(places, ends, strict=True)
    )


def _reading(training: Training) -> str:
    entry = training.metric
    way = "higher is harder" if entry.harder == "high" else "lower is harder"
    return (
        f"{entry.words.capitalize()} of each class's pictures: {entry.summary[0].lower()}{entry.summary[1:-1]}; {way}."
    )


def _panels_note(order: Sequence[int], told: Told) -> str:
    shown = f"The {MOST_PANELS} classes that lag most, each" if len(order) > MOST_PANELS else "Each class"
    bounds = f", with its {told.bounds}" if told.bounds else ""
    left_out = f" Above are the {MOST_LINES} hardest of {len(order)} classes." if len(order) > MOST_LINES else ""
    return (
        f"{shown} for itself, hardest first{bounds}; dashed is the mean of all pictures. All share one scale.{left_out}"
    )


def _panels(training: Training, bands: Bands, order: Sequence[int]) -> str:
    shown = order[:MOST_PANELS]
    overall = training.values[:, training.measured].mean(axis=1)
    least = np.nanmin(np.where(np.isfinite(training.values), training.values, np.nan), initial=np.inf)
    every = [overall, *(np.maximum(bands[label][0], least) for label in shown), *(bands[label][2] for label in shown)]
    scale = scale_of(training.steps, [*every, *(bands[label][1] for label in shown)], floor_of(every))
    made = "".join(_panel(training, scale, label, bands[label], overall) for label in shown)
    return f'<ol class="panels">{made}</ol>'


def _panel(
    training: Training,
    scale: Scale,
    label: int,
    curves: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]],
    overall: NDArray[np.float64],
) -> str:
    """One class's chart."""
    low, mean, high = curves
    steps, name = training.steps, training.name(label)
    parts = [line(scale, steps, overall, "all"), line(scale, steps, mean, "own")]
    if not (np.array_equal(low, mean) and np.array_equal(high, mean)):
        parts.insert(0, band(scale, steps, low.tolist(), high.tolist(), "own"))
    gone = [step for step, value in zip(steps, mean, strict=True) if not math.isfinite(value)]
    if gone:
        parts.append(dots(scale, gone, [math.nan] * len(gone), ["wrong"] * len(gone)))
    said = f"{name}: {number(mean[0])} at step {steps[0]}, {number(mean[-1])} at step {steps[-1]}"
    return (
        f'<li class="card"><h3><bdi title="{text(name)}">{text(name)}</bdi>'
        f"<span>{text(number(mean[-1]))}</span></h3>"
        f'<div class="chart">{plot(scale, parts, said, 3)}{tick_labels(scale, 3)}</div>'
        f"<p>{text(_said_of(training, label))}</p></li>"
    )


def _said_of(training: Training, label: int) -> str:
    """How many of a class are right, and what the others are taken for."""
    of_class = training.of_class(label)
    right = int((training.predicted[-1][of_class] == label).sum())
    wrong = training.taken_for(label)
    mostly = "" if wrong is None else f", {wrong[1]} taken for {training.name(wrong[0])}"
    return f"{right} of {len(of_class)} right{mostly}"


def _table(training: Training, bands: Bands) -> str:
    order = training.present
    rows = "".join(_line(training, bands, label) for label in order[:MOST_ROWS])
    left = len(order) - MOST_ROWS
    note = f'<p class="note">{left} classes that are easier are not shown</p>' if left > 0 else ""
    several = len(training.steps) > 1
    name = training.metric.words
    ends = ["first", "last"] if several else [name]
    titles = ("class", "pictures", *ends, "right", "mostly taken for")
    head = "".join(
        f'<th scope="col"{" class=number" if 1 <= at <= 1 + len(ends) else ""}>{text(title)}</th>'
        for at, title in enumerate(titles)
    )
    means = f"Mean {name} at the first and the last checkpoint; the rest is of the last."
    return (
        f'<section id="table"><h2>All classes in numbers</h2><p>{text(means if several else f"Means of {name}.")}</p>'
        f'<div class="table" tabindex="0" role="region" aria-label="All classes in numbers"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>{note}</section>"
    )


def _line(training: Training, bands: Bands, label: int) -> str:
    of_class, mean = training.of_class(label), bands[label][1]
    right = float((training.predicted[-1][of_class] == label).mean())
    wrong = training.taken_for(label)
    mostly = "" if wrong is None else f"{training.name(wrong[0])} ({wrong[1]})"
    cells = [str(len(of_class)), *(number(mean[place]) for place in dict.fromkeys((0, len(mean) - 1)))]
    return (
        f'<tr><th scope="row"><bdi>{text(training.name(label))}</bdi></th>'
        f"{''.join(f'<td class=number>{text(cell)}</td>' for cell in cells)}"
        f'<td class="share"><span class="value">{percent(right)}</span>'
        f'<span class="bar" aria-hidden="true"><i style="width:{100 * right:.1f}%"></i></span></td>'
        f"<td><bdi>{text(mostly)}</bdi></td></tr>"
    )


def _most(training: Training) -> str:
    return training.name(training.present[0])
