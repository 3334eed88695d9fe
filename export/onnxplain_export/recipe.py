"""The way from a source's tensors to what a bundle stores, as a file of the bundle: refresh.onnx.

It is an ONNX graph of standard operators: its inputs are the source's weights, its nodes the foldings that were
recorded at export, its initializers what never changes. Beside it, in its metadata, stand how the source is built,
which of its tensors must stay as they were, and where each result lies in the bundle.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # onnx brings it, without types
from numpy.typing import NDArray

from onnxplain.errors import BundleError
from onnxplain_export.emitter import IR_VERSION, OPSET
from onnxplain_export.normalize import Normalized
from onnxplain_export.origins import Known, Origin, digest, evaluated
from onnxplain_export.structure import Line
from onnxplain_export.vjp.registry import STRAIGHT_THROUGH

RECIPE = "refresh.onnx"
KEY = "onnxplain"
"""Of the metadata entry."""


@dataclass(frozen=True)
class Place:
    """Where a tensor of the bundle lies: at `offset` of the weights file, or in a `graph` as the initializer `name`."""

    origin: Origin
    dtype: str
    shape: tuple[int, ...]
    offset: int = -1
    graph: str = ""
    name: str = ""


@dataclass(frozen=True)
class Stored:
    """A place as refresh.onnx has it: `value` is what the recipe calls what lies there."""

    value: str
    dtype: str
    shape: list[int]
    offset: int = -1
    graph: str = ""
    name: str = ""


@dataclass(frozen=True)
class Recipe:
    """What refresh.onnx says.

    `needed` are the source's tensors that the stored ones are made from, with dtype and shape; `pinned` those that
    decided how graphs are built, with a hash of their contents. `learned` are the names by which the framework calls
    what it trains, None where the source was a file. `outputs` are the forward graph's names of the source's outputs,
    None for what it lacks; `quantized` is export's option.
    """

    model: onnx.ModelProto
    stored: list[Stored]
    needed: dict[str, tuple[str, list[int]]]
    pinned: dict[str, str]
    structure: list[Line]
    learned: list[str] | None
    outputs: list[str | None]
    quantized: str | None

    def results(self, tensors: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Every stored value, from the source's tensors by name."""
        held = dict(tensors)
        held.update((one.name, onnx.numpy_helper.to_array(one)) for one in self.model.graph.initializer)
        for node in self.model.graph.node:
            contents = [held[name] if name else None for name in node.input]
            held.update(zip(node.output, evaluated(node, contents), strict=True))
        return {one.value: held[one.value] for one in self.stored}

    def write(self, folder: Path) -> None:
        """Writes refresh.onnx."""
        told = {
            "stored": [asdict(one) for one in self.stored],
            "needed": self.needed,
            "pinned": self.pinned,
            "structure": self.structure,
            "learned": self.learned,
            "outputs": self.outputs,
            "quantized": self.quantized,
        }
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        onnx.helper.set_model_props(model, {KEY: json.dumps(told, ensure_ascii=False)})
        (folder / RECIPE).write_bytes(model.SerializeToString(deterministic=True))


def read_recipe(folder: Path) -> Recipe:
    """What a bundle's refresh.onnx says; BundleError where it can't be read."""
    try:
        model = onnx.load(folder / RECIPE)
        told = json.loads({entry.key: entry.value for entry in model.metadata_props}[KEY])
        return Recipe(model, **{**told, "stored": [Stored(**one) for one in told["stored"]]})
    except (OSError, ValueError, KeyError, TypeError, DecodeError) as error:
        raise BundleError(f"{folder / RECIPE} can't be read ({error}); export the bundle again") from None


def recipe_of(normalized: Normalized, places: Sequence[Place]) -> Recipe:
    """The recipe for what lies at these places."""
    learned = normalized.source.learned
    writing = _Writing(normalized.tensors, None if learned is None else frozenset(learned))
    stored = [
        Stored(writing.name_of(place.origin), place.dtype, list(place.shape), place.offset, place.graph, place.name)
        for place in places
    ]
    needed = {name: normalized.tensors[name].content for name in sorted(writing.needed)}
    fixed = {
        name: one.content
        for name, one in normalized.tensors.items()
        if name not in needed and one.origin is not None and (one.origin.pinned or not writing.is_learned(name))
    }
    return Recipe(
        model=writing.model(needed),
        stored=stored,
        needed={name: (content.dtype.name, list(content.shape)) for name, content in needed.items()},
        pinned={name: digest(content) for name, content in fixed.items()},
        structure=list(normalized.structure),
        learned=None if learned is None else sorted(learned),
        outputs=_outputs(normalized),
        quantized=STRAIGHT_THROUGH if normalized.straight_through else None,
    )


def _outputs(normalized: Normalized) -> list[str | None]:
    names = [str(value.name) for value in normalized.source.model.graph.outputs]
    ours = [normalized.renamed.get(name, name) for name in names]
    return [name if name in normalized.others else None for name in ours]


@dataclass
class _Writing:
    """A recipe's graph while it is written: what it calls things by the key of their origin or content.

    Of the source's `tensors` only those that are `learned` come from outside (all where that is None).
    """

    tensors: Mapping[str, Known]
    learned: frozenset[str] | None
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)
    needed: set[str] = field(default_factory=set)

    def is_learned(self, name: str) -> bool:
        """Whether a refresh brings a new content of that tensor."""
        return self.learned is None or name in self.learned

    def name_of(self, what: Origin | np.ndarray | None) -> str:
        """What the graph calls a tensor; the nodes that make it are written before."""
        if what is None:
            return ""
        if isinstance(what, Origin) and what.is_source:
            if self.is_learned(what.name):
                self.needed.add(what.name)
                return what.name
            what = self.tensors[what.name].content
        key = what.key if isinstance(what, Origin) else digest(what)
        if key not in self.names:
            self._write(what, key)
        return self.names[key]

    def _write(self, what: Origin | np.ndarray, key: str) -> None:
        if not isinstance(what, Origin):
            self.names[key] = f"recipe/constant_{len(self.constants)}"
            self.constants.append(
                onnx.numpy_helper.from_array(np.ascontiguousarray(what).reshape(what.shape), self.names[key])
            )
            return
        node = onnx.NodeProto()
        node.CopyFrom(what.node)
        node.input.extend(self.name_of(operand) for operand in what.inputs)
        node.name = f"recipe/{node.op_type}_{len(self.nodes)}"
        common = key.rpartition(" ")[0]
        for index in range(len(node.output)):
            node.output[index] = self.names[f"{common} {index}"] = f"{node.name}/{index}"
        self.nodes.append(node)

    def model(self, needed: Mapping[str, np.ndarray]) -> onnx.ModelProto:
        """The graph; its outputs are all that its nodes make and none of them reads."""
        inputs = [
            onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(content.dtype), content.shape)
            for name, content in needed.items()
        ]
        read = {name for node in self.nodes for name in node.input}
        ends = [name for node in self.nodes for name in node.output if name not in read]
        outputs = [onnx.helper.make_value_info(name, onnx.TypeProto()) for name in ends]
        graph = onnx.helper.make_graph(self.nodes, "refresh", inputs, outputs, self.constants)
        return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
