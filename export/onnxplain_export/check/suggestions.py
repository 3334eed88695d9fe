"""What to do about an operator or an error that stands between a model and its gradient, in one table."""

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

import onnx_ir as ir

from onnxplain_export.normalize.machine_learning import LOWERINGS
from onnxplain_export.vjp.registry import MARK, NO_GRADIENT, REFUSED, STANDARD, operator_name


class Suggestion(NamedTuple):
    """Operators by name or pattern, why they stop a gradient, and what to do about it."""

    operators: tuple[str, ...]
    why: str
    advice: str


BEFORE = "explain a value before it"
"""Where this is said, the names of such values are put behind it."""
PERTURB = "explain by perturbation (pictures: export with --methods occlusion)"

OPERATORS = (
    Suggestion(
        ("ai.onnx.ml::TreeEnsemble*",),
        "a tree is constant between its thresholds: its gradient is zero",
        f"{PERTURB}; features: replace some and compare the scores",
    ),
    Suggestion(
        ("ai.onnx.ml::LabelEncoder", "ai.onnx.ml::CategoryMapper", "ai.onnx.ml::OneHotEncoder", "ai.onnx.ml::Dict*"),
        "it takes categories, which don't change little by little",
        "export the model behind the encoding, or explain there: --wrt with what this node puts out",
    ),
    Suggestion(
        ("com.microsoft::Q*", "com.microsoft::*Quantize*", "com.microsoft::*Integer*"),
        "it computes with integers",
        "export the float model, or quantise it in QDQ format and export with --quantized straight-through",
    ),
    Suggestion(
        ("com.microsoft::*", "com.microsoft.*::*", "ai.onnx.contrib::*"),
        "it is an operator of onnxruntime's own, put there by its optimiser or an extension",
        "export the model as it was before: without onnxruntime's optimisation, fusion or extensions",
    ),
    Suggestion(
        ("org.pytorch.aten::*", "aten::*", "prim::*"),
        "it is an operator of torch's that has no ONNX form",
        "export with torch.onnx.export(..., dynamo=True), or replace it in the model",
    ),
    Suggestion(("ArgMax", "ArgMin", "Hardmax"), "it answers with a place, which jumps", BEFORE),
    Suggestion(
        ("NonMaxSuppression", "TopK", "NonZero", "Unique", "Compress"),
        "what it picks, and how much, depends on the data",
        BEFORE,
    ),
    Suggestion(
        ("If", "Scan"),
        "its body can't be differentiated",
        f"export the model for a fixed number of steps (they are unrolled), or {BEFORE}",
    ),
    Suggestion(
        ("String*", "TfIdfVectorizer", "RegexFullMatch", "ImageDecoder"),
        "it takes text or bytes",
        "export the model behind it: from numbers to scores",
    ),
    Suggestion(
        ("Random*", "Bernoulli", "Multinomial"),
        "it draws at random",
        f"export the model in evaluation mode, or {BEFORE}",
    ),
    Suggestion(
        ("Round", "Floor", "Ceil", "Sign", "BitShift", "Bitwise*", "And", "Or", "Xor", "Not", "ai.onnx.ml::Binarizer"),
        "it is constant between its steps: its gradient is zero",
        f"leave it out at export, or {PERTURB}",
    ),
    Suggestion(
        ("Equal", "Greater*", "Less*", "Is*"),
        "a comparison jumps: its gradient is zero",
        f"{BEFORE}, or {PERTURB}",
    ),
    Suggestion(
        ("*::*",),
        "it is no standard ONNX operator",
        "export the model with standard operators, or replace it",
    ),
)
"""The first that fits counts."""

REST = Suggestion(("*",), "it has no derivative rule", f"replace it, add a rule in onnxplain_export/vjp/, or {PERTURB}")
TELLING = frozenset(
    {
        "ArgMax",
        "NonMaxSuppression",
        "ai.onnx.ml::TreeEnsemble",
        "ai.onnx.ml::TreeEnsembleClassifier",
        "ai.onnx.ml::TreeEnsembleRegressor",
    }
)
"""Of the operators without a gradient, those that seldom lie beside the way."""
STOPPERS = REST._replace(why="it passes no gradient", advice=f"{BEFORE}, or {PERTURB}")

ERRORS: Sequence[tuple[str, str]] = (
    (
        "computes with the integers",
        "explain at a float value behind the integers, such as an embedding: --wrt {embeddings}",
    ),
    ("no output looks like", "name what is explained, an output or a value inside: --score-output NAME"),
    ("is no standard ONNX operator", "export the model as it was before onnxruntime optimised it"),
    (r"opset \d+; opsets", "convert it with onnx.version_converter.convert_version, or export it again"),
    ("training mode", "export again in evaluation mode (torch: module.eval())"),
    ("rank.*unknown|declares no shape|isn't known at export", "export with fixed sizes on all axes but the batch's"),
)
"""By a pattern in the text of an error that normalisation raises; {embeddings} are those of the model."""


def suggestion(node: ir.Node) -> Suggestion:
    """Why a node stops the gradient and what to do, without names of values."""
    name = "QuantizeLinear" if MARK in node.metadata_props else operator_name(node)
    if name in REFUSED:
        why, *advice = re.split("[;:] ", REFUSED[name], maxsplit=1)
        return Suggestion((name,), why, *advice or [REST.advice])
    for entry in OPERATORS:
        if any(fnmatchcase(name, pattern) for pattern in entry.operators):
            return entry
    return STOPPERS if name in NO_GRADIENT else REST


def advice_on(node: ir.Node, values: Sequence[str] = ()) -> str:
    """What to do about a node; `values` are names to choose from where a value before it can be explained."""
    named = f"{BEFORE}: --score-output {' or '.join(values)}" if values else BEFORE
    return suggestion(node).advice.replace(BEFORE, named)


def is_known_obstacle(node: ir.Node) -> bool:
    """Whether a node stops gradients wherever it lies on the way, as far as its operator tells."""
    name = operator_name(node)
    rewritten = node.domain == "ai.onnx.ml" and node.op_type in LOWERINGS and name not in TELLING
    if rewritten or name in STANDARD or (name in NO_GRADIENT and name not in TELLING):
        return False
    return name in REFUSED or any(fnmatchcase(name, p) for entry in OPERATORS for p in entry.operators)


def advice_on_error(text: str, embeddings: Sequence[str] = ()) -> str | None:
    """What to do about an error of normalisation, None where it says so itself."""
    for pattern, advice in ERRORS:
        if re.search(pattern, text):
            return advice.replace("{embeddings}", " or ".join(embeddings) or "NAME")
    return None
