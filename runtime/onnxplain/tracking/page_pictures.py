"""The hardest pictures on a training's page: what the network said of each, checkpoint by checkpoint, and why."""

from collections.abc import Sequence
from dataclasses import dataclass
from string import Template

import numpy as np
from numpy.typing import NDArray

from onnxplain.heatmap import overlay
from onnxplain.report import ReportMap, breakable, image_tag, percent, text
from onnxplain.report_page import LEGEND
from onnxplain.tracking.page_charts import dots, floor_of, line, number, plot, scale_of, step_labels, tick_labels
from onnxplain.tracking.training import NOTHING, Bands, Training

MOST_RUNS = 6
"""Lines that tell what a picture was taken for."""
SURE = 0.8
"""A probability from which a network's wrong answer makes one look at the label."""


@dataclass(frozen=True, slots=True)
class HardPicture:
    """One of the hardest pictures: its number, what the network saw (None: unknown), and maps by what they explain."""

    number: int
    seen: NDArray[np.uint8] | None = None
    maps: Sequence[tuple[str, Sequence[ReportMap]]] = ()
    note: str = ""


def hardest_pictures(training: Training, bands: Bands, hard: Sequence[HardPicture]) -> str:
    """The section of the page on the hardest pictures."""
    curve = (
        " The curve is the picture's own, with a dot at each checkpoint, green where it got its label and red where "
        "not; dashed is the mean of its class."
    )
    maps = " The maps show where the last checkpoint looked, for what it said and for the label."
    note = f"Hardest for the last checkpoint.{curve if len(training.steps) > 1 else ''}"
    note += maps if any(each.maps for each in hard) else ""
    title = f"The {len(hard)} hardest pictures" if len(hard) > 1 else "The hardest picture"
    cards = "".join(f"<li>{_card(training, bands, each, rank)}</li>" for rank, each in enumerate(hard, 1))
    return (
        f'<section id="hardest"><h2>{title}</h2><p>{text(note)}</p>'
        f'{_legend() if any(each.maps for each in hard) else ""}<ol class="hard">{cards}</ol></section>'
    )


def _legend() -> str:
    """What the maps' colours mean, over a picture of middling grey."""
    stops = overlay(np.full((9, 3), 150, np.uint8), np.linspace(0, 1, 9))
    return Template(LEGEND).substitute(stops=", ".join(f"rgb({red} {green} {blue})" for red, green, blue in stops))


def _card(training: Training, bands: Bands, hard: HardPicture, rank: int) -> str:
    picture, label = hard.number, int(training.labels[hard.number])
    name, said = training.pictures[picture], int(training.predicted[-1, picture])
    verdict = "is" if said == label else "not"
    sure = f", <span>{text(_share(training, training.confidence[-1, picture]))}</span>" if said != NOTHING else ""
    seen = "" if hard.seen is None else image_tag(hard.seen, f"{name}, as the network sees it")
    why = "".join(_maps(heading, maps, name) for heading, maps in hard.maps)
    why += f'<p class="note">{text(hard.note)}</p>' if hard.note else ""
    hint = _hint(training, picture)
    return (
        f'<article><header><span class="rank">{rank}</span><h3>label <bdi>{text(training.name(label))}</bdi>, said '
        f'<bdi class="{verdict}">{text(training.name(said))}</bdi>{sure}</h3>'
        f'<span class="file"><bdi>{breakable(name)}</bdi></span></header>'
        f"{f'<p class=hint>{text(hint)}</p>' if hint else ''}"
        f'<div class="sight"><figure class="seen">{seen}</figure>'
        f'<div class="course">{_course(training, bands, picture)}</div><div class="why">{why}</div></div></article>'
    )


def _hint(training: Training, picture: int) -> str:
    """That a label should be looked at: the network is sure of another class, and has never said this one."""
    label, given = training.labels[picture], training.predicted[:, picture]
    if given[-1] in (label, NOTHING) or not training.softens or training.confidence[-1, picture] < SURE:
        return ""
    others = training.of_class(int(label))
    others = others[others != picture]
    if not len(others) or (training.predicted[-1][others] == label).mean() < 0.5:
        return ""  # the class may not be learned at all: that says nothing of this picture
    if (given == label).any():
        return "It was right before: look at what the maps show now."
    return "No checkpoint ever said its label, though the class is learned: look whether the label is right."


def _course(training: Training, bands: Bands, picture: int) -> str:
    """The metric of one picture over the checkpoints, and what it was taken for."""
    values, label, steps = training.values[:, picture], int(training.labels[picture]), training.steps
    mean = bands[label][1]
    scale = scale_of(steps, [values, mean], floor_of([values, mean]))
    kinds = ["right" if given == label else "wrong" for given in training.predicted[:, picture]]
    parts = [line(scale, steps, mean, "all"), line(scale, steps, values, "own"), dots(scale, steps, values, kinds)]
    said = f"{number(values[0])} at step {steps[0]}, {number(values[-1])} at step {steps[-1]}"
    chart = plot(scale, parts, f"{training.metric.words} of {training.pictures[picture]}: {said}", 3)
    curve = f'<div class="chart">{chart}{tick_labels(scale, 3)}{step_labels(scale, steps)}</div>'
    return (
        f"<h4>{text(training.metric.words.capitalize())} {text(number(values[-1]))} "
        f"<small>{text(f'mean of its class {number(mean[-1])}')}</small></h4>"
        f"{curve if len(steps) > 1 else ''}{_runs(training, picture)}{_each_step(training, picture)}"
    )


def _runs(training: Training, picture: int) -> str:
    """What a picture was taken for, checkpoint by checkpoint, in as few lines as tell it."""
    runs, label = training.runs_of(picture), training.labels[picture]
    lines = []
    for start, end, given in runs[-MOST_RUNS:]:
        first, last = training.steps[start], training.steps[end]
        when = f"step {first}" if first == last else f"steps {first}–{last}"
        kind = "right" if given == label else "wrong"
        share = "" if given == NOTHING else _share(training, training.confidence[end, picture])
        lines.append(
            f'<li><span class="when">{when}</span><bdi class="{kind}">{text(training.name(given))}</bdi>'
            f'<span class="sure">{share}</span></li>'
        )
    before = len(runs) - len(lines)
    earlier = f'<p class="note">{before} other answers before that</p>' if before else ""
    return f'{earlier}<ol class="said" aria-label="What the network said">{"".join(lines)}</ol>'


def _each_step(training: Training, picture: int) -> str:
    rows = "".join(
        f'<tr><th scope="row">{step}</th><td>{text(number(training.values[place, picture]))}</td>'
        f"<td><bdi>{text(training.name(training.predicted[place, picture]))}</bdi></td>"
        f"<td>{_share(training, training.confidence[place, picture])}</td>"
        f"<td>{_share(training, training.probability[place, picture])}</td></tr>"
        for place, step in enumerate(training.steps)
    )
    head = "".join(
        f'<th scope="col">{text(each)}</th>'
        for each in ("step", training.metric.words, "said", "of that", "of its label")
    )
    return (
        "<details><summary>Each checkpoint</summary>"
        f'<div class="table"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div></details>'
    )


def _maps(heading: str, maps: Sequence[ReportMap], name: str) -> str:
    figures = "".join(
        f"<figure>{image_tag(each.pixels, f'{each.caption} map of {name}, {heading}')}"
        f"<figcaption>{breakable(each.caption)}</figcaption></figure>"
        for each in maps
    )
    return f'<div><h4>{text(heading)}</h4><div class="maps">{figures}</div></div>'


def _share(training: Training, value: float) -> str:
    """A probability, or a score where the network gives none."""
    return percent(float(value)) if training.softens else number(float(value))
