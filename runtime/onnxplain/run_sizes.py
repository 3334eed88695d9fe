"""How many rows a run of a graph takes: what was asked for, was measured or should suit; never more than fit."""

import functools

from onnxplain import cuda_driver
from onnxplain.bundle import Bundle, Graph
from onnxplain.calibration import Calibration
from onnxplain.holding import NOTHING, Held
from onnxplain.planner import MOST_ROWS, MOST_ROWS_ACCELERATED, rows_per_run, useful_rows
from onnxplain.providers import CPU, Provider, memory_limit, name_of, place_of


class RunSizes:
    """The sizes of the runs of one bundle, on a provider with so many threads; `rows` fixes them where given."""

    def __init__(self, bundle: Bundle, provider: Provider, threads: int, rows: int | None) -> None:
        name = name_of(provider)
        self._on_cpu, self._threads, self._rows, self._place = name == CPU, threads, rows, place_of([provider])
        self._most = MOST_ROWS if self._on_cpu else MOST_ROWS_ACCELERATED
        self._limit = memory_limit(provider)
        where = name if self._place is None else f"{name} {self._place.number}"
        self.calibration = Calibration(bundle, where, threads) if rows is None else None

    def rows(
        self,
        graph: Graph,
        memory: float | str | None,
        targets: int = 1,
        held: Held = NOTHING,
        images: int = 1,
        allowed: bool = False,
    ) -> int:
        """How many images times steps a run takes, beside what is held for so many images.

        If `allowed`, how many it might take. ParameterError where `memory` isn't enough for one: it bounds what is
        held on this machine and what the runs take, on an accelerator of its own memory, together.
        """
        most = self._wanted(graph, targets, allowed)
        if memory is None and self._free_there is not None:
            beside = graph.bytes_per_run + held.call  # of the arrays that are held, only a group's sums are there
            there = rows_per_run(graph.bytes_per_row, None, targets, most, beside, self._free_there)
            here = rows_per_run(held.row // targets, None, targets, most, held.call + images * held.image)
            return min(there, here)
        beside = graph.bytes_per_run + held.call + images * held.image
        return rows_per_run(graph.bytes_per_row + held.row // targets, memory, targets, most, beside)

    @functools.cached_property
    def _free_there(self) -> int | None:
        """Bytes free on an accelerator before the first run: what runs have got, their arenas keep for the next.

        The provider's option gpu_mem_limit bounds them.
        """
        free = None if self._place is None else cuda_driver.free_memory(self._place.number)
        return min((each for each in (free, self._limit) if each is not None), default=None)

    def _wanted(self, graph: Graph, targets: int, allowed: bool) -> int:
        """Rows, each target counted."""
        if self._rows is not None:
            return self._rows * targets
        measured = self.calibration.rows(graph) if self.calibration is not None and not allowed else None
        if measured is not None:
            return measured
        return (
            self._most if allowed or not self._on_cpu else useful_rows(graph.bytes_per_row, self._threads, self._most)
        )
