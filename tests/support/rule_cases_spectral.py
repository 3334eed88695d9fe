"""Uses of the Fourier transforms."""

from typing import Any

import numpy as np
import torch

from rule_harness import Case


def fourier(x: torch.Tensor, *, axis: int, length: int | None, inverse: int, onesided: int) -> torch.Tensor:
    """The transform in torch, of real or complex numbers in the last axis."""
    signal = torch.view_as_complex(x.contiguous()) if x.shape[-1] == 2 else x[..., 0]
    axis = axis if axis >= 0 else axis + 1
    if onesided:
        y = torch.fft.irfft(signal, length, axis)[..., None] if inverse else torch.fft.rfft(signal, length, axis)
    else:
        y = (torch.fft.ifft if inverse else torch.fft.fft)(signal, length, axis)
    return y if onesided and inverse else torch.view_as_real(y.resolve_conj())


def dft(shape, axis=None, length=None, inverse=0, onesided=0, **options) -> Case:
    given = [None if length is None else np.array(length), None if axis is None else np.array(axis)]
    while given and given[-1] is None:
        given.pop()
    form = {"axis": -2 if axis is None else axis, "length": length, "inverse": inverse, "onesided": onesided}
    return Case(
        "DFT",
        [shape, *given],
        {"inverse": inverse, "onesided": onesided},
        torch=lambda x, *_: fourier(x, **form),
        note=" ".join(f"{name} {value}" for name, value in form.items()),
        **options,
    )


def stft(shape, step, length=None, window=None, onesided=1, wrt=(0,), **options) -> Case:
    inputs: list[Any] = [shape, np.array(step), window, None if length is None else np.array(length)]
    while inputs[-1] is None:
        inputs.pop()
    return Case(
        "STFT", inputs, {"onesided": onesided}, wrt, batched=(0,), note=f"step {step} length {length} {wrt}", **options
    )


WINDOW = np.hanning(10)[1:-1]

CASES: list[Case] = [
    dft((2, 6, 1)),
    dft((2, 6, 2)),
    dft((2, 5, 1), onesided=1),
    dft((2, 6, 1), onesided=1),
    dft((2, 5, 2), inverse=1),
    dft((2, 6, 1), inverse=1),
    dft((2, 3, 4, 2), axis=1),
    dft((2, 3, 4, 2), axis=-3, inverse=1),
    dft((3, 4, 1), axis=0, batched=()),
    dft((2, 6, 1), axis=1, length=8),
    dft((2, 6, 2), axis=1, length=4),
    dft((2, 6, 1), axis=1, length=9, onesided=1),
    dft((2, 6, 1), axis=1, length=4, onesided=1),
    dft((2, 5, 2), axis=1, length=7, inverse=1),
    dft((2, 4, 3, 2), axis=1, length=3, inverse=1),
    dft((2, 4, 2), inverse=1, onesided=1),
    dft((2, 4, 2), axis=1, length=7, inverse=1, onesided=1),
    dft((2, 5, 4, 2), axis=1, length=8, inverse=1, onesided=1),
    dft((2, 3, 4, 2), axis=-2, inverse=1, onesided=1),
    stft((2, 16, 1), 4, window=WINDOW),
    stft((2, 17, 1), 3, 8, (8,), wrt=(0, 2)),
    stft((2, 16, 1), 4, 8, WINDOW, onesided=0),
    stft((1, 12, 1), 5, 6),
    stft((2, 12, 1), 2, 5, onesided=0),
    stft((2, 12, 2), 3, 6, onesided=0),
]
