"""Uses of operators whose weights, scales and bounds are computed, and of the rarer products and normalisations."""

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812

from rule_cases_pointwise import BATCH, IMAGES, VARIANCE, batch_norm
from rule_harness import Case


def convolution(op_type, x, weight, note, function=None, **attributes) -> Case:
    """Image, weight and bias, all differentiated."""
    outputs = weight[0] if op_type == "Conv" else weight[1] * attributes.get("group", 1)
    return Case(op_type, [x, weight, (outputs,)], attributes, (0, 1, 2), note=note, batched=(0,), torch=function)


WEIGHTS = [
    *[
        convolution("Conv", *given, **attributes)
        for *given, attributes in (
            ((2, 3, 6, 5), (4, 3, 3, 3), "3x3", lambda *t: F.conv2d(*t, padding=1), {"pads": [1, 1, 1, 1]}),
            ((2, 3, 7, 8), (4, 3, 3, 2), "stride and asymmetric pads", None, {"strides": [2, 3], "pads": [0, 1, 1, 0]}),
            ((2, 3, 9, 8), (2, 3, 3, 2), "dilated", None, {"dilations": [2, 3], "strides": [3, 1]}),
            ((2, 4, 6, 5), (6, 2, 3, 2), "groups", None, {"group": 2, "pads": [1, 0, 0, 1], "strides": [2, 2]}),
            ((2, 4, 6, 5), (8, 1, 3, 3), "depthwise", lambda *t: F.conv2d(*t, groups=4), {"group": 4}),
            ((2, 3, 9), (4, 3, 3), "1-D", lambda *t: F.conv1d(*t, stride=2), {"strides": [2]}),
            ((1, 2, 4, 3, 4), (4, 1, 2, 2, 2), "3-D", None, {"group": 2, "pads": [1, 0, 0, 0, 1, 0]}),
            ((2, 3, 5, 5), (4, 3, 1, 1), "1x1 stride 2", None, {"strides": [2, 2]}),
        )
    ],
    *[
        convolution("ConvTranspose", *given, **attributes)
        for *given, attributes in (
            ((2, 3, 4, 3), (3, 4, 3, 3), "3x3", lambda *t: F.conv_transpose2d(*t, padding=1), {"pads": [1, 1, 1, 1]}),
            ((2, 3, 4, 3), (3, 2, 3, 2), "stride 2", None, {"strides": [2, 3], "output_padding": [1, 2]}),
            ((2, 4, 4, 3), (4, 3, 3, 2), "groups", None, {"group": 2, "strides": [2, 1], "pads": [1, 0, 0, 1]}),
            ((2, 3, 5), (3, 2, 3), "1-D dilated", None, {"dilations": [2]}),
            ((2, 4, 3, 3), (4, 1, 2, 2), "depthwise", None, {"group": 4, "strides": [2, 2]}),
        )
    ],
]


def group_norm(x, scale, bias, groups, epsilon):
    """One scale and bias a group, as opset 18 has it."""
    rows = x.reshape(len(x), groups, -1)
    unit = (rows - rows.mean(2, keepdim=True)) / (rows.var(2, correction=0, keepdim=True) + epsilon).sqrt()
    return (unit * scale[:, None] + bias[:, None]).reshape(x.shape)


def mean_variance(x, axes):
    return (x - x.mean(axes, keepdim=True)) / (x.var(axes, correction=0, keepdim=True).sqrt() + 1e-9)


NORMALISATIONS = [
    *[
        Case(
            "BatchNormalization",
            [shape, (3,), (3,), (3,), VARIANCE],
            {"epsilon": 0.1},
            (0, 1, 2, 3, 4),
            batched=(0,),
            torch=lambda x, s, b, m, v: (x - column(m, x)) / (column(v, x) + 0.1).sqrt() * column(s, x) + column(b, x),
            note="everything",
        )
        for shape in ((4, 3), IMAGES)
    ],
    Case("BatchNormalization", [IMAGES, (3,), *[np.ones(3)] * 3], wrt=(1,), fed=(0,), torch=batch_norm, batched=(0,)),
    *[
        Case(
            "InstanceNormalization",
            [shape, (3,), (3,)],
            wrt=(0, 1, 2),
            torch=lambda x, s, b: F.instance_norm(x, None, None, s, b),
        )
        for shape in (IMAGES, (2, 3, 6), (1, 3, 2, 3, 2))
    ],
    *[
        Case(
            "GroupNormalization",
            [shape, (groups,), (groups,)],
            {"num_groups": groups, "epsilon": epsilon},
            (0, 1, 2),
            batched=(0,),
            torch=lambda x, s, b, n=groups, e=epsilon: group_norm(x, s, b, n, e),
            note=f"{groups} groups epsilon {epsilon}",
            tolerance=1e-6,
        )
        for shape, groups, epsilon in (
            ((2, 6, 4, 5), 2, 1e-5),
            ((2, 6, 4, 5), 6, 1e-5),
            ((2, 6, 4, 5), 1, 0.1),
            ((2, 4, 7), 2, 0.1),
            ((3, 4, 2, 2, 3), 2, 1e-5),
        )
    ],
    *[
        Case(
            op_type,
            [IMAGES, *(np.array([0.5, -1.5, 2.0][:channels]) for _ in range(2))],
            attributes,
            low=-0.02,
            high=0.02,
            torch=function,
            note="epsilon by default",
            tolerance=1e-6,
        )
        for op_type, channels, attributes, function in (
            ("LayerNormalization", 1, {"axis": 1}, lambda x, s, b: F.layer_norm(x, x.shape[1:]) * s + b),
            ("InstanceNormalization", 3, {}, lambda x, s, b: F.instance_norm(x, None, None, s, b)),
            ("GroupNormalization", 1, {"num_groups": 1}, lambda x, s, b: group_norm(x, s, b, 1, 1e-5)),
        )
    ],
    Case(
        "BatchNormalization",
        [IMAGES, *np.array([[0.5, -1.5, 2.0], [0.1, 0.2, -0.3], [0.3, -0.2, 0.1], [1e-4, 2e-4, 3e-4]])],
        wrt=(0, 1),
        torch=batch_norm,
        note="epsilon by default",
        tolerance=1e-6,
    ),
    *[
        Case(
            "MeanVarianceNormalization",
            [shape],
            {} if axes is None else {"axes": axes},
            torch=lambda x, a=axes: mean_variance(x, a or [0, 2, 3]),
            note=f"axes {axes}",
        )
        for shape, axes in ((IMAGES, None), (IMAGES, [1]), (IMAGES, [-1, 1]), (BATCH, [1]), ((2, 3, 4), [0, 2]))
    ],
]


def column(values: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return values.reshape(-1, *[1] * (x.ndim - 2))


EQUATIONS = [
    *[
        Case(
            "Einsum",
            list(shapes),
            {"equation": equation},
            (*range(len(shapes)),),
            batched=(),
            torch=None if "=" in equation else lambda *t, e=equation: torch.einsum(e, *t),
            note=equation,
        )
        for equation, *shapes in [
            ("...ij,...jk->...ik", (2, 3, 4), (2, 4, 5)),
            ("...ij,jk->...ik", (2, 3, 3, 4), (4, 5)),
            ("...ij,...jk", (2, 3, 4), (1, 4, 2)),
            ("b...,b...->b...", (2, 3, 4), (2, 3, 4)),
            ("...i,...i->...", (2, 1, 4), (2, 3, 4)),
            ("i...->...", (3, 2)),
            ("ii->i", (4, 4)),
            ("ii->", (4, 4)),
            ("bii->bi", (2, 3, 3)),
            ("iji,j->i", (3, 4, 3), (4,)),
            ("iii->i", (3, 3, 3)),
            ("ii,jj->ij", (2, 2), (3, 3)),
            ("...ii->...i", (2, 3, 3)),
        ]
    ],
    Case("Einsum", [(3, 4), (3, 1)], {"equation": "ij,ij->i"}, (0, 1), batched=(), note="axis of size 1"),
    *[
        Case("Det", [shape], torch=torch.linalg.det, low=-1.0, high=1.0, batched=batched)
        for shape, batched in (
            ((3, 3), ()),
            ((2, 2), ()),
            ((1, 1), ()),
            ((2, 4, 4), (0,)),
            ((2, 3, 2, 2), (0,)),
            ((5, 5), ()),
        )
    ],
]

BOUNDS = [
    Case(
        "Clip",
        [BATCH, np.array(-0.4), np.array(0.7)],
        wrt=(0, 1, 2),
        torch=lambda x, a, b: torch.clamp(x, a, b),
        note="bounds",
    ),
    Case("Clip", [BATCH, np.array(-0.4)], wrt=(0, 1), torch=lambda x, a: torch.clamp(x, a), note="lower bound"),
    Case("Clip", [BATCH, None, np.array(0.7)], wrt=(0, 2), torch=lambda x, _, b: torch.clamp(x, max=b), note="upper"),
    Case("Clip", [BATCH, np.array(0.7), np.array(-0.4)], wrt=(2,), fed=(0, 1), note="bounds crossed"),
]

CASES: list[Case] = [*WEIGHTS, *NORMALISATIONS, *EQUATIONS, *BOUNDS]
