"""The tensors that a torch module learns, by their names, and how they stay themselves in its graph."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray

from onnxplain.errors import ModelError

WRAPPERS = (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel)


def parameters_of(module: Any) -> dict[str, NDArray[Any]]:
    """Parameters and buffers as arrays, by every name that they have; bfloat16, which numpy lacks, as float32."""
    return {name: _array(tensor) for name, tensor in _tensors(plain_module(module))}


def learned_names(module: Any, graph: ir.Graph) -> frozenset[str] | None:
    """Which initializers of a module's graph are its own tensors; None where the exporter has made others of them."""
    if not isinstance(module, torch.nn.Module) or isinstance(module, torch.jit.ScriptModule):
        return None
    names = {name for name, _ in _tensors(plain_module(module))}
    return frozenset(names & set(graph.initializers)) or None


@contextmanager
def parameters_kept(graph: ir.Graph, module: "torch.nn.Module") -> Iterator[None]:
    """Parameters and buffers as inputs of the graph for a while, under their own names.

    Whatever is done to the graph meanwhile doesn't fold them into others, leave out those that are 0, or take two that
    are equal today for one. A module that keeps tensors outside its registered names (Keras) is known by their memory.
    """
    names = {_place(tensor): name for name, tensor in reversed(_tensors(module)) if tensor.numel()}
    kept: dict[ir.Value, ir.TensorProtocol] = {}
    by_name: dict[str, ir.Value] = {}
    for value in list(graph.initializers.values()):
        tensor = value.const_value
        name = names.get(_place(tensor.raw)) if isinstance(getattr(tensor, "raw", None), torch.Tensor) else None  # type: ignore[union-attr]
        if tensor is None or name is None:
            continue
        del graph.initializers[str(value.name)]
        if name in by_name:
            ir.convenience.replace_all_uses_with(value, by_name[name])
            continue
        value.const_value, value.shape, value.type = None, ir.Shape(tensor.shape.numpy()), ir.TensorType(tensor.dtype)
        value.name, by_name[name], kept[value] = name, value, tensor
    graph.inputs.extend(kept)
    yield
    for value, tensor in kept.items():
        graph.inputs.remove(value)
        if value.uses():
            value.const_value = ir.Tensor(np.array(tensor.numpy()), dtype=tensor.dtype, name=value.name)
            graph.register_initializer(value)


def plain_module(given: Any) -> "torch.nn.Module":
    """The module behind the wrappers of torch.compile and of data parallelism, on the CPU; the caller's own stays."""
    module = getattr(given, "_orig_mod", given)
    module = module.module if isinstance(module, WRAPPERS) else module
    if not isinstance(module, torch.nn.Module):
        raise ModelError(f"can't export a {type(given).__name__}; give the torch module, with example=")
    tensors = [*module.parameters(), *module.buffers()]
    return module if all(one.device.type == "cpu" for one in tensors) else copy.deepcopy(module).to("cpu")


def _tensors(module: "torch.nn.Module") -> list[tuple[str, "torch.Tensor"]]:
    return [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]


def _place(tensor: "torch.Tensor") -> tuple[Any, ...]:
    return tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype


def _array(tensor: "torch.Tensor") -> NDArray[Any]:
    tensor = tensor.detach().to("cpu")
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
