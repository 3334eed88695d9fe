"""What turns a network's scores into probabilities."""

import numpy as np
from numpy.typing import NDArray


def activate(scores: NDArray[np.float32], activation: str, axis: int = 1) -> NDArray[np.float32]:
    """Probabilities from scores [N, …] with the classes along `axis`; "none": the scores are explained as they are."""
    values = scores.astype(np.float64)
    if activation == "softmax":
        values -= values.max(axis=axis, keepdims=True)
        np.exp(values, out=values)
        values /= values.sum(axis=axis, keepdims=True)
    elif activation == "sigmoid":
        # Written with tanh, which doesn't overflow.
        values = (1 + np.tanh(values / 2)) / 2
    return values.astype(np.float32)
