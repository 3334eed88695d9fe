"""A method whose graph tells the scores is one run of that graph, and says what two runs would say."""

import json

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import small_models
from onnxplain import Explainer, ModelError
from onnxplain_export import export

METHODS = ["gradient", "input_x_gradient", "guided_backprop", "gradcam", "guided_gradcam", "lrp_epsilon", "deeplift"]
GRAPHS = {
    "gradient": ["gradient"],
    "input_x_gradient": ["gradient"],
    "guided_backprop": ["gradient.guided"],
    "gradcam": ["layer"],
    "guided_gradcam": ["layer", "gradient.guided"],
    "lrp_epsilon": ["relevance.epsilon"],
    "deeplift": ["deeplift"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    model = small_models.classifier(weights={"fb": np.array([0, 0.3, -1.2, 0.2, 0], np.float32)})
    return export(model, tmp_path_factory.mktemp("net") / "net.explain", methods=METHODS)


@pytest.fixture(scope="module")
def explainer(folder):
    return Explainer(folder, device="cpu")


@pytest.fixture(scope="module")
def untold(folder, tmp_path_factory):
    """The bundle as it was before graphs told scores."""
    old = tmp_path_factory.mktemp("old") / "old.explain"
    old.mkdir()
    for file in folder.iterdir():
        (old / file.name).write_bytes(file.read_bytes())
    told = json.loads((old / "explainer.json").read_text())
    for graph in told["graphs"].values():
        del graph["tells_scores"]
    (old / "explainer.json").write_text(json.dumps(told))
    return Explainer(old, device="cpu")


@pytest.fixture
def images():
    """Pictures of several top classes."""
    return small_models.images(3, 16, 16, count=5) * np.float32([0.01, 0.3, 1, 3, 10]).reshape(-1, 1, 1, 1)


def recorded(explainer, monkeypatch):
    runs, run = [], explainer._sessions.run

    def noted(graph, outputs, feeds, *rest):
        runs.append(graph.name)
        return run(graph, outputs, feeds, *rest)

    monkeypatch.setattr(explainer._sessions, "run", noted)
    return runs


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("targets", [None, 2, [[0, None]] * 5])
def test_an_explanation_is_one_run_of_its_graphs(explainer, images, method, targets, monkeypatch):
    runs = recorded(explainer, monkeypatch)
    explainer.explain(images, method, targets)
    assert [name.removesuffix(".targets") for name in runs] == GRAPHS[method]


def test_every_chunk_is_one_run(explainer, images, monkeypatch):
    runs = recorded(explainer, monkeypatch)
    monkeypatch.setattr(explainer._runs, "rows", lambda *_, **__: 2)
    whole = explainer.explain(images)
    assert runs == ["gradient"] * 3
    assert whole.scores.shape == (5, explainer.bundle.scores.classes)


def test_the_raw_gradient_is_one_run(explainer, images, monkeypatch):
    runs = recorded(explainer, monkeypatch)
    raw = explainer.gradient(images)
    assert runs == ["gradient"]
    assert_array_equal(raw, explainer.explain(images).attribution)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("targets", [None, 1, [[0, None]] * 5])
def test_a_bundle_without_told_scores_gives_the_same_result(explainer, untold, images, method, targets, monkeypatch):
    runs = recorded(untold, monkeypatch)
    one, two = explainer.explain(images, method, targets), untold.explain(images, method, targets)
    assert "forward" in runs
    assert_array_equal(one.targets, two.targets)
    assert one.labels == two.labels
    assert_allclose(one.scores, two.scores, rtol=1e-5, atol=1e-6)
    assert_allclose(one.probabilities, two.probabilities, rtol=1e-5, atol=1e-6)
    scale = np.abs(two.attribution).max()
    assert_allclose(one.attribution, two.attribution, rtol=1e-4, atol=1e-5 * scale)


def tied(tmp_path):
    """A network whose classes 1 and 3 have the same, the highest, scores."""
    weights, bias = small_models.WEIGHTS["fw"].copy(), np.array([-99, 0, -99, 0, -99], np.float32)
    weights[:, 3] = weights[:, 1]
    model = small_models.classifier(weights={"fw": weights, "fb": bias})
    return export(model, tmp_path / "tied.explain", methods=["gradient"])


def test_of_equal_scores_the_first_is_the_top_class(tmp_path, images):
    explainer = Explainer(tied(tmp_path), device="cpu")
    result = explainer.explain(images)
    assert_array_equal(result.scores[:, 1], result.scores[:, 3])
    assert_array_equal(result.targets, np.ones(5))
    assert_array_equal(result.attribution, explainer.gradient(images, 1))


def test_minus_one_is_the_top_class_of_each_image_for_whoever_runs_the_graph(folder, images):
    for name in ("gradient", "gradient.targets", "layer", "relevance.epsilon"):
        session = small_models.session(folder / f"{name}.onnx")
        feeds = {entry.name: np.full(1, 1e-6, np.float32) for entry in session.get_inputs()[2:]}
        feeds["x"] = images
        scores, found = session.run(["scores", "total"], {**feeds, "target": [[-1, 2, -1]] * 5})
        top = scores.argmax(axis=1)
        chosen = np.stack([top, np.full(5, 2), top], axis=1)
        (expected,) = session.run(["total"], {**feeds, "target": chosen})
        assert len(set(top)) > 1
        assert_array_equal(found, expected)


def test_scores_that_overflow_are_named_before_the_map(explainer, images):
    images[3] = 3e38
    with np.errstate(all="ignore"), pytest.raises(ModelError, match=r"scores for .* contains NaN or infinity"):
        explainer.explain(images)
