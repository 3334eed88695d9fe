"""Pictures for `jobs_pictures.py`: good ones of many formats, mutations of them, and files made to break a decoder."""

import io
import os
import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from jobs_support import drawn

PNG = b"\x89PNG\r\n\x1a\n"
PASSES = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
"""Of an interlaced PNG: the first line and column, and their distances."""


def encoded(seed: int, number: int) -> dict[str, bytes]:
    """One picture in all formats and variants, by the name of the variant, which ends in the format's suffix."""
    from PIL import Image

    draw = np.random.default_rng((seed, number))
    pixels = drawn(draw, int(draw.integers(24, 140)), int(draw.integers(24, 140)))
    one = Image.fromarray(pixels)
    turned = [one.rotate(angle) for angle in (90, 180)]
    wide = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    exif = one.getexif()
    exif[0x0112] = 6
    made = {
        "plain.jpg": (one, "JPEG", {"quality": 88}),
        "progressive.jpg": (one, "JPEG", {"progressive": True, "optimize": True}),
        "grey.jpg": (one.convert("L"), "JPEG", {}),
        "cmyk.jpg": (one.convert("CMYK"), "JPEG", {}),
        "turned.jpg": (one, "JPEG", {"exif": exif}),
        "plain.png": (one, "PNG", {}),
        "alpha.png": (one.convert("RGBA"), "PNG", {}),
        "palette.png": (one.quantize(64), "PNG", {}),
        "sixteen.png": (wide, "PNG", {}),
        "plain.webp": (one, "WEBP", {"quality": 80}),
        "lossless.webp": (one, "WEBP", {"lossless": True}),
        "moving.webp": (one, "WEBP", {"save_all": True, "append_images": turned}),
        "plain.bmp": (one, "BMP", {}),
        "palette.bmp": (one.quantize(16), "BMP", {}),
        "plain.tif": (one, "TIFF", {}),
        "lzw.tif": (one, "TIFF", {"compression": "tiff_lzw"}),
        "deflate.tif": (one, "TIFF", {"compression": "tiff_adobe_deflate"}),
        "pages.tif": (one, "TIFF", {"save_all": True, "append_images": turned}),
        "plain.gif": (one.quantize(128), "GIF", {}),
        "moving.gif": (one.quantize(32), "GIF", {"save_all": True, "append_images": turned}),
    }
    found = {}
    for name, (picture, kind, options) in made.items():
        buffer = io.BytesIO()
        picture.save(buffer, kind, **options)
        found[name] = buffer.getvalue()
    found["interlaced.png"] = interlaced_png(pixels)
    return found


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    width: int, height: int, data: bytes, depth: int = 8, colour: int = 2, interlace: int = 0, *, more: Any = ()
) -> bytes:
    """A PNG whose pixels are this compressed data."""
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)
    return PNG + chunk(b"IHDR", head) + b"".join(more) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def interlaced_png(pixels: Any) -> bytes:
    """A picture as a PNG in seven passes, which Pillow doesn't write."""
    lines = b""
    for top, left, down, right in PASSES:
        for line in pixels[top::down, left::right]:
            if line.size:
                lines += b"\0" + line.tobytes()
    height, width = pixels.shape[:2]
    return png(width, height, zlib.compress(lines), interlace=1)


def zeros(size: int) -> bytes:
    """So many zero bytes, compressed."""
    packer, left, found = zlib.compressobj(9), size, b""
    while left:
        part = min(left, 1 << 24)
        found += packer.compress(bytes(part))
        left -= part
    return found + packer.flush()


def mutated(data: bytes, others: list[bytes], draw: random.Random) -> bytes:
    """A file with one or several things wrong."""
    changed = bytearray(data)
    for _ in range(draw.choice([1, 1, 1, 2, 4])):
        draw.choice(MUTATIONS)(changed, others, draw)
    return bytes(changed)


def _flip_bits(data: bytearray, _: list[bytes], draw: random.Random) -> None:
    for _turn in range(draw.choice([1, 3, 30])):
        if data:
            data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)


def _in_head(data: bytearray, _: list[bytes], draw: random.Random) -> None:
    for _turn in range(draw.randint(1, 6)):
        if data:
            data[draw.randrange(min(len(data), 64))] = draw.choice([0, 1, 127, 128, 255, draw.randrange(256)])


def _cut(data: bytearray, _: list[bytes], draw: random.Random) -> None:
    del data[draw.randrange(len(data) + 1) :]


def _take_out(data: bytearray, _: list[bytes], draw: random.Random) -> None:
    at = draw.randrange(len(data) + 1)
    del data[at : at + draw.randint(1, 200)]


def _put_in(data: bytearray, _: list[bytes], draw: random.Random) -> None:
    at = draw.randrange(len(data) + 1)
    data[at:at] = draw.randbytes(draw.randint(1, 100))


def _repeat(data: bytearray, _: list[bytes], draw: random.Random) -> None:
    at = draw.randrange(len(data) + 1)
    part = data[at : at + draw.randint(1, 400)]
    data[at:at] = part * draw.randint(1, 20)


def _splice(data: bytearray, others: list[bytes], draw: random.Random) -> None:
    other = draw.choice(others)
    at = draw.randrange(len(data) + 1)
    data[at:] = other[draw.randrange(len(other)) :]


def _large_number(data: bytearray, _: list[bytes], draw: random.Random) -> None:
    at = draw.randrange(max(1, len(data) - 4))
    number = draw.choice([0, 0xFFFFFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFF, 65500, 30000])
    data[at : at + 4] = struct.pack(draw.choice(["<I", ">I"]), number)


MUTATIONS: tuple[Callable[[bytearray, list[bytes], random.Random], None], ...] = (
    _flip_bits,
    _in_head,
    _cut,
    _take_out,
    _put_in,
    _repeat,
    _splice,
    _large_number,
)


Entry = tuple[int, int, int, int]


def tiff(entries: list[Entry], data: bytes = b"", following: int = 0) -> bytes:
    """A TIFF with one directory at byte 8: tag, type, count and value of each entry; `data` comes after it."""
    body = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return (
        b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(entries)) + body + struct.pack("<I", following) + data
    )


def _tiff_of(side: int, compression: int, rows: int, size: int, at: int = 8 + 2 + 12 * 10 + 4) -> list[Entry]:
    return [
        (256, 4, 1, side),
        (257, 4, 1, side),
        (258, 3, 1, 8),
        (259, 3, 1, compression),
        (262, 3, 1, 1),
        (273, 4, 1, at),
        (277, 3, 1, 1),
        (278, 4, 1, rows),
        (279, 4, 1, size),
        (284, 3, 1, 1),
    ]


def jpeg_of_scans(plain: bytes, scans: int) -> bytes:
    """A progressive JPEG one of whose scans is there many times."""
    starts = [at for at in range(len(plain) - 1) if plain[at] == 0xFF and plain[at + 1] == 0xDA]
    if len(starts) < 2:
        return plain
    return plain[: starts[1]] + plain[starts[0] : starts[1]] * scans + plain[starts[1] :]


def bmp(width: int, height: int, bits: int, data: bytes = b"") -> bytes:
    """A BMP of this size, in runs where a pixel has 8 bits."""
    head = struct.pack("<IIIIiiHHIIiiII", 70, 0, 54, 40, width, height, 1, bits, int(bits == 8), 0, 0, 0, 0, 0)
    return b"BM" + head + data


def gif(width: int, height: int, frame: tuple[int, int], frames: int) -> bytes:
    """A GIF of a screen of one size with frames of another."""
    picture = b"\x21\xf9\x04\0\0\0\0\0" + b"\x2c" + struct.pack("<HHHHB", 0, 0, *frame, 0) + b"\x02\x02\x4c\x01\0"
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6) + picture * frames + b"\x3b"


def gif_of_frames(one: bytes, frames: int) -> bytes:
    """A GIF whose only frame is there many times."""
    start = 13 + 3 * 2 ** ((one[10] & 7) + 1) if one[10] & 0x80 else 13
    return one[:start] + one[start:-1] * frames + one[-1:]


def bombs(seed: int = 0) -> dict[str, Callable[[], bytes]]:
    """Files that are small and want much: their names, and what makes them."""
    samples = encoded(seed, 0)
    progressive, animation = samples["progressive.jpg"], bytearray(samples["moving.webp"])
    a_row = zlib.compress(bytes(1 + 3 * 64) * 64)
    both = [*_tiff_of(60_000, 8, 60_000, 1_000_000), (256, 4, 1, 64), (257, 4, 1, 64)]
    animation[24:30] = b"\xff\x17\x00\xff\x17\x00"
    return {
        "30000.png": lambda: png(30_000, 30_000, zeros(30_000 * 3751), 1, 0),
        "more-than-said.png": lambda: png(64, 64, zeros(1_000_000_000)),
        "text.png": lambda: png(64, 64, a_row, more=[chunk(b"zTXt", b"Comment\0\0" + zeros(1_000_000_000))]),
        "profile.png": lambda: png(64, 64, a_row, more=[chunk(b"iCCP", b"icc\0\0" + zeros(500_000_000))]),
        "texts.png": lambda: png(64, 64, a_row, more=[chunk(b"tEXt", b"k\0" + b"v" * 100)] * 100_000),
        "at-the-limit.png": lambda: png(6300, 6300, zeros(6300 * (1 + 3 * 6300))),
        "wide-at-the-limit.png": lambda: png(6300, 6300, zeros(6300 * (1 + 8 * 6300)), 16, 6),
        "interlaced-at-the-limit.png": lambda: png(6300, 6300, zeros(6400 * (1 + 3 * 6400)), 8, 2, 1),
        "strip.tif": lambda: tiff(_tiff_of(64, 1, 64, 0xFFFFFFF0), bytes(4096)),
        "strip-elsewhere.tif": lambda: tiff(_tiff_of(64, 1, 64, 4096, at=0xFFFFFF00), bytes(4096)),
        "loop.tif": lambda: tiff(_tiff_of(64, 1, 64, 4096), bytes(4096), following=8),
        "deflate.tif": lambda: tiff(_tiff_of(64, 8, 64, 1_000_000), zeros(900_000_000)),
        "two-sizes.tif": lambda: tiff(both, zeros(100_000_000)),
        "tiles.tif": lambda: tiff(
            [*_tiff_of(64, 8, 64, 4096), (322, 4, 1, 1 << 30), (323, 4, 1, 1 << 30)], bytes(4096)
        ),
        "canvas.webp": lambda: bytes(animation),
        "size.webp": lambda: samples["plain.webp"][:4] + b"\xff\xff\xff\x7f" + samples["plain.webp"][8:],
        "frames.gif": lambda: gif_of_frames(samples["plain.gif"], 5000),
        "screen.gif": lambda: gif(65_535, 65_535, (1, 1), 1),
        "frame.gif": lambda: gif(64, 64, (65_535, 65_535), 1),
        "scans.jpg": lambda: jpeg_of_scans(progressive, 4000),
        "two-frames.jpg": lambda: _second_frame(samples["plain.jpg"]),
        "flat.bmp": lambda: bmp(0x7FFFFFFF, 1, 24, bytes(16)),
        "upside-down.bmp": lambda: bmp(64, -(1 << 31), 24),
        "packed.bmp": lambda: bmp(6000, 6000, 8, b"\xff\0" * 9),
    }


def _second_frame(data: bytes) -> bytes:
    at = data.index(b"\xff\xc0")
    size = 2 + struct.unpack(">H", data[at + 2 : at + 4])[0]
    frame = bytearray(data[at : at + size])
    frame[5:9] = b"\xff\xdc\xff\xdc"
    return data[: at + size] + bytes(frame) + data[at + size :]


def strange_files(folder: Path) -> list[Path]:
    """Files that are no files: pipes, devices, links to themselves, and one that is far too long."""
    os.mkfifo(folder / "pipe.jpg")
    (folder / "zero.png").symlink_to("/dev/zero")
    (folder / "random.jpg").symlink_to("/dev/urandom")
    (folder / "nothing.png").symlink_to(folder / "not-there.png")
    (folder / "itself.png").symlink_to(folder / "itself.png")
    with open(folder / "long.jpg", "wb") as file:
        file.truncate(60_000_000)
    (folder / "empty.gif").touch()
    return sorted(folder.iterdir())
