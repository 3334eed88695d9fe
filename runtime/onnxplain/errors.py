"""Every error that a user can cause, as one small tree.

OnnxplainError
├── ModelError            the source model can't be read or used
│   ├── DivergedError         its weights are NaN or infinite
│   ├── NoGradientError       an operator has no derivative rule, or the gradient is zero everywhere
│   └── VerificationError     the exported graphs disagree with the source
├── BundleError           the exported bundle is missing, altered, newer than this reader, or incomplete
├── PictureError          a picture can't be read or doesn't fit the network
├── ParameterError        an unknown method, parameter, preset or target, or a value out of range
├── DeviceError           the asked-for device isn't there
└── OutputError           a result can't be written
"""

import difflib
from collections.abc import Iterable


class OnnxplainError(Exception):
    """Base of all errors that this package raises on purpose; its text says what happened, where, and what to do."""


class ModelError(OnnxplainError):
    """The source model can't be read or used."""


class DivergedError(ModelError):
    """The source model's weights are NaN or infinite, as after a training that has diverged."""


class NoGradientError(ModelError):
    """An operator on the path has no derivative rule, or the gradient is zero everywhere for a structural reason."""


class VerificationError(ModelError):
    """The exported graphs disagree with the source model."""


class BundleError(OnnxplainError):
    """The bundle is missing, altered, incomplete, or newer than this reader."""


class PictureError(OnnxplainError):
    """A picture can't be read or doesn't fit the network."""


class ParameterError(OnnxplainError):
    """An unknown method, parameter, preset or target, or a value out of range."""


class DeviceError(OnnxplainError):
    """The asked-for device isn't there."""


class OutputError(OnnxplainError):
    """A result can't be written."""


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """The sentence for an unknown name, with the nearest known one suggested."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if near:
        return f"unknown {kind} {name!r}; did you mean {near[0]!r}?"
    shown = ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
    return f"unknown {kind} {name!r}; known: {shown}"
