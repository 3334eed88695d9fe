"""Random uses of the operators that reorder and repeat entries."""

from typing import Any

import numpy as np
from hypothesis import strategies as st

from rule_drawing import axes_of, axis_of, integers, note, per_axis, shapes
from rule_harness import Case


@st.composite
def transpose(draw: st.DrawFn) -> Case:
    """Any permutation of up to five axes, or none given."""
    shape = draw(shapes(1, 5, largest=3))
    order = list(draw(st.permutations(range(len(shape)))))
    attributes = {"perm": order} if draw(st.integers(0, 5)) else {}
    return Case("Transpose", [shape], attributes, note=note(**attributes))


@st.composite
def reshape(draw: st.DrawFn) -> Case:
    """Axes kept by 0, one left to -1, others merged and cut anew."""
    shape = draw(shapes(1, 4))
    kept = draw(st.integers(0, len(shape)))
    rest = int(np.prod(shape[kept:]))
    target: list[int] = [0 if draw(st.booleans()) else n for n in shape[:kept]]
    while rest > 1 and len(target) < 5:
        divisor = draw(st.sampled_from([d for d in range(1, rest + 1) if rest % d == 0]))
        target.append(divisor)
        rest //= divisor
    target += [rest] if rest > 1 or not target else []
    if draw(st.booleans()):
        target[draw(st.integers(0, len(target) - 1))] = -1
    fed = (1,) if draw(st.integers(0, 4)) == 0 else ()
    free = fed == () and target[0] == 0 and kept > 0
    batched = None if free else ()
    return Case("Reshape", [shape, np.array(target)], note=note(target=target, fed=fed), fed=fed, batched=batched)


@st.composite
def expand(draw: st.DrawFn) -> Case:
    """To any shape that the input broadcasts to, written in full or with ones."""
    whole = draw(shapes(1, 4))
    lead = draw(st.integers(0, len(whole) - 1))
    own = tuple(1 if draw(st.booleans()) else n for n in whole[lead:])
    target = [*whole[:lead]]
    target += [1 if size == n and draw(st.booleans()) else n for size, n in zip(own, whole[lead:], strict=True)]
    fed = (1,) if draw(st.booleans()) else ()
    return Case("Expand", [own, np.array(target)], note=note(target=target, fed=fed), fed=fed, batched=())


@st.composite
def tile(draw: st.DrawFn) -> Case:
    """Up to three repetitions along each axis."""
    shape = draw(shapes(1, 4, largest=3))
    counts = draw(per_axis(len(shape), 1, 3))
    fed = (1,) if draw(st.booleans()) else ()
    return Case("Tile", [shape, np.array(counts)], note=note(counts=counts, fed=fed), fed=fed)


@st.composite
def squeeze(draw: st.DrawFn) -> Case:
    """Some or all axes of size 1."""
    shape = draw(shapes(1, 3))
    places = sorted(draw(st.sets(st.integers(0, len(shape)), min_size=1, max_size=2)), reverse=True)
    wide = list(shape)
    for place in places:
        wide.insert(place, 1)
    ones = [axis for axis, size in enumerate(wide) if size == 1]
    chosen = draw(st.lists(st.sampled_from(ones), min_size=1, unique=True))
    named = [axis - len(wide) if draw(st.booleans()) else axis for axis in chosen]
    inputs: list[Any] = [tuple(wide)] if draw(st.integers(0, 4)) == 0 else [tuple(wide), np.array(named)]
    batched = () if len(inputs) == 1 or 0 in chosen else None
    return Case("Squeeze", inputs, note=note(axes=named, given=len(inputs)), batched=batched)


@st.composite
def unsqueeze(draw: st.DrawFn) -> Case:
    """New axes anywhere."""
    shape = draw(shapes(0, 3))
    count = draw(st.integers(1, 2))
    named = draw(axes_of(len(shape) + count, count).map(lambda axes: axes[:count]))
    return Case("Unsqueeze", [shape, np.array(named)], note=note(axes=named))


@st.composite
def cum_sum(draw: st.DrawFn) -> Case:
    """Either end first, with or without the entry itself."""
    shape = draw(shapes(1, 3, smallest=2))
    axis = integers(draw, draw(axis_of(len(shape))))
    attributes = {"exclusive": draw(st.integers(0, 1)), "reverse": draw(st.integers(0, 1))}
    fed = (1,) if draw(st.booleans()) else ()
    return Case("CumSum", [shape, axis], attributes, note=note(axis=axis, fed=fed, **attributes), fed=fed)


STRATEGIES: dict[str, st.SearchStrategy[Case]] = {
    "Transpose": transpose(),
    "Reshape": reshape(),
    "Expand": expand(),
    "Tile": tile(),
    "Squeeze": squeeze(),
    "Unsqueeze": unsqueeze(),
    "CumSum": cum_sum(),
}
