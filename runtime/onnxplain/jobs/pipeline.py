"""The work of a job: pictures are decoded ahead by processes, explained batch by batch in lanes, written as shards.

A lane is a thread with runs of its own, on one processor core each: runs of several threads would wait for each other
whenever a decoding process takes one of their cores. Batches and their places are fixed by the pictures' numbers, so
that it doesn't matter which lane or worker takes what. No lane begins a shard before the one before it is on the disk:
whatever happens, no more than a shard's work is lost.
"""

import contextlib
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from onnxplain.errors import OutputError, PictureError
from onnxplain.jobs.decoding import Decoded, Watch, Worker
from onnxplain.jobs.items import Item
from onnxplain.jobs.limits import Limits

Decode = Callable[[Item, NDArray[Any]], Decoded]


@dataclass(eq=False, slots=True)
class Batch:
    """Some consecutive pictures of one shard: from `first`, counted in the job; `place` is the first's in the shard.

    `rows` [n or more, …] are what the network takes; `found` is what a worker made of each picture, or an error.
    """

    shard: int
    place: int
    first: int
    items: list[Item]
    rows: NDArray[Any]
    last: bool
    found: list[Decoded | PictureError | None] = field(default_factory=list)
    missing: int = 0


class ShardMaker(Protocol):
    """What explains the batches of one shard and writes it."""

    def take(self, batch: Batch) -> None:
        """Explains a batch and writes its maps; called by several threads, in any order."""

    def finish(self) -> None:
        """Writes the rest and gives the shard its name."""

    def abandon(self) -> None:
        """Closes what is open after an error."""


class StoppedError(Exception):
    """Another thread has ended the work."""


class Pipeline:
    """Decoding workers, lanes, and the queues between them."""

    def __init__(
        self,
        bundle: Path,
        limits: Limits,
        workers: int,
        lanes: int,
        batch: int,
        row: Sequence[int],
        dtype: str,
        make: Callable[[int, int], ShardMaker],
    ) -> None:
        self._lanes, self._batch, self._row, self._dtype, self._make = lanes, batch, tuple(row), dtype, make
        self._workers = [Worker(bundle, limits) for _ in range(workers)]
        self._to_decode: queue.Queue[tuple[Batch, int] | None] = queue.Queue()
        self._lock = threading.Condition()
        self._ready: list[Batch] = []
        self._spare: list[NDArray[Any]] = []  # rows of batches that are done: new memory is slow
        self._open: dict[int, tuple[ShardMaker, int, bool]] = {}  # maker, batches to come, all of them counted
        self._error: BaseException | None = None
        self.ended = threading.Event()  # set by an error: whatever goes on is for nothing
        self._order: list[int] = []  # shards that aren't on the disk yet, in order
        self._fed = False
        self._finished: set[threading.Thread] = set()
        # What is decoded ahead: a batch for each lane, and one that is being filled.
        self._room = threading.Semaphore(2 * lanes + 1)

    def run(self, shards: Iterable[tuple[int, int, Iterator[Item]]]) -> None:
        """Makes shards: a number, the first picture's number, the pictures of each. Raises what any part of it did."""
        watch = Watch(self._workers)
        threads = [threading.Thread(target=self._guarded, args=(self._decoding, worker)) for worker in self._workers]
        threads += [threading.Thread(target=self._guarded, args=(self._lane,)) for _ in range(self._lanes)]
        try:
            for thread in threads:
                thread.start()
            self._feed(shards)
            self._wait(threads)
        except StoppedError:
            pass
        except BaseException as error:
            self._stop(error)
        finally:
            self._end(threads)
            watch.close()
            if isinstance(shards, Generator):  # and with it the files that it reads
                shards.close()
        if self._error is not None:
            raise self._error

    def _end(self, threads: Iterable[threading.Thread]) -> None:
        """Leaves no thread, no process and no open file behind."""
        if self._error is not None:
            for worker in self._workers:
                worker.stop()
        self._wait(threads)
        for worker in self._workers:
            worker.close()
        for maker, _, _ in self._open.values():
            with contextlib.suppress(OutputError):  # there is an error already
                maker.abandon()

    def _wait(self, threads: Iterable[threading.Thread]) -> None:
        """Waits for the threads that have begun. Python 3.11 takes one for dead whose join Ctrl-C interrupts."""
        begun = {thread for thread in threads if thread.ident is not None}
        with self._lock:
            while not begun <= self._finished:
                self._lock.wait(0.5)  # with a limit, so that Ctrl-C gets through
        for thread in begun:
            thread.join()

    def _feed(self, shards: Iterable[tuple[int, int, Iterator[Item]]]) -> None:
        for shard, first, items in shards:
            place = 0
            group: list[Item] = []
            for item in items:
                if len(group) == self._batch:
                    self._give(shard, place, first, group, last=False)
                    place, group = place + len(group), []
                group.append(item)
            if group:
                self._give(shard, place, first, group, last=True)
        with self._lock:
            self._fed = True
            self._lock.notify_all()
        for _ in self._workers:
            self._to_decode.put(None)

    def _give(self, shard: int, place: int, first: int, items: list[Item], last: bool) -> None:
        while not self._room.acquire(timeout=0.5):
            self._check()
        self._check()
        rows = self._spare.pop() if self._spare else np.zeros((self._batch, *self._row), self._dtype)
        batch = Batch(shard, place, first + place, items, rows, last, [None] * len(items), len(items))
        begun = self._open.get(shard)  # no other thread adds one, nor takes one away of which more is to come
        maker = begun[0] if begun else self._make(shard, first)
        with self._lock:
            if not begun:
                self._order.append(shard)
            waiting = self._open[shard][1] if begun else 0
            self._open[shard] = (maker, waiting + 1, last)
        for number in range(len(items)):
            self._to_decode.put((batch, number))

    def _decoding(self, worker: Worker) -> None:
        while (task := self._to_decode.get()) is not None:
            self._check()
            batch, number = task
            try:
                found: Decoded | PictureError = worker.decode(batch.items[number], batch.rows[number])
            except PictureError as error:
                self._check()  # of a worker that was stopped, it may not be the picture's matter
                found = error
            with self._lock:
                batch.found[number] = found
                batch.missing -= 1
                if not batch.missing:
                    self._ready.append(batch)
                    self._lock.notify_all()
        worker.close()

    def _lane(self) -> None:
        while (batch := self._next()) is not None:
            maker = self._open[batch.shard][0]
            maker.take(batch)
            self._spare.append(batch.rows)
            self._room.release()
            with self._lock:
                _, waiting, counted = self._open[batch.shard]
                self._open[batch.shard] = (maker, waiting - 1, counted)
                done = counted and waiting == 1
            if done:
                maker.finish()
                with self._lock:
                    del self._open[batch.shard]
                    self._order.remove(batch.shard)
                    self._lock.notify_all()

    def _next(self) -> Batch | None:
        """A decoded batch of the shard that is on, when there is one; None at the end."""
        with self._lock:
            while True:
                self._check()
                if self._order:
                    for batch in self._ready:
                        if batch.shard == self._order[0]:
                            self._ready.remove(batch)
                            return batch
                elif self._fed:
                    return None
                self._lock.wait(0.5)

    def _guarded(self, work: Callable[..., None], *arguments: Any) -> None:
        try:
            work(*arguments)
        except StoppedError:
            pass
        except BaseException as error:  # raised again by run
            self._stop(error)
        finally:
            with self._lock:
                self._finished.add(threading.current_thread())
                self._lock.notify_all()

    def _stop(self, error: BaseException) -> None:
        with self._lock:
            if self._error is None:
                self._error = error
            self.ended.set()
            self._lock.notify_all()
        for _ in self._workers:
            self._to_decode.put(None)

    def _check(self) -> None:
        if self._error is not None:
            raise StoppedError
