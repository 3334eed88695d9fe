"""The gradient methods as FastEstimator 1.7 computes them, before its display (xai/saliency.py there).

They differ from the papers', and a caller's target is forgotten: only the first, clean pass of the smoothed maps uses
it, everything else explains the top class. Each is a method of ours under `preset="fastestimator"`.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.fills import random_fill
from onnxplain.integration import points_of
from onnxplain.loops.changed import towards_top_class, with_parameters
from onnxplain.loops.noisy import deviations, noisy_sums
from onnxplain.loops.registry import loop
from onnxplain.work import Work

Array = NDArray[np.float64]


@loop("smoothgrad.fastestimator")
def smoothgrad(work: Work) -> NDArray[np.float32]:
    """(g(x)² + Σ g(x + σ·z)²) / samples [N, T, …] over one draw fewer; σ is a share of the whole call's range.

    With `magnitude` False the gradients themselves are added up.
    """
    samples = work.parameters["samples"]
    magnitude = work.parameters.get("magnitude", True)
    total = _clean(work, magnitude)
    if samples > 1:
        steps = np.zeros((samples - 1, 4), np.float32)
        steps[:] = 0, 1, 1, 0
        steps[:, 0] = np.arange(samples - 1)
        sums = noisy_sums(towards_top_class(work), steps, deviations(work))
        total = total + sums[1 if magnitude else 0]
    return (total / samples).astype(np.float32)


@loop("integrated_gradients.fastestimator")
def integrated_gradients(work: Work) -> NDArray[np.float32]:
    """(x − b)·Σ_k g(b + α_k (x − b)) [N, T, …], not divided by the number of points, from a random baseline b.

    b lies between the minimum and the maximum of all images in the call; α is 0, 1/(n − 1), …, 1.
    """
    return _from_random(towards_top_class(work), "path", 0, 1.0).astype(np.float32)


@loop("smoothgrad_integrated.fastestimator")
def smoothgrad_integrated(work: Work) -> NDArray[np.float32]:
    """(g(x)² + Σ R²) / samples [N, T, …], R one fewer of the maps above, each from a baseline of its own.

    The image is never noisy: FastEstimator draws the noise and doesn't use it.
    """
    samples = work.parameters["samples"]
    magnitude = work.parameters.get("magnitude", True)
    total, top = _clean(work, magnitude), towards_top_class(work)
    for draw in range(samples - 1):
        integrated = _from_random(top, "noise", draw, 1 / max(1, samples - 1))
        total = total + (integrated**2 if magnitude else integrated)
    return (total / samples).astype(np.float32)


def _clean(work: Work, magnitude: bool) -> Array:
    """The gradient of the asked-for targets at the images, or its square."""
    step = np.array([[0, 1, 1, 0]], np.float32)
    (gradient,) = work.sums(("total",), step, "noise", 0.0, sigma=np.zeros(work.count, np.float32))
    return gradient**2 if magnitude else gradient


def _from_random(work: Work, graph: str, draw: int, share: float) -> Array:
    """The undivided sum along the path from one random baseline; the noise graph, without noise, serves as well."""
    steps, seed = work.parameters["steps"], work.parameters["seed"]
    alpha = points_of("inclusive", steps)[:, 0]
    ones = np.ones_like(alpha)
    feeds: dict[str, Any] = {"baseline": random_fill(work.values, seed, draw, together=True)}
    table = np.stack([alpha, ones], axis=1)
    if graph == "noise":
        table = np.stack([np.zeros_like(alpha), alpha, ones, ones], axis=1)
        feeds["sigma"] = np.zeros(work.count, np.float32)
    return with_parameters(work, baseline=0.0).sums(("total",), table.astype(np.float32), graph, share, **feeds)[0]
