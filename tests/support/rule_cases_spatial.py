"""Uses of convolutions, pools, resampling and padding, away from ties (`test_vjp_spatial.py` says what holds there)."""

from itertools import product

import numpy as np
import torch.nn.functional as F  # noqa: N812

from rule_harness import Case


def conv(x, weight, note, bias=False, function=None, **attributes) -> Case:
    """A convolution; x [N, C, …], weight [M, C / group, …]."""
    optional = [(weight[0],)] if bias else []
    weights = np.random.default_rng(5).standard_normal(weight)
    wrt = (0, 2) if bias else (0,)
    return Case("Conv", [x, weights, *optional], attributes, wrt, note=note, batched=(0,), torch=function)


def conv_transpose(x, weight, note, bias=False, function=None, **attributes) -> Case:
    """Its transpose; x [N, C, …], weight [C, M / group, …]."""
    optional = [(weight[1] * attributes.get("group", 1),)] if bias else []
    weights = np.random.default_rng(6).standard_normal(weight)
    wrt = (0, 2) if bias else (0,)
    return Case("ConvTranspose", [x, weights, *optional], attributes, wrt, note=note, batched=(0,), torch=function)


def same(*pads) -> list[int]:
    """Equal pads before and after each axis."""
    return [*pads, *pads]


HALVED = {"pads": same(1, 1), "strides": [2, 2]}

CONVOLUTIONS = [
    conv((2, 3, 7, 8), (4, 3, 3, 3), "3x3", bias=True, function=lambda *t: F.conv2d(*t, padding=1), pads=same(1, 1)),
    conv((2, 3, 7, 8), (4, 3, 3, 3), "no pads", function=F.conv2d),
    conv((2, 3, 7, 8), (4, 3, 3, 2), "asymmetric pads", pads=[0, 1, 2, 0]),
    conv((2, 3, 7, 8), (4, 3, 2, 3), "pads beyond the kernel", pads=[3, 0, 0, 4]),
    conv((2, 3, 9, 8), (4, 3, 3, 2), "dilated", function=lambda *t: F.conv2d(*t, dilation=(2, 3)), dilations=[2, 3]),
    conv((2, 3, 5, 4), (4, 3, 1, 1), "1x1", bias=True, function=F.conv2d),
    conv((2, 3, 5, 4), (4, 3, 1, 1), "1x1 padded", pads=[1, 0, 1, 2]),
    conv((2, 3, 5, 8), (4, 3, 1, 1), "1x1 stride 2", function=lambda *t: F.conv2d(*t, stride=(2, 3)), strides=[2, 3]),
    conv((2, 3, 5, 4), (4, 3, 1, 3), "1x3", pads=[0, 1, 0, 1]),
    conv((2, 3, 8, 9), (4, 3, 3, 3), "stride 2", pads=same(1, 1), strides=[2, 2]),
    conv((2, 3, 8, 9), (4, 3, 3, 3), "stride 2 asymmetric", pads=[0, 0, 1, 1], strides=[2, 2]),
    conv((2, 6, 9, 8), (4, 6, 1, 1), "1x1 of the odd places", pads=[1, 1, 0, 0], strides=[2, 2]),
    conv((2, 3, 8, 9), (4, 3, 3, 3), "stride on one axis", pads=same(1, 1), strides=[1, 2]),
    conv((2, 3, 8, 8), (4, 3, 4, 4), "patches", bias=True, function=lambda *t: F.conv2d(*t, stride=4), strides=[4, 4]),
    conv((2, 3, 9, 11), (4, 3, 2, 3), "stride beyond the kernel", strides=[4, 5]),
    conv((2, 3, 9, 11), (4, 3, 2, 3), "strided dilated", strides=[3, 2], dilations=[3, 2], pads=[0, 2, 1, 1]),
    conv((2, 3, 4, 4), (5, 3, 4, 4), "whole image"),
    conv((2, 4, 7, 6), (6, 2, 3, 2), "groups", group=2, pads=[1, 1, 0, 1], dilations=[2, 1]),
    conv((2, 4, 7, 6), (6, 2, 3, 2), "groups stride 2", group=2, pads=[1, 1, 0, 1], strides=[2, 2]),
    conv((2, 4, 7, 6), (6, 2, 1, 1), "groups 1x1", group=2),
    conv((2, 4, 7, 6), (4, 1, 3, 3), "depthwise", group=4, bias=True, pads=same(1, 1)),
    conv((2, 4, 7, 6), (4, 1, 3, 3), "depthwise stride 2", group=4, pads=same(1, 1), strides=[2, 2]),
    conv((2, 4, 7, 6), (12, 1, 3, 3), "depthwise with multiplier", group=4, pads=same(1, 1)),
    conv((2, 4, 7, 6), (12, 1, 3, 3), "depthwise with multiplier stride 2", group=4, strides=[2, 2]),
    conv((2, 4, 7, 6), (2, 2, 3, 3), "groups to one channel", group=2),
    conv((2, 3, 9), (4, 3, 3), "1-D", function=lambda *t: F.conv1d(*t, padding=1), pads=[1, 1]),
    conv((2, 3, 9), (4, 3, 3), "1-D stride 2", pads=[1, 0], strides=[2]),
    conv((2, 2, 5, 4, 6), (4, 2, 3, 2, 2), "3-D", pads=[1, 0, 1, 1, 1, 0]),
    conv((2, 2, 5, 4, 6), (4, 1, 3, 2, 2), "3-D groups strided", group=2, pads=[1, 0, 1, 1, 1, 0], strides=[2, 1, 3]),
    Case(
        "Conv", [(2, 3, 5, 4), (4, 3, 3, 2)], {"kernel_shape": [3, 2]}, fed=(1,), batched=(0,), note="computed weight"
    ),
]

PHASES = [
    conv((2, 6, 8, 10), (4, 6, 3, 3), "phases", function=lambda *t: F.conv2d(*t, stride=2, padding=1), **HALVED),
    conv((2, 6, 7, 9), (4, 6, 3, 3), "phases of odd sizes", pads=same(1, 1), strides=[2, 2]),
    conv((2, 6, 8, 9), (4, 6, 3, 3), "phases, asymmetric pads", pads=[0, 0, 1, 1], strides=[2, 2]),
    conv((2, 6, 8, 9), (4, 6, 3, 4), "phases, last row not read", strides=[2, 2]),
    conv((2, 6, 9, 8), (4, 6, 1, 1), "phases of 1x1", strides=[2, 2]),
    conv((2, 6, 8, 9), (4, 6, 1, 3), "phases of 1x3", pads=[0, 1, 0, 1], strides=[2, 2]),
    conv((2, 6, 8, 8), (4, 6, 2, 2), "phases of patches", strides=[2, 2]),
    conv((2, 6, 11, 8), (6, 1, 5, 5), "phases, depthwise", group=6, bias=True, pads=same(2, 2), strides=[2, 2]),
    conv((2, 3, 11, 12), (4, 3, 7, 7), "phases of colours", pads=same(3, 3), strides=[2, 2]),
    conv((2, 3, 11, 12), (4, 3, 4, 3), "phases of colours, no pads", strides=[2, 2]),
]
"""Strides of 2, whose adjoint is computed phase by phase."""

TRANSPOSED = [
    conv_transpose((2, 3, 4, 5), (3, 4, 3, 3), "plain", bias=True, function=F.conv_transpose2d),
    conv_transpose((2, 3, 4, 5), (3, 4, 3, 3), "stride 2", pads=same(1, 1), strides=[2, 2], output_padding=[1, 1]),
    conv_transpose((2, 3, 4, 5), (3, 4, 3, 2), "asymmetric", pads=[1, 0, 0, 1], strides=[2, 3], output_padding=[1, 2]),
    conv_transpose(
        (2, 3, 4, 5), (3, 4, 2, 2), "upsampling", function=lambda *t: F.conv_transpose2d(*t, stride=2), strides=[2, 2]
    ),
    conv_transpose((2, 3, 4, 5), (3, 4, 2, 3), "dilated", strides=[2, 2], dilations=[3, 2], pads=[1, 2, 0, 1]),
    conv_transpose((2, 4, 4, 5), (4, 3, 3, 3), "groups", bias=True, group=2, strides=[2, 2], pads=same(1, 1)),
    conv_transpose((2, 4, 4, 5), (4, 1, 3, 3), "depthwise", group=4, strides=[2, 2], output_padding=[1, 0]),
    conv_transpose((2, 3, 6), (3, 2, 4), "1-D", strides=[2], pads=[1, 1]),
    conv_transpose((2, 2, 3, 2, 3), (2, 3, 2, 2, 2), "3-D", strides=[2, 2, 2]),
]

WINDOWS = {
    "halves": {"kernel_shape": [2, 2], "strides": [2, 2]},
    "overlapping": {"kernel_shape": [3, 3], "strides": [2, 2], "pads": same(1, 1)},
    "stride 1": {"kernel_shape": [3, 3], "pads": same(1, 1)},
    "default strides": {"kernel_shape": [2, 3]},
    "asymmetric pads": {"kernel_shape": [3, 2], "strides": [2, 3], "pads": [0, 1, 2, 0]},
    "ceil": {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1},
    "ceil padded": {"kernel_shape": [3, 3], "strides": [2, 2], "pads": same(1, 1), "ceil_mode": 1},
    "ceil asymmetric": {"kernel_shape": [3, 4], "strides": [2, 4], "pads": [1, 0, 0, 1], "ceil_mode": 1},
    "dilated": {"kernel_shape": [2, 3], "strides": [3, 2], "pads": [1, 0, 1, 1], "dilations": [2, 2]},
    "dilated stride 1": {"kernel_shape": [3, 2], "pads": same(1, 1), "dilations": [2, 3]},
    "dilated ceil": {"kernel_shape": [2, 2], "strides": [3, 3], "dilations": [2, 3], "ceil_mode": 1},
    "gaps": {"kernel_shape": [2, 3], "strides": [4, 5]},
    "gaps and phases": {"kernel_shape": [2, 2], "strides": [4, 2], "dilations": [2, 4]},
    "wide": {"kernel_shape": [5, 7], "pads": same(2, 3)},
    "one column": {"kernel_shape": [1, 3], "strides": [1, 2]},
}

THIRDS = {"kernel_shape": [3, 3], "strides": [2, 2]}
"""With sixteen channels there is a form of its own for these."""

SMALL_WINDOWS = [
    ((2, 3, 9), {"kernel_shape": [3], "strides": [2], "pads": [1, 0], "ceil_mode": 1}),
    ((2, 2, 5, 4, 6), {"kernel_shape": [2, 3, 2], "strides": [2, 2, 1], "pads": [1, 0, 1, 0, 1, 0]}),
    ((2, 2, 4, 4, 6), {"kernel_shape": [2, 2, 2], "strides": [2, 2, 2]}),
]

POOLS = [
    *[Case("MaxPool", [(2, 2, 8, 9)], attributes, note=note) for note, attributes in WINDOWS.items()],
    *[Case("MaxPool", [(3, 1, 11, 7)], attributes, note=f"{note}, odd") for note, attributes in WINDOWS.items()],
    *[Case("MaxPool", [shape], attributes) for shape, attributes in SMALL_WINDOWS],
    *[Case("MaxPool", [(2, 16, *size)], THIRDS, note="blocked") for size in ((9, 8), (8, 7), (3, 12))],
    *[
        Case("AveragePool", [(2, 2, 8, 9)], attributes | {"count_include_pad": count}, note=f"{note}, {count}")
        for (note, attributes), count in product(WINDOWS.items(), (0, 1))
    ],
    *[Case("AveragePool", [shape], attributes) for shape, attributes in SMALL_WINDOWS],
    *[
        Case(op_type, [(2, 2, 4, 4)], {"kernel_shape": [2, 2], "strides": [3, 3], "dilations": [2, 2]}, note="one")
        for op_type in ("MaxPool", "AveragePool")
    ],
    *[
        Case("LpPool", [(2, 2, 8, 9)], attributes | {"p": p}, note=f"{note}, {p}", low=0.3)
        for (note, attributes), p in product(WINDOWS.items(), (1, 2, 3))
        if note in ("halves", "overlapping", "stride 1", "ceil")
    ],
]

GLOBAL_POOLS = [
    *[Case(f"Global{kind}Pool", [shape]) for kind in ("Average", "Max", "Lp") for shape in ((2, 3, 4, 5), (2, 3, 7))],
    *[Case(f"Global{kind}Pool", [(2, 2, 3, 2, 3)]) for kind in ("Average", "Max")],
    *[Case("GlobalLpPool", [(2, 3, 4, 5)], {"p": p}, note=f"p = {p}") for p in (1, 3, 4)],
    *[Case(f"Global{kind}Pool", [(1, 2, 1, 6)], note="one row") for kind in ("Average", "Max", "Lp")],
    Case("GlobalAveragePool", [(2, 3, 4, 5)], torch=lambda x: x.mean((2, 3), keepdim=True), note="torch"),
    Case("GlobalMaxPool", [(2, 3, 4, 5)], torch=lambda x: x.amax((2, 3), keepdim=True), note="torch"),
]

COORDINATES = ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel", "half_pixel_symmetric")
ROUNDINGS = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")


def resize(note, scales=None, sizes=None, shape=(2, 2, 5, 6), function=None, **attributes) -> Case:
    """A Resize by scales (kept in float32, as the standard wants) or to sizes."""
    by = [None, np.array(scales, np.float32)] if sizes is None else [None, None, np.array(sizes)]
    return Case("Resize", [shape, *by], attributes, note=note, torch=function, typed=(2,))


def interpolate(**options):
    """torch's own, of the image alone."""
    return lambda x, *_: F.interpolate(x, **options)


RESIZES = [
    *[
        resize(f"{mode} {coordinates} {scales}", scales, mode=mode, coordinate_transformation_mode=coordinates)
        for mode, coordinates, scales in product(
            ("nearest", "linear", "cubic"), COORDINATES, ([1, 1, 2, 2], [1, 1, 1.7, 0.6])
        )
        if coordinates != "align_corners" or scales[2] == 2  # where the evaluator and onnxruntime agree
    ],
    *[
        resize(
            f"{rounding} {coordinates}",
            [1, 1, 1.5, 0.5],
            shape=(2, 2, 6, 8),
            nearest_mode=rounding,
            coordinate_transformation_mode=coordinates,
        )
        for rounding, coordinates in product(ROUNDINGS, COORDINATES)
    ],
    *[
        resize(f"{mode} antialias {sizes}", None, sizes, mode=mode, antialias=1, axes=[2, 3])
        for mode, sizes in product(("linear", "cubic"), ([3, 2], [8, 4]))
    ],
    resize("cubic without the outside", [1, 1, 2, 0.7], mode="cubic", exclude_outside=1, cubic_coeff_a=-0.5),
    resize("sizes", None, [9, 4], mode="linear", axes=[2, 3]),
    resize(
        "repetition", [1, 1, 3, 2], mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor"
    ),
    resize("repetition of rows", None, [10], mode="nearest", axes=[2]),
    resize("channels last", [2, 3], shape=(2, 3, 4, 2), mode="nearest", axes=[1, 2]),
    resize("unchanged", [1, 1, 1, 1], mode="linear"),
    resize("1-D", [1, 1, 2], shape=(2, 3, 5), mode="nearest"),
    resize("3-D", [1, 1, 2, 1.5, 0.5], shape=(2, 2, 3, 4, 4), mode="linear"),
    resize("torch", [1, 1, 2, 2], function=interpolate(scale_factor=2, mode="bilinear"), mode="linear"),
    resize(
        "torch corners",
        None,
        [9, 11],
        function=interpolate(size=(9, 11), mode="bilinear", align_corners=True),
        axes=[2, 3],
        mode="linear",
        coordinate_transformation_mode="align_corners",
    ),
    resize(
        "torch nearest",
        [1, 1, 2, 2],
        function=interpolate(scale_factor=2, mode="nearest"),
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    ),
    resize("torch cubic", [1, 1, 2, 2], function=interpolate(scale_factor=2, mode="bicubic"), mode="cubic"),
]


def pad(mode, pads, shape=(2, 3, 4, 5), axes=None, function=None) -> Case:
    """A Pad whose widths and axes are constants."""
    optional = [] if axes is None else [None, np.array(axes)]
    return Case("Pad", [shape, np.array(pads), *optional], {"mode": mode}, note=f"{mode} {pads} {axes}", torch=function)


PADS = [
    pad("constant", [0, 0, 1, 2, 0, 0, 0, 3], function=lambda x, *_: F.pad(x, (2, 3, 1, 0))),
    pad("constant", [0, 0, -1, 2, 0, 0, 1, -2], function=lambda x, *_: F.pad(x, (2, -2, -1, 1))),
    pad("constant", [0, 1, 0, 0, 0, 0, 0, 0]),
    pad("constant", [0] * 8),
    Case("Pad", [(2, 3), np.array([0, 1, 0, 2]), np.array(4.5)], note="with a value"),
    *[pad(mode, [1, 2], axes=[3]) for mode in ("constant", "edge", "reflect", "wrap")],
    *[pad(mode, [1, 0, 0, 2], axes=[-1, 1]) for mode in ("constant", "edge", "reflect", "wrap")],
    *[pad(mode, [0, 1, 1, 2, 0, 2, 3, 4]) for mode in ("edge", "reflect", "wrap")],
    *[pad(mode, [0, 0, 2, 0, 0, 1], (2, 3, 5)) for mode in ("edge", "reflect", "wrap")],
    pad("reflect", [0, 0, 1, 2, 0, 0, 3, 2], function=lambda x, *_: F.pad(x, (2, 2, 1, 3), mode="reflect")),
    pad("edge", [0, 0, 7, 0, 0, 0, 0, 9], function=lambda x, *_: F.pad(x, (0, 9, 7, 0), mode="replicate")),
    pad("wrap", [0, 0, 4, 0, 0, 0, 4, 5], function=lambda x, *_: F.pad(x, (0, 5, 4, 4), mode="circular")),
]

CASES: list[Case] = [*CONVOLUTIONS, *PHASES, *TRANSPOSED, *POOLS, *GLOBAL_POOLS, *RESIZES, *PADS]
