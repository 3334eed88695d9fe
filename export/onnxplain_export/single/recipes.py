"""How a method's map comes out of the bundle's graphs in one run: one recipe for each of the engine's loops.

What isn't here depends on itself (guided integrated gradients), runs the network on what it found (Score-CAM), or
segments pictures (XRAI).
"""

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from onnxplain.errors import ParameterError
from onnxplain.integration import points_of
from onnxplain.loops.paths import expected_draws, points_of_noise
from onnxplain.plans import Steps, find_plan
from onnxplain.segments import grid
from onnxplain.solvers import find_solver
from onnxplain_export.single.cams import CAMS, positive, upsampled
from onnxplain_export.single.layers import chosen_layer, layer_run
from onnxplain_export.single.scene import Scene
from onnxplain_export.single.summing import combined, summed

Recipe = Callable[[Scene], ir.Value]

RECIPES: dict[str, Recipe] = {}
"""By the loop that a method names; each gives the map [N, T, …]."""


def recipe(name: str) -> Callable[[Recipe], Recipe]:
    """Registers a recipe; a name can be taken once."""

    def register(function: Recipe) -> Recipe:
        if name in RECIPES:
            raise ValueError(f"the recipe {name!r} is registered twice")
        RECIPES[name] = function
        return function

    return register


@recipe("sum")
def the_sum(scene: Scene) -> ir.Value:
    """Σ total / Σ norm over the plan's steps, 0 where the norm is 0."""
    graph = scene.bundle.graphs[scene.method.graph]
    if graph.columns is None:
        found = scene.assembly.embed(graph.name, scene.feeds(graph.name))
        if graph.tells_scores:
            scene.tell(found["scores"])
        return mean(scene, found["total"], found["norm"])
    return mean(scene, *summed(scene, graph.name, ("total", "norm"), planned(scene)))


@recipe("input_x_gradient")
def input_x_gradient(scene: Scene) -> ir.Value:
    """value · gradient."""
    gradient = the_sum(scene)
    return scene.op.Mul(scene.op.Unsqueeze(scene.value, [1]), gradient)


@recipe("smoothgrad_squared")
def smoothgrad_squared(scene: Scene) -> ir.Value:
    """The mean square of the gradient at noisy copies."""
    squares, norm = summed(scene, "noise", ("squares", "norm"), planned(scene))
    return scene.op.Div(squares, norm)


@recipe("vargrad")
def vargrad(scene: Scene) -> ir.Value:
    """Mean square less squared mean; what falls below 0 by rounding is 0."""
    op = scene.op
    total, squares, norm = summed(scene, "noise", ("total", "squares", "norm"), planned(scene))
    average = op.Div(total, norm)
    return op.Max(op.Sub(op.Div(squares, norm), op.Mul(average, average)), 0.0)


@recipe("integrated_gradients")
def integrated_gradients(scene: Scene) -> ir.Value:
    """(x − b)·Σ_k w_k g(b + α_k (x − b))."""
    table = points_of(scene.parameters["rule"], scene.parameters["steps"]).astype(np.float32)
    return summed(scene, "path", ("total",), table)[0]


@recipe("smoothgrad_integrated")
def smoothgrad_integrated(scene: Scene) -> ir.Value:
    """The mean integrated gradients of noisy copies."""
    names = ("rule", "steps", "samples")
    return summed(scene, "noise", ("total",), points_of_noise(*(scene.parameters[name] for name in names)))[0]


@recipe("expected_gradients")
def expected_gradients(scene: Scene) -> ir.Value:
    """The mean of (x̃ − b)·g(b + α (x̃ − b)) over random points α, from one baseline."""
    samples, ones = scene.parameters["samples"], np.ones(scene.parameters["samples"])
    alpha, _ = expected_draws(samples, 1, scene.parameters["seed"], False)
    if scene.parameters["noise"] or "noise" in scene.free:
        table = np.stack([np.arange(samples), alpha, ones, ones], axis=1).astype(np.float32)
        total = summed(scene, "noise", ("total",), table)[0]
    else:
        total = summed(scene, "path", ("total",), np.stack([alpha, ones], axis=1).astype(np.float32))[0]
    return scene.op.Div(total, float(samples))


@recipe("cam")
def cam(scene: Scene) -> ir.Value:
    """The formula over a layer's features and gradients, at the picture's size."""
    formula = CAMS.get(scene.method.finish)
    if formula is None:
        raise ParameterError(f"{scene.method.name} has no form in one graph: {REASONS['cam']}")
    layer = chosen_layer(scene)
    maps = formula(scene.op, *layer_run(scene, layer))
    if scene.parameters["relu"]:
        maps = positive(scene.op, maps)
    maps = upsampled(scene.op, maps, layer.grid, scene.size, str(scene.parameters["upsample"]))
    return scene.op.Unsqueeze(maps, [scene.map_axes])


@recipe("guided_gradcam")
def guided_gradcam(scene: Scene) -> ir.Value:
    """The positive Grad-CAM at the picture's size times the guided gradient of every channel."""
    op, layer = scene.op, chosen_layer(scene)
    maps = positive(op, CAMS["gradcam"](op, *layer_run(scene, layer)))
    maps = op.Unsqueeze(upsampled(op, maps, layer.grid, scene.size, "bilinear"), [scene.map_axes])
    guided = scene.assembly.embed("gradient.guided", scene.feeds("gradient.guided"))
    return op.Mul(maps, guided["total"])


LINEAR = ("shapley", "ridge")
"""The solvers whose values are weighted sums of the scores."""


@recipe("solve")
def solve(scene: Scene) -> ir.Value:
    """Every pixel's segment's value, of solvers whose values are linear in the scores, for segments on a grid."""
    name, parameters = scene.method.finish, scene.parameters
    if name not in LINEAR:
        raise ParameterError(f"{scene.method.name} has no form in one graph: {REASONS['solve']}")
    if not isinstance(parameters["segments"], str) or parameters["segments"] != "grid":
        raise ParameterError("a single file's segments are a grid's: segments must be 'grid'")
    height, width = scene.size
    if int(parameters["cells"]) > min(height, width):
        raise ParameterError(f"cells={parameters['cells']} is out of range for an image of {height}x{width}")
    segments = grid(int(parameters["cells"]), height, width)
    solver = find_solver(name)
    design = solver.design(parameters, int(segments.max()) + 1)
    # What each score adds to each value: the values of scores that are 1 in one place.
    weights = solver.solve(design, np.eye(len(design.states)), parameters).T.astype(np.float32)
    pixels = scene.op.constant(segments[None], np.int64)
    values = combined(scene, scene.method.graph, design.states, weights, segments=pixels)
    return scene.op.Unsqueeze(scene.op.Gather(values, segments, axis=2), [scene.map_axes])


REASONS = {
    "cam": "it takes a singular vector, for which ONNX has no operator",
    "blur_integrated_gradients": "the engine blurs the image between the runs",
    "guided_integrated_gradients": "each of its steps depends on the one before",
    "xrai": "it segments the picture",
    "solve": "its values are no weighted sum of the scores of masked images",
    "scorecam": "the layer's features become the masks of further runs",
    "ablation_cam": "it runs the network once for every channel of a layer",
    "recipro_cam": "it runs the network once for every place of a layer",
    "detected": "it needs the scores of the detector on the picture first",
}
"""Why a loop has no recipe."""


def planned(scene: Scene) -> Steps:
    """The step table of the method's plan."""
    return find_plan(scene.method.plan).rule(scene.parameters, *scene.size)


def mean(scene: Scene, total: ir.Value, norm: ir.Value) -> ir.Value:
    """total / norm, and 0 where norm is 0."""
    op = scene.op
    nothing = op.Equal(norm, 0.0)
    return op.Where(nothing, 0.0, op.Div(total, op.Where(nothing, 1.0, norm)))
