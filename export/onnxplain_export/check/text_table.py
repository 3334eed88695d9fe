"""Plain-text tables that fit a terminal."""

import shutil
import textwrap
from collections.abc import Iterator, Sequence

WIDEST = 100
NARROWEST, LONGEST_WORD = 12, 40
"""Characters: of a column, and of a word that isn't broken."""
GAP = "  "


def wrapped(line: str) -> list[str]:
    """A line as several that fit the terminal; what follows the first is indented."""
    return textwrap.wrap(line, _width(), subsequent_indent="    ", break_on_hyphens=False) or [""]


def table(header: Sequence[str], rows: Sequence[Sequence[str]], width: int | None = None) -> Iterator[str]:
    """The lines of a table no wider than `width`, or the terminal: cells that are too long go on in the next line."""
    widths = _widths([header, *rows], width or _width())
    for row in [header, *rows]:
        cells = [
            textwrap.wrap(cell, size, break_on_hyphens=False) or [""] for cell, size in zip(row, widths, strict=True)
        ]
        for number in range(max(map(len, cells))):
            parts = [cell[number] if number < len(cell) else "" for cell in cells]
            yield GAP.join(part.ljust(size) for part, size in zip(parts, widths, strict=True)).rstrip()


def _width() -> int:
    return min(WIDEST, shutil.get_terminal_size((WIDEST, 24)).columns)


def _widths(rows: Sequence[Sequence[str]], width: int) -> list[int]:
    """Each column as wide as its longest cell; the widest are narrowed until all fit."""
    columns = list(zip(*rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    least = [
        min(max((len(word) for cell in column for word in cell.split()), default=0), LONGEST_WORD) for column in columns
    ]
    while sum(widths) + len(GAP) * (len(widths) - 1) > width:
        narrowable = [i for i, size in enumerate(widths) if size > max(least[i], NARROWEST)]
        if not narrowable:
            break
        widths[max(narrowable, key=widths.__getitem__)] -= 1
    return widths
