"""Derivative rules, one small function per operator, grouped by family.

To add an operator: write its function in the family's file, and cases in `tests/support/rule_cases_*.py`.
"""

from onnxplain_export.vjp import (  # noqa: F401 (imported for the rules that they register)
    activation,
    control,
    convolution,
    deformable,
    elementwise,
    indexing,
    linear,
    normalization,
    pooling,
    quantized,
    recurrent,
    reduction,
    refused,
    resampling,
    sampling,
    scatter,
    shape,
    spectral,
    trigonometric,
)
from onnxplain_export.vjp.registry import (
    NO_GRADIENT,
    STANDARD,
    Cotangents,
    Rule,
    RuleTable,
    no_gradient,
    operator_name,
    vjp,
)

__all__ = ["NO_GRADIENT", "STANDARD", "Cotangents", "Rule", "RuleTable", "no_gradient", "operator_name", "vjp"]
