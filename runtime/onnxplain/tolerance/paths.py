"""Integrated gradients to a tolerance: every image gets points where its own path needs them, and no more.

Sundararajan, Taly, Yan: Axiomatic Attribution for Deep Networks (2017, arXiv:1703.01365). How the points are chosen and
the error is estimated: quadrature.py.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.errors import ParameterError
from onnxplain.fills import baselines, number_of_baselines
from onnxplain.loops.changed import with_parameters
from onnxplain.tolerance.quadrature import SAFETY, START, Integral, integral, splits
from onnxplain.tolerance.room import flights
from onnxplain.tolerance.schedule import Ask, Outcome, run_tasks
from onnxplain.work import Work

Array = NDArray[Any]
OUTPUTS = ("total",)


def integrated_gradients(work: Work, tolerance: float, memory: int | None) -> list[Outcome]:
    """The integrated gradients of each image with an estimated error of at most `tolerance`, relative in L2.

    Ends sooner at the parameter `steps`, or where `memory` holds no more gradients. Several baselines' paths share
    the points where they are needed most.
    """
    if work.parameters["rule"] != "gausslegendre":
        raise ParameterError("with tolerance= each path has points of its own; leave out rule=")
    paths = number_of_baselines(work.parameters["baseline"], work.values, work.parameters["baselines"])
    limit, least = work.parameters["steps"], paths * len(START)
    if limit < least:
        raise ParameterError(f"steps={limit} is too few: with tolerance= {paths} path(s) take at least {least} points")
    most, held = flights(limit, work.chosen.count * work.values[:1].nbytes, memory)
    given = _baselines_of(with_parameters(work, baseline=0.0), work)
    return run_tasks(
        with_parameters(work, baseline=0.0),
        "path",
        OUTPUTS,
        lambda image: PathTask(given(image), tolerance, max(least, min(limit, held))),
        most,
        {},
    )


def _baselines_of(quiet: Work, work: Work) -> Callable[[int], list[Array]]:
    """A function that gives an image's baselines, each [1, …], by the image's number."""
    value, draws, seed = (work.parameters[name] for name in ("baseline", "baselines", "seed"))
    if isinstance(value, str):
        return lambda image: list(baselines(value, quiet.values[image : image + 1], work.bundle, draws, seed))
    every = list(baselines(value, quiet.values, work.bundle, draws, seed))
    return lambda image: [each if len(each) == 1 else each[image : image + 1] for each in every]


class _Path:
    """The gradients [n, T, D] along one path, round by round, and for each target their products [T, n, n].

    All are less the first one, so that rounding doesn't matter where they hardly differ.
    """

    def __init__(self) -> None:
        self._arrived: list[tuple[float, Array]] = []
        self._blocks: list[Array] = []
        self._first = np.zeros(0)
        self._order = np.zeros(0, np.int64)
        self._points = np.zeros(0)
        self._products = np.zeros((0, 0, 0))

    @property
    def points(self) -> NDArray[np.float64]:
        """The points, ascending."""
        return self._points[self._order]

    @property
    def products(self) -> NDArray[np.float64]:
        """The gradients' products in the points' order."""
        return self._products[:, self._order[:, None], self._order]

    def add(self, point: float, gradient: Array) -> None:
        """Takes the gradient [T, D] at a point; it counts from the next call of `settle` on."""
        self._arrived.append((point, gradient))

    def settle(self) -> None:
        """Counts in what has arrived."""
        if not self._arrived:
            return
        self._arrived.sort(key=lambda pair: pair[0])  # in whichever runs they were computed
        block = np.stack([gradient for _, gradient in self._arrived])
        if not self._blocks:
            self._first = block[0].copy()
        block -= self._first
        self._blocks.append(block)
        targets, old, new = block.shape[1], len(self._points), len(block)
        products = np.zeros((targets, old + new, old + new))
        products[:, :old, :old] = self._products if old else 0
        for target in range(targets):
            row = np.concatenate([block[:, target] @ each[:, target].T for each in self._blocks], axis=1)
            products[target, old:] = row
            products[target, :old, old:] = row[:, :old].T
        self._products = products
        self._points = np.append(self._points, [point for point, _ in self._arrived])
        self._order = np.argsort(self._points, kind="stable")
        self._arrived = []

    def sum(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """The sum [T, D] of the gradients times `weights` [T, n], which sum to 1 for each target."""
        total, start = self._first.astype(np.float64), 0
        of_arrival = np.empty_like(weights)
        of_arrival[:, self._order] = weights
        for block in self._blocks:
            part = of_arrival[:, start : start + len(block)]
            total += np.einsum("tn,ntd->td", part, block)
            start += len(block)
        return total


class PathTask:
    """One image's paths, one from each baseline; its map is the mean of their integrals."""

    def __init__(self, baselines: Sequence[Array], tolerance: float, limit: int) -> None:
        self._baselines, self._tolerance, self._limit = baselines, tolerance, limit
        self._paths = [_Path() for _ in baselines]
        self._place: dict[int, tuple[int, float]] = {}
        self._shape: tuple[int, ...] = ()
        self._map = np.zeros(0)
        self._error = np.zeros(0)
        self._steps = 0

    def asks(self) -> list[Ask]:
        """The next points of all paths."""
        found = self._next() if self._steps else [(path, at) for path in range(len(self._paths)) for at in START]
        asked = [Ask(np.array([[at, 1.0]]), {"baseline": self._baselines[path]}) for path, at in found]
        self._place = {id(ask): place for ask, place in zip(asked, found, strict=True)}
        self._steps += len(asked)
        return asked

    def take(self, ask: Ask, outputs: Sequence[Array]) -> None:
        """Takes the gradient, times image less baseline, at one point of a path."""
        path, point = self._place.pop(id(ask))
        total = outputs[0]
        self._shape = total.shape
        self._paths[path].add(point, total.reshape(len(total), -1))

    def finish(self) -> Outcome:
        """The mean of the paths' integrals."""
        return Outcome(self._map.reshape(self._shape).astype(np.float32), self._error, self._steps)

    def _next(self) -> list[tuple[int, float]]:
        """The paths and points that are needed next; none where the error is small enough or the limit is reached."""
        share, rules, sums = 1 / len(self._paths), [], []
        for path in self._paths:
            path.settle()
            rules.append([integral(path.points, products) for products in path.products])
            sums.append(path.sum(np.stack([rule.weights for rule in rules[-1]])))
        self._map = np.mean(sums, axis=0)
        length = (self._map**2).sum(axis=1)
        squared = share**2 * np.array([[rule.error for rule in own] for own in rules]).sum(axis=0)
        self._error = SAFETY * relative(squared, length)
        if (self._error <= self._tolerance).all():
            return []
        goal = (self._tolerance / SAFETY) ** 2
        return self._chosen(rules, share**2 / np.maximum(length, np.finfo(float).tiny), goal)[
            : max(0, self._limit - self._steps)
        ]

    def _chosen(
        self, rules: Sequence[Sequence[Integral]], scales: NDArray[np.float64], goal: float
    ) -> list[tuple[int, float]]:
        """The middles of the intervals that a forecast halves, over all paths; an interval counts by its worst target.

        Squared errors are relative to the map's squared length (`scales` [T]), and so is the goal.
        """
        errors = [
            np.max([rule.errors * scale for rule, scale in zip(own, scales, strict=True)], axis=0) for own in rules
        ]
        common = sum(float(np.max([r.common * s for r, s in zip(own, scales, strict=True)])) for own in rules)
        low = np.concatenate([path.points[:-1] for path in self._paths])
        high = np.concatenate([path.points[1:] for path in self._paths])
        owner = np.repeat(np.arange(len(self._paths)), [len(each) for each in errors])
        cubic = all(rule.cubic for own in rules for rule in own)
        halved = splits(low, high, np.concatenate(errors), common, goal, cubic)
        return [(int(owner[at]), float(low[at] + high[at]) / 2) for at in halved]


def relative(squared: NDArray[np.float64], length: NDArray[np.float64]) -> NDArray[np.float64]:
    """The square roots of squared errors relative to squared lengths; 0 where there is no error at all."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(squared > 0, np.sqrt(squared / length), 0.0)
