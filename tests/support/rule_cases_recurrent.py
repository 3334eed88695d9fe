"""Uses of the recurrent layers: directions, lengths, states, activations, and every optional input and output."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from rule_harness import Case

TIME, SAMPLES, SIZE, HIDDEN = 4, 3, 2, 5
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
TORCH_ORDER = {"RNN": [0], "GRU": [1, 0, 2], "LSTM": [0, 2, 3, 1]}
"""torch's gates r, z, n and i, f, g, o among ONNX's z, r, h and i, o, f, c."""
LENGTHS = np.array([4, 1, 3], np.int32)
STATES = {"RNN": (5,), "GRU": (5,), "LSTM": (5, 6)}
WEIGHTS = (1, 2, 3)
SLACK = 1e-6
"""Where attributes that are float32 take part."""


def in_torch(op_type: str, directions: int) -> Callable[..., torch.Tensor]:
    """The layer as torch computes it, its outputs joined in one vector."""

    def function(x, w, r, b, _, h, c=None, *_peepholes):
        gates = GATES[op_type]
        flat = []
        for d in range(directions):
            for weight in (w[d], r[d], *b[d].chunk(2)):
                flat.append(torch.cat([weight.chunk(gates)[gate] for gate in TORCH_ORDER[op_type]]))
        layer = {"RNN": torch._VF.rnn_tanh, "GRU": torch._VF.gru, "LSTM": torch._VF.lstm}[op_type]
        state = (h, c) if op_type == "LSTM" else h
        y, *final = layer(x, state, flat, True, 1, 0.0, False, directions == 2, False)
        y = y.unflatten(2, (directions, HIDDEN)).transpose(1, 2)
        return torch.cat([part.flatten() for part in (y, *final)])

    return function


def layer(
    op_type: str,
    note: str,
    *,
    time: int = TIME,
    bias: bool = True,
    states: bool = True,
    lengths: np.ndarray | None = None,
    peepholes: bool = False,
    wrt: Sequence[int] | None = None,
    used: Sequence[int] | None = None,
    torch: bool = False,
    tolerance: float = 1e-7,
    **attributes: Any,
) -> Case:
    """A layer differentiated by default with respect to its input and its first states, through all its outputs."""
    directions = 2 if attributes.get("direction") == "bidirectional" else 1
    rows = GATES[op_type] * HIDDEN
    state = (directions, SAMPLES, HIDDEN) if states else None
    inputs = [(time, SAMPLES, SIZE), (directions, rows, SIZE), (directions, rows, HIDDEN)]
    inputs += [(directions, 2 * rows) if bias else None, lengths, state]
    if op_type == "LSTM":
        inputs += [state, (directions, 3 * HIDDEN) if peepholes else None]
    if op_type == "GRU" and torch:
        attributes["linear_before_reset"] = 1
    differentiable = (0, *STATES[op_type]) if states else (0,)
    outputs = 3 if op_type == "LSTM" else 2
    fed = (4,) if lengths is not None else ()
    return Case(
        op_type,
        inputs,
        {"hidden_size": HIDDEN, **attributes},
        differentiable if wrt is None else wrt,
        note,
        in_torch(op_type, directions) if torch else None,
        fed=fed,
        batched=(0,),
        outputs=outputs,
        used=tuple(range(outputs)) if used is None else used,
        low=-1.0,
        high=1.0,
        tolerance=tolerance,
    )


def shared(op_type: str) -> list[Case]:
    """What all three layers have."""
    last = len(STATES[op_type])
    return [
        layer(op_type, "forward", torch=True),
        layer(op_type, "bidirectional", direction="bidirectional", torch=True),
        layer(op_type, "reverse", direction="reverse"),
        layer(op_type, "bare", bias=False, states=False, used=(0,)),
        layer(op_type, "the last state only", states=False, used=(1,)),
        layer(op_type, "the last state only, reverse", used=(last,), direction="reverse"),
        layer(op_type, "one step", time=1, direction="bidirectional"),
        layer(op_type, "weights", wrt=(0, *WEIGHTS), torch=True),
        layer(op_type, "weights, bidirectional", wrt=WEIGHTS, direction="bidirectional", torch=True),
        layer(op_type, "lengths", lengths=LENGTHS),
        layer(op_type, "lengths, both ways", lengths=LENGTHS, direction="bidirectional", wrt=(0, 5, *WEIGHTS)),
        layer(op_type, "an empty sequence", lengths=np.array([4, 0, 2], np.int32), direction="bidirectional"),
    ]


def activated(op_type: str, *names: str, note: str = "", **attributes: Any) -> Case:
    numbers = {f"activation_{name}": value for name, value in attributes.items() if name in ("alpha", "beta")}
    others = {name: value for name, value in attributes.items() if name not in ("alpha", "beta")}
    return layer(op_type, " ".join(names) + note, activations=list(names), tolerance=SLACK, **numbers, **others)


RNNS = [
    *shared("RNN"),
    layer("RNN", "clip", clip=0.75, tolerance=SLACK),
    activated("RNN", "Relu"),
    activated("RNN", "Sigmoid"),
    activated("RNN", "Softsign"),
    activated("RNN", "Softplus"),
    activated("RNN", "Elu", alpha=[0.5]),
    activated("RNN", "LeakyRelu"),
    activated("RNN", "LeakyRelu", alpha=[0.3], note=" 0.3"),
    activated("RNN", "HardSigmoid"),
    activated("RNN", "HardSigmoid", alpha=[0.3], beta=[0.4], note=" 0.3 0.4"),
    activated("RNN", "Affine", alpha=[0.5], beta=[0.2]),
    activated("RNN", "Elu"),
    activated("RNN", "ScaledTanh", alpha=[1.5], beta=[0.6]),
    activated("RNN", "LeakyRelu", "Tanh", alpha=[0.2], direction="bidirectional"),
    activated("RNN", "Affine", alpha=[0.5], beta=[0.2], lengths=LENGTHS, note=" lengths"),
]

GRUS = [
    *shared("GRU"),
    layer("GRU", "linear before reset", linear_before_reset=1, direction="reverse"),
    layer("GRU", "linear before reset, lengths", linear_before_reset=1, lengths=LENGTHS, direction="bidirectional"),
    layer("GRU", "reset before linear, weights", wrt=(0, *WEIGHTS)),
    layer("GRU", "linear before reset, without bias", linear_before_reset=1, bias=False),
    layer("GRU", "reset before linear, without bias", bias=False),
    layer("GRU", "clip", clip=0.75, tolerance=SLACK),
    activated("GRU", "HardSigmoid", "Relu"),
    activated("GRU", "HardSigmoid", "Softsign", "Sigmoid", "Tanh", direction="bidirectional"),
]

LSTMS = [
    *shared("LSTM"),
    layer("LSTM", "the last cell only", used=(2,)),
    layer("LSTM", "peepholes", peepholes=True, wrt=(0, 5, 6, 7)),
    layer("LSTM", "peepholes, both ways", peepholes=True, direction="bidirectional", wrt=(0, 5, 6, 7, *WEIGHTS)),
    layer("LSTM", "peepholes, lengths", peepholes=True, lengths=LENGTHS, direction="bidirectional", wrt=(0, 6, 7)),
    layer("LSTM", "coupled", input_forget=1, wrt=(0, 5, 6, *WEIGHTS)),
    layer("LSTM", "coupled, peepholes", input_forget=1, peepholes=True, lengths=LENGTHS),
    activated("LSTM", "HardSigmoid", "Tanh", "Tanh", note=" as Keras"),
    activated("LSTM", "Sigmoid", "LeakyRelu", "Elu", alpha=[0.2, 0.7]),
    activated("LSTM", "HardSigmoid", "Affine", "Relu", alpha=[0.3, 0.5], beta=[0.4, 0.1]),
    activated("LSTM", *["Sigmoid", "Tanh", "Softsign"] * 2, direction="bidirectional"),
]

CASES = [*RNNS, *GRUS, *LSTMS]
