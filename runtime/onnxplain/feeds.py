"""What a batch of images and a method's parameters give to a graph's inputs."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.bundle import Bundle, Graph
from onnxplain.errors import ParameterError
from onnxplain.fills import fill_values
from onnxplain.images import Image, stack, stack_others
from onnxplain.plans import Steps
from onnxplain.summing import Feed
from onnxplain.targets import TOP, Chosen

Array = NDArray[Any]
Feeds = dict[str, Feed]


def model_feeds(batch: Sequence[Image], bundle: Bundle) -> Feeds:
    """The images and what comes with them, for the inputs of the model itself."""
    feeds = {"image": Feed(stack(batch, bundle.image), per_image=True)}
    if bundle.takes_pictures:
        feeds["picture"] = feeds["image"]
    batched = {entry.name for entry in bundle.others if entry.batched}
    for name, values in stack_others(batch, bundle).items():
        feeds[f"input {name}"] = Feed(values, per_image=name in batched)
    return feeds


def chosen_feeds(chosen: Chosen) -> Feeds:
    """The targets, or the cotangents of networks whose scores aren't class scores."""
    feeds = {"target": Feed(chosen.targets, per_image=True)}
    if chosen.cotangents is not None:
        feeds["cotangent"] = Feed(chosen.cotangents, per_image=True)
    return feeds


def method_feeds(
    graph: Graph, parameters: Mapping[str, Any], steps: Steps, values: Callable[[], Array], rows: Array, bundle: Bundle
) -> Feeds:
    """The steps and parameters of a method, for images `rows` [N, …]; `values` gives their explained values [N, …]."""
    feeds = {"steps": Feed(steps[None], per_step=True)}
    if graph.takes("sigma"):
        feeds["sigma"] = Feed(deviations_of(values(), parameters), per_image=True)
    if "seed" in parameters:
        feeds["seed"] = Feed(np.array([parameters["seed"]], np.int64))
    for name in ("baseline", "low", "high", "fill"):
        if graph.takes(name):
            if bundle.single is not None:
                around = _images_like(name, parameters, rows, bundle)
            else:
                around = rows if name == "fill" else values()
            # A graph that serves several methods has the input even where this one has no such parameter.
            content = fill_values(name, parameters.get(name, 0.0), around, bundle, parameters.get("seed", 0))
            feeds[name] = Feed(content, per_image=len(content) == len(around))
    for entry in graph.inputs:
        value = parameters.get(entry.role)
        if entry.role not in feeds and isinstance(value, int | float):
            each = entry.shape[:1] == ("N",)
            feeds[entry.role] = Feed(np.full(len(rows) if each else 1, value, np.float32), per_image=each)
    return feeds


def top_class_feeds(graph: Graph, count: int, bundle: Bundle) -> Feeds:
    """What a single file is fed where only the scores of `count` images are wanted: the top class, and defaults."""
    feeds: Feeds = {"target": Feed(np.full((count, 1), TOP), per_image=True)}
    method = next(iter(bundle.methods.values()))
    defaults = {name: entry.default for name, entry in method.parameters.items()}
    rows = np.zeros((count, *(size if isinstance(size, int) else 1 for size in bundle.image.shape[1:])), np.float32)
    return feeds | method_feeds(graph, defaults, np.zeros((1, 0), np.float32), lambda: rows, rows, bundle)


def _images_like(name: str, parameters: Mapping[str, Any], rows: Array, bundle: Bundle) -> Array:
    """What a single file's `baseline` or `fill` is made for: the images, or anything of their shape for a picture."""
    if not bundle.takes_pictures:
        return rows
    if isinstance(parameters[name], str) and parameters[name] not in ("black", "white"):
        raise ParameterError(
            f"{name}={parameters[name]!r} is made of the image that this file prepares inside; "
            "give a number, black, white or an array"
        )
    return np.zeros((1, *(size if isinstance(size, int) else 1 for size in bundle.value.shape[1:])), np.float32)


def deviations_of(values: Array, parameters: Mapping[str, Any]) -> NDArray[np.float32]:
    """The noise's standard deviation for each image [N] of explained values [N, …], in their units.

    `noise` is a share of each image's own range, so that a map doesn't depend on its neighbours; with `noise_of`
    "batch" of the range of all images in the call, as FastEstimator has it, with "absolute" it is σ itself.
    """
    noise, share_of = parameters["noise"], parameters.get("noise_of", "image")
    if share_of == "absolute" or not len(values):
        return np.full(len(values), noise, np.float32)
    if share_of == "batch":
        return np.full(len(values), noise * (values.max() - values.min()), np.float32)
    axes = tuple(range(1, values.ndim))
    return (noise * (values.max(axis=axes) - values.min(axis=axes))).astype(np.float32)
