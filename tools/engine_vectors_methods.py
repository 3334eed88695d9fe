"""Recorded cases of what methods compute beside the network's runs: see engine_vectors.py."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from engine_vectors_cases import Case, VectorFile, answer
from onnxplain.activations import activate
from onnxplain.bundle import Bundle
from onnxplain.cams import CAMS, ablationcam, enlarged, guided, in_layout, on_grid, scorecam, scorecam_masks
from onnxplain.feeds import deviations_of
from onnxplain.fills import baselines, fill_values
from onnxplain.loops.blur_path import blurred, gaussian_matrix
from onnxplain.loops.guided_path import guided_path
from onnxplain.loops.paths import expected_draws
from onnxplain.preprocessing import preset_steps
from onnxplain.random import normal, uniform
from onnxplain.regions import given_masks, grown
from onnxplain.segments import grid, segments_of
from onnxplain.solvers import SOLVERS
from onnxplain.summing import FINISH

Array = NDArray[Any]
FILES: dict[str, VectorFile] = {}


def numbers(draw: int, *shape: int) -> Array:
    """Float32 numbers of a normal distribution, to three places."""
    return np.round(normal(1, [draw], shape)[0].astype(np.float64), 3).astype(np.float32)


SOLVER_CASES: tuple[tuple[str, Case, int], ...] = (
    ("shapley", {"samples": 14, "seed": 0}, 4),
    ("shapley", {"samples": 20, "seed": 3}, 5),
    ("shapley", {"samples": 24, "seed": 3}, 9),
    ("shapley", {"samples": 41, "seed": 7}, 6),
    ("shapley", {"samples": 2, "seed": 0}, 1),
    ("shapley", {"samples": 3, "seed": 0}, 2),
    ("shapley", {"samples": 17, "seed": 0}, 9),
    ("ridge", {"samples": 12, "seed": 0, "distance": "cosine", "width": 0.25, "ridge": 1.0}, 4),
    ("ridge", {"samples": 9, "seed": 5, "distance": "euclidean", "width": 0.7, "ridge": 0.0}, 3),
    ("total_indices", {"designs": 4, "seed": 0}, 3),
    ("total_indices", {"designs": 5, "seed": 11}, 2),
    ("dependence", {"samples": 8, "seed": 0}, 4),
    ("dependence", {"samples": 9, "seed": 2}, 3),
)


def solvers() -> Iterator[Case]:
    """Designs, and what follows from scores; once from scores that never change."""
    for name, given, segments in SOLVER_CASES:
        case = {"solver": name, "parameters": given, "segments": segments}
        found = answer(SOLVERS[name].design, given, segments)
        if "error" in found:
            yield {**case, **found}
            continue
        design = found["expected"]
        states = {"states": design.states, "weights": design.weights}
        some = np.round(uniform(2, [segments], (len(design.states), 2))[0].astype(np.float64), 4)
        for scores in (some, np.full_like(some[:, :1], 0.25)) if segments < 5 else (some,):
            values = SOLVERS[name].solve(design, scores, given)
            yield {**case, **states, "scores": scores, "expected": values}


def cams() -> Iterator[Case]:
    """Every formula of features and gradients, masks of Score-CAM, layouts, enlarging."""
    features, gradients = np.maximum(numbers(0, 2, 3, 2, 3), 0), numbers(1, 2, 2, 3, 2, 3)
    for name in sorted(CAMS):
        for some, slopes in ((features, gradients), (np.zeros_like(features), np.zeros_like(gradients))):
            expected = CAMS[name](some, slopes)
            yield {"call": name, "features": some[:1], "gradients": slopes[:1], "expected": expected[:1]}
    signed = numbers(2, 1, 4, 2, 2)
    slopes = numbers(3, 1, 1, 4, 2, 2)
    for name in ("gradcam", "eigencam", "xgradcam", "gradcam_plus_plus"):
        yield {"call": name, "features": signed, "gradients": slopes, "expected": CAMS[name](signed, slopes)}
    one = np.concatenate([features[0], np.full((1, 2, 3), 0.5, np.float32)])
    yield {"call": "scorecam_masks", "features": one, "size": [4, 5], "expected": scorecam_masks(one, (4, 5))}
    gains = numbers(4, 1, 2, 3)
    yield {"call": "scorecam", "features": features[:1], "gains": gains, "expected": scorecam(features[:1], gains)}
    scores, ablated = np.array([[0.5, 0.0]], np.float32), numbers(5, 1, 2, 3)
    found = ablationcam(features[:1], scores, ablated)
    yield {"call": "ablationcam", "features": features[:1], "scores": scores, "ablated": ablated, "expected": found}
    for size in ((5, 7), (2, 3), (1, 1), (4, 9)):
        yield {"call": "enlarged", "maps": slopes[0, 0, :1], "size": size, "expected": enlarged(slopes[0, 0, :1], size)}
    tokens = numbers(6, 1, 7, 3)
    places = on_grid(tokens, "tokens", (2, 3), 1)
    yield {"call": "on_grid", "values": tokens, "layout": "tokens", "grid": [2, 3], "prefix": 1, "expected": places}
    back = in_layout(places, "tokens", tokens[:, :1])
    case = {"values": places, "layout": "tokens", "before": tokens[:, :1]}
    yield {"call": "in_layout", **case, "expected": back}
    maps = np.abs(numbers(7, 1, 1, 2, 2))
    for layout, shape in (("NCHW", (1, 1, 3, 2, 2)), ("NHWC", (1, 1, 2, 2, 3))):
        slopes = numbers(8, *shape)
        case = {"maps": maps, "gradients": slopes, "layout": layout}
        yield {"call": "guided", **case, "expected": guided(maps, slopes, layout)}


def sums() -> Iterator[Case]:
    """Finish rules, activations, and the noise's deviation."""
    total, norm = numbers(10, 2, 1, 2, 3).astype(np.float64), np.array([2.0, 0, 4]).reshape(1, 1, 1, 3)
    for name, rule in FINISH.items():
        yield {"call": name, "total": total, "norm": norm, "expected": rule(total, norm)}
    scores = np.array([[1.0, 2.0, -3.0], [1000.0, 999.0, -1000.0], [0.0, 0.0, 0.0]], np.float32)
    for name in ("softmax", "sigmoid", "none"):
        yield {"call": "activate", "activation": name, "scores": scores, "expected": activate(scores, name)}
    values = numbers(11, 3, 2, 2)
    values[2] = 0.5
    for share_of in ("image", "batch", "absolute"):
        given = {"noise": 0.15, "noise_of": share_of}
        yield {"call": "deviations", "values": values, "parameters": given, "expected": deviations_of(values, given)}


def _bundle(layout: str) -> Bundle:
    """As much of a bundle as baselines and fills look at."""
    steps = preset_steps("torchvision", 6, 5, 3, layout)
    return cast(Bundle, SimpleNamespace(image=SimpleNamespace(layout=layout), steps=steps, inside=None))


def fills() -> Iterator[Case]:
    """What `baseline` and `fill` stand for; preprocessing is that of torchvision."""
    for layout, shape in (("NCHW", (2, 3, 4, 5)), ("NHWC", (1, 4, 5, 3))):
        rows, bundle = numbers(12, *shape), _bundle(layout)
        steps = {"layout": layout, "steps": bundle.steps, "seed": 4}
        for value in (0.5, "black", "white", "mean", "blur", "random"):
            found = fill_values("fill", value, rows, bundle, 4)
            yield {"value": value, **steps, "rows": rows, "expected": found}
    given = np.zeros((2, 7), np.float32)
    rows = numbers(12, 2, 3, 4, 5)
    found = answer(fill_values, "fill", given, rows, _bundle("NCHW"))
    yield {"value": given, "layout": "NCHW", "steps": [], "seed": 0, "rows": rows, **found}
    several = [one[0] for one in baselines("random", rows[:1], _bundle("NCHW"), 2, 4)]
    yield {"baselines": "random", "draws": 2, "seed": 4, "rows": rows[:1], "expected": np.stack(several)}


def paths() -> Iterator[Case]:
    """Blurs, random points, and the guided path of F(x) = Σ c x²."""
    for size, sigma in ((5, 0.0), (5, 0.1), (6, 0.8), (9, 2.5), (4, 20.0)):
        case = {"call": "gaussian_matrix", "size": size, "sigma": sigma}
        yield {**case, "expected": gaussian_matrix(size, sigma)}
    images = numbers(13, 1, 2, 4, 5)
    yield {"call": "blurred", "images": images, "sigma": 1.3, "axes": [2, 3], "expected": blurred(images, 1.3, (2, 3))}
    for samples, count, seed, fresh in ((6, 3, 0, False), (4, 1, 9, False), (5, 5, 2, True)):
        alpha, chosen = expected_draws(samples, count, seed, fresh)
        case = {"samples": samples, "baselines": count, "seed": seed, "fresh": fresh}
        yield {"call": "expected_draws", **case, "alpha": alpha, "chosen": chosen}
    images, start, c = numbers(14, 2, 1, 3, 4), np.zeros((2, 1, 3, 4), np.float32), numbers(15, 1, 3, 4)
    for steps, fraction, most in ((10, 0.25, 0.02), (5, 0.5, 1.0), (4, 0.25, 0.0)):
        found = guided_path(lambda rows: 2 * c * rows, images, start, steps, fraction, most)
        case = {"images": images, "starts": start, "coefficients": c, "steps": steps}
        yield {"call": "guided_path", **case, "fraction": fraction, "max_dist": most, "expected": found}


def regions() -> Iterator[Case]:
    """Segments of a grid and given ones, and XRAI's growing of regions from given ones."""
    for cells, height, width in ((3, 7, 8), (1, 2, 2), (4, 4, 5)):
        case = {"call": "grid", "cells": cells, "height": height, "width": width}
        yield {**case, "expected": grid(cells, height, width)}
    rows = np.zeros((1, 3, 2, 3), np.float32)
    for given in (np.array([[5, 5, 9], [1, 9, 1]]), np.zeros((3, 3), np.int64), np.array([[0.5, 1, 1], [1, 1, 1]])):
        found = answer(segments_of, {"segments": given, "cells": 2}, rows, "NCHW")
        yield {"call": "segments", "segments": given, "size": [2, 3], "images": 1, **found}
    found = answer(segments_of, {"segments": "grid", "cells": 3}, rows, "NCHW")
    yield {"call": "segments", "segments": "grid", "cells": 3, "size": [2, 3], "images": 1, **found}
    for height, width, draw in ((4, 5, 16), (12, 10, 17)):
        attribution = numbers(draw, height, width).astype(np.float64)
        labels = grid(3, height, width)
        labels[0, 0] = 9
        (masks,) = given_masks(labels, 1, height, width)
        yield {"call": "grown", "attribution": attribution, "segments": labels, "expected": grown(attribution, masks)}
        overlapping = masks[:5] | np.roll(masks[:5], 1, axis=1)
        case = {"attribution": attribution, "masks": overlapping.astype(np.int64)}
        yield {"call": "grown", **case, "expected": grown(attribution, overlapping)}


FILES |= {
    "solvers": VectorFile("designs of the solvers, and values [S, M] of scores [K, M]", 1e-6, 12, solvers),
    "cams": VectorFile("formulas of features [N, K, h, w] and gradients [N, T, K, h, w]", 1e-6, 9, cams),
    "sums": VectorFile("finish rules, activations, deviations of the noise", 1e-6, 9, sums),
    "fills": VectorFile("baselines and fills for images `rows` [N, …]", 2e-6, 9, fills),
    "paths": VectorFile("blurs along a path, random points of a path, the guided path", 1e-6, 9, paths),
    "regions": VectorFile("segments of a picture, and regions grown from them", 1e-6, 9, regions),
}
