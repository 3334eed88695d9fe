"""Uses of every operator that moves, repeats, joins or picks entries."""

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812

from rule_cases_pointwise import BATCH, IMAGES, axes
from rule_harness import Case

RESHAPES = [
    Case("Reshape", [IMAGES, axes(-1, 60)]),
    Case("Reshape", [IMAGES, axes(0, 0, -1)]),
    Case("Reshape", [IMAGES, axes(-1, 4, 5)], note="batch merged"),
    Case("Reshape", [IMAGES, axes(2, 60)], batched=()),
    Case("Reshape", [IMAGES, axes(2, 60)], fed=(1,), batched=(), note="at run time"),
    *[Case("Flatten", [IMAGES], {"axis": a}, note=f"axis {a}") for a in (1, 0, 2, -1, 4)],
    Case("Flatten", [IMAGES], note="default"),
    Case("Squeeze", [(3, 1, 4, 1), axes(1)], torch=lambda x, _: x.squeeze(1)),
    Case("Squeeze", [(3, 1, 4, 1), axes(-1, 1)], torch=lambda x, _: x[:, 0, :, 0], note="two"),
    Case("Squeeze", [(3, 1, 4, 1)], batched=(), torch=torch.squeeze, note="all"),
    Case("Squeeze", [(3, 1, 1), axes(1)], torch=lambda x, _: x[:, 0], note="one of two"),
    Case("Squeeze", [(3, 1, 2), axes(-2)], fed=(1,), torch=lambda x, _: x[:, 0], note="at run time"),
    Case("Unsqueeze", [BATCH, axes(-2)], fed=(1,), torch=lambda x, _: x[:, None], note="at run time"),
    Case("Unsqueeze", [(5,), axes(1, 2)], torch=lambda x, _: x[:, None, None], note="vector"),
    Case("Transpose", [BATCH], {"perm": [0, 1]}, torch=lambda x: x, note="nothing"),
    Case("Transpose", [(2, 3, 4, 2, 3)], {"perm": [4, 0, 3, 1, 2]}, note="five axes"),
    Case("Unsqueeze", [BATCH, axes(1)], torch=lambda x, _: x[:, None]),
    Case("Unsqueeze", [BATCH, axes(-1, 0)], torch=lambda x, _: x[None, :, :, None], note="two"),
    Case("Unsqueeze", [(), axes(0)], torch=lambda x, _: x[None], note="scalar"),
    Case("Transpose", [IMAGES], torch=lambda x: x.permute(3, 2, 1, 0), note="default"),
    Case("Transpose", [IMAGES], {"perm": [0, 2, 3, 1]}, torch=lambda x: x.permute(0, 2, 3, 1), note="to NHWC"),
    Case("Transpose", [IMAGES], {"perm": [2, 0, 3, 1]}, torch=lambda x: x.permute(2, 0, 3, 1), note="cycle"),
    Case("Expand", [(3, 1, 4), axes(1, 5, 1)], torch=lambda x, _: x.expand(3, 5, 4)),
    Case("Expand", [(1, 4), axes(3, 4)], batched=(), torch=lambda x, _: x.expand(3, 4), note="batch axis"),
    Case("Expand", [(4,), axes(2, 3, 4)], batched=(), torch=lambda x, _: x.expand(2, 3, 4), note="new axes"),
    Case("Expand", [(3, 1, 4), axes(3, 5, 4)], fed=(1,), torch=lambda x, _: x.expand(3, 5, 4), note="at run time"),
    Case("Expand", [(), axes(2, 3)], torch=lambda x, _: x.expand(2, 3), note="scalar"),
    *[
        Case("Tile", [shape, axes(*counts)], batched=batched, torch=lambda x, r: x.repeat(*r.tolist()))
        for shape, counts, batched in (
            ((3, 4), (1, 2), (0,)),
            ((3, 4), (2, 3), (0,)),
            (IMAGES, (1, 2, 1, 3), (0,)),
            ((4,), (3,), ()),
        )
    ],
]

PIECES = [
    Case("Concat", [(2, 3), (2, 4), (2, 1)], {"axis": 1}, (0, 1, 2), torch=lambda *t: torch.cat(t, 1)),
    Case("Concat", [IMAGES, (2, 3, 4, 2)], {"axis": -1}, (0, 1), torch=lambda *t: torch.cat(t, -1), note="last axis"),
    Case(
        "Concat", [(2, 3), (4, 3)], {"axis": 0}, (0, 1), batched=(0,), torch=lambda *t: torch.cat(t), note="batch axis"
    ),
    Case(
        "Concat", [BATCH, np.ones((3, 2))], {"axis": 1}, batched=(), torch=lambda *t: torch.cat(t, 1), note="a constant"
    ),
    Case("Concat", [BATCH], {"axis": 1}, torch=lambda x: x, note="one input"),
    Case("Split", [(2, 6), axes(1, 3, 2)], {"axis": 1}, outputs=3, used=(0, 1, 2)),
    Case("Split", [(2, 6), axes(1, 3, 2)], {"axis": -1}, outputs=3, used=(2,), note="one used"),
    Case("Split", [(2, 6), axes(1, 3, 2)], {"axis": 1}, outputs=3, used=(0, 2), note="two used"),
    Case("Split", [IMAGES], {"axis": 3, "num_outputs": 2}, outputs=2, used=(0, 1), note="uneven"),
    Case("Split", [(4, 3)], {"num_outputs": 2}, outputs=2, used=(1,), batched=(), note="batch axis"),
    Case("DepthToSpace", [(2, 8, 2, 3)], {"blocksize": 2}, note="DCR"),
    Case(
        "DepthToSpace",
        [(2, 8, 2, 3)],
        {"blocksize": 2, "mode": "CRD"},
        torch=lambda x: F.pixel_shuffle(x, 2),
        note="CRD",
    ),
    Case(
        "DepthToSpace",
        [(2, 9, 1, 2)],
        {"blocksize": 3, "mode": "CRD"},
        torch=lambda x: F.pixel_shuffle(x, 3),
        note="CRD 3",
    ),
    Case("SpaceToDepth", [(2, 2, 4, 6)], {"blocksize": 2}),
    Case("SpaceToDepth", [(2, 1, 3, 6)], {"blocksize": 3}),
    Case("SpaceToDepth", [(1, 3, 2, 2)], {"blocksize": 1}),
    Case("SpaceToDepth", [(2, 2, 2, 4)], {"blocksize": 2}, note="one row"),
    Case("SpaceToDepth", [(1, 4, 8, 4)], {"blocksize": 4}),
    Case("DepthToSpace", [(1, 18, 2, 1)], {"blocksize": 3}, note="DCR 3"),
    Case("DepthToSpace", [(3, 3, 2, 2)], {"blocksize": 1, "mode": "CRD"}, note="CRD 1"),
    *[
        Case("Slice", [IMAGES, *map(np.array, given)], note=str(given))
        for given in [
            ([1], [3], [2]),
            ([0], [2**63 - 1], [0]),
            ([0, 1], [2**63 - 1, 2], [0, 3], [1, 1]),
            ([0, 0, 1, 1], [2**31, 2, 4, 4]),
            ([-3], [-1], [-1]),
            ([0], [5], [3], [2]),
            ([1], [99], [3], [3]),
            ([-1], [-(2**62)], [3], [-1]),
            ([4], [0], [3], [-2]),
            ([-1, 1], [-99, 4], [1, 2], [-2, 2]),
            ([3], [-6], [3], [-1]),
        ]
    ],
    Case("Slice", [IMAGES, axes(1), axes(2), axes(0)], batched=(), note="batch axis"),
    Case("Slice", [BATCH, axes(0, 3), axes(2**63 - 1, -9), None, axes(1, -2)], note="steps without axes"),
]

INDICES = [np.array(2), np.array(-1), np.array([0]), np.array([3, 1]), np.array([1, 2]), np.array([-1, 0, -1, 2])]

INDEXING = [
    *[
        Case(
            "Gather",
            [(2, 4, 3), index],
            {"axis": 1},
            fed=fed,
            torch=lambda x, i: x[:, i],
            note=f"{index.tolist()} {len(fed)}",
        )
        for index in [*INDICES, np.array([[0, 3], [-3, 0]]), np.array([[0, 3], [2, 1]])]
        for fed in ((), (1,))
    ],
    Case(
        "Gather",
        [(5, 3), np.array([[1, 4, 4], [0, 1, 0]])],
        fed=(1,),
        batched=(1,),
        torch=lambda x, i: x[i],
        note="table",
    ),
    Case("Gather", [(5, 3), np.array([[1, 4], [0, 2]])], batched=(), torch=lambda x, i: x[i], note="rows"),
    Case("Gather", [(5,), np.array(3)], batched=(), torch=lambda x, i: x[i], note="of a vector"),
    Case("Gather", [IMAGES, np.array([2, 2, 0])], {"axis": -2}, torch=lambda x, i: x[:, :, i], note="axis -2"),
    Case(
        "Gather",
        [(3, 4, 2), np.array([[1, 3], [0, 0], [2, 1]])],
        {"axis": 1},
        fed=(1,),
        batched=(0, 1),
        torch=lambda x, i: x[:, i],
        note="two free axes",
    ),
    Case(
        "GatherElements",
        [BATCH, np.array([[0, 0], [1, 3], [2, 2]])],
        {"axis": 1},
        fed=(1,),
        torch=lambda x, i: x.gather(1, i),
    ),
    Case("GatherElements", [BATCH, np.array([[0, 2, 2, 1]])], torch=lambda x, i: x.gather(0, i), batched=()),
    Case("GatherElements", [BATCH, np.array([[-1], [0], [-4]])], {"axis": 1}, note="negative"),
    Case("GatherElements", [BATCH, np.array([[3, 3], [0, -1], [2, 1]])], {"axis": -1}, fed=(1,), note="negative axis"),
    Case("GatherElements", [(2, 3, 4), np.array([[[2, 0], [1, 1]]])], {"axis": 1}, batched=(), note="a part"),
]

CASES: list[Case] = [*RESHAPES, *PIECES, *INDEXING]
