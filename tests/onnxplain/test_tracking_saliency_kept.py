"""A saliency tracker's pictures, settings and film outlast an interruption, bit for bit."""

import cv2
import numpy as np
import pytest

from onnxplain.errors import ParameterError
from onnxplain.pictures import read_picture
from onnxplain.tracking import LabelTracker, PngFolder, SaliencyTracker
from tracked_pictures import MAPPING, PICTURES, TRUE, rows_of
from tracked_pictures import bundle as bundle
from tracked_pictures import honest as honest


def test_an_interrupted_run_shows_the_same_pictures(honest, tmp_path):
    path = tmp_path / "tracker.npz"
    rows, baseline = rows_of([read_picture(path) for path in PICTURES]), np.full((3, 64, 64), 0.5, np.float32)
    parameters = {"integrated_gradients": {"steps": np.int64(3), "baseline": baseline}}
    tracker = SaliencyTracker(
        {"eval": 3, "train": (PICTURES[3:], TRUE[3:])},
        methods=["gradient", "integrated_gradients"],
        every=2,
        label_mapping=MAPPING,
        parameters=parameters,
        columns=["class", "maps"],
    )
    tracker.collect(rows[:2], TRUE[:2])
    tracker.save(path)  # in the middle of an epoch
    for other in (tracker, SaliencyTracker.restore(path, sinks=PngFolder(tmp_path))):
        other.collect(rows[2:], TRUE[2:])
        for mode in ("eval", "train"):
            other.show(honest, 2, mode=mode)
        other.save(tmp_path / "again.npz")
        found = SaliencyTracker.restore(tmp_path / "again.npz")
        assert found.shown == {"eval": [2], "train": [2]}
        assert found.due(4)
        assert not found.due(5)
        assert found.rows == 4
        found.collect(rows, [9] * 5)
        for mode in ("eval", "train"):
            expected, maps = tracker.show(honest, 4, mode=mode), found.show(honest, 4, mode=mode)
            assert maps.labels == expected.labels
            np.testing.assert_array_equal(maps.pixels(), expected.pixels())
        found.film(tmp_path / "film.png")
        assert len(cv2.imreadanimation(str(tmp_path / "film.png"))[1].frames) == 2
    assert maps.labels == ("THREE", "FOUR")
    assert sorted(each.name for each in (tmp_path / "saliency").iterdir()) == ["eval", "train"]


def test_pictures_of_several_sizes_and_inputs_are_kept_bit_for_bit():
    small, large = (np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8) for size in (4, 6))
    mapping = {"image": np.random.default_rng(1).random((1, 3, 4)), "age": np.array([1 / 3])}
    tracker = SaliencyTracker({"eval": ([small, large], [0.1, "word"]), "train": mapping})
    found = SaliencyTracker.from_bytes(tracker.to_bytes())._samples
    for image, expected in zip(found.settled("eval").images, (small, large), strict=True):
        np.testing.assert_array_equal(image, expected)
    assert found.settled("eval").labels == [0.1, "word"]
    (kept,) = found.settled("train").images
    np.testing.assert_array_equal(kept["image"], mapping["image"][0])
    assert kept["age"] == 1 / 3


def test_a_file_that_is_no_state_of_this_tracker_is_an_error(tmp_path):
    whole = SaliencyTracker(PICTURES).to_bytes()
    for name, data in (("cut", whole[:-30]), ("empty", b""), ("text", b"a text")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ParameterError, match=rf"{name}: no tracker's state, or damaged"):
            SaliencyTracker.restore(tmp_path / name)
    with pytest.raises(ParameterError, match="the state of a LabelTracker, not of a SaliencyTracker"):
        SaliencyTracker.from_bytes(LabelTracker("loss").to_bytes())
    with pytest.raises(ParameterError, match="nowhere"):
        SaliencyTracker.restore(tmp_path / "nowhere")


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png"])
def test_figures_go_to_the_film_and_to_the_sinks(honest, tmp_path, suffix):
    tracker = SaliencyTracker(PICTURES[:1], methods="gradient", sinks=[PngFolder(tmp_path)])
    shown = {epoch: tracker.show(honest, epoch) for epoch in (5, 1, 5)}
    tracker.film(tmp_path / f"film{suffix}", milliseconds=300)
    film = cv2.imreadanimation(str(tmp_path / f"film{suffix}"))[1]
    assert list(film.durations) == [300, 300]
    for frame, epoch in zip(film.frames, (1, 5), strict=True):
        expected = shown[epoch].pixels()
        np.testing.assert_array_equal(read_picture(tmp_path / "saliency" / "eval" / f"epoch_000{epoch}.png"), expected)
        assert np.abs(frame[..., 2::-1].astype(int) - expected).mean() < (3 if suffix == ".gif" else 1e-9)
    with pytest.raises(ParameterError, match="no film of the mode 'train': shown so far: eval"):
        tracker.film(tmp_path / "film.gif", mode="train")
