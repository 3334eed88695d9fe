"""Where a graph's constants come from: a tensor of the source, or computed from such by a node that is recorded.

A bundle can take new weights only if the way from each weight of the source to each number that it stores is known.
Every tensor of the source gets an Origin; what is folded from known tensors gets one too, which says by which node. An
origin goes with its value through copies of the graph. A rule that looks at a content, to choose a form or to compute
in Python, pins it (`constant_of` does): a bundle stays right only while that content stays as it was.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx.reference
import onnx_ir as ir

META = "onnxplain.origin"
OPSET = 20
STRUCTURE = frozenset({"BOOL", "INT32", "INT64", "STRING"})
"""Types of tensors that say how a network is built (axes, shapes, indices), not what it has learned."""


@dataclass(eq=False)
class Origin:
    """Where a tensor comes from: `name` in the source, or output `index` of `node` over `inputs`.

    An input is another origin, a content that is always the same, or None where it is left out. `key` is the same for
    what is computed alike. `pinned` says that the content decided how a graph was built.
    """

    key: str
    name: str = ""
    node: onnx.NodeProto = field(default_factory=onnx.NodeProto)
    inputs: tuple["Origin | np.ndarray | None", ...] = ()
    index: int = 0
    pinned: bool = False

    @property
    def is_source(self) -> bool:
        """Whether it is a tensor of the source itself."""
        return not self.inputs


@dataclass(frozen=True)
class Known:
    """A content and where it comes from, None where it was made here."""

    content: np.ndarray
    origin: Origin | None = None

    @property
    def key(self) -> str:
        """The origin's key, or what stands for the content itself."""
        return self.origin.key if self.origin is not None else digest(self.content)


def known(value: ir.Value | None) -> Known | None:
    """The content of an initializer with its origin, None for absent or computed values; it isn't pinned by this."""
    if value is None or value.const_value is None or not value.is_initializer():
        return None
    return Known(value.const_value.numpy(), value.meta.get(META))


def origin_of(value: ir.Value) -> Origin | None:
    """Where an initializer comes from."""
    return value.meta.get(META)


def pin(origin: Origin | None) -> None:
    """Notes that a content, and so what it was computed from, decides how a graph is built."""
    if origin is not None and not origin.pinned:
        origin.pinned = True
        for operand in origin.inputs:
            if isinstance(operand, Origin):
                pin(operand)


def attach(value: ir.Value, origin: Origin | None) -> ir.Value:
    """The value, with its origin."""
    if origin is not None:
        value.meta[META] = origin
    return value


def mark_sources(model: ir.Model) -> dict[str, Known]:
    """Gives every initializer of a source its origin, and returns them; whole numbers are pinned from the start."""
    found: dict[str, Known] = {}
    for name, value in source_tensors(model):
        tensor = value.const_value
        if tensor is not None and tensor.dtype != ir.DataType.STRING:
            origin = Origin(f"source {name}", name, pinned=tensor.dtype.name in STRUCTURE)
            found[name] = Known(tensor.numpy(), attach(value, origin).meta[META])
    return found


def source_tensors(model: ir.Model) -> Iterator[tuple[str, ir.Value]]:
    """The initializers of all graphs by name; a name that a body uses again is numbered."""
    seen: dict[str, int] = {}
    for graph in (model.graph, *model.graph.subgraphs()):
        for value in graph.initializers.values():
            name = str(value.name)
            seen[name] = seen.get(name, 0) + 1
            yield name if seen[name] == 1 else f"{name} ({seen[name]})", value


def computed(op_type: str, *operands: Known | np.ndarray | float | Sequence[int], **attributes: Any) -> Known:
    """What a node of one output yields from known operands, with its origin; plain numbers take the first's type."""
    first = operands[0]
    kind = first.content.dtype if isinstance(first, Known) else np.float64
    given = [
        operand
        if isinstance(operand, Known)
        else Known(np.asarray(operand, kind if isinstance(operand, float) else None))
        for operand in operands
    ]
    node = onnx.helper.make_node(op_type, [], [""], **attributes)
    return folded(node, given)[0]


def _constant(content: np.ndarray | float | Sequence[int], kind: np.dtype[Any]) -> Known:
    return Known(np.asarray(content, kind if isinstance(content, float) else None))


def folded(node: onnx.NodeProto, operands: Sequence[Known | None]) -> list[Known]:
    """A node's outputs by the ONNX reference evaluator, with an origin unless all that they rest on is pinned.

    Raises whatever the evaluator does.
    """
    contents = evaluated(node, [None if operand is None else operand.content for operand in operands])
    origins = [operand.origin for operand in operands if operand is not None and operand.origin is not None]
    if all(origin.pinned for origin in origins):
        return [Known(content) for content in contents]
    bare = onnx.NodeProto(op_type=node.op_type, domain=node.domain, attribute=sorted(node.attribute, key=str))
    parts = [bare.SerializeToString(deterministic=True).hex(), *("" if one is None else one.key for one in operands)]
    bare.output.extend([""] * len(contents))
    key = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    inputs = tuple(None if one is None else one.origin or one.content for one in operands)
    return [
        Known(content, Origin(f"{key} {index}", node=bare, inputs=inputs, index=index))
        for index, content in enumerate(contents)
    ]


def evaluated(node: onnx.NodeProto, contents: Sequence[np.ndarray | None]) -> list[np.ndarray]:
    """The outputs of one node by the ONNX reference evaluator."""
    alone = onnx.NodeProto()
    alone.CopyFrom(node)
    names = ["" if content is None else f"input_{index}" for index, content in enumerate(contents)]
    outputs = [f"output_{index}" for index in range(len(node.output))]
    for kept, new in ((alone.input, names), (alone.output, outputs)):
        del kept[:]
        kept.extend(new)
    feeds = {name: content for name, content in zip(names, contents, strict=True) if content is not None}
    # Types are irrelevant to the evaluator.
    untyped: Callable[[str], onnx.ValueInfoProto] = lambda name: onnx.helper.make_value_info(name, onnx.TypeProto())  # noqa: E731
    graph = onnx.helper.make_graph([alone], "constant", list(map(untyped, feeds)), list(map(untyped, outputs)))
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", OPSET)])
    return [np.asarray(result) for result in onnx.reference.ReferenceEvaluator(model).run(None, feeds)]


def digest(content: np.ndarray) -> str:
    """A hash of an array's type, shape and content."""
    text = f"{content.dtype} {content.shape} ".encode()
    return hashlib.sha256(text + np.ascontiguousarray(content).tobytes()).hexdigest()
