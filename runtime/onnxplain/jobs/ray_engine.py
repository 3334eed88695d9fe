"""A job's shards made by the actors of a Ray cluster: same folder, same shards, same bytes as on one machine.

The job's folder and its pictures must be readable under the same paths by all nodes. An actor takes some neighbouring
shards at a time. What a node that dies had finished is there; Ray gives the rest to another actor.
"""

import os
import uuid
from collections import Counter
from collections.abc import Callable, Container, Sequence
from typing import TYPE_CHECKING, Any

from onnxplain.errors import OnnxplainError, OutputError, ParameterError
from onnxplain.jobs import shards
from onnxplain.jobs.explaining import Notice
from onnxplain.jobs.items import Source
from onnxplain.jobs.listing import Listing

if TYPE_CHECKING:
    from onnxplain.jobs.job import Job

SPANS_PER_ACTOR = 8
"""More even out nodes of different speed, and each costs a start of the decoding processes."""
MOST_DEATHS = 3
"""How many actors one span of shards may cost before the job ends."""


class ShardActor:
    """What an actor holds: the job, opened once."""

    def __init__(self, arguments: dict[str, Any]) -> None:
        from onnxplain.jobs.job import Job

        self._job = Job(**arguments)
        self._job.lanes_here = 1
        self._token = f"-{uuid.uuid4().hex[:12]}"

    def make(self, start: int, stop: int) -> tuple[int, list[str]]:
        """Makes those of the shards that aren't there; how many pictures were explained, and others' errors."""
        counts: list[int] = []
        errors: list[str] = []

        def notice(explained: int, failures: Sequence[str]) -> None:
            counts.append(explained)
            errors.extend(failures)

        there = set(shards.finished(self._job.out))
        if not set(range(start, stop)) <= there:
            self._job.make_shards(Listing(self._job.out, ()), there, notice, slice(start, stop), self._token)
        return sum(counts), errors


def make_with_ray(job: "Job", source: Source, done: Container[int], notice: Notice) -> None:
    """Makes the shards that aren't done, on the cluster that Ray is connected to, or on one of this machine."""
    if not isinstance(source, Listing):
        raise ParameterError(
            "the engine ray takes pictures in files; use ExplainBatch with Ray's own readers for others"
        )
    try:
        import ray
    except ImportError as error:
        raise OutputError('the engine ray needs Ray: pip install "onnxplain[ray]"') from error
    count = -(-source.count // job.output.shard_size)
    left = [number for number in range(count) if number not in done]
    actors = min(job.running.lanes, len(left))
    if not actors:
        return
    if not ray.is_initialized():
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")
        ray.init(log_to_driver=False, include_dashboard=False)
    one = {"num_gpus": 1, "num_cpus": 0} if job.on_gpu else {"num_cpus": job.running.threads}
    arguments = ray.put(job.for_actors())
    crew = _Crew(lambda: ray.remote(ShardActor).options(**one).remote(arguments))
    crew.work(_spans(left, max(1, len(left) // (actors * SPANS_PER_ACTOR))), actors, notice)


class _Crew:
    """Actors with one span each; one that dies is replaced, and its span begun again where it stopped."""

    def __init__(self, hire: Callable[[], Any]) -> None:
        self._hire = hire
        self._busy: dict[Any, tuple[Any, tuple[int, int]]] = {}
        self._deaths: Counter[tuple[int, int]] = Counter()

    def work(self, spans: list[tuple[int, int]], actors: int, notice: Notice) -> None:
        """Gives out all spans; raises what an actor raised."""
        import ray

        waiting = spans[::-1]
        for _ in range(min(actors, len(spans))):
            self._give(self._hire(), waiting.pop())
        try:
            while self._busy:
                (done,), _ = ray.wait(list(self._busy), num_returns=1)
                actor, span = self._busy.pop(done)
                try:
                    notice(*ray.get(done))
                except ray.exceptions.RayActorError as error:
                    actor = self._replaced(span, error)
                    waiting.append(span)
                except ray.exceptions.RayTaskError as error:
                    raise error.cause if isinstance(error.cause, OnnxplainError) else error from None
                if waiting:
                    self._give(actor, waiting.pop())
        finally:
            for actor, _ in self._busy.values():
                ray.kill(actor)

    def _give(self, actor: Any, span: tuple[int, int]) -> None:
        self._busy[actor.make.remote(*span)] = (actor, span)

    def _replaced(self, span: tuple[int, int], error: Exception) -> Any:
        self._deaths[span] += 1
        if self._deaths[span] == MOST_DEATHS:
            last = span[1] - 1
            raise OutputError(f"{MOST_DEATHS} actors died over shards {span[0]} to {last}: {error}") from error
        return self._hire()


def _spans(numbers: list[int], most: int) -> list[tuple[int, int]]:
    """Neighbouring numbers together, at most so many, as (first, past the last)."""
    spans: list[tuple[int, int]] = []
    for number in numbers:
        if spans and spans[-1][1] == number and number - spans[-1][0] < most:
            spans[-1] = (spans[-1][0], number + 1)
        else:
            spans.append((number, number + 1))
    return spans
