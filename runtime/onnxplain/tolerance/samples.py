"""Means of random terms to a tolerance: noisy gradients and random masks until their standard error is small enough.

Terms come in blocks that are independent of each other, so the blocks' own scatter tells the error of their mean,
whatever happens within a block.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.errors import BundleError, ParameterError
from onnxplain.loops.noisy import deviations
from onnxplain.masks import block_rows
from onnxplain.tolerance.paths import relative
from onnxplain.tolerance.quadrature import SAFETY
from onnxplain.tolerance.room import flights
from onnxplain.tolerance.schedule import Ask, Outcome, run_tasks
from onnxplain.work import Work

Array = NDArray[Any]
Floats = NDArray[np.float64]
Sums = list[Floats]

SAMPLES = 4
"""Noisy copies in a block: few, so that there are enough blocks; several, so that a run gives few arrays back."""
LEAST_SAMPLES = 32
"""Noisy copies before the first estimate."""
MASKS = 128
"""Independent masks in a block; balanced ones come in blocks of their own size."""
LEAST_BLOCKS = 4
"""Blocks of masks before the first estimate: a map of masks has few degrees of freedom, but more than one."""
SHARE = 0.5
"""Of the blocks that a forecast calls for, how many are computed before the next forecast."""
SUMS = 24
"""How often an image's float32 values would fit in what its sums take."""


@dataclass(frozen=True)
class Statistic:
    """A map as a function of means: `combine` makes it of a graph's sums, `values` are a block's means [T, …].

    `slopes` are the map's derivatives by the values, at the values' means: what their scatter means for the map.
    `centred` maps are judged by how they vary over the picture, not by their level.
    """

    outputs: tuple[str, ...]
    combine: Callable[[Sums], Floats]
    values: Callable[[Sums], Sums]
    slopes: Callable[[Sums], Sums]
    centred: bool = False


def _ratio(sums: Sums) -> Floats:
    """Σ total / Σ norm, and 0 where norm is 0."""
    total, norm = sums
    return np.divide(total, norm, out=np.zeros_like(total), where=np.broadcast_to(norm, total.shape) != 0)


def _variance(sums: Sums) -> Floats:
    """The mean square less the squared mean."""
    total, squares, norm = sums
    return np.maximum(squares / norm - (total / norm) ** 2, 0.0)


MEAN = Statistic(("total", "norm"), _ratio, lambda sums: [_ratio(sums)], lambda means: [np.ones_like(means[0])])
SQUARE = replace(MEAN, outputs=("squares", "norm"))
MASKED = replace(MEAN, centred=True)
VARIANCE = Statistic(
    ("total", "squares", "norm"),
    _variance,
    lambda sums: [sums[0] / sums[2], sums[1] / sums[2]],
    lambda means: [-2 * means[0], np.ones_like(means[1])],
)


@dataclass(frozen=True)
class Design:
    """A method's terms: the whole table up to the limit, the steps of a block, of a run, and before an estimate.

    With `signs`, every step is taken once for each, with the image's noise times that sign.
    """

    steps: Array
    block: int
    run: int
    least: int
    signs: tuple[float, ...] = ()


class SampleTask:
    """One image's blocks, and the scatter of their values."""

    def __init__(self, statistic: Statistic, design: Design, tolerance: float, sigma: Array | None = None) -> None:
        self._statistic, self._design, self._tolerance = statistic, design, tolerance
        self._feeds: list[dict[str, Array]] = [{}]
        if sigma is not None and design.signs:
            self._feeds = [{"sigma": np.float32(sign) * sigma} for sign in design.signs]
        self._asked = 0
        self._blocks: dict[int, tuple[int, Sums]] = {}  # those that are not complete, and how many steps they have
        self._of: dict[int, int] = {}
        self._sums: Sums = []
        self._count = 0
        self._means: Sums = []
        self._products: list[Sums] = []
        self._error = np.zeros(0)

    def asks(self) -> list[Ask]:
        """The steps of the next blocks."""
        table, block = self._design.steps, self._design.block
        end = min(len(table), self._asked + block * self._needed())
        asked = []
        for start in range(self._asked, end, block):
            for piece in _pieces(start, min(start + block, end), self._design.run):
                for feeds in self._feeds:
                    asked.append(Ask(table[piece], feeds))
                    self._of[id(asked[-1])] = start // block
        self._asked = end
        return asked

    def take(self, ask: Ask, outputs: Sequence[Array]) -> None:
        """Takes the sums [T, …] over some steps of a block."""
        sums = [np.asarray(output, np.float64) for output in outputs]
        self._sums = _added(self._sums, sums)
        number = self._of.pop(id(ask))
        have, before = self._blocks.pop(number, (0, []))
        have, sums = have + len(ask.steps), _added(before, sums)
        if have < self._design.block * len(self._feeds):
            self._blocks[number] = (have, sums)
        else:
            self._absorb(self._statistic.values(sums))

    def finish(self) -> Outcome:
        """The map of all steps; its error is unknown (infinite) where there were too few blocks for an estimate."""
        return Outcome(
            self._statistic.combine(self._sums).astype(np.float32), self._error, self._asked * len(self._feeds)
        )

    def _absorb(self, values: Sums) -> None:
        """Adds a complete block's values to their sums and to those of their products."""
        if self._statistic.centred:
            values = [_centred(value) for value in values]
        self._count += 1
        self._means = _added(self._means, values)
        products = [[a * b for b in values] for a in values]
        old = self._products or [[] for _ in values]
        self._products = [_added(before, row) for before, row in zip(old, products, strict=True)]

    def _needed(self) -> int:
        """How many blocks to compute next: half of those that a forecast calls for; 0 where the error is small."""
        design = self._design
        if not self._asked:
            return -(-design.least // design.block)
        self._error = self._estimate()
        worst = float(self._error.max())
        if worst <= self._tolerance:
            return 0
        growth = min((worst / self._tolerance) ** 2, 2.0) - 1 if math.isfinite(worst) else 1.0
        return max(1, math.ceil(SHARE * growth * self._count))

    def _estimate(self) -> Floats:
        """The standard error of the map relative to the map's length, in L2, for each target."""
        found = self._statistic.combine(self._sums)
        if self._count < 2:
            return np.full(len(found), np.inf)
        means = [total / self._count for total in self._means]
        slopes = self._statistic.slopes(means)
        squares = np.zeros_like(means[0])
        for row, one, mean in zip(self._products, slopes, means, strict=True):
            for product, other, beside in zip(row, slopes, means, strict=True):
                squares += one * other * (product / self._count - mean * beside)
        axes = tuple(range(1, found.ndim))
        squared = np.maximum(squares.sum(axis=axes), 0) / (self._count - 1)
        length = ((_centred(found) if self._statistic.centred else found) ** 2).sum(axis=axes)
        # The noise in the map adds to its length.
        return SAFETY * relative(squared, np.maximum(length - squared, 0))


def smoothgrad(work: Work, tolerance: float, memory: int | None) -> list[Outcome]:
    """SmoothGrad: the mean gradient at noisy copies, each draw of the noise once with either sign.

    What the gradient's slope adds then cancels within a pair: ReLU networks need 1.3 times fewer copies, GELU networks
    2 to 10 times. Squares gain little, and the variance loses.
    """
    design = Design(work.steps()[: work.parameters["samples"] // 2], SAMPLES // 2, 0, LEAST_SAMPLES // 2, (1.0, -1.0))
    if not len(design.steps):
        raise ParameterError("samples=1 is too few: with tolerance= each draw is taken twice")
    return _noisy(work, tolerance, memory, MEAN, design)


def smoothgrad_squared(work: Work, tolerance: float, memory: int | None) -> list[Outcome]:
    """The mean square of the gradient at noisy copies."""
    return _noisy(work, tolerance, memory, SQUARE, Design(work.steps(), SAMPLES, 0, LEAST_SAMPLES))


def vargrad(work: Work, tolerance: float, memory: int | None) -> list[Outcome]:
    """The variance of the gradient at noisy copies."""
    return _noisy(work, tolerance, memory, VARIANCE, Design(work.steps(), SAMPLES, 0, LEAST_SAMPLES))


def rise(work: Work, tolerance: float, memory: int | None) -> list[Outcome]:
    """RISE: the mean score of the masks that keep a pixel, up to a constant over the picture."""
    balanced = work.parameters.get("design") == "orthogonal" and work.parameters["probability"] == 0.5
    block = 2 * block_rows(int(work.parameters["cells"])) if balanced else MASKS
    design = Design(work.steps(), block, 0, LEAST_BLOCKS * block)
    return _sampled(work, tolerance, memory, MASKED, design, None)


def _noisy(work: Work, tolerance: float, memory: int | None, statistic: Statistic, design: Design) -> list[Outcome]:
    if not set(statistic.outputs) <= set(work.bundle.graphs["noise"].outputs):
        raise BundleError(f"noise.onnx was exported before {work.method.name} existed; export the network again")
    return _sampled(work, tolerance, memory, statistic, design, deviations(work))


def _sampled(
    work: Work, tolerance: float, memory: int | None, statistic: Statistic, design: Design, sigma: Array | None
) -> list[Outcome]:
    graph = work.method.graph
    # A run takes as large a part of a block as it has room for: a power of 2, which every block is a multiple of.
    room = 1 << (max(1, work.row_limit(graph)).bit_length() - 1)
    design = replace(design, run=math.gcd(design.block, room))
    most, _ = flights(1, SUMS * work.chosen.count * work.values[:1].nbytes, memory)
    return run_tasks(
        work,
        graph,
        statistic.outputs,
        lambda image: SampleTask(statistic, design, tolerance, None if sigma is None else sigma[image : image + 1]),
        most,
        {} if sigma is None else {"sigma": sigma},
    )


def _pieces(start: int, end: int, size: int) -> Iterator[slice]:
    """Slices of `size` from start to end; what is left over in powers of 2."""
    while start < end:
        while size > end - start:
            size //= 2
        yield slice(start, start + size)
        start += size


def _added(before: Sums, terms: Sums) -> Sums:
    return [a + b for a, b in zip(before, terms, strict=True)] if before else terms


def _centred(values: Floats) -> Floats:
    """Values [T, …] less their mean over everything but the targets."""
    return values - values.mean(axis=tuple(range(1, values.ndim)), keepdims=True)
