"""Plan rules: a method's parameters and the image size become its table of steps, one row per term of the sum.

Each rule is small, since every engine (Python, C++, JavaScript) carries the same ones; recorded tables keep them equal.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.errors import BundleError, ParameterError, unknown

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
    """A grid of square windows, in pixels; the last of a row or column is shifted in, so that every border is covered.

    `window` 0 is an eighth of the shorter side, `stride` 0 half a window; both at least 1.
    """
    if height < 1 or width < 1:
        raise ParameterError("windows need an image with rows and columns; this network's input has none")
    # (side + 4) // 8 is side / 8 rounded, without the round-half-even in which languages differ.
    window = int(parameters["window"]) or max(1, (min(height, width) + 4) // 8)
    stride = int(parameters["stride"]) or max(1, window // 2)
    if window >= max(height, width) > 1:
        raise ParameterError(f"window={window} hides the whole image of {height}x{width}; give a smaller one")
    rows, columns = _offsets(height, window, stride), _offsets(width, window, stride)
    top, left = (axis.ravel() for axis in np.meshgrid(rows, columns, indexing="ij"))
    bottom, right = np.minimum(top + window, height), np.minimum(left + window, width)
    return np.stack([top, left, bottom, right], axis=1).astype(np.float32)


def _offsets(side: int, window: int, stride: int) -> NDArray[np.int64]:
    last = max(side - window, 0)
    regular = np.arange(0, last + 1, stride)
    return regular if regular[-1] == last else np.append(regular, last)


def gauss_legendre(count: int) -> NDArray[np.float64]:
    """Points and weights [count, 2] of the Gauss-Legendre rule on [0, 1]; exact to degree 2 count - 1."""
    if count > MOST_POINTS:
        raise ParameterError(f"steps={count} is out of range: a path has at most {MOST_POINTS} points")
    node, weight = np.polynomial.legendre.leggauss(count)
    return np.stack([(node + 1) / 2, weight / 2], axis=1)
