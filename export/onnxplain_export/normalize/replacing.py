"""Puts values in the place of a node's outputs."""

from collections.abc import Sequence

import onnx_ir as ir


def replace_node(graph: ir.Graph, node: ir.Node, results: Sequence[ir.Value]) -> None:
    """Puts `results` in the place of the node's outputs; the graph's own outputs keep their names."""
    for output, result in zip(node.outputs, results, strict=True):
        value = result
        if output.is_graph_output():
            identity = ir.node("Identity", [result], name=f"{node.name}/{output.name}")
            graph.append(identity)
            value = identity.outputs[0]
            value.type, value.shape = output.type, output.shape
        ir.convenience.replace_all_uses_with(output, value, replace_graph_outputs=True)
        if value is not result:
            value.name, output.name = output.name, f"{output.name}/replaced"
    graph.remove(node, safe=True)


def own_name(node: ir.Node) -> str:
    """The name of the first output that has one: no other node's."""
    return str(next(value.name for value in node.outputs if value.name))
