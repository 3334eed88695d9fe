"""A job's shards made by the actors of a Ray cluster: same folder, same shards, same bytes as on one machine.

The job's folder and its pictures must be readable under the same paths by all nodes. An actor takes some neighbouring
shards at a time. What a node that dies had finished is there; Ray gives the rest to another actor.
"""

import os
import uuid
from collections.abc import Callable, Container
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxplain.errors import OutputError, ParameterError
from onnxplain.jobs import shards
from onnxplain.jobs.items import Source
from onnxplain.jobs.listing import Listing

if TYPE_CHECKING:
    from onnxplain.jobs.job import Job

SPANS_PER_ACTOR = 8
"""More make up better for nodes of different speed, and each costs a start of the decoding processes."""


class ShardActor:
    """What an actor holds: the job, opened once."""

    def __init__(self, arguments: dict[str, Any]) -> None:
        from onnxplain.jobs.job import Job

        self._job = Job(**arguments)
        self._job.lanes_here = 1
        self._token = f"-{uuid.uuid4().hex[:12]}"

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Makes the shards of the batch's spans that aren't there; how many pictures were explained, and failed."""
        explained = failed = 0

        def notice(more: int, lost: int) -> None:
            nonlocal explained, failed
            explained, failed = explained + more, failed + lost

        for start, stop in zip(batch["start"].tolist(), batch["stop"].tolist(), strict=True):
            there = set(shards.finished(self._job.out))
            if not set(range(start, stop)) <= there:
                source = Listing(self._job.out, ())
                self._job.make_shards(source, there, notice, slice(start, stop), self._token)
        return {"explained": np.array([explained]), "failed": np.array([failed])}


def make_with_ray(job: "Job", source: Source, done: Container[int], notice: Callable[[int, int], None]) -> None:
    """Makes the shards that aren't done, on the cluster that Ray is connected to, or on one of this machine."""
    try:
        import ray
    except ImportError as error:
        raise OutputError('the engine ray needs Ray: pip install "onnxplain[ray]"') from error
    if not isinstance(source, Listing):
        raise ParameterError(
            "the engine ray takes pictures in files; use ExplainBatch with Ray's own readers for others"
        )
    actors = job.running.lanes
    count = -(-source.count // job.output.shard_size)
    left = [number for number in range(count) if number not in done]
    if not left:
        return
    spans = _spans(left, max(1, -(-len(left) // (actors * SPANS_PER_ACTOR))))
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    if not ray.is_initialized():
        ray.init(log_to_driver=False, include_dashboard=False)
    on_gpu = job.on_gpu
    made = ray.data.from_items([{"start": start, "stop": stop} for start, stop in spans]).repartition(len(spans))
    made = made.map_batches(
        ShardActor,
        batch_size=1,
        fn_constructor_args=(job.for_actors(),),
        concurrency=actors,
        num_cpus=0 if on_gpu else job.running.threads,
        num_gpus=1 if on_gpu else 0,
    )
    for row in made.iter_rows():
        notice(int(row["explained"]), int(row["failed"]))


def _spans(numbers: list[int], most: int) -> list[tuple[int, int]]:
    """Neighbouring numbers together, at most so many, as (first, past the last)."""
    spans: list[tuple[int, int]] = []
    for number in numbers:
        if spans and spans[-1][1] == number and number - spans[-1][0] < most:
            spans[-1] = (spans[-1][0], number + 1)
        else:
            spans.append((number, number + 1))
    return spans
