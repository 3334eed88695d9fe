"""RISE, ours against DIANNA's: as many masks of as many cells on the same network, in turns."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench_networks import MODELS
from bench_rounds import Timing, settled
from bench_statistics import agrees, median, ratio
from bench_subject import Subject

Array = NDArray[Any]

MASKS, CELLS, KEPT, BATCH = 1000, 7, 0.5, 100
OURS, SAME, THEIRS = "ours", "ours again", "dianna"
LEAST, SECONDS = 5, 60.0
# Both maps are random: ours may be no less like DIANNA's than DIANNA's next one is, but for so much.
LESS_ALIKE = 0.05


def measure(subject: Subject, timing: Timing) -> dict[str, Any]:
    """DIANNA ÷ ours, and how alike the maps are."""
    from dianna.methods.rise_image import RISEImage  # in the benchmark's environment only

    session = subject.session(subject.file)
    entry = session.get_inputs()[0].name
    image = picture(subject)
    target = int(session.run(None, {entry: image[None]})[0].argmax())

    def probabilities(rows: Array) -> Array:
        scores = session.run(None, {entry: rows})[0]
        raised = np.exp(scores - scores.max(1, keepdims=True))
        return raised / raised.sum(1, keepdims=True)

    def dianna() -> Array:
        explainer = RISEImage(n_masks=MASKS, feature_res=CELLS, p_keep=KEPT, axis_labels={0: "channels"})
        return np.asarray(explainer.explain(probabilities, image, [target], batch_size=BATCH))[0]

    one, other = subject.explainer("rise"), subject.explainer("rise")
    parameters = {"masks": MASKS, "cells": CELLS, "probability": KEPT}
    contenders = {
        OURS: lambda: one.explain(image[None], "rise", [target], **parameters).attribution[0, 0],
        SAME: lambda: other.explain(image[None], "rise", [target], **parameters).attribution[0, 0],
        THEIRS: dianna,
    }
    alike = {"ours and dianna": _alike(contenders[OURS](), dianna()), "dianna twice": _alike(dianna(), dianna())}
    if alike["ours and dianna"] < alike["dianna twice"] - LESS_ALIKE:
        return {"absent": {THEIRS: "the maps differ by more than chance"}, "correlation": alike, "void": False}
    slow = Timing(max(timing.least, LEAST), min(timing.least, LEAST), SECONDS, warmup=1)
    seconds, attempts = settled(contenders, slow, OURS, SAME)
    return {
        "seconds": {name: median(values) for name, values in seconds.items()},
        "ratios": {f"{SAME} ÷ {OURS}": ratio(seconds, SAME, OURS), "dianna rise ÷ ours": ratio(seconds, THEIRS, OURS)},
        "correlation": alike,
        "attempts": attempts,
        "void": not agrees(seconds, OURS, SAME),
    }


def picture(subject: Subject) -> Array:
    """A picture that the network knows, [3, side, side]: a map of noise would be noise."""
    bundle = subject.explainer("rise")
    return bundle.values(str(sorted((MODELS / "pictures").glob("*.png"))[0]))[0]


def _alike(one: Array, other: Array) -> float:
    """The correlation of two maps."""
    return float(np.corrcoef(np.ravel(one), np.ravel(other))[0, 1])
