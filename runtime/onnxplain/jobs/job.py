"""A batch job: explains any number of pictures, survives interruption, and leaves a folder that other tools read."""

import collections
import itertools
import math
import os
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from onnxplain.errors import OutputError, ParameterError, unknown
from onnxplain.explainer import Explainer
from onnxplain.jobs import parquet, shards, storage
from onnxplain.jobs.description import FILE, Description, Output, Running, differences, read_description
from onnxplain.jobs.explaining import TOP, TRUE, Notice, Shard, Task
from onnxplain.jobs.inspecting import counted
from onnxplain.jobs.items import Item, Source
from onnxplain.jobs.limits import Limits
from onnxplain.jobs.listing import Listing
from onnxplain.jobs.meter import Meter
from onnxplain.jobs.pipeline import Pipeline
from onnxplain.jobs.report import write_report
from onnxplain.jobs.sources import Files, Finished, InMemory, find_source
from onnxplain.jobs.summary import SUMMARY, summarized
from onnxplain.messages import say
from onnxplain.planner import MOST_ROWS_ACCELERATED, parse_memory, useful_rows
from onnxplain.presets import split_method
from onnxplain.providers import CPU, choose, name_of
from onnxplain.runtime import onnxruntime
from onnxplain.system import cores
from onnxplain.targets import class_of
from onnxplain.version import __version__

MEMORY = 2 * 10**9
"""Bytes that a lane's runs may take unless said otherwise: not what is free, on which maps' last bits would depend."""
LEAST_BATCH = 16
LOCAL, RAY = "local", "ray"
ENGINES = (LOCAL, RAY)
EVERY = slice(0, None)


class Job:
    """Explains all pictures of a source by some methods of a bundle, and writes maps and index into a folder.

    `source`: paths of folders (with all below them), patterns, lists of files (.txt), WebDataset archives (.tar) or
    Parquet files, or any iterable of pictures or mappings. `labels` says where true classes are: "folders", "none", a
    CSV file or a mapping of names; archives and tables have their own. `columns` names the columns of tables and
    the keys of mappings: image, label, name (see onnxplain.jobs.sources). `methods` are
    names, or a mapping of names to parameters. `targets` is "top" (each picture's top class), "true" (its true one), or
    a class number or name for all. `memory` bounds what the runs add to the process, divided among the lanes.
    `max_failures`, a count or a share below 1, ends the job with an error once more pictures failed. Everything else is
    as in Output, Limits and Running; what isn't given is chosen when the job begins, and kept.

    The same job in the same folder goes on where it was interrupted; the folder's content is then the same, byte by
    byte, as if it had not been. Another one is refused.
    """

    def __init__(
        self,
        bundle: str | os.PathLike[str],
        source: Any,
        out: str | os.PathLike[str],
        methods: str | Sequence[str] | Mapping[str, Mapping[str, Any]] = "gradient",
        targets: str | int = TOP,
        *,
        labels: Any = None,
        columns: Mapping[str, str] | None = None,
        score: str | None = None,
        output: Output | None = None,
        limits: Limits | None = None,
        max_failures: int | float | None = None,
        memory: float | str | None = None,
        rows: int | None = None,
        lanes: int | None = None,
        threads: int | None = None,
        workers: int | None = None,
        device: str = "auto",
        engine: str = LOCAL,
    ) -> None:
        self._engine = engine
        if engine not in ENGINES:
            raise ParameterError(unknown("engine", str(engine), ENGINES))
        for name, value in (("lanes", lanes), ("threads", threads), ("workers", workers)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise ParameterError(f"{name}={value!r} must be a whole number of at least 1")
        self.out = Path(out)
        self.output, self._limits = output or Output(), limits or Limits()
        if self.output.format == "parquet":
            parquet.version()  # where pyarrow is missing, that is to be known before the first picture
        self._most_failures = _check_failures(max_failures)
        self._workers = workers or cores()
        by_name = _methods(methods)
        there = read_description(self.out)
        provider = name_of(choose(device)[0])
        asked = _Asked(rows, lanes, threads, memory, provider)
        self.explainer = Explainer(bundle, device, threads=1)
        self._refuse_unusable()
        running = asked.settled(self.explainer, by_name, None if there is None else there.running)
        self.explainer = Explainer(bundle, device, threads=running.threads, rows=running.rows, verify=False)
        self._prepared = self.explainer.prepared(by_name, memory=running.memory, score=score)
        self._together = math.lcm(running.rows, *self._prepared.together)
        self.running = replace(running, batch=self._together * math.ceil(LEAST_BATCH / self._together))
        opened = self.explainer.bundle
        classes = int(opened.scores.classes or opened.scores.shape[1])
        self._class_of = partial(class_of, classes=classes, labels=opened.scores.labels)
        self._targets = targets if targets in (TOP, TRUE) else self._class_of(targets)
        listed = isinstance(source, Listing)
        self._source = source if listed else find_source(source, labels, self._class_of, columns or {})
        self.lanes_here, self.on_gpu = running.lanes, provider != CPU
        self._given = {"methods": by_name, "targets": targets, "score": score, "device": device}

    def _refuse_unusable(self) -> None:
        bundle = self.explainer.bundle
        if bundle.free:
            raise ParameterError("this bundle explains values that are no classes; jobs explain classes")
        if bundle.others:
            raise ParameterError("this network has several inputs; jobs explain pictures alone")

    def run(self, progress: bool = False) -> dict[str, Any]:
        """Does what is left to do; the summary. OutputError where the folder is taken, or holds another job."""
        with storage.alone(self.out):
            source = self._begin()
            done = self._checked(progress)
            if isinstance(source, InMemory):
                source.recall(Finished(self.out, done, self.output.shard_size))
            counts = [counted(self.out, number) for number in done]
            meter = Meter(source.count, sum(pictures for pictures, _ in counts), progress)
            try:
                self._make(source, set(done), meter, sum(failed for _, failed in counts))
            finally:
                meter.close()
            return self._end()

    def for_actors(self) -> dict[str, Any]:
        """What to make this job of in another process: its pictures are those that the folder lists."""
        out = self.out.absolute()
        here = {"bundle": self.explainer.bundle.path.absolute(), "source": Listing(out, ()), "out": out}
        return {**here, **self._given, "output": self.output, "limits": self._limits, "workers": 1}

    def _begin(self) -> Source:
        """Refuses what isn't this job's folder; makes sure that the folder says whose it is."""
        there = read_description(self.out)
        if there is None:
            self._refuse_foreign()
        storage.remove_leftovers(self.out)
        source: Source
        if isinstance(self._source, Files):
            source = listing = Listing(self.out, self._source)
            listing.take()
        else:
            source, listing = self._source, None
        if source.count == 0:
            raise ParameterError("the source is empty")
        wanted = self._description(source)
        if there is None:
            if listing is not None:
                listing.keep()
            storage.write_json(self.out / FILE, wanted.plain())
        else:
            self._refuse_other(there, wanted, listing)
        return source

    def _description(self, source: Source) -> Description:
        bundle = self.explainer.bundle
        import cv2  # its decoders make the pictures

        return Description(
            bundle={"name": bundle.name, "sha256": bundle.sha256},
            methods=self._prepared.plain(),
            targets=self._targets,
            source=dict(source.describe()),
            output=self.output,
            limits=self._limits,
            running=self.running,
            versions={
                "onnxplain": __version__,
                "onnxruntime": onnxruntime.__version__,
                "opencv": cv2.__version__,
                **({"pyarrow": parquet.version()} if self.output.format == "parquet" else {}),
            },
        )

    def _refuse_foreign(self) -> None:
        found = sorted(path.name for path in self.out.iterdir())
        # A run that was ended before it wrote job.json left no more than these.
        ours = {".lock", "source.jsonl"}
        foreign = [name for name in found if name not in ours and not name.startswith(storage.TEMPORARY)]
        if foreign:
            raise OutputError(f"{self.out} holds {foreign[0]} and no job; choose another folder")

    def _refuse_other(self, there: Description, wanted: Description, listing: Listing | None) -> None:
        found = differences(there, wanted)
        if not found:
            if listing is not None:
                listing.keep()  # the same, and whole: the one that is there may have been altered
            return
        if listing is not None:
            if any(line.startswith("source.") for line in found):
                found.append(listing.first_difference())
            listing.drop()
        raise OutputError(
            f"{self.out} holds another job; continue that one, or choose another folder: {'; '.join(found)}"
        )

    def _checked(self, progress: bool) -> list[int]:
        """The finished shards that are whole; one that isn't is removed, to be made again."""
        folder = self.out / shards.FOLDER
        if folder.is_dir():
            storage.remove_leftovers(folder)
        good = []
        there = shards.finished(self.out)
        if there and progress:
            say(f"checking {len(there):,} finished shards")
        for number in there:
            path = shards.shard_folder(self.out, number)
            if shards.damage(path, number) is None:
                good.append(number)
            else:
                storage.remove(path)
        return good

    def _make(self, source: Source, done: set[int], meter: Meter, before: int) -> None:
        """Makes the shards that aren't done; `before` is how many pictures failed in those that are."""
        limit = self._limit(source.count)

        def notice(explained: int, errors: Sequence[str]) -> None:
            meter.add(explained, len(errors))
            failed = before + meter.failed
            if limit is not None and failed > limit and errors:
                raise OutputError(f"{failed} pictures failed, more than the {limit} of max_failures; now {errors[-1]}")

        if self._engine == RAY:
            from onnxplain.jobs.ray_engine import make_with_ray  # ray is an extra, and takes a second to load

            make_with_ray(self, source, done, notice)
            storage.remove_leftovers(self.out / shards.FOLDER)  # an actor that died leaves its unfinished shard
        else:
            self.make_shards(source, done, notice)

    def make_shards(
        self,
        source: Source,
        done: Container[int],
        notice: Notice,
        span: slice = EVERY,
        token: str = "",
    ) -> None:
        """Makes those of the shards in `span` that aren't done.

        `token` tells this process's unfinished folders from those of others that work on the same job.
        """
        bundle = self.explainer.bundle
        methods = list(self._prepared.plain())
        labels, output = bundle.scores.labels, self.output
        task = Task(self.out, methods, self._targets, output, labels, self._together, self._prepared, notice, token)
        row = tuple(size if isinstance(size, int) else 1 for size in bundle.image.shape[1:])
        running, dtype = self.running, bundle.image.dtype
        pipeline = Pipeline(
            bundle.path, self._limits, self._workers, self.lanes_here, running.batch, row, dtype, partial(Shard, task)
        )
        self.explainer.until(pipeline.ended)
        try:
            pipeline.run(_shards(source, done, output.shard_size, span))
        finally:
            self.explainer.until(None)

    def _limit(self, count: int | None) -> int | None:
        most = self._most_failures
        if most is None or isinstance(most, int):
            return most
        return None if count is None else int(most * count)

    def _end(self) -> dict[str, Any]:
        """Writes what is of all shards together; the summary last, since it says that all is there."""
        storage.remove(self.out / SUMMARY)
        numbers, methods = shards.finished(self.out), list(self._prepared.plain())
        about = {"bundle": self.explainer.bundle.name, "methods": methods, "targets": self._targets}
        summary = summarized(self.out, numbers, about, methods)
        share = self._most_failures
        if isinstance(share, float) and summary["failed"] > share * summary["pictures"]:  # of a source without a count
            raise OutputError(f"{summary['failed']} of {summary['pictures']} pictures failed, more than {share:.2%}")
        write_report(self.out, numbers, summary)
        storage.write_json(self.out / SUMMARY, summary)
        return summary


def _shards(source: Source, done: Container[int], size: int, span: slice) -> Iterator[tuple[int, int, Iterator[Item]]]:
    """The shards of the span that are to be made: number, number of the first picture, pictures.

    The pictures of one are to be gone through before the next is asked for.
    """
    number = next(number for number in itertools.count(span.start or 0) if number not in done)
    items = source.items(number * size)
    while span.stop is None or number < span.stop:
        first = next(items, None)
        if first is None:
            return
        rest = itertools.islice(items, size - 1)
        if number in done:
            collections.deque(rest, maxlen=0)  # passed over
        else:
            yield number, number * size, itertools.chain([first], rest)
        number += 1


def _methods(methods: Any) -> dict[str, Mapping[str, Any]]:
    if isinstance(methods, str):
        return {methods: {}}
    if isinstance(methods, Mapping):
        return dict(methods)
    found: dict[str, Mapping[str, Any]] = {name: {} for name in methods}
    if not found:
        raise ParameterError("no method was named")
    return found


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is asked for of the runs; what isn't is as the job has it that is there, or as it suits."""

    rows: int | None
    lanes: int | None
    threads: int | None
    memory: float | str | None
    provider: str

    def settled(self, explainer: Explainer, methods: Mapping[str, Any], there: Running | None) -> Running:
        """How the job runs, but for the size of its batches."""
        everything, on_cpu = cores(), self.provider == CPU
        usual = there or Running(everything if on_cpu else 1, 1 if on_cpu else everything, 0, MEMORY, 0, self.provider)
        lanes, threads = self.lanes or usual.lanes, self.threads or usual.threads
        rows = self.rows or usual.rows or (_rows(explainer, methods, threads) if on_cpu else MOST_ROWS_ACCELERATED)
        memory = usual.memory if self.memory is None else parse_memory(self.memory) // lanes
        return Running(lanes, threads, rows, memory, 0, self.provider)


def _rows(explainer: Explainer, methods: Mapping[str, Any], threads: int) -> int:
    """How many rows a run should have, by what the methods' graphs take for each."""
    explainer.prepared(methods)  # names that aren't there are told of
    graphs = [explainer.bundle.graphs[explainer.bundle.methods[split_method(name, None)[0]].graph] for name in methods]
    return min(useful_rows(graph.bytes_per_row, threads) for graph in graphs)


def _check_failures(most: Any) -> int | float | None:
    if most is None:
        return None
    if (
        isinstance(most, bool)
        or not isinstance(most, int | float)
        or most < 0
        or (isinstance(most, float) and most >= 1)
    ):
        raise ParameterError(f"max_failures={most!r} must be a count, or a share below 1")
    return most
