"""A batch in a notebook's cell: a row for each picture, beside it its maps, each with a caption."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxplain.errors import ParameterError
from onnxplain.pictures import png_bytes
from onnxplain.report import image_tag, text
from onnxplain.resize import resize

# Heights in pixels of a picture in the PNG, of the captions under it, and the gaps between.
TILE, CAPTION, SPACE = 160, 20, 8
# Notebooks have a light or a dark page of their own: its colours are taken over.
STYLE = (
    "display:inline-block;vertical-align:top;margin:0 10px 10px 0;width:{width}px;"
    "font:12px/1.35 system-ui,sans-serif;text-align:left"
)
QUIET = "font:12px system-ui,sans-serif;opacity:.7"


@dataclass(frozen=True, slots=True)
class NotebookRow:
    """One picture: its name, how the network saw it, RGB uint8 `[H, W, 3]` (None: unknown), and (caption, picture) of
    each of its maps; `more` maps are left out.
    """

    name: str
    seen: NDArray[np.uint8] | None
    maps: Sequence[tuple[str, NDArray[np.uint8]]]
    more: int = 0

    def tiles(self) -> list[tuple[str, NDArray[np.uint8]]]:
        """What is shown of it: the picture, then its maps."""
        return [*([] if self.seen is None else [(self.name, self.seen)]), *self.maps]


def notebook_html(rows: Sequence[NotebookRow], heading: str = "", more: int = 0) -> str:
    """Return the rows as HTML for a notebook's cell; all names are shown as text, never interpreted.

    `more` is the number of pictures that are left out, which is said below.
    """
    head = f'<div style="margin:0 0 8px;font:600 13px system-ui,sans-serif">{text(heading)}</div>' if heading else ""
    foot = f'<div style="{QUIET}">and {more} more picture{"s" if more > 1 else ""}</div>' if more else ""
    return f"<div>{head}{''.join(map(_line, rows))}{foot}</div>"


def _line(row: NotebookRow) -> str:
    more = f'<span style="{QUIET}">and {row.more} more</span>' if row.more else ""
    return f"<div>{''.join(_figure(caption, pixels) for caption, pixels in row.tiles())}{more}</div>"


def _figure(caption: str, pixels: NDArray[np.uint8]) -> str:
    width = _tile_width(pixels)
    image = image_tag(pixels, caption).replace(
        "<img", f'<img style="width:{width}px;height:{TILE}px;margin:0;image-rendering:{_rendering(pixels)}"', 1
    )
    words = f'<span style="display:block;overflow-wrap:anywhere;opacity:.8">{text(caption)}</span>'
    return f'<span style="{STYLE.format(width=width)}">{image}{words}</span>'


def _rendering(pixels: NDArray[np.uint8]) -> str:
    return "pixelated" if pixels.shape[0] < TILE else "auto"


def _tile_width(pixels: NDArray[np.uint8]) -> int:
    return max(1, round(TILE * pixels.shape[1] / pixels.shape[0]))


def notebook_png(rows: Sequence[NotebookRow]) -> bytes:
    """Return the rows as one PNG on white, for viewers without HTML; letters that its font lacks become "?"."""
    if not any(row.tiles() for row in rows):
        raise ParameterError("there is nothing to show: no pictures and no maps")
    lines = [np.hstack([_tile(caption, pixels) for caption, pixels in row.tiles()]) for row in rows]
    width = max(line.shape[1] for line in lines)
    padded = [np.pad(line, ((0, 0), (0, width - line.shape[1]), (0, 0)), constant_values=255) for line in lines]
    return png_bytes(np.vstack(padded))


def _tile(caption: str, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A picture TILE pixels high over its caption, with space round them."""
    import cv2  # heavy, and needed only where pictures are read or drawn

    width = _tile_width(pixels)
    kernel = "nearest" if pixels.shape[0] < TILE else "bilinear"
    tile = np.full((TILE + CAPTION + SPACE, width + SPACE, 3), 255, np.uint8)
    tile[:TILE, :width] = resize(pixels, TILE, width, kernel=kernel, antialias=kernel == "bilinear")
    letters = (letter for letter in unicodedata.normalize("NFKD", caption) if not unicodedata.combining(letter))
    words = "".join(letters).encode("ascii", "replace").decode("ascii")
    strip = np.full((CAPTION, width, 3), 255, np.uint8)
    cv2.putText(strip, words, (1, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (60, 60, 60), 1, cv2.LINE_AA)
    tile[TILE : TILE + CAPTION, :width] = strip
    return tile
