"""The noise of the exported graphs, computed in numpy: the very same uniforms, and normals equal to float rounding.

A value depends on (seed, draw, index of the element) alone, so chunks, devices and peers agree on the noise whatever
they compute beside it. The generator is counter-based and its integers stay below 2^21, which float32, the one
arithmetic that every runtime has, holds exactly:

- three primes p ≡ 2 (mod 3), where cubing permutes the residues;
- an element is three residues h, made from its flat index modulo each prime by adding, cubing and mixing the three;
- a draw is three residues s, made likewise from its number, keyed by the seed;
- x = (h + s)^3 for each prime; the three give two digits, base 719 and base 701, of an integer below 504019.

No two elements below 3.4e8, and no two draws of one seed, share all three residues; over all residues s, every element
takes each of the 504019 values equally often.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from onnxplain.errors import ParameterError

LIMIT = 2**20
"""Seeds and draw numbers are below this."""
PRIMES = (719, 701, 683)
LEVELS = PRIMES[0] * PRIMES[1]
"""How many values a uniform takes: (i + 1/2) / LEVELS."""
SEED_OFFSET = 101
ELEMENT_OFFSETS = ((85, 170), (145, 290), (205, 410))
"""What each round adds to an element's residue before cubing, for each prime: any that make 0 an ordinary index."""

# z / x as a ratio of cubics in w = -log(1 - x²), where x = 2u - 1 and z is the normal quantile of u (the form of
# M. Giles, "Approximating the erfinv function", GPU Computing Gems 2, 2011). Our own minimax fit over the LEVELS values
# of u, constant term first: |error| < 1e-5 in z. All coefficients are positive and w ≥ 0: float32 cancels nothing.
QUANTILE_NUMERATOR = (2810.36260183, 939.04847312, 168.65781746, 18.74817698)
QUANTILE_DENOMINATOR = (2242.44957, 161.500063, 64.2863527, 1.0)


def uniform(seed: int, draws: ArrayLike, shape: Sequence[int]) -> NDArray[np.float32]:
    """Return uniform noise in (0, 1), `[len(draws), *shape]`, bit for bit as the graphs make it.

    `draws` are whole numbers, `[K]`. Raises ParameterError where the seed or a draw is not in 0..2^20 - 1.
    """
    return (_levels(seed, draws, shape) + np.float32(0.5)) * np.float32(1 / LEVELS)


def normal(seed: int, draws: ArrayLike, shape: Sequence[int]) -> NDArray[np.float32]:
    """Return standard normal noise, `[len(draws), *shape]`, equal to that of the graphs within 2e-6; |z| < 4.76.

    Each value is the normal quantile of `uniform` within 1e-5. `draws` and errors as there.
    """
    centres = _levels(seed, draws, shape) + np.float32(0.5)
    w = -np.log(centres * (np.float32(LEVELS) - centres) * np.float32(4 / LEVELS**2))
    x = (centres - np.float32(LEVELS / 2)) * np.float32(2 / LEVELS)
    return x * (_polynomial(QUANTILE_NUMERATOR, w) / _polynomial(QUANTILE_DENOMINATOR, w))


def _levels(seed: int, draws: ArrayLike, shape: Sequence[int]) -> NDArray[np.float32]:
    """The uniforms as whole numbers 0 .. LEVELS - 1, computed in integers."""
    elements = _elements(shape)
    states = _states(seed, draws)
    first, second, third = (
        _cube(element + state.reshape(-1, *[1] * len(shape)), prime)
        for element, state, prime in zip(elements, states, PRIMES, strict=True)
    )
    fine = (second + third) % PRIMES[1]
    coarse = (first + fine) % PRIMES[0]
    return (coarse * PRIMES[1] + fine).astype(np.float32)


def _elements(shape: Sequence[int]) -> list[NDArray[np.int32]]:
    """The residues of all elements, one array `shape` for each prime."""
    index = np.arange(np.prod(shape, dtype=np.int64)).reshape(shape)
    residues = [_permuted(index % prime, which, 0) for which, prime in enumerate(PRIMES)]
    return [_permuted(residue, which, 1) for which, residue in enumerate(_mixed(residues))]


def _permuted(residues: NDArray[Any], which: int, turn: int) -> NDArray[np.int32]:
    return _cube(residues.astype(np.int32) + ELEMENT_OFFSETS[which][turn], PRIMES[which]) % PRIMES[which]


def _states(seed: int, draws: ArrayLike) -> list[NDArray[np.int32]]:
    """The residues of the draws, `[K]` for each prime."""
    counters = _counters("draw", draws)
    primes = np.array(PRIMES, np.int32)[:, None]
    outer = _cube(_counters("seed", [seed]) % primes + SEED_OFFSET, primes) % primes
    inner = _cube(outer + np.roll(outer, -1, axis=0), primes) % primes
    state = _cube(counters % primes + inner, primes) % primes
    return _mixed(list(_cube(state + outer, primes) % primes))


def _mixed(residues: list[NDArray[np.int32]]) -> list[NDArray[np.int32]]:
    """Each residue plus its neighbour's, one after the other; what differs before differs after.

    Numbers that differ by a product of two primes share two residues before this, and at most one after: without it
    their noises correlate by 0.02, and a large image covers the residues more evenly than chance.
    """
    first = (residues[0] + residues[1]) % PRIMES[0]
    second = (residues[1] + residues[2]) % PRIMES[1]
    third = (residues[2] + first) % PRIMES[2]
    return [first, second, third]


def _counters(kind: str, values: ArrayLike) -> NDArray[np.int32]:
    numbers = np.asarray(values, np.float64).reshape(-1)
    wrong = numbers[~((numbers >= 0) & (numbers < LIMIT) & (numbers == np.floor(numbers)))]
    if wrong.size:
        raise ParameterError(f"{kind} {wrong[0]:g} is not a whole number from 0 to {LIMIT - 1}; choose one that is")
    return numbers.astype(np.int32)


def _cube(y: NDArray[np.int32], prime: int | NDArray[np.int32]) -> NDArray[np.int32]:
    """Return y^3 modulo `prime` up to a multiple of it: y·(y² mod p), so that an outer sum is reduced only once."""
    return y * (y * y % prime)


def _polynomial(coefficients: Sequence[float], w: NDArray[np.float32]) -> NDArray[np.float32]:
    total = np.full_like(w, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        total = total * w + np.float32(coefficient)
    return total
