"""The one module that imports torch: a torch.nn.Module becomes an ONNX graph through torch's own exporter."""

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import onnx_ir as ir
import torch

from onnxplain.errors import ModelError


def model_from_torch(module: "torch.nn.Module", example: Any) -> ir.Model:
    """The module in evaluation mode as a graph; `example` is one input batch, e.g. zeros(1, 3, 224, 224).

    The batch axis is free, or 1 where the module's own code fixes it: normalisation frees that.
    """
    if not isinstance(example, torch.Tensor):
        raise ModelError("exporting a torch module needs example=, one input batch such as torch.zeros(1, 3, 224, 224)")
    frozen = copy.deepcopy(module).eval().to("cpu")
    image = example.detach().to("cpu")[:1]
    # Traced at batch 2: torch specialises a batch of 1.
    pair = image.repeat(2, *([1] * (example.dim() - 1)))
    try:
        with _quiet():
            try:
                return _exported(frozen, pair, ({0: "batch"},))
            except ModuleNotFoundError:
                raise
            except Exception:  # torch's exporter raises many kinds; a batch that the code fixes is among them
                return _exported(frozen, image, None)
    except ModuleNotFoundError as error:
        raise ModelError(f'torch\'s exporter needs {error.name}: pip install "onnxplain[torch]"') from error
    except Exception as error:  # as above
        raise ModelError(f"torch can't export {type(module).__name__} to ONNX: {_reason(error)}") from error


def _exported(module: "torch.nn.Module", batch: "torch.Tensor", shapes: Any) -> ir.Model:
    program = torch.onnx.export(module, (batch,), dynamo=True, verbose=False, opset_version=20, dynamic_shapes=shapes)
    if program is None:
        raise ModelError("it returned nothing")
    return program.model


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the exporter's progress and warnings, which nobody can act on, off the terminal."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _reason(error: BaseException) -> str:
    """The first line of the innermost cause: what went wrong, without the exporter's account of its own steps."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
