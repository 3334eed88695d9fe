"""Networks written by hand whose right answer is known, with pictures for them; numpy and onnx only.

`linear` and `additive`: every pixel's contribution and gradient in closed form. `pooled`: the contribution of every
place of a feature layer. `planted`: the answer depends on the pixels of one patch alone, and `largest_response` proves
it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, checker, helper, numpy_helper

Array = NDArray[Any]
Exact = Callable[[Array, NDArray[np.int64]], Array]
"""(rows [N, 3, H, W], targets [N]) -> the right map, float64 [N, 3, H, W] or [N, 1, H, W]."""

STEPS = [
    {"step": "colour", "order": "RGB"},
    {"step": "scale", "factor": 1 / 255},
    {"step": "mean", "values": [0.5, 0.5, 0.5]},
    {"step": "std", "values": [0.5, 0.5, 0.5]},
    {"step": "layout", "order": "NCHW"},
]
CLASSES = 5
SMALL = (20, 24)  # not square, so that exchanged axes show
CHANNELS = 12

PATTERNS = 4  # the planted network's classes
DISTRACTORS = 2  # textures as loud as the patterns that no filter answers
PATCH = 8
WIDE = (40, 56)
INK = 191  # a pattern's pixels are INK or 255 − INK
BACKGROUND = 0.15  # largest size of a background value, as the network takes it
THRESHOLD = 0.28  # of a filter's answer, below which the planted network sees nothing
GAINS = (16.0, -3.0)  # of a pattern's answer on its own class's logit and on the others'
# Edges of more contrast than INK allows act on the scores: export proves the gradient on noise, which has no pattern,
# and rightly refuses a network that doesn't react to it. Flat pictures, where paths start, have no edges.
CONTRAST = 0.5
CELL = 4  # pixels a side of the planted network's last features


@dataclass(frozen=True)
class Known:
    """A network whose right answer is known: its model, pictures uint8 [N, H, W, 3], and what is known.

    `exact` are the right maps by what they are of: "gradient", "contribution" (from 0), "layer" (places of the last
    features). `masks` are bool [N, H, W] by name.
    """

    name: str
    model: ModelProto
    pictures: NDArray[np.uint8]
    exact: Mapping[str, Exact] = field(default_factory=dict)
    masks: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)


def linear(count: int = 8) -> Known:
    """Scores W·x + b: the gradient is W and a pixel's contribution W·x, whatever the method."""
    weights = smooth_fields(1, CLASSES)
    nodes = [
        helper.make_node("Flatten", ["image"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weight", "bias"], ["logits"], transB=1),
    ]
    constants = {"weight": weights.reshape(CLASSES, -1), "bias": np.linspace(-0.5, 0.5, CLASSES)}
    exact: dict[str, Exact] = {
        "gradient": lambda rows, targets: weights[targets],  # noqa: ARG005 (every answer's signature)
        "contribution": lambda rows, targets: weights[targets] * rows,
    }
    return Known("linear", _model(nodes, constants, SMALL, CLASSES), smooth_pictures(count, 2), exact)


def additive(count: int = 8) -> Known:
    """Scores Σ A·relu(x) + B·tanh(2x): each pixel acts alone, so its contribution is its own term.

    Shapley values, the integral along any path of one pixel after another, and single occlusion all equal it.
    """
    rising, bent = smooth_fields(3, CLASSES), smooth_fields(4, CLASSES)
    nodes = [
        helper.make_node("Relu", ["image"], ["positive"]),
        helper.make_node("Mul", ["image", "two"], ["twice"]),
        helper.make_node("Tanh", ["twice"], ["bounded"]),
        helper.make_node("Concat", ["positive", "bounded"], ["terms"], axis=1),
        helper.make_node("Flatten", ["terms"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weight"], ["logits"], transB=1),
    ]
    both = np.concatenate([rising, bent], axis=1).reshape(CLASSES, -1)

    def contribution(rows: Array, targets: NDArray[np.int64]) -> Array:
        return rising[targets] * np.maximum(rows, 0) + bent[targets] * np.tanh(2 * rows)

    def gradient(rows: Array, targets: NDArray[np.int64]) -> Array:
        return rising[targets] * (rows > 0) + 2 * bent[targets] * (1 - np.tanh(2 * rows) ** 2)

    model = _model(nodes, {"weight": both, "two": np.array(2.0)}, SMALL, CLASSES)
    exact = {"gradient": gradient, "contribution": contribution}
    return Known("additive", model, smooth_pictures(count, 5), exact)


def pooled(count: int = 8) -> Known:
    """Scores w·mean(relu(conv(x))): what each place of the features adds is known, as class activation maps assume.

    Zhou et al.: Learning deep features for discriminative localization, 2016, arXiv:1512.04150.
    """
    random = np.random.default_rng(6)
    filters = random.standard_normal((CHANNELS, 3, 3, 3)).astype(np.float32) / 3
    heads = random.standard_normal((CLASSES, CHANNELS)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["image", "filters"], ["answers"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["answers"], ["features"]),
        helper.make_node("GlobalAveragePool", ["features"], ["means"]),
        helper.make_node("Flatten", ["means"], ["flat"]),
        helper.make_node("Gemm", ["flat", "heads"], ["logits"], transB=1),
    ]

    def layer(rows: Array, targets: NDArray[np.int64]) -> Array:
        padded = np.pad(np.asarray(rows, np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
        features = np.maximum(np.einsum("nchwij,kcij->nkhw", windows, filters), 0)
        places = features.shape[2] * features.shape[3]
        return np.einsum("nk,nkhw->nhw", heads[targets], features)[:, None] / places

    model = _model(nodes, {"filters": filters, "heads": heads}, SMALL, CLASSES)
    return Known("pooled", model, smooth_pictures(count, 7), {"layer": layer})


def planted(count: int = 16) -> Known:
    """Matched filters, a threshold, maxima and a mean: the answer is the pattern's, wherever it lies.

    Everything else in the pictures stays below the threshold, so that its pixels have no part in any score: not the
    background, not the distractors. Gradient and integral are known; `masks` hold "pattern" and "distractor".
    """
    filters = patterns()[:PATTERNS] / (3 * PATCH * PATCH)
    own, others = GAINS
    edge = np.zeros((1, *filters.shape[1:]))
    edge[0, 0, :, : PATCH // 2], edge[0, 0, :, PATCH // 2 :] = PATCH**-2, -(PATCH**-2)
    before, after = (PATCH - 1) // 2, PATCH // 2
    nodes = [
        helper.make_node("Conv", ["image", "filters", "thresholds"], ["answers"], pads=[before, before, after, after]),
        helper.make_node("Relu", ["answers"], ["found"]),
        helper.make_node("MaxPool", ["found"], ["coarse"], kernel_shape=[CELL, CELL], strides=[CELL, CELL]),
        helper.make_node("Conv", ["coarse", "mixing"], ["compared"]),
        helper.make_node("Relu", ["compared"], ["features"]),
        helper.make_node("GlobalAveragePool", ["features"], ["means"]),
        helper.make_node("Flatten", ["means"], ["flat"]),
        helper.make_node("Gemm", ["flat", "gains"], ["logits"], transB=1),
    ]
    cells = (WIDE[0] // CELL) * (WIDE[1] // CELL)
    gains = np.full((PATTERNS, PATTERNS), others) + np.eye(PATTERNS) * (own - others)
    constants = {
        "filters": np.concatenate([filters, edge]),
        "thresholds": np.array([-THRESHOLD] * PATTERNS + [-CONTRAST]),
        # Each feature less a little of the others, so that two patterns in one place would weaken each other.
        "mixing": (1.2 * np.eye(PATTERNS + 1) - 0.2)[:, :, None, None],
        # The mean is over all places, of which the pattern answers in one.
        "gains": np.concatenate([gains, np.linspace(1, 2, PATTERNS)[:, None]], axis=1) * cells,
    }
    pictures, masks, places = planted_pictures(count)

    def gradient(rows: Array, wanted: NDArray[np.int64]) -> Array:
        found = np.zeros(rows.shape)
        for image, (top, left) in enumerate(places[: len(rows)]):
            there = filters[image % PATTERNS] * gains[wanted[image], image % PATTERNS]
            found[image, :, top : top + PATCH, left : left + PATCH] = there
        return found

    def contribution(rows: Array, wanted: NDArray[np.int64]) -> Array:
        # On the way from 0 the filter answers α times as much: nothing up to the threshold, then the same gradient.
        seen = gradient(rows, wanted) * rows
        return seen * (1 - THRESHOLD / (2 * INK / 255 - 1))

    model = _model(nodes, constants, WIDE, PATTERNS)
    return Known("planted", model, pictures, {"gradient": gradient, "path": contribution}, masks)


def patterns() -> NDArray[np.float64]:
    """The planted patterns, then the distractors: ±1, [PATTERNS + DISTRACTORS, 3, PATCH, PATCH]."""
    signs = np.random.default_rng(8).standard_normal((PATTERNS + DISTRACTORS, 3, PATCH, PATCH))
    # As many +1 as −1 in each channel, so that nothing flat has an answer.
    middle = np.median(signs.reshape(*signs.shape[:2], -1), axis=2)[..., None, None]
    return np.where(signs > middle, 1.0, -1.0)


def largest_response() -> float:
    """The largest answer of a filter that the pictures allow, but for a pattern's own filter in its own place.

    Below THRESHOLD it proves that nothing but a pattern's own pixels acts on a score: in a window that shares some
    pixels with a pattern or distractor, those answer as computed, and all others together at most BACKGROUND a pixel.
    """
    drawn, ink, size = patterns(), 2 * INK / 255 - 1, 3 * PATCH * PATCH
    worst = BACKGROUND
    for down in range(1 - PATCH, PATCH):
        for right in range(1 - PATCH, PATCH):
            shown = drawn[:, :, max(0, -down) : PATCH - max(0, down), max(0, -right) : PATCH - max(0, right)]
            asked = drawn[:PATTERNS, :, max(0, down) : PATCH + min(0, down), max(0, right) : PATCH + min(0, right)]
            answers = ink * np.einsum("achw,bchw->ab", shown, asked) / size
            if down == right == 0:
                np.fill_diagonal(answers, 0.0)
            outside = 1 - shown[0].size / size
            worst = max(worst, float(answers.max()) + BACKGROUND * outside)
    return worst


def planted_pictures(count: int) -> tuple[NDArray[np.uint8], dict[str, NDArray[np.bool_]], list[tuple[int, int]]]:
    """Pictures with a pattern and a distractor on a soft background, their masks, and the patterns' corners."""
    drawn, (height, width) = patterns(), WIDE
    pictures = np.empty((count, height, width, 3), np.uint8)
    masks = {name: np.zeros((count, height, width), bool) for name in ("pattern", "distractor")}
    places = []
    for number in range(count):
        random = np.random.default_rng([9, number])
        field_of = smooth_fields(int(random.integers(1 << 30)), 1, WIDE)[0]
        # A little below the bound, since the pixels are rounded to whole numbers.
        background = field_of / np.abs(field_of).max() * (BACKGROUND - 0.01)
        pictures[number] = _as_bytes(background)
        corners = _apart(random)
        kinds = (number % PATTERNS, PATTERNS + number % DISTRACTORS)
        for (top, left), kind, name in zip(corners, kinds, masks, strict=True):
            inside = np.s_[top : top + PATCH, left : left + PATCH]
            pictures[number][inside] = np.where(drawn[kind].transpose(1, 2, 0) > 0, INK, 255 - INK)
            masks[name][number][inside] = True
        places.append(corners[0])
    return pictures, masks, places


def smooth_pictures(count: int, seed: int, size: tuple[int, int] = SMALL) -> NDArray[np.uint8]:
    """Soft random pictures uint8 [N, H, W, 3] of full contrast."""
    fields = smooth_fields(seed, count, size)
    return np.stack([_as_bytes(one / np.abs(one).max()) for one in fields])


def smooth_fields(seed: int, count: int, size: tuple[int, int] = SMALL) -> NDArray[np.float32]:
    """Blurred noise [count, 3, H, W] of deviation 0.1: soft, which gives methods with windows and segments a chance."""
    noise = np.random.default_rng(seed).standard_normal((count, 3, *size))
    blurred = np.stack([[cv2.GaussianBlur(channel, (0, 0), 2.0) for channel in one] for one in noise])
    return (0.1 * blurred / blurred.std()).astype(np.float32)


def _apart(random: np.random.Generator) -> Sequence[tuple[int, int]]:
    """Corners of two patches so far apart that no filter sees parts of both."""
    room = [side - PATCH + 1 for side in WIDE]
    while True:
        first, second = ((int(random.integers(room[0])), int(random.integers(room[1]))) for _ in range(2))
        if max(abs(first[0] - second[0]), abs(first[1] - second[1])) >= 2 * PATCH:
            return first, second


def _as_bytes(values: Array) -> NDArray[np.uint8]:
    """Values [3, H, W] in −1..1 as a picture [H, W, 3]."""
    return np.rint((values.transpose(1, 2, 0) + 1) * 127.5).astype(np.uint8)


def _model(nodes: list[NodeProto], constants: Mapping[str, Array], size: tuple[int, int], classes: int) -> ModelProto:
    """The nodes as a model of opset 20: image [N, 3, H, W] -> logits [N, classes]."""
    graph = helper.make_graph(
        nodes,
        "known",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, *size])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", classes])],
        [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    checker.check_model(model, full_check=True)
    return model


KNOWN: Mapping[str, Callable[..., Known]] = {
    "linear": linear,
    "additive": additive,
    "pooled": pooled,
    "planted": planted,
}
