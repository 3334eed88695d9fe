"""How a layer hands the relevance of its outputs on to its inputs: one function per rule of the literature.

A layer computes y_j = Σ_i c_ij + b_j of contributions c_ij = x_i w_ij. Every rule is R_i = Σ_j s_j · (some c_ij) with
s_j = R_j over the sum of those, so that what a neuron has is what its inputs get, but for the bias' share. Weights are
taken apart by operators: the file holds one copy of each, and other weights can be put in.

Bach et al. 2015 (doi:10.1371/journal.pone.0130140): ε, αβ, z. Montavon et al. 2019, "Layer-Wise Relevance Propagation:
An Overview" (doi:10.1007/978-3-030-28954-6_10): γ, the box rule z^B, composites. Lapuschkin et al. 2019
(arXiv:1902.10178): flat.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import onnx_ir as ir

from onnxplain.errors import NoGradientError
from onnxplain_export.autodiff import describe
from onnxplain_export.emitter import Emitter, attribute, dims
from onnxplain_export.tables.structure import adjoint, bias_of, is_never_negative, put_through, twin, wanted

TINY = 1e-20
"""Sums of contributions of one sign below this are none at all: nothing can be handed on along them."""

Parameters = Mapping[str, ir.Value]
"""The graph's inputs that choose a rule's numbers: epsilon, gamma, alpha [1]; low, high [1, …]."""


@dataclass
class Ledger:
    """What relevance stays behind, entry by entry, on the way to the image: the values' sums over each row's entries.

    Every rule enters what it doesn't hand on, by the forward sums, so that a graph that gives out their total can be
    proved: what arrives and what stays behind is what set out.
    """

    entries: list[ir.Value] = field(default_factory=list)

    def add(self, op: Emitter, kept: ir.Value, shape: ir.Value) -> None:
        """Enters `kept`, which has the shape of `shape`."""
        axes = list(range(1, len(dims(shape) or ())))
        self.entries.append(op.ReduceSum(kept, axes, keepdims=0) if axes else kept)


@dataclass
class Layer:
    """A node with a weight, the input through which relevance goes on, and the relevance of its outputs."""

    op: Emitter
    node: ir.Node
    relevance: ir.Value
    parameters: Parameters
    ledger: Ledger

    def __post_init__(self) -> None:
        found = wanted(self.op, self.node)
        if len(found) != 1 or found[0] > 1:
            raise NoGradientError(
                f"relevance isn't defined for {describe(self.node)}: it multiplies two numbers that depend on the "
                "image (attention, or weights that the network computes)"
            )
        self.data = found[0]

    @property
    def x(self) -> ir.Value:
        """The layer's input."""
        return self.node.inputs[self.data]  # type: ignore[return-value]  # it is among the wanted

    @cached_property
    def weight(self) -> ir.Value:
        """The weight as it multiplies x: with Gemm's alpha in it."""
        weight = self.node.inputs[1 - self.data]
        if weight is None:
            raise NoGradientError(f"{describe(self.node)} has no weight")
        scale = float(attribute(self.node, "alpha", 1.0))
        return weight if scale == 1.0 else self.op.Mul(weight, scale)

    @cached_property
    def _bias_and_output(self) -> tuple[ir.Value | None, ir.Value]:
        return bias_of(self.op, self.node)

    @property
    def bias(self) -> ir.Value | None:
        """The bias as it is added to the output."""
        return self._bias_and_output[0]

    @property
    def y(self) -> ir.Value:
        """The output with the bias."""
        return self._bias_and_output[1]

    @property
    def contributions(self) -> ir.Value:
        """Σ_i c_ij, the output without the bias."""
        return self.y if self.bias is None else self.op.Sub(self.y, self.bias)

    def forward(self, x: ir.Value, weight: ir.Value, batch: int | None = None) -> ir.Value:
        """Σ_i x_i w_ij for another input (`batch` images, where not as many as the rows) and another weight."""
        return self._twin({self.data: x, 1 - self.data: weight}, batch).outputs[0]

    def backward(self, weight: ir.Value, s: ir.Value) -> ir.Value:
        """Σ_j w_ij s_j for another weight."""
        return adjoint(self.op, self._twin({1 - self.data: weight}), self.data, s)

    def positive(self, value: ir.Value) -> ir.Value:
        """max(value, 0)."""
        return self.op.Max(value, 0.0)

    def negative(self, value: ir.Value) -> ir.Value:
        """min(value, 0)."""
        return self.op.Min(value, 0.0)

    def parts(self, sign: int) -> list[tuple[ir.Value, Callable[[], ir.Value]]]:
        """The pairs (part of x, part of w) whose products are the contributions of that sign."""
        same, other = (self.positive, self.negative) if sign > 0 else (self.negative, self.positive)
        if is_never_negative(self.x):
            return [(self.x, lambda: same(self.weight))]
        return [
            (self.positive(self.x), lambda: same(self.weight)),
            (self.negative(self.x), lambda: other(self.weight)),
        ]

    def total(self, sign: int) -> ir.Value:
        """Σ_i of the contributions of one sign."""
        first, *rest = [self.forward(x, weight()) for x, weight in self.parts(sign)]
        return self.op.Add(first, rest[0]) if rest else first

    def along(self, sign: int, s: ir.Value) -> ir.Value:
        """Σ_j s_j · (the contributions of one sign)."""
        first, *rest = [self.op.Mul(x, self.backward(weight(), s)) for x, weight in self.parts(sign)]
        return self.op.Add(first, rest[0]) if rest else first

    def bias_part(self, sign: int) -> ir.Value | None:
        """The bias where it has that sign, else 0; None where there is none."""
        if self.bias is None:
            return None
        return self.positive(self.bias) if sign > 0 else self.negative(self.bias)

    def handed_on(self, *shares: ir.Value) -> None:
        """Enters in the ledger what `shares`, what goes on of each output's relevance, leave behind."""
        kept = self.relevance
        for share in shares:
            kept = self.op.Sub(kept, share)
        self.ledger.add(self.op, kept, self.node.outputs[0])

    def _twin(self, operands: Mapping[int, ir.Value], batch: int | None = None) -> ir.Node:
        neutral = {"alpha": 1.0} if "alpha" in self.node.attributes else {}
        without_bias: dict[int, ir.Value | None] = {2: None} if len(self.node.inputs) > 2 else {}
        return twin(self.op, self.node, {**without_bias, **operands}, batch, **neutral)


LayerRule = Callable[[Layer], ir.Value]
"""The relevance of a layer's input."""


def epsilon(layer: Layer) -> ir.Value:
    """R_i = Σ_j c_ij / (y_j + ε·sign y_j) R_j: what ε and the bias weigh stays behind (Bach et al. 2015, eq. 58)."""
    op = layer.op
    s = op.Div(layer.relevance, stabilised(op, layer.y, layer.parameters))
    layer.handed_on(op.Mul(s, layer.contributions))
    return op.Mul(layer.x, layer.backward(layer.weight, s))


def positive_only(layer: Layer) -> ir.Value:
    """z⁺, or α1β0: R_i = Σ_j c⁺_ij / (Σ_i c⁺_ij + b⁺_j) R_j."""
    s, total = _signed_share(layer, 1, layer.relevance)
    layer.handed_on(layer.op.Mul(s, total))
    return layer.along(1, s)


def alpha_beta(layer: Layer) -> ir.Value:
    """R_i = Σ_j (α c⁺_ij / (Σ_i c⁺_ij + b⁺_j) − β c⁻_ij / (Σ_i c⁻_ij + b⁻_j)) R_j, α − β = 1.

    Bach et al. 2015, eq. 60. A neuron that has contributions of one sign only can hand on but that part.
    """
    op, alpha = layer.op, layer.parameters["alpha"]
    ahead, positive = _signed_share(layer, 1, op.Mul(layer.relevance, alpha))
    behind, negative = _signed_share(layer, -1, op.Mul(layer.relevance, op.Sub(1.0, alpha)))
    layer.handed_on(op.Mul(ahead, positive), op.Mul(behind, negative))
    return op.Add(layer.along(1, ahead), layer.along(-1, behind))


def gamma(layer: Layer) -> ir.Value:
    """R_i = Σ_j (c_ij + γ c⁺_ij) / (y_j + γ (Σ_i c⁺_ij + b⁺_j)) R_j where y_j ≥ 0; elsewhere with c⁻ and b⁻.

    Montavon et al. 2019 define it for ReLU networks, where y_j < 0 has no relevance and x ≥ 0 makes it w + γ w⁺. A sum
    of two branches can give relevance to a negative y_j, whose denominator must not cross 0.
    """
    op, factor = layer.op, layer.parameters["gamma"]
    below = op.Less(layer.y, 0.0)
    positive = layer.total(1)
    negative = op.Sub(layer.contributions, positive)
    emphasis = op.Where(below, _plus(op, negative, layer.bias_part(-1)), _plus(op, positive, layer.bias_part(1)))
    s = divided(op, layer.relevance, op.Add(layer.y, op.Mul(factor, emphasis)))
    emphasised = op.Mul(factor, op.Where(below, negative, positive))
    layer.handed_on(op.Mul(s, op.Add(layer.contributions, emphasised)))
    stressed = op.Mul(s, factor)
    plain = op.Mul(layer.x, layer.backward(layer.weight, s))
    ahead = layer.along(1, op.Where(below, 0.0, stressed))
    return op.Sum(plain, ahead, layer.along(-1, op.Where(below, stressed, 0.0)))


def flat(layer: Layer) -> ir.Value:
    """R_i = Σ_j R_j / (number of inputs that y_j reads), whatever they and their weights are."""
    op = layer.op
    ones = op.expand_like(op.floats(1.0), layer.weight)
    number = layer.forward(op.expand_like(op.floats(1.0), layer.x), ones)
    s = divided(op, layer.relevance, number)
    layer.handed_on(op.Mul(s, number))
    return layer.backward(ones, s)


def box(layer: Layer) -> ir.Value:
    """z^B: contributions are x_i w_ij − l_i w⁺_ij − h_i w⁻_ij for inputs between l and h; the bias takes no part.

    `low` and `high` bound the explained value; what lies between it and the layer (a normalisation) moves them along.
    """
    op = layer.op
    known = [axis if isinstance(axis, int) else 1 for axis in (dims(layer.x) or ())[1:]]
    ends = [put_through(op, layer.x, _wide(op, layer, name)) for name in ("low", "high")]
    low, high = [op.Expand(end, [1, *known]) for end in (op.Min(*ends), op.Max(*ends))]
    for end in (low, high):
        end.shape, end.type = ir.Shape([1, *known]), layer.x.type
    base = op.Add(
        layer.forward(low, layer.positive(layer.weight), 1), layer.forward(high, layer.negative(layer.weight), 1)
    )
    total = op.Sub(layer.contributions, base)
    s = divided(op, layer.relevance, total)
    layer.handed_on(op.Mul(s, total))
    ends_part = op.Add(
        op.Mul(low, layer.backward(layer.positive(layer.weight), s)),
        op.Mul(high, layer.backward(layer.negative(layer.weight), s)),
    )
    return op.Sub(op.Mul(layer.x, layer.backward(layer.weight, s)), ends_part)


def stabilised(op: Emitter, y: ir.Value, parameters: Parameters) -> ir.Value:
    """y + ε·sign y, the sign of 0 being +."""
    width = parameters["epsilon"]
    return op.Add(y, op.Where(op.Less(y, 0.0), op.Neg(width), width))


def divided(op: Emitter, relevance: ir.Value, total: ir.Value) -> ir.Value:
    """relevance / total, 0 where no contribution is left to divide among."""
    return op.Where(op.Less(op.Abs(total), TINY), 0.0, op.Div(relevance, total))


def _signed_share(layer: Layer, sign: int, relevance: ir.Value) -> tuple[ir.Value, ir.Value]:
    """R_j / (Σ_i c_ij + b_j) of the contributions of one sign, and their Σ_i without the bias."""
    total = layer.total(sign)
    return divided(layer.op, relevance, _plus(layer.op, total, layer.bias_part(sign))), total


def _plus(op: Emitter, value: ir.Value, bias: ir.Value | None) -> ir.Value:
    return value if bias is None else op.Add(value, bias)


def _wide(op: Emitter, layer: Layer, name: str) -> ir.Value:
    """A bound in the full shape of the explained value [1, …]."""
    value = layer.x
    while (maker := value.producer()) is not None and any(op.wants(source) for source in maker.inputs):
        value = next(source for source in maker.inputs if source is not None and op.wants(source))
    known = [axis if isinstance(axis, int) else 1 for axis in (dims(value) or ())[1:]]
    wide: ir.Value = op.Expand(layer.parameters[name], [1, *known])
    wide.shape, wide.type = ir.Shape([1, *known]), value.type
    return wide
