"""Random uses of Resize, within what onnxruntime takes."""

from typing import Any

import numpy as np
from hypothesis import strategies as st

from rule_drawing import note
from rule_harness import Case

COORDINATES = ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel", "half_pixel_symmetric")
ROUNDINGS = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
SCALES = (0.25, 1 / 3, 0.5, 0.6, 2 / 3, 0.75, 1.0, 1.25, 1.5, 1.7, 2.0, 2.5, 3.0)
RESIZED = {
    "nearest": [(2, (0, 1)), (3, (0, 1, 2)), (3, (2,)), (4, (2, 3)), (4, (1, 2)), (4, (0, 3)), (5, (2, 3, 4))],
    "linear": [(2, (0, 1)), (3, (1, 2)), (3, (0, 1, 2)), (4, (2, 3)), (4, (1, 2)), (5, (2, 3, 4))],
    "cubic": [(2, (0, 1)), (4, (2, 3))],
}
"""The ranks, and which axes of them onnxruntime resizes in each mode."""


@st.composite
def resize(draw: st.DrawFn) -> Case:
    """Any mode and coordinates, by scales or to sizes, of all axes or of those that are named."""
    mode = draw(st.sampled_from(sorted(RESIZED)))
    rank, chosen = draw(st.sampled_from(RESIZED[mode]))
    attributes: dict[str, Any] = {"mode": mode, "coordinate_transformation_mode": draw(st.sampled_from(COORDINATES))}
    if mode == "nearest":
        attributes["nearest_mode"] = draw(st.sampled_from(ROUNDINGS))
    elif rank == 4 and chosen == (2, 3) and draw(st.booleans()):
        attributes["antialias"] = 1
    if mode == "cubic":
        attributes |= {
            "cubic_coeff_a": draw(st.sampled_from([-0.75, -0.5])),
            "exclude_outside": draw(st.integers(0, 1)),
        }
    shape = tuple(draw(st.integers(2, 6)) if axis in chosen else draw(st.integers(1, 2)) for axis in range(rank))
    scales = [draw(st.sampled_from([s for s in SCALES if s * shape[axis] >= 1])) for axis in chosen]
    sizes = [int(np.floor(np.float32(scale) * shape[axis])) for scale, axis in zip(scales, chosen, strict=True)]
    by_scales, named = draw(st.booleans()), draw(st.booleans())
    given: list[Any] = list(scales if by_scales else sizes)
    if named:
        attributes["axes"] = [axis - rank if draw(st.booleans()) else axis for axis in chosen]
    else:
        unchanged: list[Any] = [1.0] * rank if by_scales else list(shape)
        given = [given[chosen.index(axis)] if axis in chosen else unchanged[axis] for axis in range(rank)]
    by = [None, np.array(given, np.float32)] if by_scales else [None, None, np.array(given, np.int64)]
    described = note(**attributes, by=[round(float(x), 3) for x in given])
    batched = () if 0 in chosen or (not named and not by_scales) else None
    return Case("Resize", [shape, *by], attributes, note=described, typed=(2,), batched=batched)


STRATEGIES: dict[str, st.SearchStrategy[Case]] = {"Resize": resize()}
