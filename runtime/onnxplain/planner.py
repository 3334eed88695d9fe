"""How many rows enter the network in one run, and which images and steps share a run.

A method is a sum over steps, so any split gives the same map; only memory and speed depend on it.
"""

import itertools
import math
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from onnxplain.errors import ParameterError
from onnxplain.system import free_memory

# On two cores with 32 MB of cache, a row of MobileNetV2's gradient (30 MB) takes 11.8 ms in runs of 2, 13.8 in runs
# of 4 and 16.6 in runs of 16; of a small network's (2 MB) 1.7 ms in runs of 1, 1.2 in runs of 2 and 1.0 from 8 rows on.
MOST_ROWS = 16
LEAST_ROWS = 2
BEST_BYTES = 64 * 10**6
# An accelerator needs more at once to be busy.
MOST_ROWS_ACCELERATED = 64
# Of the memory that is free now; the rest is for the pictures, the sums, and whoever else is on the machine.
SAFE_SHARE = 0.5
UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
FRESH = 0.1
"""Seconds for which an amount of free memory holds: reading it takes half a millisecond, as long as a small map."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one run of a graph takes: some of the images, some of the steps; the `first` or `last` of these images."""

    images: slice
    steps: slice
    first: bool
    last: bool

    @property
    def rows(self) -> int:
        """Images times steps."""
        return (self.images.stop - self.images.start) * (self.steps.stop - self.steps.start)

    def halves(self) -> tuple["Chunk", "Chunk"]:
        """The same in two parts: of the steps where there are several, else of the images."""
        several = self.steps.stop - self.steps.start > 1
        whole = self.steps if several else self.images
        middle = (whole.start + whole.stop) // 2
        parts = slice(whole.start, middle), slice(middle, whole.stop)
        if several:
            return replace(self, steps=parts[0], last=False), replace(self, steps=parts[1], first=False)
        return replace(self, images=parts[0]), replace(self, images=parts[1])


def chunks(images: int, steps: int, rows: int, alike: bool = False, shared: bool = False) -> Iterator[Chunk]:
    """Runs of at most `rows` rows (images times steps) that cover everything; the steps of the same images together.

    They take all steps of few images, or with `shared` few steps of as many images as make the fewest runs: what is
    drawn for a step is then drawn once for these. With `alike` all have the same number of rows where that is possible
    with no more than twice as many runs.
    """
    together = _most_together(images, steps, rows) if shared else max(1, rows // steps)
    for image_part in _split(images, together, alike):
        taken = image_part.stop - image_part.start
        for step_part in _split(steps, max(1, rows // taken), alike):
            chunk = Chunk(image_part, step_part, step_part.start == 0, step_part.stop == steps)
            yield chunk
            if image_part.start == step_part.start == 0:
                rows = chunk.rows  # no later run finds the memory of the first too small


def _most_together(images: int, steps: int, rows: int) -> int:
    """The most images for each run with which the runs are as few as they can be."""

    def runs(together: int) -> int:
        groups = -(-images // together)
        fewer, larger = divmod(images, groups)
        most = -(-images // groups)
        first = -(-steps // (rows // most))  # runs of the first group, none of which is smaller than a later one
        return larger * first + (groups - larger) * -(-steps // (most * -(-steps // first) // fewer))

    return min(range(min(images, rows), 0, -1), key=runs, default=1)


def _split(total: int, most: int, alike: bool = False) -> list[slice]:
    """Slices of nearly equal length, none longer than `most`, the longer ones first: later runs reuse their memory.

    With `alike` there are up to twice as many if that makes them equal.
    """
    count = -(-total // most)
    if alike:
        count = next((parts for parts in range(count, min(2 * count, total) + 1) if parts and not total % parts), count)
    shorter, longer = divmod(total, count) if count else (0, 0)
    edges = [number * shorter + min(number, longer) for number in range(count + 1)]
    return [slice(low, high) for low, high in itertools.pairwise(edges)]


def rows_per_run(
    bytes_per_row: int,
    memory: float | str | None,
    targets: int = 1,
    most: int = MOST_ROWS,
    beside: int = 0,
    free: int | None = None,
) -> int:
    """How many images times steps fit in one run; ParameterError where `memory` is less than a single row needs.

    Each takes a row for each target; a run has no more than `most` rows. `beside` is what the call needs in any case,
    and `free` what is free where the runs take place, if that isn't this machine's memory.
    """
    need = max(1, bytes_per_row * targets)
    useful = max(1, most // targets)
    fits = (room(memory, free) - beside) // need
    if fits < 1 and memory is not None:
        megabytes = math.ceil((need + beside) / 1e5) / 10
        raise ParameterError(f"memory={memory!r} is too little: one run of one image needs {megabytes} MB")
    return max(1, min(fits, useful))


def useful_rows(bytes_per_row: int, threads: int, most: int = MOST_ROWS) -> int:
    """How many rows a run on a CPU should have: beyond what its caches hold, each costs more."""
    return min(most, max(LEAST_ROWS, threads, BEST_BYTES // max(1, bytes_per_row)))


def room(memory: float | str | None, free: int | None = None) -> int:
    """Bytes that a call may add to the process: `memory`, or half of what is `free`, of this machine's unless given."""
    if memory is not None:
        return parse_memory(memory)
    return int((_LATELY.given(free_memory) if free is None else free) * SAFE_SHARE)


def images_at_once(images: int, room: int, held: int, beside: int) -> list[slice]:
    """The images of a call in groups, so that what is held for each takes at most half of the room."""
    return _split(images, max(1, (room - beside) // 2 // max(1, held)))


def parse_memory(memory: float | str) -> int:
    """Bytes from 2e9, "2GB" or "500 MB"; 1 GB is 10^9 bytes."""
    if isinstance(memory, int) and not isinstance(memory, bool):
        size = memory
    else:
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", str(memory), re.IGNORECASE)
        if match is None or match[2].upper() not in UNITS:
            raise ParameterError(f"memory={memory!r} is no amount of memory; write 2GB, 500MB, or bytes as a number")
        size = int(float(match[1]) * UNITS[match[2].upper()])
    if size < 1:
        raise ParameterError(f"memory={memory!r} must be more than 0")
    return size


class _Lately:
    """What a function gave last, for as long as it is fresh; threads that ask at the same time may all call it."""

    def __init__(self) -> None:
        self._known: tuple[Callable[[], int], int, float] | None = None

    def given(self, read: Callable[[], int]) -> int:
        """What `read` gives, or gave a moment ago."""
        known = self._known  # replaced as a whole, so that no thread sees half of it
        if known is not None and known[0] is read and time.monotonic() < known[2]:
            return known[1]
        amount = read()
        self._known = read, amount, time.monotonic() + FRESH
        return amount


_LATELY = _Lately()
