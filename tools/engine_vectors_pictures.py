"""Recorded cases of pictures in and out: resizing, preprocessing, heat maps, overlays; see engine_vectors.py."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine_vectors_cases import Case, VectorFile, answer
from engine_vectors_methods import numbers
from onnxplain.errors import OnnxplainError
from onnxplain.heatmap import (
    COLOUR_MAPS,
    colours,
    diverging,
    heatmap,
    overlay,
    overlay_original,
    signed_map,
    signed_overlay,
)
from onnxplain.preprocessing import PRESETS, check_steps, prepare, preset_steps, resized_shape
from onnxplain.random import uniform
from onnxplain.resize import interpolation_matrix, resize

FILES: dict[str, VectorFile] = {}


def picture(draw: int, height: int, width: int) -> NDArray[np.uint8]:
    """A picture of soft noise with a few hard edges and the extreme values, RGB uint8 [H, W, 3]."""
    noise = uniform(2, [100 + draw], (height, width, 3))[0].astype(np.float64)
    shade = np.add.outer(np.arange(height) * 9.0, np.arange(width) * 13.0)[..., None] % 200
    values = np.clip(shade + noise * 90 - 20, 0, 255).astype(np.uint8)
    values[: height // 3, : width // 4] = (255, 0, 128)
    return values


LINES: tuple[tuple[int, int, str, bool], ...] = tuple(
    (source, target, kernel, antialias)
    for source, target in ((7, 3), (3, 7), (10, 4), (1, 3), (5, 5))
    for kernel in ("bilinear", "bicubic", "nearest")
    for antialias in ((True, False) if kernel != "nearest" else (False,))
)


def resizing() -> Iterator[Case]:
    """Lines as matrices, then pictures; with antialias and rounding they are Pillow's bit for bit."""
    for source, target, kernel, antialias in LINES:
        case = {"call": "matrix", "source": source, "target": target, "kernel": kernel, "antialias": antialias}
        yield {**case, "expected": interpolation_matrix(source, target, kernel, antialias)}
    pixels = picture(0, 8, 6)
    for height, width in ((4, 5), (11, 9), (8, 3)):
        for kernel in ("bilinear", "bicubic", "nearest"):
            for antialias, rounded in ((True, True), (False, False), (True, False)):
                if kernel == "nearest" and (antialias, rounded) != (True, True):
                    continue
                how: dict[str, Any] = {"kernel": kernel, "antialias": antialias, "rounded": rounded}
                found = resize(pixels, height, width, **how)
                yield {"call": "resize", "pixels": pixels, "size": [height, width], **how, "expected": found}
    for height, width, step in (
        (480, 640, {"rule": "shorter", "size": 256}),
        (641, 480, {"rule": "shorter", "size": 256}),
        (37, 37, {"rule": "shorter", "size": 50}),
        (333, 500, {"rule": "exact", "size": [224, 200]}),
    ):
        case = {"call": "resized_shape", "height": height, "width": width, "step": step}
        yield {**case, "expected": list(resized_shape(height, width, step))}


STEPS: tuple[list[Case], ...] = (
    [{"step": "crop", "size": [4, 12]}, {"step": "layout", "order": "NHWC"}],
    [{"step": "colour", "order": "GREY"}, {"step": "crop", "size": [6, 5]}, {"step": "layout", "order": "NCHW"}],
    [
        {"step": "exif"},
        {"step": "colour", "order": "BGR"},
        {"step": "resize", "rule": "shorter", "size": 5, "kernel": "nearest", "antialias": False, "round": True},
        {"step": "crop", "size": [7, 4]},
        {"step": "scale", "factor": 0.5},
        {"step": "mean", "values": [1.0, 2.0, 3.0]},
        {"step": "std", "values": [2.0]},
        {"step": "layout", "order": "NCHW"},
    ],
)
WRONG: tuple[list[Case], ...] = (
    [],
    [{"step": "colours", "order": "RGB"}, {"step": "layout", "order": "NCHW"}],
    [{"step": "colour", "order": "RBG"}, {"step": "layout", "order": "NCHW"}],
    [{"step": "colour"}, {"step": "layout", "order": "NCHW"}],
    [{"step": "layout", "order": "NCHW"}, {"step": "colour", "order": "RGB"}],
    [{"step": "scale", "factor": 1.0}, {"step": "scale", "factor": 1.0}, {"step": "layout", "order": "NCHW"}],
    [{"step": "scale", "factor": 0.0}, {"step": "layout", "order": "NCHW"}],
    [{"step": "mean", "values": [1.0, 2.0]}, {"step": "layout", "order": "NCHW"}],
    [{"step": "crop", "size": 3}, {"step": "layout", "order": "NCHW"}],
    [
        {"step": "resize", "rule": "exact", "size": 3, "kernel": "bilinear", "antialias": True, "round": True},
        {"step": "layout", "order": "NCHW"},
    ],
)


def preprocessing() -> Iterator[Case]:
    """Pictures by preset and by steps: `rows` for the network, `seen` and `box`; then wrong steps."""
    for name in PRESETS:
        for (height, width), channels, layout in (((5, 6), 3, "NCHW"), ((5, 5), 1, "NHWC")):
            case = {"preset": name, "height": height, "width": width, "channels": channels, "layout": layout}
            try:
                steps = preset_steps(name, height, width, channels, layout)
            except OnnxplainError:
                yield {**case, **answer(preset_steps, name, height, width, channels, layout)}
                continue
            yield {**case, "steps": steps, **_prepared(picture(1, 8, 11), steps)}
    for steps in STEPS:
        yield {"steps": steps, **_prepared(picture(2, 6, 8), steps)}
    for steps in WRONG:
        yield {"steps": steps, **answer(check_steps, steps)}
    yield {"preset": "torchvison", **answer(preset_steps, "torchvison", 5, 5)}


def _prepared(pixels: NDArray[np.uint8], steps: list[Case]) -> Case:
    found = prepare(pixels, steps)
    return {"pixels": pixels, "rows": found.rows, "seen": found.seen, "box": found.box}


def heatmaps() -> Iterator[Case]:
    """Heat maps, signed maps, constants, few pixels, values that aren't finite."""
    for layout, shape in (
        ("NCHW", (2, 3, 4, 5)),
        ("NHWC", (2, 4, 5, 3)),
        ("NCHW", (1, 2, 3, 4, 4)),
        ("NCHW", (1, 4, 4)),
    ):
        attribution = numbers(20 + len(shape), *shape)
        case = {"attribution": attribution, "layout": layout}
        yield {"call": "heatmap", **case, "expected": heatmap(attribution, layout)}
        yield {"call": "signed_map", **case, "expected": signed_map(attribution, layout)}
    attribution = numbers(30, 3, 4, 4)
    for how in (
        *({"percentile": 100.0}, {"percentile": 50.0}, {"statistic": "lower", "percentile": 90.0}),
        *({"reduction": "absolute_maximum"}, {"reduction": "signed_sum"}, {"reduction": "mean"}),
        *({"percentile": 0.0}, {"reduction": "sum"}, {"statistic": "median"}),
    ):
        yield {
            "call": "heatmap",
            "attribution": attribution,
            "layout": "NCHW",
            **how,
            **answer(heatmap, attribution, **how),
        }
    constant, few = np.full((1, 1, 3, 3), -2.0, np.float32), np.zeros((1, 1, 12, 12), np.float32)
    few[0, 0, 3, 4] = 5.0
    broken = np.array([[[1.0, np.nan], [np.inf, 0.0]]], np.float32)
    for values in (constant, np.zeros_like(constant), few, broken):
        for call, function in (("heatmap", heatmap), ("signed_map", signed_map)):
            yield {"call": call, "attribution": values, "layout": "NCHW", **answer(function, values)}


def drawing() -> Iterator[Case]:
    """Overlays of small pictures, the colours of the diverging scale, and each colour map's 256 colours."""
    heat = np.round(uniform(5, [0], (4, 5))[0].astype(np.float64), 3).astype(np.float32)
    heat[0, :3] = 0, 1, 0.5
    share, seen = (2 * heat - 1).astype(np.float32), picture(3, 4, 5)
    for colour_map, strength in (("inferno", 0.85), ("turbo", 0.5), ("viridis", 0.0)):
        how: dict[str, Any] = {"colour_map": colour_map, "strength": strength}
        yield {"call": "overlay", "seen": seen, "heat": heat, **how, "expected": overlay(seen, heat, **how)}
    yield {"call": "overlay", "seen": seen, "heat": heat[:2], **answer(overlay, seen, heat[:2])}
    yield {"call": "overlay", "seen": seen, "heat": heat, "strength": 1.5, **answer(overlay, seen, heat, strength=1.5)}
    yield {"call": "signed_overlay", "seen": seen, "share": share, "expected": signed_overlay(seen, share)}
    yield {"call": "diverging", "share": share, "expected": diverging(share)}
    whole = picture(4, 7, 9)
    for box in ((0.0, 1.0, 7.0, 8.0), (-1.0, 2.0, 6.5, 8.25)):
        case = {"original": whole, "heat": heat, "box": list(box)}
        yield {"call": "overlay_original", **case, "expected": overlay_original(whole, heat, box)}
    ramp = np.arange(256) / 255
    for name in COLOUR_MAPS:
        yield {"call": "colours", "colour_map": name, "hexadecimal": colours(ramp, name).tobytes().hex()}


FILES |= {
    "resizing": VectorFile("weights of a line of pixels, and pictures [H, W, 3]", 1e-6, 9, resizing),
    "preprocessing": VectorFile(
        "from a picture uint8 [H, W, 3] to `rows`, the network's input", 1e-6, 9, preprocessing
    ),
    "heatmaps": VectorFile("heat maps 0..1 and signed maps −1..1 of attributions", 1e-6, 9, heatmaps),
    "drawing": VectorFile("overlays, RGB uint8, and colours", 1e-6, 9, drawing),
}
