"""Every epoch shows the same pictures, with maps that are those of explain and cost what was said."""

from collections import Counter

import numpy as np
import pytest
import torch
from onnx import TensorProto

import small_models
from onnxplain.display.fastestimator import display_pixels
from onnxplain.errors import ParameterError
from onnxplain.fills import RANDOM_DRAWS
from onnxplain.pictures import read_picture
from onnxplain.random import normal, uniform
from onnxplain.sessions import Sessions
from onnxplain.tracking import SaliencyTracker
from onnxplain.tracking.maps import COLUMNS
from onnxplain.tracking.saliency import METHODS
from onnxplain_export import export
from quadratic import SHAPE, gradient, top_class
from tracked_pictures import PICTURES, TRUE, rows_of
from tracked_pictures import bundle as bundle
from tracked_pictures import honest as honest
from tracked_pictures import images as images
from tracked_pictures import quadratic as quadratic

HEADS = ["class", "prediction", "picture", "highlight", "gradient", "smoothed", "integrated", "smoothed + integrated"]
FEW = {
    "smoothgrad": {"samples": 2},
    "integrated_gradients": {"steps": 3},
    "smoothgrad_integrated": {"samples": 2, "steps": 3},
}
BASELINES = {"baseline": "random", "baselines": 3}


def plain(columns):
    """The columns' heads without what follows their names."""
    return [head.partition(",")[0] for head in columns]


def test_every_epoch_shows_the_same_pictures(honest):
    pictures = [read_picture(path) for path in PICTURES]
    rows = rows_of(pictures)
    tracker = SaliencyTracker(3, methods="smoothgrad", parameters={"smoothgrad": {"samples": 2}})
    shown = []
    for epoch in (1, 2, 3):
        tracker.epoch_begin()
        order = np.roll(np.arange(5), -epoch)  # shuffled anew each epoch
        for start in (0, 2, 4):
            part = order[start : start + 2]
            tracker.collect(torch.from_numpy(rows[part]), torch.from_numpy(part))
        shown.append(tracker.show(honest, epoch))
    for maps in shown:
        assert maps.labels == ("one", "two", "three")
        np.testing.assert_array_equal(np.concatenate([image.row for image in maps.images]), rows[1:4])
        np.testing.assert_array_equal(maps.pictures, pictures[1:4])
    assert tracker.shown == {"eval": [1, 2, 3]}
    first, last = (maps.results["smoothgrad"].attribution for maps in (shown[0], shown[2]))
    np.testing.assert_array_equal(first, last)


def test_maps_scores_and_predictions_are_those_of_explain(honest):
    maps = SaliencyTracker((PICTURES, TRUE), parameters=FEW).show(honest, 1)
    for method in METHODS:
        expected = honest.explain(PICTURES, method, **FEW.get(method, {}))
        np.testing.assert_allclose(maps.results[method].attribution, expected.attribution, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(maps.scores, honest.explain(PICTURES).scores)
    assert maps.predictions == maps.labels == ("zero", "one", "two", "three", "four")
    columns = maps.columns()
    assert plain(columns) == HEADS
    assert list(columns)[5:] == [
        "smoothed, 2\u00a0samples",
        "integrated, 3\u00a0steps",
        "smoothed + integrated, 2\u00a0×\u00a03\u00a0steps",
    ]
    assert columns["class"] == list(maps.labels)
    confidence = honest.explain(PICTURES).probabilities.max(axis=1)
    assert columns["prediction"] == [
        f"{name} ({share:.0%})" for name, share in zip(maps.predictions, confidence, strict=True)
    ]
    last = honest.explain(PICTURES, METHODS[-1], **FEW[METHODS[-1]])
    np.testing.assert_array_equal(columns["highlight"], last.overlay())
    np.testing.assert_array_equal(columns["gradient"], honest.explain(PICTURES).heatmap())


def test_alone_is_as_in_a_batch(honest, quadratic, images):
    for explainer, samples in ((honest, PICTURES), (quadratic, images)):
        together = SaliencyTracker(samples, parameters=FEW).show(explainer, 1)
        alone = SaliencyTracker(samples[2:3], parameters=FEW).show(explainer, 1)
        for method in METHODS:
            found, expected = alone.results[method].attribution[0], together.results[method].attribution[2]
            np.testing.assert_allclose(found, expected, atol=1e-6 * np.abs(expected).max(), rtol=0)


@pytest.mark.parametrize("left_out", COLUMNS[:4])
def test_each_column_is_switchable(honest, left_out):
    columns = [column for column in COLUMNS if column != left_out]
    maps = SaliencyTracker((PICTURES[:2], TRUE[:2]), parameters=FEW, columns=columns).show(honest, 1)
    assert plain(maps.columns()) == [head for head in HEADS if head != left_out]


@pytest.mark.parametrize("left_out", METHODS)
def test_each_map_is_switchable(honest, left_out):
    methods = [method for method in METHODS if method != left_out]
    few = {method: FEW[method] for method in methods if method in FEW}
    maps = SaliencyTracker(PICTURES[:2], methods=methods, parameters=few).show(honest, 1)
    heads = [head for head, method in zip(HEADS[4:], METHODS, strict=True) if method != left_out]
    assert plain(maps.columns()) == ["prediction", "picture", "highlight", *heads]
    last = honest.explain(PICTURES[:2], methods[-1], **few.get(methods[-1], {}))
    np.testing.assert_array_equal(maps.columns()["highlight"], last.overlay())


def test_without_maps_the_pictures_alone_are_shown(honest):
    maps = SaliencyTracker(PICTURES[:2], methods="gradient", columns="picture").show(honest, 1)
    assert list(maps.columns()) == ["picture"]


def test_any_method_of_the_bundle_is_shown_and_its_cost_told_afterwards(honest):
    tracker = SaliencyTracker(PICTURES[:2], methods=["occlusion"], parameters={"occlusion": {"window": 32}})
    with pytest.raises(ParameterError, match=r"what occlusion costs is up to the network: TrackedMaps\.rows"):
        tracker.rows  # noqa: B018
    maps = tracker.show(honest, 1)
    assert list(maps.columns())[-1] == "occlusion"
    assert maps.rows == 9
    with pytest.raises(ParameterError, match="did you mean 'occlusion'"):
        SaliencyTracker(PICTURES, methods=["oclusion"]).show(honest, 1)


def test_targets_are_each_pictures_or_all_ones(honest):
    for targets, expected in ((None, [0, 1]), ("seven", [7, 7]), ([3, "two"], [3, 2]), (np.array([5, 6]), [5, 6])):
        tracker = SaliencyTracker(PICTURES[:2], methods="gradient", targets=targets)
        assert tracker.show(honest, 1).results["gradient"].targets.tolist() == expected
        assert SaliencyTracker.from_bytes(tracker.to_bytes()).targets == tracker.targets


def gradients_fed(monkeypatch):
    """Counts, by graph, the rows that sessions are fed: images times steps."""
    fed, run = Counter(), Sessions.run

    def counted(self, graph, outputs, feeds):
        roles = {entry.role: feeds[entry.name] for entry in graph.inputs}
        fed[graph.name] += len(roles["image"]) * (roles["steps"].shape[1] if "steps" in roles else 1)
        return run(self, graph, outputs, feeds)

    monkeypatch.setattr(Sessions, "run", counted)
    return fed


@pytest.mark.parametrize(
    ("options", "cost"),
    [
        ({}, [1, 25, 50, 250]),
        ({"preset": "fastestimator"}, [1, 25, 100, 501]),
        ({"parameters": FEW}, [1, 2, 3, 6]),
        ({"parameters": FEW, "preset": "fastestimator"}, [1, 2, 3, 4]),
        ({"parameters": {"integrated_gradients": {"steps": 5, **BASELINES}}}, [1, 25, 15, 250]),
        ({"methods": ("gradient", "smoothgrad")}, [1, 25]),
    ],
    ids=str,
)
def test_an_epoch_costs_what_is_said(monkeypatch, quadratic, images, options, cost):
    tracker = SaliencyTracker(images, keep_film=False, **options)
    assert list(tracker.cost().values()) == cost
    assert tracker.rows == sum(cost)
    fed = gradients_fed(monkeypatch)
    maps = tracker.show(quadratic, 1)
    assert maps.rows == sum(cost)
    looks = fed.pop("forward", 0)
    assert sum(fed.values()) == len(images) * sum(cost)
    assert looks <= len(images)  # once, for the scores


def visual_map(maps):
    """SaliencyNet's: |.| summed over channels, from the minimum to the "lower" 99th percentile of each image."""
    total = np.abs(maps).sum(axis=1)
    ordered = np.sort(total.reshape(len(total), -1), axis=1)
    low, high = ordered[:, 0, None, None], ordered[:, int(0.99 * (ordered.shape[1] - 1)), None, None]
    return np.clip((total - low) / (high - low), 0, 1)


def fastestimators_maps(images, samples, points, draws, steps):
    """What its trace computes, with our draws of noise and baselines."""
    top, low, high = top_class(images), float(images.min()), float(images.max())

    def integrated(count, draw):
        baseline = low + uniform(0, [RANDOM_DRAWS + draw], SHAPE) * (high - low)
        alphas = np.linspace(0, 1, count)
        return sum(gradient(baseline + alpha * (images - baseline), top) for alpha in alphas) * (images - baseline)

    clean = gradient(images, top)
    noisy = [images + 0.15 * (high - low) * normal(0, [draw], SHAPE) for draw in range(samples - 1)]
    return {
        "gradient": clean,
        "smoothed": clean**2 + sum(gradient(each, top) ** 2 for each in noisy),
        "integrated": integrated(points, 0),
        "smoothed + integrated": clean**2 + sum(integrated(steps, draw) ** 2 for draw in range(draws - 1)),
    }


def test_the_preset_gives_fastestimators_maps_and_highlight(quadratic, images):
    maps = SaliencyTracker((images, [5, 6, 7]), preset="fastestimator").show(quadratic, 1)
    columns = {name.partition(",")[0]: entries for name, entries in maps.columns().items()}
    assert list(columns) == HEADS
    expected = fastestimators_maps(images.astype(np.float64), 25, 100, 6, 100)
    for name, attribution in expected.items():
        np.testing.assert_allclose(columns[name], visual_map(attribution), atol=1e-4)
    s, x, low = visual_map(expected["smoothed + integrated"])[:, None], images.astype(np.float64), images.min()
    lit = 0.3 * (s * (x - low) + low) + 0.3 * x + 0.4 * s * (x.max() - low) + low
    for found, one in zip(columns["highlight"], lit, strict=True):
        np.testing.assert_allclose(found.astype(int), display_pixels(np.moveaxis(one, 0, -1)), atol=1)
    np.testing.assert_array_equal(columns["picture"][2], display_pixels(np.moveaxis(images[2], 0, -1)))
    assert columns["prediction"] == [str(each) for each in top_class(images)]
    assert columns["class"] == ["5", "6", "7"]


def test_maps_are_due_at_the_first_epoch_and_every_few():
    assert [epoch for epoch in range(1, 13) if SaliencyTracker().due(epoch)] == [1, 5, 10]
    assert [epoch for epoch in range(1, 5) if SaliencyTracker(every=1).due(epoch)] == [1, 2, 3, 4]
    with pytest.raises(ParameterError, match="epoch must be a whole number of at least 1, not 0"):
        SaliencyTracker().due(0)


def test_a_bundle_is_opened_from_its_path_and_a_short_epoch_settles_what_there_is(bundle, honest):
    rows = rows_of([read_picture(path) for path in PICTURES])
    tracker = SaliencyTracker(100, methods="gradient")
    tracker.collect(rows[:2])
    assert len(tracker.show(bundle, 1)) == 2
    tracker.collect(rows[2:])
    maps = tracker.show(honest, 5)
    assert len(maps) == 2
    assert maps.labels is None
    assert "class" not in maps.columns()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every": 0}, "every must be a whole number of at least 1, not 0"),
        ({"methods": ()}, "methods=.* at least one"),
        ({"methods": ("gradient", "gradient")}, "names a method twice"),
        ({"columns": ("class", "picture", "map")}, "unknown column 'map'; did you mean 'maps'"),
        ({"columns": ("class", "prediction")}, "nothing would be seen"),
        ({"parameters": {"smothgrad": {}}}, "did you mean 'smoothgrad'"),
        ({"parameters": {"smoothgrad": 3}}, r"parameters\['smoothgrad'\] must be a mapping"),
        ({"preset": "captum"}, "preset='captum'"),
        ({"label_mapping": {}}, "label_mapping must be"),
        ({"label_mapping": {"a": 1, "b": 1}}, "two names for the class 1: 'a' and 'b'"),
        ({"label_mapping": {"a": [1]}}, r"label_mapping\['a'\] must be a class"),
        ({"targets": [[1, 2]]}, "one target of each picture"),
        ({"sinks": [3]}, "int is no sink"),
    ],
    ids=str,
)
def test_what_can_not_be_is_an_error(options, message):
    with pytest.raises(ParameterError, match=message):
        SaliencyTracker(**options)


def test_memory_is_bounded_as_asked(honest):
    with pytest.raises(ParameterError, match="memory"):
        SaliencyTracker(PICTURES[:1], methods="gradient", memory="1KB").show(honest, 1)


def test_a_network_whose_input_is_no_picture_is_an_error(tmp_path):
    weights = {"a": np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)}
    shapes = {"inputs": [("x", TensorProto.FLOAT, ["N", 4])], "outputs": [("y", TensorProto.FLOAT, ["N", 3])]}
    flat = small_models.model([small_models.node("MatMul", ["x", "a"], ["y"])], weights, **shapes)
    bundle = export(flat, tmp_path / "flat.explain", methods=["gradient"])
    with pytest.raises(ParameterError, match="input is no picture"):
        SaliencyTracker(np.ones((2, 4)), methods="gradient").show(bundle, 1)
