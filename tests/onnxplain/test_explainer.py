"""The engine against closed forms of a network written by hand (tests/support/toy_bundle.py)."""

import hashlib
import json
import pickle
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from onnxplain import Explainer, ParameterError, PictureError, sessions
from onnxplain.sessions import MOST_OPEN
from toy_bundle import MEAN, STD, A, B, gradient_of, noise_of, scores_of

METHODS = ("gradient", "smoothgrad", "integrated_gradients", "smoothgrad_integrated", "occlusion")


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
    result = explainer.explain(rows, "occlusion", preset="captum", window=2, stride=4, score="logits")
    assert not result.attribution[:, :, 2:4].any()
    assert result.attribution[:, :, :2, :2].all()


# A map depends on nothing but the image and the parameters.


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("rows_per_run", [1, 2, 3, 7, 23])
def test_any_split_of_images_and_steps_gives_the_map_of_one_run(explainer, rows, method, rows_per_run, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(explainer._runs, "rows", lambda *_, **__: 10**6)
        whole = explainer.explain(rows, method, targets=[[0, 2]] * 5)
    split = Explainer(explainer.bundle.path, device="cpu", rows=rows_per_run).explain(
        rows, method, targets=[[0, 2]] * 5
    )
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


def test_memory_is_given_back_when_other_work_begins(folder, rows, monkeypatch):
    explainer = Explainer(folder, device="cpu")
    released = []
    monkeypatch.setattr(sessions, "give_back_memory", lambda: released.append(True))
    for method, count, expected in (
        ("gradient", 5, False),
        ("gradient", 5, False),
        ("occlusion", 5, True),
        ("occlusion", 5, False),
        ("occlusion", 4, True),
    ):
        released.clear()
        explainer.explain(rows[:count], method)
        assert bool(released) == expected


@pytest.mark.parametrize(("memory", "expected"), [("1MB", True), (None, False)])
def test_under_a_bound_memory_goes_back_between_the_graphs_of_a_call(folder, rows, monkeypatch, memory, expected):
    """Blocks that one graph left would lie idle beside those of the next."""
    explainer, released = Explainer(folder, device="cpu"), []
    monkeypatch.setattr(sessions, "give_back_memory", lambda: released.append(True))
    for _ in range(2):
        released.clear()
        explainer.explain(rows, "occlusion", memory=memory)
    assert bool(released) == expected


@pytest.mark.parametrize("rows_per_run", [0, -1, 2.0, True, "4"])
def test_rows_are_a_whole_number_of_at_least_one(folder, rows_per_run):
    with pytest.raises(ParameterError, match="rows="):
        Explainer(folder, device="cpu", rows=rows_per_run)


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
    results = list(explainer.stream(iter(images), method, targets=1, memory="100KB"))
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
    assert len(list(explainer.stream(images, memory="100KB", on_error=lambda name, _: bad.append(name)))) == 5
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
    named = explainer.explain(rows, "integrated_gradients", targets=1, baseline="mean", memory="30KB").attribution
    value = rows.mean(axis=(2, 3), keepdims=True)
    assert relative(named, (rows - value) * (A[1] + B[1] * (rows + value) / 2)) < 1e-5


def test_blur_keeps_a_flat_image_and_smooths_another(explainer, rows):
    flat = np.full((1, 3, 8, 8), 0.3, np.float32)
    assert_allclose(explainer.explain(flat, "integrated_gradients", baseline="blur").attribution, 0, atol=1e-5)
    blurred = explainer.explain(rows, "integrated_gradients", targets=1, baseline="blur").attribution
    assert relative(blurred, explainer.explain(rows, "integrated_gradients", targets=1).attribution) > 0.1


def test_a_baseline_for_each_image_is_split_with_the_images(explainer, rows):
    baseline = np.random.default_rng(5).normal(size=rows.shape)
    result = explainer.explain(rows, "integrated_gradients", targets=1, baseline=baseline, memory="30KB")
    assert relative(result.attribution, (rows - baseline) * (A[1] + B[1] * (rows + baseline) / 2)) < 1e-5


# Provenance.


def test_provenance_says_how_a_map_was_made_as_plain_data(explainer, folder, picture, tmp_path):
    file = tmp_path / "a.png"
    cv2.imwrite(str(file), picture)
    result = explainer.explain(file, "smoothgrad", samples=3, seed=5)
    made = json.loads(json.dumps(result.provenance))
    assert made["bundle"]["sha256"] == hashlib.sha256((folder / "explainer.json").read_bytes()).hexdigest()
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert made["pictures"] == [{"name": str(file), "sha256": digest, "steps": 3}]
    assert made["method"] == "smoothgrad"
    assert made["parameters"] == {"samples": 3, "noise": 0.15, "seed": 5}
    assert made["seed"] == 5
    assert made["precision"] == "float32"
    assert set(made["versions"]) == {"onnxplain", "onnxruntime", "numpy", "python"}


def test_an_array_parameter_is_recorded_by_its_hash(explainer, rows):
    result = explainer.explain(rows, "integrated_gradients", baseline=np.zeros((3, 8, 8)))
    assert json.loads(json.dumps(result.provenance))["parameters"]["baseline"]["shape"] == [3, 8, 8]
