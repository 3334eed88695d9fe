"""Results as the rows of displays: a notebook's cell, a comparison page, a figure's columns."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from onnxplain.display.comparison import ComparisonMap, ComparisonPicture
from onnxplain.display.notebook import NotebookRow
from onnxplain.errors import ParameterError
from onnxplain.heatmap import at_size, colours, overlay, signed_map

if TYPE_CHECKING:
    from onnxplain.result import Result  # which calls this module

# A notebook's cell shows no more images, and of each no more maps.
MOST_ROWS, MOST_MAPS = 8, 6


def notebook_rows(result: "Result") -> list[NotebookRow]:
    """Return a row for each of the first images: as the network saw it, then the overlays of its first targets.

    Raises ParameterError for a network whose input is no picture.
    """
    return [_notebook_row(result[index]) for index in range(min(len(result), MOST_ROWS))]


def _notebook_row(one: "Result") -> NotebookRow:
    image, heats = one.images[0], _per_target(one, one.heatmap()[0])
    names = _names(one, 0)
    drawn = [
        colours(heat) if image.seen is None else overlay(image.seen, at_size(heat, *image.seen.shape[:2]))
        for heat in heats
    ]
    maps = list(zip(names, drawn, strict=True))
    return NotebookRow(Path(image.name).name, image.seen, maps[:MOST_MAPS], max(0, len(maps) - MOST_MAPS))


def comparison_pictures(results: Mapping[str, "Result"]) -> list[ComparisonPicture]:
    """Return the pictures of a comparison whose columns are `results` by name, all of the same images in order.

    With several targets per image each has a column of its own, "name 1", "name 2", …; the small print says which class
    that is. Raises ParameterError where the images differ, and for a network whose input is no picture.
    """
    first = next(iter(results.values()), None)
    if first is None:
        raise ParameterError("there is nothing to compare: no results")
    for name, result in results.items():
        if [image.sha256 for image in result.images] != [image.sha256 for image in first.images]:
            raise ParameterError(
                f"{name} is of other images than {next(iter(results))}; explain the same ones, in order"
            )
    return [_comparison_picture(results, index) for index in range(len(first))]


def _comparison_picture(results: Mapping[str, "Result"], index: int) -> ComparisonPicture:
    maps: dict[str, ComparisonMap] = {}
    image = next(iter(results.values())).images[index]
    for name, result in results.items():
        one = result[index]
        heats, layout = _per_target(one, one.heatmap()[0]), one.layout or "NCHW"
        signed = _per_target(one, signed_map(one.attribution, layout)[0])
        for number, (label, heat, share) in enumerate(zip(_names(one, 0), heats, signed, strict=True), 1):
            column = name if len(heats) == 1 else f"{name} {number}"
            maps[column] = ComparisonMap(heat, share, label)
    return ComparisonPicture(Path(image.name).name, image.seen, maps)


def figure_columns(results: Mapping[str, "Result"]) -> dict[str, list[object]]:
    """Return the columns of a figure: the picture as the network saw it, then the heat maps of `results` by name.

    Results are as in `comparison_pictures`. `figure_grid` draws the columns; `grid_columns` are FastEstimator's.
    """
    pictures = comparison_pictures(results)
    columns: dict[str, list[object]] = {"picture": [picture.seen for picture in pictures]}
    for name in pictures[0].maps if pictures else ():
        columns[name] = [picture.maps[name].heat for picture in pictures]
    return columns


def _per_target(one: "Result", maps: NDArray[Any]) -> list[NDArray[Any]]:
    """The maps of one image, [H, W] or [T, H, W], as a list with one for each target."""
    return list(maps) if one.targets.ndim == 2 else [maps]


def _names(one: "Result", index: int) -> list[str]:
    """The names of what is explained in one image, one for each target."""
    label = one.labels[index]
    return [str(name) for name in label] if one.targets.ndim == 2 else [str(label)]
