"""Noise inside a graph: the generator that `onnxplain.random` describes, in Add, Sub, Mul and Floor on float tensors.

No integer operators: OpenVINO computes int64 in 32 bits and Mod in float32, and GPUs and browsers lack others. Up to
the last multiplication of a uniform every value that matters is an integer below 2^21, or that plus a half, so neither
rounding nor a fused multiply-add can change a bit.

The elements' part is made of constants alone: onnxruntime folds it at load; elsewhere it costs about two draws' noise.
"""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxplain.random import (
    ELEMENT_OFFSETS,
    LEVELS,
    PRIMES,
    QUANTILE_DENOMINATOR,
    QUANTILE_NUMERATOR,
    SEED_OFFSET,
)
from onnxplain_export.emitter import Emitter

Modulus = int | NDArray[np.int64]
"""One prime, or all of them along an axis."""


def uniform(op: Emitter, seed: ir.Value, draws: ir.Value, shape: Sequence[int]) -> ir.Value:
    """Return uniform noise in (0, 1), `[*draws.shape, *shape]`, bit for bit that of `onnxplain.random.uniform`.

    `seed` is int64 `[1]`, `draws` float of any rank ≥ 1; both hold whole numbers in 0..2^20 - 1. `shape` has at least
    one axis.
    """
    return op.Mul(_level_centres(op, seed, draws, shape), 1 / LEVELS)


def normal(op: Emitter, seed: ir.Value, draws: ir.Value, shape: Sequence[int]) -> ir.Value:
    """Return standard normal noise, `[*draws.shape, *shape]`, that of `onnxplain.random.normal` within 2e-6.

    The quantile of the uniform in the form of M. Giles, "Approximating the erfinv function" (2011): x·R(w) with
    w = -log(1 - x²). 1 - x² = 4u(1 - u) comes from the integers, so the tails are as exact as the centre.
    Arguments as in `uniform`.
    """
    centres = _level_centres(op, seed, draws, shape)
    product = op.Mul(centres, op.Sub(float(LEVELS), centres))
    minus_w = op.Log(op.Mul(product, 4 / LEVELS**2))
    x = op.Sub(centres, LEVELS / 2)
    # x is still in levels and the variable is -w; both cubics change sign, so that the denominator stays monic.
    numerator = _cubic(op, [2 / LEVELS * c for c in QUANTILE_NUMERATOR], minus_w)
    return op.Div(op.Mul(x, numerator), _cubic(op, QUANTILE_DENOMINATOR, minus_w))


def _level_centres(op: Emitter, seed: ir.Value, draws: ir.Value, shape: Sequence[int]) -> ir.Value:
    """The uniforms times LEVELS: 1/2, 3/2, …, LEVELS - 1/2."""
    elements, states = _elements(op, shape), _states(op, seed, draws, len(shape))
    first, second, third = (
        _cube(op, op.Add(element, state), prime) for element, state, prime in zip(elements, states, PRIMES, strict=True)
    )
    fine = _remainder(op, op.Add(second, third), PRIMES[1])
    coarse = _remainder(op, op.Add(first, fine), PRIMES[0])
    return op.Add(op.Add(op.Mul(coarse, float(PRIMES[1])), fine), 0.5)


def _elements(op: Emitter, shape: Sequence[int]) -> list[ir.Value]:
    """The residues of all elements, `shape` for each prime."""
    residues = [_permuted(op, _indices(op, shape, prime), which, 0) for which, prime in enumerate(PRIMES)]
    return [_permuted(op, residue, which, 1) for which, residue in enumerate(_mixed(op, residues))]


def _permuted(op: Emitter, residue: ir.Value, which: int, turn: int) -> ir.Value:
    shifted = op.Add(residue, float(ELEMENT_OFFSETS[which][turn]))
    return _remainder(op, _cube(op, shifted, PRIMES[which]), PRIMES[which])


def _mixed(op: Emitter, residues: Sequence[ir.Value]) -> list[ir.Value]:
    """Each residue plus its neighbour's, as `onnxplain.random` explains."""
    first = _remainder(op, op.Add(residues[0], residues[1]), PRIMES[0])
    second = _remainder(op, op.Add(residues[1], residues[2]), PRIMES[1])
    third = _remainder(op, op.Add(residues[2], first), PRIMES[2])
    return [first, second, third]


def _indices(op: Emitter, shape: Sequence[int], prime: int) -> ir.Value:
    """The flat indices modulo one prime, `shape`, from one short constant for each axis."""
    stride, total = 1, op.floats(0.0)
    for axis in reversed(range(len(shape))):
        along = np.arange(shape[axis], dtype=np.int64) * stride % prime
        total = op.Add(op.floats(along.reshape(-1, *[1] * (len(shape) - 1 - axis))), total)
        stride *= shape[axis]
    return _remainder(op, total, prime)


def _states(op: Emitter, seed: ir.Value, draws: ir.Value, rank: int) -> list[ir.Value]:
    """The residues of the draws for each prime, `[*draws.shape, 1, …, 1]` with `rank` ones."""
    primes = np.reshape(PRIMES, (-1, *[1] * rank))
    keyed = op.Add(_remainder(op, _float(op, seed), primes), float(SEED_OFFSET))
    outer = _remainder(op, _cube(op, keyed, primes), primes)
    rotated = op.Gather(outer, [1, 2, 0], axis=0)
    inner = _remainder(op, _cube(op, op.Add(outer, rotated), primes), primes)
    state = _remainder(op, op.Unsqueeze(_float(op, draws), [-1 - axis for axis in range(rank + 1)]), primes)
    for key in (inner, outer):
        state = _remainder(op, _cube(op, op.Add(state, key), primes), primes)
    return _mixed(op, [op.Gather(state, op.constant(which, np.int64), axis=-1 - rank) for which in range(len(PRIMES))])


def _float(op: Emitter, value: ir.Value) -> ir.Value:
    return value if value.dtype == op.float_type else op.Cast(value, to=op.float_type)


def _cube(op: Emitter, y: ir.Value, prime: Modulus) -> ir.Value:
    """y^3 modulo the prime up to a multiple of it: y·(y² mod p), below 2p² for 0 ≤ y < 2p."""
    return op.Mul(y, _remainder(op, op.Mul(y, y), prime))


def _remainder(op: Emitter, x: ir.Value, prime: Modulus) -> ir.Value:
    """x mod p as x - p·floor(x·r), exact for whole 0 ≤ x < 2^21, where r = (1 + 2^-22)/p.

    The computed x·r is (x/p)(1 + e). Rounding r and then the product moves e by about 2^-23 at most from 2^-22, so
    0 < e < 2^-21: a multiple of p never falls below its quotient, and x(1 + e) < x + 1 never reaches the next one.
    Nearly 2^-23, one unit in the last place, is left for devices whose products are careless.
    """
    quotient = op.Floor(op.Mul(x, op.floats((1 + 2**-22) / prime)))
    return op.Sub(x, op.Mul(op.floats(prime), quotient))


def _cubic(op: Emitter, coefficients: Sequence[float], minus_w: ir.Value) -> ir.Value:
    """Minus the cubic in w, coefficients constant first, by Horner's rule in -w, where its leading term is positive."""
    constant, linear, square, cube = coefficients
    total = op.Sub(minus_w if cube == 1 else op.Mul(minus_w, cube), square)
    total = op.Add(op.Mul(total, minus_w), linear)
    return op.Sub(op.Mul(total, minus_w), constant)
