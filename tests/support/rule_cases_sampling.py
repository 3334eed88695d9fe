"""Uses of sampling at positions, of regions of interest, of unpooling and of columns put back into images."""

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812

from rule_harness import Case

MODES = {"linear": "bilinear", "cubic": "bicubic", "nearest": "nearest"}


def grid_sample(x, grid, mode="linear", padding="zeros", align=0, wrt=(0, 1), spread=1.4) -> Case:
    """Positions inside and outside the image, none on a pixel."""
    attributes = {"mode": mode, "padding_mode": padding, "align_corners": align}
    return Case(
        "GridSample",
        [x, grid],
        attributes,
        wrt,
        low=-spread,
        high=spread,
        torch=lambda x, g: F.grid_sample(x, g, MODES[mode], padding, bool(align)),
        note=f"{mode} {padding} {align} {spread}",
    )


PADDINGS = ("zeros", "border", "reflection")
SMALL, POINTS = (2, 3, 4, 5), (2, 3, 2, 2)

GRIDS = [
    *[
        grid_sample(SMALL, POINTS, mode, padding, align)
        for mode in ("linear", "cubic")
        for padding in PADDINGS
        for align in (0, 1)
    ],
    *[grid_sample(SMALL, POINTS, "nearest", padding, align, (0,)) for padding in PADDINGS for align in (0, 1)],
    *[grid_sample((1, 2, 3, 2, 4), (1, 2, 2, 3, 3), "linear", padding, 1) for padding in PADDINGS],
    grid_sample((1, 2, 3, 2, 4), (1, 2, 2, 3, 3), "linear", "reflection"),
    grid_sample((2, 3, 4, 1), POINTS, "linear", "border", 1, (0,)),
    *[grid_sample(SMALL, POINTS, "linear", padding, align, spread=5.3) for padding in PADDINGS[1:] for align in (0, 1)],
    Case(
        "GridSample",
        [SMALL, np.linspace(-0.93, 0.97, 24).reshape(2, 3, 2, 2)],
        batched=(),
        note="default, constant grid",
    ),
]

AFFINE = [
    Case(
        "AffineGrid",
        [theta, np.array(size)],
        {"align_corners": align},
        fed=fed,
        batched=(0,),
        torch=lambda t, s, a=align: F.affine_grid(t, s.tolist(), bool(a)),
        note=f"{size} align {align} {fed}",
    )
    for theta, size, align, fed in (
        ((2, 2, 3), [2, 1, 3, 4], 0, ()),
        ((2, 2, 3), [2, 3, 5, 2], 1, (1,)),
        ((1, 2, 3), [1, 1, 1, 3], 0, ()),
        ((2, 3, 4), [2, 1, 2, 3, 4], 0, ()),
        ((2, 3, 4), [2, 1, 2, 3, 2], 1, ()),
    )
]

BOXES = np.array([[0.4, 0.3, 3.7, 4.6], [1.2, 0.0, 2.9, 2.2], [-1.7, 2.2, 6.3, 9.9], [2.0, 1.0, 2.1, 1.3]])


def roi_align(note, boxes=BOXES, images=(0, 1, 1, 0), **attributes) -> Case:
    return Case("RoiAlign", [(2, 3, 5, 6), boxes, np.array(images)], attributes, batched=(0,), fed=(1, 2), note=note)


REGIONS = [
    roi_align("one output", sampling_ratio=2),
    roi_align("2x3", sampling_ratio=2, output_height=2, output_width=3),
    roi_align("adaptive", output_height=2, output_width=3),
    roi_align("scaled", sampling_ratio=3, output_height=2, output_width=2, spatial_scale=0.5),
    roi_align("output half pixel", output_height=3, output_width=2, coordinate_transformation_mode="output_half_pixel"),
    roi_align("backwards", BOXES[:, [2, 3, 0, 1]], output_height=2, output_width=2, sampling_ratio=1),
    roi_align("backwards adaptive", np.concatenate([BOXES[:2], BOXES[2:, [2, 3, 0, 1]]]), output_height=2),
    roi_align("one image", BOXES[:2], (1, 1), output_height=4, output_width=4, spatial_scale=2.0),
]


def unpool(x, kernel, strides, note, seed=3, **attributes) -> Case:
    """Entries put at the places that a pool of distinct values would have found."""
    rank = len(kernel)
    sizes = [(n - 1) * s + k for n, s, k in zip(x[2:], strides, kernel, strict=True)]
    values = np.random.default_rng(seed).permutation(int(np.prod([*x[:2], *sizes]))).astype(float)
    pools = (torch.nn.functional.max_pool1d, torch.nn.functional.max_pool2d, torch.nn.functional.max_pool3d)
    _, flat = pools[rank - 1](torch.tensor(values.reshape(*x[:2], *sizes)), kernel, strides, return_indices=True)
    planes = np.arange(x[0] * x[1]).reshape(*x[:2], *[1] * rank) * int(np.prod(sizes))
    indices = flat.numpy() + planes
    given = {"kernel_shape": kernel, "strides": strides} | attributes
    return Case("MaxUnpool", [x, indices], given, fed=(1,), note=note)


UNPOOLING = [
    unpool((2, 3, 2, 3), [2, 2], [2, 2], "2x2"),
    unpool((1, 2, 2, 2), [2, 3], [3, 3], "stride beyond the kernel"),
    unpool((2, 2, 4), [3], [3], "1-D"),
    unpool((2, 1, 2, 2, 2), [2, 2, 2], [2, 2, 2], "3-D"),
    unpool((2, 3, 1, 1), [2, 2], [2, 2], "one window"),
]


def col2im(columns, image, block, note, **attributes) -> Case:
    """Columns [N, C · block, windows] put back into images."""
    return Case("Col2Im", [columns, np.array(image), np.array(block)], attributes, note=note, batched=(0,))


COLUMNS = [
    col2im((2, 12, 6), (3, 4), (2, 2), "2x2"),
    col2im((2, 4, 6), (4, 6), (2, 2), "strided", strides=[2, 2]),
    col2im((1, 12, 9), (4, 5), (3, 2), "padded", pads=[1, 0, 0, 1], strides=[1, 2]),
    col2im((2, 8, 3), (3, 5), (2, 2), "dilated", dilations=[2, 2]),
    col2im((2, 6, 4), (6,), (3,), "1-D"),
    col2im((1, 8, 12), (3, 4, 3), (2, 2, 2), "3-D"),
    col2im((1, 4, 4), (5, 5), (2, 2), "rows that no window reaches", strides=[3, 2], pads=[0, 0, 0, 0]),
]


def deform_conv(x, weight, outputs, note, groups=1, bias=True, mask=True, wrt=(0, 1, 2, 3, 4), **attributes) -> Case:
    """Offsets of up to 1.7 entries in every direction."""
    taps = groups * weight[2] * weight[3]
    inputs = [x, weight, (x[0], 2 * taps, *outputs), (weight[0],) if bias else None, (x[0], taps, *outputs)]
    given = {"offset_group": groups} | attributes
    inputs = inputs if mask else inputs[: 4 if bias else 3]
    return Case("DeformConv", inputs, given, wrt, batched=(0, 2, 4), low=-1.7, high=1.7, note=note)


DEFORMED = [
    deform_conv((2, 3, 5, 4), (2, 3, 3, 2), (3, 3), "plain"),
    deform_conv((2, 4, 5, 6), (2, 4, 2, 2), (5, 3), "padded stride 2", 2, pads=[1, 0, 0, 1], strides=[1, 2]),
    deform_conv((1, 4, 6, 6), (6, 2, 2, 3), (4, 2), "groups", 4, group=2, dilations=[2, 2]),
    deform_conv((2, 2, 4, 4), (3, 2, 2, 2), (3, 3), "no mask", mask=False, wrt=(0, 1, 2, 3)),
    deform_conv((2, 2, 4, 4), (3, 2, 2, 2), (3, 3), "no bias", bias=False, wrt=(0, 1, 2, 4)),
    deform_conv((2, 2, 4, 4), (3, 2, 1, 1), (4, 4), "1x1", bias=False, mask=False, wrt=(0, 2)),
]

CASES: list[Case] = [*DEFORMED, *GRIDS, *AFFINE, *REGIONS, *UNPOOLING, *COLUMNS]
