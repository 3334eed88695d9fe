"""The engine against closed forms of a network written by hand (tests/support/toy_bundle.py)."""

import hashlib
import json
import pickle
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from onnxplain import Explainer, ModelError, ParameterError, PictureError
from onnxplain.errors import BundleError
from onnxplain.sessions import MOST_OPEN
from toy_bundle import LABELS, MEAN, STD, A, B, gradient_of, noise_of, scores_of, write_toy_bundle

METHODS = ("gradient", "smoothgrad", "integrated_gradients", "smoothgrad_integrated", "occlusion")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_toy_bundle(tmp_path_factory.mktemp("toy") / "toy.explain")


@pytest.fixture(scope="module")
def explainer(folder):
    return Explainer(folder, device="cpu")


@pytest.fixture(scope="module")
def linear(tmp_path_factory):
    return Explainer(write_toy_bundle(tmp_path_factory.mktemp("linear") / "toy.explain", linear=True), device="cpu")


@pytest.fixture
def rows():
    return np.random.default_rng(3).normal(size=(5, 3, 8, 8)).astype(np.float32)


@pytest.fixture
def picture():
    return np.random.default_rng(4).integers(0, 256, (20, 31, 3), np.uint8)


def relative(a, b):
    return np.linalg.norm(np.asarray(a, np.float64) - b) / np.linalg.norm(b)


def softmax(scores):
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


# The methods, against their closed forms.


def test_scores_are_the_networks(explainer, rows):
    assert relative(explainer.scores(rows), scores_of(rows)) < 1e-6


def test_gradient_is_the_closed_form(explainer, rows):
    result = explainer.explain(rows, targets=2)
    assert result.attribution.dtype == np.float32
    assert relative(result.attribution, gradient_of(rows, 2)) < 1e-6


def test_smoothgrad_averages_gradients_at_noise_of_each_images_own_range(explainer, rows):
    rows *= np.arange(1, 6, dtype=np.float32).reshape(-1, 1, 1, 1)  # every image has another range
    result = explainer.explain(rows, "smoothgrad", targets=1, samples=7, noise=0.3, seed=11)
    sigma = 0.3 * (rows.max(axis=(1, 2, 3)) - rows.min(axis=(1, 2, 3)))
    noise = np.mean([noise_of(draw, 11) for draw in range(7)], axis=0)
    assert relative(result.attribution, gradient_of(rows + sigma.reshape(-1, 1, 1, 1) * noise, 1)) < 1e-6


def test_smoothgrad_without_noise_is_the_gradient(explainer, rows):
    noiseless = explainer.explain(rows, "smoothgrad", targets=1, noise=0).attribution
    assert relative(noiseless, gradient_of(rows, 1)) < 1e-6
    constant = np.ones((1, 3, 8, 8), np.float32)
    assert relative(explainer.explain(constant, "smoothgrad", targets=1).attribution, gradient_of(constant, 1)) < 1e-6


@pytest.mark.parametrize("baseline", [0, 0.7, "array"])
def test_integrated_gradients_are_the_closed_form_and_complete(explainer, rows, baseline):
    given = np.random.default_rng(5).normal(size=(3, 8, 8)) if baseline == "array" else baseline
    result = explainer.explain(rows, "integrated_gradients", targets=3, baseline=given)
    start = np.broadcast_to(given, rows.shape)
    assert relative(result.attribution, (rows - start) * (A[3] + B[3] * (rows + start) / 2)) < 1e-5
    change = scores_of(rows)[:, 3] - scores_of(start)[:, 3]
    assert_allclose(result.attribution.sum(axis=(1, 2, 3)), change, rtol=1e-4, atol=1e-4)


def test_smoothgrad_integrated_averages_the_paths_to_noisy_images(explainer, rows):
    result = explainer.explain(rows, "smoothgrad_integrated", targets=0, samples=3, steps=4, noise=0.2, baseline=0.5)
    sigma = 0.2 * (rows.max(axis=(1, 2, 3)) - rows.min(axis=(1, 2, 3))).reshape(-1, 1, 1, 1)
    noisy = [rows + sigma * noise_of(draw, 0) for draw in range(3)]
    expected = np.mean([(x - 0.5) * (A[0] + B[0] * (x + 0.5) / 2) for x in noisy], axis=0)
    assert relative(result.attribution, expected) < 1e-5


def occlusion_by_hand(rows, target, fill, score):
    """Windows of 4 pixels, 2 apart."""
    total, count = np.zeros((len(rows), 1, 8, 8)), np.zeros((8, 8))
    for top in (0, 2, 4):
        for left in (0, 2, 4):
            inside = (..., slice(top, top + 4), slice(left, left + 4))
            masked = np.array(rows, np.float64)
            masked[inside] = fill
            total[inside] += (score(rows) - score(masked))[:, target].reshape(-1, 1, 1, 1)
            count[inside] += 1
    return np.divide(total, count, out=np.zeros_like(total), where=count > 0)


@pytest.mark.parametrize("fill", [0, -1.5])
@pytest.mark.parametrize(("score", "function"), [(None, lambda x: softmax(scores_of(x))), ("logits", scores_of)])
def test_occlusion_is_the_mean_drop_under_the_windows_of_a_pixel(explainer, rows, fill, score, function):
    result = explainer.explain(rows, "occlusion", targets=2, window=4, stride=2, fill=fill, score=score)
    assert result.attribution.shape == (5, 1, 8, 8)
    assert relative(result.attribution, occlusion_by_hand(rows, 2, fill, function)) < 1e-4
    assert result.provenance["explains"] == (score or "probabilities")


def test_occlusion_of_a_linear_network_sums_its_terms(linear, rows):
    result = linear.explain(rows, "occlusion", targets=1, window=1, stride=1, score="logits")
    assert relative(result.attribution[:, 0], (A[1] * rows).sum(axis=1)) < 1e-4


def test_a_pixel_that_no_window_touches_gets_zero(explainer, rows):
    result = explainer.explain(rows, "occlusion", window=2, stride=4, score="logits")
    assert not result.attribution[:, :, 2:4].any()
    assert result.attribution[:, :, :2, :2].all()


# A map depends on nothing but the image and the parameters.


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("rows_per_run", [1, 2, 3, 7, 23])
def test_any_split_of_images_and_steps_gives_the_map_of_one_run(explainer, rows, method, rows_per_run, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("onnxplain.explainer.MOST_ROWS", 10**6)
        whole = explainer.explain(rows, method, targets=[[0, 2]] * 5)
    split = explainer.explain(rows, method, targets=[[0, 2]] * 5, memory=1000 * 2 * rows_per_run)
    assert relative(split.attribution, whole.attribution) < 1e-5


@pytest.mark.parametrize("method", METHODS)
def test_a_map_is_the_same_alone_and_in_a_batch(explainer, rows, method):
    together = explainer.explain(rows, method, targets=1)
    for i, image in enumerate(rows):
        alone = explainer.explain(image, method, targets=1)
        assert relative(alone.attribution[0], together.attribution[i]) < 1e-5


def test_several_targets_per_image_are_those_one_by_one(explainer, rows):
    both = explainer.explain(rows, "integrated_gradients", targets=[[0, "dog"]] * 5)
    assert both.attribution.shape == (5, 2, 3, 8, 8)
    assert both.labels[0] == ("cat", "dog")
    for place, target in enumerate([0, 1]):
        single = explainer.explain(rows, "integrated_gradients", targets=target)
        assert relative(both.attribution[:, place], single.attribution) < 1e-6


def test_threads_share_one_explainer(folder, rows):
    explainer = Explainer(folder, device="cpu")
    expected = {method: explainer.explain(rows, method).attribution for method in METHODS}
    jobs = [method for method in METHODS for _ in range(4)]
    with ThreadPoolExecutor(8) as pool:
        for method, result in zip(jobs, pool.map(lambda method: explainer.explain(rows, method), jobs), strict=True):
            assert_array_equal(result.attribution, expected[method])


def test_a_pickled_explainer_reopens(explainer, rows, monkeypatch, tmp_path):
    data = pickle.dumps(explainer)
    monkeypatch.chdir(tmp_path)
    assert_array_equal(pickle.loads(data).explain(rows).attribution, explainer.explain(rows).attribution)


def test_sessions_open_when_needed_and_few_stay_open(folder, rows):
    explainer = Explainer(folder, device="cpu")
    assert len(explainer._sessions._open) == 0
    for method in METHODS:
        explainer.explain(rows, method)
    assert len(explainer._sessions._open) == MOST_OPEN
    assert "masked" in explainer._sessions._open


def test_memory_is_given_back_when_other_work_begins(folder, rows):
    explainer = Explainer(folder, device="cpu")
    run, released = explainer._sessions.run, []

    def recorded(graph, outputs, feeds, release=False):
        released.append(release)
        return run(graph, outputs, feeds, release)

    explainer._sessions.run = recorded
    for method, count, expected in (
        ("gradient", 5, False),
        ("gradient", 5, False),
        ("occlusion", 5, True),
        ("occlusion", 5, False),
        ("occlusion", 4, True),
    ):
        released.clear()
        explainer.explain(rows[:count], method)
        assert any(released) == expected


def test_the_raw_gradient_is_that_of_the_method(explainer, rows):
    assert relative(explainer.gradient(rows, 3), gradient_of(rows, 3)) < 1e-6
    assert explainer.gradient(rows, [[0, 1]] * 5).shape == (5, 2, 3, 8, 8)


# Pictures.


def test_a_picture_goes_in_as_the_bundle_says(explainer):
    picture = np.random.default_rng(4).integers(0, 256, (8, 8, 3), np.uint8)  # its size is the network's
    result = explainer.explain(picture, targets=0)
    values = ((picture / 255 - np.array(MEAN)) / np.array(STD)).transpose(2, 0, 1)
    assert relative(result.attribution[0], gradient_of(values[None], 0)[0]) < 1e-6
    assert_array_equal(result.images[0].seen, picture)


def test_paths_arrays_lists_and_batches_are_the_same_pictures(explainer, picture, tmp_path):
    file = tmp_path / "a.png"
    cv2.imwrite(str(file), picture[..., ::-1])
    expected = explainer.explain(picture).attribution
    for images in (file, str(file), [file], [picture], picture[None]):
        assert_array_equal(explainer.explain(images).attribution, expected)
    assert_array_equal(explainer.explain([file, picture]).attribution[1:], expected)


def test_a_grey_picture_is_repeated(explainer, picture):
    grey = picture[..., 0]
    expected = explainer.explain(np.repeat(grey[..., None], 3, axis=2)).attribution
    assert_array_equal(explainer.explain(grey).attribution, expected)
    assert_array_equal(explainer.explain(grey[..., None]).attribution, expected)


def test_no_images_give_an_empty_result(explainer):
    result = explainer.explain([])
    assert result.attribution.shape == (0, 3, 8, 8)
    assert len(result) == 0


@pytest.mark.parametrize("method", METHODS)
def test_a_stream_gives_one_result_per_image_equal_to_explain(explainer, picture, rows, method):
    images = [picture, *rows, picture]
    results = list(explainer.stream(iter(images), method, targets=1, memory=3000))
    assert len(results) == 7
    expected = explainer.explain(images, method, targets=1)
    for i, result in enumerate(results):
        assert len(result) == 1
        assert relative(result.attribution[0], expected.attribution[i]) < 1e-5
        assert result.provenance["pictures"][0]["sha256"] == expected.provenance["pictures"][i]["sha256"]


def test_a_stream_takes_no_more_pictures_than_it_explains_at_once(explainer, picture):
    taken = []
    stream = explainer.stream((taken.append(i) or picture for i in range(1000)), "smoothgrad")
    for _ in range(3):
        next(stream)
    assert len(taken) <= 3


def test_a_stream_hands_bad_pictures_on_and_goes_on(explainer, picture, tmp_path):
    (tmp_path / "empty.png").write_bytes(b"")
    bad = {}
    results = list(explainer.stream([picture, tmp_path / "empty.png", picture], on_error=bad.__setitem__))
    assert len(results) == 2
    assert list(bad) == [str(tmp_path / "empty.png")]
    with pytest.raises(PictureError, match=r"empty\.png"):
        list(explainer.stream([tmp_path / "empty.png"]))


def test_a_stream_names_an_array_by_its_place(explainer, rows):
    bad = []
    images = [*rows, np.zeros((3, 8, 9))]
    assert len(list(explainer.stream(images, memory=2000, on_error=lambda name, _: bad.append(name)))) == 5
    assert bad == ["image 5"]


def test_a_stream_checks_its_parameters_before_the_first_picture(explainer):
    with pytest.raises(ParameterError, match="did you mean 'gradient'"):
        explainer.stream([], "gradeint")


# Baselines and fills by name.


@pytest.mark.parametrize(("name", "level"), [("black", 0), ("white", 1)])
def test_black_and_white_are_such_pictures_after_preprocessing(explainer, rows, name, level):
    value = ((level - np.array(MEAN)) / np.array(STD)).reshape(3, 1, 1)
    for method, parameter in (("integrated_gradients", "baseline"), ("occlusion", "fill")):
        named = explainer.explain(rows, method, targets=1, **{parameter: name}).attribution
        assert relative(named, explainer.explain(rows, method, targets=1, **{parameter: value}).attribution) < 1e-5


def test_mean_is_each_images_own_mean_colour(explainer, rows):
    named = explainer.explain(rows, "integrated_gradients", targets=1, baseline="mean", memory=3000).attribution
    value = rows.mean(axis=(2, 3), keepdims=True)
    assert relative(named, (rows - value) * (A[1] + B[1] * (rows + value) / 2)) < 1e-5


def test_blur_keeps_a_flat_image_and_smooths_another(explainer, rows):
    flat = np.full((1, 3, 8, 8), 0.3, np.float32)
    assert_allclose(explainer.explain(flat, "integrated_gradients", baseline="blur").attribution, 0, atol=1e-5)
    blurred = explainer.explain(rows, "integrated_gradients", targets=1, baseline="blur").attribution
    assert relative(blurred, explainer.explain(rows, "integrated_gradients", targets=1).attribution) > 0.1


def test_a_baseline_for_each_image_is_split_with_the_images(explainer, rows):
    baseline = np.random.default_rng(5).normal(size=rows.shape)
    result = explainer.explain(rows, "integrated_gradients", targets=1, baseline=baseline, memory=7000)
    assert relative(result.attribution, (rows - baseline) * (A[1] + B[1] * (rows + baseline) / 2)) < 1e-5


# Targets.


def test_the_top_class_is_explained_by_default_and_named(explainer, rows):
    result = explainer.explain(rows)
    assert_array_equal(result.targets, scores_of(rows).argmax(axis=1))
    assert result.labels == tuple(LABELS[target] for target in result.targets)


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        (2, [2, 2]),
        (np.int64(2), [2, 2]),
        ("Dog ", [1, 1]),
        ("Tinca tinca", [2, 2]),
        ("tench, Tinca tinca", [2, 2]),
        (["cat", 3], [0, 3]),
        (np.array([1, 0]), [1, 0]),
        ([[0, 1], ["dog", 0]], [[0, 1], [1, 0]]),
        ([[3], [2]], [[3], [2]]),
        (np.array([[0, 1], [2, 3]]), [[0, 1], [2, 3]]),
    ],
)
def test_targets_are_numbers_or_names_for_all_or_each(explainer, rows, targets, expected):
    assert explainer.explain(rows[:2], targets=targets).targets.tolist() == expected


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (4, "target 4 is out of range: the network has classes 0 to 3"),
        (-1, "target -1 is out of range"),
        ("tensh", "unknown target 'tensh'; did you mean 'tench'"),
        (1.5, "1.5"),
        (True, "True"),
        ([0], "1 targets for 2 pictures"),
        ([[0, 1], [2]], "same number of targets"),
        ([[], []], "at least one"),
        ([[0], 1], "no class number or name"),
    ],
)
def test_a_wrong_target_says_what_is_wrong(explainer, rows, targets, message):
    with pytest.raises(ParameterError, match=message):
        explainer.explain(rows[:2], targets=targets)


def test_a_name_of_two_classes_asks_for_the_number(tmp_path, rows):
    output = {"name": "o", "shape": ["N", 4], "explained": True, "classes": 4, "activation": "none"}
    twice = [{**output, "labels": ["crane", "b", "c", "crane"]}]
    explainer = Explainer(write_toy_bundle(tmp_path, outputs=twice), device="cpu")
    with pytest.raises(ParameterError, match="several classes: 0, 3"):
        explainer.explain(rows, targets="crane")
    unlabelled = Explainer(write_toy_bundle(tmp_path, outputs=[output]), device="cpu")
    with pytest.raises(ParameterError, match="no labels"):
        unlabelled.explain(rows, targets="crane")
    assert unlabelled.explain(rows, targets=2).labels == ("2",) * 5


@pytest.mark.parametrize(
    ("activation", "function"), [("softmax", softmax), ("sigmoid", lambda x: 1 / (1 + np.exp(-x))), ("none", np.array)]
)
def test_probabilities_come_from_the_activation(tmp_path, rows, activation, function):
    output = {"name": "o", "shape": ["N", 4], "explained": True, "classes": 4, "activation": activation}
    result = Explainer(write_toy_bundle(tmp_path, outputs=[output]), device="cpu").explain(rows)
    assert_allclose(result.probabilities, function(scores_of(rows)), rtol=1e-4, atol=1e-6)


# Wrong input.


@pytest.mark.parametrize(
    ("method", "parameters", "message"),
    [
        ("smothgrad", {}, "unknown method 'smothgrad'; did you mean 'smoothgrad'"),
        ("smoothgrad", {"sample": 3}, "unknown parameter of smoothgrad 'sample'; did you mean 'samples'"),
        ("gradient", {"samples": 3}, "gradient has no parameters, not 'samples'"),
        ("smoothgrad", {"samples": 0}, "samples=0 is out of range: 1 to 1000000"),
        ("smoothgrad", {"samples": 2.5}, "whole number"),
        ("smoothgrad", {"samples": "3"}, "whole number"),
        ("smoothgrad", {"samples": True}, "whole number"),
        ("smoothgrad", {"noise": -0.1}, "at least 0"),
        ("smoothgrad", {"noise": float("nan")}, "noise=nan"),
        ("smoothgrad", {"seed": 2**20}, "out of range"),
        ("integrated_gradients", {"baseline": "blak"}, "did you mean 'black'"),
        ("integrated_gradients", {"baseline": np.zeros((2, 2))}, "does not broadcast"),
        ("integrated_gradients", {"baseline": np.inf}, "NaN or infinity"),
        ("integrated_gradients", {"baseline": object()}, "no number, name or array"),
        ("integrated_gradients", {"steps": 100_000}, "at most 2000"),
        ("gradient", {"score": "logits"}, "score= is for perturbation methods; gradient explains the logits"),
        ("occlusion", {"score": "logit"}, "did you mean 'logits'"),
        ("gradient", {"memory": "10"}, "too little"),
    ],
)
def test_a_wrong_method_or_parameter_says_what_is_wrong(explainer, rows, method, parameters, message):
    with pytest.raises(ParameterError, match=message):
        explainer.explain(rows, method, **parameters)


@pytest.mark.parametrize("threads", [0, -1, 1.5, True])
def test_a_wrong_number_of_threads_is_an_error(folder, threads):
    with pytest.raises(ParameterError, match="threads"):
        Explainer(folder, device="cpu", threads=threads)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((1, 3, 8, 9), np.float32), r"shape \[3, 8, 9\]; the network's input 'image' takes \[3, 8, 8\]"),
        (np.zeros((8, 8, 3)), r"hand in a picture as uint8"),
        (np.zeros((4, 4, 4), np.uint8), r"a uint8 picture is \[H, W, 3\]"),
        (np.full((1, 3, 8, 8), np.nan), "image 0 contains NaN or infinity"),
        ([np.zeros((3, 8, 8)), np.full((3, 8, 8), np.inf)], "image 1 contains NaN or infinity"),
        ([object()], "an array of object is no image"),
        (7, "int is no picture"),
        ("lost.png", "lost.png"),
    ],
)
def test_a_wrong_image_says_what_is_wrong(explainer, images, message):
    with pytest.raises(PictureError, match=message):
        explainer.explain(images)


def test_a_bundle_without_preprocessing_takes_no_pictures(tmp_path, picture, rows):
    explainer = Explainer(write_toy_bundle(tmp_path, preprocessing=None), device="cpu")
    assert relative(explainer.explain(rows, targets=0).attribution, gradient_of(rows, 0)) < 1e-6
    (tmp_path / "a.png").write_bytes(cv2.imencode(".png", picture)[1].tobytes())
    with pytest.raises(PictureError, match=r"no preprocessing.*--preprocessing"):
        explainer.explain(tmp_path / "a.png")
    with pytest.raises(ParameterError, match="need a bundle with preprocessing"):
        explainer.explain(rows, "integrated_gradients", baseline="black")


def test_a_network_that_overflows_is_an_error_and_never_a_map(explainer, rows):
    rows[3] = 3e38
    with pytest.raises(ModelError, match=r"scores for image 3 contains NaN or infinity"):
        explainer.explain(rows)


def test_a_map_that_overflows_is_an_error_and_never_a_map(explainer, rows):
    with pytest.raises(ModelError, match=r"map for image 0 contains NaN or infinity"):
        explainer.explain(rows, "integrated_gradients", baseline=1e30)


def test_a_bundle_for_a_newer_engine_says_to_upgrade(tmp_path, rows):
    folder = write_toy_bundle(tmp_path)
    description = json.loads((folder / "explainer.json").read_text())
    for entry, message in ((("plan", "spiral"), "plan rule 'spiral'"), (("finish", "median"), "finish rule 'median'")):
        method = {**description["methods"]["gradient"], entry[0]: entry[1]}
        text = json.dumps({**description, "methods": {"gradient": method}})
        (folder / "explainer.json").write_text(text)
        with pytest.raises(BundleError, match=f"{message}.*upgrade"):
            Explainer(folder, device="cpu").explain(rows)


def test_a_graph_that_is_no_graph_is_an_error_of_the_bundle(tmp_path, rows):
    folder = write_toy_bundle(tmp_path)
    (folder / "gradient.onnx").write_bytes(b"nothing")
    with pytest.raises(BundleError, match=r"can't open .*gradient\.onnx"):
        Explainer(folder, device="cpu", verify=False).explain(rows)


# Provenance.


def test_provenance_says_how_a_map_was_made_as_plain_data(explainer, folder, picture, tmp_path):
    file = tmp_path / "a.png"
    cv2.imwrite(str(file), picture)
    result = explainer.explain(file, "smoothgrad", samples=3, seed=5)
    made = json.loads(json.dumps(result.provenance))
    assert made["bundle"]["sha256"] == hashlib.sha256((folder / "explainer.json").read_bytes()).hexdigest()
    assert made["pictures"] == [{"name": str(file), "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}]
    assert made["method"] == "smoothgrad"
    assert made["parameters"] == {"samples": 3, "noise": 0.15, "seed": 5}
    assert made["seed"] == 5
    assert set(made["versions"]) == {"onnxplain", "onnxruntime", "numpy", "python"}


def test_an_array_parameter_is_recorded_by_its_hash(explainer, rows):
    result = explainer.explain(rows, "integrated_gradients", baseline=np.zeros((3, 8, 8)))
    assert json.loads(json.dumps(result.provenance))["parameters"]["baseline"]["shape"] == [3, 8, 8]


def test_top_explains_each_images_best_classes(explainer, rows):
    result = explainer.explain(rows, top=2)
    best = np.argsort(-result.scores, axis=1)[:, :2]
    np.testing.assert_array_equal(result.targets, best)
    named = explainer.explain(rows, targets=best.tolist())
    np.testing.assert_array_equal(result.attribution, named.attribution)


@pytest.mark.parametrize("wrong", [0, 5, True, 1.5])
def test_a_wrong_top_is_refused(explainer, rows, wrong):
    with pytest.raises(ParameterError, match="top="):
        explainer.explain(rows, top=wrong)


def test_top_and_targets_exclude_each_other(explainer, rows):
    with pytest.raises(ParameterError, match="give one of them"):
        explainer.explain(rows, targets=1, top=2)
