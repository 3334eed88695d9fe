"""Recorded cases of the engine's plans, random numbers, masks, memory, targets and errors: see engine_vectors.py."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxplain.bundle import Method, Parameter
from onnxplain.errors import OnnxplainError, unknown
from onnxplain.integration import points_of
from onnxplain.masks import painted_masks, random_masks, window_masks
from onnxplain.parameters import check_parameters
from onnxplain.planner import chunks, images_at_once, parse_memory, rows_per_run, useful_rows
from onnxplain.plans import PLANS, find_plan
from onnxplain.random import LEVELS, LIMIT, normal, uniform
from onnxplain.targets import resolve

Case = dict[str, Any]


@dataclass(frozen=True, slots=True)
class VectorFile:
    """A file of cases: what it's about, how far numbers may differ, and how many digits are written."""

    about: str
    tolerance: float
    digits: int
    cases: Callable[[], Iterator[Case]]


FILES: dict[str, VectorFile] = {}


def vectors(
    about: str, tolerance: float = 1e-6, digits: int = 9
) -> Callable[[Callable[[], Iterator[Case]]], Callable[[], Iterator[Case]]]:
    """Registers the function that makes a file's cases, by its own name."""

    def register(function: Callable[[], Iterator[Case]]) -> Callable[[], Iterator[Case]]:
        FILES[function.__name__] = VectorFile(about, tolerance, digits, function)
        return function

    return register


def answer(function: Callable[..., Any], *arguments: Any, **named: Any) -> Case:
    """What a call returns as "expected", or the kind and text of the error that it raises as "error"."""
    try:
        return {"expected": function(*arguments, **named)}
    except OnnxplainError as error:
        return {"error": {"kind": type(error).__name__, "text": str(error)}}


SIZES = ((8, 8), (7, 10))
WINDOWS: tuple[Case, ...] = (
    {"window": 0, "stride": 0},
    {"window": 3, "stride": 2},
    {"window": 4, "stride": 0},
    {"window": [2, 5], "stride": [2, 3]},
    {"window": 3, "stride": 4},
    {"window": 20, "stride": 1},
    {"window": [8, 8], "stride": 1},
)
RISE = {"probability": 0.5, "design": "orthogonal", "cells": 4, "masks": 5}
PLAN_CASES: tuple[tuple[str, Case, tuple[tuple[int, int], ...]], ...] = (
    ("single", {}, ((8, 8),)),
    ("draws", {"samples": 1}, ((8, 8),)),
    ("draws", {"samples": 5}, ((8, 8),)),
    ("points", {"steps": 1}, ((8, 8),)),
    ("points", {"steps": 7}, ((8, 8),)),
    ("points", {"steps": 2001}, ((8, 8),)),
    ("draws_points", {"samples": 3, "steps": 4}, ((8, 8),)),
    *(
        (rule, given, SIZES)
        for rule in ("windows", "windows.captum", "windows.mindspore")
        for given in WINDOWS
        if rule != "windows.captum" or given["window"]
    ),
    ("windows", {"window": 0, "stride": 0}, ((0, 0), (1, 1), (20, 12), (28, 37))),
    ("windows.mindspore", {"window": 0, "stride": 0}, ((34, 6),)),
    ("windows.mindspore", {"window": 30, "stride": 0}, ((70, 40),)),
    ("random_masks", RISE, ((8, 8), (7, 10))),
    ("random_masks", {**RISE, "cells": 7, "masks": 20}, ((64, 64),)),
    ("random_masks", {**RISE, "cells": 2, "masks": 9}, ((5, 4),)),
    ("random_masks", {**RISE, "probability": 0.3}, ((8, 8),)),
    ("random_masks", {**RISE, "design": "independent"}, ((8, 8),)),
    ("random_masks", {**RISE, "cells": 9}, ((8, 8),)),
    ("random_masks", {**RISE, "cells": 1}, ((8, 8),)),
    ("random_masks", RISE, ((0, 0),)),
    ("random_masks.mindspore", {**RISE, "probability": 0.2}, ((8, 8), (7, 10))),
)


@vectors("step tables of the plan rules, float32 [K, columns]", tolerance=1e-7)
def plans() -> Iterator[Case]:
    """Every plan rule with a few parameters and sizes."""
    for rule, given, sizes in PLAN_CASES:
        for height, width in sizes:
            case = {"rule": rule, "columns": list(PLANS[rule].columns), "parameters": given}
            size = {"height": height, "width": width}
            yield {**case, **size, **answer(find_plan(rule).rule, given, height, width)}


@vectors("points and weights of the integration rules, float64 [K, 2]", tolerance=1e-13, digits=17)
def integration() -> Iterator[Case]:
    """Every rule with a few numbers of points, and what is refused."""
    counts = {"gausslegendre": (1, 2, 3, 4, 5, 10, 25, 50, 64)}
    for rule in (
        *("gausslegendre", "midpoint", "trapezoid", "riemann_left", "riemann_right"),
        *("riemann_middle", "riemann_trapezoid", "inclusive"),
    ):
        for count in (*counts.get(rule, (1, 2, 5)), *((0, 2001) if rule == "midpoint" else ())):
            yield {"rule": rule, "count": count, **answer(points_of, rule, count)}
    yield {"rule": "simpson", "count": 3, **answer(points_of, "simpson", 3)}


@vectors("noise of (seed, draws, shape): `levels` are exact, uniform is (level + 1/2) / 504019", tolerance=1.5e-6)
def random() -> Iterator[Case]:
    """Uniforms as whole numbers and normals, [draws, *shape]."""
    for seed, draws, shape in (
        (0, [0, 1, 2], [3, 4]),
        (1, [0, 25], [3, 2, 5]),
        (4711, [7], [40]),
        (LIMIT - 1, [LIMIT - 1, 0], [2, 3]),
        (12345, [LIMIT // 2], [1]),
    ):
        values = uniform(seed, draws, shape)
        levels = np.rint(values.astype(np.float64) * LEVELS - 0.5).astype(np.int64)
        yield {"seed": seed, "draws": draws, "shape": shape, "levels": levels, "normal": normal(seed, draws, shape)}
    # Elements far into a large picture: index 100,000 and those after it.
    late = np.rint(uniform(3, [5], (3, 224, 224)).astype(np.float64).ravel()[100_000:100_008] * LEVELS - 0.5)
    yield {"seed": 3, "draws": [5], "shape": [3, 224, 224], "from": 100_000, "levels": late.astype(np.int64)}
    for seed, draw in ((LIMIT, 0), (-1, 0), (0, LIMIT)):
        yield {"seed": seed, "draws": [draw], "shape": [2], **answer(uniform, seed, [draw], [2])}


@vectors("masks that the graphs make, for engines that make some themselves", tolerance=2e-6)
def masks() -> Iterator[Case]:
    """Windows, RISE's cells, painted segments."""
    steps = np.array([[0, 0, 2, 3], [1, 2, 4, 6]], np.float32)
    yield {"kind": "windows", "steps": steps, "height": 4, "width": 6, "expected": window_masks(steps, 4, 6)}
    for design in ("orthogonal", "independent"):
        table = find_plan("random_masks").rule({**RISE, "design": design, "masks": 3}, 6, 5)
        found = random_masks(9, table, 6, 5)
        yield {"kind": "random", "seed": 9, "steps": table, "height": 6, "width": 5, "expected": found}
    states = np.array([[1, 0, 1], [0.25, 0.5, 0]], np.float32)
    segments = np.array([[0, 0, 1], [2, 1, 1]])
    yield {"kind": "segments", "states": states, "segments": segments, "expected": painted_masks(states, segments)}


@vectors("amounts of memory, rows of a run, and how images and steps are split into runs")
def memory() -> Iterator[Case]:
    """What `memory` may be, and what follows from it."""
    for given in (
        *("2GB", "500 MB", "1.5gb", " 10 kb ", "123", "7B", "0.001TB", 2_000_000, "2 GiB", "lots", "", "0", 0, -5),
        *("1.5", "1e6", "-3MB"),
    ):
        yield {"call": "parse_memory", "memory": given, **answer(parse_memory, given)}
    for row, given, targets, most, beside in (
        (1_000_000, "10MB", 1, 16, 0),
        (1_000_000, "1GB", 1, 16, 0),
        (1_000_000, "10MB", 3, 16, 0),
        (1_000_000, "10MB", 1, 16, 4_500_000),
        (1_000_000, "1MB", 1, 16, 100),
        (12_345_678, "3MB", 2, 16, 1_000_000),
        (1_000_000, 50_000_000, 20, 16, 0),
        (0, "1MB", 1, 16, 0),
        (1_000_000, "1GB", 1, 64, 0),
    ):
        case = {"bytes_per_row": row, "memory": given, "targets": targets, "most": most, "beside": beside}
        yield {"call": "rows_per_run", **case, **answer(rows_per_run, row, given, targets, most, beside)}
    for row, threads, most in ((0, 1, 16), (4_000_000, 2, 16), (30_000_000, 2, 16), (90_000_000, 4, 16), (1, 1, 64)):
        found = useful_rows(row, threads, most)
        yield {"call": "useful_rows", "bytes_per_row": row, "threads": threads, "most": most, "expected": found}
    sizes = (
        (1, 1, 16),
        (3, 50, 16),
        (7, 2, 16),
        (5, 4, 3),
        (1, 10, 4),
        (0, 5, 4),
        (33, 1, 16),
        (17, 25, 16),
        (9, 11, 16),
    )
    for (images, steps, rows), shared in itertools.product(sizes, (False, True)):
        runs = [
            [chunk.images.start, chunk.images.stop, chunk.steps.start, chunk.steps.stop, chunk.first, chunk.last]
            for chunk in chunks(images, steps, rows, shared=shared)
        ]
        case = {"images": images, "steps": steps, "rows": rows, "shared": shared}
        yield {"call": "chunks", **case, "expected": runs}
    for images, room, held, beside in ((10, 1000, 100, 0), (10, 1000, 100, 400), (3, 10, 100, 0), (0, 10, 1, 0)):
        groups = [[group.start, group.stop] for group in images_at_once(images, room, held, beside)]
        case = {"images": images, "room": room, "held": held, "beside": beside}
        yield {"call": "images_at_once", **case, "expected": groups}


LABELS = ["tench, Tinca tinca", "goldfish, Carassius auratus", "crane", "crane, bird", "great white shark"]
SCORES = np.array([[0.1, 2.5, -1.0, 2.5, 0.0], [3.0, -4.0, 0.5, 0.25, 3.0]], np.float32)
TARGETS: tuple[tuple[Any, int | None], ...] = (
    *((None, None), (3, None), ([1, 4], None), ([[3, 0], [2, 2]], None), ([None, 2], None), ("goldfish", None)),
    *(("Tinca Tinca", None), ([" TENCH ", "great white shark"], None), ("crane", None), ("bird", None)),
    *(("goldfsh", None), ("zebra", None), (5, None), (-1, None), ([1], None)),
    *(([[1, 2], [3]], None), ([[], []], None), ([1, 2, 3], None)),
    *((None, 2), (None, 5), (None, 0), (None, 6), (1, 2)),
)


@vectors("the classes that are explained: `table` int64 [N, T], `several` whether maps keep a target axis")
def targets() -> Iterator[Case]:
    """Numbers, names, lists, and what is refused."""
    for labels in (LABELS, None):
        for given, best in TARGETS if labels else ((2, None), ("goldfish", None), (None, None)):
            found = answer(resolve, given, SCORES, labels, best)
            if "expected" in found:
                table, several = found["expected"]
                found["expected"] = {"table": table, "several": several}
            yield {"targets": given, "best": best, "scores": SCORES, "labels": labels, **found}
    found = answer(resolve, [1, 2], SCORES[:1], LABELS)
    yield {"targets": [1, 2], "best": None, "scores": SCORES[:1], "labels": LABELS, **found}


METHOD_NAMES = ["gradient", "smoothgrad", "integrated_gradients", "occlusion", "rise", "gradcam", "gradcam_plus_plus"]
UNKNOWN: tuple[tuple[str, str, list[str]], ...] = (
    ("method", "smothgrad", METHOD_NAMES),
    ("method", "grad", METHOD_NAMES),
    ("method", "gradcam++", METHOD_NAMES),
    ("method", "xyz", METHOD_NAMES),
    ("method", "", METHOD_NAMES),
    ("layer", "conv1", [f"conv{number}" for number in range(30)]),
    ("layer", "q", [f"block{number}" for number in range(30)]),
    ("finish rule", "it's", ["mean", "it is"]),
    ("target", "gold fish", LABELS),
)


@vectors("the sentence for an unknown name; the nearest is by difflib's ratio, at least 0.5")
def unknown_names() -> Iterator[Case]:
    """Names with and without a near one; more than twenty known ones."""
    for kind, name, known in UNKNOWN:
        yield {"kind": kind, "name": name, "known": known, "expected": unknown(kind, name, known)}


PARAMETERS = {
    "samples": {"kind": "int", "default": 25, "minimum": 1, "maximum": 1000},
    "noise": {"kind": "float", "default": 0.15, "minimum": 0.0},
    "window": {"kind": "size", "default": 0, "minimum": 0, "maximum": 64},
    "relu": {"kind": "bool", "default": True},
    "rule": {"kind": "choice", "default": "midpoint", "choices": ("midpoint", "trapezoid")},
    "fill": {"kind": "image", "default": 0.0},
    "segments": {"kind": "array", "default": "grid", "choices": ("grid", "slic")},
    "layer": {"kind": "layer", "default": ""},
}
GIVEN: tuple[Case, ...] = (
    *({}, {"samples": 3}, {"samples": 3.5}, {"samples": 0}, {"samples": 1001}, {"samples": "3"}),
    *({"noise": 1}, {"noise": -0.1}, {"noise": "much"}, {"window": 5}),
    *({"window": [3, 4]}, {"window": [3, 4, 5]}, {"window": [3, 65]}, {"window": -1}, {"relu": False}),
    *({"rule": "trapezoid"}, {"rule": "simpson"}, {"fill": "black"}, {"fill": "pink"}, {"fill": 0.5}),
    *({"segments": "slic"}, {"segments": "squares"}, {"segments": None}, {"layer": "conv"}, {"layer": 3}),
    *({"sample": 3}, {"temperature": 3}),
)


@vectors("a method's parameters, checked: all of them with defaults filled in, or the error", digits=17)
def parameters() -> Iterator[Case]:
    """A method that has a parameter of every kind, and one that has none."""
    entries = {name: _parameter(name, entry) for name, entry in PARAMETERS.items()}
    for given in GIVEN:
        case = {"method": "example", "entries": PARAMETERS, "given": given}
        yield {**case, **answer(check_parameters, _method("example", entries), given)}
    bare = answer(check_parameters, _method("gradient", {}), {"samples": 3})
    yield {"method": "gradient", "entries": {}, "given": {"samples": 3}, **bare}


def _parameter(name: str, entry: Case) -> Parameter:
    choices = tuple(entry.get("choices", ()))
    fields = {"kind": entry["kind"], "default": entry["default"], "help": "", "choices": choices}
    return Parameter(name=name, minimum=entry.get("minimum"), maximum=entry.get("maximum"), **fields)


def _method(name: str, entries: dict[str, Parameter]) -> Method:
    return Method(
        name=name,
        about="",
        graph="gradient",
        beside=(),
        plan="single",
        loop="sum",
        finish="mean",
        explains="logits",
        measures="sensitivity",
        parameters=entries,
    )
