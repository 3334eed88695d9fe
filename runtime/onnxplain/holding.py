"""What a loop holds in arrays of its own, beside what the runs of its graphs take: the planner leaves room for it.

The numbers are measured (numpy's allocations, by tracemalloc), in float32 arrays of the explained value's size, and a
test compares them with what each method really takes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from onnxplain.bundle import Bundle, Layer, Method

PER_IMAGE = {"sum": 1.0, "solve": 2.0, "smoothgrad_squared": 8.0, "vargrad": 8.0, "guided_gradcam": 6.0}
PER_IMAGE_OTHERWISE = 6.0
"""For each image and target of a call: sums in float64, and what is made of them."""
PER_ROW = {"blur_integrated_gradients": 30.0, "guided_integrated_gradients": 36.0, "scorecam": 7.0}
PER_ROW_OTHERWISE = 2.0
"""For each row of a run: what it is fed, and what the loop makes of it."""
AT_ONCE = 8.0
"""For each target, once: one group's sums and its finished map. A run that draws has an image in each row."""
LAYER = 12.0
"""Layers of features and of their gradients, for each image and target, in float64."""
LAYER_LOOPS = ("cam", "scorecam", "ablation_cam", "recipro_cam", "guided_gradcam")
MASKS = 1500
"""Bytes for each pixel that XRAI's regions take, which are several hundred masks."""
WHOLE = ".fastestimator"


@dataclass(frozen=True, slots=True)
class Held:
    """Bytes for each image, for each row of a run, and for the call."""

    image: int
    row: int
    call: int


NOTHING = Held(0, 0, 0)


def held_by(bundle: Bundle, method: Method, parameters: Mapping[str, Any], targets: int, value_bytes: int) -> Held:
    """What a method's loop holds for images of `value_bytes` in float32, with so many targets each."""
    loop = method.loop
    image = PER_IMAGE.get(loop, PER_IMAGE_OTHERWISE) * value_bytes * targets
    row = PER_ROW.get(loop, PER_ROW_OTHERWISE) * value_bytes * (targets if loop.startswith("blur") else 1)
    sums = AT_ONCE * value_bytes * targets
    row, call = (row + sums, 0.0) if bundle.graphs[method.graph].draws else (row, sums)
    if loop in LAYER_LOOPS and bundle.layers:
        layers = _chosen(bundle, parameters)
        size = 4 * max(prod(axis for axis in layer.shape if isinstance(axis, int)) for layer in layers)
        image += LAYER * size * targets
        row += 4 * size
    if loop == "solve":
        call += _solver(method, parameters)
    if loop == "xrai":
        call += MASKS * value_bytes // 4
    return Held(int(image), int(row), int(call))


def one_by_one(method: Method, parameters: Mapping[str, Any]) -> bool:
    """Whether the images of a call don't depend on each other, so that some can be explained before the others."""
    return not method.loop.endswith(WHOLE) and parameters.get("noise_of") != "batch"


def _chosen(bundle: Bundle, parameters: Mapping[str, Any]) -> list[Layer]:
    return [layer for layer in bundle.layers if layer.name == parameters.get("layer")] or list(bundle.layers)


def _solver(method: Method, parameters: Mapping[str, Any]) -> int:
    """The design's matrix and the copies that the fit makes of it; of HSIC, also the distances of the scores."""
    segments = int(parameters.get("cells", 0)) ** 2
    shown = int(parameters.get("samples", 0)) or int(parameters.get("designs", 0)) * (segments + 1)
    distances = 3072 * shown + 16 * min(shown, 1000) ** 2 if method.finish == "dependence" else 0
    return 64 * shown * max(segments, 1) + distances
