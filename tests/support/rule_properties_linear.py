"""Random products, reductions and normalisations."""

from typing import Any

import numpy as np
import torch
from hypothesis import assume
from hypothesis import strategies as st

from rule_drawing import Shape, away_from_zero, axes_of, axis_of, note, shapes
from rule_harness import Case

REDUCTIONS = ("Sum", "Mean", "Max", "Min", "Prod", "L1", "L2", "SumSquare", "LogSum", "LogSumExp")


@st.composite
def _broadcast_to(draw: st.DrawFn, whole: Shape) -> Shape:
    """A shape that broadcasts to the whole one: leading axes left out, others 1."""
    rest = whole[draw(st.integers(0, len(whole))) :]
    return tuple(1 if draw(st.integers(0, 2)) == 0 else n for n in rest)


@st.composite
def matmul(draw: st.DrawFn) -> Case:
    """Vectors, matrices and batches of them that broadcast either way."""
    rows, inner, columns = (draw(st.integers(1, 3)) for _ in range(3))
    whole = draw(shapes(0, 2, largest=3))
    kind = draw(st.sampled_from(["batches", "batches", "batches", "row", "column", "vectors"]))
    a, b = (*draw(_broadcast_to(whole)), rows, inner), (*draw(_broadcast_to(whole)), inner, columns)
    if kind in ("row", "vectors"):
        a = (inner,)
    if kind in ("column", "vectors"):
        b = (inner,)
    wrt = draw(st.sampled_from([(0,), (1,), (0, 1)]))
    fed = tuple(i for i in (0, 1) if i not in wrt) if draw(st.booleans()) else ()
    return Case("MatMul", [a, b], {}, wrt, note(wrt=wrt, fed=fed), torch.matmul, fed=fed, batched=())


@st.composite
def gemm(draw: st.DrawFn) -> Case:
    """Any transpositions, factors and shape of the third operand."""
    m, k, n = (draw(st.integers(1, 4)) for _ in range(3))
    attributes: dict[str, Any] = {}
    for name in ("transA", "transB"):
        if draw(st.booleans()):
            attributes[name] = draw(st.integers(0, 1))
    for name in ("alpha", "beta"):
        if draw(st.booleans()):
            attributes[name] = draw(st.sampled_from([0.5, -1.25, 2.0]))
    arrays: list[Any] = [(k, m) if attributes.get("transA") else (m, k), (n, k) if attributes.get("transB") else (k, n)]
    if draw(st.booleans()):
        arrays.append(draw(_broadcast_to((m, n))))
    wrt = tuple(sorted(draw(st.sets(st.integers(0, len(arrays) - 1), min_size=1))))
    fed = tuple(i for i in range(len(arrays)) if i not in wrt) if draw(st.booleans()) else ()
    return Case("Gemm", arrays, attributes, wrt, note(wrt=wrt, fed=fed, **attributes), fed=fed, batched=())


@st.composite
def _term(draw: st.DrawFn, letters: str, dots: bool) -> str:
    """One operand's indices: different ones, perhaps one twice, perhaps an ellipsis anywhere."""
    indices = list(draw(st.permutations(letters)))[: draw(st.integers(0 if dots else 1, 3))]
    if indices and len(indices) < 3 and draw(st.integers(0, 4)) == 0:
        indices.insert(draw(st.integers(0, len(indices))), draw(st.sampled_from(indices)))
    if dots:
        indices.insert(draw(st.integers(0, len(indices))), "...")
    return "".join(indices)


@st.composite
def einsum(draw: st.DrawFn) -> Case:
    """One to three operands; indices summed, kept, repeated or of one operand only; an ellipsis that broadcasts."""
    letters = draw(st.sampled_from(["abcd", "bdAZ", "zyix"]))
    sizes = {letter: draw(st.integers(2, 3)) for letter in letters}
    whole = draw(shapes(0, 2, largest=2))
    with_dots = draw(st.lists(st.booleans(), min_size=1, max_size=3))
    terms = [draw(_term(letters, dots)) for dots in with_dots]
    arrays = [_einsum_shape(term, sizes, tuple(draw(st.sampled_from([1, n])) for n in whole)) for term in terms]
    used = sorted(set("".join(terms)) - {"."})
    equation = ",".join(terms)
    arrow = any(with_dots) or letters == "bdAZ"  # which onnxruntime 1.31 wants beside an ellipsis and a capital
    if arrow or draw(st.integers(0, 3)):
        kept = list(draw(st.permutations(used)))[: draw(st.integers(0, len(used)))]
        if any(with_dots):
            kept.insert(draw(st.integers(0, len(kept))), "...")
        equation += "->" + "".join(kept)
    if draw(st.booleans()):
        equation = equation.replace(",", " , ").replace("->", " -> ")
    assume(np.prod([float(sizes[letter]) for letter in used]) * np.prod(whole) <= 600)
    wrt = tuple(sorted(draw(st.sets(st.integers(0, len(arrays) - 1), min_size=1))))
    described = note(equation=equation, wrt=wrt)
    return Case("Einsum", arrays, {"equation": equation}, wrt, described, batched=())


def _einsum_shape(term: str, sizes: dict[str, int], dots: Shape) -> Shape:
    before, found, after = term.partition("...")
    middle = dots if found else ()
    return (*(sizes[letter] for letter in before), *middle, *(sizes[letter] for letter in after))


@st.composite
def reduction(draw: st.DrawFn, name: str) -> Case:
    """Over some axes, all, or none."""
    shape = draw(shapes(1, 4, largest=3))
    attributes: dict[str, int] = {}
    if draw(st.booleans()):
        attributes["keepdims"] = draw(st.integers(0, 1))
    given = draw(st.sampled_from(["some", "some", "some", "some", "left out", "empty"]))
    if given != "some" and draw(st.booleans()):
        attributes["noop_with_empty_axes"] = draw(st.integers(0, 1))
    axes = draw(axes_of(len(shape))) if given == "some" else []
    seed = draw(st.integers(0, 99))
    x = away_from_zero(shape, seed)
    if name == "LogSum":
        x = np.abs(x)
    fed = (1,) if given == "some" and draw(st.integers(0, 3)) == 0 else ()
    inputs = [x] if given == "left out" else [x, np.array(axes, np.int64)]
    described = note(axes=axes, given=given, fed=fed, seed=seed, **attributes)
    return Case(f"Reduce{name}", inputs, attributes, note=described, fed=fed)


@st.composite
def softmax(draw: st.DrawFn, op_type: str) -> Case:
    """Along any axis of size 2 or more."""
    shape = draw(shapes(1, 4, smallest=2))
    attributes = {"axis": draw(axis_of(len(shape)))} if draw(st.booleans()) else {}
    return Case(op_type, [shape], attributes, note=note(**attributes))


@st.composite
def layer_normalization(draw: st.DrawFn) -> Case:
    """Over the last axes, from any one on, of 3 entries or more, since two become ±1."""
    shape = draw(shapes(1, 4, largest=3))
    axis = draw(axis_of(len(shape)))
    own = shape[axis % len(shape) :]
    assume(np.prod(own) >= 3)
    inputs = [shape, own, own][: draw(st.integers(2, 3))]
    attributes: dict[str, Any] = {"axis": axis}
    if draw(st.booleans()):
        attributes["epsilon"] = draw(st.sampled_from([0.5, 0.125]))
    wrt = tuple(sorted(draw(st.sets(st.integers(0, len(inputs) - 1), min_size=1))))
    fed = tuple(i for i in range(len(inputs)) if i not in wrt) if draw(st.booleans()) else ()
    batched = (0,) if axis % len(shape) and 0 in (*wrt, *fed) else ()
    described = note(wrt=wrt, fed=fed, **attributes)
    return Case("LayerNormalization", inputs, attributes, wrt, described, fed=fed, batched=batched)


STRATEGIES: dict[str, st.SearchStrategy[Case]] = {
    "MatMul": matmul(),
    "Gemm": gemm(),
    "Einsum": einsum(),
    **{f"Reduce{name}": reduction(name) for name in REDUCTIONS},
    "Softmax": softmax("Softmax"),
    "LogSoftmax": softmax("LogSoftmax"),
    "LayerNormalization": layer_normalization(),
}
