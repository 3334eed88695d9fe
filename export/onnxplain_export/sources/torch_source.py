"""The one module that imports torch: what torch models come as becomes an ONNX graph through torch's own exporters."""

import dataclasses
import functools
import inspect
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import torch

from onnxplain.errors import ModelError
from onnxplain_export.sources.causes import root_cause
from onnxplain_export.sources.torch_parameters import parameters_kept, plain_module

OPSET = 20
NEEDS_EXAMPLE = "exporting a torch module needs example=, one input batch such as torch.zeros(1, 3, 224, 224)"


def model_from_torch(given: Any, example: Any = None) -> tuple[ir.Model, list[str]]:
    """The graph of a module (in evaluation mode), an ExportedProgram or an ONNXProgram, and what was changed.

    `example` is one input batch for a module: a tensor or array, several as a tuple, or a dict by the names that its
    forward gives them. The batch axis is free, or 1 where the module's own code fixes it: normalisation frees that.
    """
    if isinstance(given, torch.onnx.ONNXProgram):
        return given.model, []
    try:
        with _quiet():
            if isinstance(given, torch.export.ExportedProgram):
                return _from_program(given), []
            return _from_module(plain_module(given), *_arguments(example))
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        raise ModelError(f'torch\'s exporter needs {package}: pip install "onnxplain[torch]"') from error
    except ModelError:
        raise
    except Exception as error:  # torch's exporter raises many kinds
        raise ModelError(f"torch can't export {type(given).__name__} to ONNX: {root_cause(error)}") from error


def _arguments(example: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The example as positional and named arguments of forward."""
    example = _each(_tensor, example)
    args: tuple[Any, ...] = ()
    named: dict[str, Any] = {}
    if isinstance(example, Mapping):
        named = {str(name): value for name, value in example.items()}
    else:
        args = tuple(example) if isinstance(example, tuple | list) else (example,)
    if not _tensors((args, named)):
        raise ModelError(NEEDS_EXAMPLE)
    return args, named


def _each(function: Callable[[Any], Any], value: Any) -> Any:
    """`value` with every leaf of its tuples, lists and dicts replaced."""
    if isinstance(value, Mapping):
        return {name: _each(function, entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [_each(function, entry) for entry in value]
    if isinstance(value, tuple):
        return tuple(_each(function, entry) for entry in value)
    return function(value)


def _tensor(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return torch.from_numpy(np.ascontiguousarray(value))
    return value.detach().to("cpu") if isinstance(value, torch.Tensor) else value


def _tensors(value: Any) -> "list[torch.Tensor]":
    """The tensors with a first axis, in order."""
    found: list[torch.Tensor] = []
    _each(lambda leaf: found.append(leaf) if isinstance(leaf, torch.Tensor) and leaf.dim() else None, value)
    return found


def _from_module(module: "torch.nn.Module", args: tuple[Any, ...], named: dict[str, Any]) -> tuple[ir.Model, list[str]]:
    batch = _tensors((args, named))[0].shape[0]

    def batched(value: Any) -> bool:
        return isinstance(value, torch.Tensor) and value.dim() > 0 and value.shape[0] == batch

    def repeated(count: int) -> Any:
        return _each(lambda value: _rows(value, count) if batched(value) else value, (args, named))

    with evaluating(module):
        if isinstance(module, torch.jit.ScriptModule):
            return _from_script(module, *repeated(1)), []
        axes = _each(lambda value: {0: "batch"} if batched(value) else None, (args, named))
        shapes = _by_parameter(module, *axes)
        with _flat_outputs(module, *repeated(1)) as names:
            try:
                # At batch 2: torch specialises a batch of 1.
                return _named_outputs(_exported(module, *repeated(2), shapes=shapes), names), []
            except ModuleNotFoundError:
                raise
            except Exception as error:  # torch's exporter raises many kinds; a batch that the code fixes is among them
                model = _named_outputs(_exported(module, *repeated(1)), names)
                return model, [f"exported with a batch of 1, since torch can't free it: {root_cause(error)}"]


def _by_parameter(module: "torch.nn.Module", args: tuple[Any, ...], named: dict[str, Any]) -> dict[str, Any]:
    """What is said of each argument under the name of the parameter of forward that takes it."""
    bound = inspect.signature(module.forward).bind(*args, **named)
    return dict(bound.arguments)


def _rows(value: "torch.Tensor", count: int) -> "torch.Tensor":
    """The first row, repeated."""
    return value[:1].repeat(count, *([1] * (value.dim() - 1)))


def _exported(module: Any, args: tuple[Any, ...], named: dict[str, Any], *, shapes: Any = None) -> ir.Model:
    from onnxscript import optimizer  # what torch's own exporter needs and uses, too

    program = torch.onnx.export(
        module,
        args,
        kwargs=named,
        dynamo=True,
        verbose=False,
        opset_version=OPSET,
        dynamic_shapes=shapes,
        optimize=False,
    )
    if program is None:
        raise ModelError("it returned nothing")
    with parameters_kept(program.model.graph, module):
        optimizer.optimize(program.model)
    return program.model


def _from_program(program: "torch.export.ExportedProgram") -> ir.Model:
    exported = torch.onnx.export(program, dynamo=True, verbose=False, opset_version=OPSET)
    if exported is None:
        raise ModelError("it returned nothing")
    spec = program.call_spec.out_spec
    structure = spec.unflatten(range(spec.num_leaves)) if spec is not None else ()
    return _named_outputs(exported.model, {number: name for name, number in by_name(structure).items()})


def _from_script(module: "torch.jit.ScriptModule", args: tuple[Any, ...], named: dict[str, Any]) -> ir.Model:
    """A scripted or traced module, which only torch's old exporter reads."""
    forward: Any = module.forward
    inputs = [argument.name for argument in forward.schema.arguments[1:]]
    args += tuple(named[name] for name in inputs[len(args) :] if name in named)
    inputs = inputs[: len(args)]
    content: Any = io.BytesIO()
    torch.onnx.export(
        module,
        args,
        content,
        dynamo=False,
        opset_version=17,  # the newest that it knows in every version of torch
        input_names=inputs,
        dynamic_axes={name: {0: "batch"} for name in inputs},
    )
    return ir.from_proto(onnx.load_model_from_string(content.getvalue()))


@contextmanager
def evaluating(module: "torch.nn.Module") -> Iterator[None]:
    """The module in evaluation mode for a while; every part has its own flag back afterwards."""
    flags = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in flags:
            part.training = training


@contextmanager
def _flat_outputs(module: "torch.nn.Module", args: tuple[Any, ...], named: dict[str, Any]) -> Iterator[dict[int, str]]:
    """Lets a forward that returns a dict or a dataclass return its tensors alone; yields their names by position."""
    with torch.no_grad():
        names = list(_tensors_by_name(module(*args, **named)))
    if not names:
        yield {}
        return
    forward, own = module.forward, "forward" in vars(module)

    @functools.wraps(forward)
    def flat(*inputs: Any, **named_inputs: Any) -> tuple[Any, ...]:
        found = by_name(forward(*inputs, **named_inputs))
        return tuple(found[name] for name in names)

    module.forward = flat
    try:
        yield dict(enumerate(names))
    finally:
        if own:
            module.forward = forward
        else:
            del module.forward


def _tensors_by_name(result: Any) -> dict[str, Any]:
    """The tensors that a forward returns by name, none where it returns them without names."""
    return {name: value for name, value in by_name(result).items() if isinstance(value, torch.Tensor)}


def by_name(result: Any) -> dict[str, Any]:
    if isinstance(result, Mapping):
        return {str(name): value for name, value in result.items()}
    if dataclasses.is_dataclass(result):
        return {entry.name: getattr(result, entry.name) for entry in dataclasses.fields(result)}
    if isinstance(result, tuple) and hasattr(result, "_fields"):
        return dict(zip(result._fields, result, strict=True))
    return {}


def _named_outputs(model: ir.Model, names: Mapping[int, str]) -> ir.Model:
    """Gives outputs the names that the module gave them, where no other value has those."""
    graph = model.graph
    values: Sequence[ir.Value] = [*graph.inputs, *(value for node in graph.all_nodes() for value in node.outputs)]
    taken = {value.name for value in values} | set(graph.initializers)
    for number, value in enumerate(graph.outputs):
        name = names.get(number)
        if name is None or value.is_graph_input() or name in taken or value in graph.outputs[:number]:
            continue
        value.name = name
    return model


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
