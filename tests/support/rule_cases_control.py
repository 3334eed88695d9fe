"""Branches and scans that depend on the input: what they capture, carry, read and put out."""

from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper

from rule_harness import Case

STEPS, BATCH, SIZE = 5, 3, 4


def body(inputs: str, outputs: str, *nodes: str) -> onnx.GraphProto:
    """A branch or a body from lines such as `y = Mul(a, b)`, of no type, so that floats and doubles fit."""
    made = []
    for line in nodes:
        result, call = line.split(" = ")
        op_type, operands = call.rstrip(")").split("(")
        made.append(helper.make_node(op_type, operands.split(), result.split(), name=f"make_{result.split()[0]}"))
    infos = [[helper.make_value_info(name, onnx.TypeProto()) for name in names.split()] for names in (inputs, outputs)]
    for info in (info for part in infos for info in part):
        info.ClearField("type")
    return helper.make_graph(made, f"body_of_{outputs.split()[0]}", *infos)


THEN = body("", "t", "p = Tanh(input_1)", "t = Mul(p input_2)")
ELSE = body("", "e", "e = Sin(input_1)")
MANY = body("", "a b", "a = Mul(input_1 input_2)", "b = Exp(input_2)")
FEW = body("", "c d", "c = Identity(input_2)", "d = Mul(input_1 input_1)")


def inner_branch() -> onnx.GraphProto:
    """A branch in a branch."""
    graph = body("", "t", "q = Exp(input_1)", "t = Mul(r q)")
    graph.node.insert(1, helper.make_node("If", ["input_0"], ["r"], "inner", then_branch=THEN, else_branch=ELSE))
    return graph


def branch(then: onnx.GraphProto, other: onnx.GraphProto, taken: bool, note: str, **options: Any) -> Case:
    """A branch that a fed condition chooses, which captures inputs 1 and 2."""
    shape = (BATCH, SIZE)
    options = {"wrt": (1, 2), "fed": (0,), "captured": (1, 2), "batched": (1, 2), **options}
    attributes = {"then_branch": then, "else_branch": other}
    return Case("If", [np.array(taken), shape, shape], attributes, note=f"{note} {taken}".lower(), **options)


BRANCHES = [
    branch(THEN, ELSE, True, "", torch=lambda c, x, s: torch.tanh(x) * s),
    branch(THEN, ELSE, False, "", wrt=(1,), torch=lambda c, x, s: torch.sin(x)),
    branch(MANY, FEW, True, "two outputs", outputs=2, used=(0, 1)),
    branch(MANY, FEW, False, "two outputs", outputs=2, used=(0, 1)),
    branch(MANY, FEW, True, "the second output", outputs=2, used=(1,), wrt=(2,)),
    branch(inner_branch(), ELSE, True, "nested"),
]

CELL = body("h x", "n o", "s = Add(h x)", "n = Tanh(s)", "o = Mul(n x)")
WEIGHED = body("h x", "n o", "w = Mul(h input_2)", "s = Add(w x)", "n = Tanh(s)", "o = Mul(n x)")
TWO = body("h c x z", "n m o p", "a = Mul(h x)", "n = Sin(a)", "m = Add(c z)", "o = Mul(n m)", "p = Identity(h)")
MAP = body("x", "y", "e = Exp(x)", "y = Mul(e input_1)")
SUM = body("a x", "b", "b = Add(a x)")
LAST_ONLY = body("h x", "n o", "n = Identity(x)", "o = Identity(h)")

STATE, SEQUENCE = (BATCH, SIZE), (STEPS, BATCH, SIZE)


def cell_in_torch(h: torch.Tensor, xs: torch.Tensor, w: torch.Tensor | float = 1.0) -> torch.Tensor:
    put_out = []
    for x in xs:
        h = torch.tanh(h * w + x)
        put_out.append(h * x)
    return torch.cat([h.flatten(), torch.stack(put_out).flatten()])


def scan(held: onnx.GraphProto, inputs: list[Any], outputs: int, note: str, scanned: int = 1, **options: Any) -> Case:
    """A Scan whose scanned inputs, the last listed ones, have a free length in the harness's free form."""
    attributes = {"body": held, "num_scan_inputs": scanned}
    listed = len(inputs) - len(options.get("captured", ()))
    free = tuple(range(listed - scanned, listed))
    return Case(
        "Scan", inputs, attributes, note=note, outputs=outputs, batched=free, used=tuple(range(outputs)), **options
    )


SCANS = [
    scan(CELL, [STATE, SEQUENCE], 2, "a state and a sequence", wrt=(0, 1), torch=cell_in_torch),
    scan(CELL, [STATE, SEQUENCE], 2, "the sequence only", wrt=(1,), fed=(0,)),
    scan(WEIGHED, [STATE, SEQUENCE, STATE], 2, "captured", wrt=(0, 1, 2), captured=(2,)),
    scan(WEIGHED, [STATE, SEQUENCE, STATE], 2, "captured constant", wrt=(1,), fed=(0,), captured=(2,)),
    scan(WEIGHED, [STATE, SEQUENCE, STATE], 2, "captured only", wrt=(2,), fed=(0, 1), captured=(2,)),
    scan(TWO, [STATE, STATE, SEQUENCE, SEQUENCE], 4, "two of each", 2, wrt=(0, 1, 2, 3)),
    scan(MAP, [SEQUENCE, STATE], 1, "no state", wrt=(0, 1), captured=(1,)),
    scan(SUM, [STATE, SEQUENCE], 1, "nothing put out", wrt=(0, 1)),
    scan(LAST_ONLY, [STATE, SEQUENCE], 2, "handed on", wrt=(0, 1)),
    scan(CELL, [STATE, (1, BATCH, SIZE)], 2, "one step", wrt=(0, 1)),
]

CASES = [*BRANCHES, *SCANS]
