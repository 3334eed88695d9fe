"""Products of matrices and tensors."""

from typing import Any

import onnx_ir as ir

from onnxplain.errors import NoGradientError
from onnxplain_export.emitter import Dim, Emitter, attribute, dims, ranked_dims
from onnxplain_export.vjp.registry import Cotangents, vjp


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
    da = op.MatMul(g, _transposed(op, right, len(columns)))
    db = op.MatMul(_transposed(op, left, len(rows)), g)
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


def _transposed(op: Emitter, x: ir.Value | None, rank: int) -> ir.Value:
    """The matrices of `x` (a vector's one matrix) transposed."""
    rank = max(rank, 2)
    return op.Transpose(x, perm=[*range(rank - 2), rank - 1, rank - 2])


@vjp("Einsum")
def einsum(op: Emitter, node: ir.Node, g: Any) -> Cotangents:
    """Each operand gets the product of g and the other operands, summed over every index that isn't its own.

    An index that only this operand has was summed away: a vector of ones spreads g along it.
    """
    terms, result = _subscripts(node)
    answers = []
    for i, (x, term) in enumerate(zip(node.inputs, terms, strict=True)):
        operands = [g, *(other for j, other in enumerate(node.inputs) if j != i)]
        letters = [result, *(other for j, other in enumerate(terms) if j != i)]
        for axis, index in enumerate(term):
            if index not in "".join(letters):
                size = op.Shape(x, start=axis, end=axis + 1)
                operands, letters = [*operands, op.Expand(1.0, size)], [*letters, index]
        answers.append(op.Einsum(*operands, equation=f"{','.join(letters)}->{term}"))
    return answers


def _subscripts(node: ir.Node) -> tuple[list[str], str]:
    """The operands' indices and the result's, which default to those that occur once, in alphabetical order."""
    equation = str(attribute(node, "equation")).replace(" ", "")
    left, arrow, result = equation.partition("->")
    terms = left.split(",")
    if not arrow:
        result = "".join(sorted(index for index in set(left) - {","} if left.count(index) == 1))
    if "." in equation or any(len(set(term)) < len(term) for term in terms):
        raise NoGradientError(f"Einsum {equation!r} (node {node.name!r}): an ellipsis or a repeated index has no rule")
    return terms, result
