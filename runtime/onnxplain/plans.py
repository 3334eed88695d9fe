"""Plan rules: a method's parameters and the image size become its table of steps, one row per term of the sum.

Each rule is small, since every engine (Python, C++, JavaScript) carries the same ones; recorded tables keep them equal.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.errors import BundleError, ParameterError, unknown
from onnxplain.masks import MOST_CELLS, block_rows

# numpy finds the points by an eigenvalue problem of their number squared; far fewer integrate any network's path.
MOST_POINTS = 2000

Steps = NDArray[np.float32]
Rule = Callable[[Mapping[str, Any], int, int], Steps]


@dataclass(frozen=True, slots=True)
class Plan:
    """A registered plan rule and the columns of its table; no columns means one step that needs no numbers."""

    name: str
    columns: tuple[str, ...]
    rule: Rule


PLANS: dict[str, Plan] = {}


def plan(name: str, *columns: str) -> Callable[[Rule], Rule]:
    """Registers a plan rule `(parameters, height, width) -> float32 [K, columns]`; a name can be taken once."""

    def register(rule: Rule) -> Rule:
        if name in PLANS:
            raise ValueError(f"the plan rule {name!r} is registered twice")
        PLANS[name] = Plan(name, columns, rule)
        return rule

    return register


def find_plan(name: str) -> Plan:
    """The registered plan rule; BundleError for one that this version doesn't know."""
    if name not in PLANS:
        raise BundleError(unknown("plan rule", name, PLANS) + "; pip install --upgrade onnxplain")
    return PLANS[name]


@plan("single")
def single(parameters: Mapping[str, Any], height: int, width: int) -> Steps:  # noqa: ARG001 (every rule's signature)
    """One step without numbers: the gradient at the image."""
    return np.zeros((1, 0), np.float32)


@plan("draws", "draw", "alpha", "weight", "multiply")
def draws(parameters: Mapping[str, Any], height: int, width: int) -> Steps:  # noqa: ARG001
    """One step for each noise draw, at the noisy image itself."""
    samples = int(parameters["samples"])
    table = np.empty((samples, 4), np.float32)
    table[:] = 0, 1, 1, 0
    table[:, 0] = np.arange(samples)
    return table


@plan("points", "alpha", "weight")
def points(parameters: Mapping[str, Any], height: int, width: int) -> Steps:  # noqa: ARG001
    """Gauss-Legendre points on the straight path from baseline to image; weights add up to 1."""
    return gauss_legendre(int(parameters["steps"])).astype(np.float32)


@plan("draws_points", "draw", "alpha", "weight", "multiply")
def draws_points(parameters: Mapping[str, Any], height: int, width: int) -> Steps:  # noqa: ARG001
    """Every point of the path for every noise draw, draw by draw."""
    path = gauss_legendre(int(parameters["steps"]))
    samples = int(parameters["samples"])
    draw = np.repeat(np.arange(samples, dtype=np.float64), len(path))
    columns = [draw, np.tile(path[:, 0], samples), np.tile(path[:, 1], samples), np.ones_like(draw)]
    return np.stack(columns, axis=1).astype(np.float32)


@plan("windows", "top", "left", "bottom", "right")
def windows(parameters: Mapping[str, Any], height: int, width: int) -> Steps:
    """A grid of windows, in pixels; the last of a row or column is shifted in, so that every border is covered.

    `window` and `stride` are one number or a pair (rows, columns). `window` 0 is an eighth of the shorter side,
    `stride` 0 half a window; both at least 1.
    """
    # (side + 4) // 8 is side / 8 rounded, without the round-half-even in which languages differ.
    window = _window(parameters, height, width, max(1, (min(height, width) + 4) // 8))
    strides = _sides(parameters["stride"])
    if any(stride > side for stride, side in zip(strides, window, strict=True)):
        raise ParameterError(
            f"stride={parameters['stride']} is larger than the window, {window[0]}x{window[1]}: the pixels between two "
            "windows would never be hidden"
        )
    tops, lefts = (
        _offsets(side, w, s or max(1, w // 2)) for side, w, s in zip((height, width), window, strides, strict=True)
    )
    return _grid(tops, lefts, window, (height, width))


@plan("windows.captum", "top", "left", "bottom", "right")
def windows_of_captum(parameters: Mapping[str, Any], height: int, width: int) -> Steps:
    """Captum's grid: ⌈(side − window) / stride⌉ + 1 positions a side, the last window cut off at the border.

    `stride` 0 is 1, as there; `window`, which Captum has no default for, as in the rule "windows".
    """
    window = _window(parameters, height, width, max(1, (min(height, width) + 4) // 8))
    counts = [
        (np.arange(-(-(side - w) // (s or 1)) + 1) * (s or 1))
        for side, w, s in zip((height, width), window, _sides(parameters["stride"]), strict=True)
    ]
    return _grid(counts[0], counts[1], window, (height, width))


@plan("windows.mindspore", "top", "left", "bottom", "right")
def windows_of_mindspore(parameters: Mapping[str, Any], height: int, width: int) -> Steps:
    """MindSpore's grid: ⌊(side − window) / stride⌋ + 1 positions a side; pixels behind the last window stay uncovered.

    `window` and `stride` 0 are a 32nd of each side longer than 32 pixels, and 3 and 1 of shorter ones.
    """
    default = [side // 32 if side > 32 else 3 for side in (height, width)]
    window = _window(parameters, height, width, *default)
    strides = [
        s or (side // 32 if side > 32 else 1)
        for side, s in zip((height, width), _sides(parameters["stride"]), strict=True)
    ]
    counts = [np.arange((side - w) // s + 1) * s for side, w, s in zip((height, width), window, strides, strict=True)]
    return _grid(counts[0], counts[1], window, (height, width))


def _sides(value: int | Sequence[int]) -> tuple[int, int]:
    """One number or a pair (rows, columns) as a pair."""
    rows, columns = (value, value) if isinstance(value, int | np.integer) else value
    return int(rows), int(columns)


def _window(parameters: Mapping[str, Any], height: int, width: int, *default: int) -> tuple[int, int]:
    """The window's rows and columns. One number is cut to a side that is shorter; a pair has to fit.

    ParameterError where the window is larger than the image, or hides the whole of it.
    """
    if height < 1 or width < 1:
        raise ParameterError("windows need an image with rows and columns; this network's input has none")
    given = parameters["window"]
    pair = _sides(given)
    rows, columns = pair[0] or default[0], pair[1] or default[-1]
    one = isinstance(given, int | np.integer)
    too_large = min(rows, columns) >= max(height, width) if one else rows > height or columns > width
    if max(height, width) > 1 and (too_large or (rows, columns) == (height, width)):
        raise ParameterError(
            f"window={given} hides the whole image of {height}x{width} pixels or is larger; give a number below "
            f"{max(height, width)}, or a pair (rows, columns) of at most ({height}, {width}) that is smaller on a side"
        )
    return min(rows, height), min(columns, width)


def _grid(tops: NDArray[np.int64], lefts: NDArray[np.int64], window: tuple[int, int], size: tuple[int, int]) -> Steps:
    """The windows at all pairs of offsets, row by row, cut off at the image's border."""
    top, left = (axis.ravel() for axis in np.meshgrid(tops, lefts, indexing="ij"))
    bottom, right = np.minimum(top + window[0], size[0]), np.minimum(left + window[1], size[1])
    return np.stack([top, left, bottom, right], axis=1).astype(np.float32)


def _offsets(side: int, window: int, stride: int) -> NDArray[np.int64]:
    last = max(side - window, 0)
    regular = np.arange(0, last + 1, stride)
    return regular if regular[-1] == last else np.append(regular, last)


RANDOM_MASKS = (
    "draw",
    "probability",
    "cells",
    "scale_row",
    "scale_column",
    "shifts_row",
    "shifts_column",
    "row",
    "flip",
)


@plan("random_masks", *RANDOM_MASKS)
def random_masks(parameters: Mapping[str, Any], height: int, width: int) -> Steps:
    """The masks of RISE: cells × cells stretched to (cells + 1)·⌈side / cells⌉ pixels, shifted by less than a cell.

    Petsiuk, Das, Saenko: RISE (2018, arXiv:1806.07421), as in their own code. There each mask is drawn by itself, as
    with `design` "independent". With "orthogonal" (where `probability` is 1/2) they come in blocks of one draw and one
    shift, all rows of a Hadamard matrix and their complements: each mask by itself has the same distribution, so the
    map has the same expectation, but within a block no cell's effect is taken for another's.
    """
    cells = _cells(parameters, height, width)
    steps = [-(-side // cells) for side in (height, width)]
    table = _random_table(parameters, cells, [(cells + 1) * step / cells for step in steps], steps)
    if parameters.get("design", "independent") == "orthogonal" and parameters["probability"] == 0.5:
        rows, number = block_rows(cells), np.arange(len(table))
        table[:, 0], table[:, 7], table[:, 8] = number // (2 * rows), number // 2 % rows, number % 2
    return table


@plan("random_masks.mindspore", *RANDOM_MASKS)
def random_masks_of_mindspore(parameters: Mapping[str, Any], height: int, width: int) -> Steps:
    """MindSpore's masks: the grid is stretched to 10 pixels more than the image and shifted by 0 to 10 of them."""
    cells = _cells(parameters, height, width)
    return _random_table(parameters, cells, [(side + 10) / cells for side in (height, width)], [11, 11])


def _cells(parameters: Mapping[str, Any], height: int, width: int) -> int:
    if height < 1 or width < 1:
        raise ParameterError("random masks need an image with rows and columns; this network's input has none")
    cells = int(parameters["cells"])
    if not 2 <= cells <= min(MOST_CELLS, height, width):
        raise ParameterError(
            f"cells={cells} is out of range for an image of {height}x{width}: 2 to {min(MOST_CELLS, height, width)}"
        )
    return cells


def _random_table(parameters: Mapping[str, Any], cells: int, scales: Sequence[float], shifts: Sequence[int]) -> Steps:
    table = np.empty((int(parameters["masks"]), len(RANDOM_MASKS)), np.float32)
    table[:] = 0, parameters["probability"], cells, *scales, *shifts, 0, 0
    table[:, 0] = np.arange(len(table))
    return table


def gauss_legendre(count: int) -> NDArray[np.float64]:
    """Points and weights [count, 2] of the Gauss-Legendre rule on [0, 1]; exact to degree 2 count - 1."""
    if count > MOST_POINTS:
        raise ParameterError(f"steps={count} is out of range: a path has at most {MOST_POINTS} points")
    node, weight = np.polynomial.legendre.leggauss(count)
    return np.stack([(node + 1) / 2, weight / 2], axis=1)
