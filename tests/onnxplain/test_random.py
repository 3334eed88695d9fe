"""The noise is what it claims to be: uniform, normal, and independent wherever an explainer averages over it.

Everything here is deterministic. Bounds are on standard normal statistics z: 4.5 for a handful, 5.5 for thousands.
"""

import numpy as np
import pytest
from scipy import stats
from scipy.special import ndtri

from onnxplain.errors import ParameterError
from onnxplain.random import LEVELS, LIMIT, PRIMES, normal, uniform

SEEDS = (0, 1, 4711, LIMIT - 1)


def levels(seed, draws, shape):
    """The uniforms as the whole numbers that they are made from."""
    return np.rint(uniform(seed, draws, shape).astype(np.float64) * LEVELS - 0.5).astype(np.int64)


def correlation(a, b):
    """A standard normal statistic for independent standard normal arrays."""
    return float((a.astype(np.float64) * b).sum() / np.sqrt(a.size))


def test_recorded_values_never_change():
    """Maps computed with another version, or in another language, must get the same noise."""
    recorded = {
        (0, 0): [176816, 27399, 191750, 420677, 217564, 246955],
        (4711, 25): [455414, 346256, 19288, 303343, 204968, 481049],
        (LIMIT - 1, LIMIT - 1): [30568, 331298, 437633, 180408, 141729, 351250],
    }
    for (seed, draw), expected in recorded.items():
        assert levels(seed, [draw], (2, 3)).ravel().tolist() == expected


def test_uniform_values_are_the_centres_of_equal_intervals():
    values = uniform(3, [0, 1], (3, 50, 50))
    assert values.dtype == np.float32
    assert values.shape == (2, 3, 50, 50)
    exact = (levels(3, [0, 1], (3, 50, 50)) + 0.5) / LEVELS
    np.testing.assert_allclose(values, exact, rtol=2e-7)
    assert 0 < values.min() < values.max() < 1


def test_normal_is_the_quantile_of_the_uniform():
    shape = (3, 200, 200)
    noise = normal(8, range(8), shape)
    assert noise.dtype == np.float32
    exact = ndtri((levels(8, range(8), shape) + 0.5) / LEVELS)
    assert np.abs(exact).max() > 4.6, "the tails are in the test"
    np.testing.assert_allclose(noise, exact, atol=1e-5, rtol=0)


def test_a_draw_alone_is_the_same_draw_among_others():
    draws = [7, 0, LIMIT - 1, 300]
    together = normal(5, draws, (3, 9, 11))
    for index, draw in enumerate(draws):
        np.testing.assert_array_equal(normal(5, [draw], (3, 9, 11))[0], together[index])


def test_no_two_draws_of_a_seed_are_equal():
    rows = levels(12, np.arange(0, LIMIT, 5), (6,))
    fingerprints = rows @ np.random.default_rng(0).integers(2**62, size=6)
    assert len(np.unique(fingerprints)) == len(rows)


@pytest.mark.parametrize(
    ("seed", "draws"), [(-1, [0]), (LIMIT, [0]), (0, [-1]), (0, [LIMIT]), (0, [0.5]), (0, [np.nan])]
)
def test_counters_out_of_range_are_refused(seed, draws):
    with pytest.raises(ParameterError, match="whole number from 0 to 1048575"):
        uniform(seed, draws, (2,))


@pytest.mark.parametrize("seed", SEEDS)
def test_moments_and_distribution(seed):
    noise = normal(seed, [0, 1, 50, LIMIT - 1], (3, 96, 96)).astype(np.float64).ravel()
    root = np.sqrt(noise.size)
    statistics = {
        "mean": noise.mean() * root,
        "variance": (noise.var() - 1) * root / np.sqrt(2),
        "skewness": (noise**3).mean() * root / np.sqrt(15),
        "kurtosis": ((noise**4).mean() - 3) * root / np.sqrt(96),
    }
    assert max(map(abs, statistics.values())) < 4, statistics
    assert stats.kstest(noise, "norm").pvalue > 1e-3
    assert stats.kstest(uniform(seed, range(4), (3, 96, 96)).ravel(), "uniform").pvalue > 1e-3


@pytest.mark.parametrize("seed", SEEDS)
def test_pixels_do_not_correlate_with_neighbours_or_channels(seed):
    noise = normal(seed, range(20, 28), (3, 64, 64))
    for channel in range(3):
        for row in range(-3, 4):
            for column in range(-3, 4):
                if (channel, row, column) > (0, 0, 0):
                    here = noise[:, channel:, max(row, 0) : 64 + min(row, 0), max(column, 0) : 64 + min(column, 0)]
                    there = noise[
                        :, : 3 - channel, max(-row, 0) : 64 - max(row, 0), max(-column, 0) : 64 - max(column, 0)
                    ]
                    assert abs(correlation(here, there)) < 4.5, (channel, row, column)


@pytest.mark.parametrize("seed", range(4))
def test_large_images_do_not_repeat_at_the_primes(seed):
    """Elements a product of two primes apart share two of three residues before these are mixed."""
    noise = normal(seed, [seed, 600], (3, 420, 420)).reshape(2, -1)
    first, second, third = PRIMES
    products = (first * second, first * third, second * third)
    for lag in (*PRIMES, *(2 * prime for prime in PRIMES), *products):
        assert abs(correlation(noise[:, lag:], noise[:, :-lag])) < 4.5, lag


def test_digits_are_no_more_even_than_chance():
    """Chi-square over its degrees of freedom is 1: less means that an image runs through the residues in turn."""
    values = np.stack([levels(seed, [seed], (3, 224, 224)).ravel() for seed in range(30)])
    for digits, base in ((values % PRIMES[1], PRIMES[1]), (values // PRIMES[1], PRIMES[0])):
        ratios = [stats.chisquare(np.bincount(row, minlength=base)).statistic / (base - 1) for row in digits]
        assert abs(np.mean(ratios) - 1) < 4.5 * np.sqrt(2 / (base - 1) / len(ratios))


@pytest.mark.parametrize(
    "pairs",
    [
        pytest.param([(0, draw) for draw in range(500)], id="neighbouring draws"),
        pytest.param([(9, draw * PRIMES[0]) for draw in range(500)], id="draws a prime apart"),
        pytest.param([(9, draw * 2097) for draw in range(500)], id="far draws"),
        pytest.param([(seed, 3) for seed in range(500)], id="neighbouring seeds"),
        pytest.param([(seed, 24 - seed % 25) for seed in range(500)], id="seeds against draws"),
    ],
)
def test_draws_and_seeds_do_not_correlate(pairs):
    """All pairs at once: their correlations have the variance and the maximum of chance."""
    noise = np.stack([normal(seed, [draw], (3, 32, 32)).ravel() for seed, draw in pairs])
    gram = noise @ noise.T / np.float32(np.sqrt(noise.shape[1]))
    correlations = gram[np.triu_indices(len(pairs), 1)].astype(np.float64)
    root = np.sqrt(correlations.size)
    assert abs(correlations.mean() * root) < 4
    assert abs((correlations.var() - 1) * root / np.sqrt(2)) < 4
    assert np.abs(correlations).max() < 5.7
    largest = np.linalg.eigvalsh(gram / np.sqrt(noise.shape[1]))[-1]
    assert largest < 1.02 * (1 + np.sqrt(len(pairs) / noise.shape[1])) ** 2, "the noises share a direction"


def test_elements_do_not_correlate_over_draws():
    noise = normal(2, range(4000), (3, 12, 12)).reshape(4000, -1)
    gram = noise.T @ noise / np.float32(np.sqrt(4000))
    correlations = gram[np.triu_indices(432, 1)].astype(np.float64)
    assert abs((correlations.var() - 1) * np.sqrt(correlations.size / 2)) < 4
    assert np.abs(correlations).max() < 5.7


@pytest.mark.parametrize("seed", SEEDS)
def test_spectrum_is_flat(seed):
    """Power is exponential at each frequency, with no peak beyond chance, and gamma once summed over draws."""
    noise = normal(seed, range(40), (3, 64, 64))
    power = (np.abs(np.fft.rfft2(noise)) ** 2 / 64**2)[..., 1:32].reshape(120, -1)
    assert stats.kstest(power.ravel(), "expon").pvalue > 1e-3
    assert power.max() < np.log(power.size) + 8
    summed = stats.gamma.sf(power.sum(axis=0), 120)
    assert summed.min() > 1e-7
    assert stats.kstest(summed, "uniform").pvalue > 1e-3


@pytest.mark.parametrize("along", ["columns", "rows", "channels", "draws"])
def test_pairs_fill_the_square(along):
    values = levels(6, range(100, 110), (2, 128, 128))
    axis = ["draws", "channels", "rows", "columns"].index(along)
    first, second = (np.take(values, range(start, values.shape[axis], 2), axis) * 32 // LEVELS for start in (0, 1))
    share = np.bincount(np.arange(LEVELS) * 32 // LEVELS) / LEVELS
    counts = np.bincount((first * 32 + second).ravel(), minlength=32**2)
    assert stats.chisquare(counts, np.outer(share, share).ravel() * counts.sum()).pvalue > 1e-3
