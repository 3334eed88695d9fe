"""Products of matrices and tensors."""

from string import ascii_letters
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxplain.errors import NoGradientError
from onnxplain_export.emitter import Dim, Emitter, attribute, dims, ranked_dims
from onnxplain_export.vjp.registry import Cotangents, vjp
from onnxplain_export.vjp.shape import transposed_from


@vjp("Gemm")
def gemm(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """d(α A'B' + β C) = α dA' B' + α A' dB' + β dC, where ' is the transposition that the attributes ask for."""
    a, b, c = (*node.inputs, None)[:3]
    turned_a, turned_b = attribute(node, "transA", 0), attribute(node, "transB", 0)
    alpha, beta = float(attribute(node, "alpha", 1.0)), float(attribute(node, "beta", 1.0))
    if turned_a:
        da = op.Gemm(b, g, alpha=alpha, transA=turned_b, transB=1)
    else:
        da = op.Gemm(g, b, alpha=alpha, transB=1 - turned_b)
    if turned_b:
        db = op.Gemm(g, a, alpha=alpha, transA=1, transB=turned_a)
    else:
        db = op.Gemm(a, g, alpha=alpha, transA=1 - turned_a)
    dc = op.sum_to(g if beta == 1.0 else op.Mul(g, beta), dims(node.outputs[0]), c) if op.wants(c) and c else None
    return [da, db, dc][: len(node.inputs)]


@vjp("MatMul")
def matmul(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """d(AB) = dA B + A dB: dA gets g Bᵀ, dB gets Aᵀ g, summed over broadcast axes; a vector is a row or a column."""
    a, b = node.inputs
    rows, columns = ranked_dims(node, a), ranked_dims(node, b)
    left = a if len(rows) > 1 else op.Unsqueeze(a, [0])
    right = b if len(columns) > 1 else op.Unsqueeze(b, [1])
    if len(rows) == 1:
        g = op.Unsqueeze(g, [-1 if len(columns) == 1 else -2])
    if len(columns) == 1:
        g = op.Unsqueeze(g, [-1])
    left_rank, right_rank = max(len(rows), 2), max(len(columns), 2)
    rank = max(left_rank, right_rank)
    if _is_turned(left):  # (B gᵀ)ᵀ: its own transposition then undoes this one
        da = turned(op, op.MatMul(right, turned(op, g, rank)), rank)
    else:
        da = op.MatMul(g, turned(op, right, right_rank))
    if _is_turned(right):
        db = turned(op, op.MatMul(turned(op, g, rank), left), rank)
    else:
        db = op.MatMul(turned(op, left, left_rank), g)
    if len(columns) == 1:
        db = op.Squeeze(db, [-1])
    return _summed(op, node, da, (1, *rows)[-2:], a), _summed(op, node, db, columns[-2:], b)


def _summed(op: Emitter, node: ir.Node, product: ir.Value, matrix: tuple[Dim, ...], x: ir.Value | None) -> Any:
    """A product of batches of matrices in the shape of `x`, whose own matrix has the given axes."""
    if x is None or not op.wants(x):
        return None
    out = dims(node.outputs[0])
    matrix_axes = sum(len(ranked_dims(node, operand)) > 1 for operand in node.inputs)
    return op.sum_to(product, None if out is None else (*out[: len(out) - matrix_axes], *matrix), x)


def turned(op: Emitter, x: Any, rank: int) -> ir.Value:
    """The matrices of `x` transposed: by no operator where `x` is itself a transposition of such matrices."""
    swap = [*range(rank - 2), rank - 1, rank - 2]
    source, order = transposed_from(x)
    turned_back: ir.Value = source if order == swap else op.Transpose(x, perm=swap)
    return turned_back


def _is_turned(x: Any) -> bool:
    """Whether the last axis of `x` was another one before a transposition."""
    order = transposed_from(x)[1]
    return order is not None and order[-1] != len(order) - 1


@vjp("Det")
def det(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """d det(X) = Σ c dX with the cofactors c: signed determinants of X without one row and column, singular or not."""
    x = node.inputs[0]
    shape = ranked_dims(node, x)
    rank, size = len(shape), shape[-1]
    if not isinstance(size, int) or size > 16:
        raise NoGradientError(f"Det (node {node.name!r}): matrices of known size up to 16 have a rule, not {shape}")
    spread = op.Unsqueeze(g, [-2, -1])
    if size == 1:
        return (spread,)
    others = op.constant([[i for i in range(size) if i != left_out] for left_out in range(size)], np.int64)
    minors = op.Gather(op.Gather(x, others, axis=rank - 2), others, axis=rank)  # [..., M, M - 1, M, M - 1]
    order = [*range(rank - 2), rank - 2, rank, rank - 1, rank + 1]
    signs = (-1.0) ** np.add.outer(np.arange(size), np.arange(size))
    cofactors = op.Mul(op.Det(op.Transpose(minors, perm=order)), op.floats(signs))
    return (op.Mul(spread, cofactors),)


@vjp("Einsum")
def einsum(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """Each operand gets the product of g and the other operands, summed over every index that isn't its own.

    An index that only this operand has was summed away: a vector of ones spreads g along it. One that it has twice
    named its diagonal: the identity puts the diagonal back.
    """
    terms, result = _subscripts(node)
    answers: list[ir.Value | None] = []
    for i, (x, term) in enumerate(zip(node.inputs, terms, strict=True)):
        if x is None or not op.wants(x):
            answers.append(None)
            continue
        operands = [g, *(other for j, other in enumerate(node.inputs) if j != i)]
        letters = [result, *(other for j, other in enumerate(terms) if j != i)]
        own = ""
        for axis, index in enumerate(term):
            if index in own:
                operands, letters = [*operands, _identity(op, node, x, axis)], [*letters, index + _fresh(terms, axis)]
                own += _fresh(terms, axis)
                continue
            own += index
            if index not in result and not _spans(node, terms, i, axis):
                size = op.Shape(x, start=axis, end=axis + 1)
                operands, letters = [op.Expand(1.0, size), *operands], [index, *letters]
        answer = op.Einsum(*operands, equation=f"{','.join(letters)}->{own}")
        answers.append(op.sum_to(answer, _broadcast_sizes(node, terms, term), x))
    return answers


def _subscripts(node: ir.Node) -> tuple[list[str], str]:
    """The operands' indices and the result's, by default those that occur once; `...` written as letters of its own."""
    equation = str(attribute(node, "equation")).replace(" ", "")
    left, arrow, result = equation.partition("->")
    terms = left.split(",")
    if not arrow:
        once = {index for index in left if left.count(index) == 1 and index not in ",."}
        result = ("..." if "..." in left else "") + "".join(sorted(once))
    spare = [letter for letter in ascii_letters if letter not in equation]
    widths = [
        len(ranked_dims(node, x)) - len(term) + 3 if "..." in term else 0
        for x, term in zip(node.inputs, terms, strict=True)
    ]
    dots = "".join(spare[: max(widths)])
    terms = [term.replace("...", dots[len(dots) - width :]) for term, width in zip(terms, widths, strict=True)]
    return terms, result.replace("...", dots)


def _fresh(terms: list[str], axis: int) -> str:
    """A letter of its own for one axis."""
    return [letter for letter in ascii_letters if letter not in "".join(terms)][axis]


def _spans(node: ir.Node, terms: list[str], i: int, axis: int) -> bool:
    """Whether another operand has the index of this axis, at the same known size."""
    sizes = [None if x is None else dims(x) for x in node.inputs]
    own = sizes[i]
    for j, (known, term) in enumerate(zip(sizes, terms, strict=True)):
        if j == i or not own or not known or own[axis] is None or terms[i][axis] not in term:
            continue
        if known[term.index(terms[i][axis])] == own[axis]:
            return True
    return False


def _identity(op: Emitter, node: ir.Node, x: ir.Value, axis: int) -> ir.Value:
    size = ranked_dims(node, x)[axis]
    if not isinstance(size, int):
        raise NoGradientError(f"Einsum (node {node.name!r}) reads a diagonal of unknown size")
    return op.floats(np.eye(size))


def _broadcast_sizes(node: ir.Node, terms: list[str], term: str) -> tuple[Dim, ...] | None:
    """The sizes that the indices of one operand have in the product: axes of size 1 are repeated."""
    sizes: dict[str, Dim] = {}
    for x, indices in zip(node.inputs, terms, strict=True):
        known = dims(x) if x is not None else None
        if known is None:
            return None
        for index, size in zip(indices, known, strict=True):
            if sizes.get(index, 1) == 1:
                sizes[index] = size
    return tuple(sizes[index] for index in term)
