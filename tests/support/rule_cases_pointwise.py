"""Uses of every operator that computes entry by entry, by sums or by products, away from kinks and ties.

`test_vjp.py` states what holds there.
"""

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812

from rule_harness import Case

BATCH = (3, 4)
IMAGES = (2, 3, 4, 5)
POSITIVE = {"low": 0.2, "high": 3.0}
ROUNDED = 1e-6
"""For operators with attributes that are no float32, such as 0.2 or 1/6."""


def axes(*numbers: int) -> np.ndarray:
    return np.array(numbers, dtype=np.int64)


def unary(op_type: str, function, **options) -> list[Case]:
    """A function of one tensor of up to five axes."""
    shapes = (BATCH, IMAGES, (5,), (2, 1, 3), (3, 2, 1, 2, 2))
    return [Case(op_type, [shape], torch=function, **options) for shape in shapes]


def binary(op_type: str, function, **options) -> list[Case]:
    """A function of two tensors: equal shapes, a channel vector, a scalar, outer broadcasting, a constant."""
    shapes = [(BATCH, BATCH), (IMAGES, (3, 1, 1)), ((3, 4), ()), ((3, 1, 4), (2, 1)), ((4,), (3, 4))]
    both = [Case(op_type, [*pair], wrt=(0, 1), torch=function, **options) for pair in shapes]
    number = np.array(1.7)
    return [
        *both,
        Case(op_type, [BATCH, number], torch=function, note="constant", **options),
        Case(op_type, [number, BATCH], wrt=(1,), torch=function, note="of a constant", **options),
    ]


ARITHMETIC = [
    *binary("Add", torch.add),
    *binary("Sub", torch.sub),
    *binary("Mul", torch.mul),
    *binary("Div", torch.div, **POSITIVE),
    *binary("Max", torch.maximum),
    *binary("Min", torch.minimum),
    *binary("Pow", torch.pow, **POSITIVE),
    *binary("Sum", torch.add),
    *binary("Mean", lambda a, b: (a + b) / 2),
    Case("Sum", [BATCH, (4,), (1, 4)], wrt=(0, 1, 2), torch=lambda a, b, c: a + b + c),
    Case("Sum", [BATCH], torch=lambda a: a),
    Case("Mean", [BATCH, (4,), BATCH], wrt=(0, 2), fed=(1,), torch=lambda a, b, c: (a + b + c) / 3),
    Case("Max", [BATCH], torch=lambda a: a, note="one input"),
    Case("Max", [BATCH, (4,), ()], wrt=(0, 1, 2), torch=lambda a, b, c: torch.maximum(torch.maximum(a, b), c)),
    Case("Min", [BATCH, (3, 1), (4,)], wrt=(0, 1, 2), torch=lambda a, b, c: torch.minimum(torch.minimum(a, b), c)),
    *[Case("Pow", [BATCH, np.array(p)], torch=lambda x, p=p: x**p, note=f"to the {p}") for p in (2.0, 3.0, 2)],
    Case("Pow", [BATCH, np.array([1.0, 2.0, 3.0, 2.0])], torch=torch.pow, note="by column"),
    Case("Pow", [BATCH, np.array([2, 3, 1, 4])], torch=torch.pow, note="integers by column"),
    Case("Pow", [BATCH, np.array([2, 3, 1, 4])], fed=(1,), torch=torch.pow, note="integers at run time"),
    *[Case("Pow", [BATCH, np.array([p])], torch=torch.pow, note=f"root {p}", **POSITIVE) for p in (0.5, -0.5, -1.0)],
    *unary("Neg", torch.neg),
    *unary("Abs", torch.abs),
    *unary("Exp", torch.exp),
    *unary("Erf", torch.erf),
    *unary("Sin", torch.sin),
    *unary("Cos", torch.cos),
    *unary("Reciprocal", torch.reciprocal),
    *unary("Identity", lambda x: x),
    *unary("Sqrt", torch.sqrt, **POSITIVE),
    *unary("Log", torch.log, **POSITIVE),
]

CONDITION = np.arange(12).reshape(3, 4) % 3 == 0

SELECTION = [
    Case("Where", [CONDITION, BATCH, BATCH], wrt=(1, 2), batched=(), torch=torch.where),
    Case("Where", [CONDITION, BATCH, BATCH], wrt=(1, 2), fed=(0,), torch=torch.where, note="at run time"),
    Case("Where", [CONDITION, BATCH, (4,)], wrt=(1, 2), fed=(0,), torch=torch.where),
    Case("Where", [CONDITION, (), BATCH], wrt=(1, 2), fed=(0,), torch=torch.where),
    Case("Where", [CONDITION[:1], BATCH, np.array(-9.0)], wrt=(1,), torch=torch.where, note="mask"),
    Case("Clip", [BATCH, np.array(-0.5), np.array(1.0)], torch=lambda x, a, b: x.clamp(a, b)),
    Case("Clip", [IMAGES, np.array(0.0), np.array(6.0)], torch=lambda x, *_: F.relu6(x), low=-9, high=9),
    Case("Clip", [IMAGES, np.array(0.0), np.array(1.0)], torch=lambda x, a, b: x.clamp(a, b)),
    Case("Clip", [BATCH, np.array(0.25)], torch=lambda x, a: x.clamp(a), note="no maximum"),
    Case("Clip", [BATCH, None, np.array(0.25)], torch=lambda x, _, b: x.clamp(max=b), note="no minimum"),
    Case("Clip", [BATCH, None, None], torch=lambda x, *_: x, note="no bounds"),
    Case("Clip", [BATCH], torch=lambda x: x, note="one input"),
    Case("Clip", [BATCH, np.array(1e-12)], torch=lambda x, a: x.clamp(a), note="tiny"),
    Case("Clip", [BATCH, np.array(-3e38), np.array(np.inf)], torch=lambda x, *_: x, note="far"),
    Case(
        "Clip", [BATCH, np.array(-0.5), np.array(1.0)], fed=(1, 2), torch=lambda x, a, b: x.clamp(a, b), note="run time"
    ),
    Case(
        "Clip", [BATCH, np.array(-0.5), np.array(1.0)], fed=(2,), torch=lambda x, a, b: x.clamp(a, b), note="one fixed"
    ),
    *unary("Cast", lambda x: x, attributes={"to": 11}),
]

ACTIVATIONS = [
    *unary("Relu", torch.relu),
    *unary("Sigmoid", torch.sigmoid),
    *unary("Tanh", torch.tanh),
    *unary("Softplus", F.softplus),
    *unary("Softsign", F.softsign),
    *unary("Selu", torch.selu, tolerance=ROUNDED),
    *unary("Mish", F.mish),
    *unary("HardSwish", F.hardswish, low=-5.0, high=5.0, tolerance=ROUNDED),
    *unary("Elu", F.elu),
    *unary("Celu", F.celu),
    *unary("Gelu", F.gelu),
    *unary("Gelu", lambda x: F.gelu(x, approximate="tanh"), attributes={"approximate": "tanh"}, note="tanh"),
    *unary("LeakyRelu", F.leaky_relu, note="default"),
    *[
        Case("LeakyRelu", [BATCH], {"alpha": a}, torch=lambda x, a=a: F.leaky_relu(x, a), note=f"alpha {a}")
        for a in (0.25, 0.0, -0.5, 1.5)
    ],
    *[
        Case("Elu", [BATCH], {"alpha": a}, torch=lambda x, a=a: F.elu(x, a), note=f"alpha {a}")
        for a in (0.5, 2.0, -0.5)
    ],
    *[Case("Celu", [BATCH], {"alpha": a}, torch=lambda x, a=a: F.celu(x, a), note=f"alpha {a}") for a in (0.5, 2.0)],
    Case("Selu", [BATCH], {"alpha": 0.5, "gamma": 2.0}, note="own constants"),
    *unary("HardSigmoid", lambda x: torch.clamp(0.2 * x + 0.5, 0, 1), low=-4.0, high=4.0, tolerance=ROUNDED),
    Case(
        "HardSigmoid",
        [BATCH],
        {"alpha": 0.5, "beta": 0.25},
        torch=lambda x: torch.clamp(x / 2 + 0.25, 0, 1),
        note="beta",
    ),
    Case("HardSigmoid", [BATCH], {"alpha": -0.5}, torch=lambda x: torch.clamp(0.5 - x / 2, 0, 1), note="falling"),
    Case("PRelu", [BATCH, (4,)], wrt=(0, 1), torch=F.prelu),
    Case("PRelu", [IMAGES, (3, 1, 1)], wrt=(0, 1), torch=lambda x, s: torch.where(x > 0, x, s * x)),
    Case("PRelu", [IMAGES, (1,)], wrt=(0, 1), torch=F.prelu),
    Case("PRelu", [(2, 5), (5,)], wrt=(0,), fed=(1,), torch=F.prelu, note="slopes at run time"),
    Case("PRelu", [IMAGES, np.array([[[0.1]], [[-0.3]], [[0.5]]])], torch=lambda x, s: torch.where(x > 0, x, s * x)),
    *[
        Case(
            op_type,
            [shape],
            {} if axis is None else {"axis": axis},
            torch=lambda x, f=f, a=axis: f(x, -1 if a is None else a),
            note=f"axis {axis}",
        )
        for op_type, f in (("Softmax", F.softmax), ("LogSoftmax", F.log_softmax))
        for shape, axis in ((BATCH, None), (IMAGES, 1), (IMAGES, -3), (BATCH, 0), ((5,), 0))
    ],
]


def gemm(a, b, c=0.0, *, alpha=1.0, beta=1.0, transA=0, transB=0):  # noqa: N803 (the attributes' names)
    return alpha * (a.T if transA else a) @ (b.T if transB else b) + beta * c


def product(x, y, bias, *, transA, transB):  # noqa: N803
    """A Gemm of 3×4 by 4×5 under every transposition."""
    shapes = [(4, 3) if transA else (3, 4), (5, 4) if transB else (4, 5), *bias]
    attributes = {"transA": transA, "transB": transB, "alpha": x, "beta": y}
    batched = (0,) if not transA else ()
    return Case(
        "Gemm", shapes, attributes, (*range(len(shapes)),), torch=lambda *t: gemm(*t, **attributes), batched=batched
    )


LINEAR = [
    *[product(0.5, 1.5, [(5,)], transA=a, transB=b) for a in (0, 1) for b in (0, 1)],
    *[product(1.0, 1.0, [bias], transA=0, transB=1) for bias in ((3, 5), (1, 5), (3, 1), (), (1,))],
    product(1.0, 1.0, [], transA=0, transB=0),
    Case(
        "Gemm",
        [BATCH, np.arange(20.0).reshape(5, 4) / 9, np.arange(5.0)],
        {"transB": 1},
        torch=lambda x, w, b: x @ w.T + b,
    ),
    *[
        Case("MatMul", list(pair), wrt=(0, 1), torch=torch.matmul, batched=batched)
        for pair, batched in [
            (((3, 4), (4, 5)), (0,)),
            (((2, 3, 4), (4, 5)), (0,)),
            (((2, 3, 4), (2, 4, 5)), (0, 1)),
            (((2, 6, 3, 4), (2, 1, 4, 5)), (0, 1)),
            (((6, 3, 4), (2, 1, 4, 5)), ()),
            (((3, 4), (2, 4, 5)), (1,)),
            (((1, 3, 4), (2, 4, 5)), (1,)),
            (((4,), (4,)), ()),
            (((4,), (4, 5)), ()),
            (((3, 4), (4,)), (0,)),
            (((4,), (2, 4, 5)), (1,)),
            (((2, 3, 4), (4,)), (0,)),
            (((2, 6, 3, 4), (4,)), (0,)),
        ]
    ],
    *[
        Case(
            "Einsum",
            list(shapes),
            {"equation": equation},
            (*range(len(shapes)),),
            torch=lambda *t, e=equation: torch.einsum(e, *t),
            note=equation,
        )
        for equation, *shapes in [
            ("bij,bjk->bik", (2, 3, 4), (2, 4, 5)),
            ("bij, jk -> bki", (2, 3, 4), (4, 5)),
            ("bhid,bhjd", (2, 3, 4, 5), (2, 3, 6, 5)),
            ("bij->bi", (2, 3, 4)),
            ("bij->", (2, 3, 4)),
            ("bij,bk->ik", (2, 3, 4), (2, 5)),
            ("bi,bj,bk->bijk", (2, 3), (2, 4), (2, 5)),
        ]
    ],
    Case("MatMul", [(2, 3, 4), np.arange(20.0).reshape(4, 5) / 9], torch=torch.matmul, note="by a constant"),
    Case("MatMul", [np.arange(6.0).reshape(2, 3) / 9, (2, 3, 4)], wrt=(1,), torch=torch.matmul, note="constant times"),
]


def reduction(op_type: str, function, **options) -> list[Case]:
    """A reduction over one, several, negative and all axes, kept or not, by initializer."""
    uses = [(axes(1), 1), (axes(1), 0), (axes(-1), 0), (axes(2, 3), 1), (axes(-1, 1), 0), (axes(0), 0), (axes(0, 2), 1)]
    listed = [
        Case(
            op_type,
            [IMAGES, given],
            {"keepdims": keep},
            torch=lambda x, a, keep=keep: function(x, tuple(a.tolist()), bool(keep)),
            note=f"axes {given.tolist()} keepdims {keep}",
            **options,
        )
        for given, keep in uses
    ]
    everything = tuple(range(4))
    return [
        *listed,
        Case(op_type, [IMAGES], torch=lambda x: function(x, everything, True), note="all kept", **options),
        Case(op_type, [IMAGES], {"keepdims": 0}, torch=lambda x: function(x, everything, False), note="all", **options),
        Case(op_type, [IMAGES, axes()], torch=lambda x, _: function(x, everything, True), note="empty axes", **options),
    ]


NOTHING = {"noop_with_empty_axes": 1}

REDUCTIONS = [
    *reduction("ReduceSum", lambda x, a, k: x.sum(a, k)),
    *reduction("ReduceMean", lambda x, a, k: x.mean(a, k)),
    *reduction("ReduceMax", lambda x, a, k: x.amax(a, k)),
    *reduction("ReduceMin", lambda x, a, k: x.amin(a, k)),
    *reduction("ReduceL1", lambda x, a, k: x.abs().sum(a, k)),
    *reduction("ReduceL2", lambda x, a, k: x.square().sum(a, k).sqrt()),
    *reduction("ReduceSumSquare", lambda x, a, k: x.square().sum(a, k)),
    *reduction("ReduceLogSumExp", lambda x, a, k: x.logsumexp(a, k)),
    *[
        Case(op_type, [BATCH, *rest], NOTHING, torch=lambda x, *_: x, note="over no axes")
        for op_type in ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin")
        for rest in ([], [axes()])
    ],
]

SCALE, SHIFT = np.array([0.5, -1.5, 2.0]), np.array([0.1, 0.2, -0.3])
MEAN, VARIANCE = np.array([0.3, -0.2, 0.1]), np.array([0.5, 1.5, 2.5])


def batch_norm(x, s, b, m, v, *, eps=1e-5):
    return F.batch_norm(x, m, v, s, b, False, 0.0, eps)


def last_axes(shape: tuple[int, ...], eps: float = 1e-5):
    return lambda x, s, b=None: F.layer_norm(x, shape, s, b, eps)


NORMALISATIONS = [
    *[
        Case("BatchNormalization", [shape, SCALE, SHIFT, MEAN, VARIANCE], torch=batch_norm)
        for shape in ((4, 3), (2, 3, 5), IMAGES, (2, 3, 2, 3, 2))
    ],
    Case(
        "BatchNormalization",
        [IMAGES, SCALE, SHIFT, MEAN, VARIANCE],
        {"epsilon": 0.1},
        torch=lambda *t: batch_norm(*t, eps=0.1),
        note="epsilon",
    ),
    Case(
        "BatchNormalization", [IMAGES, SCALE, SHIFT, MEAN, VARIANCE], fed=(1, 4), torch=batch_norm, note="at run time"
    ),
    Case("LayerNormalization", [(3, 4), (4,), (4,)], wrt=(0, 1, 2), torch=last_axes((4,))),
    Case("LayerNormalization", [(2, 3, 4), (4,)], wrt=(0, 1), torch=last_axes((4,)), note="no bias"),
    Case(
        "LayerNormalization",
        [IMAGES, (3, 4, 5), (3, 4, 5)],
        {"axis": 1},
        (0, 1, 2),
        torch=last_axes((3, 4, 5)),
        note="axis 1",
    ),
    Case(
        "LayerNormalization",
        [IMAGES, (4, 5)],
        {"axis": -2, "epsilon": 0.1},
        torch=last_axes((4, 5), 0.1),
        note="axis -2",
    ),
    Case(
        "LayerNormalization",
        [IMAGES, np.ones(5), np.zeros(5)],
        {"stash_type": 1},
        torch=last_axes((5,)),
        note="constant",
    ),
    Case("InstanceNormalization", [IMAGES, SCALE, SHIFT], torch=lambda x, s, b: F.instance_norm(x, None, None, s, b)),
    Case(
        "InstanceNormalization", [(2, 3, 6), SCALE, SHIFT], torch=lambda x, s, b: F.instance_norm(x, None, None, s, b)
    ),
    Case(
        "InstanceNormalization",
        [IMAGES, SCALE, SHIFT],
        {"epsilon": 0.1},
        fed=(1,),
        torch=lambda x, s, b: F.instance_norm(x, None, None, s, b, eps=0.1),
        note="scale at run time",
    ),
    Case("LRN", [(2, 7, 3, 2)], {"size": 3}, torch=lambda x: F.local_response_norm(x, 3), tolerance=ROUNDED),
    Case(
        "LRN",
        [(2, 7, 3, 2)],
        {"size": 5, "alpha": 0.5, "beta": 0.6, "bias": 2.0},
        torch=lambda x: F.local_response_norm(x, 5, 0.5, 0.6, 2.0),
        tolerance=ROUNDED,
    ),
    Case("LRN", [(2, 7, 3, 2)], {"size": 4, "alpha": 0.9}, note="even size"),
    Case("LRN", [(2, 4, 6)], {"size": 1, "alpha": 0.9, "beta": 0.5}, note="size 1"),
    Case("LRN", [(2, 2, 3, 2)], {"size": 5, "alpha": 0.9}, note="size over the channels"),
    *[
        Case(
            "LpNormalization",
            [IMAGES],
            {"axis": a, "p": p} if (a, p) != (-1, 2) else {},
            torch=lambda x, a=a, p=p: F.normalize(x, p, a),
            note=f"p {p} axis {a}",
        )
        for a, p in ((-1, 2), (1, 2), (1, 1), (0, 1), (-2, 1))
    ],
]

CASES: list[Case] = [
    *ARITHMETIC,
    *SELECTION,
    *ACTIVATIONS,
    *LINEAR,
    *REDUCTIONS,
    *NORMALISATIONS,
]
