"""Methods × pictures on one HTML page that stands alone, with zoom in step over the maps of a picture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.display.comparison_page import BOARD, COMPARISON_STYLE, SCRIPT
from onnxplain.errors import ParameterError
from onnxplain.heatmap import at_size, colours, diverging, overlay
from onnxplain.output import write_bytes
from onnxplain.report import breakable, image_tag, standing_page, text
from onnxplain.report_page import BASE_STYLE

# Ways to see a map, in the order of the page's switch.
VIEWS = {"overlay": "Overlay", "map": "Map", "signed": "Signed", "picture": "Picture"}


@dataclass(frozen=True, slots=True)
class ComparisonMap:
    """One map of a picture: `heat` `[h, w]` in 0..1 (see `heatmap`), and with its sign `[h, w]` in −1..1 (see
    `signed_map`; None: not to be shown), and a line of small print.
    """

    heat: NDArray[Any]
    signed: NDArray[Any] | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class ComparisonPicture:
    """One picture as the network saw it, RGB uint8 `[H, W, 3]` (None: unknown), with its maps by column."""

    name: str
    seen: NDArray[np.uint8] | None
    maps: Mapping[str, ComparisonMap] = field(default_factory=dict)
    note: str = ""


def write_comparison(
    path: str | Path,
    pictures: Sequence[ComparisonPicture],
    columns: Sequence[str] | None = None,
    *,
    title: str = "Comparison",
    introduction: Sequence[str] = (),
    provenance: Mapping[str, str] | None = None,
    colour_map: str = "inferno",
) -> None:
    """Write the comparison to one HTML file, whole or not at all; raises OutputError. See `comparison_page`."""
    page = comparison_page(
        pictures, columns, title=title, introduction=introduction, provenance=provenance, colour_map=colour_map
    )
    write_bytes(path, page.encode("utf-8"))


def comparison_page(
    pictures: Sequence[ComparisonPicture],
    columns: Sequence[str] | None = None,
    *,
    title: str = "Comparison",
    introduction: Sequence[str] = (),
    provenance: Mapping[str, str] | None = None,
    colour_map: str = "inferno",
) -> str:
    """Return a page with a row for each picture and a column for each method.

    `columns` are the names of maps to show, in order (by default all, as they first appear); a picture without one gets
    an empty cell. All text is plain: whatever it holds is shown, never interpreted. Raises ParameterError for a column
    that no picture has, and for maps that are no `[h, w]`.
    """
    present = list(dict.fromkeys(name for picture in pictures for name in picture.maps))
    chosen = present if columns is None else list(columns)
    if not chosen:
        raise ParameterError("there is nothing to compare: no maps")
    for name in chosen:
        if name not in present:
            raise ParameterError(f"no picture has a map {name!r}; they have {', '.join(present) or 'none'}")
    signed = any(each.signed is not None for picture in pictures for each in picture.maps.values())
    body = Template(BOARD).substitute(
        views="".join(_view(view, signed) for view in VIEWS),
        columns=len(chosen),
        heads="".join(f'<th scope="col">{breakable(name)}</th>' for name in chosen),
        rows="\n".join(_row(picture, chosen, colour_map) for picture in pictures),
        stops=", ".join(f"rgb({r} {g} {b})" for r, g, b in colours(np.linspace(0, 1, 9), colour_map)),
        signed_stops=", ".join(f"rgb({r} {g} {b})" for r, g, b in diverging(np.linspace(-1, 1, 9))),
    )
    style = BASE_STYLE + COMPARISON_STYLE
    return standing_page(title, introduction, None, body, provenance, style, SCRIPT)


def _view(view: str, signed: bool) -> str:
    """One choice of the switch between views."""
    if view == "signed" and not signed:
        return ""
    checked = " checked" if view == "overlay" else ""
    return f'<label><input type="radio" name="view" value="{view}"{checked}><span>{VIEWS[view]}</span></label>'


def _row(picture: ComparisonPicture, columns: Sequence[str], colour_map: str) -> str:
    heights = [picture.seen] if picture.seen is not None else [each.heat for each in picture.maps.values()]
    ratio = heights[0].shape[1] / heights[0].shape[0] if heights else 1.0
    note = f"<small>{text(picture.note)}</small>" if picture.note else ""
    seen = (
        ""
        if picture.seen is None
        else _cell(image_tag(picture.seen, f"{picture.name}, as the network sees it", webp=True))
    )
    cells = "".join(f"<td>{_map(picture, name, colour_map)}</td>" for name in columns)
    return (
        f'<tr class="pictures" style="--ratio:{ratio:.4f}"><th scope="row">{seen}'
        f'<div class="name"><bdi>{breakable(picture.name)}</bdi>{note}</div><div class="zoom"></div></th>{cells}</tr>'
    )


def _cell(images: str) -> str:
    return f'<div class="cell"><div class="layer">{images}</div></div>'


def _map(picture: ComparisonPicture, column: str, colour_map: str) -> str:
    each = picture.maps.get(column)
    if each is None:
        return '<p class="none">no map</p>'
    if each.heat.ndim != 2 or (each.signed is not None and each.signed.shape != each.heat.shape):
        shapes = " and ".join(str(list(values.shape)) for values in (each.heat, each.signed) if values is not None)
        raise ParameterError(f"a map of one picture is [h, w], signed or not; {column} of {picture.name} is {shapes}")
    of = f"{column} map of {picture.name}"
    images = [_shown("map", colours(each.heat, colour_map), of)]
    if picture.seen is not None:
        heat = at_size(each.heat, *picture.seen.shape[:2])
        images.append(_shown("overlay", overlay(picture.seen, heat, colour_map), f"{of}, over it"))
    if each.signed is not None:
        images.append(_shown("signed", diverging(each.signed), f"signed {of}"))
    note = f"<small>{text(each.note)}</small>" if each.note else ""
    return _cell("".join(images)) + note


def _shown(view: str, pixels: NDArray[np.uint8], description: str) -> str:
    return f'<div class="view {view}">{image_tag(pixels, description, webp=True)}</div>'
