"""A metric by sample: FastEstimator's choice of samples, and a history that equals a plain dict of dicts."""

import math
import tracemalloc

import numpy as np
import pytest

from onnxplain.errors import ParameterError
from onnxplain.tracking import InstanceTracker, Summary

# The fixture of FastEstimator's own test of its InstanceTracker: batches of (indices, metric) for two epochs.
EPOCHS = (
    (
        (range(10), [0.9, 0.8, 0.1, 0.4, 0.9, 0.6, 0.1, 0.6, 0.8, 0.3]),
        (range(10, 20), [0.3, 0.1, 0.0, 0.8, 0.5, 0.5, 0.6, 0.2, 0.5, 1.0]),
        (range(20, 30), [0.3, 0.4, 0.7, 0.9, 0.3, 0.0, 0.3, 0.7, 0.8, 0.6]),
    ),
    (
        ([21, 2, 18, 3, 15, 22, 12, 27, 23, 9], [0.8, 0.9, 0.6, 0.1, 0.7, 0.3, 0.9, 0.9, 0.4, 0.6]),
        ([20, 5, 28, 8, 6, 25, 11, 13, 7, 16], [0.4, 0.4, 0.9, 0.1, 0.4, 0.9, 0.0, 0.8, 1.0, 0.1]),
        ([1, 19, 24, 10, 0, 29, 17, 14, 4, 26], [0.3, 0.9, 0.9, 0.5, 0.9, 0.8, 0.6, 0.1, 0.1, 0.2]),
    ),
)


def trained(tracker, mode="eval"):
    for number, batches in enumerate(EPOCHS, 1):
        tracker.epoch_begin(mode)
        for indices, values in batches:
            tracker.update(np.float32(indices), np.float32(values), mode=mode)
        tracker.epoch_end(3 * number, mode)
    return tracker


def fed(*epochs, **options):
    tracker = InstanceTracker("loss", **options)
    for step, (indices, values) in enumerate(epochs, 1):
        tracker.update(indices, values)
        tracker.epoch_end(step)
    return tracker


def plain(recorded):
    return {index: dict(curve) for index, curve in recorded.items()}


def test_fastestimators_recorded_vector():
    tracker = fed(([7, 8, 9, 5, 8], [0.4, 0.1, 0.9, 0.2, 0.3]), n_max_to_keep=1, n_min_to_keep=1, list_to_keep=[7])
    assert tracker.kept() == [5, 7, 9]
    assert tracker.summaries() == [
        Summary(5, {"eval": {"loss": {1: 0.2}}}),
        Summary(7, {"eval": {"loss": {1: 0.4}}}),
        Summary(9, {"eval": {"loss": {1: 0.9}}}),
    ]


LOWEST, HIGHEST, LISTED = [3, 4, 8, 11, 14], [7, 24, 25, 27, 28], [1, 5, 17]


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({}, [*LOWEST, *HIGHEST]),
        ({"list_to_keep": LISTED}, [*LOWEST, *HIGHEST, *LISTED]),
        ({"n_max_to_keep": 0, "n_min_to_keep": 0, "list_to_keep": LISTED}, LISTED),
    ],
    ids=["highest and lowest", "and listed", "listed"],
)
def test_fastestimators_fixture(options, kept):
    tracker = trained(InstanceTracker("ce", **options), "train")
    assert sorted(tracker.kept("train")) == sorted(summary.name for summary in tracker.summaries()) == sorted(kept)
    values = dict(tracker.history["train"])
    assert [round(value, 5) for value in values[1].values()] == [0.8, 0.3]


def test_with_a_list_alone_nothing_else_is_recorded():
    tracker = trained(InstanceTracker("ce", 0, 0, [1, 5, 17, 99]))
    assert set(tracker.history["eval"]) == {1, 5, 17}
    assert len(tracker.history["eval"].indices) == 3
    tracker = trained(InstanceTracker("ce", 0, 0))
    assert (len(tracker.history["eval"]), tracker.kept()) == (30, [])


def test_ties_keep_the_order_in_which_samples_were_first_seen():
    tracker = fed(([9, 3, 7, 1], [0.5] * 4), ([1, 7, 3, 9, 0], [0.5] * 5), n_max_to_keep=1, n_min_to_keep=2)
    assert tracker.kept() == [9, 3, 0]
    assert tracker.hardest(5) == [0, 1, 7, 3, 9]
    assert tracker.easiest(2) == [9, 3]


def test_many_ties_keep_their_order_too():
    indices = np.random.default_rng(0).permutation(100).tolist()
    values = [0.5 if at % 3 else 0.25 for at in range(100)]
    ordered = sorted(indices, key=dict(zip(indices, values, strict=True)).__getitem__)
    tracker = fed((indices, values), n_max_to_keep=3, n_min_to_keep=2)
    assert tracker.kept() == [*ordered[:2], *ordered[-3:]]
    assert tracker.hardest(50) == ordered[:49:-1]
    assert tracker.easiest(50) == ordered[:50]


def test_of_fewer_samples_than_are_to_be_kept_all_are():
    assert fed((range(4), range(4)), n_max_to_keep=5, n_min_to_keep=0).kept() == [0, 1, 2, 3]
    assert fed((range(4), range(4)), n_max_to_keep=0, n_min_to_keep=5).kept() == [0, 1, 2, 3]


def test_the_list_may_be_an_array_and_name_a_sample_twice():
    assert fed((range(4), range(4)), n_max_to_keep=0, n_min_to_keep=0, list_to_keep=np.array([2, 1, 2])).kept() == [
        1,
        2,
    ]


def test_nan_is_kept_and_is_the_hardest():
    tracker = fed(([1, 2, 3, 4], [0.5, math.nan, math.inf, -1]), n_max_to_keep=1, n_min_to_keep=1)
    assert math.isnan(tracker.history["eval"][2][1])
    assert tracker.kept() == [4, 2]
    assert tracker.hardest(9) == [2, 3, 1, 4]
    assert tracker.easiest(9) == [4, 1, 3, 2]
    assert tracker.hardest(9, harder="low") == [2, 4, 1, 3]
    assert tracker.easiest(9, harder="low") == [3, 1, 4, 2]


def test_only_epochs_that_the_frequency_divides_are_recorded():
    tracker = InstanceTracker("loss", epoch_frequency=3)
    for epoch in range(1, 8):
        tracker.update([0], [epoch], epoch=epoch if epoch % 2 else None)
        assert tracker.received() == 1
        tracker.epoch_end(100 * epoch + 1, epoch=epoch)
    assert plain(tracker.history["eval"]) == {0: {301: 3.0, 601: 6.0}}
    # Without an epoch the step is one; a batch that says its own is dropped before that.
    tracker.update([0], [9])
    tracker.update([1], [9], epoch=8)
    tracker.epoch_end(9)
    assert tracker.steps() == [9, 301, 601]
    assert set(tracker.history["eval"]) == {0}


@pytest.mark.parametrize("name", [int, "picture {}.png".format], ids=["numbers", "text"])
def test_the_history_is_that_of_plain_dicts(name):
    rng = np.random.default_rng(3)
    tracker, expected = InstanceTracker("loss"), {}
    for step in (1, 2, 3, 5, 8, 9, 5):
        found = {}
        # Some samples are missing, some come late, some twice; step 5 is recorded again.
        for _ in range(4):
            indices = [name(index) for index in rng.integers(-20, 12 * step, 10).tolist()]
            values = rng.normal(size=10)
            tracker.update(indices, values)
            found.update(zip(indices, values.tolist(), strict=True))
        tracker.epoch_end(step)
        expected = {
            index: {at: value for at, value in curve.items() if at != step} for index, curve in expected.items()
        }
        for index, value in found.items():
            expected.setdefault(index, {})[step] = value
    expected = {index: curve for index, curve in expected.items() if curve}
    history = tracker.history["eval"]
    assert plain(history) == expected
    assert len(history) == len(expected)
    assert name(-21) not in history
    assert 0.5 not in history
    assert ("1" if name is int else 1) not in history
    last = {index: curve[max(curve)] for index, curve in expected.items()}
    assert dict(zip(*(each.tolist() for each in tracker.latest()), strict=True)) == last
    ranked = sorted(last, key=last.__getitem__)
    assert tracker.hardest(3) == ranked[:-4:-1]
    assert tracker.easiest(3) == ranked[:3]


def test_an_interrupted_epoch_that_begins_again_doubles_nothing():
    tracker = InstanceTracker("ce")
    tracker.update([0, 99], [5, 5])
    assert plain(trained(tracker).history["eval"]) == plain(trained(InstanceTracker("ce")).history["eval"])


def test_ending_an_epoch_twice_loses_nothing():
    tracker = trained(InstanceTracker("ce"))
    before = plain(tracker.history["eval"])
    tracker.epoch_end(6)
    tracker.epoch_end(7)
    assert plain(tracker.history["eval"]) == before


@pytest.mark.parametrize("values", [np.float32([0.1, -0.0, math.nan, math.inf]), [0.1, -0.0, 1e300, 5e-324]], ids=str)
def test_values_come_back_bit_for_bit(values):
    tracker = fed(([3, 1, 2, 0], values))
    found = [tracker.history["eval"][index][1] for index in (3, 1, 2, 0)]
    assert np.array(found).tobytes() == np.array(values, np.float64).tobytes()


@pytest.mark.parametrize(("kind", "bytes_"), [(np.float32, 4), (np.float64, 8)], ids=["float32", "float64"])
def test_an_epoch_of_many_samples_costs_the_bytes_of_its_values(kind, bytes_):
    samples = 100_000
    rng = np.random.default_rng(0)
    tracker = fed((np.arange(samples), rng.random(samples).astype(kind)))
    tracemalloc.start()
    try:
        for step in (2, 3, 4):
            tracker.update(rng.permutation(samples), rng.random(samples).astype(kind))
            tracker.epoch_end(step)
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert held / (3 * samples) == pytest.approx(bytes_, rel=0.05)


@pytest.mark.parametrize(("first", "other"), [(1, 7), ("a", "z")], ids=str)
def test_a_batch_is_copied(first, other):
    indices, values = np.array([first, first]), np.array([1.0, 2.0])
    tracker = InstanceTracker("loss")
    tracker.update(indices, values)
    indices[:], values[:] = other, 0
    tracker.epoch_end(1)
    assert plain(tracker.history["eval"]) == {first: {1: 2.0}}


@pytest.mark.parametrize(
    ("indices", "values", "words"),
    [
        ([0, 1], [1.0], "2 indices, but 1 values of 'loss'"),
        ([0, 1], 0.5, "one number for each sample"),
        ([0, 1], [[1.0], [2.0]], r"\[N\] and not \[2, 1\]: reshape"),
        ([[0], [1]], [1.0, 2.0], "indices: one index for each sample"),
        ([0.5, 1], [1.0, 2.0], "indices must be whole numbers or text, not fractions"),
        ([math.inf, 1], [1.0, 2.0], "indices must be whole numbers or text"),
        (["a", "b"], [1.0, 2.0], "such as 'a', but those listed or seen before are such as 0"),
    ],
    ids=str,
)
def test_what_is_not_one_index_and_one_value_for_each_sample_is_refused(indices, values, words):
    tracker = InstanceTracker("loss")
    tracker.update([0], [1.0])
    with pytest.raises(ParameterError, match=words) as raised:
        tracker.update(indices, values)
    assert "\n" not in str(raised.value)
    assert tracker.received() == 1
    tracker.epoch_end(1)
    assert plain(tracker.history["eval"]) == {0: {1: 1.0}}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"n_max_to_keep": -1}, "n_max_to_keep must be a whole number of at least 0, not -1"),
        ({"n_min_to_keep": -3}, "n_min_to_keep must be a whole number of at least 0, not -3"),
        ({"n_min_to_keep": 1.5}, "n_min_to_keep must be a whole number of at least 0, not 1.5"),
        ({"epoch_frequency": 0}, "epoch_frequency must be a whole number of at least 1, not 0"),
        ({"list_to_keep": "abc"}, "list_to_keep must be a list"),
        ({"list_to_keep": [[1]]}, "list_to_keep must be a list of whole numbers or of text"),
        ({"list_to_keep": [1, "a"]}, "list_to_keep must hold all numbers or all text"),
    ],
    ids=str,
)
def test_wrong_settings_are_refused(options, words):
    with pytest.raises(ParameterError, match=words):
        InstanceTracker("loss", **options)


def test_listed_text_for_indices_that_are_numbers_is_refused():
    tracker = InstanceTracker("loss", list_to_keep=["cat.png"])
    with pytest.raises(ParameterError, match=r"such as 3, but those listed or seen before are such as 'cat\.png'"):
        tracker.update([3], [1.0])


def test_what_was_never_recorded_can_not_be_ranked():
    tracker = fed(([0], [1.0]))
    for asked in (tracker.kept, tracker.latest, lambda mode: tracker.hardest(3, mode)):
        with pytest.raises(ParameterError, match="no epoch of mode 'test' has been recorded; recorded: eval"):
            asked("test")
    with pytest.raises(ParameterError, match="count must be a whole number of at least 0, not -1"):
        tracker.easiest(-1)
    with pytest.raises(ParameterError, match='harder must be "high" or "low"'):
        tracker.hardest(1, harder="higher")
