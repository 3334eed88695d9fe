"""Random uses of the operators that read or write at indices."""

from typing import Any

import numpy as np
from hypothesis import strategies as st

from rule_drawing import Shape, axis_of, index_array, integers, note, per_axis, shapes, sides
from rule_harness import Case

SMALLEST, LARGEST = np.iinfo(np.int64).min, np.iinfo(np.int64).max
FAR = 10**9  # the longest step: onnx 1.23's shape inference counts in 32 bits, and never ends with a longer one
REDUCTIONS = ("none", "add", "mul", "min", "max")


@st.composite
def _cut(draw: st.DrawFn, size: int) -> tuple[int, int, int]:
    """Start, end and step that leave something of an axis."""
    step = draw(st.sampled_from([1, 1, 2, 3, 9, FAR, -1, -1, -2, -3, -9, -FAR]))
    first = draw(st.integers(0, size - 1))
    if step > 0:
        starts, ends = [first, first - size], [first + 1, size, size + 3, LARGEST]
        starts += [SMALLEST, -size - 2] if first == 0 else []
        ends += [first + 1 - size] if first + 1 < size else []
    else:
        starts, ends = [first, first - size], [-size - 1, -size - 3, SMALLEST]
        starts += [LARGEST, size + 2] if first == size - 1 else []
        starts += [SMALLEST, -size - 2] if first == 0 else []
        ends += [first - 1, first - 1 - size] if first > 0 else []
    return draw(st.sampled_from(starts)), draw(st.sampled_from(ends)), step


@st.composite
def slice_(draw: st.DrawFn) -> Case:
    """Positive and negative starts, ends and steps some at the ends of int64, along some axes, fixed or at run time."""
    shape = draw(shapes(1, 4, largest=6))
    rank = len(shape)
    count = draw(st.integers(1, rank))
    leading = draw(st.booleans())  # the axes are those that a node without a list of axes means
    chosen = list(range(count)) if leading else list(draw(st.permutations(range(rank))))[:count]
    cuts = [draw(_cut(shape[axis])) for axis in chosen]
    starts, ends, steps = (np.array(column) for column in zip(*cuts, strict=True))
    named = [axis - rank if draw(st.booleans()) else axis for axis in chosen]
    inputs: list[Any] = [shape, starts, ends, None if leading and draw(st.booleans()) else np.array(named)]
    if not (steps == 1).all() or draw(st.booleans()):
        inputs.append(steps)
    fed = tuple(i for i in range(1, len(inputs)) if inputs[i] is not None) if draw(st.booleans()) else ()
    described = note(cuts=[(a, b, c, axis) for (a, b, c), axis in zip(cuts, named, strict=True)], fed=fed)
    return Case("Slice", inputs, note=described, fed=fed)


@st.composite
def gather(draw: st.DrawFn) -> Case:
    """Indices of any rank, along any axis, fixed or at run time."""
    shape = draw(shapes(1, 4))
    axis = draw(axis_of(len(shape)))
    indices = integers(draw, draw(index_array(draw(shapes(0, 2, largest=3)), shape[axis])))
    fed = (1,) if draw(st.booleans()) else ()
    described = note(axis=axis, fed=fed, indices=indices.tolist())
    return Case("Gather", [shape, indices], {"axis": axis}, note=described, fed=fed, batched=_first_axis(draw))


@st.composite
def gather_elements(draw: st.DrawFn) -> Case:
    """Indices of at most the data's shape beside the axis."""
    shape = draw(shapes(1, 3))
    axis = draw(axis_of(len(shape)))
    inside = [draw(sides(1, n)) for n in shape]
    inside[axis] = draw(sides(1, 5))
    indices = integers(draw, draw(index_array(tuple(inside), shape[axis])))
    fed = (1,) if draw(st.booleans()) else ()
    described = note(axis=axis, fed=fed, indices=indices.tolist())
    batched = (0,) if draw(st.booleans()) else ()
    return Case("GatherElements", [shape, indices], {"axis": axis}, note=described, fed=fed, batched=batched)


def _first_axis(draw: st.DrawFn) -> tuple[int, ...]:
    """Whether the data's first axis is free."""
    return (0,) if draw(st.booleans()) else ()


@st.composite
def _tuples(draw: st.DrawFn, lead: Shape, sizes: Shape, different: bool = False) -> np.ndarray:
    """Index tuples [*lead, len(sizes)] into axes of these sizes, each counted from either end."""
    count, total = int(np.prod(lead)), int(np.prod(sizes))
    flat = draw(st.lists(st.integers(0, total - 1), min_size=count, max_size=count, unique=different))
    columns = np.stack(np.unravel_index(np.array(flat, np.int64), sizes), axis=-1)
    signs = draw(st.lists(st.booleans(), min_size=columns.size, max_size=columns.size))
    negative = np.array(signs).reshape(columns.shape)
    return np.where(negative, columns - np.array(sizes), columns).reshape(*lead, len(sizes)).astype(np.int64)


@st.composite
def gather_nd(draw: st.DrawFn) -> Case:
    """Index tuples into some axes, after any number of batch axes."""
    shape = draw(shapes(1, 4, largest=3))
    batch = draw(st.integers(0, min(len(shape) - 1, 2)))
    depth = draw(st.integers(1, len(shape) - batch))
    lead = (*shape[:batch], *draw(shapes(0, 2, largest=3)))
    indices = draw(_tuples(lead, shape[batch : batch + depth]))
    fed = (1,) if draw(st.booleans()) else ()
    free = (0, 1) if batch and fed else () if batch else (0,)
    batched = free if draw(st.booleans()) else ()
    described = note(batch=batch, fed=fed, indices=indices.tolist(), batched=batched)
    return Case("GatherND", [shape, indices], {"batch_dims": batch}, note=described, fed=fed, batched=batched)


@st.composite
def scatter_elements(draw: st.DrawFn) -> Case:
    """Every reduction; places written once for "none"."""
    shape = draw(shapes(1, 3))
    axis, reduction = draw(axis_of(len(shape))), draw(st.sampled_from(REDUCTIONS))
    inside = [draw(sides(1, n)) for n in shape]
    if reduction == "none":
        across = axis % len(shape)
        lines = int(np.prod(inside)) // inside[across]
        orders = [draw(st.permutations(range(shape[across])))[: inside[across]] for _ in range(lines)]
        rest = [n for i, n in enumerate(inside) if i != across]
        indices = np.moveaxis(np.array(orders, np.int64).reshape(*rest, inside[across]), -1, across)
        negative = draw(index_array(tuple(inside), 1)) < 0
        indices = np.where(negative, indices - shape[across], indices)
    else:
        inside[axis] = draw(sides(1, 5))
        indices = draw(index_array(tuple(inside), shape[axis]))
    wrt = draw(st.sampled_from([(0,), (2,), (0, 2)]))
    fed = (1, *(i for i in (0, 2) if i not in wrt)) if draw(st.booleans()) else ()
    attributes = {"axis": axis, "reduction": reduction}
    described = note(**attributes, wrt=wrt, fed=fed, indices=indices.tolist())
    inputs = _written(reduction, shape, integers(draw, indices), indices.shape)
    return Case("ScatterElements", inputs, attributes, wrt, described, fed=fed, batched=())


def _written(reduction: str, shape: Shape, indices: np.ndarray, updates: Shape) -> list[Any]:
    """Data and updates of which no two are equal, so that min and max are smooth."""
    if reduction not in ("min", "max"):
        return [shape, indices, updates]
    data, written = int(np.prod(shape)), int(np.prod(updates))
    values = np.random.default_rng(indices.size).permutation(data + written) / (data + written) * 4 - 2
    return [values[:data].reshape(shape), indices, values[data:].reshape(updates)]


@st.composite
def scatter_nd(draw: st.DrawFn) -> Case:
    """The same for slices."""
    shape = draw(shapes(1, 3))
    depth, reduction = draw(st.integers(1, len(shape))), draw(st.sampled_from(REDUCTIONS))
    places = int(np.prod(shape[:depth]))
    lead = draw(shapes(0, 2, largest=3).filter(lambda s: reduction != "none" or np.prod(s) <= places))
    indices = draw(_tuples(lead, shape[:depth], different=reduction == "none"))
    wrt = draw(st.sampled_from([(0,), (2,), (0, 2)]))
    fed = (1, *(i for i in (0, 2) if i not in wrt)) if draw(st.booleans()) else ()
    described = note(reduction=reduction, wrt=wrt, fed=fed, indices=indices.tolist())
    inputs = _written(reduction, shape, indices, (*lead, *shape[depth:]))
    return Case("ScatterND", inputs, {"reduction": reduction}, wrt, described, fed=fed, batched=())


@st.composite
def pad(draw: st.DrawFn) -> Case:
    """All modes, some axes, widths of either sign (negative ones with "constant", which others refuse)."""
    mode = draw(st.sampled_from(["constant", "edge", "reflect", "wrap"]))
    shape = draw(shapes(1, 4, smallest=2, largest=5))
    rank = len(shape)
    named = draw(st.booleans())
    chosen = list(draw(st.permutations(range(rank))))[: draw(st.integers(1, rank))] if named else list(range(rank))
    negative = mode == "constant" or draw(st.integers(0, 9)) == 0
    widths = [draw(_widths(mode, shape[axis], negative)) for axis in chosen]
    pads = np.array([begin for begin, _ in widths] + [end for _, end in widths])
    value = np.array(draw(st.sampled_from([0.0, 1.5]))) if mode == "constant" and draw(st.booleans()) else None
    axes = np.array([axis - rank if draw(st.booleans()) else axis for axis in chosen]) if named else None
    inputs: list[Any] = [shape, pads, value, axes]
    while inputs[-1] is None:
        inputs.pop()
    padded = any(begin or end for axis, (begin, end) in zip(chosen, widths, strict=True) if axis == 0)
    described = note(mode=mode, pads=pads.tolist(), axes=None if axes is None else axes.tolist())
    batched = () if mode != "constant" and padded else None
    return Case("Pad", inputs, {"mode": mode}, note=described, batched=batched)


@st.composite
def _widths(draw: st.DrawFn, mode: str, size: int, negative: bool) -> tuple[int, int]:
    """What is added before and after an axis, or removed, of which something is left."""
    most = {"constant": 3, "edge": size + 2, "reflect": size - 1, "wrap": size}[mode]
    begin = draw(st.integers(-(size - 1) if negative else 0, most))
    end = draw(st.integers(-(size - 1 + min(begin, 0)) if negative else 0, most))
    if negative and mode != "constant":  # what is left is what is repeated
        left = size + min(begin, 0) + min(end, 0)
        begin, end = min(begin, left - 1), min(end, left - 1)
    return begin, end


@st.composite
def split(draw: st.DrawFn) -> Case:
    """Equal or given pieces, of which some are read."""
    shape = list(draw(shapes(1, 3)))
    axis = draw(axis_of(len(shape)))
    sizes = draw(st.lists(st.integers(1, 3), min_size=1, max_size=4))
    given = draw(st.booleans())
    if not given:
        most, count = max(sizes), len(sizes)
        sizes = [most] * (count - 1) + [draw(st.integers(1, most))]
    shape[axis] = sum(sizes)
    used = tuple(sorted(draw(st.sets(st.integers(0, len(sizes) - 1), min_size=1))))
    attributes = {"axis": axis} if given else {"axis": axis, "num_outputs": len(sizes)}
    inputs = [tuple(shape), np.array(sizes)] if given else [tuple(shape)]
    fed = (1,) if given and draw(st.booleans()) else ()
    batched = () if axis % len(shape) == 0 else None
    options: dict[str, Any] = {"outputs": len(sizes), "used": used, "fed": fed, "batched": batched}
    return Case("Split", inputs, attributes, note=note(sizes=sizes, **attributes, used=used, fed=fed), **options)


@st.composite
def concat(draw: st.DrawFn) -> Case:
    """One to four pieces, each differentiated."""
    shape, pieces = draw(shapes(1, 4)), draw(per_axis(draw(st.integers(1, 4)), 1, 3))
    axis = draw(axis_of(len(shape)))
    parts = [tuple(size if i == axis % len(shape) else n for i, n in enumerate(shape)) for size in pieces]
    wrt = tuple(sorted(draw(st.sets(st.integers(0, len(parts) - 1), min_size=1))))
    batched = () if axis % len(shape) == 0 else None
    fed = tuple(i for i in range(len(parts)) if i not in wrt) if batched is None else ()
    return Case("Concat", parts, {"axis": axis}, wrt, note(axis=axis, wrt=wrt), batched=batched, fed=fed)


STRATEGIES: dict[str, st.SearchStrategy[Case]] = {
    "Slice": slice_(),
    "Gather": gather(),
    "GatherElements": gather_elements(),
    "GatherND": gather_nd(),
    "ScatterElements": scatter_elements(),
    "ScatterND": scatter_nd(),
    "Pad": pad(),
    "Split": split(),
    "Concat": concat(),
}
