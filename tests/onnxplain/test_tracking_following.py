"""A network followed over a data set: what it says of each sample, in batches, told to trackers."""

import gc
import json
import weakref

import cv2
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from onnxplain import Explainer
from onnxplain.errors import ParameterError, PictureError
from onnxplain.tracking import following
from onnxplain.tracking.following import follow
from onnxplain.tracking.scoring import SAMPLE_METRICS, score_samples
from toy_bundle import CLASSES, LABELS, scores_of, write_toy_bundle

COUNT = 23


class Recorder:
    """A tracker that keeps what it is told."""

    def __init__(self):
        self.told = []

    def epoch_begin(self, mode="eval"):
        self.told.append(("begin", mode))

    def update(self, keys, values, *, mode="eval"):
        self.told.append(("update", mode, np.array(keys), np.array(values)))

    def epoch_end(self, step, mode="eval"):
        self.told.append(("end", mode, step))

    @property
    def kinds(self):
        return [entry[0] for entry in self.told]

    def joined(self, place):
        return np.concatenate([entry[place] for entry in self.told if entry[0] == "update"])


@pytest.fixture(scope="module")
def data():
    random = np.random.default_rng(9)
    return random.normal(size=(COUNT, 3, 8, 8)).astype(np.float32), random.integers(0, CLASSES, COUNT)


@pytest.mark.parametrize("metric", SAMPLE_METRICS)
@pytest.mark.parametrize("batch", [None, 1, 7, COUNT])
def test_the_values_are_those_of_the_networks_scores_whatever_the_batch(explainer, data, metric, batch):
    images, labels = data
    found = follow(explainer, images, labels, step=3, metric=metric, batch=batch)
    scores = scores_of(images)
    assert_allclose(found.values, score_samples(metric, scores, labels), rtol=2e-5, atol=1e-6)
    assert_array_equal(found.predicted, scores.argmax(axis=1))
    assert_array_equal(found.right, scores.argmax(axis=1) == labels)
    assert_array_equal(found.indices, np.arange(COUNT))
    assert_array_equal(found.labels, labels)
    assert (found.step, found.metric, found.mode, len(found)) == (3, metric, "eval", COUNT)
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    probabilities = powers / powers.sum(axis=1, keepdims=True)
    assert_allclose(found.confidence, probabilities.max(axis=1), atol=1e-5)
    assert_allclose(found.probability, probabilities[np.arange(COUNT), labels], atol=1e-5)


def test_trackers_are_told_each_sample_once_between_begin_and_end(explainer, data):
    images, labels = data
    by_label, by_instance = Recorder(), Recorder()
    numbers = np.arange(COUNT)[::-1] * 10
    found = follow(
        explainer,
        images,
        labels,
        step=12,
        label_tracker=by_label,
        instance_tracker=by_instance,
        indices=numbers,
        mode="test",
        batch=10,
    )
    for tracker, keys in ((by_label, labels), (by_instance, numbers)):
        assert tracker.kinds == ["begin", "update", "update", "update", "end"]
        assert {entry[1] for entry in tracker.told} == {"test"}
        assert tracker.told[-1] == ("end", "test", 12)
        assert_array_equal(tracker.joined(2), keys)
        assert_array_equal(tracker.joined(3), found.values)
    assert_array_equal(found.indices, numbers)


def test_only_the_forward_graph_is_run(tmp_path, data):
    folder = write_toy_bundle(tmp_path / "toy.explain")
    for graph in json.loads((folder / "explainer.json").read_text())["graphs"].values():
        if graph["file"] != "forward.onnx":
            (folder / graph["file"]).write_bytes(b"no network")
    assert len(follow(Explainer(folder, device="cpu", verify=False), *data, step=1)) == COUNT


def test_a_bundle_is_opened_by_its_path(folder, data, explainer):
    assert_array_equal(follow(folder, *data, step=1).values, follow(explainer, *data, step=1).values)


def test_batches_tensors_names_and_pictures_give_the_same(explainer, data, tmp_path):
    images, labels = data
    expected = follow(explainer, images, labels, step=1).values
    batches = ((images[start : start + 9], labels[start : start + 9].tolist()) for start in range(0, COUNT, 9))
    tensors = [(torch.tensor(images, requires_grad=True), torch.tensor(labels))]
    names = [["cat", "DOG", "tench", "crane"][label] for label in labels]
    assert_array_equal(follow(explainer, batches, step=1).values, expected)
    assert_array_equal(follow(explainer, tensors, step=1, batch=4).values, expected)
    assert_array_equal(follow(explainer, torch.tensor(images), torch.tensor(labels), step=1).values, expected)
    assert_array_equal(follow(explainer, images, names, step=1).values, expected)

    pixels = np.random.default_rng(1).integers(0, 256, (3, 20, 31, 3), np.uint8)
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for path, picture in zip(paths, pixels, strict=True):
        cv2.imwrite(str(path), picture[..., ::-1])
    by_path, by_array = (follow(explainer, each, [0, 1, 2], step=1).values for each in (paths, pixels))
    assert_array_equal(by_path, by_array)


def test_memory_holds_a_batch_not_the_data(explainer):
    """However many batches there are, no more than two are alive at any time: the one read and the one to come."""
    alive: list[weakref.ref] = []
    most = 0

    def batches():
        nonlocal most
        for number in range(40):
            images = np.full((16, 3, 8, 8), number, np.float32)
            alive.append(weakref.ref(images))
            yield images, [0] * 16
            del images
            gc.collect()
            most = max(most, sum(reference() is not None for reference in alive))

    assert len(follow(explainer, batches(), step=1, batch=16)) == 640
    assert most <= 2


@pytest.mark.parametrize(
    ("shape", "expected"),
    [(("N", 3, 8, 8), 256), (("N", 3, 224, 224), 106), (("N", 3, 4096, 4096), 1), (("N", 3, "H", "W"), 16)],
)
def test_how_many_images_are_read_together_depends_on_their_size(shape, expected):
    class Image:
        dtype = "float32"

    class Bundle:
        image = Image

    Image.shape = shape
    assert following._together(Bundle) == expected


def test_a_network_that_has_diverged_gives_nan_and_no_class(tmp_path, data, monkeypatch):
    images, labels = data
    images = images.copy()
    images[4] = 3e38  # finite, but its square isn't
    tracker = Recorder()
    explainer = Explainer(write_toy_bundle(tmp_path / "toy.explain"), device="cpu")
    run = explainer._forward

    def nan_for_the_fifth(feeds, count, memory):
        scores, values = run(feeds, count, memory)
        scores[np.isinf(scores).any(axis=1)] = np.nan
        return scores, values

    monkeypatch.setattr(explainer, "_forward", nan_for_the_fifth)
    found = follow(explainer, images, labels, step=1, label_tracker=tracker)
    assert_array_equal(np.isnan(found.values), np.arange(COUNT) == 4)
    assert found.predicted[4] == -1
    assert not found.right[4]
    assert np.isnan(tracker.joined(3)[4])


def test_a_picture_that_cannot_be_read_is_told_with_its_number_and_skipped(explainer, data):
    images, labels = data
    given = list(images)
    given[5] = images[5][:, :4]
    given[20] = np.full_like(images[20], np.nan)
    bad, tracker = {}, Recorder()
    found = follow(
        explainer,
        given,
        labels,
        step=1,
        batch=6,
        instance_tracker=tracker,
        on_error=lambda n, error: bad.update({n: error}),
    )
    assert list(bad) == [5, 20]
    assert "image 20" in str(bad[20])
    assert_array_equal(found.indices, np.delete(np.arange(COUNT), [5, 20]))
    assert_array_equal(tracker.joined(2), found.indices)
    assert_array_equal(found.values, np.delete(follow(explainer, images, labels, step=1).values, [5, 20]))
    tracker = Recorder()
    with pytest.raises(PictureError, match="image 5"):
        follow(explainer, given, labels, step=1, instance_tracker=tracker)
    assert "end" not in tracker.kinds
    with pytest.raises(PictureError, match="none of the pictures could be read"):
        follow(explainer, given[5:6], labels[:1], step=1, on_error=lambda n, error: None, instance_tracker=tracker)
    assert "end" not in tracker.kinds


def test_wrong_input_is_refused_in_one_line(explainer, data, tmp_path):
    images, labels = data
    for arguments, options, told in (
        ((images, labels[:-1]), {}, "22 labels for 23 images; each image needs one"),
        ((images, labels[:, None]), {}, "labels are one class for each image, [N], not [23, 1]"),
        ((images, labels + 4), {}, "is out of range: the network has classes 0 to 3"),
        ((images, ["cat", "dgo"] + ["cat"] * 21), {}, "unknown target 'dgo'; did you mean 'dog'?"),
        ((images, labels * 1.0), {}, "is no class number or name"),
        ((images,), {}, "images need labels=, or are an iterable of (images, labels) batches"),
        (([images],), {}, "a batch is a pair (images, labels), not ndarray"),
        (([(images, labels[:-1])],), {}, "22 labels for 23 images"),
        (([(images, labels)],), {"indices": [1]}, "batches are numbered in their order"),
        ((images, labels), {"indices": [1, 2]}, "one for each of the 23 images, not int64 [2]"),
        ((images, labels), {"metric": "loss"}, "unknown metric 'loss'"),
        ((images, labels), {"batch": 0}, "batch=0 must be a whole number"),
        ((images[:0], labels[:0]), {}, "there are no images to follow"),
        (([],), {}, "there are no images to follow"),
    ):
        with pytest.raises((ParameterError, PictureError)) as error:
            follow(explainer, *arguments, step=1, **options)
        assert told in str(error.value)
        assert "\n" not in str(error.value)
    outputs = [{"name": "y", "shape": ["N", 4, 8, 8], "explained": True, "classes": 4, "class_axis": 1}]
    dense = write_toy_bundle(tmp_path / "dense.explain", outputs=[{**outputs[0], "activation": "none", "labels": None}])
    with pytest.raises(ParameterError, match=r"need scores of classes \[N, C\]; toy gives"):
        follow(dense, images, labels, step=1)


def test_the_labels_are_those_of_the_toy():
    assert len(LABELS) == CLASSES
