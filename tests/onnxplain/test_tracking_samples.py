"""The pictures that are kept are the first ones, cut as FastEstimator cuts them, and stay the same ever after."""

from pathlib import Path

import numpy as np
import pytest
import torch

from onnxplain.errors import ParameterError, PictureError
from onnxplain.pictures import read_picture
from onnxplain.tracking.samples import Samples

FOLDER = Path(__file__).parents[2] / "models" / "pictures"
PICTURES = sorted(FOLDER.glob("*.png"))


def batch(first, count):
    """Pictures [count, 1, 2, 2] of the numbers from `first` on, and these numbers."""
    numbers = np.arange(first, first + count)
    return np.broadcast_to(numbers[:, None, None, None], (count, 1, 2, 2)).astype(np.float32), numbers


def fastestimator(wanted, sizes):
    """The numbers that its trace keeps: the first batch, or batches until there are enough, cut at the epoch's end."""
    kept, first = [], 0
    for size in sizes:
        if (wanted is None and kept) or (wanted is not None and len(kept) >= wanted):
            break
        kept += range(first, first + size)
        first += size
    return kept[:wanted]


@pytest.mark.parametrize("wanted", [None, 1, 3, 4, 5, 8, 9, 100])
@pytest.mark.parametrize("sizes", [(4, 4, 2), (3, 3, 3, 1), (1,) * 10, (10,)])
def test_the_first_batch_or_the_first_k_are_kept(wanted, sizes):
    samples = Samples(wanted)
    for _epoch in range(2):  # the second adds nothing
        samples.begin("eval")
        first = 0
        for size in sizes:
            samples.collect(*batch(first, size), "eval")
            first += size
        kept = samples.settled("eval")
        assert kept.labels == fastestimator(wanted, sizes)
        assert [int(image[0, 0, 0]) for image in kept.images] == kept.labels


def test_an_interrupted_epochs_pictures_are_dropped_and_complete_ones_are_not():
    samples = Samples(5)
    samples.collect(*batch(0, 4), "eval")
    samples.begin("eval")
    samples.collect(*batch(10, 4), "eval")
    samples.collect(*batch(14, 4), "eval")
    samples.begin("eval")
    assert samples.settled("eval").labels == [10, 11, 12, 13, 14]


def test_each_mode_has_its_own():
    samples = Samples(2)
    samples.collect(*batch(0, 4), "train")
    samples.collect(*batch(7, 4), "eval")
    assert samples.settled("train").labels == [0, 1]
    assert samples.settled("eval").labels == [7, 8]
    with pytest.raises(ParameterError, match=r"collect\(images, labels, mode='test'\)"):
        samples.settled("test")


def test_given_pictures_serve_every_mode():
    samples = Samples(batch(3, 2))
    assert not samples.collect(*batch(0, 4), "eval")
    assert samples.settled("eval").labels == samples.settled("train").labels == [3, 4]


def test_pictures_are_given_for_each_mode():
    samples = Samples({"train": batch(3, 2), "eval": 3, "test": None})
    for mode in ("train", "eval", "test", "other"):
        samples.collect(*batch(0, 4), mode)
    assert [samples.settled(mode).labels for mode in ("train", "eval", "test")] == [[3, 4], [0, 1, 2], [0, 1, 2, 3]]
    with pytest.raises(ParameterError, match=r"mode 'other', only for train, eval, test"):
        samples.settled("other")


@pytest.mark.parametrize("asked", [FOLDER, str(FOLDER), PICTURES, [read_picture(path) for path in PICTURES]])
def test_files_are_read_at_once(asked):
    kept = Samples((asked, ["a"] * 12)).settled("eval")
    for image, path in zip(kept.images, PICTURES, strict=True):
        np.testing.assert_array_equal(image, read_picture(path))


def test_one_picture_in_bytes_is_one():
    picture = read_picture(PICTURES[0])
    for given in (picture, picture[None], torch.from_numpy(picture), [picture]):
        kept = Samples((given, ["zero"])).settled("eval")
        assert kept.labels == ["zero"]
        np.testing.assert_array_equal(kept.images, picture[None])


def test_a_network_of_several_inputs_gets_mappings():
    images, numbers = batch(0, 4)
    samples = Samples(3)
    samples.collect({"image": images, "age": numbers * 2.0}, numbers, "eval")
    assert [float(each["age"]) for each in samples.settled("eval").images] == [0, 2, 4]
    with pytest.raises(ParameterError, match=r"different numbers of rows: \{'image': 4, 'age': 3\}"):
        Samples(3).collect({"image": images, "age": numbers[:3]}, None, "eval")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.uint8])
def test_tensors_are_copied_and_never_read_again(dtype):
    images = torch.arange(8).reshape(2, 1, 2, 2).to(dtype)
    labels = torch.tensor([1, 0])
    if dtype.is_floating_point:
        images.requires_grad_()
    samples = Samples()
    samples.collect(images, labels, "eval")
    images.data.zero_()
    labels.zero_()
    samples.collect(None, "not looked at", "eval")
    kept = samples.settled("eval")
    assert kept.labels == [1, 0]
    np.testing.assert_array_equal(np.stack(kept.images), np.arange(8).reshape(2, 1, 2, 2))


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        (["cat", "dog"], ["cat", "dog"]),
        (np.array(["cat", "dog"]), ["cat", "dog"]),
        ([np.int64(1), torch.tensor(2)], [1, 2]),
        (np.array([0.5, 1.0]), [0.5, 1.0]),
        ((1, "two"), [1, "two"]),
    ],
)
def test_labels_are_plain_numbers_or_words(labels, found):
    samples = Samples()
    samples.collect(batch(0, 2)[0], labels, "eval")
    assert samples.settled("eval").labels == found
    assert [type(label) for label in samples.settled("eval").labels] == [type(label) for label in found]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([1], "1 labels were given for 2 pictures"),
        (np.zeros((2, 1)), r"one for each picture, \[2\], not \[2, 1\]"),
        (np.eye(2), r"not \[2, 2\]"),
        ("ab", "not 'ab'"),
        ([[1], [2]], r"not \[1\]"),
        (3, "not 3"),
    ],
    ids=str,
)
def test_labels_that_are_not_one_for_each_picture_are_errors(labels, message):
    samples = Samples()
    with pytest.raises(ParameterError, match=message):
        samples.collect(batch(0, 2)[0], labels, "eval")
    samples.collect(*batch(0, 2), "eval")
    assert samples.settled("eval").labels == [0, 1]


def test_batches_with_and_without_labels_are_an_error():
    samples = Samples(5)
    samples.collect(*batch(0, 2), "eval")
    with pytest.raises(ParameterError, match="some batches came with labels and some without"):
        samples.collect(batch(2, 2)[0], None, "eval")


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (0, "samples=0 must be"),
        (-3, "samples=-3 must be"),
        (True, "samples=True must be"),
        (2.5, "samples=2.5 must be"),
        ({}, "names no mode"),
        ({"": 3}, "mode='' must be a word"),
        (np.zeros((0, 1, 2, 2)), "without pictures"),
        ([], "without pictures"),
        (np.zeros(4), r"\[N, …\], not \[4\]"),
        (object(), "object is no batch"),
        ([FOLDER / "weights.npy"], "give the arrays themselves"),
    ],
)
def test_what_can_not_be_samples_is_an_error(asked, message):
    with pytest.raises(ParameterError, match=message):
        Samples(asked)


def test_a_missing_file_is_an_error_at_once():
    with pytest.raises(PictureError, match=r"nowhere\.png"):
        Samples(["nowhere.png"])
