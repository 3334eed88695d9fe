"""What all torch networks share: lively random weights, gradients in float64 and float32, and the export."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from coverage_networks.case import MODEL, SEED, Case, free_cotangent, steadiest, top_classes

Array = NDArray[Any]


@dataclass(frozen=True)
class TorchNetwork:
    """A module whose forward takes the inputs in order and returns what is explained.

    With `embedding`, the layer whose output is explained in place of the first input.
    """

    module: nn.Module
    inputs: Mapping[str, Array]
    classifies: bool = True
    embedding: nn.Module | None = None


class Entry(nn.Module):
    """The entry of a module's answer that is explained, by its name."""

    def __init__(self, module: nn.Module, name: str, inputs: Sequence[str] | None = None) -> None:
        super().__init__()
        self.module, self.name, self.inputs = module, name, inputs

    def forward(self, first: Tensor, second: Tensor | None = None) -> Tensor:
        """Calls the module with the inputs, by their names where these are given."""
        tensors = [first] if second is None else [first, second]
        if self.inputs is None:
            return self.module(*tensors)[self.name]
        return self.module(**dict(zip(self.inputs, tensors, strict=True)))[self.name]


def finish(network: TorchNetwork, folder: Path, packages: Sequence[str]) -> None:
    """Gives a network lively weights, exports it and writes its case."""
    calibrate(network.module.eval(), network.inputs)
    double = in_float64(network)
    if network.embedding is None:
        name, candidates = next(iter(network.inputs.items()))
        rows = steadiest(
            candidates,
            lambda given: reference(replace(double, inputs={name: given})),
            lambda given, cotangent: gradients_in_float32(replace(network, inputs={name: given}), cotangent),
        )
        network, double = replace(network, inputs={name: rows}), replace(double, inputs={name: rows.astype(np.float64)})
    exporter, notes = write_onnx(network.module, network.inputs, folder / MODEL)
    outputs, cotangent, gradient = reference(double)
    Case(
        inputs=network.inputs,
        outputs=outputs,
        gradient=gradient,
        gradients32=gradients_in_float32(network, cotangent),
        cotangent=cotangent,
        targets=cotangent.argmax(1) if network.classifies else None,
        exporter=exporter,
        packages=["torch", "onnxscript", *packages],
        notes=notes,
    ).write(folder)


def reference(double: TorchNetwork) -> tuple[Array, Array, Array]:
    """The outputs in float64, the cotangent that is explained, and its gradient."""
    with Float64():
        outputs, _ = answer(double, None)
        cotangent = top_classes(outputs)[1] if double.classifies else free_cotangent(outputs)
        return outputs, cotangent, answer(double, cotangent)[1]


def calibrate(module: nn.Module, inputs: Mapping[str, Array]) -> None:
    """Replaces constant parameters by random ones, and BatchNorm statistics by those of random inputs.

    Fresh networks have parameters such as layer scales of 1e-6 or last layers of 0, which hide most of the gradient,
    and statistics of (0, 1), with which deep ones answer 1e-30 or infinity.
    """
    generator = torch.Generator().manual_seed(SEED)
    for parameter in module.parameters():
        if parameter.is_floating_point() and bool((parameter == parameter.flatten()[0]).all()):
            parameter.data = _instead_of(parameter, generator)
    norms = [layer for layer in module.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    for layer in norms:
        if layer.bias is not None:
            # Most units are then active. Around 0, each layer would amplify small differences, far beyond what trained
            # networks do, and float32 gradients would say little.
            layer.bias.data = 0.5 + torch.rand(layer.bias.shape, generator=generator)
        if layer.track_running_stats:
            layer.reset_running_stats()
            layer.momentum = None
            layer.train()
    rows = [_more_rows(array, generator) for array in inputs.values()]
    with torch.no_grad():
        module(*rows)
        for layer in norms:
            layer.eval()
        spread_scores(module, rows)


def spread_scores(module: nn.Module, rows: Sequence[Tensor]) -> None:
    """Scales and shifts the last linear layer such that scores [N, classes] differ between the rows by about 1."""
    last: list[nn.Module] = []
    layers = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
    hooks = [layer.register_forward_hook(lambda called, *_: last.append(called)) for layer in layers]
    scores = module(*rows)
    for hook in hooks:
        hook.remove()
    if scores.ndim == 2 and last and last[-1].out_features == scores.shape[1]:
        factor = 1 / float(scores.std(0).mean())
        last[-1].weight.data *= factor
        if last[-1].bias is not None:
            last[-1].bias.data = factor * (last[-1].bias - scores.mean(0))


def _more_rows(array: Array, generator: torch.Generator) -> Tensor:
    """Rows like those of the array, enough for statistics."""
    rows = torch.from_numpy(array).repeat(4, *[1] * (array.ndim - 1))
    return torch.randn(rows.shape, generator=generator) if rows.is_floating_point() else rows


def _instead_of(constant: Tensor, generator: torch.Generator) -> Tensor:
    """Random values of the same kind as a constant parameter's: weights, shifts, scales, small scales."""
    value = float(constant.flatten()[0])
    uniform = torch.rand(constant.shape, generator=generator)
    if value == 0.0 and constant.ndim > 0:
        fan_in = constant[0].numel() if constant.ndim > 1 else 100
        return (2 * uniform - 1) / max(fan_in, 1) ** 0.5
    return (0.7 + 0.6 * uniform) * (1.0 if value == 0.0 or abs(value) < 0.1 else value)


class Float64(TorchFunctionMode):
    """Turns every cast to float32 into one to float64: many networks compute a norm or a rotation in float32."""

    def __torch_function__(
        self, function: Any, types: Any, arguments: tuple[Any, ...] = (), keywords: Any = None
    ) -> Any:
        """Calls the function with float64 wherever it was to use float32."""
        if function is Tensor.float:
            function = Tensor.double
        swapped = {name: _wider(value) for name, value in (keywords or {}).items()}
        return function(*(_wider(value) for value in arguments), **swapped)


def _wider(value: Any) -> Any:
    return torch.float64 if value is torch.float32 else value


def in_float64(network: TorchNetwork) -> TorchNetwork:
    """The same network with weights and inputs in float64."""
    module, embedding = copy.deepcopy((network.module, network.embedding))
    inputs = {
        name: array.astype(np.float64) if array.dtype == np.float32 else array for name, array in network.inputs.items()
    }
    return replace(network, module=module.double(), inputs=inputs, embedding=embedding)


def answer(network: TorchNetwork, cotangent: Array | None) -> tuple[Array, Array]:
    """The output, and the gradient of its product with the cotangent: of the first input, or of the embedding."""
    tensors = [torch.from_numpy(array) for array in network.inputs.values()]
    kept: list[Tensor] = []
    if network.embedding is None:
        kept.append(tensors[0].requires_grad_())
    with _keeping(network.embedding, kept):
        output = network.module(*tensors)
    if cotangent is None:
        return output.detach().double().numpy(), np.zeros(0)
    (gradient,) = torch.autograd.grad((output * torch.from_numpy(cotangent).to(output.dtype)).sum(), kept)
    return output.detach().double().numpy(), gradient.numpy()


@contextmanager
def _keeping(embedding: nn.Module | None, kept: list[Tensor]) -> Iterator[None]:
    """Inside, what the embedding puts out is cut off from its weights and kept, to be differentiated."""
    if embedding is None:
        yield
        return

    def cut(_layer: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        kept.append(output.detach().requires_grad_())
        return kept[-1]

    handle = embedding.register_forward_hook(cut)
    try:
        yield
    finally:
        handle.remove()


def gradients_in_float32(network: TorchNetwork, cotangent: Array) -> list[Array]:
    """The gradients that torch itself computes in float32: with its fast kernels and without."""
    fast = answer(network, cotangent)[1]
    with torch.backends.mkldnn.flags(enabled=False):
        return [fast, answer(network, cotangent)[1]]


def write_onnx(module: nn.Module, inputs: Mapping[str, Array], file: Path) -> tuple[str, list[str]]:
    """Exports with the first of torch's ways that takes this module: its name, and why those before it did not."""
    notes = []
    for name, way in WAYS.items():
        try:
            with torch.no_grad():
                way(module, inputs, file)
        except Exception as error:
            notes.append(f"{name}: {_reason(error)}")
        else:
            return name, notes
    raise RuntimeError("; ".join(notes))


def _reason(error: Exception) -> str:
    """The innermost cause's first line that says something."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:300]


def _dynamo(module: nn.Module, inputs: Mapping[str, Array], file: Path) -> None:
    _export(module, inputs, file, dynamo=True, dynamic_shapes=({0: "batch"},) * len(inputs), external_data=False)


def _script(module: nn.Module, inputs: Mapping[str, Array], file: Path) -> None:
    axes = {name: {0: "batch"} for name in [*inputs, "output"]}
    _export(module, inputs, file, dynamo=False, dynamic_axes=axes, opset_version=17)


def _dynamo_one_row(module: nn.Module, inputs: Mapping[str, Array], file: Path) -> None:
    one = {name: array[:1] for name, array in inputs.items()}
    _export(module, one, file, dynamo=True, external_data=False)


def _export(module: nn.Module, inputs: Mapping[str, Array], file: Path, **settings: Any) -> None:
    tensors = tuple(torch.from_numpy(array[:2]) for array in inputs.values())
    torch.onnx.export(
        module, tensors, file, input_names=list(inputs), output_names=["output"], verbose=False, **settings
    )


WAYS = {
    "torch.onnx": _dynamo,
    "torch.onnx, TorchScript": _script,
    "torch.onnx, batch of one": _dynamo_one_row,
}
