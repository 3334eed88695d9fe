"""A feature layer's features and gradients, as the CAM formulas take them."""

import onnx_ir as ir

from onnxplain.bundle import Layer
from onnxplain.errors import ParameterError, unknown
from onnxplain_export.emitter import Emitter
from onnxplain_export.single.scene import Scene


def chosen_layer(scene: Scene) -> Layer:
    """The layer of the parameter `layer`, "" the default one."""
    name = str(scene.parameters.get("layer") or "")
    layers = {layer.name: layer for layer in scene.bundle.layers}
    if not name:
        return next((layer for layer in layers.values() if layer.default), next(iter(layers.values())))
    if name not in layers:
        raise ParameterError(f"{unknown('layer', name, layers)}; export the model with --layer {name} for another one")
    return layers[name]


def layer_run(scene: Scene, layer: Layer) -> tuple[ir.Value, ir.Value]:
    """Features [N, K, places] and gradients [N, T, K, places]; the graph's scores are kept."""
    found = scene.assembly.embed(layer.graph, scene.feeds(layer.graph))
    if scene.bundle.graphs[layer.graph].tells_scores:
        scene.tell(found["scores"])
    return _places(scene.op, found["layer_features"], layer, 1), _places(scene.op, found["total"], layer, 2)


def _places(op: Emitter, values: ir.Value, layer: Layer, lead: int) -> ir.Value:
    """Values [`lead` axes, the layer's own axes] as [`lead` axes, K, places]; tokens of no place are left out."""
    count = layer.grid[0] * layer.grid[1]
    keep = [0] * lead
    if layer.layout == "NCHW":
        return op.Reshape(values, [*keep, -1, count])
    if layer.layout == "tokens":
        values = op.Slice(values, [layer.prefix], [layer.prefix + count], [lead])
    else:
        values = op.Reshape(values, [*keep, count, -1])
    return op.Transpose(values, perm=[*range(lead), lead + 1, lead])
