"""One figure for a batch: a row for each picture, a column for each thing that is known of it."""

import io
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.display.fastestimator import display_pixels
from onnxplain.errors import OnnxplainError, ParameterError
from onnxplain.heatmap import colours
from onnxplain.output import write_bytes
from onnxplain.report import SMALL

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# The width of a column of text, and the gaps between cells, as shares of a row's height.
TEXT_WIDTH = 0.6
GAP = 0.06
# Lines of the heads and of the title, in inches; characters on a line of text, for each inch of a column.
HEAD, TITLE = 0.17, 0.35
CHARACTERS = 11


def figure_grid(
    columns: Mapping[str, Sequence[Any]],
    path: str | Path | None = None,
    *,
    title: str = "",
    colour_map: str = "inferno",
    size: float = 2.0,
    dpi: int = 100,
) -> "Figure":
    """Return a matplotlib figure of `columns`: titles, each with one entry for every row.

    An entry is a map, float `[H, W]`, drawn in `colour_map`; a picture, `[H, W, 3]`, `[H, W, 1]` or uint8 `[H, W]`
    (`display_pixels` says how floats become colours); None, an empty cell; or anything else, written as text. `size` is
    the height of a row in inches. With `path` the figure is also written there as PNG, whole or not at all. Raises
    ParameterError where columns differ in length, OutputError where the file can't be written, and OnnxplainError where
    matplotlib is missing. `grid_columns` makes FastEstimator's columns.
    """
    figure_class = _figure_class()
    lengths = {len(entries) for entries in columns.values()}
    if len(lengths) != 1 or lengths == {0}:
        raise ParameterError(f"a grid needs columns of one length, at least 1, not of {sorted(lengths)}")
    drawn = [[_pixels(entry, colour_map) for entry in entries] for entries in columns.values()]
    widths = [_width(entries, pictures, size) for entries, pictures in zip(columns.values(), drawn, strict=True)]
    heads = [textwrap.fill(name, int(CHARACTERS * width * size)) for name, width in zip(columns, widths, strict=True)]
    figure, axes = _frame(figure_class, widths, lengths.pop(), heads, title, size, dpi)
    for at, (entries, pictures) in enumerate(zip(columns.values(), drawn, strict=True)):
        axes[0][at].set_title(_literal(heads[at]), fontsize=9)
        for axis, entry, pixels in zip(axes[:, at], entries, pictures, strict=True):
            _fill(axis, entry, pixels, int(CHARACTERS * widths[at] * size))
    if path is not None:
        data = io.BytesIO()
        figure.savefig(data, format="png", dpi=dpi)
        write_bytes(path, data.getvalue())
    return figure


def _figure_class() -> "type[Figure]":
    try:
        from matplotlib.figure import Figure  # heavy, and an extra
    except ImportError:
        raise OnnxplainError('figures need matplotlib: pip install "onnxplain[plots]"') from None
    # Without pyplot: no window, no global state, and nothing to be closed.
    return Figure


def _frame(
    figure_class: "type[Figure]",
    widths: Sequence[float],
    rows: int,
    heads: Sequence[str],
    title: str,
    size: float,
    dpi: int,
) -> "tuple[Figure, NDArray[Any]]":
    """An empty figure and its axes [rows, columns]; `widths` are shares of a row's height, `size` that in inches."""
    gap = GAP * size
    top = HEAD * (max(head.count("\n") for head in heads) + 1) + 0.12 + (TITLE if title else 0.0)
    across = size * sum(widths) + gap * (len(widths) + 1)
    down = size * rows + gap * rows + top
    figure = figure_class(figsize=(across, down), dpi=dpi, facecolor="white")
    grid = figure.add_gridspec(
        rows,
        len(widths),
        width_ratios=widths,
        left=gap / across,
        right=1 - gap / across,
        bottom=gap / down,
        top=1 - top / down,
        wspace=gap * len(widths) / (size * sum(widths)),
        hspace=GAP,
    )
    if title:
        figure.suptitle(_literal(title), fontsize=12, y=1 - 0.08 / down, va="top")
    return figure, grid.subplots(squeeze=False)


def _pixels(entry: Any, colour_map: str) -> NDArray[np.uint8] | None:
    """An entry as RGB uint8 [H, W, 3]; None for text and empty cells."""
    if not isinstance(entry, np.ndarray) or entry.ndim < 2:
        return None
    if entry.ndim == 2 and not np.issubdtype(entry.dtype, np.integer):
        return colours(display_pixels(entry) / 255, colour_map)
    pixels = display_pixels(entry)
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    if pixels.shape[2] not in (1, 3):
        raise ParameterError(f"a picture has 1 or 3 channels, last of its axes: not {list(entry.shape)}")
    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels


def _width(entries: Sequence[Any], pictures: Sequence[NDArray[np.uint8] | None], size: float) -> float:
    """A column's width in row heights: that of its widest picture, or what its longest word takes."""
    widest = [pixels.shape[1] / pixels.shape[0] for pixels in pictures if pixels is not None]
    if widest:
        return max(widest)
    words = [word for entry in entries if entry is not None for word in str(entry).split()]
    return max(TEXT_WIDTH, (max(map(len, words), default=0) + 1) / (CHARACTERS * size))


def _fill(axis: "Axes", entry: Any, pixels: NDArray[np.uint8] | None, characters: int) -> None:
    axis.set_axis_off()
    if pixels is not None:
        # A small picture's pixels are shown as squares; a large one is shrunk smoothly.
        axis.imshow(pixels, interpolation="nearest" if pixels.shape[0] < SMALL else "antialiased")
    elif entry is not None:
        words = textwrap.fill(str(entry), characters)
        axis.text(0.5, 0.5, _literal(words), ha="center", va="center", fontsize=10, transform=axis.transAxes)


def _literal(words: str) -> str:
    """Text for matplotlib, where a dollar sign would begin a formula."""
    return words.replace("$", r"\$")
