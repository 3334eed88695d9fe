"""Pictures are found, read as a person sees them, and refused with their name when they can't be."""

import io
import os
import struct
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import skimage
from PIL import Image, ImageOps

from onnxplain.errors import OutputError, PictureError
from onnxplain.picture_header import picture_size
from onnxplain.pictures import find_pictures, png_bytes, read_picture, write_png

COFFEE = Path(skimage.__file__).parent / "data" / "coffee.png"
# Lossless ones are read exactly; the other decoders differ from Pillow's by rounding at most.
FORMATS = {"PNG": 0, "BMP": 0, "TIFF": 0, "WEBP": 3, "JPEG": 3, "GIF": 0}


@pytest.fixture(scope="module")
def photograph():
    with Image.open(COFFEE) as picture:
        return picture.convert("RGB").crop((100, 50, 251, 150))


def encoded(picture, kind, **options):
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def written(folder, data, name="picture"):
    path = folder / name
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_is_read_by_its_content(tmp_path, photograph, kind):
    data = encoded(photograph, kind)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
    pixels = read_picture(written(tmp_path, data, "misnamed.txt"))
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert np.abs(pixels - expected).max() <= FORMATS[kind]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_cameras_orientation_is_applied_unless_told_otherwise(tmp_path, photograph, kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = written(tmp_path, encoded(photograph, kind, exif=exif))
    with Image.open(path) as picture:
        expected = np.asarray(ImageOps.exif_transpose(picture)).astype(int)
        stored = np.asarray(picture).astype(int)
    assert np.abs(read_picture(path) - expected).max() <= 3
    assert np.abs(read_picture(path, upright=False) - stored).max() <= 3


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1"])
def test_grey_alpha_and_palette_become_rgb_as_in_pillow(tmp_path, photograph, mode):
    picture = photograph.convert(mode)
    if mode in ("LA", "RGBA"):
        picture.putalpha(Image.linear_gradient("L").resize(picture.size))
    path = written(tmp_path, encoded(picture, "PNG"))
    np.testing.assert_array_equal(read_picture(path), np.asarray(picture.convert("RGB")))


def test_sixteen_bits_become_eight_by_rounding(tmp_path):
    values = np.array([[0, 128, 129, 257, 385, 386, 32768, 65535]], np.uint16)
    path = written(tmp_path, encoded(Image.fromarray(values), "PNG"))
    np.testing.assert_array_equal(read_picture(path)[0, :, 0], [0, 0, 1, 1, 1, 2, 128, 255])


def test_a_cmyk_jpeg_is_read_as_colour(tmp_path):
    picture = Image.new("RGB", (32, 32), (200, 60, 30))
    pixels = read_picture(written(tmp_path, encoded(picture.convert("CMYK"), "JPEG", quality=95)))
    np.testing.assert_allclose(pixels.mean(axis=(0, 1)), (200, 60, 30), atol=6)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("kept", [0.3, 0.9])
def test_a_cut_off_file_is_an_error_and_keeps_stderr_free_of_opencv(tmp_path, photograph, kind, kept, capfd):
    data = encoded(photograph, kind)
    path = written(tmp_path, data[: int(len(data) * kept)], "holiday.jpg")
    with pytest.raises(PictureError, match=r"holiday\.jpg: .*damaged"):
        read_picture(path)
    assert "global" not in capfd.readouterr().err


def test_opencvs_own_log_level_is_put_back_by_the_last_of_two_threads(photograph, tmp_path, monkeypatch):
    import cv2
    from cv2.utils import logging

    path = written(tmp_path, encoded(photograph, "PNG"))
    before = logging.getLogLevel()
    both_inside = threading.Barrier(2, timeout=10)
    decode = cv2.imdecode

    def decode_together(*arguments):
        both_inside.wait()
        return decode(*arguments)

    monkeypatch.setattr(cv2, "imdecode", decode_together)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(read_picture, [path, path])
    np.testing.assert_array_equal(first, second)
    assert logging.getLogLevel() == before


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "empty"),
        (b"hello, I am text", "not a picture"),
        (b"\xff\xd8\xff", "not a picture"),
        (b"RIFF1234WAVE", "not a"),
    ],
)
def test_what_is_no_picture_is_named(tmp_path, data, says):
    with pytest.raises(PictureError, match=rf"odd\.png: .*{says}"):
        read_picture(written(tmp_path, data, "odd.png"))


def test_missing_files_and_folders_are_named(tmp_path):
    with pytest.raises(PictureError, match=r"gone\.jpg: .*No such file"):
        read_picture(tmp_path / "gone.jpg")
    with pytest.raises(PictureError, match="is a folder"):
        read_picture(tmp_path)


def test_a_pipe_is_refused_instead_of_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(PictureError, match="not a regular file"):
        read_picture(tmp_path / "pipe.png")


def test_a_bomb_is_refused_before_it_is_decoded(tmp_path):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 9000, 9000, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes(9000 * (9000 // 8 + 1)), 9)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    assert len(bomb) < 20_000
    with pytest.raises(PictureError, match=r"9000x9000 pixels; the limit is 40"):
        read_picture(written(tmp_path, bomb))


def test_a_file_that_is_too_large_is_refused(tmp_path):
    path = tmp_path / "large.png"
    with open(path, "wb") as file:
        file.truncate(50_000_001)
    with pytest.raises(PictureError, match="larger than 50 MB"):
        read_picture(path)


HEADERS = {
    "PNG": {},
    "JPEG": {"progressive": True, "comment": b"\xff\xc0" * 40},
    "GIF": {},
    "BMP": {},
    "TIFF": {},
    "WEBP": {"lossless": False},
    "WEBP lossless": {"lossless": True},
    "WEBP extended": {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0"},
}


@pytest.mark.parametrize("kind", HEADERS)
def test_the_size_is_known_from_the_header_alone(photograph, kind):
    data = encoded(photograph, kind.split()[0], **HEADERS[kind])
    name, height, width = picture_size(data)
    assert (name.upper(), height, width) == (kind.split()[0], 100, 151)


@pytest.mark.parametrize("between", [b"", b"\xff", b"\xff\xff", b"\0", b"\xff\x01"])
def test_a_jpegs_tables_and_padding_are_not_taken_for_its_size(between):
    table = b"\xff\xc4" + struct.pack(">H", 19) + bytes(17)
    frame = b"\xff\xc0" + struct.pack(">HBHH", 17, 8, 100, 151)
    assert picture_size(b"\xff\xd8" + table + between + frame) == ("JPEG", 100, 151)


def test_damaged_headers_are_never_a_crash(photograph):
    """Every prefix of every format, and seeded damage, gives an answer or None."""
    rng = np.random.default_rng(0)
    for kind in FORMATS:
        data = encoded(photograph, kind)
        for end in range(80):
            picture_size(data[:end])
        for _ in range(200):
            hurt = np.frombuffer(data[:400], np.uint8).copy()
            hurt[rng.integers(3, len(hurt), 8)] = rng.integers(0, 256, 8)
            picture_size(hurt.tobytes())


@pytest.fixture
def album(tmp_path):
    for name in ("b.jpg", "a.PNG", "notes.txt", "inner/c.webp", ".hidden.jpg", ".cache/d.png", "inner/deeper/e.tif"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (["."], ["a.PNG", "b.jpg", "inner/c.webp", "inner/deeper/e.tif"]),
        (["inner", "b.jpg"], ["inner/c.webp", "inner/deeper/e.tif", "b.jpg"]),
        (["*"], ["a.PNG", "b.jpg"]),
        (["**/*.webp"], ["inner/c.webp"]),
        (["notes.txt"], ["notes.txt"]),
        (["b.jpg", "*.jpg", "."], ["b.jpg", "a.PNG", "inner/c.webp", "inner/deeper/e.tif"]),
    ],
    ids=str,
)
def test_files_folders_and_patterns_are_found_once_and_in_order(album, wanted, found):
    names = [path.relative_to(album).as_posix() for path in find_pictures([album / name for name in wanted])]
    assert names == found
    assert find_pictures(str(album / "b.jpg")) == [album / "b.jpg"]


@pytest.mark.parametrize(
    ("wanted", "says"),
    [("gone.jpg", "no such file"), ("*.heic", "no pictures in this pattern"), ("empty", "this folder")],
)
def test_nothing_found_is_an_error_that_names_the_path(album, wanted, says):
    (album / "empty").mkdir()
    with pytest.raises(PictureError, match=says) as error:
        find_pictures([album / wanted])
    assert wanted in str(error.value)


def test_no_paths_at_all_is_an_error():
    with pytest.raises(PictureError, match="no pictures"):
        find_pictures([])


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(tmp_path):
    path = tmp_path / "holiday[1].jpg"
    path.touch()
    assert find_pictures([path]) == [path]


@pytest.mark.parametrize("shape", [(5, 7, 3), (5, 7)], ids=str)
def test_a_written_png_is_read_back_by_others(tmp_path, shape):
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    write_png(tmp_path / "out.png", pixels)
    with Image.open(tmp_path / "out.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), pixels)
    assert os.listdir(tmp_path) == ["out.png"]


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = written(tmp_path, b"old", "out.png")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OutputError, match="No space left"):
        write_png(path, np.zeros((4, 4, 3), np.uint8))
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["out.png"]


def test_a_missing_output_folder_is_named(tmp_path):
    with pytest.raises(OutputError, match="nowhere"):
        write_png(tmp_path / "nowhere" / "out.png", np.zeros((4, 4, 3), np.uint8))


def test_what_is_no_picture_is_not_written():
    with pytest.raises(OutputError, match="float64"):
        png_bytes(np.zeros((4, 4, 3)))
