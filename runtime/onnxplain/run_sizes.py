"""How many rows a run of a graph takes: what was asked for, was measured or should suit; never more than fit."""

from onnxplain.bundle import Bundle, Graph
from onnxplain.calibration import Calibration
from onnxplain.holding import NOTHING, Held
from onnxplain.planner import MOST_ROWS, MOST_ROWS_ACCELERATED, rows_per_run, useful_rows
from onnxplain.providers import CPU


class RunSizes:
    """The sizes of the runs of one bundle, on a provider with so many threads; `rows` fixes them where given."""

    def __init__(self, bundle: Bundle, provider: str, threads: int, rows: int | None) -> None:
        self._on_cpu, self._threads, self._rows = provider == CPU, threads, rows
        self._most = MOST_ROWS if self._on_cpu else MOST_ROWS_ACCELERATED
        self.calibration = Calibration(bundle, provider, threads) if rows is None else None

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

        If `allowed`, how many it might take. ParameterError where `memory` isn't enough for one.
        """
        beside = graph.bytes_per_run + held.call + images * held.image
        a_row = graph.bytes_per_row + held.row // targets
        return rows_per_run(a_row, memory, targets, self._wanted(graph, targets, allowed), beside)

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
