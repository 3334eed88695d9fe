"""Curves over steps as HTML and SVG: the drawing stretches with the page, its text doesn't."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.report import text

NARROWEST, DIGIT, BETWEEN = 170, 7, 8
"""Pixels: a chart on a telephone, a digit, and the room between two numbers below it."""


@dataclass(frozen=True, slots=True)
class Scale:
    """Where steps and values lie in a chart, in per cent from the left and from the top."""

    first: float
    last: float
    low: float
    high: float

    def x(self, step: float) -> float:
        """From the left; a single step is in the middle."""
        return 50.0 if self.last == self.first else 100 * (step - self.first) / (self.last - self.first)

    def y(self, value: float) -> float:
        """From the top; what lies outside is at the edge."""
        return 100 * (1 - min(max((value - self.low) / (self.high - self.low), 0.0), 1.0))


def scale_of(steps: Sequence[int], values: Iterable[Any], floor: float | None = None) -> Scale:
    """A scale in which all finite values lie, with a little room; it begins at `floor` where none lies below."""
    found = np.concatenate([np.ravel(np.asarray(each, np.float64)) for each in values] or [np.zeros(0)])
    found = found[np.isfinite(found)]
    low, high = (float(found.min()), float(found.max())) if len(found) else (0.0, 1.0)
    low = floor if floor is not None and low >= floor else low
    room = 0.04 * (high - low) or 0.5 * abs(high) or 0.5
    return Scale(steps[0], steps[-1], low if low == floor else low - room, high + room)


def plot(scale: Scale, parts: Iterable[str], description: str, most: int = 5) -> str:
    """The drawing: `parts` as `line`, `band` and `dots` make them, over lines at the ticks, about so many at most."""
    rules = "".join(f'<path class="rule" d="M0 {scale.y(tick):.2f}H100"/>' for tick in ticks(scale, most))
    return (
        f'<svg class="plot" viewBox="0 0 100 100" preserveAspectRatio="none" role="img" '
        f'aria-label="{text(description)}">{rules}{"".join(parts)}</svg>'
    )


def line(scale: Scale, steps: Sequence[int], values: Sequence[float] | NDArray[Any], kind: str) -> str:
    """A curve, broken where a value isn't finite; a value alone between such is a dot."""
    return f'<path class="line {kind}" d="{"".join(_open(scale, run) for run in _finite_runs(steps, values))}"/>'


def band(scale: Scale, steps: Sequence[int], low: Sequence[float], high: Sequence[float], kind: str) -> str:
    """The area between two curves, where both are finite."""
    both = np.isfinite(np.asarray(low, float)) & np.isfinite(np.asarray(high, float))
    shapes = []
    for run in _finite_runs(range(len(steps)), np.where(both, 0.0, np.nan)):
        places = [int(place) for place, _ in run]
        there = [f"{scale.x(steps[at]):.2f} {scale.y(high[at]):.2f}" for at in places]
        back = [f"{scale.x(steps[at]):.2f} {scale.y(low[at]):.2f}" for at in reversed(places)]
        if len(places) > 1:
            shapes.append(f"M{'L'.join(there + back)}Z")
        else:  # bounds of one step are a stroke
            shapes.append(f"M{there[0]}L{back[0]}Z")
    return f'<path class="band {kind}" d="{"".join(shapes)}"/>'


def dots(scale: Scale, steps: Sequence[int], values: Sequence[float] | NDArray[Any], kinds: Sequence[str]) -> str:
    """A dot for each value of its kind, as long as it is finite; at the top edge for one that isn't."""
    found = []
    for kind in dict.fromkeys(kinds):
        places = [place for place, each in enumerate(kinds) if each == kind]
        # A line of no length with round ends: a circle would be stretched with the drawing.
        marks = "".join(
            f"M{scale.x(steps[at]):.2f} {scale.y(values[at]) if math.isfinite(values[at]) else 0:.2f}h0"
            for at in places
        )
        found.append(f'<path class="dot {kind}" d="{marks}"/>')
    return "".join(found)


def ticks(scale: Scale, most: int = 5) -> list[float]:
    """Round numbers within a scale, no more than `most` steps apart."""
    span = scale.high - scale.low
    unit = 10.0 ** math.floor(math.log10(span / most))
    step = next(unit * factor for factor in (1, 2, 5, 10, 20) if span / (unit * factor) <= most)
    first = math.ceil(scale.low / step - 1e-9)
    return [step * number for number in range(first, math.floor(scale.high / step + 1e-9) + 1)]


def tick_labels(scale: Scale, most: int = 5) -> str:
    """The ticks' numbers, for the left of a chart."""
    return "".join(
        f'<span class="tick" style="top:{scale.y(tick):.2f}%">{number(float(f"{tick:.9g}"))}</span>'
        for tick in ticks(scale, most)
    )


def step_labels(scale: Scale, steps: Sequence[int]) -> str:
    """Some of the steps, for the foot of a chart: first and last, and round ones between where they have room."""
    room = 100 * (DIGIT * len(str(steps[-1])) + BETWEEN) / NARROWEST
    least = max(1.0, room * (scale.last - scale.first) / 100)
    unit = 10 ** math.floor(math.log10(least))
    between = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= least)
    round_ones = [step for step in steps if step % between == 0]
    chosen = [steps[0]]
    for step in round_ones if len(round_ones) > 2 else steps:
        if min(scale.x(step) - scale.x(chosen[-1]), scale.x(steps[-1]) - scale.x(step)) >= room:
            chosen.append(step)
    chosen += [steps[-1]] if len(steps) > 1 else []
    return "".join(f'<span class="step" style="left:{scale.x(step):.2f}%">{step}</span>' for step in chosen)


def apart(places: Sequence[float], gap: float) -> list[float]:
    """Places in per cent, moved as little as keeps them `gap` apart and within 0..100, in the order given."""
    order = sorted(range(len(places)), key=lambda at: places[at])
    moved = [0.0] * len(places)
    lowest = gap / 2
    for rank, at in enumerate(order):
        moved[at] = max(places[at], lowest if not rank else moved[order[rank - 1]] + gap)
    highest = 100 - gap / 2
    for rank, at in reversed(list(enumerate(order))):
        moved[at] = min(moved[at], highest if rank == len(order) - 1 else moved[order[rank + 1]] - gap)
    return moved


def number(value: float) -> str:
    """A value of a metric as a person reads it."""
    if math.isnan(value):
        return "not a number"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if 0 < abs(value) < 0.001:
        return f"{value:.0e}".replace("e-0", "e-").replace("-", "−")
    plain = f"{value:.3g}" if abs(value) < 1e5 else f"{value:.2e}"
    return plain.replace("-", "−")


def _open(scale: Scale, run: Sequence[tuple[float, float]]) -> str:
    points = [f"{scale.x(step):.2f} {scale.y(value):.2f}" for step, value in run]
    return f"M{'L'.join(points)}" if len(points) > 1 else f"M{points[0]}h0"


def _finite_runs(steps: Iterable[float], values: Any) -> list[list[tuple[float, float]]]:
    """The parts of a curve without NaN and infinity."""
    runs: list[list[tuple[float, float]]] = [[]]
    for step, value in zip(steps, values, strict=True):
        if math.isfinite(value):
            runs[-1].append((float(step), float(value)))
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def floor_of(values: Sequence[NDArray[np.float64]]) -> float | None:
    """0 for what is never negative: curves that stand on it can be compared."""
    return 0.0 if all(np.nanmin(each, initial=0.0) >= 0 for each in values) else None
