"""Uses of every operator that writes at indices or picks by them; `test_vjp_ties.py` states what holds at ties."""

import numpy as np
import torch

from rule_cases_pointwise import BATCH, IMAGES
from rule_harness import Case

TORCH_NAMES = {"add": "sum", "mul": "prod", "min": "amin", "max": "amax"}
REDUCTIONS = ("none", "add", "mul", "min", "max")


def scattered(data, indices, updates, *, axis, reduction):
    indices = torch.where(indices < 0, indices + data.shape[axis], indices)
    if reduction == "none":
        return data.scatter(axis, indices, updates)
    return data.scatter_reduce(axis, indices, updates, TORCH_NAMES[reduction])


def scatter_elements(shape, indices, axis, reduction, **options) -> Case:
    """Updates of data at these indices, both differentiated."""
    return Case(
        "ScatterElements",
        [shape, np.array(indices), np.shape(indices)],
        {"axis": axis, "reduction": reduction},
        (0, 2),
        torch=lambda *t: scattered(*t, axis=axis, reduction=reduction),
        note=f"{reduction} axis {axis} {options.get('fed', 'fixed')} {len(np.ravel(indices))}",
        **options,
    )


ELEMENTS = [
    *[scatter_elements(BATCH, [[1, 3], [0, 2], [2, 1]], 1, reduction, fed=(1,)) for reduction in REDUCTIONS],
    *[scatter_elements(BATCH, [[-1, 0], [1, -2], [2, 0]], -1, reduction) for reduction in REDUCTIONS],
    *[scatter_elements((4, 3), [[0, 3, 2], [1, 0, 3]], 0, reduction, batched=()) for reduction in REDUCTIONS],
    *[scatter_elements((3, 4, 2), [[[1], [3]], [[-2], [0]]], 1, reduction, batched=()) for reduction in REDUCTIONS],
    *[scatter_elements(BATCH, [[1, 1, 3], [0, 0, 0], [2, 3, 2]], 1, reduction) for reduction in REDUCTIONS[1:]],
    *[
        Case(
            "ScatterElements",
            [BATCH, np.array([[1, 3], [0, 2], [2, 1]]), np.full((3, 2), 0.4)],
            {"axis": 1, "reduction": reduction},
            note=f"{reduction} of constants",
        )
        for reduction in ("none", "mul", "max")
    ],
    *[
        Case(
            "ScatterElements",
            [np.array([[0.0, 2.0, -1.0]]), np.array([[0, 1, 1, 2, 2]]), np.array([[0.5, 0.0, 3.0, 0.0, 0.0]])],
            {"axis": 1, "reduction": "mul"},
            (0, 2),
            batched=(),
            note="zeros",
        ),
    ],
]

ND = [
    *[
        Case(
            "ScatterND",
            [shape, np.array(indices), updates],
            {"reduction": reduction},
            (0, 2),
            fed=fed,
            batched=(),
            note=f"{reduction} {fed} {np.shape(indices)}",
        )
        for reduction in REDUCTIONS
        for shape, indices, updates, fed in (
            ((4, 3), [[1], [3]], (2, 3), (1,)),
            ((3, 4), [[0, 1], [2, -1], [-2, 0]], (3,), ()),
            ((2, 3, 4), [[[0, 2], [1, 0]]], (1, 2, 4), (1,)),
            ((5,), [[[3]], [[1]]], (2, 1), ()),
            ((2, 3), [[1, 2], [0, 0], [1, 0]], (3,), ()),
        )
    ],
    *[
        Case(
            "ScatterND",
            [(4, 3), np.array([[1], [1], [0]]), (3, 3)],
            {"reduction": r},
            (0, 2),
            batched=(),
            note=f"{r} twice",
        )
        for r in REDUCTIONS[1:]
    ],
    *[
        Case("GatherND", [shape, np.array(indices)], {"batch_dims": b}, fed=fed, batched=batched, note=f"{b} {fed}")
        for shape, indices, b, fed, batched in (
            ((4, 3), [[1], [3], [1]], 0, (), ()),
            ((3, 4), [[0, 1], [2, -1], [-2, 0], [0, 1]], 0, (1,), ()),
            ((2, 3, 4), [[[0, 2]], [[1, -3]]], 0, (), ()),
            ((2, 3, 4), [[1], [-1]], 1, (1,), (0, 1)),
            ((2, 3, 4), [[[1, 3], [0, 0]], [[-1, 2], [1, 1]]], 1, (1,), (0, 1)),
            ((2, 3, 4), [[[0], [1], [3]], [[2], [2], [-4]]], 2, (1,), (0, 1)),
            ((5,), [[3], [3]], 0, (), ()),
            ((3, 4), [2, 1], 0, (), ()),
        )
    ],
]

CHOICES = [
    *[
        Case(
            "TopK",
            [shape, np.array([k])],
            {"axis": axis, "largest": largest, "sorted": 1},
            outputs=2,
            torch=lambda x, k, a=axis, m=largest: x.topk(int(k), a, bool(m))[0].reshape(-1),
            note=f"{k} axis {axis} largest {largest}",
        )
        for shape, k, axis, largest in (
            (BATCH, 2, -1, 1),
            (BATCH, 3, 1, 0),
            (IMAGES, 2, 2, 1),
            (IMAGES, 5, 3, 1),
            ((6,), 1, 0, 0),
        )
    ],
    Case("TopK", [BATCH, np.array([2])], {"axis": 1}, fed=(1,), outputs=2, note="k at run time"),
    *[
        Case(
            "Compress",
            [shape, np.array(condition)],
            {} if axis is None else {"axis": axis},
            fed=fed,
            batched=batched,
            note=f"axis {axis} {fed} {len(condition)}",
        )
        for shape, condition, axis, fed, batched in (
            (BATCH, [True, False, True, True], 1, (), (0,)),
            (BATCH, [False, True], -1, (1,), (0,)),
            ((2, 3, 4), [True, False, True], 1, (1,), (0,)),
            ((2, 3, 4), [False, True], 0, (), ()),
            ((2, 3), [True, False, False, True, True], None, (), ()),
            ((2, 3), [False, True, True], None, (1,), (0,)),
        )
    ],
    *[
        Case("Unique", [shape], attributes, batched=(), note=note)
        for shape, attributes, note in (
            ((5,), {}, "vector"),
            ((3, 4), {}, "flattened"),
            ((6,), {"sorted": 0}, "in order"),
            ((3, 4), {"axis": 0}, "rows"),
            ((3, 4), {"axis": 1}, "columns"),
            ((2, 3, 2), {"axis": -2}, "middle"),
        )
    ],
    *[
        Case(
            "OneHot",
            [np.array(indices), np.array(depth), (2,)],
            {} if axis is None else {"axis": axis},
            (2,),
            fed=fed,
            batched=(),
            note=f"axis {axis} depth {depth} {fed}",
        )
        for indices, depth, axis, fed in (
            ([0, 2, 1], 3, None, ()),
            ([[0, 3], [-1, 9]], 4, 1, (0,)),
            ([2, 0], 3, 0, (0,)),
            ([[[1]]], 2, -2, ()),
            ([1, 1, 1], 5, -1, (0, 1)),
        )
    ],
]

CASES: list[Case] = [*ELEMENTS, *ND, *CHOICES]
