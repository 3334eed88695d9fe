"""Uses of the trigonometric functions, thresholds, remainders, cumulative sums and triangles, away from kinks."""

import numpy as np
import torch

from rule_cases_pointwise import BATCH, IMAGES, axes, reduction, unary
from rule_harness import Case

INSIDE = {"low": -0.95, "high": 0.95}

FUNCTIONS = [
    *[
        case
        for op_type, function in (
            ("Tan", torch.tan),
            ("Asin", torch.asin),
            ("Acos", torch.acos),
            ("Atanh", torch.atanh),
        )
        for case in unary(op_type, function, **INSIDE)
    ],
    *unary("Atan", torch.atan),
    *unary("Sinh", torch.sinh),
    *unary("Cosh", torch.cosh),
    *unary("Asinh", torch.asinh),
    *unary("Acosh", torch.acosh, low=1.1, high=4.0),
    *[
        Case(op_type, [shape], torch=function, low=low, high=high, note="far")
        for op_type, function, low, high in (
            ("Tan", torch.tan, 2.0, 4.0),
            ("Asin", torch.asin, 0.8, 0.95),
            ("Acos", torch.acos, -0.95, -0.8),
            ("Atanh", torch.atanh, 0.9, 0.99),
            ("Atan", torch.atan, 10.0, 50.0),
            ("Sinh", torch.sinh, -9.0, 9.0),
            ("Cosh", torch.cosh, -9.0, 9.0),
            ("Asinh", torch.asinh, -50.0, 50.0),
            ("Acosh", torch.acosh, 10.0, 50.0),
        )
        for shape in (BATCH, (7,))
    ],
    *unary("ThresholdedRelu", lambda x: torch.where(x > 1, x, 0.0)),
    *[
        Case(
            "ThresholdedRelu",
            [BATCH],
            {"alpha": a},
            torch=lambda x, a=a: torch.where(x > a, x, 0.0),
            note=f"alpha {a}",
        )
        for a in (0.25, -0.5, 0.0)
    ],
    *unary("Shrink", torch.nn.functional.hardshrink),
    *[
        Case("Shrink", [BATCH], {"lambd": w, "bias": b}, note=f"lambd {w} bias {b}")
        for w, b in ((0.25, 0.0), (1.0, 0.5), (0.25, -1.5))
    ],
    *unary("Dropout", lambda x: x),
    Case("Dropout", [BATCH, np.array(0.25)], torch=lambda x, *_: x, note="ratio"),
    Case("Dropout", [BATCH, None, np.array(False)], torch=lambda x, *_: x, note="not training"),
    Case("Dropout", [BATCH, np.array(0.25), np.array(False)], torch=lambda x, *_: x, note="ratio, not training"),
    *[
        Case("Mod", [a, b], {"fmod": 1}, (0, 1), torch=torch.fmod, note=note, **options)
        for a, b, note, options in (
            (BATCH, BATCH, "equal shapes", {}),
            ((2, 3, 1, 2), (3, 1, 1), "by channel", {"high": 3.0}),
            (BATCH, (), "by a number", {"low": 0.3, "high": 5.0}),
            ((3, 1, 4), (2, 1), "outer", {}),
            ((4,), BATCH, "into rows", {"low": -5.0, "high": -0.3}),
        )
    ],
    Case("Mod", [BATCH, np.array(-0.7)], {"fmod": 1}, torch=torch.fmod, note="by a constant"),
]


def cumulative(x: torch.Tensor, axis: int, *, exclusive: bool, reverse: bool) -> torch.Tensor:
    x = x.flip(axis) if reverse else x
    total = x.cumsum(axis) - (x if exclusive else 0)
    return total.flip(axis) if reverse else total


ALONG = [
    *[
        Case(
            "CumSum",
            [shape, np.array(axis)],
            {"exclusive": exclusive, "reverse": reverse},
            fed=fed,
            torch=lambda x, a, e=exclusive, r=reverse: cumulative(x, int(a), exclusive=bool(e), reverse=bool(r)),
            note=f"axis {axis} exclusive {exclusive} reverse {reverse} fed {fed}",
        )
        for shape, axis in ((BATCH, 1), (IMAGES, -2), ((5,), 0))
        for exclusive in (0, 1)
        for reverse in (0, 1)
        for fed in ((), (1,))[: 1 + (axis == 1)]
    ],
    *[
        Case(
            "Trilu",
            [shape, *([] if k is None else [np.array(k)])],
            {"upper": upper},
            fed=fed,
            torch=lambda x, k=0, u=upper: (torch.triu if u else torch.tril)(x, int(k)),
            note=f"k {k} upper {upper} fed {fed}",
        )
        for shape, k, fed in (((3, 5), None, ()), ((2, 4, 3), 1, ()), ((2, 4, 3), -1, (1,)), ((3, 3), 0, ()))
        for upper in (0, 1)
    ],
    *[
        Case("ReverseSequence", [shape, np.array(lengths)], attributes, fed=fed, batched=batched, note=note)
        for shape, lengths, attributes, fed, batched, note in (
            ((4, 3), [4, 1, 2], {}, (), (), "time first"),
            ((3, 4), [1, 4, 3], {"batch_axis": 0, "time_axis": 1}, (), (), "batch first"),
            ((3, 4), [1, 2, 3], {"batch_axis": 0, "time_axis": 1}, (1,), (), "at run time"),
            ((3, 4, 2), [4, 4, 4], {"batch_axis": 0, "time_axis": 1}, (1,), (), "whole"),
            ((5, 2, 3), [5, 3], {"batch_axis": 1, "time_axis": 0}, (1,), (), "vectors"),
        )
    ],
    *[
        Case("Range", list(map(np.array, limits)), wrt=wrt, fed=fed, batched=(), note=note)
        for limits, wrt, fed, note in (
            ((0.3, 5.1, 1.7), (0, 2), (1,), "both"),
            ((4.2, -1.1, -0.9), (0, 2), (1,), "down"),
            ((0.3, 5.1, 1.7), (0,), (), "start"),
            ((0.3, 5.1, 1.7), (2,), (), "step"),
            ((0.3, 0.9, 1.7), (0,), (), "one"),
        )
    ],
]

AT_RUN_TIME = [
    *[
        Case(
            op_type,
            [IMAGES, axes(*given)],
            {"keepdims": keep},
            fed=(1,),
            low=0.2,
            note=f"axes {given} keepdims {keep} at run time",
        )
        for op_type in ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceL2", "ReduceLogSumExp", "ReduceProd")
        for given, keep in (((1, -1), 1), ((2,), 0), ((), 0))
        if given or op_type not in ("ReduceL2", "ReduceLogSumExp")
    ],
    Case("ReduceSum", [BATCH, axes()], {"noop_with_empty_axes": 1}, fed=(1,), note="over no axes at run time"),
    Case("ReduceMax", [BATCH, axes(1)], {"noop_with_empty_axes": 1}, fed=(1,), note="noop unused at run time"),
    *[
        Case("Tile", [shape, axes(*counts)], fed=(1,), batched=batched, note=f"{counts} at run time")
        for shape, counts, batched in (((3, 4), (1, 2), (0,)), (IMAGES, (2, 1, 1, 3), (0,)), ((4,), (3,), ()))
    ],
    *[
        Case(
            "Slice",
            [shape, *map(np.array, given)],
            fed=tuple(range(1, 1 + len(given))),
            batched=batched,
            note=f"{given}",
        )
        for shape, given, batched in (
            (BATCH, ([1], [3], [1]), (0,)),
            (IMAGES, ([-1, 1], [-99, 4], [1, 2], [-2, 2]), (0,)),
            ((7,), ([5], [0], [0], [-2]), ()),
            (BATCH, ([0, 0], [2**62, 2]), (0,)),
        )
    ],
    Case("Slice", [(3, 4), axes(1), axes(3)], batched=(0,), note="the free axis"),
]

PRODUCTS = [
    *reduction("ReduceProd", lambda x, a, k: x.prod() if len(a) == 4 and not k else products(x, a, k), low=0.5),
    Case("ReduceProd", [BATCH, axes(1)], torch=lambda x, _: products(x, (1,), True), note="signs"),
    *reduction("ReduceLogSum", lambda x, a, k: x.sum(a, k).log(), low=0.2),
]


def products(x: torch.Tensor, axes_: tuple[int, ...], keep: bool) -> torch.Tensor:
    for axis in sorted((axis % x.ndim for axis in axes_), reverse=True):
        x = x.prod(axis, keep)
    return x


CASES: list[Case] = [*FUNCTIONS, *ALONG, *AT_RUN_TIME, *PRODUCTS]
