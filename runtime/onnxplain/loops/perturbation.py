"""The loops of methods that perturb a picture and are no plain sum: solved segments, and RISE with a detector."""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.bundle import Bundle
from onnxplain.errors import BundleError
from onnxplain.loops.registry import loop
from onnxplain.segments import Segments, segments_of
from onnxplain.solvers import find_solver
from onnxplain.work import Work

Array = NDArray[Any]

DETECTED = "masked.detected"


@loop("solve")
def solve(work: Work) -> Array:
    """Every pixel gets its segment's value, [N, T, 1, H, W], that the method's solver finds from the masked scores."""
    shape = work.map_shape  # an error where there are no pictures
    segments = segments_of(work.parameters, work.rows, str(work.bundle.image.layout))
    if len(segments) == 1:
        maps = _solved(work, segments[0])
    else:
        parts = [_solved(_alone(work, image), own) for image, own in enumerate(segments)]
        maps = np.concatenate(parts) if parts else np.zeros((*work.chosen.targets.shape, *work.size))
    return maps.astype(np.float32).reshape(*work.chosen.targets.shape, *shape)


def _solved(work: Work, segments: Segments) -> Array:
    """The values of shared segments [H, W], painted on the pixels: [N, T, H, W]."""
    solver = find_solver(work.method.finish)
    count = int(segments.max()) + 1
    design = solver.design(work.parameters, count)
    (scores,) = work.collect(("scores",), design.states, segments=segments[None])
    images, steps, targets = scores.shape
    columns = scores.transpose(1, 0, 2).reshape(steps, images * targets).astype(np.float64)
    values = solver.solve(design, columns, work.parameters)
    return values.T.reshape(images, targets, count)[:, :, segments]


def _alone(work: Work, image: int) -> Work:
    """The same work for one of its images."""
    one = slice(image, image + 1)
    feeds = {
        name: replace(feed, values=feed.values[one]) if feed.per_image else feed for name, feed in work.feeds.items()
    }
    return replace(
        work,
        feeds=feeds,
        asked=work.chosen.at(np.array([image])),
        answers=work.answers.of(one),
        names=work.names[one],
    )


@loop("detected")
def detected(work: Work) -> Array:
    """RISE, each mask weighted by how far the masked image looks like training data, on a scale from fill to image.

    The detector's confidence in the empty image is 0 on that scale, in the image itself 1; where the empty image looks
    *more* like training data, the ends change places, and where both are alike all masks count the same. A map is zero
    where every masked image looks worse than both ends.
    """
    low, high = _ends(work)
    low, high = np.minimum(low, high), np.maximum(low, high)
    # Cosines lie in [-1, 1]: with ends below them, every mask has weight 1.
    low, high = np.where(low < high, low, -3.0), np.where(low < high, high, -2.0)
    return work.sum(low=low, high=high, share=_share(work))


@loop("per_mask")
def per_mask(work: Work) -> Array:
    """MindSpore's RISE: the sum of masks times scores, divided by the number of masks and not by what they cover."""
    (total,) = work.sums(("total",))
    return (total / len(work.steps())).astype(np.float32)


@loop("detected.per_mask")
def detected_per_mask(work: Work) -> Array:
    """MindSpore's RISEPlus: divided so too; plain RISE where the empty image has more confidence."""
    low, high = _ends(work)
    (total,) = work.sums(("total",), low=low, high=high, share=_share(work))
    return (total / len(work.steps())).astype(np.float32)


def _ends(work: Work) -> tuple[Array, Array]:
    """The detector's confidence [N] in the fill image and the image itself: steps with all cells off, and all on."""
    _check_detector(work.bundle)
    height, width = work.size
    ends = np.array([[0, on, 2, height / 2, width / 2, 1, 1, 0, 0] for on in (0, 2)], np.float32)
    nothing = np.zeros(work.count, np.float32)
    (found,) = work.collect(("confidence",), ends, low=nothing, high=nothing, share=1 - _share(work))
    return found[:, 0], found[:, 1]


def _share(work: Work) -> float:
    steps = len(work.steps())
    return steps / (steps + 2)


def _check_detector(bundle: Bundle) -> None:
    """BundleError where the detector was trained on another network."""
    record = bundle.detector
    if record is None or record["network"] != bundle.source["sha256"]:
        whose = "nobody knows which network" if record is None else f"another network ({record['network'][:12]}…)"
        raise BundleError(
            f"the detector in {bundle.path} belongs to {whose}; train one for this: "
            f"onnxplain detector {bundle.path} --data PICTURES"
        )
