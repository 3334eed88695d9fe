"""What a map depends on: the class, few pixels, and the network's weights."""

import tempfile
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from onnxplain.errors import ParameterError
from onnxplain.metrics.correlation import pearson, spearman
from onnxplain.metrics.registry import Measurement, metric
from onnxplain.metrics.reweighting import layers_of, reweighted
from onnxplain.metrics.subject import Subject

SIMILARITIES = {"spearman": spearman, "pearson": pearson}
ORDERS = ("cascading", "independent")


@metric("class_sensitivity", better="higher", needs=("again",))
def class_sensitivity(subject: Subject) -> Measurement:
    """(1 − the correlation of the maps for the best and the worst class) / 2, 0..1; 0.5 for maps that are unrelated.

    Pearson's correlation of the raw maps with their signs; 0 where both are the same (a network of one class, a method
    that ignores the class), 0.5 where one of them is constant. As in MindSpore XAI (Li et al.: An experimental study of
    quantitative evaluations on saliency methods, 2021, arXiv:2012.15616).
    """
    best, worst = extreme_maps(subject)
    return Measurement((1 - pearson(best, worst)) / 2)


@metric("sparseness", better="higher")
def sparseness(subject: Subject) -> Measurement:
    """The Gini index of the map's absolute values: 0 where all are equal (or zero), 1 − 1/P where one of P has it all.

    Chalasani et al.: Concise explanations of neural networks using adversarial training, 2020, arXiv:1810.06583; the
    index as in Hurley and Rickard: Comparing measures of sparsity, 2009, arXiv:0811.4706.
    """
    values = np.sort(np.abs(subject.pixels().reshape(len(subject), -1)), axis=1)
    count, total = values.shape[1], values.sum(axis=1, keepdims=True)
    shares = values / np.where(total > 0, total, 1.0)
    weights = (count - np.arange(1, count + 1) + 0.5) / count
    return Measurement(np.where(total[:, 0] > 0, np.maximum(1 - 2 * (shares * weights).sum(axis=1), 0.0), 0.0))


@metric(
    "randomisation",
    better="lower",
    needs=("again", "weights"),
    limits={"stages": (1, 1000), "seed": (0, 2**31 - 1)},
    choices={"order": ORDERS, "similarity": tuple(SIMILARITIES)},
)
def randomisation(
    subject: Subject,
    *,
    order: str = "cascading",
    stages: int = 8,
    similarity: str = "spearman",
    absolute: bool = False,
    seed: int = 0,
) -> Measurement:
    """The size of the map's correlation with maps of the network with re-drawn weights, mean over stages, 0..1.

    Lower is better: a map that stays as it was, or only changes its sign, does not depend on what the network has
    learned. The curves hold the correlations with their signs, over the share of the layers done. "cascading"
    re-draws ever more layers, from the output down; "independent" one group of layers at a time. There are as many
    stages as layers, `stages` at most. `absolute` compares the maps' sizes alone. A constant map correlates by 0, or 1
    with itself. Adebayo et al.: Sanity checks for saliency maps, 2018, arXiv:1810.03292.
    """
    if subject.bundle is None or subject.reopened is None:
        raise ParameterError("randomisation needs a bundle whose weights can be re-drawn")
    layers = layers_of(subject.bundle.path)[::-1]
    ends = np.rint(np.linspace(0, len(layers), min(stages, len(layers)) + 1)).astype(int)
    before = _flat(subject, subject.maps, absolute)
    curves = np.zeros((len(subject), len(ends) - 1))
    for stage, (start, end) in enumerate(pairwise(ends)):
        with tempfile.TemporaryDirectory(prefix="onnxplain.") as folder:
            chosen = layers[0 if order == "cascading" else start : end]
            other = reweighted(subject.bundle.path, Path(folder) / "reweighted.explain", layers=chosen, seed=seed)
            maps = subject.reopened(other)(subject.rows, np.arange(len(subject)), subject.targets)
        curves[:, stage] = SIMILARITIES[similarity](before, _flat(subject, maps, absolute))
    return Measurement(np.abs(curves).mean(axis=1), ends[1:] / len(layers), curves)


def extreme_maps(subject: Subject) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The raw maps [N, P] for each image's best and worst class."""
    everyone = np.arange(len(subject))
    scores = subject.all_scores(subject.rows, everyone, "logits")
    best = subject.maps_of(subject.rows, everyone, scores.argmax(axis=1))
    worst = subject.maps_of(subject.rows, everyone, scores.argmin(axis=1))
    shape = (len(subject), -1)
    return best.reshape(shape).astype(np.float64), worst.reshape(shape).astype(np.float64)


def _flat(subject: Subject, maps: NDArray[np.float32], absolute: bool) -> NDArray[np.float64]:
    pixels = subject.pixels_of(maps).reshape(len(subject), -1)
    return np.abs(pixels) if absolute else pixels
