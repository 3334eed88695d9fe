"""Curves over training, one panel over another, each with its legend beside it; many bands get panels of their own."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.errors import OnnxplainError, ParameterError
from onnxplain.output import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Ten that colour-blind readers can tell apart on white: Okabe and Ito's (jfly.uni-koeln.de/color, 2008) without yellow,
# and three of Paul Tol's muted ones (personal.sron.nl/~pault, 2021). The second ten are dashed.
COLOURS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#882255", "#999933", "#332288",
)  # fmt: skip
REST = "#c4c4c4"
MOST = 20
"""Curves that are named; of more, the NAMED highest and the NAMED lowest."""
NAMED = 5
BANDS = 4
"""Bands that one panel can show; more are drawn each in a small panel of its own, ACROSS in a row."""
ACROSS = 5
MARKERS = {"highest": "^", "lowest": "v", "listed": "o", "": "o"}
MARKED = 30
"""Steps up to which each has a marker."""
CROSS, CROSSES = 0.04, 0.24
"""Heights of a cross for a value that is no number, and of all of them, as shares of a panel."""
CHARACTERS, FEWER = 30, 20
"""Of a name beside a panel, and over a small one."""
WIDTH, HEIGHT, SMALL = 9.0, 4.4, 1.5
"""Inches of a figure, of a panel, and of a row of small ones."""
DPI = 120


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """A named curve at ascending steps [S], with a band where `low` and `high` are given."""

    name: str
    steps: NDArray[np.integer]
    values: NDArray[np.float64]
    low: NDArray[np.float64] | None = None
    high: NDArray[np.float64] | None = None
    group: str = ""

    @property
    def last(self) -> float:
        return float(self.values[-1])


@dataclass(frozen=True, slots=True)
class Panel:
    """The curves of one pair of axes, in the order of their colours."""

    title: str
    curves: Sequence[Curve]


def draw(panels: Sequence[Panel], metric: str, what: str, path: str | Path | None, title: str) -> "Figure":
    """A figure of the panels, written to `path` as PNG if given; `what` a curve stands for ("label") heads the legend.

    Raises ParameterError where there is nothing to draw, OnnxplainError where matplotlib is missing, and OutputError.
    """
    if not panels or not all(panel.curves for panel in panels):
        raise ParameterError("nothing to draw: no epoch has been recorded")
    shown = [_Shown(panel) for panel in panels]
    heights = [height for each in shown for height in (HEIGHT, SMALL * each.rows + 0.4 * bool(each.rows)) if height]
    figure = _figure_class()(
        figsize=(WIDTH, sum(heights) + (0.4 if title else 0.0)), dpi=DPI, facecolor="white", layout="constrained"
    )
    if title:
        figure.suptitle(title, fontsize=13, parse_math=False)
    places = iter(figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0])
    for each in shown:
        _main(next(places).subplots(), each, metric, what)
        if each.rows:
            _small(next(places).subplots(each.rows, ACROSS, sharex=True, sharey=True, squeeze=False), each)
    if path is not None:
        data = io.BytesIO()
        figure.savefig(data, format="png", dpi=DPI)
        write_bytes(path, data.getvalue())
    return figure


class _Shown:
    """A panel's curves as they are named: the highest last value first, NaN before all."""

    def __init__(self, panel: Panel) -> None:
        self.panel = panel
        ranked = sorted(panel.curves, key=lambda curve: _rank(curve.last), reverse=True)
        self.named = ranked if len(ranked) <= MOST else [*ranked[:NAMED], *ranked[-NAMED:]]
        self.rest = [] if len(ranked) <= MOST else ranked[NAMED:-NAMED]
        chosen = set(self.named)
        # Labels keep their colours from epoch to epoch; samples, which come and go, get them as they are named.
        ordered = self.named if any(curve.group for curve in self.named) else panel.curves
        self.at = {curve: at for at, curve in enumerate(curve for curve in ordered if curve in chosen)}
        self.steps = np.unique(np.concatenate([curve.steps for curve in panel.curves]))
        banded = len(self.named) > BANDS and self.named[0].low is not None and len(self.steps) > 1
        self.rows = -(-len(self.named) // ACROSS) if banded else 0

    def style(self, curve: Curve) -> dict[str, Any]:
        at = self.at[curve]
        return {"color": self.colour(curve), "linestyle": "-" if at < len(COLOURS) else (0, (4, 1.5))}

    def colour(self, curve: Curve) -> str:
        return COLOURS[self.at[curve] % len(COLOURS)] if curve in self.at else REST


def _figure_class() -> "type[Figure]":
    try:
        from matplotlib.figure import Figure  # heavy, and an extra
    except ImportError:
        raise OnnxplainError('figures need matplotlib: pip install "onnxplain[plots]"') from None
    # Without pyplot: no window, no global state, and nothing to be closed.
    return Figure


def _main(axis: "Axes", shown: _Shown, metric: str, what: str) -> None:
    """Every curve, and the legend; bands where they are few, or stand beside each other at a single step."""
    for curve in shown.rest:
        _line(axis, curve, curve.steps, color=REST, linewidth=0.8, zorder=1.5)
    alone = len(shown.steps) == 1
    lines = []
    for curve in shown.named:
        steps = curve.steps + (0.7 * (shown.at[curve] + 0.5) / len(shown.named) - 0.35 if alone else 0.0)
        if not shown.rows:
            _band(axis, curve, steps, shown.colour(curve))
        lines.append(_line(axis, curve, steps, linewidth=1.6, zorder=3, **shown.style(curve)))
    _dress(axis, shown, metric)
    _legend(axis, shown, lines, _crosses(axis, shown), what)


def _small(axes: NDArray[Any], shown: _Shown) -> None:
    """A panel for each named curve with its band, the means of the others in grey; in the order of the colours."""
    curves = sorted(shown.named, key=lambda curve: shown.at[curve])
    for axis, curve in zip(axes.flat, curves, strict=False):
        for other in shown.panel.curves:
            if other is not curve:
                _line(axis, other, other.steps, color="#dddddd", linewidth=0.6, markersize=0, zorder=1.5)
        _band(axis, curve, curve.steps, shown.colour(curve))
        _line(axis, curve, curve.steps, linewidth=1.3, markersize=0, zorder=3, color=shown.colour(curve))
        axis.set_title(
            _short(curve.name, FEWER), fontsize=8.5, loc="left", color=shown.colour(curve), pad=2, parse_math=False
        )
        axis.tick_params(labelsize=7.5)
        axis.locator_params(axis="x", integer=True, nbins=4)
        _clear(axis)
    for axis in axes.flat[len(curves) :]:
        axis.set_axis_off()
    # What stands over an empty place is the lowest of its column, and has the steps.
    for axis in axes[-2:].flat:
        axis.tick_params(labelbottom=axis in axes.flat[max(len(curves) - ACROSS, 0) : len(curves)])


def _dress(axis: "Axes", shown: _Shown, metric: str) -> None:
    axis.set_title(shown.panel.title, fontsize=11, loc="left", parse_math=False)
    axis.set_xlabel("step", fontsize=9)
    axis.set_ylabel(metric, fontsize=9, parse_math=False)
    axis.tick_params(labelsize=8.5)
    axis.margins(x=0.02)
    _clear(axis)
    # Every step where they are few, so that no tick stands between two of them.
    if len(shown.steps) <= 12:
        axis.set_xticks(shown.steps)
    else:
        axis.locator_params(axis="x", integer=True)
    if len(shown.steps) == 1:
        axis.set_xlim(shown.steps[0] - 0.5, shown.steps[0] + 0.5)


def _clear(axis: "Axes") -> None:
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(color="#e4e4e4", linewidth=0.6)
    axis.set_axisbelow(True)


def _line(axis: "Axes", curve: Curve, steps: NDArray[Any], **style: Any) -> Any:
    finite = np.where(np.isfinite(curve.values), curve.values, np.nan)
    marker = MARKERS[curve.group] if len(steps) <= MARKED else None
    return axis.plot(steps, finite, **{"marker": marker, "markersize": 3.5, **style})[0]


def _band(axis: "Axes", curve: Curve, steps: NDArray[Any], colour: str) -> None:
    if curve.low is None or curve.high is None:
        return
    if len(steps) == 1:
        axis.vlines(steps, curve.low, curve.high, color=colour, linewidth=3, alpha=0.35)
        return
    axis.fill_between(steps, curve.low, curve.high, color=colour, alpha=0.16, linewidth=0)
    for edge in (curve.low, curve.high):
        axis.plot(steps, edge, color=colour, linewidth=0.6, alpha=0.45)


def _crosses(axis: "Axes", shown: _Shown) -> bool:
    """A cross for each value that is no number, in a strip below the data; whether there are any."""
    crosses = [
        (step, curve) for curve in shown.panel.curves for step in curve.steps[~np.isfinite(curve.values)].tolist()
    ]
    if not crosses:
        return False
    most = max(sum(each == step for each, _ in crosses) for step in {step for step, _ in crosses})
    height = min(CROSS, CROSSES / most)
    strip = height * (most + 0.5)
    low, high = axis.get_ylim()
    ticks = [tick for tick in axis.get_yticks() if low <= tick <= high]
    axis.set_ylim(low - (high - low) * strip / (1 - strip), high)
    axis.set_yticks(ticks)
    axis.axhline(low, color="#999999", linewidth=0.7, linestyle=":")
    met: dict[int, int] = {}
    for step, curve in crosses:
        met[step] = met.get(step, 0) + 1
        style: dict[str, Any] = {"color": shown.colour(curve), "marker": "x", "markersize": 6, "linestyle": ""}
        axis.plot([step], [strip - height * met[step]], transform=axis.get_xaxis_transform(), zorder=4, **style)
    return True


def _legend(axis: "Axes", shown: _Shown, lines: Sequence[Any], crossed: bool, what: str) -> None:
    """Beside the panel: last values and names in the order in which the curves end, under a head for each group."""
    values = [f"{curve.last:#.3g}".rstrip(".") for curve in shown.named]
    width = max(map(len, values))
    rows: list[tuple[Any, str]] = []
    heads: set[str] = set()
    for at, (line, curve, value) in enumerate(zip(lines, shown.named, values, strict=True)):
        if shown.rest and at == NAMED:
            rows.append((axis.plot([], [], color=REST, linewidth=0.8)[0], f"{len(shown.rest)} others"))
        if curve.group not in heads | {""}:
            heads.add(curve.group)
            rows.append((axis.plot([], [], linestyle="")[0], curve.group))
        # Padded with spaces as wide as a figure.
        rows.append((line, f"{value:\u2007<{width}}  {_short(curve.name)}"))
    if crossed:
        rows.append((axis.plot([], [], color="#555555", marker="x", markersize=6, linestyle="")[0], "NaN or infinite"))
    legend = axis.legend(
        *zip(*rows, strict=True), title=f"last value, {what}", loc="upper left", bbox_to_anchor=(1.01, 1.0),
        borderaxespad=0.0, frameon=False, fontsize=8.5, title_fontsize=8.5, alignment="left", labelspacing=0.35,
    )  # fmt: skip
    for text in legend.get_texts():
        text.set_parse_math(False)
        if text.get_text() in heads:
            text.set_fontweight("bold")


def _rank(value: float) -> float:
    return np.inf if np.isnan(value) else value


def _short(name: str, characters: int = CHARACTERS) -> str:
    """A long name without its middle: file names differ at their ends."""
    half = (characters - 1) // 2
    return name if len(name) <= characters else f"{name[:half]}…{name[-half:]}"
