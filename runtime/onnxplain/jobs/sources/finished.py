"""What the finished shards of a job say of their pictures, so that a source that gives others now is found out."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from onnxplain.jobs import shards


class Finished:
    """The hashes of the pictures that were explained, by number.

    There are at least `least` pictures in the source, and no more than `most` where a shard that isn't full shows it.
    """

    def __init__(self, out: Path, numbers: Sequence[int], size: int) -> None:
        self._out, self._numbers, self._size = out, frozenset(numbers), size
        self._shard, self._hashes = -1, dict[int, str]()
        self.least, self.most = 0, None if not numbers else self._count(max(numbers))
        if self.most is not None:
            self.least = self.most
            self.most = self.most if self.most % size else None

    def sha256(self, number: int) -> str | None:
        """The SHA-256 of a picture that was explained, None for any other."""
        shard = number // self._size
        if shard not in self._numbers:
            return None
        if shard != self._shard:
            lines = shards.lines(shards.shard_folder(self._out, shard) / shards.INDEX)
            self._shard, self._hashes = shard, {line["number"]: line["sha256"] for line in lines}
        return self._hashes.get(number)

    def sample(self, before: int) -> Iterator[int]:
        """The first and the last picture of each finished shard, of those before a number."""
        for shard in sorted(self._numbers):
            self.sha256(shard * self._size)  # takes the shard's hashes in
            for number in sorted({min(self._hashes, default=before), max(self._hashes, default=before)}):
                if number < before:
                    yield number

    def _count(self, last: int) -> int:
        """The number of pictures up to the end of a shard."""
        folder = shards.shard_folder(self._out, last)
        there = sum(1 for name in (shards.INDEX, shards.FAILURES) for _ in shards.lines(folder / name))
        return last * self._size + there
