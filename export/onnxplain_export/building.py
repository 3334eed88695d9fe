"""Which graphs a bundle gets: those that the chosen methods run, of the kinds that the network allows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx_ir as ir

from onnxplain.errors import ModelError, ParameterError
from onnxplain_export.check.checking import refuse_undifferentiable
from onnxplain_export.graphs import AT_LAYERS, DIFFERENTIATED, GRAPHS, PROVING, SHARING
from onnxplain_export.grids import Layer
from onnxplain_export.layers import chosen_layers, graph_name
from onnxplain_export.methods import Methods, chosen_methods, graphs_of, were_named
from onnxplain_export.normalize import Normalized


@dataclass
class Built:
    """The graphs of a bundle, the methods that run them, and why some methods aren't among them."""

    methods: dict[str, Mapping[str, Any]]
    models: dict[str, ir.Model]
    left_out: dict[str, str] = field(default_factory=dict)
    layers: list[Layer] = field(default_factory=list)

    def leave_out(self, graph: str, reason: str) -> None:
        """Drops the methods that run a graph."""
        for name in [name for name, entry in self.methods.items() if graph in graphs_of(entry)]:
            self.left_out[name] = reason
            del self.methods[name]


def build(normalized: Normalized, names: Sequence[str] | str | None, layers: Sequence[str] = ()) -> Built:
    """The methods of these names (None: those on the core graphs, "all") and their graphs.

    A method that was named and that the network doesn't allow is an error, one that was not is left out. Raises
    NoGradientError where no gradient exists although a method needs it.
    """
    built = Built(chosen_methods(names, normalized.layout is not None), {})
    pictureless = [name for name, entry in built.methods.items() if entry["pictures"] and normalized.layout is None]
    if pictureless:
        raise ModelError(
            f"{pictureless[0]} needs pictures; input {normalized.image!r} has shape {normalized.image_shape}"
        )
    if normalized.layout is None and not were_named(names) and len(normalized.image_shape) == 3:
        reason = f"it needs pictures of 1, 3 or 4 channels; input {normalized.image!r} has {normalized.image_shape}"
        allowed = chosen_methods(names, True)
        built.left_out.update({name: reason for name in allowed if name not in built.methods})
    if any(graphs_of(entry) & DIFFERENTIATED for entry in built.methods.values()):
        refuse_undifferentiable(normalized.full)
    for graph, make in GRAPHS.items():
        if not _needed(graph, built.methods):
            continue
        try:
            built.models[graph] = make(normalized)
        except ModelError as error:
            if graph in SHARING:
                continue  # the engine repeats the forward pass for each target
            if were_named(names) or graph in PROVING:
                raise
            built.leave_out(graph, str(error))
    _add_layers(built, normalized, names, layers)
    return built


def _add_layers(built: Built, normalized: Normalized, names: Sequence[str] | str | None, layers: Sequence[str]) -> None:
    """The feature layers and their graphs, where a method runs them."""
    graphs = [graph for graph in AT_LAYERS if _needed(graph, built.methods)]
    if not graphs:
        if layers:
            raise ParameterError("--layer is for class activation maps, and none of them is exported")
        return
    try:
        built.layers = chosen_layers(normalized.full, layers)
        for number, at in enumerate(built.layers):
            for graph in graphs:
                built.models[graph_name(graph, number)] = AT_LAYERS[graph](normalized, at)
    except ModelError as error:
        if were_named(names):
            raise
        built.layers = []
        for graph in graphs:
            built.leave_out(graph, str(error))


def _needed(graph: str, methods: Methods) -> bool:
    """Whether a method runs the graph, or the proof of another graph needs it."""
    graphs = frozenset[str]().union(*map(graphs_of, methods.values()))
    graph = SHARING.get(graph, graph)
    return graph in graphs or graph == "forward" or (graph == "gradient" and bool(graphs & DIFFERENTIATED))
