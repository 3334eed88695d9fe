"""A metric by label: FastEstimator's numbers, and every value of an epoch counted once."""

import copy
import math
import pickle
import statistics

import numpy as np
import pytest

from onnxplain.errors import ParameterError
from onnxplain.tracking import Band, LabelTracker

# The fixture of FastEstimator's own test of its LabelTracker: batches of (labels, metric) for two epochs, and means.
EPOCHS = (
    (
        ([2, 1, 0, 1, 0, 1, 1, 1, 0, 0], [0.9, 0.8, 0.1, 0.4, 0.9, 0.6, 0.1, 0.6, 0.8, 0.3]),
        ([1, 1, 1, 1, 0, 1, 0, 0, 0, 0], [0.3, 0.1, 0.0, 0.8, 0.5, 0.5, 0.6, 0.2, 0.5, 1.0]),
        ([2, 2, 2, 2, 2, 0, 2, 2, 2, 2], [0.3, 0.4, 0.7, 0.9, 0.3, 0.0, 0.3, 0.7, 0.8, 0.6]),
    ),
    (
        ([0, 1, 0, 1, 0, 1, 1, 1, 0, 0], [0.8, 0.9, 0.6, 0.1, 0.7, 0.3, 0.9, 0.9, 0.4, 0.6]),
        ([2, 2, 2, 2, 0, 1, 0, 0, 0, 0], [0.4, 0.4, 0.9, 0.1, 0.4, 0.9, 0.0, 0.8, 1.0, 0.1]),
        ([1, 1, 1, 1, 2, 2, 2, 2, 2, 2], [0.3, 0.9, 0.9, 0.5, 0.9, 0.8, 0.6, 0.1, 0.1, 0.2]),
    ),
)
MEANS = ({0: 0.49, 1: 0.42, 2: 0.59}, {0: 0.54, 1: 0.66, 2: 0.45})


def trained(tracker, mode="eval"):
    for number, batches in enumerate(EPOCHS, 1):
        tracker.epoch_begin(mode)
        for labels, values in batches:
            tracker.update(np.float32(labels), np.float32(values), mode=mode)
        tracker.epoch_end(3 * number, mode)
    return tracker


def one_epoch(labels, values, **options):
    tracker = LabelTracker("loss", **options)
    tracker.update(labels, values)
    tracker.epoch_end(1)
    return {
        name: {bounds: curve[1] for bounds, curve in curves.items()} for name, curves in tracker.history["eval"].items()
    }


def test_fastestimators_recorded_vector():
    tracker = LabelTracker("acc", bounds=[None, "std", "range"], label_mapping={"cat": 0, "dog": 1})
    tracker.update([0, 0, 1, 2], [1, 2, 5, 9], mode="train")
    tracker.epoch_end(10, "train")
    cat, dog = tracker.summaries()
    assert (cat.name, dog.name) == ("cat", "dog")
    assert cat.history["train"]["acc ($\\mu \\pm \\sigma$)"][10] == pytest.approx((0.7928932, 1.5, 2.2071068), abs=1e-7)
    assert cat.history["train"]["acc ($min, \\mu, max$)"] == {10: (1, 1.5, 2)}
    assert cat.history["train"]["acc"] == {10: 1.5}
    assert list(dog.history["train"].values()) == [{10: (5, 5, 5)}, {10: (5, 5, 5)}, {10: 5}]


def test_fastestimators_fixture():
    history = trained(LabelTracker("acc", None), "train").history["train"]
    for step, means in zip((3, 6), MEANS, strict=True):
        assert {label: round(curves[None][step], 6) for label, curves in history.items()} == means


def test_labels_that_the_mapping_lacks_are_left_out_and_the_others_renamed():
    history = trained(LabelTracker("acc", None, {"good": 0, "bad": np.int64(1)})).history["eval"]
    assert {name: [round(mean, 6) for mean in curves[None].values()] for name, curves in history.items()} == {
        "good": [0.49, 0.54],
        "bad": [0.42, 0.66],
    }


def test_means_and_deviations_are_those_of_pythons_exact_statistics():
    rng = np.random.default_rng(0)
    labels, values = rng.integers(0, 5, 1000), rng.lognormal(3, 4, 1000)
    for label, found in one_epoch(labels, values, bounds=["std", "range"]).items():
        exact = values[labels == label].tolist()
        mean, deviation = statistics.mean(exact), statistics.stdev(exact)
        assert found["std"] == pytest.approx((mean - deviation, mean, mean + deviation), rel=1e-13)
        assert found["range"] == (min(exact), found["std"].mean, max(exact))


def test_equal_values_have_exactly_their_mean_and_no_deviation():
    # A plain sum of three tenths is not 0.3.
    assert one_epoch([4] * 3, [0.1] * 3) == {4: {"std": Band(0.1, 0.1, 0.1)}}


def test_nan_is_kept_and_stays_with_its_label():
    found = one_epoch([0, 0, 1, 2, 2, 3], [1, math.nan, 2, math.inf, 1, math.inf], bounds=["std", "range"])
    assert all(math.isnan(number) for number in (*found[0]["std"], *found[0]["range"]))
    assert found[1] == {"std": (2, 2, 2), "range": (2, 2, 2)}
    assert found[2]["range"] == (1, math.inf, math.inf)
    assert found[2]["std"].mean == math.inf
    assert found[3]["std"] == (math.inf, math.inf, math.inf)


def test_labels_may_be_text_bytes_booleans_and_fractions():
    assert set(one_epoch(["cat", "dog"], [1, 2])) == {"cat", "dog"}
    assert set(one_epoch(np.array([b"cat"], object), [1])) == {"cat"}
    assert set(one_epoch([True, False], [1, 2])) == {0, 1}
    assert set(one_epoch([0.5, 2.0], [1, 2])) == {0.5, 2}


def test_a_label_is_one_whatever_its_type():
    tracker = LabelTracker("loss", None)
    for labels in ([1], [1.0], np.uint8([1]), np.float16([1])):
        tracker.update(labels, [1])
    tracker.update(["1"], [9])
    tracker.epoch_end(1)
    assert tracker.history["eval"] == {1: {None: {1: 1.0}}, "1": {None: {1: 9.0}}}


def test_tensors_with_a_gradient_and_of_short_floats_are_read():
    torch = pytest.importorskip("torch")
    loss = torch.tensor([0.5, 1.5], dtype=torch.bfloat16, requires_grad=True)
    assert one_epoch(torch.tensor([3, 3]), loss, bounds=None) == {3: {None: 1.0}}
    assert one_epoch(torch.tensor([3, 4]), loss * 2, bounds=None) == {3: {None: 1.0}, 4: {None: 3.0}}


def test_a_batch_is_copied():
    labels, values = np.array(["a", "b"]), np.array([1.0, 2.0])
    tracker = LabelTracker("loss", None)
    tracker.update(labels, values)
    labels[:], values[:] = "c", 0
    tracker.epoch_end(1)
    assert tracker.history["eval"] == {"a": {None: {1: 1.0}}, "b": {None: {1: 2.0}}}


def test_modes_are_apart():
    tracker = LabelTracker("loss", None)
    tracker.update([0], [1], mode="train")
    tracker.update([0], [5])
    tracker.epoch_end(1, "train")
    assert tracker.history == {"train": {0: {None: {1: 1.0}}}}
    assert (tracker.received(), tracker.received("train")) == (1, 0)


def test_an_interrupted_epoch_that_begins_again_doubles_nothing():
    tracker = LabelTracker("acc", ["std", "range"])
    tracker.update([0, 5], [99, 99])
    assert trained(tracker).history == trained(LabelTracker("acc", ["std", "range"])).history


def test_a_step_recorded_again_replaces_the_whole_step_and_no_other():
    tracker = LabelTracker("loss", None)
    for labels, step in (([0, 1], 1), ([0, 1, 2], 2), ([0], 2)):
        tracker.update(labels, [step] * len(labels))
        tracker.epoch_end(step)
    assert tracker.history["eval"] == {0: {None: {1: 1.0, 2: 2.0}}, 1: {None: {1: 1.0}}}
    assert tracker.steps() == [1, 2]


def test_ending_an_epoch_twice_loses_nothing():
    tracker = trained(LabelTracker("acc"))
    before = copy.deepcopy(tracker.history)
    tracker.epoch_end(6)
    tracker.epoch_end(7)
    assert tracker.history == before


def test_received_counts_dropped_samples_too():
    tracker = LabelTracker("loss", label_mapping={"a": 7})
    tracker.update([7, 8, 9], [1, 2, 3])
    tracker.update([], [])
    assert tracker.received() == 3


def test_a_pickled_tracker_goes_on():
    tracker = LabelTracker("loss")
    tracker.update([0], [1])
    tracker = pickle.loads(pickle.dumps(tracker))
    tracker.update([0], [3])
    tracker.epoch_end(1)
    assert tracker.history["eval"][0]["std"][1].mean == 2


@pytest.mark.parametrize(
    ("labels", "values", "words"),
    [
        ([0, 1], [1.0], "2 labels, but 1 values of 'loss'"),
        ([0, 1], 0.5, r"one number for each sample \(in torch: reduction='none'\)"),
        ([0, 1], [[1.0], [2.0]], r"\[N\] and not \[2, 1\]: reshape\(-1\)"),
        ([0, 1], np.ones((2, 8, 8)), r"\[N\] and not \[2, 8, 8\]: reduce the other axes"),
        (np.eye(3), [1.0, 2.0, 3.0], r"one-hot ones: argmax\(1\)"),
        ([[0], [1]], [1.0, 2.0], r"labels: .* not \[2, 1\]: reshape\(-1\)"),
        (0, [1.0], "labels: one label for each sample is needed"),
        ([0, 1], ["a", "b"], "must be numbers, not text"),
        ([0, 1], [1.0, None], "must be numbers"),
        ([0, 1], [1j, 2j], "not complex numbers"),
        ([0.0, math.nan], [1.0, 2.0], "labels must not be NaN"),
        ([0, "a"], [1.0, 2.0], "not some of each"),
        ([0, None], [1.0, 2.0], "numbers or text, not int"),
        ([[0], [1, 2]], [1.0, 2.0], "labels: no array of one axis"),
        ([0, 2**64], [1.0, 2.0], "labels must be"),
        (np.uint64([0, 2**63]), [1.0, 2.0], r"below 2\^63"),
    ],
    ids=str,
)
def test_what_is_not_one_label_and_one_value_for_each_sample_is_refused(labels, values, words):
    tracker = LabelTracker("loss")
    tracker.update([0], [1.0])
    with pytest.raises(ParameterError, match=words) as raised:
        tracker.update(labels, values)
    assert "\n" not in str(raised.value)
    # What was there before is still there.
    assert tracker.received() == 1
    tracker.epoch_end(1)
    assert tracker.history["eval"] == {0: {"std": {1: (1, 1, 1)}}}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"bounds": "stdev"}, "unknown bounds 'stdev'"),
        ({"bounds": ["std", "max"]}, "unknown bounds 'max'"),
        ({"label_mapping": {"cat": 0, "kitten": 0}}, "label 0 has two names, 'cat' and 'kitten'"),
        ({"label_mapping": {"cat": [0]}}, "'cat' must stand for a number or text"),
    ],
    ids=str,
)
def test_wrong_settings_are_refused(options, words):
    with pytest.raises(ParameterError, match=words):
        LabelTracker("loss", **options)


def test_a_mapping_of_text_for_labels_that_are_numbers_is_refused():
    tracker = LabelTracker("loss", label_mapping={"cat": "0"})
    with pytest.raises(ParameterError, match="labels such as '0', but the batch has 3"):
        tracker.update([3], [1.0])


@pytest.mark.parametrize("step", [1.5, "1", None, 2**63], ids=str)
def test_a_step_is_a_whole_number(step):
    tracker = LabelTracker("loss")
    tracker.update([0], [1.0])
    with pytest.raises(ParameterError, match="step must be a whole number"):
        tracker.epoch_end(step)
    assert tracker.received() == 1
