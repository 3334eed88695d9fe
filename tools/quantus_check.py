"""Compares onnxplain's metrics with those of Quantus on the same network, pictures, maps and masks.

Quantus is LGPL and needs torch, so it is no dependency: run this in an environment of its own,

    pip install -c tools/constraints.txt quantus torch onnxruntime opencv-python tqdm
    PYTHONPATH=runtime python tools/quantus_check.py

Pictures of one channel, since Quantus ranks channels one by one where we rank pixels. 1 is the exit status if a figure
is above its tolerance.
"""

import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import quantus
import torch
from numpy.typing import NDArray

from onnxplain.metrics import METRICS, Subject
from onnxplain.metrics.correlation import spearman

Array = NDArray[Any]
COUNT, HEIGHT, WIDTH, CLASSES = 16, 12, 20, 5
STEP = 12
TOLERANCE = 1e-5
PLAIN = {
    "normalise": False,
    "return_aggregate": False,
    "disable_warnings": True,
    "display_progressbar": False,
}


def network() -> torch.nn.Module:
    """A small convolutional network with random weights."""
    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(1, 8, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(8, 8, 3, 2), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers, torch.nn.Flatten(), torch.nn.Linear(8 * 5 * 9, CLASSES)).eval()


def subject_of(model: torch.nn.Module, maps: Array, rows: Array, masks: Array) -> Subject:
    """What our metrics take: the same network, maps and masks."""

    def scores(changed: Array, _: Array) -> Array:
        with torch.no_grad():
            return model(torch.from_numpy(np.ascontiguousarray(changed, np.float32))).numpy()

    def again(changed: Array, _: Array, targets: Array) -> Array:
        return gradients(model, changed, targets)

    return Subject(
        names=tuple(f"image {number}" for number in range(len(rows))),
        rows=rows,
        layout="NCHW",
        targets=np.arange(COUNT) % CLASSES,
        maps=maps.astype(np.float32),
        map_layout="NCHW",
        network=scores,
        activation="softmax",
        measures="contribution",
        reduction="sum",
        masks=masks,
        again=again,
    )


def gradients(model: torch.nn.Module, rows: Array, targets: Array) -> Array:
    """The gradient of each target's score, [N, 1, H, W]."""
    given = torch.from_numpy(np.ascontiguousarray(rows, np.float32)).requires_grad_()
    model(given)[torch.arange(len(rows)), torch.from_numpy(np.asarray(targets))].sum().backward()
    assert given.grad is not None
    return given.grad.numpy()


def main() -> int:
    """Prints the largest difference of each metric; 1 if one is above its tolerance."""
    warnings.simplefilter("ignore")
    model, random = network(), np.random.default_rng(0)
    rows = random.normal(size=(COUNT, 1, HEIGHT, WIDTH)).astype(np.float32)
    masks = random.random((COUNT, HEIGHT, WIDTH)) < 0.2
    signed = gradients(model, rows, np.arange(COUNT) % CLASSES) * rows
    worst = 0.0
    print(f"quantus {quantus.__version__}, torch {torch.__version__}, numpy {np.__version__}; {COUNT} maps")
    for name, positive, theirs, ours in comparisons(model, rows, masks):
        maps = np.abs(signed) if positive else signed
        try:
            expected = np.asarray(theirs(maps), np.float64)
        except Exception as error:  # (a failure of theirs is a finding, and the others still count)
            print(f"{name:38} quantus fails: {type(error).__name__}: {str(error)[:80]}")
            continue
        found = ours(subject_of(model, maps, rows, masks))
        difference = float(np.abs(found - expected).max())
        worst = max(worst, difference)
        print(f"{name:38} largest difference {difference:.1e}  (values {found.min():.3g} to {found.max():.3g})")
    print(f"all: {worst:.1e}, tolerance {TOLERANCE:.0e}")
    return int(worst > TOLERANCE)


def comparisons(model: torch.nn.Module, rows: Array, masks: Array) -> list[tuple[str, bool, Any, Any]]:
    """(name, whether the maps are made positive, theirs of maps, ours of a subject)."""

    def quantus_of(kind: Any, masked: bool = False, **options: Any) -> Callable[[Array], Any]:
        measure = kind(**{"abs": False, **PLAIN, **options})
        given = {"s_batch": masks[:, None]} if masked else {}
        about = {"model": model, "x_batch": rows, "y_batch": np.arange(COUNT) % CLASSES, "channel_first": True}
        return lambda maps: measure(**about, a_batch=maps, device="cpu", softmax=True, **given)

    steps = HEIGHT * WIDTH // STEP
    flipped = {"features_in_step": STEP, "perturb_baseline": 0.0}  # their "black" is each picture's own minimum
    return [
        ("pointing game, radius 0", True, quantus_of(quantus.PointingGame, True), values("pointing_game", radius=0.0)),
        ("relevance rank", False, quantus_of(quantus.RelevanceRankAccuracy, True), values("relevance_rank")),
        (
            "relevance mass, positive maps",
            True,
            quantus_of(quantus.RelevanceMassAccuracy, True),
            values("relevance_mass"),
        ),
        ("sparseness", True, quantus_of(quantus.Sparseness), values("sparseness")),
        (
            "deletion curve (pixel flipping)",
            False,
            quantus_of(quantus.PixelFlipping, **flipped),
            lambda subject: METRICS["deletion"].measure(subject, steps=steps).curves[:, 1:],
        ),
        (
            "faithfulness (faithfulness estimate)",
            False,
            quantus_of(quantus.FaithfulnessEstimate, **flipped, similarity_func=quantus.correlation_pearson),
            values("faithfulness", steps=steps),
        ),
        ("max-sensitivity, absolute", False, max_sensitivity(model, rows), sensitivity_of_ours),
        ("Spearman, with ties", False, theirs_spearman, ours_spearman),
    ]


def values(name: str, **settings: Any) -> Callable[[Subject], Array]:
    """Our values of a subject."""
    return lambda subject: METRICS[name].measure(subject, **settings).values


SAMPLES, RADIUS = 10, 0.1


def max_sensitivity(model: torch.nn.Module, rows: Array) -> Callable[[Array], Any]:
    """Theirs with our draws; their denominator is set to 1, since it is the picture's length and not the map's."""

    class Draws:
        number = 0

        def __call__(self, arr: Array, **_: Any) -> Array:
            noise = np.random.default_rng([0, self.number % SAMPLES]).uniform(-1, 1, rows.shape[1:])
            self.number += 1
            return (arr + (noise * RADIUS).reshape(-1)[: arr[0].size].reshape(arr[0].shape)).astype(np.float32)

    measure = quantus.MaxSensitivity(
        **{"abs": False, **PLAIN}, nr_samples=SAMPLES, perturb_func=Draws(), norm_denominator=lambda a: np.ones(len(a))
    )

    def explain(model: torch.nn.Module, inputs: Array, targets: Array, **_: Any) -> Array:
        return gradients(model, inputs, targets)

    targets = np.arange(COUNT) % CLASSES
    about = {"model": model, "x_batch": rows, "y_batch": targets, "channel_first": True, "device": "cpu"}
    return lambda _: measure(**about, explain_func=explain)


def sensitivity_of_ours(subject: Subject) -> Array:
    """Ours of the gradient, with the same draws."""
    maps = gradients_of(subject)
    settings = {"radius": RADIUS, "unit": "input", "samples": SAMPLES, "relative": False}
    return METRICS["max_sensitivity"].measure(maps, **settings).values


def gradients_of(subject: Subject) -> Subject:
    """The subject with plain gradients for maps."""
    return replace(subject, maps=subject.maps_of(subject.rows))


def with_ties(maps: Array) -> Array:
    """Maps of few different values, [N, P]."""
    flat = maps.reshape(COUNT, -1)
    return np.round(10 * flat / np.abs(flat).max(axis=1, keepdims=True))


def theirs_spearman(maps: Array) -> Array:
    """Spearman's correlation of maps with their neighbours."""
    flat = with_ties(maps)
    return np.array([quantus.correlation_spearman(a, b) for a, b in zip(flat, np.roll(flat, 1, axis=0), strict=True)])


def ours_spearman(subject: Subject) -> Array:
    """The same."""
    flat = with_ties(subject.maps)
    return spearman(flat, np.roll(flat, 1, axis=0))


if __name__ == "__main__":
    sys.exit(main())
