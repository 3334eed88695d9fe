"""Statistics of the gradient at noisy copies of the image."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.errors import BundleError
from onnxplain.feeds import deviations_of
from onnxplain.loops.registry import loop
from onnxplain.work import Work

Array = NDArray[Any]


@loop("smoothgrad_squared")
def smoothgrad_squared(work: Work) -> Array:
    """The mean square of the gradient at noisy copies [N, T, …].

    Hooker et al.: A Benchmark for Interpretability Methods in Deep Neural Networks (2019, arXiv:1806.10758).
    """
    return moments(work)[1].astype(np.float32)


@loop("vargrad")
def vargrad(work: Work) -> Array:
    """The variance of the gradient over noisy copies [N, T, …], dividing by their number.

    Adebayo et al.: Local Explanation Methods for Deep Neural Networks Lack Sensitivity to Parameter Values (2018,
    arXiv:1810.03307). Mean square less squared mean: rounding of the squares leaves about 1e-7 of the mean square, and
    what falls below 0 by it is 0.
    """
    mean, square = moments(work)
    return np.maximum(square - mean**2, 0.0).astype(np.float32)


def moments(work: Work) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The mean and the mean square of the gradient over the noisy copies, each [N, T, …]."""
    total, squares, norm = noisy_sums(work, work.steps(), deviations(work))
    return total / norm, squares / norm


def noisy_sums(work: Work, steps: Array, sigma: Array) -> list[NDArray[np.float64]]:
    """Σ g, Σ g² and the number of the noisy copies that `steps` name."""
    graph = work.bundle.graphs["noise"]
    if "squares" not in graph.outputs:
        raise BundleError(f"{graph.file} was exported before {work.method.name} existed; export the network again")
    return work.sums(("total", "squares", "norm"), steps, "noise", sigma=sigma)


def deviations(work: Work) -> NDArray[np.float32]:
    """The noise's standard deviation for each image [N], in the units of the explained value."""
    return deviations_of(work.values, work.parameters)
