"""A film has a frame for each epoch, in order, as long as was asked, and is there whole or not at all."""

import cv2
import numpy as np
import pytest
from PIL import Image

from onnxplain.errors import OutputError, ParameterError
from onnxplain.tracking.film import SUFFIXES, Film, write_film

COLOURS = [(250, 10, 20), (20, 240, 30), (10, 30, 245), (0, 0, 0)]


def frames(*sizes):
    """A frame of each size (height, width), each of its own colour."""
    return [np.full((*size, 3), colour, np.uint8) for size, colour in zip(sizes, COLOURS, strict=False)]


def read(path):
    """The frames of a film and their milliseconds."""
    _, film = cv2.imreadanimation(str(path))
    return [frame[..., 2::-1] for frame in film.frames], list(film.durations)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_frames_are_there_in_order(tmp_path, suffix):
    path, given = tmp_path / f"film{suffix}", frames((30, 41), (30, 41), (30, 41))
    write_film(path, given, milliseconds=450)
    found, durations = read(path)
    with Image.open(path) as opened:
        assert len(found) == opened.n_frames == 3
    assert durations == [450] * 3
    for frame, expected in zip(found, given, strict=True):
        np.testing.assert_allclose(frame.astype(int), expected, atol=4 if suffix == ".gif" else 0)
    assert list(tmp_path.iterdir()) == [path]


def test_a_gifs_colours_are_near_those_of_the_frames(tmp_path):
    ramp = np.linspace(0, 255, 200).astype(np.uint8)
    frame = np.stack([np.broadcast_to(ramp, (100, 200)), np.full((100, 200), 90), np.full((100, 200), 30)], axis=-1)
    frame[:20] = np.where(np.random.default_rng(0).random((20, 200, 1)) < 0.5, 0, 255)
    frame = frame.astype(np.uint8)
    write_film(tmp_path / "film.gif", [frame, frame[::-1]])
    assert np.abs(read(tmp_path / "film.gif")[0][0].astype(int) - frame).max() < 12


def test_a_large_film_is_shrunk_and_small_frames_get_a_rim(tmp_path):
    path = tmp_path / "film.png"
    write_film(path, frames((100, 200), (100, 100), (10, 20)), most=50)
    found, _ = read(path)
    assert [frame.shape for frame in found] == [(50, 50, 3)] * 3
    np.testing.assert_array_equal(found[0][:25], np.broadcast_to(COLOURS[0], (25, 50, 3)))
    assert (found[0][25:] == 255).all()
    np.testing.assert_array_equal(found[1], np.broadcast_to(COLOURS[1], (50, 50, 3)))
    np.testing.assert_array_equal(found[2][:10, :20], np.broadcast_to(COLOURS[2], (10, 20, 3)))


def test_an_epochs_frame_is_replaced_and_epochs_are_in_order():
    film, (red, green, blue) = Film(), frames((4, 5), (4, 5), (4, 5))
    for epoch, frame in ((10, red), (1, green), (5, red), (10, blue)):
        film.add(epoch, frame)
    assert len(film) == 3
    np.testing.assert_array_equal(list(film.pictures()), [green, red, blue])


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("film.mp4", {}, r"film\.mp4: a film is a file with the ending \.gif, \.webp, \.png"),
        ("film.gif", {"milliseconds": 0}, "milliseconds=0 must be between 20 and 60000"),
        ("film.gif", {"milliseconds": True}, "milliseconds=True"),
        ("film.gif", {"most": 3}, "most=3 must be at least 16"),
    ],
)
def test_what_can_not_be_written_is_an_error(tmp_path, name, options, message):
    with pytest.raises(ParameterError, match=message):
        write_film(tmp_path / name, frames((4, 5)), **options)
    assert not list(tmp_path.iterdir())


def test_a_film_of_nothing_and_a_folder_that_is_not_there_are_errors(tmp_path):
    with pytest.raises(ParameterError, match="nothing has been shown yet"):
        write_film(tmp_path / "film.gif", [])
    with pytest.raises(OutputError, match="nowhere"):
        write_film(tmp_path / "nowhere" / "film.gif", frames((4, 5)))


def test_frames_of_floats_are_an_error(tmp_path):
    with pytest.raises(ParameterError, match=r"uint8 \[H, W, 3\], not float64 \[4, 5, 3\]"):
        write_film(tmp_path / "film.gif", [np.zeros((4, 5, 3))])


def test_where_opencv_fails_an_old_film_stays(tmp_path, monkeypatch):
    path = tmp_path / "film.gif"
    path.write_bytes(b"old")
    monkeypatch.setattr(cv2, "imwriteanimation", lambda *_: False)
    with pytest.raises(OutputError, match=r"1 frames as \.gif"):
        write_film(path, frames((4, 5)))
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
