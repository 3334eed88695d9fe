"""What a picture file says about itself in its first bytes, so that a bomb is refused before it is decoded."""

import struct
from collections.abc import Callable

# Start-of-frame markers carry the size; C4, C8 and CC in their range are tables and extensions.
JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
JPEG_STANDALONE = frozenset({0x01, *range(0xD0, 0xD9)})


def picture_size(data: bytes) -> tuple[str, int, int] | None:
    """Return (format, height, width) of a JPEG, PNG, WebP, BMP, TIFF or GIF file, told by its first bytes, or None."""
    for name, signatures, read in FORMATS:
        if data.startswith(signatures) and (name != "WebP" or data[8:12] == b"WEBP"):
            try:
                height, width = read(data)
            except (struct.error, IndexError, ValueError):
                return None
            return name, height, width
    return None


def _png(data: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from(">II", data, 16)
    return height, width


def _jpeg(data: bytes) -> tuple[int, int]:
    at = 2
    while True:
        at = data.index(0xFF, at)
        marker = data[at + 1]
        if marker == 0xFF:  # padding
            at += 1
        elif marker in JPEG_STANDALONE:
            at += 2
        elif marker in JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", data, at + 5)
            return height, width
        else:
            at += 2 + struct.unpack_from(">H", data, at + 2)[0]


def _gif(data: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from("<HH", data, 6)
    return height, width


def _bmp(data: bytes) -> tuple[int, int]:
    old = struct.unpack_from("<I", data, 14)[0] == 12
    width, height = struct.unpack_from("<HH" if old else "<ii", data, 18)
    return abs(height), abs(width)


def _webp(data: bytes) -> tuple[int, int]:
    if data[12:16] == b"VP8X":
        return 1 + int.from_bytes(data[27:30], "little"), 1 + int.from_bytes(data[24:27], "little")
    if data[12:16] == b"VP8L":
        bits = struct.unpack_from("<I", data, 21)[0]
        return 1 + (bits >> 14 & 0x3FFF), 1 + (bits & 0x3FFF)
    width, height = struct.unpack_from("<HH", data, 26)
    return height & 0x3FFF, width & 0x3FFF


def _tiff(data: bytes) -> tuple[int, int]:
    order = "<" if data[:2] == b"II" else ">"
    start = struct.unpack_from(order + "I", data, 4)[0]
    size = {256: 0, 257: 0}
    for entry in range(struct.unpack_from(order + "H", data, start)[0]):
        tag, kind = struct.unpack_from(order + "HH", data, start + 2 + 12 * entry)
        if tag in size:
            size[tag] = struct.unpack_from(order + ("H" if kind == 3 else "I"), data, start + 10 + 12 * entry)[0]
    return size[257], size[256]


FORMATS: tuple[tuple[str, tuple[bytes, ...], Callable[[bytes], tuple[int, int]]], ...] = (
    ("PNG", (b"\x89PNG\r\n\x1a\n",), _png),
    ("JPEG", (b"\xff\xd8\xff",), _jpeg),
    ("GIF", (b"GIF87a", b"GIF89a"), _gif),
    ("BMP", (b"BM",), _bmp),
    ("WebP", (b"RIFF",), _webp),
    ("TIFF", (b"II*\0", b"MM\0*"), _tiff),
)
