"""Uses of the operators on tensors so large that onnxruntime divides the work among its threads."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from rule_harness import FREE, Case, case_cotangent, free_inputs, gradients, torch_gradients

ENTRIES = 120_000
"""Of the largest input or output, at least."""


@dataclass(frozen=True, eq=False)
class Large:
    """A use, whose rows may be `repeated` ones, a cotangent and the gradients in float64."""

    case: Case
    cotangent: np.ndarray
    expected: Sequence[np.ndarray]
    repeated: bool


def whole(case: Case) -> Large:
    """A use that is large as it is, by torch where the case says how, else by the reference evaluator."""
    u = case_cotangent(case)
    by_torch = case.torch is not None
    return Large(case, u, torch_gradients(case, u) if by_torch else gradients(case, form=FREE, cotangent=u), False)


def enlarged(case: Case) -> Large | None:
    """The use with its rows repeated, whose gradients follow from the small one's; None where rows are mixed."""
    u = case_cotangent(case)
    small = gradients(case, form=FREE, cotangent=u)
    try:
        twice = _repeated(case, u, small, 2)
        if case_cotangent(twice.case).shape != twice.cotangent.shape:
            return None
        found = gradients(twice.case, form=FREE, cotangent=twice.cotangent)
    except (ValueError, IndexError, TypeError, AssertionError, RuntimeError, NotImplementedError):
        return None  # the batch is written into the use
    alike = all(
        x.shape == y.shape and np.allclose(x, y, rtol=1e-9, atol=1e-12)
        for x, y in zip(found, twice.expected, strict=True)
    )
    if not alike or not free_inputs(case):
        return None
    rows = max(u.size, *(case.arrays()[i].size for i in free_inputs(case)))
    return _repeated(case, u, small, -(-ENTRIES // rows))


def _repeated(case: Case, u: np.ndarray, small: Sequence[np.ndarray], times: int) -> Large:
    free = free_inputs(case)
    inputs = [_rows(x, times) if i in free else x for i, x in enumerate(case.arrays())]
    expected = [_rows(x, times) if i in free else times * x for i, x in zip(case.wrt, small, strict=True)]
    batched = free if case.batched is not None else None
    return Large(replace(case, inputs=inputs, batched=batched), _rows(u, times), expected, True)


def _rows(x: np.ndarray | None, times: int) -> np.ndarray:
    if x is None or x.ndim == 0:
        raise ValueError("no rows")
    return np.tile(x, (times, *[1] * (x.ndim - 1)))
