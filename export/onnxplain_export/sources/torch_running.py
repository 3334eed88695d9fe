"""What a torch module answers, without leaving a trace in it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils import _pytree

from onnxplain.errors import ModelError
from onnxplain_export.sources.causes import root_cause
from onnxplain_export.sources.recognition import frameworks
from onnxplain_export.sources.torch_parameters import plain_module
from onnxplain_export.sources.torch_source import by_name, evaluating


def outputs_of(given: Any, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
    """The tensors that a module, in evaluation mode and on the CPU, returns for these inputs, in order."""
    module = plain_module(given)
    try:
        with evaluating(module), torch.no_grad(), torch.autocast("cpu", enabled=False):
            given_to = [_tensor(one, module) for one in inputs]
            one_argument = "keras" in frameworks(given) and len(inputs) > 1
            result = module(given_to) if one_argument else module(*given_to)
    except Exception as error:  # a module's own code raises anything
        raise ModelError(f"{type(given).__name__} can't be run for a comparison: {root_cause(error)}") from error
    leaves = list(by_name(result).values()) or _pytree.tree_leaves(result)
    return [leaf.float().numpy() for leaf in leaves if isinstance(leaf, torch.Tensor)]


def _tensor(array: NDArray[Any], module: "torch.nn.Module") -> "torch.Tensor":
    """The array as a tensor; floats in the precision of the module's own."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    own = next((one.dtype for one in module.parameters() if one.is_floating_point()), torch.float32)
    return tensor.to(own) if tensor.is_floating_point() else tensor
