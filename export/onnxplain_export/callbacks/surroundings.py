"""What a training notices nothing of: random states are put back, and no tensor of inference mode is left behind."""

import random
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np


@contextmanager
def undisturbed(generators: Iterable[Any] = ()) -> Iterator[None]:
    """Puts the random states of Python, numpy and torch back at the end, and those of torch's own `generators`.

    Iterating a DataLoader draws a seed from torch's; tracing and comparing networks may draw from any.
    """
    python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002 (what trainings seed and draw from)
    try:
        with _torch_undisturbed(list(generators)) if "torch" in sys.modules else nullcontext():
            yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)  # noqa: NPY002 (as above)


@contextmanager
def _torch_undisturbed(generators: list[Any]) -> Iterator[None]:
    import torch  # optional, and imported already

    state = torch.get_rng_state()
    # Devices that nobody has used yet have drawn nothing, and asking for their states would start them.
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    own = [(generator, generator.get_state()) for generator in generators]
    try:
        # Validation may run in inference mode: what a network keeps of its first run (a table of positions) would be
        # of no use in training.
        with torch.inference_mode(False):
            yield
    finally:
        torch.set_rng_state(state)
        if devices:
            torch.cuda.set_rng_state_all(devices)
        for generator, before in own:
            generator.set_state(before)


def is_first_process() -> bool:
    """Whether this is the process of a distributed training that writes; the only one elsewhere."""
    if "torch" not in sys.modules:
        return True
    from torch import distributed  # optional, and imported already

    return not (distributed.is_available() and distributed.is_initialized()) or distributed.get_rank() == 0
