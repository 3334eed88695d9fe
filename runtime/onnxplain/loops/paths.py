"""Methods on the straight path from baselines to the image, and the gradient's other plain forms."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.fills import baselines, number_of_baselines
from onnxplain.integration import points_of
from onnxplain.loops.changed import with_parameters
from onnxplain.loops.noisy import deviations
from onnxplain.loops.registry import loop
from onnxplain.random import LIMIT, uniform
from onnxplain.work import Work

Array = NDArray[Any]

ALPHA_DRAW, CHOICE_DRAW = LIMIT - 1, LIMIT - 2
"""The draw numbers of the points of expected gradients and of their baselines: the last, which noise never reaches."""


@loop("saliency")
def saliency(work: Work) -> Array:
    """|∂ score / ∂ value| [N, T, …] (Simonyan, Vedaldi, Zisserman 2013, arXiv:1312.6034)."""
    return np.abs(work.sum())


@loop("input_x_gradient")
def input_x_gradient(work: Work) -> Array:
    """value · ∂ score / ∂ value [N, T, …] (Shrikumar et al. 2016, arXiv:1605.01713)."""
    return work.values[:, None] * work.sum()


@loop("integrated_gradients")
def integrated_gradients(work: Work) -> Array:
    """(x − b)·Σ_k w_k g(b + α_k (x − b)) [N, T, …], the mean over all baselines b.

    Sundararajan, Taly, Yan: Axiomatic Attribution for Deep Networks (2017, arXiv:1703.01365).
    """
    table = points_of(work.parameters["rule"], work.parameters["steps"])
    return over_baselines(work, table.astype(np.float32)).astype(np.float32)


@loop("smoothgrad_integrated")
def smoothgrad_integrated(work: Work) -> Array:
    """The mean integrated gradients [N, T, …] of noisy copies x + σ·z of the image, and over all baselines."""
    table = points_of_noise(*(work.parameters[name] for name in ("rule", "steps", "samples")))
    return over_baselines(work, table, sigma=deviations(work)).astype(np.float32)


def points_of_noise(rule: str, steps: int, samples: int) -> NDArray[np.float32]:
    """The steps [samples · steps, 4] of paths to noisy copies, for the graph `noise`: a path's points, draw by draw."""
    points = points_of(rule, steps)
    draw = np.repeat(np.arange(samples, dtype=np.float64), len(points))
    alpha, weight = np.tile(points, (samples, 1)).T
    return np.stack([draw, alpha, weight / samples, np.ones_like(draw)], axis=1).astype(np.float32)


def over_baselines(work: Work, table: NDArray[np.float32], **feeds: Array) -> NDArray[np.float64]:
    """The mean over the method's baselines of the sum over a table of steps: float64 [N, T, …].

    The sum is not divided by the weights: a rule whose weights don't add up to 1 means them so.
    """
    value, draws, seed = (work.parameters[name] for name in ("baseline", "baselines", "seed"))
    count = number_of_baselines(value, work.values, draws)
    quiet, total = with_parameters(work, baseline=0.0), np.zeros(())
    for baseline in baselines(value, work.values, work.bundle, draws, seed):
        total = total + quiet.sums(("total",), table, None, 1 / count, baseline=baseline, **feeds)[0]
    return total / count


@loop("expected_gradients")
def expected_gradients(work: Work) -> Array:
    """The mean of (x̃ − b)·g(b + α (x̃ − b)) over random baselines b and α between 0 and 1 [N, T, …]; x̃ = x + σ·z.

    Erion et al.: Improving performance of deep learning models with axiomatic attribution priors and expected gradients
    (2021, arXiv:1906.10670); with noise it is Captum's GradientShap. Complete in expectation: Σ map → F(x) − mean F(b).
    Draws depend on the seed and the sample's number alone.
    """
    value, samples, seed = (work.parameters[name] for name in ("baseline", "samples", "seed"))
    alpha, chosen = expected_draws(samples, number_of_baselines(value, work.values, samples), seed, is_random(value))
    sigma = deviations(work) if work.parameters["noise"] else None
    quiet, total = with_parameters(work, baseline=0.0), np.zeros(())
    for number, baseline in enumerate(baselines(value, work.values, work.bundle, samples, seed)):
        draws = np.flatnonzero(chosen == number)
        if len(draws):
            total = total + _at_points(quiet, draws, alpha[draws], samples, baseline, sigma)
    return (total / samples).astype(np.float32)


def expected_draws(samples: int, baselines: int, seed: int, fresh: bool) -> tuple[Array, NDArray[np.int64]]:
    """The point α and the number of the baseline of every sample, both [samples]; `fresh` gives each its own."""
    alpha, choice = uniform(seed, [ALPHA_DRAW, CHOICE_DRAW], [samples])
    if fresh:
        return alpha, np.arange(samples)
    return alpha, np.floor(choice * baselines).astype(np.int64)


def is_random(baseline: Any) -> bool:
    """Whether every baseline is to be drawn afresh."""
    return isinstance(baseline, str) and baseline == "random"


def _at_points(
    work: Work, draws: NDArray[np.int64], alpha: Array, samples: int, baseline: Array, sigma: Array | None
) -> NDArray[np.float64]:
    """Σ of the samples of one baseline."""
    ones, share = np.ones(len(draws)), len(draws) / samples
    if sigma is None:
        table = np.stack([alpha, ones], axis=1)
        return work.sums(("total",), table, "path", share, baseline=baseline)[0]
    table = np.stack([draws, alpha, ones, ones], axis=1)
    return work.sums(("total",), table, "noise", share, baseline=baseline, sigma=sigma)[0]
