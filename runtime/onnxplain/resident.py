"""Runs whose images, baselines and sums stay on an accelerator, from which a group's sums come back once.

Elsewhere each run is handed its images anew, and what it gives is added on this machine; the numbers are the same.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain import summing
from onnxplain.bundle import Graph, GraphInput
from onnxplain.errors import ModelError
from onnxplain.planner import Chunk
from onnxplain.providers import NO_FALLBACK, Place, confirm
from onnxplain.runtime import onnxruntime
from onnxplain.sessions import MemoryRanOutError, Sessions, cast, ran_out, session_options
from onnxplain.summing import Feed

Array = NDArray[Any]
Values = list[Any]
"""onnxruntime's OrtValues, which may lie in a device's memory."""

DOUBLE = 11
"""ONNX's number of float64."""
# sum = total + Cast(part, to=float64), of any shapes that broadcast; between the two lies the number of part's type.
# Opset 20, IR 10.
ADDING = (
    b'\x08\n:j\n\x1d\n\x04part\x12\x04wide"\x04Cast*\t\n\x02to\x18\x0b\xa0\x01\x02\n\x17\n\x05total\n\x04wide\x12\x03sum'
    b'"\x03Add\x12\x06addingZ\r\n\x05total\x12\x04\n\x02\x08\x0bZ\x0c\n\x04part\x12\x04\n\x02\x08',
    b"b\x0b\n\x03sum\x12\x04\n\x02\x08\x0bB\x04\n\x00\x10\x14",
)
# Added to anything it gives just that, to a zero of either sign, too.
NOTHING_YET = np.array(-0.0)


def accumulate(
    sessions: Sessions, graph: Graph, outputs: Sequence[str], feeds: Mapping[str, Feed], chunks: Iterable[Chunk]
) -> Iterator[tuple[Chunk, list[Array] | None]]:
    """As summing.accumulate, and on the accelerator where the sessions have one."""
    if sessions.place is None:
        yield from summing.accumulate(sessions, graph, outputs, feeds, chunks)
        return
    there = Resident(sessions, graph, outputs, feeds, sessions.place)
    sums: Values = []
    for chunk in chunks:
        parts = there.run_chunk(chunk)
        sums = parts if chunk.first else there.added(sums, parts)
        yield chunk, down(sums) if chunk.last else None


def running(
    sessions: Sessions, graph: Graph, outputs: Sequence[str], feeds: Mapping[str, Feed]
) -> Callable[[Chunk], object]:
    """A function that runs a chunk as accumulate does, so that one can see how long that takes."""
    if sessions.place is None:
        return functools.partial(summing.run_chunk, sessions, graph, outputs, feeds)
    return Resident(sessions, graph, outputs, feeds, sessions.place).run_chunk


class Resident:
    """The runs of one graph in one call, whose feeds and outputs lie at a place.

    What a run shares with the one before it isn't copied there again.
    """

    def __init__(
        self, sessions: Sessions, graph: Graph, outputs: Sequence[str], feeds: Mapping[str, Feed], place: Place
    ) -> None:
        self._sessions, self._graph, self._outputs, self._feeds = sessions, graph, outputs, feeds
        self._place = place
        self._images = slice(0)
        self._kept: dict[str, Any] = {}  # by input: those for all images, and those for `_images`

    def run_chunk(self, chunk: Chunk) -> Values:
        """The outputs of a run of one chunk; of several smaller ones where memory doesn't suffice."""
        return summing.in_halves(self._sessions, self._graph, chunk, self._run, self.added, self._stacked)

    def added(self, sums: Values, parts: Values) -> Values:
        """The sums with further terms, in float64."""
        return [self._add(total, part) for total, part in zip(sums, parts, strict=True)]

    def _run(self, chunk: Chunk) -> Values:
        inputs = self._inputs(chunk)
        return self._sessions.attempt(
            self._graph, lambda session, options: bound_run(session, self._place, inputs, self._outputs, options)
        )

    def _inputs(self, chunk: Chunk) -> dict[str, Any]:
        """What a run of the chunk is fed, by the names of the graph's inputs."""
        if chunk.images != self._images:
            own = {entry.name for entry in self._graph.inputs if self._feed(entry).per_image}
            self._kept = {name: value for name, value in self._kept.items() if name not in own}
            self._images = chunk.images
        inputs = {}
        for entry in self._graph.inputs:
            value = self._kept.get(entry.name)
            if value is None:
                feed = self._feed(entry)
                value = self._up(cast(feed.cut(chunk), entry.dtype))
                if not feed.per_step:
                    self._kept[entry.name] = value
            inputs[entry.name] = value
        return inputs

    def _feed(self, entry: GraphInput) -> Feed:
        return summing.feed_of(self._graph, entry, self._feeds)

    def _up(self, array: Array) -> Any:
        try:
            return onnxruntime.OrtValue.ortvalue_from_numpy(array, self._place.device, self._place.number)
        except Exception as error:  # onnxruntime's exceptions have no common base
            if ran_out(error):
                raise MemoryRanOutError(f"memory ran out for what {self._graph.file} is fed") from error
            raise

    def _add(self, total: Any, part: Any) -> Any:
        if total.element_type() != DOUBLE:
            total = self._sum(onnxruntime.OrtValue.ortvalue_from_numpy(NOTHING_YET), total)
        return self._sum(total, part)

    def _sum(self, total: Any, part: Any) -> Any:
        try:
            session = adding(self._place, part.element_type())
            options = self._sessions.run_options()
            return bound_run(session, self._place, {"total": total, "part": part}, ["sum"], options)[0]
        except Exception as error:  # as above
            if not ran_out(error):
                raise ModelError(f"adding up failed: {str(error).splitlines()[0]}") from error
        # This machine has more memory; onnxruntime takes it from there where it is fed next.
        before, further = down([total, part])
        return onnxruntime.OrtValue.ortvalue_from_numpy(np.add(before, further, dtype=np.float64))

    def _stacked(self, before: Values, after: Values, first: Chunk, second: Chunk) -> Values:
        """Memory ran out, and what was found for the two halves of some images is put together on this machine."""
        whole = summing.one_below_the_other(down(before), down(after), first, second)
        return [onnxruntime.OrtValue.ortvalue_from_numpy(part) for part in whole]


def down(values: Values) -> list[Array]:
    """The values as arrays of this machine."""
    # Of a value that lies in this machine's memory, numpy() is a view that doesn't keep it.
    return [value.numpy().copy() if value.device_name() == "cpu" else value.numpy() for value in values]


def bound_run(
    session: Any, place: Place, inputs: Mapping[str, Any], outputs: Sequence[str], options: Any = None
) -> Values:
    """Runs a session on values wherever they lie; its outputs stay at the place."""
    binding = session.io_binding()
    for name, value in inputs.items():
        binding.bind_ortvalue_input(name, value)
    for name in outputs:
        binding.bind_output(name, place.device, place.number)
    session.run_with_iobinding(binding, options)
    found = list(binding.get_outputs())
    binding.clear_binding_inputs()  # outputs keep the binding, which would keep what was fed
    return found


@functools.cache
def adding(place: Place, part: int) -> Any:
    """The session that adds parts of the type with this number to sums."""
    session = onnxruntime.InferenceSession(
        ADDING[0] + bytes([part]) + ADDING[1], session_options(1), providers=place.providers, **NO_FALLBACK
    )
    confirm(session, place.providers)
    return session
