"""The loops of the CAM family: maps of a feature layer, brought to the picture's size.

The formulas are in onnxplain.cams; here is where their features, gradients and scores come from.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.bundle import Layer
from onnxplain.cams import (
    ablationcam,
    find_cam,
    gradcam,
    guided,
    in_layout,
    on_grid,
    positive,
    scorecam,
    scorecam_masks,
    single_places,
    upsampled,
)
from onnxplain.errors import BundleError, ParameterError, unknown
from onnxplain.feeds import Feeds
from onnxplain.fills import fill_values
from onnxplain.loops.registry import loop
from onnxplain.planner import chunks
from onnxplain.summing import Feed, run_chunk
from onnxplain.work import Work

Array = NDArray[Any]

LAYER_SHARE = 0.02
"""Of the progress, for the one run of the layer's graph before many of other graphs."""


@loop("cam")
def cam(work: Work) -> Array:
    """The maps that the formula named by the finish rule makes of a layer's features and gradients."""
    work.map_shape  # noqa: B018 (an error where there are no pictures)
    layer = chosen_layer(work)
    features, gradients = _layer_run(work, layer, ("layer_features", "total"), 1.0)
    return _as_pictures(work, find_cam(work.method.finish)(features, gradients))


@loop("scorecam")
def score_cam(work: Work) -> Array:
    """Score-CAM: each channel weighs as much as the score that the picture keeps when seen through it alone.

    `channels`, unless 0, takes only so many of each image's channels, those that vary most over the picture.
    """
    layer = chosen_layer(work)
    (features,) = _layer_run(work, layer, ("layer_features",), LAYER_SHARE)
    empty = np.broadcast_to(fill_values("fill", work.parameters["fill"], work.rows, work.bundle), work.rows.shape)
    lowest = work.explained_at(empty, np.arange(work.count))
    maps = np.zeros((*work.chosen.targets.shape, *layer.grid))
    for image in range(work.count):
        channels = _most_varying(features[image], int(work.parameters["channels"]))
        own = features[image, channels]
        gains = [
            _masked_scores(work, own[part], empty[image], image, len(channels)) - lowest[image]
            for part in _parts(len(channels), work, "forward")
        ]
        maps[image] = scorecam(own[None], np.concatenate(gains).T[None])[0]
    return _as_pictures(work, maps)


@loop("ablation_cam")
def ablation_cam(work: Work) -> Array:
    """Ablation-CAM: each channel weighs as much as the score loses without it."""
    layer = chosen_layer(work)
    tail, axis = _tail(work, layer), 1 if layer.layout == "NCHW" else -1
    features, raw = _layer_run(work, layer, ("layer_features",), LAYER_SHARE, keep=True)
    count = features.shape[1]
    ablated = np.empty((*work.chosen.targets.shape, count))
    for image in range(work.count):
        for part in _parts(count, work, tail):
            rows = np.repeat(raw[image][None], part.stop - part.start, axis=0)
            channels = np.moveaxis(rows, axis, 1)
            channels[np.arange(len(rows)), np.arange(part.start, part.stop)] = 0
            ablated[image, :, part] = _explained_behind(work, tail, rows, image).T
            work.advance((1 - LAYER_SHARE) * len(rows) / count)
    return _as_pictures(work, ablationcam(features, work.explained, ablated))


@loop("recipro_cam")
def recipro_cam(work: Work) -> Array:
    """Recipro-CAM: the score that the network finds with the features of one place alone, for each place."""
    layer = chosen_layer(work)
    tail, count = _tail(work, layer), layer.grid[0] * layer.grid[1]
    features, raw = _layer_run(work, layer, ("layer_features",), LAYER_SHARE, keep=True)
    maps = np.empty((*work.chosen.targets.shape, count))
    for image in range(work.count):
        before = raw[image][: layer.prefix] if layer.prefix else None
        for part in _parts(count, work, tail):
            rows = in_layout(single_places(features[image], part.start, part.stop), layer.layout, before)
            maps[image, :, part] = _explained_behind(work, tail, rows, image).T
            work.advance((1 - LAYER_SHARE) * len(rows) / count)
    return _as_pictures(work, maps.reshape(*work.chosen.targets.shape, *layer.grid))


@loop("guided_gradcam")
def guided_gradcam(work: Work) -> Array:
    """Guided Grad-CAM: the positive Grad-CAM at the picture's size times the guided gradient, [N, T, …]."""
    work.map_shape  # noqa: B018 (an error where there are no pictures)
    if work.bundle.inside is not None:
        raise ParameterError(f"{work.method.name} needs gradients at the picture, not at {work.bundle.inside.name!r}")
    layer = chosen_layer(work)
    features, gradients = _layer_run(work, layer, ("layer_features", "total"), 0.5)
    maps = upsampled(positive(gradcam(features, gradients)), work.size, "bilinear")
    (total,) = work.collect(("total",), graph="gradient.guided", share=0.5)
    return guided(maps, total, str(work.bundle.image.layout)).astype(np.float32)


def chosen_layer(work: Work) -> Layer:
    """The layer of the parameter `layer`, "" the default one; ParameterError for one that wasn't exported."""
    name = str(work.parameters.get("layer") or "")
    layers = {layer.name: layer for layer in work.bundle.layers}
    if not layers:
        raise BundleError(f"{work.bundle.path} has no feature layer for {work.method.name}; export the model again")
    if not name:
        return next((layer for layer in layers.values() if layer.default), next(iter(layers.values())))
    if name not in layers:
        raise ParameterError(f"{unknown('layer', name, layers)}; export the model with --layer {name} for another one")
    return layers[name]


def _layer_run(work: Work, layer: Layer, outputs: tuple[str, ...], share: float, keep: bool = False) -> list[Array]:
    """Outputs of the layer's graph as [N, …, K, h, w]; with `keep` also the first in the layer's own axes, last."""
    found = work.collect(outputs, graph=layer.graph, share=share)
    shaped = [on_grid(values, layer.layout, layer.grid, layer.prefix) for values in found]
    return [*shaped, found[0]] if keep else shaped


def _as_pictures(work: Work, maps: Array) -> Array:
    """Maps [N, T, h, w] of the layer as maps of the picture, with one channel where its layout has them."""
    maps = positive(maps) if work.parameters["relu"] else maps
    maps = upsampled(maps, work.size, str(work.parameters["upsample"]))
    work.map_shape  # noqa: B018 (an error where there are no pictures)
    return np.expand_dims(maps, 2 if work.bundle.image.layout == "NCHW" else -1).astype(np.float32)


def _most_varying(features: Array, most: int) -> NDArray[np.int64]:
    """The channels of one image's features [K, h, w] with the largest deviation, in their own order; all for 0."""
    if not 0 < most < len(features):
        return np.arange(len(features))
    deviations = features.std(axis=(1, 2), dtype=np.float64)
    return np.sort(np.argsort(-deviations, kind="stable")[:most])


def _parts(count: int, work: Work, graph: str) -> Iterator[slice]:
    """Slices of so many rows as one run of a graph takes."""
    per_run = work.rows_per_run(work.bundle.graphs[graph], work.chosen.count)
    yield from (chunk.steps for chunk in chunks(1, count, per_run))


def _masked_scores(work: Work, features: Array, empty: Array, image: int, count: int) -> Array:
    """The scores [M, T] of one image seen through the masks of some channels, out of `count` of them."""
    masks = scorecam_masks(features, work.size)
    masks = masks[:, None] if work.bundle.image.layout == "NCHW" else masks[..., None]
    rows = masks * work.rows[image] + (1 - masks) * empty
    scores = work.explained_at(rows, np.full(len(rows), image))
    work.advance((1 - LAYER_SHARE) * len(rows) / count)
    return scores


def _tail(work: Work, layer: Layer) -> str:
    if layer.tail is None:
        raise BundleError(f"{work.bundle.path} lacks what lies behind {layer.name!r}; export {work.method.name} again")
    return layer.tail


def _explained_behind(work: Work, tail: str, features: Array, image: int) -> Array:
    """What is explained [M, T] of one image with other features [M, …] at the layer."""
    graph, images = work.bundle.graphs[tail], np.full(len(features), image)
    feeds: Feeds = {
        role: Feed(feed.values[images], per_image=True) if feed.per_image else feed
        for role, feed in work.feeds.items()
        if graph.takes(role) or any(entry.key == role for entry in graph.inputs)
    }
    feeds["layer"] = Feed(features.astype(np.float32, copy=False), per_image=True)
    (whole,) = chunks(len(features), 1, len(features))
    (scores,) = run_chunk(work.sessions, graph, ["scores"], feeds, whole)
    return work.explained_of(scores, images)
