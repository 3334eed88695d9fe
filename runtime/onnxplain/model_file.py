"""Reads the metadata of an ONNX file from its bytes, without loading the network in it.

An ONNX file is a protocol buffer: fields of a tag (number and wire type) and a content. Of its outermost fields only
`metadata_props`, number 14, is read; the graph is skipped by its length (onnx.proto: ModelProto,
StringStringEntryProto).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

METADATA_PROPS, KEY, VALUE = 14, 1, 2
VARINT, FIXED_64, BYTES, FIXED_32 = 0, 1, 2, 5


def metadata_of(file: Path) -> dict[str, str]:
    """The names and texts in the file; ValueError for what is no ONNX file, OSError where it can't be read."""
    with file.open("rb") as stream:
        size = file.stat().st_size
        entries = [dict(_fields(stream, stream.tell() + length)) for length in _contents(stream, size)]
    return {_text(entry, KEY): _text(entry, VALUE) for entry in entries}


def _contents(stream: BinaryIO, end: int) -> Iterator[int]:
    """The length of every metadata entry, the stream standing at its beginning."""
    while stream.tell() < end:
        number, length = _tag(stream, end)
        if number == METADATA_PROPS:
            begin = stream.tell()
            yield length
            stream.seek(begin + length)
        else:
            stream.seek(length, 1)


def _fields(stream: BinaryIO, end: int) -> Iterator[tuple[int, bytes]]:
    while stream.tell() < end:
        number, length = _tag(stream, end)
        yield number, stream.read(length)


def _tag(stream: BinaryIO, end: int) -> tuple[int, int]:
    """The next field's number and how many bytes are left of its content."""
    tag = _varint(stream)
    number, kind = tag >> 3, tag & 7
    if kind == VARINT:
        _varint(stream)
        return number, 0
    length = {FIXED_64: 8, FIXED_32: 4}.get(kind, -1) if kind != BYTES else _varint(stream)
    if number == 0 or length < 0 or stream.tell() + length > end:
        raise ValueError("not an ONNX file")
    return number, length


def _varint(stream: BinaryIO) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = stream.read(1)
        if not byte:
            break
        value |= (byte[0] & 127) << shift
        if byte[0] < 128:
            return value
    raise ValueError("not an ONNX file")


def _text(entry: dict[int, bytes], number: int) -> str:
    return entry.get(number, b"").decode("utf-8")
