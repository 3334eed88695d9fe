"""The one module that imports torch: a torch.nn.Module becomes an ONNX graph through torch's own exporter."""

import copy
import logging
import warnings
from typing import Any

import onnx_ir as ir
import torch
from onnxplain.errors import ModelError


def model_from_torch(module: "torch.nn.Module", example: Any) -> ir.Model:
    """The module in evaluation mode as a graph with a free batch axis; `example` is one input batch, e.g. zeros(1, 3, 224, 224)."""
    if not isinstance(example, torch.Tensor):
        raise ModelError("exporting a torch module needs example=, one input batch such as torch.zeros(1, 3, 224, 224)")
    frozen = copy.deepcopy(module).eval().to("cpu")
    # Traced at batch 2: torch specialises a batch of 1.
    batch = example.detach().to("cpu")[:1].repeat(2, *([1] * (example.dim() - 1)))
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                frozen, (batch,), dynamo=True, verbose=False, opset_version=20, dynamic_shapes=({0: "batch"},)
            )
    except ModuleNotFoundError as error:
        raise ModelError(f'torch\'s exporter needs {error.name}: pip install "onnxplain[torch]"') from error
    except Exception as error:  # torch's exporter raises many kinds; each means that torch can't write the module
        raise ModelError(f"torch can't export {type(module).__name__} to ONNX: {error}") from error
    if program is None:
        raise ModelError(f"torch's exporter returned nothing for {type(module).__name__}")
    return program.model
