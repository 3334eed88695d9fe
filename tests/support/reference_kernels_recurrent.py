"""Numpy kernels for recurrent layers: the ONNX reference evaluator's own ignore most of their attributes.

These follow the standard's equations step by step, and onnxruntime where the standard is silent (what `input_forget`
couples, where `clip` applies, how lengths act); they are checked against onnxruntime and torch in
`test_vjp_recurrent.py`.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from onnx.reference.op_run import OpRun

Array = np.ndarray
Function = Callable[[Array], Array]

ACTIVATIONS: dict[str, Callable[[Array, float, float], Array]] = {
    "relu": lambda x, a, b: np.maximum(x, 0),
    "tanh": lambda x, a, b: np.tanh(x),
    "sigmoid": lambda x, a, b: 1 / (1 + np.exp(-x)),
    "affine": lambda x, a, b: a * x + b,
    "leakyrelu": lambda x, a, b: np.where(x >= 0, x, a * x),
    "thresholdedrelu": lambda x, a, b: np.where(x > a, x, 0),
    "scaledtanh": lambda x, a, b: a * np.tanh(b * x),
    "hardsigmoid": lambda x, a, b: np.clip(a * x + b, 0, 1),
    "elu": lambda x, a, b: np.where(x >= 0, x, a * np.expm1(x)),
    "softsign": lambda x, a, b: x / (1 + np.abs(x)),
    "softplus": lambda x, a, b: np.log1p(np.exp(x)),
}
ALPHAS = {"affine": 1.0, "leakyrelu": 0.01, "thresholdedrelu": 1.0, "scaledtanh": 1.0, "hardsigmoid": 0.2, "elu": 1.0}
BETAS = {"affine": 0.0, "scaledtanh": 1.0, "hardsigmoid": 0.5}


class _Recurrent(OpRun):
    """Runs each direction one step after the other; a subclass says what one step does."""

    gates: int
    defaults: tuple[str, ...]

    def _step(self, x: Array, state: list[Array], weights: list[Any], f: list[Function]) -> list[Array]:
        raise NotImplementedError

    def _all(self, x: Array, lengths: Array | None, states: list[Any], weights: list[Any]) -> tuple[Array, ...]:
        """The outputs for inputs [time, batch, size]; every weight is a list of one per direction."""
        directions, hidden = len(weights[0]), weights[1].shape[-1]
        time, batch = x.shape[:2]
        lengths = np.full(batch, time) if lengths is None else lengths
        y = np.zeros((time, directions, batch, hidden), x.dtype)
        final = [np.zeros((directions, batch, hidden), x.dtype) if s is None else s.copy() for s in states]
        functions = list(self._functions(directions))
        clip = self.clip or np.inf  # type: ignore[attr-defined]
        for d, n in np.ndindex(directions, batch):
            backwards = self.direction == "reverse" or d == 1  # type: ignore[attr-defined]
            chosen = functions[d * len(self.defaults) : (d + 1) * len(self.defaults)]
            # onnxruntime clips what enters the gates, not the cell that enters the LSTM's third function.
            f = [lambda a, act=act: act(np.clip(a, -clip, clip)) for act in chosen[:2]] + chosen[2:]
            state = [s[d, n] * (lengths[n] > 0) for s in final]
            for t in range(lengths[n])[:: -1 if backwards else 1]:
                state = self._step(x[t, n], state, [None if w is None else w[d] for w in weights], f)
                y[t, d, n] = state[0]
            for s, last in zip(final, state, strict=True):
                s[d, n] = last
        return (y, *final)

    def _functions(self, directions: int) -> Iterator[Function]:
        """The activations with their numbers, which only those that have any take from the lists."""
        names = self.activations or list(self.defaults) * directions  # type: ignore[has-type, attr-defined]
        if len(names) != directions * len(self.defaults):
            names = list(self.defaults) * directions  # opset 20 gives RNN one default for two directions
        alphas, betas = list(self.activation_alpha or []), list(self.activation_beta or [])  # type: ignore[attr-defined]
        for name in (name.lower() for name in names):
            a = alphas.pop(0) if name in ALPHAS and alphas else ALPHAS.get(name, 0.0)
            b = betas.pop(0) if name in BETAS and betas else BETAS.get(name, 0.0)
            yield lambda x, name=name, a=a, b=b: ACTIVATIONS[name](x, a, b)

    def _laid_out(self, x: Array, lengths: Array | None, states: list[Any], weights: list[Any]) -> tuple[Array, ...]:
        """The same for the layout that the node asks for, as many outputs as it has."""
        count = len(self.onnx_node.output)
        if not self.layout:  # type: ignore[attr-defined]
            return self._all(x, lengths, states, weights)[:count]
        turned = [None if s is None else s.swapaxes(0, 1) for s in states]
        y, *final = self._all(x.swapaxes(0, 1), lengths, turned, weights)
        return (y.transpose(2, 0, 1, 3), *(s.swapaxes(0, 1) for s in final))[:count]

    def _gates(self, x: Array, h: Array, weights: list[Any]) -> list[Array]:
        """W x + R h + both biases, by gate."""
        w, r, b = weights[:3]
        total = w @ x + r @ h
        return np.split(total if b is None else total + sum(np.split(b, 2)), self.gates)


class RNN(_Recurrent):
    """h = f(W x + R h + b)."""

    gates, defaults = 1, ("tanh",)

    def _step(self, x: Array, state: list[Array], weights: list[Any], f: list[Function]) -> list[Array]:
        return [f[0](self._gates(x, state[0], weights)[0])]

    def _run(self, x, w, r, b=None, lengths=None, h=None, **_: Any) -> tuple[Array, ...]:
        return self._laid_out(x, lengths, [h], [w, r, b])


class GRU(_Recurrent):
    """Gates z, r; h = (1 - z) g + z h."""

    gates, defaults = 3, ("sigmoid", "tanh")

    def _step(self, x: Array, state: list[Array], weights: list[Any], f: list[Function]) -> list[Array]:
        (h,), (w, r, b) = state, weights
        z, reset, _ = self._gates(x, h, weights)
        z, reset = f[0](z), f[0](reset)
        wb, rb = (0.0, 0.0) if b is None else (b.reshape(6, -1)[2], b.reshape(6, -1)[5])
        wh, rh = np.split(w, 3)[2], np.split(r, 3)[2]
        if self.linear_before_reset:  # type: ignore[attr-defined]
            g = f[1](wh @ x + wb + reset * (rh @ h + rb))
        else:
            g = f[1](wh @ x + wb + rh @ (reset * h) + rb)
        return [(1 - z) * g + z * h]

    def _run(self, x, w, r, b=None, lengths=None, h=None, **_: Any) -> tuple[Array, ...]:
        return self._laid_out(x, lengths, [h], [w, r, b])


class LSTM(_Recurrent):
    """Gates i, o, f, g; c = f c + i g; h = o h(c)."""

    gates, defaults = 4, ("sigmoid", "tanh", "tanh")

    def _step(self, x: Array, state: list[Array], weights: list[Any], f: list[Function]) -> list[Array]:
        h, c = state
        i, o, forget, g = self._gates(x, h, weights)
        pi, po, pf = (0.0, 0.0, 0.0) if weights[3] is None else np.split(weights[3], 3)
        i = f[0](i + pi * c)
        forget = 1 - i if self.input_forget else f[0](forget + pf * c)  # type: ignore[attr-defined]
        c = forget * c + i * f[1](g)
        return [f[0](o + po * c) * f[2](c), c]

    def _run(self, x, w, r, b=None, lengths=None, h=None, c=None, p=None, **_: Any) -> tuple[Array, ...]:
        return self._laid_out(x, lengths, [h, c], [w, r, b, p])


KERNELS: list[type[OpRun]] = [RNN, GRU, LSTM]
"""What stands in for the reference evaluator's own."""
