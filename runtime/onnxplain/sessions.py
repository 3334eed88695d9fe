"""onnxruntime sessions on a bundle's graphs: opened when first needed, few at a time, shared between threads."""

import functools
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.bundle import Bundle, Graph
from onnxplain.errors import BundleError, ModelError
from onnxplain.providers import Provider, confirm
from onnxplain.runtime import onnxruntime

Array = NDArray[Any]

# forward and the graphs of two methods; each holds its own copy of what onnxruntime repacks for its kernels.
MOST_OPEN = 3
# Words of onnxruntime's several messages for memory that can't be had.
OUT_OF_MEMORY = ("failed to allocate memory", "bad_alloc", "out of memory", "bfcarena")


class Sessions:
    """The open sessions of one bundle; safe to use from several threads."""

    def __init__(self, bundle: Bundle, providers: Sequence[Provider], threads: int | None) -> None:
        self._bundle, self._providers, self._threads = bundle, providers, threads
        self._open: OrderedDict[str, Any] = OrderedDict()
        self._lock = threading.Lock()
        self._shape_of_work: tuple[str, int] | None = None

    def run(
        self, graph: Graph, outputs: Sequence[str], feeds: Mapping[str, Array], release: bool = False
    ) -> list[Array]:
        """Runs a graph once; ModelError where it fails on these inputs, saying so if memory is what was missing.

        With `release`, memory that earlier runs left in the arena goes back to the system.
        """
        session = self._session(graph)
        options = onnxruntime.RunOptions()
        if release:
            options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        try:
            return session.run(list(outputs), dict(feeds), options)
        except Exception as error:  # onnxruntime's exceptions have no common base; KeyboardInterrupt passes
            first = str(error).splitlines()[0]
            if any(words in str(error).lower() for words in OUT_OF_MEMORY):
                rows = next(iter(feeds.values())).shape[0]
                message = f"memory ran out in a run of {rows} images at once; give memory= to take fewer rows per run"
                raise ModelError(message) from error
            raise ModelError(f"the graph {graph.file} failed: {first}") from error

    def changes_to(self, graph: Graph, rows: int) -> bool:
        """Whether the next runs are of another graph or size than the last ones, whose memory then won't be reused."""
        before, self._shape_of_work = self._shape_of_work, (graph.name, rows)
        return before not in (None, self._shape_of_work)

    def _session(self, graph: Graph) -> Any:
        with self._lock:
            if graph.name not in self._open:
                self._open[graph.name] = self._create(graph)
                if len(self._open) > MOST_OPEN:
                    # A thread that is running it holds its own reference.
                    self._open.popitem(last=False)
            self._open.move_to_end(graph.name)
            return self._open[graph.name]

    def _create(self, graph: Graph) -> Any:
        options = session_options(self._threads)
        file = self._bundle.path / graph.file
        try:
            session = onnxruntime.InferenceSession(str(file), options, providers=list(self._providers))
        except Exception as error:  # as in run
            first = str(error).splitlines()[0]
            raise BundleError(f"onnxruntime {onnxruntime.__version__} can't open {file}: {first}") from error
        confirm(session, self._providers)
        missing = {entry.name for entry in graph.inputs} ^ {entry.name for entry in session.get_inputs()}
        if missing:
            raise BundleError(f"{file} and explainer.json disagree about the inputs {', '.join(sorted(missing))}")
        return session


def session_options(threads: int | None = None) -> Any:
    """The settings of every session here, chosen for little memory: half of the defaults', at the same speed."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors; warnings are about the exporter's work, not the user's
    if threads is not None:
        options.intra_op_num_threads = threads
    if _share_arena():
        options.add_session_config_entry("session.use_env_allocators", "1")
        # A pattern is one block for a whole run, kept for each batch size that was ever run.
        options.enable_mem_pattern = False
    return options


@functools.cache
def _share_arena() -> bool:
    """Whether all sessions of this process share an arena that grows by what is asked for, not by powers of two."""
    memory = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    same_as_requested = 1
    config = onnxruntime.OrtArenaCfg({"arena_extend_strategy": same_as_requested})
    try:
        onnxruntime.create_and_register_allocator(memory, config)
    except Exception:  # somebody else in this process has registered one; ours are then the usual arenas
        return False
    return True


def cast(array: Array, dtype: str) -> Array:
    """The array in a graph input's dtype, contiguous."""
    return np.ascontiguousarray(array, np.dtype(dtype))
