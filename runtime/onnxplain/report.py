"""One HTML file in which a person sees pictures, predictions and maps side by side; it needs nothing from outside."""

import base64
import hashlib
import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any
from unicodedata import category

import numpy as np
from numpy.typing import NDArray

from onnxplain.errors import OutputError
from onnxplain.heatmap import overlay
from onnxplain.output import write_bytes
from onnxplain.pictures import png_bytes
from onnxplain.report_page import BASE_STYLE, LEGEND, PAGE, REPORT_STYLE

# Below this width a picture's own pixels are shown as squares, not blurred.
SMALL = 160


@dataclass(frozen=True, slots=True)
class ReportMap:
    """One map: a caption (the method), RGB uint8 `[H, W, 3]`, and a line of small print."""

    caption: str
    pixels: NDArray[np.uint8]
    note: str = ""


@dataclass(frozen=True, slots=True)
class ReportRow:
    """What one model says of a picture: (label, value) predictions, best first, and its maps.

    The values are probabilities, drawn as bars; with `scores` they are plain numbers.
    """

    heading: str
    predictions: Sequence[tuple[str, float]] = ()
    maps: Sequence[ReportMap] = ()
    scores: bool = False
    note: str = ""


@dataclass(frozen=True, slots=True)
class ReportPicture:
    """One picture as the network saw it, RGB uint8 `[H, W, 3]` (None: not to be shown), with one row per model."""

    name: str
    seen: NDArray[np.uint8] | None
    rows: Sequence[ReportRow] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class ReportTable:
    """A table of text and numbers; a float cell is a share, 0..1, shown in per cent with a bar."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str | float]]
    note: str = ""


@dataclass(frozen=True, slots=True)
class ReportSection:
    """A heading with paragraphs, then tables, then pictures."""

    heading: str = ""
    paragraphs: Sequence[str] = ()
    tables: Sequence[ReportTable] = ()
    pictures: Sequence[ReportPicture] = ()


def write_report(
    path: str | Path,
    title: str,
    sections: Sequence[ReportSection],
    *,
    introduction: Sequence[str] = (),
    provenance: Mapping[str, str] | None = None,
    colour_map: str | None = "inferno",
) -> None:
    """Write the report to one HTML file, whole or not at all; raises OutputError. See `report_page` for the rest."""
    page = report_page(title, sections, introduction=introduction, provenance=provenance, colour_map=colour_map)
    write_bytes(path, page.encode("utf-8"))


def report_page(
    title: str,
    sections: Sequence[ReportSection],
    *,
    introduction: Sequence[str] = (),
    provenance: Mapping[str, str] | None = None,
    colour_map: str | None = "inferno",
) -> str:
    """Return the report as HTML. All text is plain: whatever it holds is shown, never interpreted.

    `colour_map` is the one that the maps were drawn with, explained under the introduction (None: no legend);
    `provenance` is printed at the foot, name by name.
    """
    body = "\n".join(map(_section, sections))
    return standing_page(title, introduction, colour_map, body, provenance, BASE_STYLE + REPORT_STYLE)


def standing_page(
    title: str,
    introduction: Sequence[str],
    colour_map: str | None,
    body: str,
    provenance: Mapping[str, str] | None,
    style: str,
    script: str = "",
) -> str:
    """Return a whole HTML page round `body`. It loads nothing, and no script runs but `script`."""
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    return Template(PAGE).substitute(
        title=text(title),
        style=style,
        policy=f"; script-src 'sha256-{digest}'" if script else "",
        introduction=_paragraphs(introduction),
        legend=_legend(colour_map) if colour_map else "",
        body=body,
        provenance="".join(
            f"<dt>{text(name)}</dt><dd>{text(value)}</dd>" for name, value in (provenance or {}).items()
        ),
        script=f"<script>{script}</script>\n" if script else "",
    )


def text(value: object) -> str:
    """Return any text as HTML: escaped, with the control characters and undecodable bytes of file names replaced."""
    hidden = {char for char in str(value) if category(char) in ("Cc", "Cs")} - {"\n", "\t"}
    return html.escape(str(value).translate({ord(char): "\N{REPLACEMENT CHARACTER}" for char in hidden}))


def _paragraphs(paragraphs: Sequence[str]) -> str:
    return "".join(f"<p>{text(paragraph)}</p>" for paragraph in paragraphs)


def _legend(colour_map: str) -> str:
    # As the maps are drawn, over a picture of middling grey.
    stops = overlay(np.full((9, 3), 150, np.uint8), np.linspace(0, 1, 9), colour_map)
    return Template(LEGEND).substitute(stops=", ".join(f"rgb({red} {green} {blue})" for red, green, blue in stops))


def _section(section: ReportSection) -> str:
    heading = f"<h2>{text(section.heading)}</h2>" if section.heading else ""
    parts = [heading, _paragraphs(section.paragraphs), *map(_table, section.tables), *map(_picture, section.pictures)]
    return f"<section>{''.join(parts)}</section>"


def _picture(picture: ReportPicture) -> str:
    note = f'<p class="note">{text(picture.note)}</p>' if picture.note else ""
    rows = "".join(_row(row, picture.name) for row in picture.rows)
    return (
        f"<article><header><h3><bdi>{text(picture.name)}</bdi></h3>{note}</header>"
        f'<div class="sight"><figure class="seen">{_seen(picture)}</figure>'
        f'<div class="rows">{rows}</div></div></article>'
    )


def _seen(picture: ReportPicture) -> str:
    if picture.seen is None:
        return "<figcaption>handed in as numbers</figcaption>"
    image = image_tag(picture.seen, f"{picture.name}, as the network sees it")
    return f"{image}<figcaption>as the network sees it</figcaption>"


def _row(row: ReportRow, picture: str) -> str:
    predictions = "".join(_prediction(label, value, row.scores) for label, value in row.predictions)
    maps = "".join(_map(each, row.heading, picture) for each in row.maps)
    note = f'<p class="note">{text(row.note)}</p>' if row.note else ""
    return (
        f'<div class="row"><div class="says"><h4>{text(row.heading)}</h4><ol>{predictions}</ol>{note}</div>'
        f'<div class="maps">{maps}</div></div>'
    )


def _prediction(label: str, value: float, score: bool) -> str:
    if score:
        return f'<li><span class="label">{text(label)}</span> <span class="value">{value:.3g}</span></li>'
    return f'<li><span class="label">{text(label)}</span> <span class="value">{percent(value)}</span>{_bar(value)}</li>'


def _bar(share: float) -> str:
    width = min(max(share, 0.0), 1.0) if math.isfinite(share) else 0.0
    return f'<span class="bar" aria-hidden="true"><i style="width:{100 * width:.1f}%"></i></span>'


def percent(share: float) -> str:
    """Return a share as a person reads it: "97 %", "0.4 %", "< 0.1 %"; never 100 or 0 for what is not."""
    value = 100 * share
    if not math.isfinite(share):
        return "not a number"
    if 0 < value < 0.1:
        return "< 0.1 %"
    if 99.9 < value < 100:
        return "> 99.9 %"
    return f"{value:.1f} %" if 0 < value < 10 or 99 < value < 100 else f"{value:.0f} %"


def _map(each: ReportMap, heading: str, picture: str) -> str:
    image = image_tag(
        each.pixels, f"{each.caption} map of {picture} ({heading})" if heading else f"{each.caption} map of {picture}"
    )
    note = f"<small>{text(each.note)}</small>" if each.note else ""
    return f"<figure>{image}<figcaption>{breakable(each.caption)}{note}</figcaption></figure>"


def breakable(name: str) -> str:
    """Return a name as HTML whose lines may break after an underscore, not inside a word."""
    return text(name).replace("_", "_<wbr>")


def image_tag(pixels: NDArray[np.uint8], description: str, webp: bool = False) -> str:
    """Return an `<img>` that holds the pixels, RGB uint8 `[H, W, 3]`; a small one is shown in squares.

    `webp` stores them as lossless WebP instead of PNG: a third of the size for a map of one colour scale.
    """
    height, width = pixels.shape[:2]
    kind = ' class="small"' if width < SMALL else ""
    name, encoded = ("webp", _webp_bytes(pixels)) if webp else ("png", png_bytes(pixels))
    data = base64.b64encode(encoded).decode("ascii")
    size = f'width="{width}" height="{height}"'
    return f'<img{kind} src="data:image/{name};base64,{data}" {size} alt="{text(description)}">'


def _webp_bytes(pixels: NDArray[np.uint8]) -> bytes:
    import cv2  # heavy, and needed only where pictures are read or drawn

    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise OutputError(f"a picture needs uint8 [H, W, 3], not {pixels.dtype} {list(pixels.shape)}")
    lossless = 101  # any quality above 100
    done, data = cv2.imencode(".webp", np.ascontiguousarray(pixels[..., ::-1]), [cv2.IMWRITE_WEBP_QUALITY, lossless])
    if not done:
        raise OutputError(f"OpenCV could not encode {list(pixels.shape)} pixels as WebP")
    return data.tobytes()


def _table(table: ReportTable) -> str:
    head = "".join(f'<th scope="col">{text(cell)}</th>' for cell in table.header)
    body = "".join(
        f"<tr>{''.join(_cell(cell, first=not at) for at, cell in enumerate(row))}</tr>" for row in table.rows
    )
    note = f'<p class="note">{text(table.note)}</p>' if table.note else ""
    return (
        f'<div class="table"><table><caption>{text(table.caption)}</caption><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>{note}"
    )


def _cell(cell: Any, first: bool) -> str:
    if first:
        return f'<th scope="row">{text(cell)}</th>'
    if isinstance(cell, float | np.floating):
        return f'<td class="share"><span class="value">{percent(float(cell))}</span>{_bar(float(cell))}</td>'
    return f"<td>{text(cell)}</td>"
