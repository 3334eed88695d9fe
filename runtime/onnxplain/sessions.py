"""onnxruntime sessions on a bundle's graphs: opened when first needed, few at a time, shared between threads."""

import ctypes
import functools
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from onnxplain.bundle import Bundle, Graph
from onnxplain.bundle_files import refuse_replaced
from onnxplain.errors import BundleError, ModelError
from onnxplain.providers import CPU, NO_FALLBACK, Place, Provider, confirm, place_of
from onnxplain.ready_graphs import ReadyGraphs
from onnxplain.runtime import onnxruntime
from onnxplain.system import threads_of_a_run

Array = NDArray[Any]
Found = TypeVar("Found")

# forward and the graphs of two methods; each holds its own copy of what onnxruntime repacks for its kernels.
MOST_OPEN = 3
# onnxruntime's several messages for memory that can't be had: the arena's, C++'s, CUDA's own and its libraries'. Whole
# phrases, since a message also quotes names of nodes and values, which may be anything.
OUT_OF_MEMORY = re.compile(
    r"Failed to allocate memory for requested buffer of size \d+|Available memory of \d+ is smaller than requested"
    r"|\bstd::bad_alloc\s*$|\bbad allocation\s*$|CUDA (?:error|failure) 2: ?out of memory|cudaErrorMemoryAllocation"
    r"|\bCU(?:BLAS|DNN|SOLVER|FFT)_STATUS_ALLOC_FAILED\b|\bCUFFT_ALLOC_FAILED\b",
    re.MULTILINE,
)
# Of its error codes, those that say what is wrong with the model or its inputs.
OTHER_CODES = re.compile(r"^\[ONNXRuntimeError\] : \d+ : (?:INVALID|NO_SUCH|NO_MODEL|NOT_IMPL|MODEL_|ENGINE|EP_)")
GROW_AFTER = 16
"""Runs at a size that memory was found for, after which twice that size is tried again."""


# An Identity of one number: a run of it is the way to tell the arena to shrink.
NOTHING = (
    b'\x08\n\x12\x00:=\n\x10\n\x01x\x12\x01y"\x08Identity\x12\x07nothingZ\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04\n'
    b"\x02\x08\x01b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x04\n\x00\x10\x14"
)


class MemoryRanOutError(ModelError):
    """A run needed more memory than there is; one of fewer rows may succeed."""


def ran_out(error: Exception) -> bool:
    """Whether an error of a run means that memory couldn't be had, and nothing else."""
    text = str(error)
    return isinstance(error, MemoryError) or (not OTHER_CODES.search(text) and bool(OUT_OF_MEMORY.search(text)))


class EndedError(Exception):
    """Nobody wants what a run would find any more."""


class Sessions:
    """The open sessions of one bundle; safe to use from several threads."""

    def __init__(
        self, bundle: Bundle, providers: Sequence[Provider], threads: int | None, ready: ReadyGraphs | None = None
    ) -> None:
        self._bundle, self._providers, self._threads, self._ready = bundle, providers, threads, ready
        self.place = place_of(providers)
        self._open: OrderedDict[str, Any] = OrderedDict()
        self._lock = threading.Lock()
        self._shape_of_work: tuple[Any, ...] | None = None
        self._running, self._tidy = "", False
        self.ended: threading.Event | None = None  # once it is set, no other run begins
        self._limits: dict[str, tuple[int, int]] = {}  # most rows, and how many runs of late were of that size

    def run(self, graph: Graph, outputs: Sequence[str], feeds: Mapping[str, Array]) -> list[Array]:
        """Runs a graph once; ModelError where it fails on these inputs, saying so if memory is what was missing."""
        return self.attempt(graph, lambda session, options: session.run(list(outputs), dict(feeds), options))

    def attempt(self, graph: Graph, run: Callable[[Any, Any], Found]) -> Found:
        """What `run` gives, called with a graph's session and the options of its run; errors as for run."""
        if self.ended is not None and self.ended.is_set():
            raise EndedError
        session = self._session(graph)
        self._turn_to(graph)
        try:
            return run(session, self.run_options())
        except Exception as error:  # onnxruntime's exceptions have no common base; KeyboardInterrupt passes
            if ran_out(error):
                raise MemoryRanOutError(f"memory ran out in a run of {graph.file}") from error
            raise ModelError(f"the graph {graph.file} failed: {str(error).splitlines()[0]}") from error

    def run_options(self) -> Any:
        """How runs on an accelerator keep to a bound on memory: each gives back what it took, another graph may follow.

        On a CPU all sessions share an arena, which `begin` and `_turn_to` shrink.
        """
        return shrinking(self.place) if self._tidy and self.place is not None else None

    def most_rows(self, graph: Graph) -> int | None:
        """The most rows of a run for which there was memory of late; None where it never ran out."""
        with self._lock:
            return self._limits[graph.name][0] if graph.name in self._limits else None

    def too_many(self, graph: Graph, rows: int) -> None:
        """Takes note that memory ran out in a run of so many rows: half of them is the most for now."""
        with self._lock:
            self._limits[graph.name] = (max(1, rows // 2), 0)
            if self.place is not None:  # an accelerator's sessions have an arena each; closed, they give theirs back
                self._open = OrderedDict((name, one) for name, one in self._open.items() if name == graph.name)
        give_back_memory()

    def enough(self, graph: Graph, rows: int) -> None:
        """Takes note that there was memory for a run of so many rows; after several at the limit, that is doubled."""
        with self._lock:
            if graph.name not in self._limits:
                return
            most, runs = self._limits[graph.name]
            if 2 * rows > most:
                runs += 1
                self._limits[graph.name] = (2 * most, 0) if runs == GROW_AFTER else (most, runs)

    def begin(self, graph: Graph, images: int, memory: float | str | None = None) -> None:
        """Says what the next runs are of: if another graph or size than the last, whose memory won't be reused then.

        Under a bound (`memory`) that goes for every further graph that they take, too.
        """
        before, self._shape_of_work = self._shape_of_work, (graph.name, images, memory)
        if before not in (None, self._shape_of_work):
            give_back_memory()
        self._running, self._tidy = graph.name, memory is not None

    def _turn_to(self, graph: Graph) -> None:
        before, self._running = self._running, graph.name
        if self._tidy and before != graph.name:
            give_back_memory()

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
        file = self._bundle.file_of(graph)
        session = None
        if self._ready is not None and list(self._providers) == [CPU]:
            session = self._ready.session(graph, lambda: session_options(self._threads))
        try:
            if session is None:
                options = session_options(self._threads)
                providers = list(self._providers)
                session = onnxruntime.InferenceSession(str(file), options, providers=providers, **NO_FALLBACK)
        except Exception as error:  # as in run
            refuse_replaced(self._bundle)
            first = str(error).splitlines()[0]
            raise BundleError(f"onnxruntime {onnxruntime.__version__} can't open {file}: {first}") from error
        if self._ready is not None:
            self._ready.check()
        refuse_replaced(self._bundle)
        give_back_freed()  # opening leaves a quarter of what it took behind
        confirm(session, self._providers)
        missing = {entry.name for entry in graph.inputs} ^ {entry.name for entry in session.get_inputs()}
        if missing:
            raise BundleError(f"{file} and explainer.json disagree about the inputs {', '.join(sorted(missing))}")
        return session


WHOLE_PRODUCTS = ("session.qdq_matmulnbits_accuracy_level", "1")
"""Else onnxruntime 1.32 rounds what enters a dense layer of quantised weights to 8 bits: up to 1 % of a score."""


def session_options(threads: int | None = None) -> Any:
    """The settings of every session here, chosen for little memory: half of the defaults', at the same speed."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what goes wrong comes as an exception; warnings are about the exporter's work
    options.intra_op_num_threads = threads_of_a_run(threads)
    # Else a session's threads look for work for tens of milliseconds after its run, on cores that the next one needs.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.add_session_config_entry(*WHOLE_PRODUCTS)
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
    # A free block up to 64 KB too large is handed out whole; onnxruntime's own limit of 128 MB wastes a tenth.
    config = onnxruntime.OrtArenaCfg({"arena_extend_strategy": same_as_requested, "max_dead_bytes_per_chunk": 65536})
    try:
        onnxruntime.create_and_register_allocator(memory, config)
    except Exception:  # somebody else in this process has registered one; ours are then the usual arenas
        return False
    return True


def give_back_memory() -> None:
    """Returns to the system what earlier runs left in the arena that all sessions share."""
    options = onnxruntime.RunOptions()
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    _nothing().run(None, {"x": np.zeros(1, np.float32)}, options)
    give_back_freed()


@functools.cache
def shrinking(place: Place) -> Any:
    """Options with which a run gives its device's memory back when it ends; None where onnxruntime can't do that."""
    options = onnxruntime.RunOptions()
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", place.arena)
    session = onnxruntime.InferenceSession(NOTHING, session_options(1), providers=place.providers, **NO_FALLBACK)
    try:
        session.run(None, {"x": np.zeros(1, np.float32)}, options)
    except Exception as error:  # it knows no such arena; then what runs took stays with their sessions
        if ran_out(error):
            raise
        return None
    return options


def give_back_freed() -> None:
    """Returns to the system what the C library has freed but kept."""
    trim = _trim()
    if trim is not None:
        trim(0)


@functools.cache
def _trim() -> Any:
    """The C library's call that returns freed memory to the system, where it has one (glibc keeps up to 64 MB)."""
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return None


@functools.cache
def _nothing() -> Any:
    return onnxruntime.InferenceSession(NOTHING, session_options(1), providers=["CPUExecutionProvider"])


def cast(array: Array, dtype: str) -> Array:
    """The array in a graph input's dtype, contiguous."""
    return np.ascontiguousarray(array, np.dtype(dtype))
