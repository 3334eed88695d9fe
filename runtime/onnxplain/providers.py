"""Which onnxruntime execution provider runs the graphs: CUDA where it truly works, and never a silent fallback.

Neither `get_available_providers()` nor `get_device()` is evidence of a GPU (onnxruntime-gpu lists CUDA on any
machine), and a session that can't have CUDA prints red lines and runs on the CPU. So a one-node model is tried first,
with the log silenced.
"""

import contextlib
import functools
import io
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxplain import cuda_driver
from onnxplain.errors import DeviceError, unknown
from onnxplain.runtime import onnxruntime

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
# TF32 keeps ten bits of a product's mantissa: fast, and 1e-3 off in a gradient. Older onnxruntimes would search for the
# best convolution anew, in seconds, for every number of rows that a run may have. An arena that doubles takes up to
# twice the memory that a run was planned to. Options given in providers= come before these.
CUDA_OPTIONS = {
    "use_tf32": "0",
    "cudnn_conv_algo_search": "HEURISTIC",
    "arena_extend_strategy": "kSameAsRequested",
}
# Where TF32 is off, onnxruntime keeps all convolutions from the tensor cores (its cuda/nn/conv.cc), half ones as well.
CUDA_OPTIONS_IN_HALF = {**CUDA_OPTIONS, "use_tf32": "1"}
COMPLETE = (1, 27)
"""The version of onnxruntime from which on CUDA has every operator of our graphs at their opset, 20."""
DEVICES = ("auto", "cpu", "cuda")
NVIDIA = (CUDA, "TensorrtExecutionProvider", "NvTensorRTRTXExecutionProvider")
RESIDENT = {CUDA: "cuda"}
"""The providers whose arrays can stay where they compute, with onnxruntime's name of that device."""

NO_FALLBACK = {"enable_fallback": 0}
"""For every session: what fails on the provider asked for would be tried on the CPU, with lines on the terminal."""

Provider = str | tuple[str, dict[str, Any]]

# y = Relu(Conv(x, 1)) on float32 [1, 1, 1, 1]; opset 20, IR 8. CUDA may be there without cuDNN, which Conv needs.
TRIAL_MODEL = (
    b'\x08\x08:q\n\x0f\n\x01x\n\x01w\x12\x01c"\x04Conv\n\x0c\n\x01c\x12\x01y"\x04Relu\x12\x01p*\x13\x08\x01\x08\x01\x08'
    b"\x01\x08\x01\x10\x01B\x01wJ\x04\x00\x00\x80?Z\x1b\n\x01x\x12\x16\n\x14\x08\x01\x12\x10\n\x02\x08\x01\n\x02\x08\x01"
    b"\n\x02\x08\x01\n\x02\x08\x01b\x1b\n\x01y\x12\x16\n\x14\x08\x01\x12\x10\n\x02\x08\x01\n\x02\x08\x01\n\x02\x08\x01"
    b"\n\x02\x08\x01B\x04\n\x00\x10\x14"
)


@dataclass(frozen=True, slots=True)
class Place:
    """A device that arrays can stay on: its provider, onnxruntime's name for its kind, and its number."""

    provider: str
    device: str
    number: int = 0

    @property
    def providers(self) -> list[Provider]:
        """The providers of a session that works there."""
        own = [] if self.provider == CPU else [_completed((self.provider, {"device_id": str(self.number)}))]
        return [*own, CPU]

    @property
    def arena(self) -> str:
        """Its memory's name among the options of a run."""
        return f"{'cpu' if self.device == 'cpu' else 'gpu'}:{self.number}"


def place_of(providers: Sequence[Provider]) -> Place | None:
    """Where the arrays of runs on these providers can stay; None for the CPU, and devices onnxruntime can't bind."""
    first = name_of(providers[0]) if providers else CPU
    if first not in RESIDENT:
        return None
    return Place(first, RESIDENT[first], _number(providers[0], "device_id") or 0)


def memory_limit(provider: Provider) -> int | None:
    """The bytes of a device that a session's arena may take at most; None where the provider's options don't say."""
    return _number(provider, "gpu_mem_limit") if name_of(provider) == CUDA else None


def _number(provider: Provider, option: str) -> int | None:
    value = options_of(provider).get(option)
    if value is not None and not str(value).isdecimal():
        raise DeviceError(f"{option}={value!r} must be a number")
    return None if value is None else int(value)


def choose(device: str = "auto", providers: Sequence[Provider] | None = None, half: bool = False) -> list[Provider]:
    """The providers to open sessions with, in order, for graphs in `half` precision or in single.

    DeviceError if what was asked for isn't there.
    """
    if providers is not None:
        return _checked(providers, half)
    if device not in DEVICES:
        raise DeviceError(unknown("device", str(device), DEVICES) + "; other accelerators go in providers=")
    if device == "cpu":
        return [CPU]
    obstacle = cuda_obstacle()
    if obstacle is None:
        return [_completed(CUDA, half), CPU]
    if device == "cuda":
        raise DeviceError(f"CUDA was asked for, but {obstacle}")
    logging.getLogger(__name__).info("using the CPU: %s", obstacle)
    return [CPU]


def _checked(providers: Sequence[Provider], half: bool) -> list[Provider]:
    if isinstance(providers, str) or not providers:
        raise DeviceError(f"providers= takes a list of onnxruntime provider names, such as [{CPU!r}]")
    available = onnxruntime.get_available_providers()
    for provider in providers:
        if name_of(provider) not in available:
            raise DeviceError(unknown("provider", name_of(provider), available))
    if any(name_of(provider) in NVIDIA for provider in providers) and (obstacle := cuda_obstacle()):
        raise DeviceError(f"{name_of(providers[0])} was asked for, but {obstacle}")
    return [_completed(provider, half) for provider in providers]


def _completed(provider: Provider, half: bool = False) -> Provider:
    """The provider with our options for CUDA, except those that it comes with."""
    ours = CUDA_OPTIONS_IN_HALF if half else CUDA_OPTIONS
    return provider if name_of(provider) != CUDA else (CUDA, {**ours, **options_of(provider)})


def name_of(provider: Provider) -> str:
    """The provider's name without its options."""
    return provider if isinstance(provider, str) else provider[0]


def options_of(provider: Provider) -> dict[str, Any]:
    """The options that a provider comes with."""
    return {} if isinstance(provider, str) else provider[1]


def cuda_obstacle() -> str | None:
    """Why CUDA doesn't work here, as a clause, or None where a graph truly ran on it."""
    if CUDA not in onnxruntime.get_available_providers():
        return 'this onnxruntime is built without it; pip uninstall -y onnxruntime && pip install "onnxplain[gpu]"'
    if not has_driver():
        return "no NVIDIA driver is found on this machine"
    try:
        ran_on = _try_cuda()
    except Exception as error:  # onnxruntime raises its own types and bare RuntimeError here; the reason is reported
        return f"a first run on it failed: {str(error).splitlines()[0]}"
    if ran_on != CUDA:
        return "onnxruntime can't load its CUDA libraries; pip install 'onnxruntime-gpu[cuda,cudnn]'"
    _say_what_is_missing(onnxruntime.__version__)
    return None


@functools.cache
def _say_what_is_missing(version: str) -> None:
    """Warns, once, of an onnxruntime that takes some of our operators to the CPU and back."""
    if tuple(int(part) for part in version.split(".")[:2]) < COMPLETE:
        logging.getLogger(__name__).warning(
            "onnxruntime %s has no CUDA kernels for some operators of opset 20 (Pad, Equal, Resize, ReduceMax), which "
            "run on the CPU: maps are right, but slower; from %d.%d on all run on CUDA",
            version,
            *COMPLETE,
        )


def has_driver() -> bool:
    """Whether the NVIDIA driver's library can be loaded."""
    return cuda_driver.load() is not None


@functools.cache
def _try_cuda() -> str:
    """The provider that a one-node model asked onto CUDA really got, found without a line on the terminal."""
    onnxruntime.set_default_logger_severity(4)
    try:
        if hasattr(onnxruntime, "preload_dlls"):
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                onnxruntime.preload_dlls()
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(TRIAL_MODEL, options, providers=[CUDA], **NO_FALLBACK)
        session.run(None, {"x": np.ones((1, 1, 1, 1), np.float32)})
        return session.get_providers()[0]
    finally:
        onnxruntime.set_default_logger_severity(2)  # onnxruntime's own default; it has no getter


def confirm(session: Any, providers: Sequence[Provider]) -> None:
    """DeviceError if the session runs on something else than the first provider asked for."""
    asked, got = name_of(providers[0]), session.get_providers()
    if got[0] != asked:
        raise DeviceError(f"{asked} was asked for, but onnxruntime opened the graph on {got[0]}")
