import csv
import importlib.util
import json
import os
from dataclasses import replace

import cv2
import numpy as np
import onnx
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from metric_subjects import measuring_bundle
from onnxplain import Explainer, ParameterError
from onnxplain.metrics import evaluate, measure
from onnxplain.metrics.evaluation import TOGETHER
from onnxplain.metrics.statistics import summarise
from onnxplain.presets import PRESETS, Preset
from onnxplain_export import export
from toy_bundle import scores_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return measuring_bundle(tmp_path_factory.mktemp("toy") / "toy.explain")


@pytest.fixture(scope="module")
def linear(tmp_path_factory):
    return Explainer(measuring_bundle(tmp_path_factory.mktemp("linear") / "toy.explain", linear=True), device="cpu")


FAST = {"deletion": {"steps": 4}, "insertion": {"steps": 4, "fill": 0.0}}


# One result.


def test_a_linear_bundle_scores_as_theory_says(linear, rows):
    gradient = linear.explain(rows, "gradient", 2)
    contributions = linear.explain(rows, "integrated_gradients", 2, steps=3)
    assert_allclose(measure(linear, contributions, "faithfulness", score="logits", steps=9), 1, atol=1e-5)
    assert_allclose(measure(linear, contributions, "completeness"), 0, atol=1e-4)
    assert_allclose(measure(linear, contributions, "infidelity"), 0, atol=1e-7)
    assert_allclose(measure(linear, gradient, "infidelity"), 0, atol=1e-7)
    assert_allclose(measure(linear, gradient, "max_sensitivity"), 0, atol=1e-6)
    with pytest.raises(ParameterError, match="completeness needs maps of contributions"):
        measure(linear, gradient, "completeness")


def test_the_baseline_of_the_map_is_that_of_its_metrics(explainer, rows):
    result = explainer.explain(rows, "integrated_gradients", 1, baseline=0.5, steps=4)
    assert_allclose(measure(explainer, result, "completeness"), 0, atol=1e-3)
    empty = np.full_like(rows, 0.5)
    gap = scores_of(empty)[:, 1] - scores_of(empty * 0)[:, 1]
    assert_allclose(measure(explainer, result, "completeness", baseline=0.0), np.abs(gap), rtol=1e-3)


def test_several_baselines_share_completeness(explainer, rows):
    """The mean of path integrals from two baselines adds up to the score above the baselines' mean score."""
    starts = np.random.default_rng(1).normal(size=(2, 3, 8, 8)).astype(np.float32)
    halves = [explainer.explain(rows, "integrated_gradients", 1, baseline=start, steps=4) for start in starts]
    mean = np.mean([half.attribution for half in halves], axis=0)
    both = replace(halves[0], attribution=mean, parameters={"baseline": starts[None], "baselines": 1, "seed": 0})
    assert_allclose(measure(explainer, both, "completeness"), 0, atol=1e-3)
    assert (measure(explainer, replace(both, parameters=halves[0].parameters), "completeness") > 0.1).all()


def test_deletion_asks_for_the_probability_of_the_target(explainer, rows):
    result = explainer.explain(rows, "gradient", [0, 1, 2, 3, 0])
    pixels = np.abs(result.attribution).sum(axis=1).reshape(5, -1)
    order = np.argsort(-pixels, axis=1)
    curves = []
    for count in (0, 16, 32, 48, 64):
        changed = rows.reshape(5, 3, -1).copy()
        for image in range(5):
            changed[image][:, order[image, :count]] = 0
        powers = np.exp(scores_of(changed.reshape(rows.shape)))
        curves.append((powers / powers.sum(axis=1, keepdims=True))[np.arange(5), result.targets])
    expected = np.trapezoid(curves, dx=0.25, axis=0)
    assert_allclose(measure(explainer, result, "deletion", steps=4), expected, rtol=1e-4)


def test_several_targets_have_a_value_each(explainer, rows):
    both = measure(explainer, explainer.explain(rows, "gradient", [[1, 3]] * 5), "class_sensitivity")
    deletion = measure(explainer, explainer.explain(rows, "gradient", [[1, 3]] * 5), "deletion", steps=4)
    assert both.shape == deletion.shape == (5, 2)
    assert deletion.dtype == np.float64
    alone = measure(explainer, explainer.explain(rows, "gradient", 3), "deletion", steps=4)
    assert_allclose(deletion[:, 1], alone)


def test_a_fill_may_be_each_pictures_own(explainer, rows):
    """The mean colour of a picture; of pictures together, each its own."""
    together = measure(explainer, explainer.explain(rows, "gradient", 1), "deletion", steps=4, fill="mean")
    alone = measure(explainer, explainer.explain(rows[3:4], "gradient", 1), "deletion", steps=4, fill="mean")
    assert_allclose(together[3], alone[0], rtol=1e-5)
    given = np.broadcast_to(rows.mean(axis=(2, 3), keepdims=True), rows.shape)
    assert_allclose(
        measure(explainer, explainer.explain(rows, "gradient", 1), "deletion", steps=4, fill=given), together, rtol=1e-5
    )


def test_changed_pictures_keep_what_comes_with_them(tmp_path):
    """Scores are the picture times its second input, through weights: of a picture made 0, all are 0."""
    weight = np.random.default_rng(1).normal(size=(16, 3)).astype(np.float32)
    nodes = [
        onnx.helper.make_node("Flatten", ["image"], ["flat"]),
        onnx.helper.make_node("Mul", ["flat", "scale"], ["scaled"]),
        onnx.helper.make_node("MatMul", ["scaled", "weight"], ["scores"]),
    ]
    values = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in (("image", ["N", 1, 4, 4]), ("scale", ["N", 1]), ("scores", ["N", 3]))
    ]
    initializers = [onnx.numpy_helper.from_array(weight, "weight")]
    graph = onnx.helper.make_graph(nodes, "scaled", values[:2], values[2:], initializers)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    export(model, tmp_path / "two.explain", methods=["gradient"], image_input="image")
    explainer = Explainer(tmp_path / "two.explain", device="cpu")
    rows, scales = np.ones((2, 1, 4, 4), np.float32), np.array([[1], [3]], np.float32)
    result = explainer.explain({"image": rows, "scale": scales}, "gradient", 1)
    curves = measure(explainer, result, "deletion", score="logits", steps=1)
    assert_allclose(curves, weight[:, 1].sum() * scales[:, 0] / 2, rtol=1e-5)
    assert_allclose(measure(explainer, result, "max_sensitivity"), 0, atol=1e-6)
    assert_allclose(measure(explainer, result, "infidelity"), 0, atol=1e-6)


def test_the_methods_own_parameters_explain_again(explainer, rows):
    result = explainer.explain(rows, "smoothgrad", 1, samples=2, seed=9)
    asked = []

    class Watched:
        bundle = explainer.bundle

        def __getattr__(self, name):
            return getattr(explainer, name)

        def explain(self, *arguments, **options):
            asked.append(options)
            return explainer.explain(*arguments, **options)

    measure(Watched(), result, "max_sensitivity", samples=1)
    assert [(each["samples"], each["seed"]) for each in asked] == [(2, 9)]


def test_the_score_that_was_explained_is_explained_again(explainer, rows):
    logits, probabilities = (explainer.explain(rows, "occlusion", 1, score=score) for score in ("logits", None))
    still = {"radius": 0.0, "samples": 1}
    assert_allclose(measure(explainer, logits, "max_sensitivity", **still), 0, atol=1e-6)
    assert_allclose(measure(explainer, probabilities, "max_sensitivity", **still), 0, atol=1e-6)


def test_a_callers_own_explainer_is_asked_for_changed_pictures(explainer, rows):
    result = explainer.explain(rows, "gradient", 1)
    assert_allclose(measure(explainer, result, "max_sensitivity", explain=lambda r, t: result.attribution), 0)


def test_the_reduction_follows_what_the_maps_measure(explainer, rows):
    result = explainer.explain(rows, "gradient", 1)
    gini = {how: measure(explainer, result, "sparseness", reduction=how) for how in ("sum", "absolute")}
    assert_allclose(measure(explainer, result, "sparseness"), gini["absolute"])
    assert (gini["sum"] != gini["absolute"]).all()
    with pytest.raises(ParameterError, match="unknown reduction"):
        measure(explainer, result, "sparseness", reduction="max")


def test_a_preset_takes_that_systems_form(explainer, rows):
    result = explainer.explain(rows, "gradient", 1)
    theirs, ours = (measure(explainer, result, "deletion", preset=preset) for preset in ("mindspore", None))
    assert (theirs != ours).all()


# Many pictures.


@pytest.fixture(scope="module")
def evaluation(explainer):
    rows = np.random.default_rng(8).normal(size=(TOGETHER + 4, 3, 8, 8)).astype(np.float32)
    return evaluate(
        explainer,
        rows,
        ["gradient", "integrated_gradients"],
        ["deletion", "insertion", "completeness", "sparseness"],
        settings=FAST,
        parameters={"integrated_gradients": {"steps": 4}},
    )


def test_an_evaluation_holds_a_value_for_each_picture_method_and_metric(evaluation, explainer):
    rows = np.random.default_rng(8).normal(size=(TOGETHER + 4, 3, 8, 8)).astype(np.float32)
    assert len(evaluation) == TOGETHER + 4
    assert evaluation.pictures[-1] == f"image {TOGETHER + 3}"
    assert_array_equal(evaluation.targets, scores_of(rows).argmax(axis=1))
    result = explainer.explain(rows, "gradient")
    assert_allclose(evaluation.values["gradient", "deletion"], measure(explainer, result, "deletion", steps=4))
    result = explainer.explain(rows, "integrated_gradients", steps=4)
    assert_allclose(evaluation.values["integrated_gradients", "sparseness"], measure(explainer, result, "sparseness"))
    assert evaluation.curves["gradient", "insertion"].values.shape == (TOGETHER + 4, 5)


def test_each_picture_is_explained_for_its_own_target(explainer):
    rows = np.random.default_rng(8).normal(size=(TOGETHER + 4, 3, 8, 8)).astype(np.float32)
    targets = [number % 3 for number in range(len(rows))]
    found = evaluate(explainer, rows, ["gradient", "occlusion"], "sparseness", targets)
    assert found.targets.tolist() == targets
    expected = measure(explainer, explainer.explain(rows, "occlusion", targets), "sparseness")
    assert_allclose(found.values["occlusion", "sparseness"], expected)


def test_a_methods_form_of_a_system_is_a_method_of_its_own(explainer, rows, monkeypatch):
    monkeypatch.setitem(PRESETS["captum"], "smoothgrad", Preset(parameters={"samples": 2, "noise": 0.5}))
    found = evaluate(explainer, rows, ["smoothgrad", "smoothgrad.captum"], ["sparseness", "max_sensitivity"])
    assert found.methods == ("smoothgrad", "smoothgrad.captum")
    expected = measure(explainer, explainer.explain(rows, "smoothgrad.captum"), "sparseness")
    assert_allclose(found.values["smoothgrad.captum", "sparseness"], expected)
    assert (found.values["smoothgrad", "sparseness"] != expected).all()
    assert found.provenance["methods"]["smoothgrad.captum"]["parameters"]["samples"] == 2


def test_a_metric_that_a_method_has_no_maps_for_is_left_out_with_a_note(evaluation):
    assert np.isnan(evaluation.values["gradient", "completeness"]).all()
    assert evaluation.summary("gradient", "completeness").mean is None
    assert evaluation.notes == ("completeness of gradient is left out: it needs maps of contributions to the score",)
    assert "note: completeness of gradient" in evaluation.table()


def test_means_count_finite_values_alone():
    summary = summarise(np.array([1.0, np.nan, 3, np.inf]))
    assert (summary.mean, summary.count, summary.total) == (2.0, 2, 4)
    assert summary.low == 1
    assert summary.high == 3
    assert summarise(np.full(3, np.nan)).mean is None
    assert (summarise(np.ones(1)).low, summarise(np.ones(1)).mean) == (None, 1)


def test_the_interval_covers_the_mean_as_often_as_it_says():
    random = np.random.default_rng(4)
    intervals = [summarise(random.normal(size=40)) for _ in range(200)]
    covered = np.mean([each.low <= 0 <= each.high for each in intervals])
    assert 0.88 <= covered <= 0.98


def test_classes_split_the_pictures(evaluation):
    values = evaluation.values["gradient", "deletion"]
    classes = evaluation.classes("gradient", "deletion")
    assert sum(each.count for each in classes.values()) == len(evaluation)
    for name, summary in classes.items():
        picked = np.array(evaluation.labels) == name
        assert summary.mean == pytest.approx(values[picked].mean())


def test_the_table_shows_means_intervals_and_directions(evaluation):
    lines = evaluation.table().splitlines()
    assert lines[0].split() == ["gradient", "integrated_gradients"]
    summary = evaluation.summary("gradient", "deletion")
    assert lines[1].startswith("deletion ↓")
    assert f"{summary.mean:.3g} [{summary.low:.3g}, {summary.high:.3g}]" in lines[1]
    assert lines[2].startswith("insertion ↑")
    assert len(evaluation.table(classes=True).splitlines()) == len(lines) + 4 * len(set(evaluation.labels))


def test_files_hold_the_values_and_the_means(evaluation, tmp_path):
    files = evaluation.write(tmp_path / "new/folder")
    folder = tmp_path / "new/folder"
    assert sorted(os.listdir(folder)) == sorted(files.values())
    with (folder / "evaluation.csv").open() as stream:
        lines = list(csv.DictReader(stream))
    assert len(lines) == (TOGETHER + 4) * 2 * 4
    found = [float(line["value"]) for line in lines if (line["method"], line["metric"]) == ("gradient", "deletion")]
    assert_array_equal(found, evaluation.values["gradient", "deletion"])
    content = json.loads((folder / "evaluation.json").read_text())
    means = {(each["method"], each["metric"]): each for each in content["means"]}
    assert means["gradient", "deletion"]["mean"] == pytest.approx(np.mean(found))
    assert means["gradient", "completeness"]["mean"] is None
    assert content["provenance"]["metrics"]["deletion"]["steps"] == 4
    assert content["provenance"]["methods"]["integrated_gradients"]["parameters"]["steps"] == 4


@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="matplotlib is optional")
def test_plots_are_pictures(evaluation, tmp_path):
    files = evaluation.write(tmp_path)
    assert {"plot", "curves"} <= files.keys()
    assert cv2.imread(str(tmp_path / "plot.png")).std() > 5


def test_without_matplotlib_the_plots_are_left_out(evaluation, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert sorted(evaluation.write(tmp_path)) == ["summary", "values"]
    assert "onnxplain[plots]" in json.loads((tmp_path / "evaluation.json").read_text())["notes"][-1]


def test_masks_reach_the_metrics_of_their_pictures(explainer):
    rows = np.random.default_rng(8).normal(size=(TOGETHER + 2, 3, 8, 8)).astype(np.float32)
    result = explainer.explain(rows, "gradient", 1)
    pixels = np.abs(result.attribution).sum(axis=1)
    masks = [each == each.max() for each in pixels]
    found = evaluate(explainer, rows, "gradient", ["relevance_rank", "iosr"], 1, masks)
    assert_array_equal(found.values["gradient", "relevance_rank"], 1)
    with pytest.raises(ParameterError, match="iosr needs masks"):
        evaluate(explainer, rows, "gradient", ["deletion", "iosr"])
    masks[TOGETHER + 1] = np.zeros((8, 8))
    with pytest.raises(ParameterError, match=f"mask of image {TOGETHER + 1} is empty"):
        evaluate(explainer, rows, "gradient", "iosr", 1, masks)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": "gradeint"}, "did you mean 'gradient'. Which methods a bundle has"),
        ({"pictures": []}, "at least one picture"),
        ({"masks": "masks"}, "masks in a folder go by the names of picture files"),
        ({"metrics": "deletoin"}, "did you mean 'deletion'"),
        ({"metrics": []}, "at least one"),
        ({"settings": {"insertion": {}}}, "settings for 'insertion'"),
        ({"settings": {"deletion": {"step": 1}}}, "did you mean 'steps'"),
        ({"parameters": {"occlusion": {}}}, "parameters for 'occlusion'"),
        ({"parameters": {"gradient": {"steps": 1}}}, "gradient has no parameters"),
        ({"targets": [1, 2]}, "2 targets for 5 pictures"),
        ({"targets": [[1, 2]] * 5}, "one class of each picture"),
        ({"targets": "lion"}, "unknown target"),
        ({"masks": [np.ones((8, 8))]}, "1 masks for 5 pictures"),
        ({"preset": "captun"}, "unknown preset"),
        ({"metrics": "completeness"}, "completeness of gradient is left out"),
    ],
)
def test_what_does_not_fit_is_an_error(changes, message, explainer, rows):
    given = {"pictures": rows, "methods": "gradient", "metrics": "deletion", **changes}
    with pytest.raises(ParameterError, match=message):
        evaluate(explainer, **given)


def test_scores_of_no_classes_have_no_metrics(explainer, rows):
    result = replace(explainer.explain(rows, "gradient", 1), scores=np.zeros((5, 4, 2, 2)))
    with pytest.raises(ParameterError, match="metrics are about scores of classes"):
        measure(explainer, result, "deletion")
